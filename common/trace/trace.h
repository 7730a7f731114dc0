/* What a request spent its time on, for those who collect traces (OpenTelemetry). Any code may make
 * a span and give it to trace_record: it is copied into a queue of bounded size, which a thread of
 * its own sends (export.h). Recording never waits; a full queue drops, and says how much.
 *
 * Spans say times, sizes and names of ours. Never what a user wrote. */
#ifndef NUNCHI_TRACE_H
#define NUNCHI_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/slice.h"

#define TRACE_ID_BYTES 16
#define TRACE_SPAN_BYTES 8
#define TRACE_ATTRS_MAX 8
#define TRACE_TEXT_MAX 64 /* of an attribute; the rest is cut off */

/* Where in a trace something happens. on: spans of it are wanted. */
struct trace_at {
    uint8_t trace[TRACE_ID_BYTES];
    uint8_t span[TRACE_SPAN_BYTES]; /* the parent of what is made here; zeros: none */
    bool on;
};

enum trace_kind { TRACE_INTERNAL = 1, TRACE_SERVER = 2, TRACE_CLIENT = 3 }; /* OTLP's numbers */

struct trace_attr {
    const char *key; /* static */
    bool is_text;
    int64_t number;
    char text[TRACE_TEXT_MAX];
};

struct trace_span {
    uint8_t trace[TRACE_ID_BYTES], id[TRACE_SPAN_BYTES], parent[TRACE_SPAN_BYTES];
    const char *name; /* static */
    enum trace_kind kind;
    uint64_t start_us, end_us; /* of the monotonic clock */
    int err;                   /* 0: it went well; enum err */
    struct trace_attr attrs[TRACE_ATTRS_MAX];
    size_t n_attrs;
};

/* Begins *s below `at`. Its id depends on trace, parent and n alone: n is another one for each
 * child of one parent in this process. */
void trace_begin(struct trace_span *s, const struct trace_at *at, uint64_t n, const char *name,
                 enum trace_kind kind, uint64_t now_us);
/* The same on the heap, for what lasts: NULL unless at->on, which the other functions take as well
 * and do nothing. */
struct trace_span *trace_new(const struct trace_at *at, uint64_t n, const char *name,
                             enum trace_kind kind, uint64_t now_us);
void trace_end(struct trace_span *s, uint64_t now_us); /* records it, and frees it */
/* Beyond TRACE_ATTRS_MAX they are left out. */
void trace_int(struct trace_span *s, const char *key, int64_t v);
void trace_text(struct trace_span *s, const char *key, slice v);
/* Where children of *s are. */
struct trace_at trace_inside(const struct trace_span *s);
/* Whether a trace of this id is one of `ratio` (0 to 1) of all: the same answer everywhere
 * (TraceIdRatioBased). */
bool trace_chosen(const uint8_t trace[TRACE_ID_BYTES], double ratio);

/* Thread-safe. Does nothing while nobody collects. */
void trace_record(const struct trace_span *s);
bool trace_on(void); /* somebody collects */

#endif
