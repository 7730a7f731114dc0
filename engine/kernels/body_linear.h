/* The linear kernels, written in lanes. Included once by each kernels_*.c. Every argument that is a constant at the call
 * makes its own code: bits, scales, offset and height. */
#include "engine/kernels/kernels.h"

#define PARTS (PANEL_ROWS / LANES)
/* Bytes ahead of the quants, across panels: with less, memory is not kept busy; with more, what was fetched falls out of
 * the first cache again. */
#define PREFETCH_AHEAD (20 << 10)

struct scales {
    vf d, d2, m; /* d2: second half of a Q6_K block */
};

PIECE struct scales block_scales(enum pack_scales kind, const uint8_t *s, uint32_t block, int part)
{
    const int h = 2 * LANES * part, o = LANES * part;
    struct scales r = {f_set(0), f_set(0), f_set(0)};
    if (kind == PACK_D)
        r.d = f_of_half(s + 32 * (size_t)block + h);
    if (kind == PACK_DM) {
        r.d = f_of_half(s + 64 * (size_t)block + h);
        r.m = f_of_half(s + 64 * (size_t)block + 32 + h);
    }
    if (kind == PACK_K) {
        const uint8_t *g = s + 320 * (size_t)(block / 8), *sub = g + 64 + 32 * (block % 8) + o;
        r.d = f_mul(f_of_half(g + h), f_of_u8(sub));
        r.m = f_sub(f_set(0), f_mul(f_of_half(g + 32 + h), f_of_u8(sub + 16)));
    }
    if (kind == PACK_K6) {
        const uint8_t *g = s + 288 * (size_t)(block / 8), *sub = g + 32 + 32 * (block % 8) + o;
        vf d = f_of_half(g + h);
        r.d = f_mul(d, f_of_i8(sub));
        r.d2 = f_mul(d, f_of_i8(sub + 16));
    }
    return r;
}

/* Bytes of a panel per block, quants and scales: the pace at which the prefetch walks through both. */
INLINE uint32_t pace_of(uint32_t bits, enum pack_scales kind)
{
    const uint32_t scales = kind == PACK_D ? 32 : kind == PACK_DM ? 64 : kind == PACK_K ? 320 / 8 : 288 / 8;
    return PANEL_ROWS * PANEL_K * bits / 8 + scales;
}

INLINE int32_t start_of(uint32_t offset, const struct act_block *x)
{
    return offset == 8 ? x->off8 : offset == 16 ? x->off16 : offset == 128 ? x->off128 : 0;
}

/* One block of k into one output register. */
PIECE vf block_into(uint32_t bits, enum pack_scales kind, uint32_t offset, const vb w[8], const struct scales *s,
                     const struct act_block *x, vf acc)
{
    vf xd = f_set(x->d);
    if (kind == PACK_K6) {
        vi a = b_dot(bits, w, x->q, 0, 4, x->off32[0]), b = b_dot(bits, w, x->q, 4, 8, x->off32[1]);
        acc = f_fma(f_of_i(a), f_mul(s->d, xd), acc);
        return f_fma(f_of_i(b), f_mul(s->d2, xd), acc);
    }
    vi a = b_dot(bits, w, x->q, 0, 8, start_of(offset, x));
    acc = f_fma(f_of_i(a), f_mul(s->d, xd), acc);
    if (kind == PACK_DM || kind == PACK_K)
        acc = f_fma(s->m, f_set(x->dsum), acc);
    return acc;
}

INLINE void store_output(const struct linear_tile *t, float *out, vf y, vf bias)
{
    y = t->bias ? f_add(y, bias) : y;
    f_store(out, t->added ? f_add(f_load(out), y) : y);
}

INLINE void store_tile(const struct linear_tile *t, const vf *acc, uint32_t height, uint32_t panel, int part)
{
    size_t at = (size_t)panel * PANEL_ROWS + (size_t)part * LANES;
    vf bias = t->bias ? f_load(t->bias + at) : f_set(0);
    UNROLL
    for (uint32_t r = 0; r < height; r++)
        if (r < t->n_rows)
            store_output(t, t->out + r * t->out_stride + at, acc[r], bias);
}

INLINE void panel_part(uint32_t bits, enum pack_scales kind, uint32_t offset, uint32_t height,
                       const struct linear_tile *t, uint32_t panel, int part)
{
    const uint8_t *q = t->w->data + panel * t->w->panel_bytes, *s = q + t->w->scales_at;
    const uint32_t n_blocks = t->w->n_in / PANEL_K, step = PANEL_ROWS * PANEL_K * bits / 8;
    const uint32_t pace = pace_of(bits, kind);
    const uint8_t *ahead = q + PREFETCH_AHEAD;
    const struct act_block *x = t->x;
    vf acc[TILE_ROWS_MAX];
    UNROLL
    for (uint32_t r = 0; r < height; r++)
        acc[r] = f_set(0);
    for (uint32_t b = 0; b < n_blocks; b++, q += step, x += height) {
        for (uint32_t line = 0; line < pace; line += 64)
            prefetch(ahead + line);
        ahead += pace;
        struct scales sc = block_scales(kind, s, b, part);
        vb w[8];
        b_unpack(bits, q, part, w);
        UNROLL
        for (uint32_t r = 0; r < height; r++)
            acc[r] = block_into(bits, kind, offset, w, &sc, &x[r], acc[r]);
    }
    store_tile(t, acc, height, panel, part);
}

