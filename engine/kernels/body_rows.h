/* What works on rows of floats, written in lanes. Included once by each kernels_*.c, after body_linear.h. */
#include "engine/math.h"

#include "engine/kernels/half.h"

/* ---- engine/math.h, lane by lane: the same steps, the same bits ---------------------------------------------------------------------------------- */

PIECE vf f_const(float x, vf r, vf c) /* one step of a polynomial */
{
    return f_fma(c, r, f_set(x));
}

PIECE vf f_exp(vf x)
{
    vf c = f_max(f_set(MATH_EXP_MIN), x);
    c = f_min(f_set(MATH_EXP_MAX), c);
    vf n = f_sub(f_fma(c, f_set(0x1.715476p+0f), f_set(MATH_ROUND_F)), f_set(MATH_ROUND_F));
    vf r = f_fma(n, f_set(-0x1.62e4p-1f), c);
    r = f_fma(n, f_set(-0x1.7f7d1cp-20f), r);
    vf q = f_set(0x1.6d4926p-10f);
    q = f_const(0x1.121072p-7f, r, q);
    q = f_const(0x1.5554e4p-5f, r, q);
    q = f_const(0x1.5554d8p-3f, r, q);
    q = f_const(0x1p-1f, r, q);
    q = f_add(f_fma(f_mul(q, r), r, r), f_set(1.0f));
    vi i = i_of_f(f_if_nan(n, f_set(0), n)), half = i_half(i);
    vf y = f_mul(f_mul(q, f_pow2(half)), f_pow2(i_sub(i, half)));
    y = f_if_less(x, f_set(MATH_EXP_MIN), f_set(0), y);
    y = f_if_less(f_set(MATH_EXP_MAX), x, f_set(INFINITY), y);
    return f_if_nan(x, x, y);
}

PIECE vf f_tanh(vf x)
{
    vf a = f_abs(x), z = f_mul(a, a);
    vf q = f_set(0x1.2ceba2p-9f);
    q = f_const(-0x1.11838cp-7f, z, q);
    q = f_const(0x1.64add6p-6f, z, q);
    q = f_const(-0x1.ba0914p-5f, z, q);
    q = f_const(0x1.1110eap-3f, z, q);
    q = f_const(-0x1.555556p-2f, z, q);
    vf small = f_fma(f_mul(q, z), a, a);
    vf large = f_sub(f_set(1.0f), f_div(f_set(2.0f), f_add(f_exp(f_add(a, a)), f_set(1.0f))));
    return f_sign_of(f_if_less(f_set(0.625f), a, large, small), x);
}

PIECE vf f_erf(vf x)
{
    static const float NEAR[] = {0x1.d89ff4p-14f, -0x1.bcd3a4p-11f, 0x1.562abep-8f, -0x1.b829d0p-6f,
                                 0x1.ce2f0ap-4f,  -0x1.812746p-2f,  0x1.20dd76p+0f};
    static const float FAR[] = {-0x1.7e711ep-15f, 0x1.36c82ep-11f, -0x1.36a7bcp-8f, 0x1.aff5a4p-6f,
                                -0x1.c2788cp-4f,  -0x1.438d42p-1f, -0x1.21529ap+0f, 0x1.3df11ep-12f};
    vf a = f_abs(x), z = f_mul(a, a), q = f_set(-0x1.449782p-17f), p = f_set(0x1.b14578p-20f);
    vf c = f_min(a, f_set(4.0f));
    for (size_t i = 0; i < ARRAY_LEN(NEAR); i++)
        q = f_const(NEAR[i], z, q);
    for (size_t i = 0; i < ARRAY_LEN(FAR); i++)
        p = f_const(FAR[i], c, p);
    vf y = f_if_less(f_set(1.0f), a, f_sub(f_set(1.0f), f_exp(p)), f_mul(a, q));
    return f_if_nan(x, x, f_sign_of(y, x));
}

PIECE vf f_activate(enum act_fn fn, vf x)
{
    vf one = f_set(1.0f), half = f_mul(f_set(0.5f), x);
    if (fn == ACT_SILU)
        return f_div(x, f_add(one, f_exp(f_negate(x))));
    if (fn == ACT_GELU_ERF)
        return f_mul(half, f_add(one, f_erf(f_mul(x, f_set(0x1.6a09e6p-1f)))));
    vf cubic = f_fma(f_mul(f_set(0x1.6e4e26p-5f), x), x, one);
    return f_mul(half, f_add(one, f_tanh(f_mul(f_mul(f_set(0x1.988454p-1f), x), cubic))));
}

/* The n first of LANES floats, the rest zero. */
PIECE vf f_load_some(const float *p, size_t n)
{
    float all[LANES] = {0};
    if (n >= LANES)
        return f_load(p);
    for (size_t i = 0; i < n; i++)
        all[i] = p[i];
    return f_load(all);
}

INLINE void f_store_some(float *p, vf x, size_t n)
{
    float all[LANES];
    if (n >= LANES) {
        f_store(p, x);
        return;
    }
    f_store(all, x);
    for (size_t i = 0; i < n; i++)
        p[i] = all[i];
}

/* ---- quantising activations --------------------------------------------------------------------------------- */

/* Largest magnitude as bits: orders like the floats, NaN above all, and the order of comparison does not matter. */
INLINE uint32_t largest_bits(const float *x)
{
    vi most = i_set(0);
    for (int i = 0; i < PANEL_K; i += LANES)
        most = i_max(most, i_of_bits(f_abs(f_load(x + i))));
    return (uint32_t)i_most(most);
}

