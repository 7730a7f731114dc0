/* How K and V of one layer and head lie in a block of 16 tokens, and how a token gets in. Included once by each
 * kernels_*.c, after body_rows.h.
 *
 *   f16    K (head_dim, 16 tokens), V (16 tokens, head_dim)
 *   int8   units of 16 K and of 16 V in f16, one a token; K (head_dim / 2, 16 tokens, 2), V (8, head_dim, 2 tokens):
 *          an integer dot product takes two neighbours at once */

#define BLOCK ENGINE_BLOCK_TOKENS

INLINE const uint8_t *kv_half_k(const struct attention_tile *t, uint32_t block)
{
    return t->kv + (size_t)t->blocks[block] * t->block_stride;
}

INLINE const uint8_t *kv_half_v(const struct attention_tile *t, uint32_t block)
{
    return kv_half_k(t, block) + (size_t)2 * BLOCK * t->head_dim;
}

INLINE const uint8_t *kv_units(const struct attention_tile *t, uint32_t block)
{
    return t->kv + (size_t)t->blocks[block] * t->block_stride;
}

INLINE const uint8_t *kv_byte_k(const struct attention_tile *t, uint32_t block)
{
    return kv_units(t, block) + (size_t)4 * BLOCK;
}

INLINE const uint8_t *kv_byte_v(const struct attention_tile *t, uint32_t block)
{
    return kv_byte_k(t, block) + (size_t)BLOCK * t->head_dim;
}

/* Clamped, so that a stale or masked value is always finite: zero times it is zero. A NaN becomes the lower bound. */
INLINE vf finite_half(vf x)
{
    return f_min(f_max(x, f_set(-65504.0f)), f_set(65504.0f));
}

INLINE void put_half(uint8_t *to, uint16_t h)
{
    memcpy(to, &h, sizeof h);
}

static void store_halves(const float *k, const float *v, uint8_t *kv, uint32_t t, uint32_t head_dim)
{
    uint16_t h[16];
    uint8_t *v_to = kv + (size_t)2 * (BLOCK + t) * head_dim;
    for (uint32_t i = 0; i < head_dim; i += 16, v_to += sizeof h) {
        for (uint32_t j = 0; j < 16; j += LANES)
            f_to_half(h + j, finite_half(f_load(k + i + j)));
        for (uint32_t j = 0; j < 16; j++)
            put_half(kv + 2 * ((size_t)(i + j) * BLOCK + t), h[j]);
        for (uint32_t j = 0; j < 16; j += LANES)
            f_to_half(h + j, finite_half(f_load(v + i + j)));
        memcpy(v_to, h, sizeof h);
    }
}

/* A vector's step, in f16: its largest magnitude / 127. */
INLINE uint16_t unit_of(const float *x, uint32_t n)
{
    vf most = f_set(0);
    for (uint32_t i = 0; i < n; i += LANES)
        most = f_max(f_abs(finite_half(f_load(x + i))), most);
    float lane[LANES], m = 0;
    f_store(lane, most);
    for (int i = 0; i < LANES; i++)
        m = lane[i] > m ? lane[i] : m;
    return float_to_half(m / 127.0f);
}

/* In steps of the unit as it is kept. A unit too small for f16's full precision may be rounded far below. */
INLINE void bytes_of(const float *x, uint16_t unit, int8_t out[16])
{
    float step = half_to_float(unit);
    for (uint32_t j = 0; j < 16; j += LANES) {
        vf q = step > 0 ? f_div(finite_half(f_load(x + j)), f_set(step)) : f_set(0);
        i_to_i8(out + j, i_of_f(f_min(f_max(q, f_set(-127.0f)), f_set(127.0f))));
    }
}

static void store_bytes(const float *k, const float *v, uint8_t *kv, uint32_t t, uint32_t head_dim)
{
    uint16_t k_unit = unit_of(k, head_dim), v_unit = unit_of(v, head_dim);
    uint8_t *k_to = kv + (size_t)4 * BLOCK, *v_to = k_to + (size_t)BLOCK * head_dim + (size_t)t / 2 * 2 * head_dim;
    put_half(kv + (size_t)2 * t, k_unit);
    put_half(kv + 2 * ((size_t)BLOCK + t), v_unit);
    for (uint32_t i = 0; i < head_dim; i += 16) {
        int8_t b[16];
        bytes_of(k + i, k_unit, b);
        for (uint32_t j = 0; j < 16; j++)
            k_to[((size_t)(i + j) / 2 * BLOCK + t) * 2 + j % 2] = (uint8_t)b[j];
        bytes_of(v + i, v_unit, b);
        for (uint32_t j = 0; j < 16; j++)
            v_to[(size_t)(i + j) * 2 + t % 2] = (uint8_t)b[j];
    }
}
