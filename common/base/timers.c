#include "common/base/timers.h"

static void place(struct timers *h, size_t i, struct loop_timer *t)
{
    h->heap[i] = t;
    t->heap_index = i;
}

static void sift_up(struct timers *h, size_t i)
{
    struct loop_timer *t = h->heap[i];
    for (; i > 1 && h->heap[i / 2]->at_us > t->at_us; i /= 2)
        place(h, i, h->heap[i / 2]);
    place(h, i, t);
}

static void sift_down(struct timers *h, size_t i)
{
    struct loop_timer *t = h->heap[i];
    for (size_t kid; (kid = 2 * i) <= h->n; i = kid) {
        if (kid < h->n && h->heap[kid + 1]->at_us < h->heap[kid]->at_us)
            kid++;
        if (h->heap[kid]->at_us >= t->at_us)
            break;
        place(h, i, h->heap[kid]);
    }
    place(h, i, t);
}

void timers_clear(struct timers *h)
{
    for (size_t i = 1; i <= h->n; i++)
        h->heap[i]->heap_index = 0;
    free(h->heap);
    *h = (struct timers){0};
}

void timers_set(struct timers *h, struct loop_timer *t, uint64_t at_us)
{
    timers_cancel(h, t);
    if (h->n + 1 >= h->cap) {
        h->cap = h->cap ? 2 * h->cap : 16;
        h->heap = xrealloc(h->heap, h->cap, sizeof(struct loop_timer *));
    }
    t->at_us = at_us < h->floor_us ? h->floor_us : at_us;
    place(h, ++h->n, t);
    sift_up(h, h->n);
}

void timers_cancel(struct timers *h, struct loop_timer *t)
{
    size_t i = t->heap_index;
    if (i == 0)
        return;
    CHECK(i <= h->n && h->heap[i] == t);
    t->heap_index = 0;
    struct loop_timer *last = h->heap[h->n--];
    if (last == t)
        return;
    place(h, i, last);
    sift_up(h, i);
    sift_down(h, last->heap_index);
}

uint64_t timers_next_us(const struct timers *h)
{
    return h->n ? h->heap[1]->at_us : UINT64_MAX;
}

void timers_run(struct timers *h, uint64_t now_us)
{
    uint64_t outer = h->floor_us; /* a callback may run a nested round */
    h->floor_us = now_us + 1;
    while (h->n > 0 && h->heap[1]->at_us <= now_us) {
        struct loop_timer *t = h->heap[1];
        timers_cancel(h, t);
        t->fn(t->ctx);
    }
    h->floor_us = outer;
}
