/* Attention over paged KV, written in lanes. Included once by each kernels_*.c, after body_rows.h.
 *
 * Positions are cut into segments of ENGINE_SEGMENT_TOKENS counted from 0. Each segment gives a partial (maximum, sum of
 * exponentials, weighted V), merged in ascending order. Within one, scores are one multiply-add chain over the head's
 * dimensions with tokens in the lanes; the weighted V one chain over tokens with dimensions in the lanes. So the tile of
 * queries, its neighbours and its cuts do not appear in the result. */

#define SEGMENT ENGINE_SEGMENT_TOKENS
#define BLOCK ENGINE_BLOCK_TOKENS

/* A query's softmax over some segments: the weighted V beside it is relative to `max` and not yet divided by `sum`. */
struct partial {
    float max, sum; /* sum 0: nothing yet */
};

/* Up to 8 queries at once; fewer take more blocks or dimensions at once. */
struct query_group {
    const struct attention_tile *t;
    uint32_t first, n; /* queries of the tile */
    uint32_t from, to; /* all of what they see */
    float *q;          /* (head_dim, width): so that one query's next is at a fixed distance */
    float *s;          /* (width, SEGMENT): scores, then weights */
    float *o;          /* (width, head_dim): of this segment */
    struct partial sofar[8];
};

INLINE const uint8_t *k_of(const struct attention_tile *t, uint32_t block)
{
    return (const uint8_t *)(t->kv + (size_t)t->blocks[block] * t->block_stride);
}

INLINE const uint8_t *v_of(const struct attention_tile *t, uint32_t block)
{
    return k_of(t, block) + (size_t)2 * BLOCK * t->head_dim;
}

/* Raw scores of `wide` blocks of K. */
PIECE void score_blocks(const struct query_group *g, uint32_t width, uint32_t wide, uint32_t block, int part)
{
    const float *q = g->q, *end = q + (size_t)width * g->t->head_dim;
    const uint8_t *k[ACCUMULATORS];
    vf acc[ACCUMULATORS];
    UNROLL
    for (uint32_t b = 0; b < wide; b++)
        k[b] = k_of(g->t, block + b) + (size_t)2 * LANES * (size_t)part;
    UNROLL
    for (uint32_t i = 0; i < width * wide; i++)
        acc[i] = f_set(0);
    for (size_t at = 0; q < end; q += width, at += (size_t)2 * BLOCK)
        UNROLL
        for (uint32_t b = 0; b < wide; b++) {
            vf kd = f_of_half(k[b] + at);
            UNROLL
            for (uint32_t i = 0; i < width; i++)
                acc[b * width + i] = f_fma(kd, f_set(q[i]), acc[b * width + i]);
        }
    uint32_t slot = block * BLOCK % SEGMENT + (uint32_t)part * LANES;
    UNROLL
    for (uint32_t b = 0; b < wide; b++)
        UNROLL
        for (uint32_t i = 0; i < width; i++)
            f_store(g->s + i * SEGMENT + slot + b * BLOCK, acc[b * width + i]);
}

INLINE void score_segment(const struct query_group *g, uint32_t width, uint32_t from, uint32_t to)
{
    const uint32_t wide = ACCUMULATORS / width < 4 ? ACCUMULATORS / width : 4;
    uint32_t b = from / BLOCK, end = (to - 1) / BLOCK + 1;
    for (; b + wide <= end; b += wide)
        for (int part = 0; part < PARTS; part++)
            score_blocks(g, width, wide, b, part);
    for (; b < end; b++)
        for (int part = 0; part < PARTS; part++)
            score_blocks(g, width, 1, b, part);
}

