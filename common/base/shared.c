#include "common/base/shared.h"

#include <stdatomic.h>
#include <stdlib.h>

struct shared {
    atomic_size_t holders;
    size_t n;
    char bytes[];
};

shared *shared_new(size_t n)
{
    shared *s = n < SIZE_MAX / 2 ? malloc(sizeof *s + n) : NULL;
    if (!s)
        return NULL;
    atomic_init(&s->holders, 1);
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
    return s->bytes;
}

slice shared_slice(const shared *s)
{
    return (slice){s->bytes, s->n};
}
