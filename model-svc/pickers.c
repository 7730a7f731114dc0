#include "model-svc/pickers.h"

#include <pthread.h>
#include <stdatomic.h>

/* More would wake more threads than rows are worth. */
#define PICKERS_MAX 8
/* Fewer are picked sooner than another thread wakes. */
#define ALONE_MAX 2

struct member {
    pickers *p;
    sampler *s;
    pthread_t thread;
};

struct pickers {
    pthread_mutex_t lock;
    pthread_cond_t begun, ended;
    struct sched_job *jobs; /* of the run under way */
    size_t n_jobs;
    atomic_size_t next; /* to be picked */
    uint64_t run;
    int n_busy; /* helpers that are not done with the run */
    bool closing;
    int n;
    struct member members[]; /* (n) the first is the caller */
};

static void pick_some(pickers *p, sampler *s)
{
    for (size_t i; (i = atomic_fetch_add(&p->next, 1)) < p->n_jobs;)
        sampler_pick(s, p->jobs[i].params, &p->jobs[i].in, &p->jobs[i].out);
}

static void *help(void *ctx)
{
    struct member *m = ctx;
    pickers *p = m->p;
    uint64_t seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->run == seen && !p->closing)
            pthread_cond_wait(&p->begun, &p->lock);
        if (p->closing)
            break;
        seen = p->run;
        pthread_mutex_unlock(&p->lock);
        pick_some(p, m->s);
        pthread_mutex_lock(&p->lock);
        if (--p->n_busy == 0)
            pthread_cond_signal(&p->ended);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

pickers *pickers_new(int n_threads, int32_t n_vocab)
{
    int n = n_threads < 1 ? 1 : n_threads > PICKERS_MAX ? PICKERS_MAX : n_threads;
    pickers *p = xcalloc(1, sizeof *p + (size_t)n * sizeof p->members[0]);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->begun, NULL);
    pthread_cond_init(&p->ended, NULL);
    p->n = n;
    for (int i = 0; i < n; i++) {
        p->members[i].p = p;
        CHECK(sampler_new(n_vocab, NULL, &p->members[i].s, NULL) == 0);
    }
    for (int i = 1; i < n; i++)
        CHECK(pthread_create(&p->members[i].thread, NULL, help, &p->members[i]) == 0);
    return p;
}

void pickers_free(pickers *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_broadcast(&p->begun);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->n; i++)
        pthread_join(p->members[i].thread, NULL);
    for (int i = 0; i < p->n; i++)
        sampler_free(p->members[i].s);
    pthread_cond_destroy(&p->ended);
    pthread_cond_destroy(&p->begun);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void pickers_run(pickers *p, struct sched_job *jobs, size_t n_jobs)
{
    bool alone = p->n == 1 || n_jobs <= ALONE_MAX;
    pthread_mutex_lock(&p->lock);
    p->jobs = jobs;
    p->n_jobs = n_jobs;
    atomic_store(&p->next, 0);
    if (!alone) {
        p->run++;
        p->n_busy = p->n - 1;
        pthread_cond_broadcast(&p->begun);
    }
    pthread_mutex_unlock(&p->lock);
    pick_some(p, p->members[0].s);
    if (alone)
        return;
    pthread_mutex_lock(&p->lock);
    while (p->n_busy > 0)
        pthread_cond_wait(&p->ended, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
