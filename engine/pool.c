#include "engine/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 50 us: longer than the gap between two operators of a step, shorter than anyone else's patience. */
#define SPINS_BEFORE_SLEEP 2000
#define CACHE_LINE 64

/* The ticket is the whole state of a run in one word, so that taking a part is one compare-and-swap and a late thread
 * can never take a part of a run that it has not seen: number of the run (32), n_parts (16), next part (16). */
#define TICKET(run, n, next) ((uint64_t)(run) << 32 | (uint64_t)(n) << 16 | (uint64_t)(next))
#define TICKET_PARTS(t) ((uint32_t)((t) >> 16) & 0xffffu)
#define TICKET_NEXT(t) ((uint32_t)(t)&0xffffu)

struct pool {
    _Alignas(CACHE_LINE) _Atomic uint64_t ticket;
    _Alignas(CACHE_LINE) _Atomic uint32_t n_done; /* futex: the caller sleeps on it */
    _Atomic uint32_t caller_sleeps;
    _Alignas(CACHE_LINE) _Atomic uint32_t n_published; /* futex: the others sleep on it */
    _Atomic uint32_t n_sleeping;
    _Atomic bool closing;
    pool_fn fn; /* stable while a part of the run is not done */
    void *ctx;
    uint32_t run;
    int n_threads; /* with the caller */
    struct member {
        pool *p;
        int index;
        pthread_t thread;
    } members[];
};

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* Runs parts until none is left to take. True if it ran any. */
static bool take_parts(pool *p, int thread)
{
    bool any = false;
    uint64_t t = atomic_load_explicit(&p->ticket, memory_order_acquire);
    while (TICKET_NEXT(t) < TICKET_PARTS(t)) {
        if (!atomic_compare_exchange_weak_explicit(&p->ticket, &t, t + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        uint32_t n = TICKET_PARTS(t);
        p->fn(p->ctx, TICKET_NEXT(t), thread);
        any = true;
        if (atomic_fetch_add(&p->n_done, 1) + 1 == n && atomic_load(&p->caller_sleeps))
            futex_wake(&p->n_done, 1);
        t = atomic_load_explicit(&p->ticket, memory_order_acquire);
    }
    return any;
}

static void sleep_until_published(pool *p, uint32_t seen)
{
    atomic_fetch_add(&p->n_sleeping, 1);
    if (!atomic_load(&p->closing))
        futex_wait(&p->n_published, seen);
    atomic_fetch_sub(&p->n_sleeping, 1);
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    pool *p = m->p;
    int idle = 0;
    while (!atomic_load_explicit(&p->closing, memory_order_relaxed)) {
        uint32_t seen = atomic_load(&p->n_published);
        if (take_parts(p, m->index)) {
            idle = 0;
        } else if (++idle < SPINS_BEFORE_SLEEP) {
            pause_cpu();
        } else {
            sleep_until_published(p, seen);
            idle = 0;
        }
    }
    return NULL;
}

static void publish(pool *p)
{
    atomic_fetch_add(&p->n_published, 1);
    if (atomic_load(&p->n_sleeping))
        futex_wake(&p->n_published, p->n_threads);
}

static void join_parts(pool *p, uint32_t n_parts)
{
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(&p->n_done, memory_order_acquire) == n_parts)
            return;
        pause_cpu();
    }
    atomic_store(&p->caller_sleeps, 1);
    for (uint32_t done; (done = atomic_load(&p->n_done)) != n_parts;)
        futex_wait(&p->n_done, done);
    atomic_store(&p->caller_sleeps, 0);
}

void pool_run(pool *p, pool_fn fn, void *ctx, size_t n_parts)
{
    CHECK(n_parts <= POOL_PARTS_MAX);
    if (p->n_threads == 1 || n_parts <= 1) {
        for (size_t i = 0; i < n_parts; i++)
            fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    atomic_store(&p->n_done, 0);
    atomic_store_explicit(&p->ticket, TICKET(++p->run, n_parts, 0), memory_order_release);
    publish(p);
    take_parts(p, 0);
    join_parts(p, (uint32_t)n_parts);
}

/* Signals belong to the loop's thread. */
static int start_member(struct member *m)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = pthread_create(&m->thread, NULL, member_main, m);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!e)
        pthread_setname_np(m->thread, "nunchi-compute");
    return e;
}

int pool_new(int n_threads, pool **out, struct why *w)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > POOL_THREADS_MAX)
        return why_set(w, ERR_INVALID, "threads", "%d threads; 1 to %d are possible", n_threads,
                       POOL_THREADS_MAX);
    size_t bytes = sizeof(pool) + (size_t)n_threads * sizeof(struct member);
    pool *p = aligned_alloc(CACHE_LINE, (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    if (!p)
        return why_set(w, ERR_NOMEM, "threads", "no memory for %d threads", n_threads);
    *p = (pool){.n_threads = 1};
    for (int i = 1; i < n_threads; i++) {
        p->members[i] = (struct member){.p = p, .index = i};
        int e = start_member(&p->members[i]);
        if (e) {
            pool_free(p);
            return why_set(w, err_from_errno(e), "threads", "thread %d of %d cannot be started", i,
                           n_threads);
        }
        p->n_threads++;
    }
    *out = p;
    return 0;
}

void pool_free(pool *p)
{
    if (!p)
        return;
    atomic_store(&p->closing, true);
    atomic_fetch_add(&p->n_published, 1);
    futex_wake(&p->n_published, p->n_threads);
    for (int i = 1; i < p->n_threads; i++)
        pthread_join(p->members[i].thread, NULL);
    free(p);
}

int pool_size(const pool *p)
{
    return p->n_threads;
}
