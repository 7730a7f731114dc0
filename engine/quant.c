#include "engine/quant.h"

#include <math.h>

#include "engine/kernels/half.h"

#define SUPER 256 /* elements of a block of the K types */
#define HALF_MAX 65504.0f
#define TRIES_EACH                                                                                 \
    9               /* scales looked at on either side of the plain one, a tenth of a level apart */
#define TINY 1e-30f /* below it a block is zero */

static void put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* Stores a scale; returns what a reader will see. */
static float put_scale(uint8_t *p, float d)
{
    d = d > HALF_MAX ? HALF_MAX : d < -HALF_MAX ? -HALF_MAX : d;
    uint16_t h = float_to_half(d);
    put_u16(p, h);
    return half_to_float(h);
}

/* Nearest, ties to even, within [low, high]; without libm and without branches. */
static inline float level(float v, float low, float high)
{
    v = v < low ? low : v > high ? high : v;
    return (v + 12582912.0f) - 12582912.0f;
}

static float inverse(float d)
{
    return d > TINY || d < -TINY ? 1 / d : 0;
}

/* ---- scales ---- */

/* d for x = d * q with q from low to -low - 1: of several, that with the least squared error. */
static float fit_scale(const float *x, int n, float low)
{
    float most = 0, best = 0, best_d = 0;
    for (int i = 0; i < n; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    if (fabsf(most) < TINY)
        return 0;
    for (int t = -TRIES_EACH; t <= TRIES_EACH; t++) {
        float by = (low + 0.1f * (float)t) / most, xq = 0, qq = 0;
        for (int i = 0; i < n; i++) {
            float q = level(x[i] * by, low, -low - 1);
            xq += x[i] * q;
            qq += q * q;
        }
        if (qq > 0 && xq * xq > best * qq) { /* error = sum of squares - xq^2 / qq */
            best = xq * xq / qq;
            best_d = xq / qq;
        }
    }
    return best_d;
}

struct line {
    float d, m; /* x = d * q + m */
};

static float line_error(const float *x, int n, struct line l, float high)
{
    float by = inverse(l.d), error = 0;
    for (int i = 0; i < n; i++) {
        float off = l.d * level((x[i] - l.m) * by, 0, high) + l.m - x[i];
        error += off * off;
    }
    return error;
}

/* Least squares over x = d * q + m for given q; m above `top` is not possible. */
static struct line solve_line(const float *x, int n, float by, float low, float high, float top)
{
    float sx = 0, sq = 0, qq = 0, xq = 0, count = (float)n;
    for (int i = 0; i < n; i++) {
        float q = level((x[i] - low) * by, 0, high);
        sx += x[i];
        sq += q;
        qq += q * q;
        xq += x[i] * q;
    }
    float det = count * qq - sq * sq;
    struct line l = {0, low};
    if (det > 0)
        l = (struct line){(count * xq - sx * sq) / det, (qq * sx - sq * xq) / det};
    if (l.m > top)
        l = (struct line){qq > 0 ? xq / qq : 0, top};
    return l;
}

/* d and m for q from 0 to high. */
static struct line fit_line(const float *x, int n, float high, float top)
{
    float low = x[0], most = x[0];
    for (int i = 1; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        most = x[i] > most ? x[i] : most;
    }
    low = low > top ? top : low;
    struct line best = {(most - low) / high, low};
    if (most - low < TINY)
        return (struct line){0, low};
    float least = line_error(x, n, best, high);
    for (int t = -TRIES_EACH; t <= TRIES_EACH; t++) {
        float by = (high + 0.1f * (float)t) / (most - low);
        struct line l = solve_line(x, n, by, low, high, top);
        float error = l.d > 0 ? line_error(x, n, l, high) : least;
        if (error < least) {
            least = error;
            best = l;
        }
    }
    return best;
}

/* ---- blocks of 32 ---- */

#define BLOCK 32

/* Levels as two halves of nibbles, and fifth bits. */
static void put_nibbles(const uint8_t *q, uint8_t *out)
{
    for (int j = 0; j < BLOCK / 2; j++)
        out[j] = (uint8_t)((q[j] & 15) | (q[j + BLOCK / 2] & 15) << 4);
}

static void put_fifths(const uint8_t *q, uint8_t *out)
{
    uint32_t high = 0;
    for (int j = 0; j < BLOCK; j++)
        high |= (uint32_t)(q[j] >> 4) << j;
    put_u16(out, (uint16_t)high);
    put_u16(out + 2, (uint16_t)(high >> 16));
}

/* Q4_0, Q5_0: x = d * (q - half) */
static void block_symmetric(const float *x, int bits, uint8_t *out)
{
    float low = bits == 4 ? -8 : -16, by = inverse(put_scale(out, fit_scale(x, BLOCK, low)));
    uint8_t q[BLOCK], *at = out + 2;
    for (int i = 0; i < BLOCK; i++)
        q[i] = (uint8_t)(level(x[i] * by, low, -low - 1) - low);
    if (bits == 5) {
        put_fifths(q, at);
        at += 4;
    }
    put_nibbles(q, at);
}

/* Q4_1, Q5_1: x = d * q + m */
static void block_line(const float *x, int bits, uint8_t *out)
{
    float high = bits == 4 ? 15 : 31;
    struct line l = fit_line(x, BLOCK, high, INFINITY);
    l.d = put_scale(out, l.d);
    l.m = put_scale(out + 2, l.m);
    float by = inverse(l.d);
    uint8_t q[BLOCK], *at = out + 4;
    for (int i = 0; i < BLOCK; i++)
        q[i] = (uint8_t)level((x[i] - l.m) * by, 0, high);
    if (bits == 5) {
        put_fifths(q, at);
        at += 4;
    }
    put_nibbles(q, at);
}

static void block_q8_0(const float *x, uint8_t *out)
{
    float most = 0;
    for (int i = 0; i < BLOCK; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    float by = inverse(put_scale(out, most / 127));
    for (int i = 0; i < BLOCK; i++)
        out[2 + i] = (uint8_t)(int8_t)level(x[i] * by, -127, 127);
}

/* ---- blocks of 256 ---- */

#define SUBS 8       /* of 32, in Q4_K and Q5_K */
#define SCALE_MAX 63 /* six bits */

/* A sub-block's scale and minimum in whole steps of the block's: the best of the nearest ones. */
static void fit_steps(const float *x, struct line l, float d, float dmin, float high, uint8_t *sc,
                      uint8_t *m)
{
    float least = INFINITY, sc0 = level(l.d * inverse(d), 0, SCALE_MAX),
          m0 = level(-l.m * inverse(dmin), 0, SCALE_MAX);
    for (int i = 0; i < 9; i++) {
        int across = i % 3 - 1, down = i / 3 - 1;
        float s = sc0 + (float)across, t = m0 + (float)down;
        if (s < 0 || s > SCALE_MAX || t < 0 || t > SCALE_MAX)
            continue;
        float error = line_error(x, BLOCK, (struct line){d * s, -(dmin * t)}, high);
        if (error < least) {
            least = error;
            *sc = (uint8_t)s;
            *m = (uint8_t)t;
        }
    }
}

/* Eight pairs of six bits in twelve bytes. */
static void put_pairs(const uint8_t *sc, const uint8_t *m, uint8_t *out)
{
    for (int j = 0; j < 4; j++) {
        out[j] = (uint8_t)(sc[j] | sc[j + 4] >> 4 << 6);
        out[j + 4] = (uint8_t)(m[j] | m[j + 4] >> 4 << 6);
        out[j + 8] = (uint8_t)((sc[j + 4] & 15) | (m[j + 4] & 15) << 4);
    }
}

/* Q4_K, Q5_K: x = d * sc * q - dmin * m */
static void super_line(const float *x, int bits, uint8_t *out)
{
    struct line l[SUBS];
    float high = bits == 4 ? 15 : 31, d = 0, dmin = 0;
    uint8_t sc[SUBS] = {0}, m[SUBS] = {0}, q[SUPER];
    for (int j = 0; j < SUBS; j++) {
        l[j] = fit_line(x + j * BLOCK, BLOCK, high, 0);
        d = l[j].d > d ? l[j].d : d;
        dmin = -l[j].m > dmin ? -l[j].m : dmin;
    }
    d = put_scale(out, d / SCALE_MAX);
    dmin = put_scale(out + 2, dmin / SCALE_MAX);
    for (int j = 0; j < SUBS; j++) {
        fit_steps(x + j * BLOCK, l[j], d, dmin, high, &sc[j], &m[j]);
        float by = inverse(d * sc[j]), low = -(dmin * m[j]);
        for (int i = 0; i < BLOCK; i++)
            q[j * BLOCK + i] = (uint8_t)level((x[j * BLOCK + i] - low) * by, 0, high);
    }
    put_pairs(sc, m, out + 4);
    uint8_t *qh = out + 16, *qs = bits == 5 ? out + 48 : out + 16;
    if (bits == 5)
        memset(qh, 0, 32);
    for (int g = 0; g < 4; g++)
        for (int i = 0; i < 32; i++) {
            uint8_t a = q[64 * g + i], b = q[64 * g + 32 + i];
            qs[32 * g + i] = (uint8_t)((a & 15) | (b & 15) << 4);
            if (bits == 5)
                qh[i] |= (uint8_t)(a >> 4 << (2 * g) | b >> 4 << (2 * g + 1));
        }
}

static float scale_error(const float *x, int n, float d)
{
    float by = inverse(d), error = 0;
    for (int i = 0; i < n; i++) {
        float off = d * level(x[i] * by, -32, 31) - x[i];
        error += off * off;
    }
    return error;
}

/* The best of the nearest steps. */
static int8_t fit_step(const float *x, float scale, float d)
{
    float least = INFINITY, at = level(scale * inverse(d), -128, 127);
    int8_t best = 0;
    for (int i = -1; i <= 1; i++) {
        float s = level(at + (float)i, -128, 127), error = scale_error(x, 16, d * s);
        if (error < least) {
            least = error;
            best = (int8_t)s;
        }
    }
    return best;
}

/* Q6_K: x = d * sc * (q - 32), 16 sub-blocks of 16 */
static void super_q6_k(const float *x, uint8_t *out)
{
    float scales[16], most = 0;
    uint8_t q[SUPER], *ql = out, *qh = out + 128, *sc = out + 192;
    for (int j = 0; j < 16; j++) {
        scales[j] = fit_scale(x + j * 16, 16, -32);
        most = fabsf(scales[j]) > fabsf(most) ? scales[j] : most;
    }
    float d = put_scale(out + 208, most / -128);
    for (int j = 0; j < 16; j++) {
        int8_t step = fit_step(x + j * 16, scales[j], d);
        float by = inverse(d * step);
        sc[j] = (uint8_t)step;
        for (int i = 0; i < 16; i++)
            q[j * 16 + i] = (uint8_t)(level(x[j * 16 + i] * by, -32, 31) + 32);
    }
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 32; i++) {
            const uint8_t *e = q + 128 * half + i;
            ql[64 * half + i] = (uint8_t)((e[0] & 15) | (e[64] & 15) << 4);
            ql[64 * half + 32 + i] = (uint8_t)((e[32] & 15) | (e[96] & 15) << 4);
            qh[32 * half + i] =
                (uint8_t)(e[0] >> 4 | e[32] >> 4 << 2 | e[64] >> 4 << 4 | e[96] >> 4 << 6);
        }
}

/* ---- types ---- */

static void put_float(enum weight_type type, float x, uint8_t *out)
{
    uint32_t u = float_bits(x);
    if (type == WEIGHT_F16)
        put_u16(out, float_to_half(x));
    else if (type == WEIGHT_BF16) /* nearest, ties to even */
        put_u16(out, (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16));
    else
        memcpy(out, &x, sizeof x);
}

static size_t one_block(enum weight_type type, const float *x, uint8_t *out)
{
    switch (type) {
    case WEIGHT_Q4_0:
        block_symmetric(x, 4, out);
        return 18;
    case WEIGHT_Q5_0:
        block_symmetric(x, 5, out);
        return 22;
    case WEIGHT_Q4_1:
        block_line(x, 4, out);
        return 20;
    case WEIGHT_Q5_1:
        block_line(x, 5, out);
        return 24;
    case WEIGHT_Q8_0:
        block_q8_0(x, out);
        return 34;
    case WEIGHT_Q4_K:
        super_line(x, 4, out);
        return 144;
    case WEIGHT_Q5_K:
        super_line(x, 5, out);
        return 176;
    case WEIGHT_Q6_K:
        super_q6_k(x, out);
        return 210;
    case WEIGHT_F32:
    case WEIGHT_F16:
    case WEIGHT_BF16:
        put_float(type, *x, out);
        return type == WEIGHT_F32 ? 4 : 2;
    }
    CHECK(!"a type that cannot be written");
    return 0;
}

void quant(enum weight_type type, const float *x, size_t n, void *out)
{
    bool floats = type == WEIGHT_F32 || type == WEIGHT_F16 || type == WEIGHT_BF16;
    bool super = type == WEIGHT_Q4_K || type == WEIGHT_Q5_K || type == WEIGHT_Q6_K;
    size_t block = floats ? 1 : super ? SUPER : BLOCK;
    uint8_t *p = out;
    CHECK(n % block == 0);
    for (size_t i = 0; i < n; i += block)
        p += one_block(type, x + i, p);
}
