/* 16-bit floats, without instructions for them: bit for bit what F16C does. */
#ifndef NUNCHI_ENGINE_HALF_H
#define NUNCHI_ENGINE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = h >> 10 & 31, frac = h & 0x3ffu;
    if (exp == 31) /* infinity; a NaN becomes a quiet one */
        return bits_float(sign | 0x7f800000u | frac << 13 | (frac ? 0x400000u : 0));
    if (exp)
        return bits_float(sign | (exp + 112) << 23 | frac << 13);
    float f = (float)frac * 0x1p-24f; /* exact */
    return bits_float(float_bits(f) | sign);
}

/* Nearest, ties to even. */
static inline uint16_t float_to_half(float f)
{
    uint32_t u = float_bits(f), sign = u >> 16 & 0x8000u, mag = u & 0x7fffffffu;
    if (mag > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (mag >> 13 & 0x3ffu));
    if (mag >= 0x477ff000u) /* 65520 and above */
        return (uint16_t)(sign | 0x7c00u);
    if (mag < 0x38800000u) { /* below 2^-14: adding 0.5 leaves the rounded fraction in the low bits */
        float r = bits_float(mag) + 0.5f;
        return (uint16_t)(sign | (float_bits(r) - 0x3f000000u));
    }
    uint32_t odd = mag >> 13 & 1;
    return (uint16_t)(sign | ((mag + 0xfffu + odd - 0x38000000u) >> 13));
}

static inline float bfloat_to_float(uint16_t h)
{
    return bits_float((uint32_t)h << 16);
}

#endif