/* Scores of one query to weights, in place; lo..hi of the segment count, the rest of from..to gets weight 0. */
PIECE void weigh(const struct attention_tile *t, float *s, uint32_t from, uint32_t to, uint32_t lo, uint32_t hi,
                  float *max, float *sum)
{
    from = from / BLOCK * BLOCK;
    to = (to + BLOCK - 1) / BLOCK * BLOCK;
    for (uint32_t i = from; i < lo; i++)
        s[i] = -INFINITY;
    for (uint32_t i = hi; i < to; i++)
        s[i] = -INFINITY;
    vf top = f_set(-INFINITY), acc[PARTS];
    for (uint32_t i = from; i < to; i += LANES) {
        vf x = f_mul(f_load(s + i), f_set(t->scale));
        if (t->soft_cap != 0) /* the mask must survive the cap */
            x = f_if_less(x, f_set(-FLT_MAX), x, f_mul(f_tanh(f_div(x, f_set(t->soft_cap))), f_set(t->soft_cap)));
        f_store(s + i, x);
        top = f_max(x, top);
    }
    float lane[LANES], m = -INFINITY;
    f_store(lane, top);
    for (int i = 0; i < LANES; i++)
        m = lane[i] > m ? lane[i] : m;
    for (int p = 0; p < PARTS; p++)
        acc[p] = f_set(0);
    for (uint32_t i = from; i < to; i += 16)
        for (int p = 0; p < PARTS; p++) {
            vf e = f_exp(f_sub(f_load(s + i + p * LANES), f_set(m)));
            f_store(s + i + p * LANES, e);
            acc[p] = f_add(acc[p], e);
        }
    *max = m;
    *sum = tree16(acc);
}

/* Weighted V of from..to for `wide` registers of dimensions. */
PIECE void gather_dims(const struct query_group *g, uint32_t width, uint32_t wide, uint32_t dim, uint32_t from, uint32_t to)
{
    const uint32_t head_dim = g->t->head_dim;
    vf acc[ACCUMULATORS];
    UNROLL
    for (uint32_t i = 0; i < width * wide; i++)
        acc[i] = f_set(0);
    for (uint32_t p = from; p < to;) {
        const uint8_t *v = v_of(g->t, p / BLOCK) + 2 * ((size_t)(p % BLOCK) * head_dim + dim);
        uint32_t end = (p / BLOCK + 1) * BLOCK;
        for (end = end < to ? end : to; p < end; p++, v += 2 * (size_t)head_dim) {
            const float *s = g->s + p % SEGMENT;
            UNROLL
            for (uint32_t c = 0; c < wide; c++) {
                vf vc = f_of_half(v + (size_t)2 * LANES * c);
                UNROLL
                for (uint32_t i = 0; i < width; i++)
                    acc[c * width + i] = f_fma(vc, f_set(s[i * SEGMENT]), acc[c * width + i]);
            }
        }
    }
    UNROLL
    for (uint32_t c = 0; c < wide; c++)
        UNROLL
        for (uint32_t i = 0; i < width; i++)
            f_store(g->o + i * head_dim + dim + c * LANES, acc[c * width + i]);
}

INLINE void gather_segment(const struct query_group *g, uint32_t width, uint32_t from, uint32_t to)
{
    const uint32_t wide = ACCUMULATORS / width < 4 ? ACCUMULATORS / width : 4;
    uint32_t d = 0;
    for (; d + wide * LANES <= g->t->head_dim; d += wide * LANES)
        gather_dims(g, width, wide, d, from, to);
    for (; d < g->t->head_dim; d += LANES)
        gather_dims(g, width, 1, d, from, to);
}

INLINE float exp_of(float x)
{
    float lane[LANES];
    f_store(lane, f_exp(f_set(x)));
    return lane[0];
}

/* One more partial, of o, into what there is in out. A weight of at least 1 is in every sum, so 0 means none. */
PIECE void merge(struct partial *sofar, float *out, struct partial more, const float *o, uint32_t head_dim)
{
    if (sofar->sum == 0) {
        *sofar = more;
        memcpy(out, o, head_dim * sizeof *o);
        return;
    }
    float top = more.max > sofar->max ? more.max : sofar->max;
    float old = exp_of(sofar->max - top), new = exp_of(more.max - top);
    sofar->max = top;
    sofar->sum = sofar->sum * old + more.sum * new;
    for (uint32_t d = 0; d < head_dim; d += LANES)
        f_store(out + d, f_fma(f_load(o + d), f_set(new), f_mul(f_load(out + d), f_set(old))));
}

