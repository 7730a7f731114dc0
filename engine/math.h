/* The engine's own elementary functions. libc's differ between versions and CPUs; these are
 * straight lines of adds, multiplies, fused multiply-adds and selects, so that a vector version
 * that does the same per lane gives the same bits. Single precision: within 3 ulp, tanh and erf
 * within 4. Polynomials: Chebyshev fits on the intervals named. */
#ifndef NUNCHI_ENGINE_MATH_H
#define NUNCHI_ENGINE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float math_bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline double math_bits_double(uint64_t u)
{
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

/* Adding and taking away 1.5 * 2^23 rounds |x| < 2^22 to the nearest integer, ties to even. */
#define MATH_ROUND_F 0x1.8p23f
#define MATH_ROUND_D 0x1.8p52

#define MATH_EXP_MIN (-103.9721f) /* below: 0 */
#define MATH_EXP_MAX 88.72284f    /* above: infinity */

/* 2^n for -149 <= n <= 128 in two factors, so that neither leaves the normal range. */
static inline float math_exp(float x)
{
    float c = x < MATH_EXP_MIN ? MATH_EXP_MIN : x;
    c = c > MATH_EXP_MAX ? MATH_EXP_MAX : c;
    float shifted = fmaf(c, 0x1.715476p+0f, MATH_ROUND_F);
    float n = shifted - MATH_ROUND_F;
    float r = fmaf(n, -0x1.62e4p-1f, c); /* ln 2 in two parts; the first has 16 bits, n at most 8 */
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    float q = 0x1.6d4926p-10f; /* e^r = 1 + r + r² q(r), |r| <= ln 2 / 2 */
    q = fmaf(q, r, 0x1.121072p-7f);
    q = fmaf(q, r, 0x1.5554e4p-5f);
    q = fmaf(q, r, 0x1.5554d8p-3f);
    q = fmaf(q, r, 0x1p-1f);
    q = fmaf(q * r, r, r) + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    int32_t i = (int32_t)(bits - 0x4b400000u); /* n, from the mantissa of the shifted value */
    int32_t half = (int32_t)((uint32_t)(i + 512) >> 1) - 256;
    float a = math_bits_float((uint32_t)(half + 127) << 23);
    float b = math_bits_float((uint32_t)(i - half + 127) << 23);
    float y = q * a * b;
    y = x < MATH_EXP_MIN ? 0.0f : y;
    y = x > MATH_EXP_MAX ? (float)INFINITY : y;
    return x != x ? x : y;
}

#define MATH_SHARE_MIN (-63.0f)

/* 2^x for x <= 0, within 4e-7 relative: how likely one thing is beside a likelier one. 0 below MATH_SHARE_MIN, and of
 * NaN. */
static inline float math_exp2_share(float x)
{
    float shifted = x + MATH_ROUND_F;
    float r = x - (shifted - MATH_ROUND_F);
    float q = 0x1.5ec866p-10f; /* 2^r = 1 + r q(r), |r| <= 1/2 */
    q = fmaf(q, r, 0x1.3cbf6p-7f);
    q = fmaf(q, r, 0x1.c6afeep-5f);
    q = fmaf(q, r, 0x1.ebfa4cp-3f);
    q = fmaf(q, r, 0x1.62e43p-1f);
    q = fmaf(q, r, 1.0f);
    uint32_t n, bits;
    memcpy(&n, &shifted, sizeof n);
    memcpy(&bits, &q, sizeof bits);
    float y = math_bits_float(bits + (n << 23)); /* times 2^n, from the mantissa of the shifted value */
    return MATH_SHARE_MIN < x ? y : 0.0f;
}

static inline float math_tanh(float x)
{
    float a = fabsf(x), z = a * a;
    float q = 0x1.2ceba2p-9f; /* tanh x = x + x z q(z), |x| <= 0.625 */
    q = fmaf(q, z, -0x1.11838cp-7f);
    q = fmaf(q, z, 0x1.64add6p-6f);
    q = fmaf(q, z, -0x1.ba0914p-5f);
    q = fmaf(q, z, 0x1.1110eap-3f);
    q = fmaf(q, z, -0x1.555556p-2f);
    float small = fmaf(q * z, a, a);
    float large = 1.0f - 2.0f / (math_exp(a + a) + 1.0f);
    return copysignf(a <= 0.625f ? small : large, x);
}

static inline float math_erf(float x)
{
    float a = fabsf(x), z = a * a;
    float q = -0x1.449782p-17f; /* erf x = x q(z), |x| <= 1 */
    q = fmaf(q, z, 0x1.d89ff4p-14f);
    q = fmaf(q, z, -0x1.bcd3a4p-11f);
    q = fmaf(q, z, 0x1.562abep-8f);
    q = fmaf(q, z, -0x1.b829d0p-6f);
    q = fmaf(q, z, 0x1.ce2f0ap-4f);
    q = fmaf(q, z, -0x1.812746p-2f);
    q = fmaf(q, z, 0x1.20dd76p+0f);
    float c = a < 4.0f ? a : 4.0f; /* erf 4 is 1 in single precision */
    float p = 0x1.b14578p-20f;     /* ln(1 - erf x) = p(x), 1 <= x <= 4 */
    p = fmaf(p, c, -0x1.7e711ep-15f);
    p = fmaf(p, c, 0x1.36c82ep-11f);
    p = fmaf(p, c, -0x1.36a7bcp-8f);
    p = fmaf(p, c, 0x1.aff5a4p-6f);
    p = fmaf(p, c, -0x1.c2788cp-4f);
    p = fmaf(p, c, -0x1.438d42p-1f);
    p = fmaf(p, c, -0x1.21529ap+0f);
    p = fmaf(p, c, 0x1.3df11ep-12f);
    float y = copysignf(a <= 1.0f ? a * q : 1.0f - math_exp(p), x);
    return x != x ? x : y;
}

static inline float math_silu(float x)
{
    return x / (1.0f + math_exp(-x));
}

static inline float math_gelu_tanh(float x)
{
    float u = 0x1.988454p-1f * x * fmaf(0x1.6e4e26p-5f * x, x, 1.0f); /* sqrt(2/pi), 0.044715 */
    return 0.5f * x * (1.0f + math_tanh(u));
}

static inline float math_gelu_erf(float x)
{
    return 0.5f * x * (1.0f + math_erf(x * 0x1.6a09e6p-1f));
}

/* ---- double precision, for tables and for sampling; not on the hot path
 * ------------------------------------- */

/* Within 2 ulp; 0 below -708, infinity above 709. */
static inline double math_exp64(double x)
{
    if (!(x >= -708.0))
        return x != x ? x : 0.0;
    if (x > 709.0)
        return (double)INFINITY;
    double n = fma(x, 0x1.71547652b82fep+0, MATH_ROUND_D) - MATH_ROUND_D;
    double r = fma(n, -0x1.62e42fefa39efp-1, x);
    r = fma(n, -0x1.abc9e3b39803fp-56, r);
    double y = 1.0; /* Taylor, |r| <= 0.35: the 15th term is below 2^-60 */
    for (int k = 14; k >= 1; k--)
        y = fma(y, r / k, 1.0);
    return y * math_bits_double((uint64_t)((int64_t)n + 1023) << 52);
}

/* Of a normal positive number, within 2 ulp or 1e-17; -infinity of 0 and denormals, NaN below. */
static inline double math_log64(double x)
{
    if (!(x >= 0x1p-1022))
        return x >= 0 ? -(double)INFINITY : (double)NAN;
    if (x > 0x1.fffffffffffffp1023)
        return x;
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    int64_t e = (int64_t)(u >> 52) - 1023;
    double m = math_bits_double((u & 0xfffffffffffffull) | 0x3ff0000000000000ull);
    if (m > 0x1.6a09e667f3bcdp+0) { /* sqrt 2 */
        m *= 0.5;
        e++;
    }
    double s = (m - 1) / (m + 1), z = s * s, q = 0; /* ln m = 2 artanh s, |s| <= 0.1716 */
    for (int k = 23; k >= 1; k -= 2)
        q = fma(q, z, 1.0 / k);
    return fma((double)e, 0x1.62e42fefa39efp-1, 2 * s * q);
}

/* base^y for base > 0. */
static inline double math_pow64(double base, double y)
{
    return math_exp64(y * math_log64(base));
}

/* Of |x| up to 2^27, within 1e-15 absolute: a rotation's angle is a position times at most 1. */
static inline void math_sincos64(double x, double *sin_x, double *cos_x)
{
    double n = fma(x, 0x1.45f306dc9c883p-1, MATH_ROUND_D) - MATH_ROUND_D; /* 2/pi */
    double r = fma(n, -0x1.921fb54442d18p+0, x);
    r = fma(n, -0x1.1a62633145c07p-54, r);
    double z = r * r, s = 1, c = 1; /* Taylor, |r| <= pi/4 */
    for (int k = 17; k >= 3; k -= 2)
        s = fma(s, -z / (k * (k - 1)), 1.0);
    for (int k = 18; k >= 2; k -= 2)
        c = fma(c, -z / (k * (k - 1)), 1.0);
    s *= r;
    int quarter = (int)((int64_t)n & 3);
    double a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
    *sin_x = quarter & 2 ? -a : a;
    *cos_x = (quarter == 1 || quarter == 2) ? -b : b;
}

#endif
