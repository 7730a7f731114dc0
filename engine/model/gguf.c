/* The GGUF container, version 2 and 3. Nothing read from the file is used before it was checked: a
 * position never passes the end, a count never asks for more memory than the bytes that must follow
 * it. */
#include "engine/model/gguf.h"

struct reader {
    const uint8_t *p;
    uint64_t n, at;
    struct why *w;
};

static const uint8_t VALUE_BYTES[GGUF_N_TYPES] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

static int bad(struct reader *r, const char *what)
{
    why_set(r->w, ERR_INVALID, "model", "not a valid GGUF file: %s (at byte %llu)", what,
            (unsigned long long)r->at);
    return ERR_INVALID;
}

static int take(struct reader *r, uint64_t n, const uint8_t **out)
{
    if (n > r->n - r->at)
        return bad(r, "it ends too early");
    *out = r->p + r->at;
    r->at += n;
    return 0;
}

static int take_u32(struct reader *r, uint32_t *out)
{
    const uint8_t *p = NULL;
    int e = take(r, 4, &p);
    if (e == 0)
        memcpy(out, p, 4);
    return e;
}

static int take_u64(struct reader *r, uint64_t *out)
{
    const uint8_t *p = NULL;
    int e = take(r, 8, &p);
    if (e == 0)
        memcpy(out, p, 8);
    return e;
}

static int take_str(struct reader *r, uint64_t max, slice *out)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    int e = take_u64(r, &n);
    if (e < 0)
        return e;
    if (n > max)
        return bad(r, "a string is too long");
    if ((e = take(r, n, &p)) < 0)
        return e;
    *out = (slice){(const char *)p, (size_t)n};
    return 0;
}

static bool is_bools(const uint8_t *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1)
            return false;
    return true;
}

static int take_array(struct reader *r, struct gguf_meta *m)
{
    int e;
    if ((e = take_u32(r, &m->elem)) < 0 || (e = take_u64(r, &m->n)) < 0)
        return e;
    if (m->elem >= GGUF_N_TYPES || m->elem == GGUF_ARRAY)
        return bad(r, "an array of an unknown type or of arrays");
    if (m->n > GGUF_ARRAY_MAX)
        return bad(r, "an array is too long");
    uint64_t start = r->at;
    m->data = r->p + start;
    if (m->elem == GGUF_STR) {
        slice s;
        for (uint64_t i = 0; i < m->n; i++)
            if ((e = take_str(r, GGUF_STRING_MAX, &s)) < 0)
                return e;
    } else if ((e = take(r, m->n * VALUE_BYTES[m->elem], &m->data)) < 0) {
        return e;
    }
    m->bytes = r->at - start;
    return m->elem != GGUF_BOOL || is_bools(m->data, m->bytes)
               ? 0
               : bad(r, "a truth value is neither 0 nor 1");
}

static int take_value(struct reader *r, struct gguf_meta *m)
{
    int e = take_u32(r, &m->type);
    if (e < 0)
        return e;
    if (m->type >= GGUF_N_TYPES)
        return bad(r, "a value of an unknown type");
    if (m->type == GGUF_ARRAY)
        return take_array(r, m);
    if (m->type == GGUF_STR) {
        slice s;
        if ((e = take_str(r, GGUF_STRING_MAX, &s)) < 0)
            return e;
        m->data = (const uint8_t *)s.p;
        m->bytes = s.n;
        return 0;
    }
    m->bytes = VALUE_BYTES[m->type];
    if ((e = take(r, m->bytes, &m->data)) < 0)
        return e;
    return m->type != GGUF_BOOL || is_bools(m->data, 1)
               ? 0
               : bad(r, "a truth value is neither 0 nor 1");
}

/* Keys and names are shown to people and used as C strings. */
static bool is_printable(slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x21 || s.p[i] > 0x7e)
            return false;
    return s.n > 0;
}

static int read_meta(struct reader *r, model_file *f)
{
    for (size_t i = 0; i < f->n_meta; i++) {
        struct gguf_meta *m = &f->meta[i];
        int e = take_str(r, GGUF_KEY_MAX, &m->key);
        if (e < 0)
            return e;
        if (!is_printable(m->key))
            return bad(r, "a key is not printable ASCII");
        if ((e = take_value(r, m)) < 0)
            return e;
        if (map_put(f->by_key, m->key, m))
            return bad(r, "a key appears twice");
    }
    return 0;
}

static int read_dims(struct reader *r, struct gguf_tensor *t)
{
    int e = take_u32(r, &t->n_dims);
    if (e < 0)
        return e;
    if (t->n_dims < 1 || t->n_dims > GGUF_DIMS_MAX)
        return bad(r, "a tensor has no dimension, or more than 4");
    for (uint32_t d = 0; d < GGUF_DIMS_MAX; d++) {
        t->dims[d] = 1;
        if (d < t->n_dims && (e = take_u64(r, &t->dims[d])) < 0)
            return e;
        if (t->dims[d] == 0 || t->dims[d] > GGUF_DIM_MAX)
            return bad(r, "a tensor's dimension is out of range");
    }
    return 0;
}

