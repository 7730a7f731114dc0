#include "tests/load/lib/spread.h"

static size_t bucket_of(uint64_t us)
{
    if (us < SPREAD_STEPS)
        return (size_t)us;
    int top = 63 - __builtin_clzll(us), shift = top - 6;
    size_t at = (size_t)(shift + 1) * SPREAD_STEPS + (size_t)(us >> shift) - SPREAD_STEPS;
    size_t last = (size_t)SPREAD_OCTAVES * SPREAD_STEPS - 1;
    return at < last ? at : last;
}

/* The largest duration of a bucket. */
static uint64_t end_of(size_t bucket)
{
    if (bucket < SPREAD_STEPS)
        return bucket;
    size_t shift = bucket / SPREAD_STEPS - 1;
    return ((uint64_t)(bucket % SPREAD_STEPS + SPREAD_STEPS + 1) << shift) - 1;
}

void spread_add(struct spread *s, uint64_t us)
{
    s->buckets[bucket_of(us)]++;
    s->n++;
    s->sum_us += us;
    s->max_us = us > s->max_us ? us : s->max_us;
}

uint64_t spread_at(const struct spread *s, double share)
{
    uint64_t want = (uint64_t)(share * (double)s->n + 0.999999), seen = 0;
    for (size_t i = 0; i < sizeof s->buckets / sizeof s->buckets[0]; i++)
        if ((seen += s->buckets[i]) >= want && s->buckets[i])
            return end_of(i) < s->max_us ? end_of(i) : s->max_us;
    return s->max_us;
}
