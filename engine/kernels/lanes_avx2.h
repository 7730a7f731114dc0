/* Lanes of one register, in AVX2 with FMA and F16C. See lanes_avx512.h. */
#ifndef NUNCHI_ENGINE_LANES_H
#define NUNCHI_ENGINE_LANES_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define PIECE INLINE /* a part of a kernel that is worth its copies */
#define UNROLL _Pragma("GCC unroll 16")
#define LANES 8
#define HEIGHTS(X, ...) X(1, __VA_ARGS__) X(2, __VA_ARGS__) X(4, __VA_ARGS__)
#define ACCUMULATORS 8
#define NOINLINE __attribute__((noinline))
#define WIDTHS(X) X(1) X(2) X(3) X(4) X(6)
#define WIDTH_MAX 6
#define SUMS 12

typedef __m256 vf;
typedef __m256i vi;
typedef __m256i vb; /* 4 bytes per lane */
typedef __m256i vh;

INLINE vf f_set(float x) { return _mm256_set1_ps(x); }
INLINE vf f_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void f_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
INLINE vf f_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf f_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf f_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf f_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf f_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf f_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf f_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf f_if_less(vf a, vf b, vf yes, vf no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
INLINE vf f_if_nan(vf a, vf yes, vf no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)); }
INLINE vf f_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE vf f_negate(vf a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
INLINE vf f_sign_of(vf mag, vf sign) { return _mm256_or_ps(f_abs(mag), _mm256_and_ps(sign, _mm256_set1_ps(-0.0f))); }
INLINE vi i_set(int32_t x) { return _mm256_set1_epi32(x); }
INLINE vi i_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
INLINE vi i_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
INLINE vi i_half(vi a) { return _mm256_srai_epi32(a, 1); }
INLINE vi i_of_f(vf a) { return _mm256_cvtps_epi32(a); }
INLINE vf f_of_i(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE vi i_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
INLINE vi i_of_bits(vf a) { return _mm256_castps_si256(a); }
INLINE vf f_of_bits(vi a) { return _mm256_castsi256_ps(a); }
INLINE vi i_shift_left(vi a, int n) { return _mm256_slli_epi32(a, n); }
INLINE int32_t i_most(vi a)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
INLINE int32_t i_total(vi a)
{
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
INLINE void i_to_i8(int8_t *p, vi a)
{
    __m128i m = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(m, m));
}
INLINE void i_to_i16(int16_t *p, vi a)
{
    __m128i m = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storeu_si128((__m128i *)(void *)p, m);
}
INLINE vh h_of_i8(const uint8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p)); }
INLINE vh h_set_pair(int32_t two) { return _mm256_set1_epi32(two); }
INLINE vi i_add_pairs(vi s, vh a, vh b) { return _mm256_add_epi32(s, _mm256_madd_epi16(a, b)); }
INLINE vf f_pow2(vi n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23)); }
INLINE vf f_of_half(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }
INLINE void f_to_half(uint16_t *p, vf x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE vf f_of_bfloat(const uint8_t *p)
{
    __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
INLINE vf f_of_u8(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p))); }
INLINE vf f_of_i8(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p))); }
INLINE void prefetch(const void *p) { _mm_prefetch(p, _MM_HINT_T0); }

INLINE vb b_load(const uint8_t *q, int reg, int part)
{
    return _mm256_load_si256((const __m256i *)(const void *)(q + 64 * reg + 32 * part));
}
/* 32 bits to 32 bytes of 0 or 16. */
INLINE vb b_fifth(const uint8_t *p)
{
    int32_t bits;
    __builtin_memcpy(&bits, p, 4);
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i each = _mm256_set1_epi64x((long long)0x8040201008040201ULL);
    __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), each);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, each), _mm256_set1_epi8(16));
}
INLINE void b_unpack(uint32_t bits, const uint8_t *q, int part, vb w[8])
{
    const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi8(0x30);
    if (bits == 8) { /* signed again: see b_dot */
        for (int j = 0; j < 8; j++)
            w[j] = _mm256_xor_si256(b_load(q, j, part), _mm256_set1_epi8((char)0x80));
        return;
    }
    for (int j = 0; j < 4; j++) {
        __m256i v = b_load(q, j, part);
        w[j] = _mm256_and_si256(v, low);
        w[j + 4] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
    }
    if (bits == 5)
        for (int j = 0; j < 8; j++)
            w[j] = _mm256_or_si256(w[j], b_fifth(q + 256 + 8 * j + 4 * part));
    if (bits == 6)
        for (int h = 0; h < 2; h++) {
            __m256i v = b_load(q + 256, h, part);
            w[4 * h] = _mm256_or_si256(w[4 * h], _mm256_and_si256(_mm256_slli_epi16(v, 4), high));
            w[4 * h + 1] = _mm256_or_si256(w[4 * h + 1], _mm256_and_si256(_mm256_slli_epi16(v, 2), high));
            w[4 * h + 2] = _mm256_or_si256(w[4 * h + 2], _mm256_and_si256(v, high));
            w[4 * h + 3] = _mm256_or_si256(w[4 * h + 3], _mm256_and_si256(_mm256_srli_epi16(v, 2), high));
        }
}
INLINE vb b_four(const int8_t *x)
{
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}
/* maddubs adds pairs of products in 16 bits and saturates. |x| <= 127, so with weights of 4, 5 and 6 bits a pair is at
 * most 3810, 7874 and 16002: eight, four and two pairs fit before they are widened. Weights of 8 bits are taken as signed,
 * their sign moved to x: 128 * 127 * 2 = 32512 fits, and the offset is gone, so init is not added. */
INLINE vi b_dot(uint32_t bits, const vb w[8], const int8_t *x, int from, int to, int32_t init)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const int fit = bits == 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
    vi s = _mm256_set1_epi32(bits == 8 ? 0 : init);
    for (int j = from; j < to; j += fit) {
        __m256i sum = _mm256_setzero_si256();
        for (int i = j; i < j + fit; i++) {
            __m256i p = bits == 8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(b_four(x + 4 * i), w[i]))
                                  : _mm256_maddubs_epi16(w[i], b_four(x + 4 * i));
            sum = i == j ? p : _mm256_add_epi16(sum, p);
        }
        s = _mm256_add_epi32(s, _mm256_madd_epi16(sum, ones));
    }
    return s;
}

/* One step of the fastest integer dot product there is, and how many multiplies and adds it is (body_peak.h): 16-bit sums of
 * eight registers fit where weights have 4 bits. */
#define PEAK_DOT_OPS (2 * 32 * 8)
INLINE vi b_peak(vi s, vb w, vb x)
{
    __m256i sum = _mm256_setzero_si256();
    UNROLL
    for (int i = 0; i < 8; i++) {
        __asm__ volatile("" : "+x"(x)); /* else the compiler sees one product again and again */
        sum = i ? _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x)) : _mm256_maddubs_epi16(w, x);
    }
    return _mm256_add_epi32(s, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}

#endif