INLINE void block_sums(struct act_block *b, int32_t first, int32_t second)
{
    int32_t all = first + second;
    b->dsum = b->d * (float)all;
    b->off8 = -8 * all;
    b->off16 = -16 * all;
    b->off128 = -128 * all;
    b->off32[0] = -32 * first;
    b->off32[1] = -32 * second;
    b->unused = 0;
}

INLINE void quantise_block(const float *x, struct act_block *b)
{
    uint32_t most = largest_bits(x);
    int32_t sum[2] = {0, 0};
    float inverse = 0;
    b->d = most >= 0x7f800000u ? NAN : 0;
    if (most < 0x7f800000u && most >= 0x0d800000u) { /* 2^-100: below it the inverse would not be finite */
        b->d = bits_float(most) / 127.0f;
        inverse = 127.0f / bits_float(most);
    }
    for (int i = 0; i < PANEL_K; i += LANES) {
        vi q = inverse == 0 ? i_set(0) : i_of_f(f_mul(f_load(x + i), f_set(inverse)));
        i_to_i8(b->q + i, q);
        sum[i / 16] += i_total(q);
    }
    block_sums(b, sum[0], sum[1]);
}

static void quantise(const float *x, size_t n, struct act_block *out, size_t h)
{
    for (size_t i = 0; i < n; i += PANEL_K, out += h)
        quantise_block(x + i, out);
}

/* ---- norms -------------------------------------------------------------------------------------------------- */

/* Sixteen virtual lanes to one number. */
INLINE float tree16(const vf acc[PARTS])
{
    float v[16];
    for (int p = 0; p < PARTS; p++)
        f_store(v + p * LANES, acc[p]);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            v[i] = v[i] + v[i + half];
    return v[0];
}

/* x - less; beyond n zero. */
INLINE vf f_load_less(const float *x, size_t n, float less)
{
    float all[LANES] = {0};
    if (n >= LANES)
        return f_sub(f_load(x), f_set(less));
    for (size_t i = 0; i < n; i++)
        all[i] = x[i] - less;
    return f_load(all);
}

enum sum_kind { SUM, SUM_SQUARES };

PIECE float sum16(enum sum_kind kind, const float *x, float less, size_t n)
{
    vf acc[PARTS];
    for (int p = 0; p < PARTS; p++)
        acc[p] = f_set(0);
    for (size_t i = 0; i < n; i += 16)
        for (int p = 0; p < PARTS; p++) {
            size_t at = i + (size_t)p * LANES;
            if (at >= n)
                break;
            vf v = f_load_less(x + at, n - at, less);
            acc[p] = kind == SUM ? f_add(acc[p], v) : f_fma(v, v, acc[p]);
        }
    return tree16(acc);
}

static void norm_rms(const float *x, const float *weight, float eps, float *out, size_t n)
{
    float scale = 1.0f / sqrtf(sum16(SUM_SQUARES, x, 0, n) / (float)n + eps);
    if (!weight)
        for (size_t i = 0; i < n; i++)
            out[i] = x[i] * scale;
    else
        for (size_t i = 0; i < n; i++)
            out[i] = x[i] * scale * weight[i];
}

static void norm_layer(const float *x, const float *weight, const float *bias, float eps, float *out, size_t n)
{
    float mean = sum16(SUM, x, 0, n) / (float)n;
    float scale = 1.0f / sqrtf(sum16(SUM_SQUARES, x, mean, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++) {
        float y = (x[i] - mean) * scale;
        y = weight ? y * weight[i] : y;
        out[i] = bias ? y + bias[i] : y;
    }
}

/* ---- element by element ------------------------------------------------------------------------------------- */

INLINE void act_mul_as(enum act_fn fn, const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        vf y = f_activate(fn, f_load_some(gate + i, n - i));
        if (up)
            y = f_mul(y, f_load_some(up + i, n - i));
        f_store_some(out + i, y, n - i);
    }
}

static void act_mul(enum act_fn fn, const float *gate, const float *up, float *out, size_t n)
{
    switch (fn) {
    case ACT_SILU:
        act_mul_as(ACT_SILU, gate, up, out, n);
        break;
    case ACT_GELU_TANH:
        act_mul_as(ACT_GELU_TANH, gate, up, out, n);
        break;
    case ACT_GELU_ERF:
        act_mul_as(ACT_GELU_ERF, gate, up, out, n);
        break;
    }
}

static void sum(const float *x, const float *y, float *out, size_t n)
{
    for (size_t i = 0; i < n; i += LANES)
        f_store_some(out + i, f_add(f_load_some(x + i, n - i), f_load_some(y + i, n - i)), n - i);
}

static void scale(float *x, float by, float soft_cap, size_t n)
{
    if (soft_cap == 0) {
        for (size_t i = 0; i < n; i++)
            x[i] *= by;
        return;
    }
    for (size_t i = 0; i < n; i += LANES) {
        vf y = f_mul(f_load_some(x + i, n - i), f_set(by));
        y = f_mul(f_tanh(f_div(y, f_set(soft_cap))), f_set(soft_cap));
        f_store_some(x + i, y, n - i);
    }
}

static void rope(enum rope_kind kind, float *x, const float *cs, uint32_t n_dims)
{
    const uint32_t half = n_dims / 2;
    const float *c = cs, *s = cs + half;
    if (kind == ROPE_HALF)
        for (uint32_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            x[i] = a * c[i] - b * s[i];
            x[i + half] = a * s[i] + b * c[i];
        }
    if (kind == ROPE_INTERLEAVED)
        for (uint32_t i = 0; i < half; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            x[2 * i] = a * c[i] - b * s[i];
            x[2 * i + 1] = a * s[i] + b * c[i];
        }
}
