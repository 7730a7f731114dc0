/* Lanes of one register, in AVX-512 with VNNI. The three lanes_*.h give the same names; body_*.h is written in them. */
#ifndef NUNCHI_ENGINE_LANES_H
#define NUNCHI_ENGINE_LANES_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define PIECE INLINE /* a part of a kernel that is worth its copies */
#define UNROLL _Pragma("GCC unroll 16")
#define LANES 16
#define HEIGHTS(X, ...) X(1, __VA_ARGS__) X(2, __VA_ARGS__) X(4, __VA_ARGS__) X(6, __VA_ARGS__) X(8, __VA_ARGS__) X(12, __VA_ARGS__) X(16, __VA_ARGS__)
#define ACCUMULATORS 16 /* registers that hold sums, in float weights */
#define NOINLINE __attribute__((noinline))
#define WIDTHS(X) X(1) X(2) X(3) X(4) X(6) X(8) /* queries that attention takes at once */
#define WIDTH_MAX 8
#define SUMS 16 /* of them */

typedef __m512 vf;
typedef __m512i vi;
typedef __m512i vb; /* 4 bytes per lane */
typedef __m512i vh; /* 2 of 16 bits per lane */

INLINE vf f_set(float x) { return _mm512_set1_ps(x); }
INLINE vf f_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void f_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
INLINE vf f_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf f_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf f_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf f_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf f_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); } /* a*b + c */
INLINE vf f_max(vf a, vf b) { return _mm512_max_ps(a, b); }            /* a > b ? a : b */
INLINE vf f_min(vf a, vf b) { return _mm512_min_ps(a, b); }            /* a < b ? a : b */
INLINE vf f_if_less(vf a, vf b, vf yes, vf no) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes); }
INLINE vf f_if_nan(vf a, vf yes, vf no) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), no, yes); }
INLINE vf f_abs(vf a) { return _mm512_abs_ps(a); }
INLINE vf f_negate(vf a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
INLINE vf f_sign_of(vf mag, vf sign)
{
    return _mm512_or_ps(_mm512_abs_ps(mag), _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
INLINE vi i_set(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vi i_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi i_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
INLINE vi i_half(vi a) { return _mm512_srai_epi32(a, 1); }
INLINE vi i_of_f(vf a) { return _mm512_cvtps_epi32(a); } /* nearest, ties to even; |a| < 2^22 */
INLINE vf f_of_i(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vi i_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
INLINE vi i_of_bits(vf a) { return _mm512_castps_si512(a); }
INLINE vf f_of_bits(vi a) { return _mm512_castsi512_ps(a); }
INLINE vi i_shift_left(vi a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
INLINE int32_t i_most(vi a) { return _mm512_reduce_max_epi32(a); }
INLINE int32_t i_total(vi a) { return _mm512_reduce_add_epi32(a); }
INLINE void i_to_i8(int8_t *p, vi a) { _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(a)); }
INLINE void i_to_i16(int16_t *p, vi a) { _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(a)); }
INLINE vh h_of_i8(const uint8_t *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
INLINE vh h_set_pair(int32_t two) { return _mm512_set1_epi32(two); }
INLINE vi i_add_pairs(vi s, vh a, vh b) { return _mm512_dpwssd_epi32(s, a, b); } /* s + both products of each lane */
INLINE vf f_pow2(vi n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23)); }
INLINE vf f_of_half(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
INLINE void f_to_half(uint16_t *p, vf x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE vf f_of_bfloat(const uint8_t *p)
{
    __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
INLINE vf f_of_u8(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p))); }
INLINE vf f_of_i8(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p))); }
INLINE void prefetch(const void *p) { _mm_prefetch(p, _MM_HINT_T0); }

/* The eight registers of a block's quants (pack.h); part is which LANES of the 16 rows. */
INLINE vb b_load(const uint8_t *q, int reg, int part)
{
    (void)part;
    return _mm512_load_si512((const void *)(q + 64 * reg));
}
INLINE void b_unpack(uint32_t bits, const uint8_t *q, int part, vb w[8])
{
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    if (bits == 8) {
        for (int j = 0; j < 8; j++)
            w[j] = b_load(q, j, part);
        return;
    }
    for (int j = 0; j < 4; j++) {
        __m512i v = b_load(q, j, part);
        w[j] = _mm512_and_si512(v, low);
        w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    }
    if (bits == 5)
        for (int j = 0; j < 8; j++) {
            __mmask64 m = _load_mask64((__mmask64 *)(uintptr_t)(q + 256 + 8 * j));
            w[j] = _mm512_mask_add_epi8(w[j], m, w[j], _mm512_set1_epi8(16));
        }
    if (bits == 6)
        for (int h = 0; h < 2; h++) {
            __m512i v = b_load(q + 256, h, part);
            w[4 * h] = _mm512_or_si512(w[4 * h], _mm512_and_si512(_mm512_slli_epi16(v, 4), high));
            w[4 * h + 1] = _mm512_or_si512(w[4 * h + 1], _mm512_and_si512(_mm512_slli_epi16(v, 2), high));
            w[4 * h + 2] = _mm512_or_si512(w[4 * h + 2], _mm512_and_si512(v, high));
            w[4 * h + 3] = _mm512_or_si512(w[4 * h + 3], _mm512_and_si512(_mm512_srli_epi16(v, 2), high));
        }
}
/* init + sum over registers from..to-1 of w · x. 8 bits: init is -128 times the sum of x. */
INLINE vi b_dot(uint32_t bits, const vb w[8], const int8_t *x, int from, int to, int32_t init)
{
    (void)bits;
    vi s = _mm512_set1_epi32(init);
    for (int j = from; j < to; j++) {
        int32_t four;
        __builtin_memcpy(&four, x + 4 * j, 4);
        s = _mm512_dpbusd_epi32(s, w[j], _mm512_set1_epi32(four));
    }
    return s;
}

/* One step of the fastest integer dot product there is, and how many multiplies and adds it is (body_peak.h). */
#define PEAK_DOT_OPS (2 * 64)
INLINE vi b_peak(vi s, vb w, vb x) { return _mm512_dpbusd_epi32(s, w, x); }

#endif
