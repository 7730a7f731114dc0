#include "common/base/shared.h"

#include <stdatomic.h>
#include <stdlib.h>

struct shared {
    atomic_size_t holders;
    size_t at, n; /* of bytes, what counts */
    char bytes[];
};

shared *shared_new(size_t n)
{
    shared *s = n < SIZE_MAX / 2 ? malloc(sizeof *s + n) : NULL;
    if (!s)
        return NULL;
    atomic_init(&s->holders, 1);
    s->at = 0;
    s->n = n;
    return s;
}

shared *shared_ref(shared *s)
{
    atomic_fetch_add_explicit(&s->holders, 1, memory_order_relaxed);
    return s;
}

void shared_unref(shared *s)
{
    if (s && atomic_fetch_sub_explicit(&s->holders, 1, memory_order_acq_rel) == 1)
        free(s);
}

char *shared_bytes(shared *s)
{
    return s->bytes + s->at;
}

slice shared_slice(const shared *s)
{
    return (slice){s->bytes + s->at, s->n};
}

void shared_narrow(shared *s, slice part)
{
    size_t at = (size_t)(part.p - s->bytes);
    CHECK(atomic_load_explicit(&s->holders, memory_order_relaxed) == 1);
    CHECK(part.p >= s->bytes + s->at && at - s->at <= s->n && part.n <= s->n - (at - s->at));
    s->at = at;
    s->n = part.n;
}
