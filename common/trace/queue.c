#include "common/trace/queue.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static struct {
    pthread_mutex_t lock;
    pthread_cond_t some;
    struct trace_span *ring; /* (TRACE_QUEUE_MAX) */
    size_t first, n;
    uint64_t dropped;
    atomic_bool open;
} q = {.lock = PTHREAD_MUTEX_INITIALIZER, .some = PTHREAD_COND_INITIALIZER};

void trace_queue_start(void)
{
    pthread_mutex_lock(&q.lock);
    if (!q.ring)
        q.ring = xcalloc(TRACE_QUEUE_MAX, sizeof *q.ring);
    q.first = q.n = 0;
    q.dropped = 0;
    atomic_store(&q.open, true);
    pthread_mutex_unlock(&q.lock);
}

void trace_queue_end(void)
{
    pthread_mutex_lock(&q.lock);
    atomic_store(&q.open, false);
    pthread_cond_broadcast(&q.some);
    pthread_mutex_unlock(&q.lock);
}

bool trace_queue_open(void)
{
    return atomic_load_explicit(&q.open, memory_order_relaxed);
}

void trace_queue_put(const struct trace_span *s)
{
    if (!trace_queue_open())
        return;
    pthread_mutex_lock(&q.lock);
    if (q.n == TRACE_QUEUE_MAX) {
        q.dropped++;
    } else {
        q.ring[(q.first + q.n++) % TRACE_QUEUE_MAX] = *s;
        if (q.n == 1)
            pthread_cond_signal(&q.some);
    }
    pthread_mutex_unlock(&q.lock);
}

static struct timespec in_ms(unsigned ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

size_t trace_queue_take(struct trace_span *out, size_t max, unsigned ms)
{
    struct timespec until = in_ms(ms);
    pthread_mutex_lock(&q.lock);
    while (q.n == 0 && atomic_load(&q.open))
        if (pthread_cond_clockwait(&q.some, &q.lock, CLOCK_MONOTONIC, &until) != 0)
            break;
    size_t n = q.n < max ? q.n : max;
    for (size_t i = 0; i < n; i++)
        out[i] = q.ring[(q.first + i) % TRACE_QUEUE_MAX];
    q.first = (q.first + n) % TRACE_QUEUE_MAX;
    q.n -= n;
    pthread_mutex_unlock(&q.lock);
    return n;
}

uint64_t trace_queue_dropped(void)
{
    pthread_mutex_lock(&q.lock);
    uint64_t n = q.dropped;
    pthread_mutex_unlock(&q.lock);
    return n;
}