static int count_bytes(struct reader *r, struct gguf_tensor *t)
{
    if (t->dims[0] % t->type->block)
        return bad(r, "a tensor's row is not whole blocks of its type");
    size_t n = (size_t)(t->dims[0] / t->type->block);
    for (int d = 1; d < GGUF_DIMS_MAX; d++)
        if (size_mul(n, (size_t)t->dims[d], &n) < 0)
            return bad(r, "a tensor is too large");
    if (size_mul(n, t->type->bytes, &n) < 0 || n > r->n)
        return bad(r, "a tensor is larger than the file");
    t->bytes = n;
    return 0;
}

static int read_tensor(struct reader *r, struct gguf_tensor *t)
{
    uint32_t type = 0;
    int e;
    if ((e = take_str(r, GGUF_NAME_MAX, &t->name)) < 0)
        return e;
    if (!is_printable(t->name))
        return bad(r, "a tensor's name is not printable ASCII");
    if ((e = read_dims(r, t)) < 0 || (e = take_u32(r, &type)) < 0 ||
        (e = take_u64(r, &t->offset)) < 0)
        return e;
    t->type = tensor_type_find(type);
    return t->type ? count_bytes(r, t) : bad(r, "a tensor of an unknown type");
}

static uint64_t align_up(uint64_t x, uint64_t a)
{
    return (x + a - 1) & ~(a - 1); /* x is below the file's size: no overflow */
}

static int read_alignment(struct reader *r, model_file *f)
{
    uint32_t a = 32;
    int e = model_file_u32(f, "general.alignment", &a);
    if (e < 0 && e != ERR_NOT_FOUND)
        return bad(r, "general.alignment is not a number");
    if (a < 8 || a > GGUF_ALIGNMENT_MAX || (a & (a - 1)))
        return bad(r, "general.alignment is not a power of two from 8 to 65536");
    f->alignment = a;
    return 0;
}

/* Tensors lie one after the other in the order of their descriptions, each at the next aligned
 * offset. */
static int place_tensors(struct reader *r, model_file *f)
{
    if (f->n_tensors == 0)
        return 0; /* a file of words alone */
    uint64_t start = align_up(r->at, f->alignment), next = 0;
    if (start > r->n)
        return bad(r, "it ends before the tensors");
    for (size_t i = 0; i < f->n_tensors; i++) {
        struct gguf_tensor *t = &f->tensors[i];
        if (t->offset != next)
            return bad(r, "a tensor does not follow the one before it");
        if (next > r->n - start || t->bytes > r->n - start - next)
            return bad(r, "a tensor reaches beyond the end");
        t->data = r->p + start + next;
        next = align_up(next + t->bytes, f->alignment);
    }
    return 0;
}

static int read_tensors(struct reader *r, model_file *f)
{
    for (size_t i = 0; i < f->n_tensors; i++) {
        struct gguf_tensor *t = &f->tensors[i];
        int e = read_tensor(r, t);
        if (e < 0)
            return e;
        if (map_put(f->by_name, t->name, t))
            return bad(r, "a tensor's name appears twice");
    }
    return 0;
}

static int read_header(struct reader *r, model_file *f)
{
    const uint8_t *magic;
    uint32_t version = 0;
    uint64_t n_tensors = 0, n_meta = 0;
    int e;
    if (r->n < 4 || memcmp(r->p, "GGUF", 4) != 0)
        return why_set(r->w, ERR_INVALID, "model", "not a GGUF file");
    if ((e = take(r, 4, &magic)) < 0 || (e = take_u32(r, &version)) < 0)
        return e;
    if (version != 2 && version != 3)
        return why_set(r->w, ERR_UNSUPPORTED, "model", "%s",
                       (version & 0xffff) == 0 ? "a big-endian GGUF file"
                                               : "a GGUF file of another version than 2 and 3");
    if ((e = take_u64(r, &n_tensors)) < 0 || (e = take_u64(r, &n_meta)) < 0)
        return e;
    /* An entry takes at least 12 bytes, a tensor's description 32: a count beyond that needs no
     * memory to be wrong. */
    if (n_meta > GGUF_META_MAX || n_meta > r->n / 12)
        return bad(r, "too many metadata entries");
    if (n_tensors > GGUF_TENSORS_MAX || n_tensors > r->n / 32)
        return bad(r, "too many tensors");
    f->n_meta = (size_t)n_meta;
    f->n_tensors = (size_t)n_tensors;
    return 0;
}

int gguf_parse(model_file *f, struct why *w)
{
    struct reader r = {.p = f->p, .n = f->n, .w = w};
    int e = read_header(&r, f);
    if (e < 0)
        return e;
    f->meta = try_calloc(f->n_meta + 1, sizeof *f->meta);
    f->tensors = try_calloc(f->n_tensors + 1, sizeof *f->tensors);
    if (!f->meta || !f->tensors)
        return why_set(w, ERR_NOMEM, "model", "no memory for the model's description");
    if ((e = read_meta(&r, f)) < 0 || (e = read_alignment(&r, f)) < 0 ||
        (e = read_tensors(&r, f)) < 0)
        return e;
    return place_tensors(&r, f);
}
