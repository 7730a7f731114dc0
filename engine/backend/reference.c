/* The reference backend: float32 throughout, matrices through OpenBLAS, everything else in the
 * plainest loops there are. It is the oracle that the kernels are held against, so it is simple
 * before it is fast. Weights are expanded to floats when the model is loaded: four bytes a weight.
 * One thread. */
#include "engine/backend/backend.h"

#include <cblas.h>
#include <math.h>

#include "engine/dequant.h"
#include "engine/math.h"

#define TENSORS_MAX 16384
#define ACTS_MAX 32
/* Rows of one multiplication. OpenBLAS 0.3.21 adds up all of 8 alike on any CPU; the later ones of
 * 12 or 16 not on Haswell and Zen. */
#define SLAB 8

struct tensor {
    float *x; /* (n_out, n_in) */
    uint32_t n_out, n_in;
};

struct act {
    float *x; /* (rows_max, width) */
    uint32_t width;
};

struct reference {
    backend base;
    struct backend_config cfg;
    struct tensor tensors[TENSORS_MAX + 1]; /* 0 is none */
    uint32_t n_tensors;
    struct act acts[ACTS_MAX + 1]; /* 0 is none */
    uint32_t n_acts;
    struct kv_shape kv;
    float *keys, *values;      /* (n_layer, n_blocks * ENGINE_BLOCK_TOKENS, n_kv_head, head_dim) */
    float *slab_in, *slab_out; /* (SLAB, widest input), (SLAB, widest output) of a multiplication */
    float *input, *gate; /* (rows_max, widest activation): of a multiplication; what a gate gives */
    const struct engine_step *step;
    float *scores; /* (ENGINE_CONTEXT_MAX at most) grown as needed */
    size_t n_scores;
    float *logits; /* (rows that want them, n_vocab) */
    size_t logits_cap;
    size_t logits_at[ENGINE_ROWS_MAX]; /* row -> index + 1 in logits, 0: none */
};

static struct reference *of(backend *b)
{
    return (struct reference *)(void *)b; /* base is the first member */
}

static void ref_free(backend *b)
{
    struct reference *r = of(b);
    for (uint32_t i = 1; i <= r->n_tensors; i++)
        free(r->tensors[i].x);
    for (uint32_t i = 1; i <= r->n_acts; i++)
        free(r->acts[i].x);
    free(r->keys);
    free(r->values);
    free(r->slab_in);
    free(r->slab_out);
    free(r->scores);
    free(r->input);
    free(r->gate);
    free(r->logits);
    free(r);
}

/* ---- at load ---- */

static int ref_add_weight(backend *b, const struct weight *w, tensor_id *out, struct why *why)
{
    struct reference *r = of(b);
    size_t n, bytes;
    if (r->n_tensors == TENSORS_MAX)
        return why_set(why, ERR_TOO_BIG, "model", "more than %d tensors", TENSORS_MAX);
    if (size_mul(w->n_out, w->n_in, &n) < 0 || size_mul(n, sizeof(float), &bytes) < 0)
        return why_set(why, ERR_TOO_BIG, "model", "a tensor is too large");
    float *x = try_calloc(n, sizeof *x);
    if (!x)
        return why_set(why, ERR_NOMEM, "model", "no memory for %zu bytes of weights", bytes);
    dequant(w->type, w->data, n, x);
    *out = ++r->n_tensors;
    r->tensors[*out] = (struct tensor){.x = x, .n_out = w->n_out, .n_in = w->n_in};
    return 0;
}

static int ref_add_act(backend *b, uint32_t width, act_id *out)
{
    struct reference *r = of(b);
    if (r->n_acts == ACTS_MAX)
        return ERR_TOO_BIG;
    float *x = try_calloc((size_t)r->cfg.rows_max * width, sizeof *x);
    if (!x)
        return ERR_NOMEM;
    *out = ++r->n_acts;
    r->acts[*out] = (struct act){.x = x, .width = width};
    return 0;
}

static size_t position_floats(const struct reference *r)
{
    return (size_t)r->kv.n_kv_head * r->kv.head_dim;
}

