#include "common/wire/pb.h"

#include <stdatomic.h>

/* Deeper than any message of ours; recursive messages are not allowed in proto/, so that the schema
 * bounds the depth. */
#define PB_DEPTH_MAX 16
#define VARINT_MAX 10
#define LENGTH_MAX 5

static _Atomic uint64_t unknown_fields;

uint64_t pb_unknown_fields(void)
{
    return atomic_load_explicit(&unknown_fields, memory_order_relaxed);
}

/* ---- the scan: every byte is looked at by the schema before protobuf-c allocates anything
 * --------------------- */

struct level {
    const ProtobufCMessageDescriptor *d;
    size_t end;    /* of this message in the input */
    uint64_t seen; /* bit per field: a field that may occur once did */
    size_t len_at; /* where its length stands in the output, and how wide */
    size_t len_width;
};

/* Reads `in`. What is known is copied to `out` (as long as the input), so that unknown fields are
 * gone from every level. */
struct scan {
    const uint8_t *in;
    size_t at, n;
    uint8_t *out;
    size_t n_out;
    size_t n_fields, n_unknown;
    struct level levels[PB_DEPTH_MAX];
    int depth; /* index of the innermost open message */
    struct why *why;
};

static int broken(struct scan *s, const char *what)
{
    return why_set(s->why, ERR_PROTO, s->levels[s->depth].d->short_name, "%s at byte %zu", what,
                   s->at);
}

/* 0, or negative. At most `max` bytes, none beyond `end`. */
static int varint(struct scan *s, size_t end, size_t max, uint64_t *v)
{
    *v = 0;
    for (size_t i = 0; i < max && s->at < end; i++) {
        uint8_t b = s->in[s->at++];
        if (i == VARINT_MAX - 1 && b > 1)
            return broken(s, "number beyond 64 bits");
        *v |= (uint64_t)(b & 0x7f) << (7 * i);
        if (!(b & 0x80))
            return 0;
    }
    return broken(s, "number without end");
}

static int skip_bytes(struct scan *s, size_t end, uint64_t n)
{
    if (n > end - s->at)
        return broken(s, "field longer than its message");
    s->at += (size_t)n;
    return 0;
}

