#include "common/base/thread.h"

#include <pthread.h>
#include <stdio.h>

struct job {
    struct job *next;
    loop *l;
    void (*work)(void *ctx);
    void (*done)(void *ctx);
    void *ctx;
};

struct workq {
    loop *l;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct job *first, **end; /* under lock, as is all below */
    size_t n_waiting, n_idle; /* jobs not yet taken; threads without a job */
    bool closing;
    int n_threads;
    pthread_t threads[];
};

static void deliver(void *arg)
{
    struct job *j = arg;
    j->done(j->ctx);
    free(j);
}

/* NULL when the queue is closing and empty. */
static struct job *next_job(workq *q)
{
    pthread_mutex_lock(&q->lock);
    while (!q->first && !q->closing)
        pthread_cond_wait(&q->more, &q->lock);
    struct job *j = q->first;
    if (j) {
        q->first = j->next;
        if (!q->first)
            q->end = &q->first;
        q->n_waiting--;
        q->n_idle--;
    }
    pthread_mutex_unlock(&q->lock);
    return j;
}

static void *run_jobs(void *arg)
{
    workq *q = arg;
    for (struct job *j; (j = next_job(q)) != NULL;) {
        j->work(j->ctx);
        /* Idle before done() is delivered: whoever hears of the end can add the next job at once.
         */
        pthread_mutex_lock(&q->lock);
        q->n_idle++;
        pthread_mutex_unlock(&q->lock);
        loop_post(j->l, deliver, j);
    }
    return NULL;
}

workq *workq_new(loop *l, int n_threads, const char *name)
{
    CHECK(n_threads > 0);
    workq *q = xcalloc(1, sizeof *q + (size_t)n_threads * sizeof q->threads[0]);
    q->l = l;
    q->end = &q->first;
    q->n_threads = n_threads;
    q->n_idle = (size_t)n_threads;
    CHECK(pthread_mutex_init(&q->lock, NULL) == 0);
    CHECK(pthread_cond_init(&q->more, NULL) == 0);
    for (int i = 0; i < n_threads; i++) {
        char text[16]; /* the kernel's limit, with the NUL */
        CHECK(pthread_create(&q->threads[i], NULL, run_jobs, q) == 0);
        snprintf(text, sizeof text, "%.10s/%d", name, i % 1000);
        pthread_setname_np(q->threads[i], text);
    }
    return q;
}

int workq_add(workq *q, size_t max_queued, void (*work)(void *ctx), void (*done)(void *ctx),
              void *ctx)
{
    struct job *j = xcalloc(1, sizeof *j);
    *j = (struct job){.l = q->l, .work = work, .done = done, .ctx = ctx};
    pthread_mutex_lock(&q->lock);
    CHECK(!q->closing);
    /* A job that an idle thread is about to take does not wait. */
    bool full = q->n_waiting >= q->n_idle && q->n_waiting - q->n_idle >= max_queued;
    if (!full) {
        *q->end = j;
        q->end = &j->next;
        q->n_waiting++;
        pthread_cond_signal(&q->more);
    }
    pthread_mutex_unlock(&q->lock);
    if (full)
        free(j);
    return full ? ERR_BUSY : 0;
}

void workq_free(workq *q)
{
    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    q->closing = true;
    pthread_cond_broadcast(&q->more);
    pthread_mutex_unlock(&q->lock);
    for (int i = 0; i < q->n_threads; i++)
        pthread_join(q->threads[i], NULL);
    pthread_cond_destroy(&q->more);
    pthread_mutex_destroy(&q->lock);
    free(q);
}
