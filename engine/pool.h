/* The engine's threads: fork, join, and nothing else. The caller is thread 0. Work is cut into parts; each thread has an
 * equal share of them, in order, and takes what others have left once it is through. So a part may run on any thread at
 * any time: a result must not depend on either. A thread spins for a moment after its last part, because the next
 * operator follows within microseconds, then sleeps: idle workers of two processes on one host do not starve each other,
 * and a thread that sleeps or was descheduled holds nobody up, since the others take its parts. */
#ifndef NUNCHI_ENGINE_POOL_H
#define NUNCHI_ENGINE_POOL_H

#include <stddef.h>

#include "engine/engine.h"

#define POOL_PARTS_MAX 65535 /* of one run: two 16-bit halves share a word with the run's number */

typedef struct pool pool;
/* `thread` is below the pool's size: an index for scratch memory. */
typedef void (*pool_fn)(void *ctx, size_t part, int thread);

int pool_new(int n_threads, pool **out, struct why *w) MUST_USE; /* 1..ENGINE_THREADS_MAX, else ERR_INVALID */
void pool_free(pool *p);                                         /* NULL is allowed; joins the threads */
int pool_size(const pool *p);
/* Runs fn(ctx, 0 .. n_parts-1, thread) and returns when all parts are done. One caller at a time; fn must not call it. */
void pool_run(pool *p, pool_fn fn, void *ctx, size_t n_parts);

#endif