static int wire_type_of(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

/* A singular field twice, or two members of one oneof, is legal protobuf that no packer of messages
 * writes; protobuf-c would merge them in its least tested paths. */
static int once(struct scan *s, const ProtobufCFieldDescriptor *f)
{
    struct level *top = &s->levels[s->depth];
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return 0;
    CHECK(top->d->n_fields <= 64);
    bool oneof = (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
    for (unsigned i = 0; i < top->d->n_fields; i++) {
        const ProtobufCFieldDescriptor *g = &top->d->fields[i];
        bool same = g == f || (oneof && (g->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                               g->quantifier_offset == f->quantifier_offset);
        if (same && (top->seen >> i & 1))
            return broken(s, "field given twice");
        if (g == f)
            top->seen |= UINT64_C(1) << i;
    }
    return 0;
}

static int check_packed(struct scan *s, size_t end, int element)
{
    size_t n = end - s->at, width = element == PROTOBUF_C_WIRE_TYPE_32BIT ? 4 : 8;
    if (element != PROTOBUF_C_WIRE_TYPE_VARINT)
        return n % width ? broken(s, "packed numbers cut off") : skip_bytes(s, end, n);
    uint64_t v;
    while (s->at < end) {
        int e = varint(s, end, VARINT_MAX, &v);
        if (e < 0)
            return e;
    }
    return 0;
}

static int check_string(struct scan *s, size_t n)
{
    slice text = {(const char *)s->in + s->at, n};
    if (memchr(text.p, 0, text.n) || !utf8_valid(text))
        return broken(s, "text that is not UTF-8");
    s->at += n;
    return 0;
}

static void copy_out(struct scan *s, size_t from)
{
    memcpy(s->out + s->n_out, s->in + from, s->at - from);
    s->n_out += s->at - from;
}

static int open_message(struct scan *s, const ProtobufCMessageDescriptor *d, size_t n,
                        size_t len_width)
{
    if (s->depth + 1 >= PB_DEPTH_MAX)
        return broken(s, "messages nested too deep");
    s->depth++;
    s->levels[s->depth] = (struct level){
        .d = d, .end = s->at + n, .len_at = s->n_out - len_width, .len_width = len_width};
    return 0;
}

/* What was stripped made the message shorter; its length keeps its width, padded, which is a valid
 * varint. */
static void close_message(struct scan *s)
{
    const struct level *top = &s->levels[s->depth--];
    size_t len = s->n_out - (top->len_at + top->len_width);
    for (size_t i = 0; i < top->len_width; i++) {
        bool more = i + 1 < top->len_width;
        s->out[top->len_at + i] = (uint8_t)((len & 0x7f) | (more ? 0x80 : 0));
        len >>= 7;
    }
}

static int skip_payload(struct scan *s, size_t end, int wire)
{
    uint64_t v;
    int e;
    switch (wire) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return varint(s, end, VARINT_MAX, &v);
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return skip_bytes(s, end, 8);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return skip_bytes(s, end, 4);
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        e = varint(s, end, LENGTH_MAX, &v);
        return e < 0 ? e : skip_bytes(s, end, v);
    default:
        return broken(s, "group");
    }
}

static int length_prefixed(struct scan *s, const ProtobufCFieldDescriptor *f, size_t start,
                           size_t end)
{
    uint64_t n;
    size_t len_at = s->at;
    int e = varint(s, end, LENGTH_MAX, &n);
    if (e < 0)
        return e;
    if (n > end - s->at)
        return broken(s, "field longer than its message");
    size_t len_width = s->at - len_at;
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        copy_out(s, start);
        return open_message(s, f->descriptor, (size_t)n, len_width);
    }
    if (f->type == PROTOBUF_C_TYPE_STRING)
        e = check_string(s, (size_t)n);
    else if (f->type == PROTOBUF_C_TYPE_BYTES)
        e = skip_bytes(s, end, n);
    else
        e = check_packed(s, s->at + (size_t)n, wire_type_of(f->type));
    if (e == 0)
        copy_out(s, start);
    return e;
}

static int scan_field(struct scan *s)
{
    const struct level *top = &s->levels[s->depth];
    size_t start = s->at, end = top->end;
    uint64_t tag;
    int e = varint(s, end, LENGTH_MAX, &tag);
    if (e < 0)
        return e;
    if (tag > UINT32_MAX || tag >> 3 == 0)
        return broken(s, "bad field number");
    if (++s->n_fields > PB_FIELDS_MAX)
        return why_set(s->why, ERR_TOO_BIG, top->d->short_name, "more than %d fields",
                       PB_FIELDS_MAX);
    int wire = (int)(tag & 7);
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(top->d, (unsigned)(tag >> 3));
    if (!f) {
        s->n_unknown++;
        return skip_payload(s, end, wire);
    }
    int own = wire_type_of(f->type);
    bool packed =
        wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED && f->label == PROTOBUF_C_LABEL_REPEATED;
    if (wire != own && !packed)
        return broken(s, "field of another type");
    e = once(s, f);
    if (e < 0)
        return e;
    if (wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
        return length_prefixed(s, f, start, end);
    e = skip_payload(s, end, wire);
    if (e == 0)
        copy_out(s, start);
    return e;
}

static int scan(struct scan *s, const ProtobufCMessageDescriptor *d)
{
    s->levels[0] = (struct level){.d = d, .end = s->n};
    for (;;) {
        if (s->at < s->levels[s->depth].end) {
            int e = scan_field(s);
            if (e < 0)
                return e;
        } else if (s->depth == 0) {
            return 0;
        } else {
            close_message(s);
        }
    }
}

/* ---- protobuf-c with the arena as its memory
 * -------------------------------------------------------------------- */

struct source {
    arena *a;
    bool refused;
};

static void *source_alloc(void *ctx, size_t n)
{
    struct source *s = ctx;
    void *p = arena_try(s->a, n);
    if (!p)
        s->refused = true;
    return p;
}

static void source_free(void *ctx UNUSED, void *p UNUSED)
{
    /* the arena frees all at once */
}

static int unpack(arena *a, const ProtobufCMessageDescriptor *d, const uint8_t *p, size_t n,
                  void **out, struct why *w)
{
    struct source src = {.a = a};
    ProtobufCAllocator from = {.alloc = source_alloc, .free = source_free, .allocator_data = &src};
    *out = protobuf_c_message_unpack(d, &from, n, p);
    if (*out)
        return 0;
    if (src.refused)
        return why_set(w, ERR_NOMEM, d->short_name, "needs more memory than one message may have");
    return why_set(w, ERR_PROTO, d->short_name, "not such a message");
}

int pb_unpack(arena *a, const ProtobufCMessageDescriptor *d, slice in, size_t max_bytes, void **out,
              struct why *w)
{
    *out = NULL;
    if (in.n > max_bytes)
        return why_set(w, ERR_TOO_BIG, d->short_name, "%zu bytes, at most %zu", in.n, max_bytes);
    struct scan s = {.in = (const uint8_t *)(in.n ? in.p : ""), .n = in.n, .why = w};
    s.out = malloc(in.n ? in.n : 1); /* not of the arena: it lives for this call only */
    if (!s.out)
        return why_set(w, ERR_NOMEM, d->short_name, "out of memory");
    int e = scan(&s, d);
    if (s.n_unknown)
        atomic_fetch_add_explicit(&unknown_fields, s.n_unknown, memory_order_relaxed);
    if (e == 0)
        e = unpack(a, d, s.out, s.n_out, out, w);
    free(s.out);
    return e;
}

void pb_pack(const ProtobufCMessage *m, buf *out)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    CHECK(buf_try_reserve(out, n ? n : 1) == 0);
    CHECK(protobuf_c_message_pack(m, (uint8_t *)out->p + out->n) == n);
    out->n += n;
}
