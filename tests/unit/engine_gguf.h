/* Writes small GGUF files into memory, right or wrong, for the tests of those who read them. */
#ifndef NUNCHI_TESTS_ENGINE_GGUF_H
#define NUNCHI_TESTS_ENGINE_GGUF_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/gguf.h"

struct gguf_out {
    buf b;
    uint64_t n_tensors, n_meta;
    uint64_t data; /* bytes of tensors described so far, padded */
};

static inline void out_u32(struct gguf_out *o, uint32_t v)
{
    buf_put(&o->b, &v, 4);
}

static inline void out_u64(struct gguf_out *o, uint64_t v)
{
    buf_put(&o->b, &v, 8);
}

static inline void out_f32(struct gguf_out *o, float v)
{
    buf_put(&o->b, &v, 4);
}

static inline void out_str(struct gguf_out *o, const char *s)
{
    out_u64(o, strlen(s));
    buf_put_str(&o->b, s);
}

static inline void gguf_begin(struct gguf_out *o)
{
    *o = (struct gguf_out){0};
    buf_put_str(&o->b, "GGUF");
    out_u32(o, 3);
    out_u64(o, 0); /* counts: set by gguf_end */
    out_u64(o, 0);
}

/* The value follows. */
static inline void out_key(struct gguf_out *o, const char *key, uint32_t type)
{
    out_str(o, key);
    out_u32(o, type);
    o->n_meta++;
}

static inline void meta_u32(struct gguf_out *o, const char *key, uint32_t v)
{
    out_key(o, key, GGUF_U32);
    out_u32(o, v);
}

static inline void meta_f32(struct gguf_out *o, const char *key, float v)
{
    out_key(o, key, GGUF_F32);
    out_f32(o, v);
}

static inline void meta_bool(struct gguf_out *o, const char *key, unsigned char v)
{
    out_key(o, key, GGUF_BOOL);
    buf_put_byte(&o->b, v);
}

static inline void meta_str(struct gguf_out *o, const char *key, const char *v)
{
    out_key(o, key, GGUF_STR);
    out_str(o, v);
}

/* The elements follow. */
static inline void out_array(struct gguf_out *o, const char *key, uint32_t elem, uint64_t n)
{
    out_key(o, key, GGUF_ARRAY);
    out_u32(o, elem);
    out_u64(o, n);
}

static inline void meta_strs(struct gguf_out *o, const char *key, const char *const *v, size_t n)
{
    out_array(o, key, GGUF_STR, n);
    for (size_t i = 0; i < n; i++)
        out_str(o, v[i]);
}

static inline void meta_i32s(struct gguf_out *o, const char *key, const int32_t *v, size_t n)
{
    out_array(o, key, GGUF_I32, n);
    buf_put(&o->b, v, n * sizeof *v);
}

static inline void meta_f32s(struct gguf_out *o, const char *key, const float *v, size_t n)
{
    out_array(o, key, GGUF_F32, n);
    buf_put(&o->b, v, n * sizeof *v);
}

/* Describes a tensor of `bytes` bytes; all metadata comes before the first one. */
static inline void out_tensor(struct gguf_out *o, const char *name, uint32_t type, uint64_t d0,
                              uint64_t d1, uint64_t bytes)
{
    out_str(o, name);
    out_u32(o, 2);
    out_u64(o, d0);
    out_u64(o, d1);
    out_u32(o, type);
    out_u64(o, o->data);
    o->data += (bytes + 31) / 32 * 32;
    o->n_tensors++;
}

/* Sets the counts and appends the tensors' bytes, all 0x11. */
static inline void gguf_end(struct gguf_out *o)
{
    memcpy(o->b.p + 8, &o->n_tensors, 8);
    memcpy(o->b.p + 16, &o->n_meta, 8);
    while (o->b.n % 32)
        buf_put_byte(&o->b, 0);
    for (uint64_t i = 0; i < o->data; i++)
        buf_put_byte(&o->b, 0x11);
}

#endif
