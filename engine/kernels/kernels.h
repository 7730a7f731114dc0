/* What the CPU backend computes with: one table of functions per instruction set, chosen at run time. Every function
 * gives the same bits in every table, for every tile height and every cut of the work:
 *
 *  - a dot product is an exact integer per 32 elements of k (16 for Q6_K), then one fused multiply-add per block into
 *    the output element, in ascending k; lanes are output rows, so nothing is summed across lanes;
 *  - float weights: one fused multiply-add per k, ascending, from zero;
 *  - sums over a row (norms, softmax): 16 virtual lanes, then the tree of lanes +8, +4, +2, +1;
 *  - exp, tanh and erf are our own, of adds, multiplies and fused multiply-adds alone.
 *
 * Nothing here allocates, and nothing checks: shapes are the backend's business. */
#ifndef NUNCHI_ENGINE_KERNELS_H
#define NUNCHI_ENGINE_KERNELS_H

#include "engine/backend/backend.h"
#include "engine/kernels/pack.h"

#define TILE_ROWS_MAX 16 /* activation rows that share one pass over the weights */
#define SAMPLE_TILE 256  /* logits: what stays in the first cache from one pass over them to the next */
#define SAMPLE_CUTS 3    /* bounds that are tried in one pass: a quarter of what is left is left then */
#define QUERIES_MAX 32   /* of one attention tile */

/* 32 activations of one row, quantised: x ~ d * q. The sums of q, times what the weights' offset asks, are made once
 * here and not once per output. A tile of h rows is (n_in / 32, h) of these. One cache line. */
struct act_block {
    float d;
    float dsum;      /* d * sum of q: for formats with a minimum */
    int32_t off8;    /* -8 * sum */
    int32_t off16;   /* -16 * sum */
    int32_t off128;  /* -128 * sum */
    int32_t off32[2]; /* -32 * sum of either half */
    int32_t unused;
    int8_t q[32];
};

/* One tile of rows through a range of panels. */
struct linear_tile {
    const struct packed *w;
    uint32_t first_panel, n_panels;
    uint32_t height; /* kernels.heights has it; rows beyond n_rows are zero blocks */
    uint32_t n_rows; /* rows stored, <= height */
    const struct act_block *x; /* integer formats: (n_in / 32, height) */
    const float *xf;           /* float formats: (n_rows, xf_stride) */
    size_t xf_stride;
    const float *bias; /* (panels * 16) or NULL */
    float *out;        /* (n_rows, out_stride): whole panels are written, also beyond n_out */
    size_t out_stride;
    bool added;        /* to what out holds */
};

/* Queries that read the same K and V: heads of a group, and rows of one sequence. */
struct attention_tile {
    enum kv_type type;
    const uint8_t *kv;    /* the pool, at this layer and KV head */
    size_t block_stride;  /* bytes between one block and the next */
    const uint32_t *blocks;
    uint32_t head_dim;    /* a multiple of 16 */
    float scale, soft_cap;
    uint32_t n;           /* queries, at most QUERIES_MAX */
    const float *q[QUERIES_MAX];
    float *out[QUERIES_MAX];
    uint32_t from[QUERIES_MAX], to[QUERIES_MAX]; /* positions attended to: from <= p < to, never empty */
    /* NULL: all segments. Else `segment` alone: out is not yet divided, and (largest score, sum of weights) of query i go
     * to partials[2*i]; the sum is 0, and out untouched, where a query sees nothing of it. */
    float *partials;
    uint32_t segment;
    float *scratch;       /* attention_scratch(head_dim) floats, 64-byte aligned */
};
static inline size_t attention_scratch(uint32_t head_dim)
{
    return (size_t)QUERIES_MAX * (ENGINE_SEGMENT_TOKENS + 3 * (size_t)head_dim) + 64;
}

/* Bytes of one KV block of one layer and head (body_kv.h); the vectors of token t come after these of t-1. */
static inline size_t kv_head_bytes(enum kv_type type, uint32_t head_dim)
{
    size_t numbers = (size_t)2 * ENGINE_BLOCK_TOKENS * head_dim;
    return type == KV_INT8 ? numbers + (size_t)4 * ENGINE_BLOCK_TOKENS : 2 * numbers;
}

/* The most that an instruction set can do, for engine/limits.c: multiplies and adds of one round (0: nothing to compare with,
 * the code is the compiler's), and what does them. `read` takes a multiple of 64 floats. */
struct peak {
    uint32_t dot_ops, fma_ops;
    int32_t (*dots)(uint64_t rounds);
    int32_t (*fmas)(uint64_t rounds);
    int32_t (*read)(const float *p, size_t n);
};

struct kernels {
    const char *name;        /* "avx512" */
    const uint8_t *heights;  /* tile heights there is code for, ascending */
    size_t n_heights;
    /* One row of n floats (a multiple of 32) into every h-th block. NaN and infinities make the block's d NaN. */
    void (*quantise)(const float *x, size_t n, struct act_block *out, size_t h);
    void (*linear)(const struct linear_tile *t);
    /* weight, bias: NULL for none. In and out may be the same. */
    void (*norm_rms)(const float *x, const float *weight, float eps, float *out, size_t n);
    void (*norm_layer)(const float *x, const float *weight, const float *bias, float eps, float *out, size_t n);
    void (*act_mul)(enum act_fn fn, const float *gate, const float *up, float *out, size_t n);
    void (*sum)(const float *x, const float *y, float *out, size_t n); /* out = x + y */
    void (*scale)(float *x, float scale, float soft_cap, size_t n); /* soft_cap 0: none */
    /* One head in place; cs is n_dims/2 cosines, then as many sines. */
    void (*rope)(enum rope_kind kind, float *x, const float *cs, uint32_t n_dims);
    /* One head of one token into slot t of its block; values beyond the range of f16 are clamped. */
    void (*store_kv[KV_TYPES])(const float *k, const float *v, uint8_t *kv, uint32_t t, uint32_t head_dim);
    void (*attention)(const struct attention_tile *t);
    /* Partials of n segments of one query, ascending: pair s at partials + s*stride, out at o + s*o_stride. The same bits
     * as attention() over all of them. */
    void (*attention_merge)(const float *partials, size_t stride, const float *o, size_t o_stride, uint32_t n, uint32_t head_dim,
                            float *out);
    /* The sampler's, of one tile of SAMPLE_TILE logits. */
    float (*sample_max)(const float *x); /* -infinity where there is no number */
    /* Sum over math_exp2_share((x - top) * scale), in 16 virtual lanes. */
    float (*sample_exp)(const float *x, float top, float scale, float *out); /* each of them too, unless out is NULL */
    /* What those weigh that are at least each of SAMPLE_CUTS bounds; weights NULL: 1 each. In 16 virtual lanes. No NaN. */
    void (*sample_above)(const float *x, const float *weight, const float *least, float *mass);
    /* Those that are at least `least`, in order, with their ids; returns how many. Up to 16 of either may be written
     * beyond them. */
    size_t (*sample_take)(const float *x, float least, int32_t first, float *out, int32_t *ids);
    struct peak peak;
};

extern const struct kernels KERNELS_PORTABLE, KERNELS_AVX2, KERNELS_AVX512;
/* NULL or "": the best this CPU has. ERR_INVALID for an unknown name, ERR_UNSUPPORTED if the CPU lacks it. */
int kernels_choose(const char *isa, const struct kernels **out, struct why *w) MUST_USE;

/* How to cut n rows into equal tiles: height of each; their number is (n + h - 1) / h. */
uint32_t kernels_height(const struct kernels *k, uint32_t n_rows);

#endif
