/* Lanes of one register, in C alone. Sixteen of them, so that a compiler can make vectors of any machine out of the
 * loops. See lanes_avx512.h. */
#ifndef NUNCHI_ENGINE_LANES_H
#define NUNCHI_ENGINE_LANES_H

#include <math.h>

#include "engine/kernels/half.h"

#define INLINE static inline __attribute__((always_inline))
/* Long pieces are calls here: inlined into each other they would take a compiler a minute, and gain nothing. */
#define PIECE static __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 1")
#define LANES 16
#define HEIGHTS(X, ...) X(1, __VA_ARGS__) X(4, __VA_ARGS__)
#define ACCUMULATORS 4
#define NOINLINE __attribute__((noinline))
#define WIDTHS(X) X(1) X(4)
#define WIDTH_MAX 4
#define SUMS 4

typedef struct { float v[LANES]; } vf;
typedef struct { int32_t v[LANES]; } vi;
typedef struct { uint8_t v[4 * LANES]; } vb;
typedef struct { int16_t v[2 * LANES]; } vh;

#define EACH(type, expr)                                                                           \
    type r;                                                                                        \
    for (int i = 0; i < LANES; i++)                                                                \
        r.v[i] = (expr);                                                                           \
    return r

INLINE vf f_set(float x) { EACH(vf, x); }
INLINE vf f_load(const float *p) { EACH(vf, p[i]); }
INLINE void f_store(float *p, vf x) { memcpy(p, x.v, sizeof x.v); }
INLINE vf f_add(vf a, vf b) { EACH(vf, a.v[i] + b.v[i]); }
INLINE vf f_sub(vf a, vf b) { EACH(vf, a.v[i] - b.v[i]); }
INLINE vf f_mul(vf a, vf b) { EACH(vf, a.v[i] * b.v[i]); }
INLINE vf f_div(vf a, vf b) { EACH(vf, a.v[i] / b.v[i]); }
PIECE vf f_fma(vf a, vf b, vf c)
{
    EACH(vf, fmaf(a.v[i], b.v[i], c.v[i]));
}
INLINE vf f_max(vf a, vf b) { EACH(vf, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
INLINE vf f_min(vf a, vf b) { EACH(vf, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
INLINE vf f_if_less(vf a, vf b, vf yes, vf no) { EACH(vf, a.v[i] < b.v[i] ? yes.v[i] : no.v[i]); }
INLINE vf f_if_nan(vf a, vf yes, vf no) { EACH(vf, a.v[i] != a.v[i] ? yes.v[i] : no.v[i]); }
INLINE vf f_abs(vf a) { EACH(vf, bits_float(float_bits(a.v[i]) & 0x7fffffffu)); }
INLINE vf f_negate(vf a) { EACH(vf, bits_float(float_bits(a.v[i]) ^ 0x80000000u)); }
INLINE vf f_sign_of(vf mag, vf sign)
{
    EACH(vf, bits_float((float_bits(mag.v[i]) & 0x7fffffffu) | (float_bits(sign.v[i]) & 0x80000000u)));
}
INLINE vi i_set(int32_t x) { EACH(vi, x); }
INLINE vi i_add(vi a, vi b) { EACH(vi, (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i])); }
INLINE vi i_sub(vi a, vi b) { EACH(vi, a.v[i] - b.v[i]); }
INLINE vi i_half(vi a) { EACH(vi, a.v[i] >> 1); }
INLINE vi i_of_f(vf a) { EACH(vi, (int32_t)((a.v[i] + 0x1.8p23f) - 0x1.8p23f)); }
INLINE vi i_max(vi a, vi b) { EACH(vi, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
INLINE vi i_of_bits(vf a) { EACH(vi, (int32_t)float_bits(a.v[i])); }
INLINE vf f_of_bits(vi a) { EACH(vf, bits_float((uint32_t)a.v[i])); }
INLINE vi i_shift_left(vi a, int n) { EACH(vi, (int32_t)((uint32_t)a.v[i] << n)); }
INLINE int32_t i_most(vi a)
{
    int32_t m = a.v[0];
    for (int i = 1; i < LANES; i++)
        m = a.v[i] > m ? a.v[i] : m;
    return m;
}
INLINE int32_t i_total(vi a)
{
    int32_t s = 0;
    for (int i = 0; i < LANES; i++)
        s += a.v[i];
    return s;
}
INLINE void i_to_i8(int8_t *p, vi a)
{
    for (int i = 0; i < LANES; i++)
        p[i] = (int8_t)a.v[i];
}
INLINE void i_to_i16(int16_t *p, vi a)
{
    for (int i = 0; i < LANES; i++)
        p[i] = (int16_t)a.v[i];
}
INLINE vh h_of_i8(const uint8_t *p)
{
    vh r;
    for (int i = 0; i < 2 * LANES; i++)
        r.v[i] = (int8_t)p[i];
    return r;
}
INLINE vh h_set_pair(int32_t two)
{
    vh r;
    for (int i = 0; i < LANES; i++)
        memcpy(r.v + 2 * i, &two, sizeof two);
    return r;
}
INLINE vi i_add_pairs(vi s, vh a, vh b) { EACH(vi, s.v[i] + a.v[2 * i] * b.v[2 * i] + a.v[2 * i + 1] * b.v[2 * i + 1]); }
INLINE vf f_of_i(vi a) { EACH(vf, (float)a.v[i]); }
INLINE vf f_pow2(vi n) { EACH(vf, bits_float((uint32_t)(n.v[i] + 127) << 23)); }
INLINE uint16_t half_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
INLINE vf f_of_half(const uint8_t *p) { EACH(vf, half_to_float(half_at(p + 2 * i))); }
INLINE vf f_of_bfloat(const uint8_t *p) { EACH(vf, bfloat_to_float(half_at(p + 2 * i))); }
INLINE void f_to_half(uint16_t *p, vf x)
{
    for (int i = 0; i < LANES; i++)
        p[i] = float_to_half(x.v[i]);
}
INLINE vf f_of_u8(const uint8_t *p) { EACH(vf, (float)p[i]); }
INLINE vf f_of_i8(const uint8_t *p) { EACH(vf, (float)(int8_t)p[i]); }
INLINE void prefetch(const void *p) { __builtin_prefetch(p); }

PIECE void b_unpack(uint32_t bits, const uint8_t *q, int part, vb w[8])
{
    (void)part;
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 64; i++) {
            unsigned v = bits == 8 ? q[64 * j + i] : q[64 * (j % 4) + i] >> (j < 4 ? 0 : 4) & 15u;
            if (bits == 5)
                v |= (q[256 + 8 * j + i / 8] >> (i % 8) & 1u) << 4;
            if (bits == 6)
                v |= (q[256 + 64 * (j / 4) + i] >> (2 * (j % 4)) & 3u) << 4;
            w[j].v[i] = (uint8_t)v;
        }
}
PIECE vi b_dot(uint32_t bits, const vb w[8], const int8_t *x, int from, int to, int32_t init)
{
    (void)bits;
    vi s = i_set(init);
    for (int j = from; j < to; j++)
        for (int i = 0; i < LANES; i++)
            for (int c = 0; c < 4; c++)
                s.v[i] += w[j].v[4 * i + c] * x[4 * j + c];
    return s;
}

/* No instruction is the limit of portable C: none is stated (body_peak.h). */
#define PEAK_DOT_OPS 0
INLINE vi b_peak(vi s, vb w, vb x)
{
    (void)w, (void)x;
    return s;
}

#undef EACH
#endif
