/* The thread that owns the engine: loads the model, then computes one step at a time. Nothing else
 * touches the engine, but for blocks that are in no step. Whoever is asked for the next step is
 * asked on this thread: two changes of threads between every two steps, on processors that the
 * engine keeps busy, cost more than planning does. */
#ifndef NUNCHI_MODEL_COMPUTE_H
#define NUNCHI_MODEL_COMPUTE_H

#include "common/base/loop.h"
#include "model-svc/core.h"

typedef struct compute compute;

struct compute_config {
    const char *model;           /* path; borrowed while it lives */
    struct engine_config engine; /* progress is set here: log lines "loading" */
    uint64_t check_us;           /* how often mapped weights are read through; 0: once */
};

struct compute_events {
    void *ctx;
    void (*loaded)(void *ctx, int err, const struct why *w); /* once, on the loop's thread */
    void (*damaged)(void *ctx, bool removed); /* checker.h; after loaded, on the loop's thread */
    /* The step is done; on the compute thread. Returns the next one, or NULL: then it sleeps until
     * compute_submit. */
    struct sched_work *(*stepped)(void *ctx, int err, const struct why *w, uint64_t took_us);
};

/* Starts the thread and the loading. Signals must be blocked already (loop_signal). */
compute *compute_start(loop *l, const struct compute_config *cfg, const struct compute_events *ev);
/* Waits for what it is doing; no callback comes after. NULL is allowed. */
void compute_stop(compute *c);

/* Valid from `loaded` with err 0 to compute_stop. */
const struct engine_info *compute_info(const compute *c);
/* For blocks that no step touches, on any thread. */
engine *compute_engine(const compute *c);
const vocab *compute_vocab(const compute *c);
struct sched_vocab compute_words(compute *c);

/* The first step, and the next one after `stepped` returned NULL; never while one is under way. The
 * work stays as it is until `stepped`. */
void compute_submit(compute *c, struct sched_work *work);

#endif
