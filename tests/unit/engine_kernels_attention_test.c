#include "tests/unit/engine_testing.h"

/* Attention: near the textbook in double precision, and the same bits for any tile of queries on any instruction set. */

#define POSITIONS 700
#define DIM_MAX 128

struct fixture {
    uint32_t head_dim, n_blocks;
    uint32_t blocks[64];
    uint16_t *kv;
    float *q; /* (QUERIES_MAX, head_dim) */
};

static void make(struct fixture *t, uint32_t head_dim, uint64_t seed)
{
    struct rng r = {seed};
    float k[DIM_MAX], v[DIM_MAX];
    *t = (struct fixture){.head_dim = head_dim, .n_blocks = (POSITIONS + 15) / 16};
    t->kv = aligned_floats((t->n_blocks + 3) * kv_head_halves(head_dim) / 2);
    t->q = aligned_floats(QUERIES_MAX * head_dim);
    rng_floats(&r, t->q, QUERIES_MAX * head_dim, 2);
    for (uint32_t b = 0; b < t->n_blocks; b++)
        t->blocks[b] = (b * 7 + 3) % (t->n_blocks + 1); /* anywhere in the pool */
    for (uint32_t p = 0; p < POSITIONS; p++) {
        rng_floats(&r, k, head_dim, 1.5f);
        rng_floats(&r, v, head_dim, 1);
        KERNELS_PORTABLE.store_kv(k, v, t->kv + t->blocks[p / 16] * kv_head_halves(head_dim), p % 16, head_dim);
    }
}

static void clear(struct fixture *t)
{
    free(t->kv);
    free(t->q);
}

static void attend(const struct kernels *k, const struct fixture *t, uint32_t n, const uint32_t *query, const uint32_t *from,
                   const uint32_t *to, float soft_cap, float *out)
{
    struct attention_tile tile = {.kv = t->kv, .block_stride = kv_head_halves(t->head_dim), .blocks = t->blocks,
                                  .head_dim = t->head_dim, .scale = 0.125f, .soft_cap = soft_cap, .n = n};
    tile.scratch = aligned_floats(attention_scratch(t->head_dim));
    for (uint32_t i = 0; i < n; i++) {
        tile.q[i] = t->q + query[i] * t->head_dim;
        tile.out[i] = out + i * t->head_dim;
        tile.from[i] = from[i];
        tile.to[i] = to[i];
    }
    k->attention(&tile);
    free(tile.scratch);
}

static double k_at(const struct fixture *t, uint32_t p, uint32_t d)
{
    return (double)half_to_float(t->kv[t->blocks[p / 16] * kv_head_halves(t->head_dim) + d * 16 + p % 16]);
}

static double v_at(const struct fixture *t, uint32_t p, uint32_t d)
{
    return (double)half_to_float(t->kv[t->blocks[p / 16] * kv_head_halves(t->head_dim) + (16 + p % 16) * t->head_dim + d]);
}

static void textbook(const struct fixture *t, uint32_t query, uint32_t from, uint32_t to, float soft_cap, double *out)
{
    double s[POSITIONS], max = -INFINITY, sum = 0;
    for (uint32_t p = from; p < to; p++) {
        s[p] = 0;
        for (uint32_t d = 0; d < t->head_dim; d++)
            s[p] += k_at(t, p, d) * (double)t->q[query * t->head_dim + d];
        s[p] *= 0.125;
        s[p] = soft_cap > 0 ? (double)soft_cap * tanh(s[p] / (double)soft_cap) : s[p];
        max = fmax(max, s[p]);
    }
    memset(out, 0, t->head_dim * sizeof *out);
    for (uint32_t p = from; p < to; p++) {
        sum += exp(s[p] - max);
        for (uint32_t d = 0; d < t->head_dim; d++)
            out[d] += exp(s[p] - max) * v_at(t, p, d);
    }
    for (uint32_t d = 0; d < t->head_dim; d++)
        out[d] /= sum;
}

static const struct {
    uint32_t from, to;
} SPANS[] = {{0, 1},   {0, 16},    {0, 17},    {3, 4},     {0, 255},   {0, 256},   {0, 257},   {255, 257},
             {1, 700}, {511, 513}, {300, 301}, {256, 512}, {250, 700}, {0, 700},   {690, 700}, {17, 300}};