static int ref_add_kv(backend *b, const struct kv_shape *shape)
{
    struct reference *r = of(b);
    r->kv = *shape;
    size_t n;
    if (size_mul((size_t)shape->n_layer * shape->n_blocks, position_floats(r) * ENGINE_BLOCK_TOKENS,
                 &n) < 0)
        return ERR_TOO_BIG;
    r->keys = try_calloc(n, sizeof *r->keys);
    r->values = try_calloc(n, sizeof *r->values);
    return r->keys && r->values ? 0 : ERR_NOMEM;
}

static int ref_ready(backend *b, struct why *why)
{
    struct reference *r = of(b);
    size_t n_in = 0, n_out = 0, width = 1;
    for (uint32_t i = 1; i <= r->n_tensors; i++) {
        n_in = r->tensors[i].n_in > n_in ? r->tensors[i].n_in : n_in;
        n_out = r->tensors[i].n_out > n_out ? r->tensors[i].n_out : n_out;
    }
    r->slab_in = try_calloc(n_in, SLAB * sizeof(float));
    r->slab_out = try_calloc(n_out, SLAB * sizeof(float));
    for (uint32_t i = 1; i <= r->n_acts; i++)
        width = r->acts[i].width > width ? r->acts[i].width : width;
    r->input = try_calloc(r->cfg.rows_max, width * sizeof(float));
    r->gate = try_calloc(r->cfg.rows_max, width * sizeof(float));
    return r->slab_in && r->slab_out && r->input && r->gate
               ? 0
               : why_set(why, ERR_NOMEM, "model", "no memory for a step's vectors");
}

/* ---- one step ---- */

static void ref_begin(backend *b, const struct engine_step *step)
{
    of(b)->step = step;
}

static float *row_of(struct reference *r, act_id a, size_t row)
{
    return r->acts[a].x + row * r->acts[a].width;
}

static void ref_embed(backend *b, tensor_id table, tensor_id positions, float scale, act_id out)
{
    struct reference *r = of(b);
    uint32_t width = r->acts[out].width;
    for (size_t i = 0; i < r->step->n_rows; i++) {
        const struct engine_row *row = &r->step->rows[i];
        const float *from = row->vec ? row->vec : r->tensors[table].x + (size_t)row->token * width;
        float by = row->vec ? 1.0f : scale;
        for (uint32_t k = 0; k < width; k++)
            row_of(r, out, i)[k] = from[k] * by;
        for (uint32_t k = 0; positions && k < width; k++)
            row_of(r, out, i)[k] += r->tensors[positions].x[(size_t)row->position * width + k];
    }
}

static void norm_vector(const struct reference *r, const struct norm_op *op, const float *in,
                        float *out, uint32_t n)
{
    const float *weight = r->tensors[op->weight].x,
                *bias = op->bias ? r->tensors[op->bias].x : NULL;
    double mean = 0, square = 0;
    for (uint32_t k = 0; op->kind == NORM_LAYER && k < n; k++)
        mean += (double)in[k] / n;
    for (uint32_t k = 0; k < n; k++)
        square += ((double)in[k] - mean) * ((double)in[k] - mean) / n;
    float by = (float)(1.0 / sqrt(square + (double)op->eps));
    for (uint32_t k = 0; k < n; k++)
        out[k] = (in[k] - (float)mean) * by * weight[k] + (bias ? bias[k] : 0.0f);
}

/* out (rows, n_out) = in (rows, n_in) · Wᵀ + bias, or += that. Always SLAB rows at a time, the last
 * ones filled up with zeros: a BLAS adds up in another order for another number of rows, and a
 * row's result must not depend on how many others there are. */
static void multiply(struct reference *r, const float *in, size_t rows, tensor_id w, tensor_id bias,
                     bool added, float *out)
{
    const struct tensor *t = &r->tensors[w];
    size_t n_in = t->n_in, n_out = t->n_out;
    for (size_t at = 0; at < rows; at += SLAB) {
        size_t n = rows - at < SLAB ? rows - at : SLAB;
        memset(r->slab_in, 0, SLAB * n_in * sizeof(float));
        memcpy(r->slab_in, in + at * n_in, n * n_in * sizeof(float));
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, SLAB, (blasint)n_out, (blasint)n_in,
                    1.0f, r->slab_in, (blasint)n_in, t->x, (blasint)n_in, 0.0f, r->slab_out,
                    (blasint)n_out);
        for (size_t k = 0; k < n * n_out; k++)
            out[at * n_out + k] = (added ? out[at * n_out + k] : 0.0f) + r->slab_out[k];
    }
    for (size_t i = 0; bias && i < rows; i++) {
        for (size_t k = 0; k < n_out; k++)
            out[i * n_out + k] += r->tensors[bias].x[k];
    }
}

