/* Bytes with a count of those who hold them: written by who makes them, then only read, by any
 * thread, and freed by whoever lets go last. What would otherwise be copied on its way between a
 * cache, a socket's queue and an engine. */
#ifndef NUNCHI_SHARED_H
#define NUNCHI_SHARED_H

#include "common/base/slice.h"

typedef struct shared shared;

shared *shared_new(
    size_t n); /* one holder; NULL when there is no memory: sizes come from outside */
shared *shared_ref(shared *s);
void shared_unref(shared *s); /* NULL is allowed */
char *shared_bytes(shared *s);
slice shared_slice(const shared *s);
/* To a part of its bytes, while there is one holder. */
void shared_narrow(shared *s, slice part);

#endif
