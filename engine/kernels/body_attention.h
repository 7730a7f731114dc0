/* Attention over paged KV, written in lanes. Included once by each kernels_*.c, after body_rows.h and body_kv.h.
 *
 * Positions are cut into segments of ENGINE_SEGMENT_TOKENS counted from 0. Each segment gives a partial (maximum, sum of
 * exponentials, weighted V), merged in ascending order. Within one, scores are one chain of sums over the head's dimensions
 * with tokens in the lanes; the weighted V one chain over tokens with dimensions in the lanes. So the tile of queries, its
 * neighbours and its cuts do not appear in the result. Scores are in base 2: log2 e is in the query's scale. */

#define SEGMENT ENGINE_SEGMENT_TOKENS
#define LOG2E 0x1.715476p+0f

/* A query's softmax over some segments: the weighted V beside it is relative to `max` and not yet divided by `sum`. */
struct partial {
    float max, sum; /* sum 0: nothing yet */
};

/* Queries that go through K and V together; fewer of them take more blocks or dimensions at once. */
struct query_group {
    const struct attention_tile *t;
    uint32_t first, n; /* queries of the tile */
    uint32_t from, to; /* all of what they see */
    void *q;           /* (head_dim, width) floats, or (head_dim / 2, width) pairs of int16 */
    float *s;          /* (width, SEGMENT): scores, then weights */
    int16_t *w;        /* (width, SEGMENT): weights for int8 V */
    float *o;          /* (width, head_dim): of this segment */
    float unit[WIDTH_MAX];   /* of int16 q: one step, with the scale in it */
    float w_unit[WIDTH_MAX]; /* of int16 weights */
    struct partial sofar[WIDTH_MAX];
};

/* 2^x for x <= 0; 0 below -125. */
PIECE vf f_exp2(vf x)
{
    vf shifted = f_add(x, f_set(MATH_ROUND_F)), r = f_sub(x, f_sub(shifted, f_set(MATH_ROUND_F)));
    vf q = f_set(0x1.5ec866p-10f); /* |r| <= 1/2; within 4 ulp, and 1 for 0 */
    q = f_const(0x1.3cbf6p-7f, r, q);
    q = f_const(0x1.c6afeep-5f, r, q);
    q = f_const(0x1.ebfa4cp-3f, r, q);
    q = f_const(0x1.62e43p-1f, r, q);
    q = f_const(1.0f, r, q);
    vf y = f_of_bits(i_add(i_of_bits(q), i_shift_left(i_of_bits(shifted), 23)));
    return f_if_less(x, f_set(-125.0f), f_set(0), y);
}

