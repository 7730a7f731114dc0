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

/* A ticket is one thread's share of a run in one word, so that taking a part is one compare-and-swap and a late thread
 * can never take a part of a run that it has not seen: number of the run (32), end of the share (16), next part (16). */
#define TICKET(run, end, next) ((uint64_t)(run) << 32 | (uint64_t)(end) << 16 | (uint64_t)(next))
#define TICKET_END(t) ((uint32_t)((t) >> 16) & 0xffffu)
#define TICKET_NEXT(t) ((uint32_t)(t)&0xffffu)

/* What the caller hands to one thread. A line of its own: a fork moves one line to each thread, a join one back. */
struct member {
    _Alignas(CACHE_LINE) _Atomic uint64_t ticket;
    pool_fn fn; /* stable while a part of the run is not done */
    void *ctx;
    _Atomic uint32_t sleeps; /* futex: the thread sleeps on it while it is 1 */
    int index;
    pool *p;
    pthread_t thread;
};

struct pool {
    _Alignas(CACHE_LINE) _Atomic uint32_t n_done; /* futex: the caller sleeps on it */
    uint32_t n_parts, run;
    _Atomic uint32_t caller_sleeps;
    _Alignas(CACHE_LINE) _Atomic bool closing;
    int n_threads; /* with the caller */
    struct member members[];
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

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool has_parts(uint64_t ticket)
{
    return TICKET_NEXT(ticket) < TICKET_END(ticket);
}

/* Runs what is left of one share; returns how many parts that were. */
static uint32_t take_share(struct member *of, int thread)
{
    uint32_t n = 0;
    uint64_t t = atomic_load_explicit(&of->ticket, memory_order_acquire);
    while (has_parts(t)) {
        if (!atomic_compare_exchange_weak_explicit(&of->ticket, &t, t + 1, memory_order_acq_rel, memory_order_acquire))
            continue;
        of->fn(of->ctx, TICKET_NEXT(t), thread);
        n++;
        t = atomic_load_explicit(&of->ticket, memory_order_acquire);
    }
    return n;
}

/* The thread's own share, then what the others have left. True if it ran any. */
static bool take_parts(pool *p, int thread)
{
    uint32_t n = 0;
    for (int i = 0; i < p->n_threads; i++)
        n += take_share(&p->members[(thread + i) % p->n_threads], thread);
    if (!n)
        return false;
    uint32_t n_parts = p->n_parts; /* of this run: it is not over before n is counted */
    if (atomic_fetch_add(&p->n_done, n) + n == n_parts && atomic_load(&p->caller_sleeps))
        futex_wake(&p->n_done);
    return true;
}

/* Either the caller sees `sleeps` and wakes, or this thread sees the ticket that it wrote before. */
static void sleep_until_called(struct member *m)
{
    atomic_store(&m->sleeps, 1);
    if (!has_parts(atomic_load(&m->ticket)) && !atomic_load(&m->p->closing))
        futex_wait(&m->sleeps, 1);
    atomic_store(&m->sleeps, 0);
}

static void call(struct member *m)
{
    if (atomic_load(&m->sleeps) && atomic_exchange(&m->sleeps, 0))
        futex_wake(&m->sleeps);
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    int idle = 0;
    while (!atomic_load_explicit(&m->p->closing, memory_order_relaxed)) {
        if (has_parts(atomic_load_explicit(&m->ticket, memory_order_acquire)) && take_parts(m->p, m->index)) {
            idle = 0;
        } else if (++idle < SPINS_BEFORE_SLEEP) {
            pause_cpu();
        } else {
            sleep_until_called(m);
            idle = 0;
        }
    }
    return NULL;
}

/* Equal shares, the first of them one part longer. */
static void fork_parts(pool *p, pool_fn fn, void *ctx, uint32_t n_parts)
{
    uint32_t n = (uint32_t)p->n_threads, each = n_parts / n, longer = n_parts % n;
    p->run++;
    p->n_parts = n_parts;
    atomic_store_explicit(&p->n_done, 0, memory_order_relaxed);
    for (uint32_t i = 0, first = 0, end; i < n; i++, first = end) {
        struct member *m = &p->members[i];
        end = first + each + (i < longer);
        m->fn = fn;
        m->ctx = ctx;
        atomic_store(&m->ticket, TICKET(p->run, end, first));
        if (i && end > first)
            call(m);
    }
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
    fork_parts(p, fn, ctx, (uint32_t)n_parts);
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
    if (n_threads < 1 || n_threads > ENGINE_THREADS_MAX)
        return why_set(w, ERR_INVALID, "threads", "%d threads; 1 to %d are possible", n_threads,
                       ENGINE_THREADS_MAX);
    size_t bytes = sizeof(pool) + (size_t)n_threads * sizeof(struct member);
    pool *p = aligned_alloc(CACHE_LINE, (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    if (!p)
        return why_set(w, ERR_NOMEM, "threads", "no memory for %d threads", n_threads);
    *p = (pool){.n_threads = 1};
    for (int i = 0; i < n_threads; i++)
        p->members[i] = (struct member){.p = p, .index = i};
    for (int i = 1; i < n_threads; i++) {
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
    for (int i = 1; i < p->n_threads; i++) {
        call(&p->members[i]);
        pthread_join(p->members[i].thread, NULL);
    }
    free(p);
}

int pool_size(const pool *p)
{
    return p->n_threads;
}
