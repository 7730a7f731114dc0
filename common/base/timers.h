/* The loop's timers, without a clock: a binary heap of deadlines. Cores and tests drive it with
 * times of their own. Nodes are embedded by their owners, who keep them alive while set. */
#ifndef NUNCHI_TIMERS_H
#define NUNCHI_TIMERS_H

#include "common/base/loop.h"

struct timers {
    struct loop_timer **heap; /* heap[1..n], the earliest at 1; heap[0] is unused */
    size_t n, cap;
    uint64_t floor_us; /* while callbacks run: nothing is set earlier than this */
};

void timers_clear(struct timers *h); /* the timers count as not set afterwards */
void timers_set(struct timers *h, struct loop_timer *t, uint64_t at_us); /* sets or moves */
void timers_cancel(struct timers *h, struct loop_timer *t);              /* harmless if not set */
uint64_t timers_next_us(
    const struct timers *h); /* the earliest deadline; UINT64_MAX if there is none */
/* Runs what is due at now_us, the earliest first. What a callback sets to now or to the past
 * becomes due one microsecond later, so that a timer that always sets itself again cannot keep the
 * others from their turn. */
void timers_run(struct timers *h, uint64_t now_us);

#endif