/* One row of the input, into `out`. */
static void input_row(struct reference *r, const struct linear_in *in, size_t row, float *out)
{
    uint32_t n = r->acts[in->x].width;
    memcpy(out, row_of(r, in->x, row), n * sizeof *out);
    if (in->delta) {
        float *delta = r->slab_out;
        memcpy(delta, row_of(r, in->delta, row), n * sizeof *delta);
        if (in->delta_norm)
            norm_vector(r, in->delta_norm, delta, delta, n);
        for (uint32_t k = 0; k < n; k++)
            out[k] += delta[k];
        if (in->sum)
            memcpy(row_of(r, in->sum, row), out, n * sizeof *out);
    }
    if (in->norm)
        norm_vector(r, in->norm, out, out, n);
}

/* All rows of the input. */
static const float *input_rows(struct reference *r, const struct linear_in *in)
{
    for (size_t i = 0; i < r->step->n_rows; i++)
        input_row(r, in, i, r->input + i * r->acts[in->x].width);
    return r->input;
}

static void ref_linear(backend *b, const struct linear_in *in, size_t n,
                       const struct linear_out *out)
{
    struct reference *r = of(b);
    const float *x = input_rows(r, in);
    for (size_t i = 0; i < n; i++)
        multiply(r, x, r->step->n_rows, out[i].w, out[i].bias, out[i].added, r->acts[out[i].y].x);
}

static void rotate_head(const struct reference *r, const struct rope_op *op, uint32_t position,
                        float *x)
{
    uint32_t half = op->n_dims / 2;
    const float *factors = op->freq_factors ? r->tensors[op->freq_factors].x : NULL;
    for (uint32_t i = 0; i < half; i++) {
        double freq = math_pow64((double)op->theta, -2.0 * i / op->n_dims) * (double)op->freq_scale;
        double sine, cosine;
        math_sincos64(position * (factors ? freq / (double)factors[i] : freq), &sine, &cosine);
        float *a = op->kind == ROPE_HALF ? &x[i] : &x[2 * i],
              *c = op->kind == ROPE_HALF ? &x[i + half] : &x[2 * i + 1];
        float u = *a * op->magnitude, v = *c * op->magnitude;
        *a = u * (float)cosine - v * (float)sine;
        *c = u * (float)sine + v * (float)cosine;
    }
}

/* Each head of each row: normed where it says so, then rotated. */
static void place_heads(struct reference *r, const struct norm_op *norm, const struct rope_op *rope,
                        act_id x, uint32_t head_dim)
{
    for (size_t i = 0; i < r->step->n_rows; i++) {
        for (uint32_t at = 0; at < r->acts[x].width; at += head_dim) {
            float *head = row_of(r, x, i) + at;
            if (norm)
                norm_vector(r, norm, head, head, head_dim);
            if (rope->kind != ROPE_NONE)
                rotate_head(r, rope, r->step->rows[i].position, head);
        }
    }
}

/* Where a layer's K (or V) of one position of a sequence lies. */
static float *kv_at(const struct reference *r, float *pool, uint32_t layer,
                    const struct engine_seq *s, uint32_t position)
{
    size_t block = s->blocks[position / ENGINE_BLOCK_TOKENS];
    size_t slot = ((size_t)layer * r->kv.n_blocks + block) * ENGINE_BLOCK_TOKENS +
                  position % ENGINE_BLOCK_TOKENS;
    return pool + slot * position_floats(r);
}

static void store_kv(struct reference *r, uint32_t layer, act_id k, act_id v)
{
    for (size_t i = 0; i < r->step->n_rows; i++) {
        const struct engine_row *row = &r->step->rows[i];
        const struct engine_seq *s = &r->step->seqs[row->seq];
        memcpy(kv_at(r, r->keys, layer, s, row->position), row_of(r, k, i),
               position_floats(r) * sizeof(float));
        memcpy(kv_at(r, r->values, layer, s, row->position), row_of(r, v, i),
               position_floats(r) * sizeof(float));
    }
}

