/* What the engine's tests share: repeatable numbers and weights of any type. */
#ifndef NUNCHI_TESTS_ENGINE_TESTING_H
#define NUNCHI_TESTS_ENGINE_TESTING_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "engine/kernels/half.h"
#include "engine/kernels/kernels.h"

struct rng {
    uint64_t s;
};

static inline uint32_t rng_u32(struct rng *r)
{
    r->s = r->s * 6364136223846793005ull + 1442695040888963407ull;
    uint64_t x = r->s ^ r->s >> 29;
    return (uint32_t)(x * 0x9e3779b97f4a7c15ull >> 32);
}

/* Roughly normal: sum of four uniforms. */
static inline float rng_f(struct rng *r)
{
    float s = 0;
    for (int i = 0; i < 4; i++)
        s += (float)rng_u32(r) * 0x1p-32f - 0.5f;
    return s;
}

static inline void rng_floats(struct rng *r, float *x, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++)
        x[i] = rng_f(r) * scale;
}

/* Any bits as quants; scales small and finite. The caller frees. */
static inline void *random_weight(struct rng *r, const struct format *f, uint32_t n_out, uint32_t n_in)
{
    size_t n = (size_t)n_out * format_row_bytes(f, n_in);
    uint8_t *p = malloc(n);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)rng_u32(r);
    for (size_t at = 0; at < n; at += f->block_bytes) {
        float v = rng_f(r) * (f->block == 256 ? 0.002f : 0.05f);
        uint16_t d = float_to_half(v), m = float_to_half(rng_f(r) * 0.05f);
        if (f->type == WEIGHT_F32)
            memcpy(p + at, &v, 4);
        else if (f->type == WEIGHT_BF16)
            d = (uint16_t)(float_bits(v) >> 16);
        if (f->type == WEIGHT_Q6_K)
            memcpy(p + at + 208, &d, 2);
        else if (f->type != WEIGHT_F32)
            memcpy(p + at, &d, 2);
        if (f->scales == PACK_DM || f->scales == PACK_K)
            memcpy(p + at + 2, &m, 2);
    }
    return p;
}

/* The tables this CPU can run, best first. */
static inline size_t all_kernels(const struct kernels *k[3])
{
    static const char *const NAMES[] = {"avx512", "avx2", "portable"};
    size_t n = 0;
    for (size_t i = 0; i < 3; i++)
        if (kernels_choose(NAMES[i], &k[n], NULL) == 0)
            n++;
    return n;
}

static inline void assert_same_bits(const float *a, const float *b, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (float_bits(a[i]) != float_bits(b[i])) {
            print_error("%s: element %zu is %.9g (%08x), was %.9g (%08x)\n", what, i, (double)a[i], float_bits(a[i]),
                        (double)b[i], float_bits(b[i]));
            fail();
        }
}

static inline void *aligned_floats(size_t n)
{
    void *p = aligned_alloc(64, (n * 4 + 63) / 64 * 64);
    assert_non_null(p);
    memset(p, 0, (n * 4 + 63) / 64 * 64);
    return p;
}

#endif
