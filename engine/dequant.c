#include "engine/dequant.h"

#include "engine/kernels/half.h"

static float f16(const uint8_t *p)
{
    return half_to_float((uint16_t)(p[0] | p[1] << 8));
}

static void from_f32(const uint8_t *b, float *out)
{
    memcpy(out, b, sizeof *out);
}

static void from_f16(const uint8_t *b, float *out)
{
    *out = f16(b);
}

static void from_bf16(const uint8_t *b, float *out)
{
    *out = bfloat_to_float((uint16_t)(b[0] | b[1] << 8));
}

/* d; 16 bytes: low nibbles are the first 16 elements, high ones the rest. */
static void from_q4_0(const uint8_t *b, float *out)
{
    float d = f16(b);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)((b[2 + j] & 15) - 8);
        out[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

static void from_q4_1(const uint8_t *b, float *out)
{
    float d = f16(b), m = f16(b + 2);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)(b[4 + j] & 15) + m;
        out[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

/* Bit j of the 32 bits at `bits` is the fifth bit of element j. */
static int fifth(const uint8_t *bits, int j)
{
    return (bits[j / 8] >> (j % 8) & 1) << 4;
}

static void from_q5_0(const uint8_t *b, float *out)
{
    float d = f16(b);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)(((b[6 + j] & 15) | fifth(b + 2, j)) - 16);
        out[j + 16] = d * (float)(((b[6 + j] >> 4) | fifth(b + 2, j + 16)) - 16);
    }
}

static void from_q5_1(const uint8_t *b, float *out)
{
    float d = f16(b), m = f16(b + 2);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)((b[8 + j] & 15) | fifth(b + 4, j)) + m;
        out[j + 16] = d * (float)((b[8 + j] >> 4) | fifth(b + 4, j + 16)) + m;
    }
}

static void from_q8_0(const uint8_t *b, float *out)
{
    float d = f16(b);
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)(int8_t)b[2 + j];
}

/* Scale and minimum of sub-block j (of 8) from the 12 bytes of 6-bit numbers. */
static void scale_min(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
    }
}

/* d, dmin, 12 bytes of scales, 128 bytes of nibbles: each 32 bytes are 64 elements, low nibbles first. */
static void from_q4_k(const uint8_t *b, float *out)
{
    float d = f16(b), dmin = f16(b + 2);
    for (int sub = 0; sub < 8; sub++) {
        int scale, min;
        scale_min(b + 4, sub, &scale, &min);
        const uint8_t *q = b + 16 + sub / 2 * 32;
        for (int l = 0; l < 32; l++)
            out[sub * 32 + l] = d * (float)scale * (float)(q[l] >> (sub % 2 * 4) & 15) - dmin * (float)min;
    }
}

/* As Q4_K with 32 bytes of fifth bits before the nibbles: bit `sub` of byte l. */
static void from_q5_k(const uint8_t *b, float *out)
{
    float d = f16(b), dmin = f16(b + 2);
    for (int sub = 0; sub < 8; sub++) {
        int scale, min;
        scale_min(b + 4, sub, &scale, &min);
        const uint8_t *high = b + 16, *q = b + 48 + sub / 2 * 32;
        for (int l = 0; l < 32; l++) {
            int v = (q[l] >> (sub % 2 * 4) & 15) | (high[l] >> sub & 1) << 4;
            out[sub * 32 + l] = d * (float)scale * (float)v - dmin * (float)min;
        }
    }
}

/* 128 bytes of low nibbles, 64 bytes of upper two bits, 16 signed scales, d. Two halves of 128 elements. */
static void from_q6_k(const uint8_t *b, float *out)
{
    float d = f16(b + 208);
    for (int half = 0; half < 2; half++) {
        const uint8_t *low = b + half * 64, *high = b + 128 + half * 32;
        for (int quarter = 0; quarter < 4; quarter++) {
            for (int l = 0; l < 32; l++) {
                int nibble = low[l + quarter % 2 * 32] >> (quarter / 2 * 4) & 15;
                int v = nibble | (high[l] >> (quarter * 2) & 3) << 4;
                int8_t scale = (int8_t)b[192 + half * 8 + quarter * 2 + l / 16];
                out[half * 128 + quarter * 32 + l] = d * (float)scale * (float)(v - 32);
            }
        }
    }
}

static const struct {
    uint32_t type;
    size_t elements, bytes;
    void (*block)(const uint8_t *b, float *out);
} TYPES[] = {
    {WEIGHT_F32, 1, 4, from_f32},        {WEIGHT_F16, 1, 2, from_f16},        {WEIGHT_BF16, 1, 2, from_bf16},
    {WEIGHT_Q4_0, 32, 18, from_q4_0},    {WEIGHT_Q4_1, 32, 20, from_q4_1},    {WEIGHT_Q5_0, 32, 22, from_q5_0},
    {WEIGHT_Q5_1, 32, 24, from_q5_1},    {WEIGHT_Q8_0, 32, 34, from_q8_0},    {WEIGHT_Q4_K, 256, 144, from_q4_k},
    {WEIGHT_Q5_K, 256, 176, from_q5_k},  {WEIGHT_Q6_K, 256, 210, from_q6_k},
};

bool dequant_knows(uint32_t type)
{
    for (size_t i = 0; i < ARRAY_LEN(TYPES); i++) {
        if (TYPES[i].type == type)
            return true;
    }
    return false;
}

void dequant(enum weight_type type, const void *src, size_t n, float *out)
{
    size_t t = 0;
    while (t < ARRAY_LEN(TYPES) && TYPES[t].type != (uint32_t)type)
        t++;
    CHECK(t < ARRAY_LEN(TYPES) && n % TYPES[t].elements == 0);
    const uint8_t *b = src;
    for (size_t i = 0; i < n; i += TYPES[t].elements, b += TYPES[t].bytes)
        TYPES[t].block(b, out + i);
}