INLINE void panels(uint32_t bits, enum pack_scales kind, uint32_t offset, uint32_t height, const struct linear_tile *t)
{
    for (uint32_t p = t->first_panel; p < t->first_panel + t->n_panels; p++)
        for (int part = 0; part < PARTS; part++)
            panel_part(bits, kind, offset, height, t, p, part);
}

/* ---- float weights ------------------------------------------------------------------------------------------ */

INLINE vf weight_at(enum weight_type type, const uint8_t *p)
{
    if (type == WEIGHT_F32)
        return f_load((const float *)(const void *)p);
    return type == WEIGHT_F16 ? f_of_half(p) : f_of_bfloat(p);
}

/* `rows` rows by `wide` panels: enough chains to fill the multipliers, each in ascending k. */
INLINE void float_panels(enum weight_type type, uint32_t rows, uint32_t wide, const struct linear_tile *t,
                         uint32_t first_row, uint32_t panel, int part)
{
    const size_t size = type == WEIGHT_F32 ? 4 : 2, stride = t->w->panel_bytes;
    const uint8_t *w = t->w->data + panel * stride + (size_t)part * LANES * size;
    vf acc[ACCUMULATORS];
    const float *x[ACCUMULATORS];
    UNROLL
    for (uint32_t i = 0; i < rows * wide; i++)
        acc[i] = f_set(0);
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        x[r] = t->xf + (first_row + r < t->n_rows ? first_row + r : t->n_rows - 1) * t->xf_stride;
    for (uint32_t k = 0; k < t->w->n_in; k++, w += PANEL_ROWS * size) {
        UNROLL
        for (uint32_t p = 0; p < wide; p++) {
            vf wk = weight_at(type, w + p * stride);
            UNROLL
            for (uint32_t r = 0; r < rows; r++)
                acc[p * rows + r] = f_fma(wk, f_set(x[r][k]), acc[p * rows + r]);
        }
    }
    for (uint32_t p = 0; p < wide; p++) {
        size_t at = (size_t)(panel + p) * PANEL_ROWS + (size_t)part * LANES;
        for (uint32_t r = 0; r < rows && first_row + r < t->n_rows; r++) {
            vf bias = t->bias ? f_load(t->bias + at) : f_set(0);
            store_output(t, t->out + (first_row + r) * t->out_stride + at, acc[p * rows + r], bias);
        }
    }
}

INLINE void float_linear(enum weight_type type, const struct linear_tile *t)
{
    uint32_t p = t->first_panel, end = p + t->n_panels;
    for (; t->n_rows == 1 && p + 4 <= end; p += 4)
        for (int part = 0; part < PARTS; part++)
            float_panels(type, 1, 4, t, 0, p, part);
    for (; p < end; p++)
        for (int part = 0; part < PARTS; part++)
            for (uint32_t r = 0; r < t->n_rows; r += ACCUMULATORS)
                float_panels(type, ACCUMULATORS, 1, t, r, p, part);
}

/* ---- one function per format and height --------------------------------------------------------------------- */

#define FORMAT_KERNELS(X)                                                                          \
    X(Q4_0, 4, PACK_D, 8)                                                                          \
    X(Q4_1, 4, PACK_DM, 0)                                                                         \
    X(Q5_0, 5, PACK_D, 16)                                                                         \
    X(Q5_1, 5, PACK_DM, 0)                                                                         \
    X(Q8_0, 8, PACK_D, 128)                                                                        \
    X(Q4_K, 4, PACK_K, 0)                                                                          \
    X(Q5_K, 5, PACK_K, 0)                                                                          \
    X(Q6_K, 6, PACK_K6, 32)

#define ONE_KERNEL(h, name, bits, scales, offset)                                                  \
    static void linear_##name##_##h(const struct linear_tile *t)                                   \
    {                                                                                              \
        panels(bits, scales, offset, h, t);                                                        \
    }
#define ALL_HEIGHTS(name, bits, scales, offset) HEIGHTS(ONE_KERNEL, name, bits, scales, offset)
FORMAT_KERNELS(ALL_HEIGHTS)

#define FLOAT_KERNEL(name)                                                                         \
    static void linear_##name(const struct linear_tile *t)                                         \
    {                                                                                              \
        float_linear(WEIGHT_##name, t);                                                            \
    }
FLOAT_KERNEL(F32)
FLOAT_KERNEL(F16)
FLOAT_KERNEL(BF16)

#define HEIGHT_VALUE(h, unused) h,
static const uint8_t HEIGHT_LIST[] = {HEIGHTS(HEIGHT_VALUE, 0)};

#define ONE_CASE(h, name)                                                                          \
    case h:                                                                                        \
        linear_##name##_##h(t);                                                                    \
        return;
#define ALL_CASES(name, ...)                                                                       \
    case WEIGHT_##name:                                                                            \
        switch (t->height) {                                                                       \
            HEIGHTS(ONE_CASE, name)                                                                \
        }                                                                                          \
        break;

static void linear(const struct linear_tile *t)
{
    switch (t->w->f->type) {
        FORMAT_KERNELS(ALL_CASES)
    case WEIGHT_F32:
        linear_F32(t);
        return;
    case WEIGHT_F16:
        linear_F16(t);
        return;
    case WEIGHT_BF16:
        linear_BF16(t);
        return;
    }
    CHECK(!"a tile height without code");
}