INLINE uint32_t later(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

INLINE uint32_t sooner(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* ---- scores ------------------------------------------------------------------------------------------------- */

/* K is prefetched as far ahead as one call of score_… reads, V while K of the same tokens is read: blocks lie apart, so the
 * machine does not see the stream. */
INLINE uint32_t block_ahead(const struct query_group *g, uint32_t block, uint32_t part, uint32_t wide, uint32_t b)
{
    return sooner(block + (part + wide + b) / PARTS, (g->to - 1) / BLOCK);
}

/* Of `wide` registers of tokens: blocks one after the other, PARTS registers each, from `part` of `block`. */
PIECE void score_halves(const struct query_group *g, uint32_t width, uint32_t wide, uint32_t block, uint32_t part)
{
    const float *q = g->q, *end = q + (size_t)width * g->t->head_dim;
    const uint8_t *k[SUMS], *next[SUMS];
    const size_t to_v = (size_t)2 * BLOCK * g->t->head_dim;
    vf acc[SUMS];
    UNROLL
    for (uint32_t b = 0; b < wide; b++) {
        k[b] = kv_half_k(g->t, block + (part + b) / PARTS) + (size_t)2 * LANES * ((part + b) % PARTS);
        next[b] = kv_half_k(g->t, block_ahead(g, block, part, wide, b));
    }
    UNROLL
    for (uint32_t i = 0; i < width * wide; i++)
        acc[i] = f_set(0);
    for (size_t at = 0; q < end; q += width, at += (size_t)2 * BLOCK) {
        vf kd[SUMS];
        UNROLL
        for (uint32_t b = 0; b < wide; b++)
            kd[b] = f_of_half(k[b] + at);
        if (at % 64 == 0) {
            UNROLL
            for (uint32_t b = 0; b < wide; b += PARTS) {
                prefetch(k[b] + to_v + at);
                prefetch(next[b] + at);
            }
        }
        UNROLL
        for (uint32_t i = 0; i < width; i++) {
            vf qd = f_set(q[i]);
            UNROLL
            for (uint32_t b = 0; b < wide; b++)
                acc[i * wide + b] = f_fma(kd[b], qd, acc[i * wide + b]);
        }
    }
    float *s = g->s + block * BLOCK % SEGMENT + part * LANES;
    UNROLL
    for (uint32_t i = 0; i < width; i++)
        UNROLL
        for (uint32_t b = 0; b < wide; b++)
            f_store(s + i * SEGMENT + b * LANES, acc[i * wide + b]);
}

/* Whole numbers until the end, so their order does not matter. */
PIECE void score_bytes(const struct query_group *g, uint32_t width, uint32_t wide, uint32_t block, uint32_t part)
{
    const int32_t *q = g->q, *end = q + (size_t)width * g->t->head_dim / 2;
    const uint8_t *k[SUMS], *next[SUMS];
    const size_t to_v = (size_t)BLOCK * g->t->head_dim;
    vi acc[SUMS];
    UNROLL
    for (uint32_t b = 0; b < wide; b++) {
        k[b] = kv_byte_k(g->t, block + (part + b) / PARTS) + (size_t)2 * LANES * ((part + b) % PARTS);
        next[b] = kv_byte_k(g->t, block_ahead(g, block, part, wide, b));
    }
    UNROLL
    for (uint32_t i = 0; i < width * wide; i++)
        acc[i] = i_set(0);
    for (size_t at = 0; q < end; q += width, at += (size_t)2 * BLOCK) {
        vh kd[SUMS];
        UNROLL
        for (uint32_t b = 0; b < wide; b++)
            kd[b] = h_of_i8(k[b] + at);
        if (at % 64 == 0) {
            UNROLL
            for (uint32_t b = 0; b < wide; b += PARTS) {
                prefetch(k[b] + to_v + at);
                prefetch(next[b] + at);
            }
        }
        UNROLL
        for (uint32_t i = 0; i < width; i++) {
            vh qd = h_set_pair(q[i]);
            UNROLL
            for (uint32_t b = 0; b < wide; b++)
                acc[i * wide + b] = i_add_pairs(acc[i * wide + b], kd[b], qd);
        }
    }
    float *s = g->s + block * BLOCK % SEGMENT + part * LANES;
    UNROLL
    for (uint32_t b = 0; b < wide; b++) {
        const uint8_t *units = kv_units(g->t, block + (part + b) / PARTS) + (size_t)2 * LANES * ((part + b) % PARTS);
        UNROLL
        for (uint32_t i = 0; i < width; i++)
            f_store(s + i * SEGMENT + b * LANES,
                    f_mul(f_mul(f_of_i(acc[i * wide + b]), f_of_half(units)), f_set(g->unit[i])));
    }
}

INLINE void score_some(enum kv_type type, const struct query_group *g, uint32_t width, uint32_t wide, uint32_t at)
{
    if (type == KV_INT8)
        score_bytes(g, width, wide, at / PARTS, at % PARTS);
    else
        score_halves(g, width, wide, at / PARTS, at % PARTS);
}

INLINE void score_segment(enum kv_type type, const struct query_group *g, uint32_t width, uint32_t from, uint32_t to)
{
    const uint32_t wide = SUMS / width < 4 ? SUMS / width : 4;
    uint32_t at = from / BLOCK * PARTS, end = ((to - 1) / BLOCK + 1) * PARTS;
    for (; at + wide <= end; at += wide)
        score_some(type, g, width, wide, at);
    for (; at < end; at++)
        score_some(type, g, width, 1, at);
}

/* ---- weights ------------------------------------------------------------------------------------------------ */

INLINE float most_of(vf x)
{
    float lane[LANES], m = -INFINITY;
    f_store(lane, x);
    for (int i = 0; i < LANES; i++)
        m = lane[i] > m ? lane[i] : m;
    return m;
}

PIECE void cap_scores(float *s, uint32_t from, uint32_t to, float soft_cap)
{
    for (uint32_t i = from; i < to; i += LANES)
        f_store(s + i, f_mul(f_tanh(f_load(s + i)), f_set(soft_cap * LOG2E)));
}

INLINE const uint8_t *v_units(const struct attention_tile *t, uint32_t position)
{
    return kv_units(t, position / BLOCK) + 2 * (size_t)BLOCK;
}

/* Scores of one query to weights, in place; lo..hi of the segment count, the rest of from..to, whole blocks, gets weight 0.
 * For KV of bytes a weight is multiplied by its token's V step, and the largest of these products is in *most. */
PIECE struct partial weigh(enum kv_type type, const struct attention_tile *t, float *s, uint32_t start, uint32_t from, uint32_t to,
                           uint32_t lo, uint32_t hi, float *most)
{
    if (t->soft_cap != 0)
        cap_scores(s, from, to, t->soft_cap);
    for (uint32_t i = from; i < lo; i++)
        s[i] = -INFINITY;
    for (uint32_t i = hi; i < to; i++)
        s[i] = -INFINITY;
    vf top = f_set(-INFINITY), acc[PARTS];
    for (uint32_t i = from; i < to; i += LANES)
        top = f_max(f_load(s + i), top);
    struct partial p = {.max = most_of(top)};
    vf m = f_set(p.max), largest = f_set(0);
    for (uint32_t k = 0; k < PARTS; k++)
        acc[k] = f_set(0);
    for (uint32_t i = from; i < to; i += BLOCK)
        for (uint32_t k = 0; k < PARTS; k++) {
            vf e = f_exp2(f_sub(f_load(s + i + k * LANES), m));
            acc[k] = f_add(acc[k], e);
            if (type == KV_INT8) {
                e = f_mul(e, f_of_half(v_units(t, start + i) + (size_t)2 * LANES * k));
                largest = f_max(e, largest);
            }
            f_store(s + i + k * LANES, e);
        }
    p.sum = tree16(acc);
    if (type == KV_INT8)
        *most = most_of(largest);
    return p;
}

/* Weights in steps of the largest / 32767; a step is returned. */
PIECE float weigh_bytes(const float *s, int16_t *w, uint32_t from, uint32_t to, float most)
{
    float by = most > 0 ? 32767.0f / most : 0;
    for (uint32_t i = from; i < to; i += LANES)
        i_to_i16(w + i, i_of_f(f_mul(f_load(s + i), f_set(by))));
    return most / 32767.0f;
}

/* ---- weighted V --------------------------------------------------------------------------------------------- */

/* Of from..to for `wide` registers of dimensions. */
PIECE void gather_halves(const struct query_group *g, uint32_t width, uint32_t wide, uint32_t dim, uint32_t from, uint32_t to)
{
    const uint32_t head_dim = g->t->head_dim;
    vf acc[SUMS];
    UNROLL
    for (uint32_t i = 0; i < width * wide; i++)
        acc[i] = f_set(0);
    for (uint32_t p = from; p < to;) {
        const uint8_t *v = kv_half_v(g->t, p / BLOCK) + 2 * ((size_t)(p % BLOCK) * head_dim + dim);
        const float *s = g->s + p % SEGMENT;
        const uint32_t end = sooner((p / BLOCK + 1) * BLOCK, to);
        for (; p < end; p++, v += 2 * (size_t)head_dim, s++) {
            vf vd[SUMS];
            UNROLL
            for (uint32_t c = 0; c < wide; c++)
                vd[c] = f_of_half(v + (size_t)2 * LANES * c);
            UNROLL
            for (uint32_t i = 0; i < width; i++) {
                vf w = f_set(s[i * SEGMENT]);
                UNROLL
                for (uint32_t c = 0; c < wide; c++)
                    acc[i * wide + c] = f_fma(vd[c], w, acc[i * wide + c]);
            }
        }
    }
    UNROLL
    for (uint32_t i = 0; i < width; i++)
        UNROLL
        for (uint32_t c = 0; c < wide; c++)
            f_store(g->o + i * head_dim + dim + c * LANES, acc[i * wide + c]);
}

/* The same of pairs of tokens. 256 of at most 32767 * 127 fit in 32 bits. */
PIECE void gather_bytes(const struct query_group *g, uint32_t width, uint32_t wide, uint32_t dim, uint32_t from, uint32_t to)
{
    const uint32_t head_dim = g->t->head_dim;
    vi acc[SUMS];
    UNROLL
    for (uint32_t i = 0; i < width * wide; i++)
        acc[i] = i_set(0);
    for (uint32_t p = from / BLOCK * BLOCK; p < to;) {
        const uint8_t *v = kv_byte_v(g->t, p / BLOCK) + 2 * (size_t)dim;
        const int16_t *w = g->w + p % SEGMENT;
        const uint32_t end = p + BLOCK;
        for (; p < end; p += 2, v += 2 * (size_t)head_dim, w += 2) {
            vh vd[SUMS];
            UNROLL
            for (uint32_t c = 0; c < wide; c++)
                vd[c] = h_of_i8(v + (size_t)2 * LANES * c);
            UNROLL
            for (uint32_t i = 0; i < width; i++) {
                int32_t pair;
                __builtin_memcpy(&pair, w + i * SEGMENT, sizeof pair);
                vh both = h_set_pair(pair);
                UNROLL
                for (uint32_t c = 0; c < wide; c++)
                    acc[i * wide + c] = i_add_pairs(acc[i * wide + c], vd[c], both);
            }
        }
    }
    UNROLL
    for (uint32_t i = 0; i < width; i++)
        UNROLL
        for (uint32_t c = 0; c < wide; c++)
            f_store(g->o + i * head_dim + dim + c * LANES, f_mul(f_of_i(acc[i * wide + c]), f_set(g->w_unit[i])));
}

INLINE void gather_some(enum kv_type type, const struct query_group *g, uint32_t width, uint32_t wide, uint32_t dim, uint32_t from,
                        uint32_t to)
{
    if (type == KV_INT8)
        gather_bytes(g, width, wide, dim, from, to);
    else
        gather_halves(g, width, wide, dim, from, to);
}

INLINE void gather_segment(enum kv_type type, const struct query_group *g, uint32_t width, uint32_t from, uint32_t to)
{
    const uint32_t wide = SUMS / width < 4 ? SUMS / width : 4;
    uint32_t d = 0;
    for (; d + wide * LANES <= g->t->head_dim; d += wide * LANES)
        gather_some(type, g, width, wide, d, from, to);
    for (; d < g->t->head_dim; d += LANES)
        gather_some(type, g, width, 1, d, from, to);
}

/* ---- merging ------------------------------------------------------------------------------------------------ */

/* 2^a and 2^b. */
INLINE void two_exp2(float a, float b, float out[2])
{
    float lane[LANES] = {a, b};
    f_store(lane, f_exp2(f_load(lane)));
    out[0] = lane[0];
    out[1] = lane[1];
}

/* One more partial, of o, into what there is in out. A weight of at least 1 is in every sum, so 0 means none. */
PIECE void merge(struct partial *sofar, float *out, struct partial more, const float *o, uint32_t head_dim)
{
    if (sofar->sum == 0) {
        *sofar = more;
        memcpy(out, o, head_dim * sizeof *o);
        return;
    }
    float top = more.max > sofar->max ? more.max : sofar->max, by[2];
    two_exp2(sofar->max - top, more.max - top, by);
    sofar->max = top;
    sofar->sum = sofar->sum * by[0] + more.sum * by[1];
    for (uint32_t d = 0; d < head_dim; d += LANES)
        f_store(out + d, f_fma(f_load(o + d), f_set(by[1]), f_mul(f_load(out + d), f_set(by[0]))));
}

INLINE void divide(float *out, float sum, uint32_t head_dim)
{
    for (uint32_t d = 0; d < head_dim; d += LANES)
        f_store(out + d, f_div(f_load(out + d), f_set(sum)));
}

/* The same merges in the same order as when one tile goes through all segments. */
static void attention_merge(const float *partials, size_t stride, const float *o, size_t o_stride, uint32_t n, uint32_t head_dim,
                            float *out)
{
    struct partial sofar = {0};
    for (uint32_t s = 0; s < n; s++) {
        struct partial more = {partials[s * stride], partials[s * stride + 1]};
        if (more.sum != 0)
            merge(&sofar, out, more, o + s * o_stride, head_dim);
    }
    divide(out, sofar.sum, head_dim);
}

/* ---- a tile ------------------------------------------------------------------------------------------------- */

INLINE void group_segment(enum kv_type type, struct query_group *g, uint32_t width, uint32_t start)
{
    const struct attention_tile *t = g->t;
    uint32_t from = later(g->from, start), to = sooner(g->to, start + SEGMENT);
    uint32_t first = (from - start) / BLOCK * BLOCK, end = (to - start + BLOCK - 1) / BLOCK * BLOCK;
    struct partial here[WIDTH_MAX] = {{0}};
    score_segment(type, g, width, from, to);
    for (uint32_t i = 0; i < width; i++) {
        uint32_t q = g->first + (i < g->n ? i : 0);
        uint32_t lo = later(t->from[q], start), hi = sooner(t->to[q], start + SEGMENT);
        float *s = g->s + i * SEGMENT, most = 0;
        if (i < g->n && lo < hi)
            here[i] = weigh(type, t, s, start, first, end, lo - start, hi - start, &most);
        else
            memset(s + first, 0, (end - first) * sizeof *s);
        if (type == KV_INT8)
            g->w_unit[i] = weigh_bytes(s, g->w + i * SEGMENT, first, end, most);
    }
    gather_segment(type, g, width, from, to);
    for (uint32_t i = 0; i < width; i++)
        if (here[i].sum != 0)
            merge(&g->sofar[i], t->out[g->first + i], here[i], g->o + i * t->head_dim, t->head_dim);
}

/* The group's queries, times their scale, one's next at a fixed distance. */
INLINE void pack_floats(const struct query_group *g, uint32_t width, float by)
{
    const struct attention_tile *t = g->t;
    float *to = g->q;
    for (uint32_t d = 0; d < t->head_dim; d++)
        for (uint32_t i = 0; i < width; i++)
            to[d * width + i] = i < g->n ? t->q[g->first + i][d] * by : 0;
}

/* … or in steps of the largest / 32767. NaN and infinities make the scores NaN. */
INLINE void pack_pairs(struct query_group *g, uint32_t width, float by)
{
    const struct attention_tile *t = g->t;
    int16_t *to = g->q;
    memset(to, 0, sizeof *to * width * t->head_dim);
    for (uint32_t i = 0; i < g->n; i++) {
        const float *q = t->q[g->first + i];
        uint32_t most = 0;
        for (uint32_t d = 0; d < t->head_dim; d++) {
            uint32_t bits = float_bits(q[d]) & 0x7fffffffu;
            most = bits > most ? bits : most;
        }
        bool finite = most < 0x7f800000u;
        float inverse = finite && most >= 0x0d800000u ? 32767.0f / bits_float(most) : 0; /* as quantise_block */
        g->unit[i] = finite ? bits_float(most) / 32767.0f * by : NAN;
        for (uint32_t d = 0; d < t->head_dim; d += LANES) {
            int16_t some[LANES];
            i_to_i16(some, inverse == 0 ? i_set(0) : i_of_f(f_mul(f_load(q + d), f_set(inverse))));
            for (uint32_t k = 0; k < LANES; k++)
                to[((d + k) / 2 * width + i) * 2 + (d + k) % 2] = some[k];
        }
    }
}

#define GROUP(width)                                                                               \
    static NOINLINE void halves_##width(struct query_group *g, uint32_t start)                     \
    {                                                                                              \
        group_segment(KV_F16, g, width, start);                                                    \
    }                                                                                              \
    static NOINLINE void bytes_##width(struct query_group *g, uint32_t start)                      \
    {                                                                                              \
        group_segment(KV_INT8, g, width, start);                                                   \
    }
WIDTHS(GROUP)

static const struct {
    uint32_t width;
    void (*segment[KV_TYPES])(struct query_group *g, uint32_t start);
} GROUPS[] = {
#define ENTRY(width) {width, {halves_##width, bytes_##width}},
    WIDTHS(ENTRY)
#undef ENTRY
};

/* Cuts the tile's queries into groups of about equal size; returns which of GROUPS they take. */
INLINE size_t group_size(uint32_t n, uint32_t *n_groups)
{
    size_t i = 0;
    *n_groups = (n + WIDTH_MAX - 1) / WIDTH_MAX;
    while (GROUPS[i].width * *n_groups < n)
        i++;
    return i;
}

INLINE void begin_group(struct query_group *g, enum kv_type type, uint32_t width)
{
    const struct attention_tile *t = g->t;
    float by = t->soft_cap != 0 ? t->scale / t->soft_cap : t->scale * LOG2E;
    g->from = UINT32_MAX;
    for (uint32_t i = 0; i < g->n; i++) {
        g->from = sooner(g->from, t->from[g->first + i]);
        g->to = later(g->to, t->to[g->first + i]);
    }
    if (type == KV_INT8)
        pack_pairs(g, width, by);
    else
        pack_floats(g, width, by);
}

static void attention(const struct attention_tile *t)
{
    struct query_group groups[QUERIES_MAX];
    uint32_t n_groups, from = UINT32_MAX, to = 0;
    size_t size = group_size(t->n, &n_groups);
    uint32_t width = GROUPS[size].width;
    float *s = t->scratch, *o = s + (size_t)WIDTH_MAX * SEGMENT, *q = o + (size_t)WIDTH_MAX * t->head_dim;
    int16_t *w = (int16_t *)(void *)(q + (size_t)(QUERIES_MAX + WIDTH_MAX) * t->head_dim);
    n_groups = (t->n + width - 1) / width;
    for (uint32_t i = 0; i < n_groups; i++) {
        struct query_group *g = &groups[i];
        *g = (struct query_group){.t = t, .first = i * width, .n = sooner(width, t->n - i * width), .s = s, .o = o, .w = w};
        g->q = q + (size_t)i * width * t->head_dim;
        begin_group(g, t->type, width);
        from = sooner(from, g->from);
        to = later(to, g->to);
    }
    uint32_t start = t->partials ? t->segment * SEGMENT : from / SEGMENT * SEGMENT;
    to = t->partials ? sooner(to, start + SEGMENT) : to;
    for (; start < to; start += SEGMENT)
        for (uint32_t i = 0; i < n_groups; i++)
            if (later(groups[i].from, start) < sooner(groups[i].to, start + SEGMENT))
                GROUPS[size].segment[t->type](&groups[i], start);
    for (uint32_t i = 0; i < t->n; i++) {
        struct partial p = groups[i / width].sofar[i % width];
        if (!t->partials) {
            divide(t->out[i], p.sum, t->head_dim);
            continue;
        }
        t->partials[2 * i] = p.max;
        t->partials[2 * i + 1] = p.sum;
    }
}
