#include "engine/kernels/pack.h"
#include "engine/kernels/half.h"

static uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)u16_at(p) | (uint32_t)u16_at(p + 2) << 16;
}

/* ---- the file's blocks as integers ------------------------------------------------------------------------- */

static void nibbles(const uint8_t *qs, uint8_t *q)
{
    for (int j = 0; j < 16; j++) {
        q[j] = qs[j] & 15;
        q[j + 16] = qs[j] >> 4;
    }
}

static void fifth_bits(uint32_t high, uint8_t *q)
{
    for (int j = 0; j < 32; j++)
        q[j] |= (uint8_t)((high >> j & 1) << 4);
}

static void quants_q4_0(const uint8_t *b, uint8_t *q)
{
    nibbles(b + 2, q);
}

static void quants_q4_1(const uint8_t *b, uint8_t *q)
{
    nibbles(b + 4, q);
}

static void quants_q5_0(const uint8_t *b, uint8_t *q)
{
    nibbles(b + 6, q);
    fifth_bits(u32_at(b + 2), q);
}

static void quants_q5_1(const uint8_t *b, uint8_t *q)
{
    nibbles(b + 8, q);
    fifth_bits(u32_at(b + 4), q);
}

static void quants_q8_0(const uint8_t *b, uint8_t *q)
{
    for (int j = 0; j < 32; j++)
        q[j] = b[2 + j] ^ 0x80; /* signed + 128 */
}

/* 64 elements share 32 bytes: low nibbles are the first half. */
static void quants_q4_k(const uint8_t *b, uint8_t *q)
{
    for (int g = 0; g < 4; g++)
        for (int l = 0; l < 32; l++) {
            uint8_t v = b[16 + 32 * g + l];
            q[64 * g + l] = v & 15;
            q[64 * g + 32 + l] = v >> 4;
        }
}

static void quants_q5_k(const uint8_t *b, uint8_t *q)
{
    const uint8_t *qh = b + 16, *qs = b + 48;
    for (int g = 0; g < 4; g++)
        for (int l = 0; l < 32; l++) {
            uint8_t v = qs[32 * g + l];
            q[64 * g + l] = (uint8_t)((v & 15) | (qh[l] >> (2 * g) & 1) << 4);
            q[64 * g + 32 + l] = (uint8_t)(v >> 4 | (qh[l] >> (2 * g + 1) & 1) << 4);
        }
}

