#include "tests/unit/engine_testing.h"

/* Attention: near the textbook in double precision, and the same bits for any tile of queries on any instruction set; over
 * either kind of KV. */

#define POSITIONS 700
#define DIM_MAX 128
static const char *const TYPE_NAMES[KV_TYPES] = {"f16", "int8"};

struct fixture {
    enum kv_type type;
    uint32_t head_dim, n_blocks;
    uint32_t blocks[64];
    size_t stride; /* bytes of a block */
    uint8_t *kv;
    float *q; /* (QUERIES_MAX, head_dim) */
};

static void make(struct fixture *t, enum kv_type type, uint32_t head_dim, uint64_t seed)
{
    struct rng r = {seed};
    float k[DIM_MAX], v[DIM_MAX];
    *t = (struct fixture){.type = type, .head_dim = head_dim, .n_blocks = (POSITIONS + 15) / 16, .stride = kv_head_bytes(type, head_dim)};
    t->kv = aligned_floats((t->n_blocks + 3) * t->stride / 4);
    t->q = aligned_floats(QUERIES_MAX * head_dim);
    rng_floats(&r, t->q, QUERIES_MAX * head_dim, 2);
    for (uint32_t b = 0; b < t->n_blocks; b++)
        t->blocks[b] = (b * 7 + 3) % (t->n_blocks + 1); /* anywhere in the pool */
    for (uint32_t p = 0; p < POSITIONS; p++) {
        rng_floats(&r, k, head_dim, 1.5f);
        rng_floats(&r, v, head_dim, 1);
        KERNELS_PORTABLE.store_kv[type](k, v, t->kv + t->blocks[p / 16] * t->stride, p % 16, head_dim);
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
    struct attention_tile tile = {.type = t->type, .kv = t->kv, .block_stride = t->stride, .blocks = t->blocks,
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

static double half_in(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return (double)half_to_float(h);
}

static double k_at(const struct fixture *t, uint32_t p, uint32_t d)
{
    const uint8_t *block = t->kv + t->blocks[p / 16] * t->stride;
    if (t->type == KV_F16)
        return half_in(block + 2 * (d * 16 + p % 16));
    return half_in(block + 2 * (p % 16)) * (int8_t)block[64 + (d / 2 * 16 + p % 16) * 2 + d % 2];
}

static double v_at(const struct fixture *t, uint32_t p, uint32_t d)
{
    const uint8_t *block = t->kv + t->blocks[p / 16] * t->stride;
    if (t->type == KV_F16)
        return half_in(block + 2 * ((16 + p % 16) * t->head_dim + d));
    return half_in(block + 32 + 2 * (p % 16)) * (int8_t)block[64 + 16 * t->head_dim + (p % 16 / 2 * t->head_dim + d) * 2 + p % 2];
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
    for (size_t d = 0; d < KV_TYPES * ARRAY_LEN(DIMS); d++) {
        struct fixture t;
        make(&t, d % KV_TYPES, DIMS[d / KV_TYPES], 4 + d);
        for (size_t i = 0; i < ARRAY_LEN(SPANS); i++) {
            float cap = i % 2 ? 0 : 5, got[DIM_MAX], first[DIM_MAX];
            double want[DIM_MAX];
            uint32_t query = (uint32_t)i;
            textbook(&t, query, SPANS[i].from, SPANS[i].to, cap, want);
            for (size_t s = n_k; s-- > 0;) {
                attend(k[s], &t, 1, &query, &SPANS[i].from, &SPANS[i].to, cap, got);
                for (uint32_t j = 0; j < t.head_dim; j++)
                    assert_true(fabs((double)got[j] - want[j]) < (t.type == KV_INT8 ? 2e-4 : 5e-6));
                if (s == n_k - 1)
                    memcpy(first, got, sizeof got);
                assert_same_bits(got, first, t.head_dim, k[s]->name);
            }
        }
        clear(&t);
    }
}

static enum kv_type type_of(void **state)
{
    return *(const enum kv_type *)*state;
}

/* 1 to 32 queries with spans of their own share a tile: each comes out as when alone. */
static void neighbours_in_a_tile_do_not_matter(void **state)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct fixture t;
    make(&t, type_of(state), 64, 99);
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
static void merged_partials_are_the_whole(void **state)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct fixture t;
    make(&t, type_of(state), 64, 12);
    for (uint32_t q = 0; q < ARRAY_LEN(SPANS); q++)
        for (size_t s = 0; s < n_k; s++) {
            float whole[64], got[64], o[3][64], pairs[3][2];
            attend(k[s], &t, 1, &q, &SPANS[q].from, &SPANS[q].to, 3, whole);
            struct attention_tile tile = {.type = t.type, .kv = t.kv, .block_stride = t.stride, .blocks = t.blocks, .head_dim = 64,
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
static void what_lies_outside_the_span_does_not_matter(void **state)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct fixture a, b;
    make(&a, type_of(state), 64, 5);
    make(&b, type_of(state), 64, 5);
    float junk[64], x[64], y[64];
    for (int i = 0; i < 64; i++)
        junk[i] = i % 2 ? 65504 : -65504;
    uint32_t query = 0, from = 21, to = 405;
    for (uint32_t p = 0; p < POSITIONS; p++)
        if (p < from || p >= to)
            KERNELS_PORTABLE.store_kv[b.type](junk, junk, b.kv + b.blocks[p / 16] * b.stride, p % 16, 64);
    for (size_t s = 0; s < n_k; s++) {
        attend(k[s], &a, 1, &query, &from, &to, 0, x);
        attend(k[s], &b, 1, &query, &from, &to, 0, y);
        assert_same_bits(x, y, 64, k[s]->name);
    }
    clear(&a);
    clear(&b);
}

/* Every instruction set stores the same bytes, and a token's step is its own: its neighbours' sizes do not matter. */
static void tokens_are_stored_alike(void **state)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k), bytes = kv_head_bytes(type_of(state), 48);
    uint8_t *kv = aligned_floats(bytes / 4), *first = aligned_floats(bytes / 4);
    struct rng r = {3};
    float x[48], y[48];
    for (size_t s = 0; s < n_k; s++) {
        r.s = 3;
        for (uint32_t p = 0; p < 16; p++) {
            rng_floats(&r, x, 48, p % 3 ? 1 : 1e-6f);
            rng_floats(&r, y, 48, p % 2 ? 1e6f : 100);
            x[p] = p == 5 ? NAN : p == 6 ? INFINITY : x[p];
            k[s]->store_kv[type_of(state)](x, y, kv, p, 48);
        }
        if (s == 0)
            memcpy(first, kv, bytes);
        assert_memory_equal(kv, first, bytes);
    }
    free(kv);
    free(first);
}

/* A byte is within half a step of what was stored, and a step is the vector's largest / 127. */
static void bytes_are_near(void **state UNUSED)
{
    struct fixture t;
    struct rng r = {77 + 8};
    float k[DIM_MAX], v[DIM_MAX];
    make(&t, KV_INT8, 64, r.s);
    rng_floats(&r, t.q, QUERIES_MAX * 64, 2);
    for (uint32_t p = 0; p < POSITIONS; p++) {
        float most[2] = {0, 0};
        rng_floats(&r, k, 64, 1.5f);
        rng_floats(&r, v, 64, 1);
        for (uint32_t d = 0; d < 64; d++) {
            most[0] = fmaxf(most[0], fabsf(k[d]));
            most[1] = fmaxf(most[1], fabsf(v[d]));
        }
        for (uint32_t d = 0; d < 64; d++) {
            assert_true(fabs(k_at(&t, p, d) - (double)k[d]) <= (double)most[0] / 127 * 0.51 + (double)most[0] * 0x1p-11);
            assert_true(fabs(v_at(&t, p, d) - (double)v[d]) <= (double)most[1] / 127 * 0.51 + (double)most[1] * 0x1p-11);
        }
    }
    clear(&t);
}

int main(void)
{
    static enum kv_type types[KV_TYPES] = {KV_F16, KV_INT8};
    static char names[KV_TYPES][4][80];
    struct CMUnitTest tests[2 + 4 * KV_TYPES] = {cmocka_unit_test(attention_is_the_textbooks), cmocka_unit_test(bytes_are_near)};
    static const struct CMUnitTest EACH[] = {
        cmocka_unit_test(neighbours_in_a_tile_do_not_matter),
        cmocka_unit_test(merged_partials_are_the_whole),
        cmocka_unit_test(what_lies_outside_the_span_does_not_matter),
        cmocka_unit_test(tokens_are_stored_alike),
    };
    for (size_t i = 0; i < KV_TYPES * ARRAY_LEN(EACH); i++) {
        struct CMUnitTest *one = &tests[2 + i];
        *one = EACH[i / KV_TYPES];
        one->initial_state = &types[i % KV_TYPES];
        snprintf(names[i % KV_TYPES][i / KV_TYPES], sizeof names[0][0], "%s: %s", one->name, TYPE_NAMES[i % KV_TYPES]);
        one->name = names[i % KV_TYPES][i / KV_TYPES];
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
