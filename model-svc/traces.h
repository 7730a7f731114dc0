/* Spans of a model worker: a request, what it spent its time on, and the steps that it took part in. */
#ifndef NUNCHI_MODEL_TRACES_H
#define NUNCHI_MODEL_TRACES_H

#include "model-svc/core.h"

/* Traced requests whose parts of one step are recorded: beyond, each still has its phases. */
#define TRACES_PER_STEP 16

void traces_request(const struct sched_done *d);
/* The step that ended at now_us. Any thread. */
void traces_step(const struct sched_part *parts, size_t n, uint32_t rows, uint64_t now_us,
                 uint64_t took_us);

#endif