static void attend_head(struct reference *r, const struct attention_op *op,
                        const struct engine_row *row, uint32_t h, const float *q, float *out)
{
    const struct engine_seq *s = &r->step->seqs[row->seq];
    uint32_t kv_head = h / (op->n_head / op->n_kv_head), dim = op->head_dim;
    uint32_t first =
        op->window && row->position + 1 > op->window ? row->position + 1 - op->window : 0;
    float top = -INFINITY;
    for (uint32_t p = first; p < row->attend_until; p++) {
        const float *k = kv_at(r, r->keys, op->layer, s, p) + kv_head * dim;
        double dot = 0;
        for (uint32_t d = 0; d < dim; d++)
            dot += (double)q[d] * (double)k[d];
        float score = (float)dot * op->scale;
        if (op->soft_cap > 0)
            score = op->soft_cap * math_tanh(score / op->soft_cap);
        r->scores[p - first] = score;
        top = score > top ? score : top;
    }
    double sum = 0;
    for (uint32_t p = first; p < row->attend_until; p++) {
        r->scores[p - first] = (float)math_exp64((double)(r->scores[p - first] - top));
        sum += (double)r->scores[p - first];
    }
    memset(out, 0, dim * sizeof *out);
    for (uint32_t p = first; p < row->attend_until; p++) {
        const float *v = kv_at(r, r->values, op->layer, s, p) + kv_head * dim;
        float share = (float)((double)r->scores[p - first] / sum);
        for (uint32_t d = 0; d < dim; d++)
            out[d] += share * v[d];
    }
}

static void ref_attention(backend *b, const struct attention_op *op, act_id q, act_id k, act_id v,
                          act_id out)
{
    struct reference *r = of(b);
    place_heads(r, op->q_norm, &op->rope, q, op->head_dim);
    place_heads(r, op->k_norm, &op->rope, k, op->head_dim);
    store_kv(r, op->layer, k, v);
    for (size_t i = 0; i < r->step->n_rows; i++) {
        const struct engine_row *row = &r->step->rows[i];
        if (row->attend_until > r->n_scores) {
            r->n_scores = (size_t)row->attend_until * 2;
            r->scores = xrealloc(r->scores, r->n_scores, sizeof *r->scores);
        }
        for (uint32_t h = 0; h < op->n_head; h++)
            attend_head(r, op, row, h, row_of(r, q, i) + h * op->head_dim,
                        row_of(r, out, i) + h * op->head_dim);
    }
}

static float activate(enum act_fn fn, float x)
{
    switch (fn) {
    case ACT_SILU:
        return math_silu(x);
    case ACT_GELU_TANH:
        return math_gelu_tanh(x);
    case ACT_GELU_ERF:
        return math_gelu_erf(x);
    }
    return x;
}

static void ref_gated(backend *b, const struct linear_in *in, const struct gated_op *op)
{
    struct reference *r = of(b);
    const float *x = input_rows(r, in);
    float *y = r->acts[op->y].x;
    size_t n = r->step->n_rows * r->acts[op->y].width;
    multiply(r, x, r->step->n_rows, op->up, op->up_bias, false, y);
    if (op->gate)
        multiply(r, x, r->step->n_rows, op->gate, 0, false, r->gate);
    for (size_t i = 0; i < n; i++)
        y[i] = op->gate ? activate(op->fn, r->gate[i]) * y[i] : activate(op->fn, y[i]);
}

static void ref_logits(backend *b, const struct linear_in *in, tensor_id w, tensor_id bias,
                       float scale, float soft_cap)
{
    struct reference *r = of(b);
    uint32_t width = r->acts[in->x].width, n_vocab = r->tensors[w].n_out;
    size_t n = 0;
    for (size_t i = 0; i < r->step->n_rows; i++) {
        r->logits_at[i] = r->step->rows[i].want_logits ? ++n : 0;
        if (r->step->rows[i].want_logits)
            input_row(r, in, i, r->input + (n - 1) * width);
    }
    if (n > r->logits_cap) {
        r->logits = xrealloc(r->logits, n, n_vocab * sizeof *r->logits);
        r->logits_cap = n;
    }
    multiply(r, r->input, n, w, bias, false, r->logits);
    for (size_t i = 0; i < n * n_vocab && (scale != 1.0f || soft_cap > 0); i++) {
        float x = r->logits[i] * scale;
        r->logits[i] = soft_cap > 0 ? soft_cap * math_tanh(x / soft_cap) : x;
    }
}

