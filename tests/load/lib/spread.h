/* Durations in buckets of 1.6 %: fixed memory however many there are. */
#ifndef NUNCHI_LOAD_SPREAD_H
#define NUNCHI_LOAD_SPREAD_H

#include <stddef.h>
#include <stdint.h>

#define SPREAD_STEPS 64 /* buckets of an octave */
#define SPREAD_OCTAVES 36

struct spread {
    uint32_t buckets[SPREAD_OCTAVES * SPREAD_STEPS];
    uint64_t n, sum_us, max_us;
};

void spread_add(struct spread *s, uint64_t us);
/* The least duration that `share` (0 to 1) of them do not exceed, as near as the buckets tell; 0
 * when there are none. */
uint64_t spread_at(const struct spread *s, double share);

#endif
