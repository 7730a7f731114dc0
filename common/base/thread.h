/* How many threads this process may use, and a queue of work for a few of them. The engine's compute
 * pool is its own (engine/pool.h): it spins between operators, this one sleeps. */
#ifndef NUNCHI_THREAD_H
#define NUNCHI_THREAD_H

#include "common/base/loop.h"

/* Threads that can really run: the least of the affinity mask and the cgroup (v1 or v2) CPU quota,
 * rounded up; at least 1. */
int thread_cpus(void);

typedef struct workq workq;
/* Runs work(ctx) on one of n_threads, then done(ctx) on the loop's thread. */
workq *workq_new(loop *l, int n_threads, const char *name);
/* ERR_BUSY when max_queued jobs wait already: then neither function is called. A job that an idle thread can take
 * does not wait; with max_queued 0 a job is accepted only if a thread is idle. */
int workq_add(workq *q, size_t max_queued, void (*work)(void *ctx), void (*done)(void *ctx), void *ctx) MUST_USE;
/* Every job that was accepted is worked on first, also those that still wait; their done() is delivered by the
 * loop's next round, so the loop must outlive the queue. NULL is allowed. */
void workq_free(workq *q);

#endif
