#include "common/trace/trace.h"

#include "common/base/hash.h"
#include "common/trace/queue.h"

void trace_begin(struct trace_span *s, const struct trace_at *at, uint64_t n, const char *name,
                 enum trace_kind kind, uint64_t now_us)
{
    uint8_t seed[TRACE_ID_BYTES + TRACE_SPAN_BYTES + sizeof n];
    *s = (struct trace_span){.name = name, .kind = kind, .start_us = now_us};
    memcpy(s->trace, at->trace, TRACE_ID_BYTES);
    memcpy(s->parent, at->span, TRACE_SPAN_BYTES);
    memcpy(seed, at->trace, TRACE_ID_BYTES);
    memcpy(seed + TRACE_ID_BYTES, at->span, TRACE_SPAN_BYTES);
    memcpy(seed + TRACE_ID_BYTES + TRACE_SPAN_BYTES, &n, sizeof n);
    uint64_t id = hash64(seed, sizeof seed);
    id = id ? id : 1; /* zeros would be none */
    memcpy(s->id, &id, sizeof id);
}

struct trace_span *trace_new(const struct trace_at *at, uint64_t n, const char *name,
                             enum trace_kind kind, uint64_t now_us)
{
    if (!at->on)
        return NULL;
    struct trace_span *s = xcalloc(1, sizeof *s);
    trace_begin(s, at, n, name, kind, now_us);
    return s;
}

void trace_end(struct trace_span *s, uint64_t now_us)
{
    if (!s)
        return;
    s->end_us = now_us;
    trace_record(s);
    free(s);
}

static struct trace_attr *next_attr(struct trace_span *s, const char *key)
{
    if (!s || s->n_attrs == TRACE_ATTRS_MAX)
        return NULL;
    struct trace_attr *a = &s->attrs[s->n_attrs++];
    a->key = key;
    return a;
}

void trace_int(struct trace_span *s, const char *key, int64_t v)
{
    struct trace_attr *a = next_attr(s, key);
    if (a)
        a->number = v;
}

void trace_text(struct trace_span *s, const char *key, slice v)
{
    struct trace_attr *a = next_attr(s, key);
    if (!a)
        return;
    size_t n = v.n < TRACE_TEXT_MAX - 1 ? v.n : TRACE_TEXT_MAX - 1;
    a->is_text = true;
    memcpy(a->text, v.p, n);
    a->text[n] = 0;
}

struct trace_at trace_inside(const struct trace_span *s)
{
    struct trace_at at = {.on = true};
    memcpy(at.trace, s->trace, TRACE_ID_BYTES);
    memcpy(at.span, s->id, TRACE_SPAN_BYTES);
    return at;
}

bool trace_chosen(const uint8_t trace[TRACE_ID_BYTES], double ratio)
{
    uint64_t low = 0;
    for (int i = 8; i < TRACE_ID_BYTES; i++)
        low = low << 8 | trace[i];
    return (double)(low >> 11) < ratio * (double)(UINT64_C(1) << 53);
}

bool trace_on(void)
{
    return trace_queue_open();
}

void trace_record(const struct trace_span *s)
{
    trace_queue_put(s);
}
