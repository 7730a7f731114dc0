/* safetensors: 8 bytes of header length, a JSON header of names to {dtype, shape, data_offsets},
 * then the data, covered without holes or overlaps (format: safetensors/src/tensor.rs of
 * huggingface/safetensors). */
#include <stdlib.h>

#include "engine/convert/source.h"

#define HEADER_MAX (64u << 20)
#define HEADER_NODES_MAX (2u << 20)

static const struct {
    const char *name;
    enum source_type type;
    size_t bits;
} TYPES[] = {
    {"F32", SOURCE_F32, 32},   {"F16", SOURCE_F16, 16},      {"BF16", SOURCE_BF16, 16},
    {"F64", SOURCE_F64, 64},   {"BOOL", SOURCE_OTHER, 8},    {"U8", SOURCE_OTHER, 8},
    {"I8", SOURCE_OTHER, 8},   {"U16", SOURCE_OTHER, 16},    {"I16", SOURCE_OTHER, 16},
    {"U32", SOURCE_OTHER, 32}, {"I32", SOURCE_OTHER, 32},    {"U64", SOURCE_OTHER, 64},
    {"I64", SOURCE_OTHER, 64}, {"F8_E4M3", SOURCE_OTHER, 8}, {"F8_E5M2", SOURCE_OTHER, 8},
};

struct span {
    uint64_t from, to;
};

static int by_start(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->from != y->from ? (x->from < y->from ? -1 : 1) : x->to < y->to ? -1 : x->to > y->to;
}

static int read_shape(const json_val *v, struct source_tensor *t, struct why *w)
{
    const json_val *shape;
    int e = json_req(v, "shape", &shape, w);
    if (e == 0)
        e = json_need_arr(shape, 0, SOURCE_DIMS_MAX, w);
    if (e < 0)
        return e;
    for (const json_val *d = json_first(shape); d && e == 0; d = json_next(d)) {
        int64_t n = 0;
        e = json_to_i64(d, 0, INT64_C(1) << 48, &n, w);
        t->dims[t->n_dims++] = (uint64_t)n;
    }
    return e < 0 ? e : source_count(t) ? 0 : json_why(w, ERR_TOO_BIG, shape, "too many elements");
}

static int read_offsets(const json_val *v, uint64_t room, struct span *out, struct why *w)
{
    const json_val *both;
    int64_t from, to;
    int e = json_req(v, "data_offsets", &both, w);
    if (e < 0 || (e = json_need_arr(both, 2, 2, w)) < 0 ||
        (e = json_to_i64(json_at(both, 0), 0, INT64_MAX, &from, w)) < 0 ||
        (e = json_to_i64(json_at(both, 1), from, INT64_MAX, &to, w)) < 0)
        return e;
    if ((uint64_t)to > room)
        return json_why(w, ERR_INVALID, both, "the data ends before");
    *out = (struct span){(uint64_t)from, (uint64_t)to};
    return 0;
}

static int read_tensor(const json_val *v, const uint8_t *data, uint64_t room,
                       struct source_tensor *t, struct span *at, struct why *w)
{
    slice type;
    int e = json_need_obj(v, w);
    if (e < 0 || (e = json_req_str(v, "dtype", 16, &type, w)) < 0)
        return e;
    size_t k = 0;
    while (k < ARRAY_LEN(TYPES) && !slice_eq_str(type, TYPES[k].name))
        k++;
    if (k == ARRAY_LEN(TYPES))
        return json_why(w, ERR_UNSUPPORTED, v, "the type %.*s is not known", (int)type.n, type.p);
    *t = (struct source_tensor){
        .name = json_name(v), .type = TYPES[k].type, .type_name = TYPES[k].name};
    if ((e = read_shape(v, t, w)) < 0 || (e = read_offsets(v, room, at, w)) < 0)
        return e;
    t->bytes = at->to - at->from;
    t->data = t->bytes ? data + at->from : NULL;
    if (t->n > (uint64_t)INT64_MAX / 8 || t->bytes != t->n * (TYPES[k].bits / 8))
        return json_why(w, ERR_INVALID, v, "its shape does not fit its bytes");
    return 0;
}

/* Every byte belongs to exactly one tensor. */
static bool covered(struct span *spans, size_t n, uint64_t room)
{
    uint64_t at = 0;
    qsort(spans, n, sizeof *spans, by_start);
    for (size_t i = 0; i < n; i++) {
        if (spans[i].from != at)
            return false;
        at = spans[i].to;
    }
    return at == room;
}

static int read_header(source *s, const struct source_file *f, const json_val *root, size_t head,
                       struct why *w)
{
    struct why inner = {.text = ""};
    struct span *spans = xcalloc(json_len(root) + 1, sizeof *spans);
    size_t n = 0;
    int e = 0;
    for (const json_val *v = json_first(root); v && e == 0; v = json_next(v)) {
        struct source_tensor t;
        if (slice_eq_str(json_name(v), "__metadata__"))
            continue;
        e = read_tensor(v, f->p + head, f->n - head, &t, &spans[n++], &inner);
        if (e < 0)
            why_set(w, e, f->name, "%.200s: %.200s", inner.field, inner.text);
        else
            e = source_add(s, f, &t, w);
    }
    if (e == 0 && !covered(spans, n, f->n - head))
        e = why_set(w, ERR_INVALID, f->name, "its tensors overlap or leave holes");
    free(spans);
    return e;
}

int safetensors_read(source *s, const struct source_file *f, struct why *w)
{
    struct json_limits lim = {
        .max_bytes = HEADER_MAX, .max_depth = 8, .max_nodes = HEADER_NODES_MAX};
    struct why inner = {.text = ""};
    uint64_t n = 0;
    for (int i = 0; i < 8 && f->n >= 8; i++)
        n |= (uint64_t)f->p[i] << (8 * i);
    if (f->n < 8 || n > f->n - 8 || n < 2 || f->p[8] != '{')
        return why_set(w, ERR_INVALID, f->name, "not a safetensors file, or cut off");
    if (n > HEADER_MAX)
        return why_set(w, ERR_TOO_BIG, f->name, "its header has more than %u bytes", HEADER_MAX);
    json_doc *d;
    int e = json_doc_parse((slice){(const char *)f->p + 8, (size_t)n}, &lim, &d, &inner);
    if (e < 0)
        return why_set(w, e, f->name, "its header: %.200s", inner.text);
    e = json_kind(json_doc_root(d)) == JSON_KIND_OBJ
            ? read_header(s, f, json_doc_root(d), 8 + (size_t)n, w)
            : why_set(w, ERR_INVALID, f->name, "its header is no object");
    json_doc_free(d);
    return e;
}
