/* Where in a trace a message belongs: what its receiver does for it is done there. */
#ifndef NUNCHI_TRACED_H
#define NUNCHI_TRACED_H

#include "common/trace/trace.h"
#include "common/wire/frame.h"

static inline struct trace_at traced_at(const struct wire_head *h)
{
    struct trace_at at = {.on = (h->flags & WIRE_TRACED) != 0};
    memcpy(at.trace, h->trace, sizeof at.trace);
    memcpy(at.span, h->span, sizeof at.span);
    return at;
}

#endif
