/* Server-sent events from a byte stream cut anywhere. Sans-I/O. */
#ifndef NUNCHI_SSE_H
#define NUNCHI_SSE_H

#include "common/base/slice.h"

#define SSE_LINE_MAX (8u << 20)

struct sse {
    buf line;
    void (*data)(void *ctx, slice text);    /* the value of a data: line */
    void (*comment)(void *ctx, slice text); /* a line that begins with ':', without it */
    void *ctx;
};

/* ERR_TOO_BIG for a line beyond SSE_LINE_MAX. */
int sse_feed(struct sse *s, slice bytes) MUST_USE;
void sse_clear(struct sse *s);

#endif
