#include "engine/convert/gguf_out.h"

#include <stdio.h>

enum { TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_STR = 8, TYPE_ARRAY = 9 };

static void put_u32(buf *b, uint32_t v)
{
    uint8_t p[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    buf_put(b, p, sizeof p);
}

static void put_u64(buf *b, uint64_t v)
{
    put_u32(b, (uint32_t)v);
    put_u32(b, (uint32_t)(v >> 32));
}

static void put_f32(buf *b, float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    put_u32(b, u);
}

static void put_str(buf *b, slice s)
{
    put_u64(b, s.n);
    buf_put_slice(b, s);
}

static void put_key(struct gguf_out *o, const char *key, uint32_t type)
{
    char full[128];
    int n = snprintf(full, sizeof full, "%s%s", key[0] == '.' ? o->prefix : "", key);
    CHECK(n > 0 && n < (int)sizeof full);
    put_str(&o->keys, slice_str(full));
    put_u32(&o->keys, type);
    o->n_keys++;
}

void gguf_out_u32(struct gguf_out *o, const char *key, uint32_t v)
{
    put_key(o, key, TYPE_U32);
    put_u32(&o->keys, v);
}

void gguf_out_f32(struct gguf_out *o, const char *key, float v)
{
    put_key(o, key, TYPE_F32);
    put_f32(&o->keys, v);
}

void gguf_out_bool(struct gguf_out *o, const char *key, bool v)
{
    put_key(o, key, TYPE_BOOL);
    buf_put_byte(&o->keys, v);
}

void gguf_out_str(struct gguf_out *o, const char *key, slice v)
{
    put_key(o, key, TYPE_STR);
    put_str(&o->keys, v);
}

static void put_array(struct gguf_out *o, const char *key, uint32_t type, uint64_t n)
{
    put_key(o, key, TYPE_ARRAY);
    put_u32(&o->keys, type);
    put_u64(&o->keys, n);
}

void gguf_out_strings(struct gguf_out *o, const char *key, uint64_t n)
{
    put_array(o, key, TYPE_STR, n);
}

void gguf_out_put_str(struct gguf_out *o, slice v)
{
    put_str(&o->keys, v);
}

void gguf_out_ints(struct gguf_out *o, const char *key, uint64_t n, const int32_t *v)
{
    put_array(o, key, TYPE_I32, n);
    for (uint64_t i = 0; i < n; i++)
        put_u32(&o->keys, (uint32_t)v[i]);
}

void gguf_out_floats(struct gguf_out *o, const char *key, uint64_t n, const float *v)
{
    put_array(o, key, TYPE_F32, n);
    for (uint64_t i = 0; i < n; i++)
        put_f32(&o->keys, v[i]);
}

static struct gguf_out_tensor *add(struct gguf_out *o, const char *name,
                                   const struct tensor_type *type)
{
    if (o->n_tensors == o->cap_tensors) {
        o->cap_tensors = o->cap_tensors ? 2 * o->cap_tensors : 256;
        o->tensors = xrealloc(o->tensors, o->cap_tensors, sizeof *o->tensors);
    }
    struct gguf_out_tensor *t = &o->tensors[o->n_tensors++];
    *t = (struct gguf_out_tensor){.type = type};
    int n = snprintf(t->name, sizeof t->name, "%s", name);
    CHECK(n > 0 && n < (int)sizeof t->name);
    return t;
}

void gguf_out_tensor(struct gguf_out *o, const char *name, const struct tensor_type *type,
                     uint64_t n_out, uint64_t n_in)
{
    struct gguf_out_tensor *t = add(o, name, type);
    CHECK(n_in % type->block == 0);
    t->n_dims = n_out ? 2 : 1;
    t->dims[0] = n_in;
    t->dims[1] = n_out ? n_out : 1;
    t->bytes = n_in / type->block * type->bytes * t->dims[1];
}

void gguf_out_copy(struct gguf_out *o, const char *name, const struct tensor_type *type,
                   uint32_t n_dims, const uint64_t *dims, uint64_t bytes)
{
    struct gguf_out_tensor *t = add(o, name, type);
    CHECK(n_dims <= ARRAY_LEN(t->dims));
    t->n_dims = n_dims;
    memcpy(t->dims, dims, n_dims * sizeof *dims);
    t->bytes = bytes;
}

void gguf_out_raw(struct gguf_out *o, slice key, uint32_t type, int elem, uint64_t n,
                  const uint8_t *value, uint64_t bytes)
{
    put_str(&o->keys, key);
    put_u32(&o->keys, type);
    o->n_keys++;
    if (elem >= 0) {
        put_u32(&o->keys, (uint32_t)elem);
        put_u64(&o->keys, n);
    } else if (type == TYPE_STR)
        put_u64(&o->keys, bytes);
    buf_put(&o->keys, value, bytes);
}

static uint64_t aligned(uint64_t n)
{
    return (n + GGUF_OUT_ALIGNMENT - 1) / GGUF_OUT_ALIGNMENT * GGUF_OUT_ALIGNMENT;
}

uint64_t gguf_out_seal(struct gguf_out *o, buf *out)
{
    uint64_t offset = 0;
    buf_put_str(out, "GGUF");
    put_u32(out, 3);
    put_u64(out, o->n_tensors);
    put_u64(out, o->n_keys);
    buf_put(out, o->keys.p, o->keys.n);
    for (size_t i = 0; i < o->n_tensors; i++) {
        struct gguf_out_tensor *t = &o->tensors[i];
        put_str(out, slice_str(t->name));
        put_u32(out, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++)
            put_u64(out, t->dims[d]);
        put_u32(out, t->type->id);
        put_u64(out, offset);
        t->at = offset;
        offset += aligned(t->bytes);
    }
    while (out->n % GGUF_OUT_ALIGNMENT)
        buf_put_byte(out, 0);
    for (size_t i = 0; i < o->n_tensors; i++)
        o->tensors[i].at += out->n;
    return out->n + offset;
}

void gguf_out_clear(struct gguf_out *o)
{
    buf_clear(&o->keys);
    free(o->tensors);
    *o = (struct gguf_out){0};
}
