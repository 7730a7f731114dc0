/* What /metrics of a model worker says: the scheduler's counts, and how long its requests and steps take. */
#ifndef NUNCHI_MODEL_METRICS_H
#define NUNCHI_MODEL_METRICS_H

#include "model-svc/core.h"

void model_metrics_init(void); /* before any other, and before threads */
void model_metrics_load(const struct sched_load *l);
void model_metrics_step(uint64_t took_us); /* any thread */
void model_metrics_done(const struct sched_done *d);
void model_metrics_error(void);   /* of one that was taken */
void model_metrics_refused(void);

#endif