static int ref_finish(backend *b)
{
    of(b)->step = NULL;
    return 0;
}

static const float *ref_logits_row(const backend *b, size_t row)
{
    const struct reference *r = (const struct reference *)(const void *)b;
    size_t at = r->logits_at[row], n_vocab = r->cfg.n_vocab;
    return at ? r->logits + (at - 1) * n_vocab : NULL;
}

/* ---- KV blocks: all layers' keys, then all layers' values ---- */

static void ref_parallel(backend *b, void (*fn)(void *ctx, size_t part, int thread), void *ctx,
                         size_t n)
{
    (void)b;
    for (size_t i = 0; i < n; i++)
        fn(ctx, i, 0);
}

static size_t ref_block_bytes(const backend *b)
{
    const struct reference *r = (const struct reference *)(const void *)b;
    return 2 * (size_t)r->kv.n_layer * ENGINE_BLOCK_TOKENS * position_floats(r) * sizeof(float);
}

static float *block_at(const struct reference *r, float *pool, uint32_t layer, uint32_t block)
{
    return pool +
           ((size_t)layer * r->kv.n_blocks + block) * ENGINE_BLOCK_TOKENS * position_floats(r);
}

static void ref_block_copy(backend *b, uint32_t from, uint32_t to, uint32_t n_tokens)
{
    struct reference *r = of(b);
    size_t n = n_tokens * position_floats(r) * sizeof(float);
    for (uint32_t l = 0; l < r->kv.n_layer; l++) {
        memcpy(block_at(r, r->keys, l, to), block_at(r, r->keys, l, from), n);
        memcpy(block_at(r, r->values, l, to), block_at(r, r->values, l, from), n);
    }
}

static void ref_block_export(const backend *b, uint32_t block, void *out)
{
    const struct reference *r = (const struct reference *)(const void *)b;
    size_t n = ENGINE_BLOCK_TOKENS * position_floats(r) * sizeof(float);
    char *p = out;
    for (uint32_t l = 0; l < r->kv.n_layer; l++, p += n)
        memcpy(p, block_at(r, r->keys, l, block), n);
    for (uint32_t l = 0; l < r->kv.n_layer; l++, p += n)
        memcpy(p, block_at(r, r->values, l, block), n);
}

static bool ref_block_import(backend *b, uint32_t block, const void *in)
{
    struct reference *r = of(b);
    size_t n = ENGINE_BLOCK_TOKENS * position_floats(r) * sizeof(float);
    const char *p = in;
    for (size_t i = 0; i < 2 * n * r->kv.n_layer; i += sizeof(float)) {
        float f;
        memcpy(&f, p + i, sizeof f);
        if (!isfinite(f))
            return false;
    }
    for (uint32_t l = 0; l < r->kv.n_layer; l++, p += n)
        memcpy(block_at(r, r->keys, l, block), p, n);
    for (uint32_t l = 0; l < r->kv.n_layer; l++, p += n)
        memcpy(block_at(r, r->values, l, block), p, n);
    return true;
}

static const struct backend_ops OPS = {
    .name = "reference",
    .free = ref_free,
    .add_weight = ref_add_weight,
    .add_act = ref_add_act,
    .add_kv = ref_add_kv,
    .ready = ref_ready,
    .begin = ref_begin,
    .embed = ref_embed,
    .linear = ref_linear,
    .attention = ref_attention,
    .gated = ref_gated,
    .logits = ref_logits,
    .finish = ref_finish,
    .logits_row = ref_logits_row,
    .parallel = ref_parallel,
    .block_bytes = ref_block_bytes,
    .block_copy = ref_block_copy,
    .block_export = ref_block_export,
    .block_import = ref_block_import,
};

int backend_reference_new(const struct backend_config *cfg, backend **out, struct why *w)
{
    (void)w;
    struct reference *r = xcalloc(1, sizeof *r);
    r->base.ops = &OPS;
    r->cfg = *cfg;
    *out = &r->base;
    return 0;
}