static void attention_is_the_textbooks(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    static const uint32_t DIMS[] = {16, 48, 64, 80, 128};
    for (size_t d = 0; d < ARRAY_LEN(DIMS); d++) {
        struct fixture t;
        make(&t, DIMS[d], 4 + d);
        for (size_t i = 0; i < ARRAY_LEN(SPANS); i++) {
            float cap = i % 2 ? 0 : 5, got[DIM_MAX], first[DIM_MAX];
            double want[DIM_MAX];
            uint32_t query = (uint32_t)i;
            textbook(&t, query, SPANS[i].from, SPANS[i].to, cap, want);
            for (size_t s = n_k; s-- > 0;) {
                attend(k[s], &t, 1, &query, &SPANS[i].from, &SPANS[i].to, cap, got);
                for (uint32_t j = 0; j < t.head_dim; j++)
                    assert_true(fabs((double)got[j] - want[j]) < 5e-6);
                if (s == n_k - 1)
                    memcpy(first, got, sizeof got);
                assert_same_bits(got, first, t.head_dim, k[s]->name);
            }
        }
        clear(&t);
    }
}

/* 1 to 32 queries with spans of their own share a tile: each comes out as when alone. */
static void neighbours_in_a_tile_do_not_matter(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct fixture t;
    make(&t, 64, 99);
    float alone[ARRAY_LEN(SPANS)][64], got[QUERIES_MAX * 64];
    for (uint32_t i = 0; i < ARRAY_LEN(SPANS); i++)
        attend(k[n_k - 1], &t, 1, &i, &SPANS[i].from, &SPANS[i].to, 0, alone[i]);
    struct rng r = {1};
    for (uint32_t round = 0; round < 96; round++) {
        uint32_t query[QUERIES_MAX], from[QUERIES_MAX], to[QUERIES_MAX], n = round % QUERIES_MAX + 1;
        for (uint32_t i = 0; i < n; i++) {
            query[i] = rng_u32(&r) % ARRAY_LEN(SPANS);
            from[i] = SPANS[query[i]].from;
            to[i] = SPANS[query[i]].to;
        }
        for (size_t s = 0; s < n_k; s++) {
            attend(k[s], &t, n, query, from, to, 0, got);
            for (uint32_t i = 0; i < n; i++)
                assert_same_bits(got + i * 64, alone[query[i]], 64, k[s]->name);
        }
    }
    clear(&t);
}

/* A long sequence is cut by segments, each anywhere, and merged afterwards. */
static void merged_partials_are_the_whole(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct fixture t;
    make(&t, 64, 12);
    for (uint32_t q = 0; q < ARRAY_LEN(SPANS); q++)
        for (size_t s = 0; s < n_k; s++) {
            float whole[64], got[64], o[3][64], pairs[3][2];
            attend(k[s], &t, 1, &q, &SPANS[q].from, &SPANS[q].to, 3, whole);
            struct attention_tile tile = {.kv = t.kv, .block_stride = kv_head_halves(64), .blocks = t.blocks, .head_dim = 64,
                                          .scale = 0.125f, .soft_cap = 3, .n = 1, .q = {t.q + q * 64},
                                          .from = {SPANS[q].from}, .to = {SPANS[q].to}};
            tile.scratch = aligned_floats(attention_scratch(64));
            for (int segment = 2; segment >= 0; segment--) {
                tile.segment = (uint32_t)segment;
                tile.partials = pairs[segment];
                tile.out[0] = o[segment];
                k[s]->attention(&tile);
            }
            k[s]->attention_merge(pairs[0], 2, o[0], 64, 3, 64, got);
            assert_same_bits(got, whole, 64, k[s]->name);
            free(tile.scratch);
        }
    clear(&t);
}

/* Blocks are reused: what lies behind a span, or before a window, must not be seen. */
static void what_lies_outside_the_span_does_not_matter(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct fixture a, b;
    make(&a, 64, 5);
    make(&b, 64, 5);
    float junk[64], x[64], y[64];
    for (int i = 0; i < 64; i++)
        junk[i] = i % 2 ? 65504 : -65504;
    uint32_t query = 0, from = 21, to = 405;
    for (uint32_t p = 0; p < POSITIONS; p++)
        if (p < from || p >= to)
            KERNELS_PORTABLE.store_kv(junk, junk, b.kv + b.blocks[p / 16] * kv_head_halves(64), p % 16, 64);
    for (size_t s = 0; s < n_k; s++) {
        attend(k[s], &a, 1, &query, &from, &to, 0, x);
        attend(k[s], &b, 1, &query, &from, &to, 0, y);
        assert_same_bits(x, y, 64, k[s]->name);
    }
    clear(&a);
    clear(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_the_textbooks),
        cmocka_unit_test(neighbours_in_a_tile_do_not_matter),
        cmocka_unit_test(merged_partials_are_the_whole),
        cmocka_unit_test(what_lies_outside_the_span_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
