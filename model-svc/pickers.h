/* Sampling of a step's rows on several threads: with a large vocabulary and many sequences it would
 * otherwise hold the next step up. What is picked does not depend on who picks it. Used by the
 * compute thread alone. */
#ifndef NUNCHI_MODEL_PICKERS_H
#define NUNCHI_MODEL_PICKERS_H

#include "model-svc/core.h"

typedef struct pickers pickers;

/* n_threads with the caller, at least 1. */
pickers *pickers_new(int n_threads, int32_t n_vocab);
void pickers_free(pickers *p); /* NULL is allowed */
/* Fills jobs[i].out; jobs[i].in.logits is set already. Returns when all are done. */
void pickers_run(pickers *p, struct sched_job *jobs, size_t n_jobs);

#endif