INLINE void divide(float *out, float sum, uint32_t head_dim)
{
    for (uint32_t d = 0; d < head_dim; d += LANES)
        f_store(out + d, f_div(f_load(out + d), f_set(sum)));
}

INLINE uint32_t later(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

INLINE uint32_t sooner(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

INLINE void group_segment(struct query_group *g, uint32_t width, uint32_t start)
{
    uint32_t from = later(g->from, start), to = sooner(g->to, start + SEGMENT);
    struct partial here[8] = {{0}};
    bool sees[8];
    score_segment(g, width, from, to);
    for (uint32_t i = 0; i < width; i++) {
        uint32_t q = g->first + (i < g->n ? i : 0);
        uint32_t lo = later(g->t->from[q], start), hi = sooner(g->t->to[q], start + SEGMENT);
        float *s = g->s + i * SEGMENT;
        sees[i] = i < g->n && lo < hi;
        if (sees[i])
            weigh(g->t, s, from - start, to - start, lo - start, hi - start, &here[i].max, &here[i].sum);
        else
            memset(s + (from - start), 0, (to - from) * sizeof *s);
    }
    gather_segment(g, width, from, to);
    for (uint32_t i = 0; i < width; i++)
        if (sees[i])
            merge(&g->sofar[i], g->t->out[g->first + i], here[i], g->o + i * g->t->head_dim, g->t->head_dim);
}

INLINE void attend_group(const struct attention_tile *t, uint32_t width, uint32_t first, uint32_t n)
{
    struct query_group g = {.t = t, .first = first, .n = n, .from = UINT32_MAX};
    g.s = t->scratch;
    g.q = g.s + (size_t)8 * SEGMENT;
    g.o = g.q + (size_t)8 * t->head_dim;
    for (uint32_t i = 0; i < n; i++) {
        g.from = sooner(g.from, t->from[first + i]);
        g.to = later(g.to, t->to[first + i]);
    }
    for (uint32_t d = 0; d < t->head_dim; d++)
        for (uint32_t i = 0; i < width; i++)
            g.q[d * width + i] = i < n ? t->q[first + i][d] : 0;
    if (!t->partials) {
        for (uint32_t start = g.from / SEGMENT * SEGMENT; start < g.to; start += SEGMENT)
            group_segment(&g, width, start);
        for (uint32_t i = 0; i < n; i++)
            divide(t->out[first + i], g.sofar[i].sum, t->head_dim);
        return;
    }
    uint32_t start = t->segment * SEGMENT;
    if (later(g.from, start) < sooner(g.to, start + SEGMENT))
        group_segment(&g, width, start);
    for (uint32_t i = 0; i < n; i++) {
        t->partials[2 * (first + i)] = g.sofar[i].max;
        t->partials[2 * (first + i) + 1] = g.sofar[i].sum;
    }
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

#define GROUP(width)                                                                               \
    static void attend_##width(const struct attention_tile *t, uint32_t first, uint32_t n)         \
    {                                                                                              \
        attend_group(t, width, first, n);                                                          \
    }
GROUP(1)
GROUP(2)
GROUP(4)
#if ACCUMULATORS >= 8
GROUP(8)
#else /* twice four: the same numbers */
static void attend_8(const struct attention_tile *t, uint32_t first, uint32_t n)
{
    attend_4(t, first, 4);
    attend_4(t, first + 4, n - 4);
}
#endif

static void attention(const struct attention_tile *t)
{
    for (uint32_t i = 0; i < t->n;) {
        uint32_t left = t->n - i, n = left < 8 ? left : 8;
        if (left > 4)
            attend_8(t, i, n);
        else if (left > 2)
            attend_4(t, i, n);
        else if (left == 2)
            attend_2(t, i, n);
        else
            attend_1(t, i, n);
        i += n;
    }
}