static void quants_q6_k(const uint8_t *b, uint8_t *q)
{
    for (int half = 0; half < 2; half++) {
        const uint8_t *ql = b + 64 * half, *qh = b + 128 + 32 * half;
        uint8_t *e = q + 128 * half;
        for (int l = 0; l < 32; l++) {
            e[l] = (uint8_t)((ql[l] & 15) | (qh[l] & 3) << 4);
            e[l + 32] = (uint8_t)((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4);
            e[l + 64] = (uint8_t)(ql[l] >> 4 | (qh[l] >> 4 & 3) << 4);
            e[l + 96] = (uint8_t)(ql[l + 32] >> 4 | (qh[l] >> 6) << 4);
        }
    }
}

static const struct format FORMATS[] = {
    {WEIGHT_F32, "F32", 1, 4, 0, 0, PACK_NONE, NULL},
    {WEIGHT_F16, "F16", 1, 2, 0, 0, PACK_NONE, NULL},
    {WEIGHT_BF16, "BF16", 1, 2, 0, 0, PACK_NONE, NULL},
    {WEIGHT_Q4_0, "Q4_0", 32, 18, 4, 8, PACK_D, quants_q4_0},
    {WEIGHT_Q4_1, "Q4_1", 32, 20, 4, 0, PACK_DM, quants_q4_1},
    {WEIGHT_Q5_0, "Q5_0", 32, 22, 5, 16, PACK_D, quants_q5_0},
    {WEIGHT_Q5_1, "Q5_1", 32, 24, 5, 0, PACK_DM, quants_q5_1},
    {WEIGHT_Q8_0, "Q8_0", 32, 34, 8, 128, PACK_D, quants_q8_0},
    {WEIGHT_Q4_K, "Q4_K", 256, 144, 4, 0, PACK_K, quants_q4_k},
    {WEIGHT_Q5_K, "Q5_K", 256, 176, 5, 0, PACK_K, quants_q5_k},
    {WEIGHT_Q6_K, "Q6_K", 256, 210, 6, 32, PACK_K6, quants_q6_k},
};

const struct format *format_of(enum weight_type type)
{
    for (size_t i = 0; i < ARRAY_LEN(FORMATS); i++)
        if (FORMATS[i].type == type)
            return &FORMATS[i];
    return NULL;
}

/* ---- scales of the file's blocks ---------------------------------------------------------------------------- */

/* 6-bit scale and minimum of sub-block j of a Q4_K or Q5_K block; s is its 12 bytes. */
static void k_scale(const uint8_t *s, int j, uint8_t *sc, uint8_t *m)
{
    if (j < 4) {
        *sc = s[j] & 63;
        *m = s[j + 4] & 63;
    } else {
        *sc = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
        *m = (uint8_t)(s[j + 4] >> 4 | (s[j] >> 6) << 4);
    }
}

#define Q6_K_SCALES 192
#define Q6_K_D 208

/* Scale and minimum of elements 16*i .. 16*i+15 of a block: w = scale * (q - offset) + min. */
static void block_scale(const struct format *f, const uint8_t *b, int i, float *scale, float *min)
{
    float d = half_to_float(u16_at(b));
    *scale = d;
    *min = 0;
    if (f->scales == PACK_DM)
        *min = half_to_float(u16_at(b + 2));
    if (f->scales == PACK_K) {
        uint8_t sc, m;
        k_scale(b + 4, i / 2, &sc, &m);
        *scale = d * sc;
        *min = -(half_to_float(u16_at(b + 2)) * m);
    }
    if (f->scales == PACK_K6)
        *scale = half_to_float(u16_at(b + Q6_K_D)) * (int8_t)b[Q6_K_SCALES + i];
}

static float float_at(enum weight_type type, const uint8_t *p, size_t i)
{
    if (type == WEIGHT_F32)
        return bits_float(u32_at(p + 4 * i));
    return type == WEIGHT_F16 ? half_to_float(u16_at(p + 2 * i)) : bfloat_to_float(u16_at(p + 2 * i));
}

void format_row(const struct format *f, const void *row, size_t n, float *out)
{
    const uint8_t *b = row;
    if (!f->bits) {
        for (size_t i = 0; i < n; i++)
            out[i] = float_at(f->type, b, i);
        return;
    }
    uint8_t q[256];
    for (size_t at = 0; at < n; at += f->block, b += f->block_bytes) {
        f->quants(b, q);
        float scale = 0, min = 0;
        for (uint32_t i = 0; i < f->block; i++) {
            if (i % 16 == 0)
                block_scale(f, b, (int)i / 16, &scale, &min);
            out[at + i] = scale * (float)((int)q[i] - (int)f->offset) + min;
        }
    }
}

/* ---- panels ------------------------------------------------------------------------------------------------- */

static size_t quant_bytes(const struct format *f)
{
    return PANEL_ROWS * PANEL_K * (size_t)f->bits / 8;
}

/* Bytes of scales per f->block elements of k. */
static size_t scale_bytes(const struct format *f)
{
    switch (f->scales) {
    case PACK_D:
        return 32;
    case PACK_DM:
        return 64;
    case PACK_K:
        return 64 + 8 * 32;
    case PACK_K6:
        return 32 + 8 * 32;
    case PACK_NONE:
        break;
    }
    return 0;
}

int packed_plan(const struct weight *w, struct packed *out, size_t *bytes, struct why *why)
{
    const struct format *f = format_of(w->type);
    if (!f)
        return why_set(why, ERR_UNSUPPORTED, "type", "weights of GGUF type %d cannot be used", (int)w->type);
    if (!w->n_out || !w->n_in || w->n_in % f->block)
        return why_set(why, ERR_UNSUPPORTED, "shape", "a %s weight of %u x %u: rows must be multiples of %u",
                       f->name, w->n_out, w->n_in, f->block);
    struct packed p = {.f = f, .n_out = w->n_out, .n_in = w->n_in};
    p.n_panels = (w->n_out - 1) / PANEL_ROWS + 1;
    if (f->bits) {
        p.scales_at = w->n_in / PANEL_K * quant_bytes(f);
        p.panel_bytes = p.scales_at + w->n_in / f->block * scale_bytes(f);
    } else {
        p.panel_bytes = (size_t)w->n_in * PANEL_ROWS * f->block_bytes;
    }
    p.panel_bytes = (p.panel_bytes + 63) / 64 * 64;
    if (size_mul(p.panel_bytes, p.n_panels, bytes) < 0)
        return why_set(why, ERR_TOO_BIG, "shape", "a weight of %u x %u is too big", w->n_out, w->n_in);
    *out = p;
    return 0;
}

/* 32 quants of one output row into the block's registers. */
static void put_quants(uint32_t bits, uint8_t *block, int row, const uint8_t *q)
{
    for (int k = 0; k < PANEL_K; k++) {
        int j = k / 4, at = 4 * row + k % 4;
        if (bits == 8) {
            block[64 * j + at] = q[k];
            continue;
        }
        block[64 * (j % 4) + at] |= (uint8_t)((q[k] & 15) << (j < 4 ? 0 : 4));
        if (bits == 5)
            block[256 + 8 * j + at / 8] |= (uint8_t)((q[k] >> 4) << (at % 8));
        if (bits == 6)
            block[256 + 64 * (j / 4) + at] |= (uint8_t)((q[k] >> 4) << (2 * (j % 4)));
    }
}

/* Scales of one block of the file. `s` is that block's scales in the panel. */
static void put_scales(const struct format *f, uint8_t *s, int row, const uint8_t *b)
{
    const uint8_t *d = f->scales == PACK_K6 ? b + Q6_K_D : b;
    memcpy(s + 2 * row, d, 2);
    if (f->scales == PACK_DM || f->scales == PACK_K)
        memcpy(s + 32 + 2 * row, b + 2, 2);
    for (int j = 0; j < 8 && f->scales == PACK_K; j++)
        k_scale(b + 4, j, s + 64 + 32 * j + row, s + 64 + 32 * j + 16 + row);
    for (int j = 0; j < 16 && f->scales == PACK_K6; j++)
        s[32 + 16 * j + row] = b[Q6_K_SCALES + j];
}

static void write_quantised_row(const struct packed *p, const uint8_t *b, uint8_t *panel, int row)
{
    const struct format *f = p->f;
    size_t qb = quant_bytes(f), sb = scale_bytes(f);
    for (uint32_t g = 0; g < p->n_in / f->block; g++, b += f->block_bytes) {
        uint8_t q[256];
        f->quants(b, q);
        for (uint32_t k = 0; k < f->block; k += PANEL_K)
            put_quants(f->bits, panel + (g * f->block + k) / PANEL_K * qb, row, q + k);
        put_scales(f, panel + p->scales_at + g * sb, row, b);
    }
}

static void write_float_row(const struct packed *p, const uint8_t *b, uint8_t *panel, int row)
{
    size_t size = p->f->block_bytes;
    for (uint32_t k = 0; k < p->n_in; k++)
        memcpy(panel + ((size_t)k * PANEL_ROWS + (size_t)row) * size, b + k * size, size);
}

void packed_write(const struct packed *p, const struct weight *w, uint8_t *data, uint32_t first, uint32_t n)
{
    size_t row_bytes = format_row_bytes(p->f, p->n_in);
    for (uint32_t i = first; i < first + n; i++) {
        uint8_t *panel = data + i * p->panel_bytes;
        memset(panel, 0, p->panel_bytes);
        for (uint32_t row = 0; row < PANEL_ROWS && i * PANEL_ROWS + row < p->n_out; row++) {
            const uint8_t *b = (const uint8_t *)w->data + (i * PANEL_ROWS + row) * row_bytes;
            if (p->f->bits)
                write_quantised_row(p, b, panel, (int)row);
            else
                write_float_row(p, b, panel, (int)row);
        }
    }
}
