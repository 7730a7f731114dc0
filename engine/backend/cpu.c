#include "engine/backend/cpu.h"

#include <sys/mman.h>

static size_t padded(size_t n)
{
    return (n + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS;
}

void *cpu_pages(size_t bytes)
{
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    madvise(p, bytes, MADV_HUGEPAGE); /* streams of weights and KV: fewer page walks */
    return p;
}

void cpu_pages_free(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes ? bytes : 1);
}

const float *cpu_vector(cpu *c, tensor_id id)
{
    if (!id)
        return NULL;
    const float *v = cpu_weight_of(c, id)->vector;
    CHECK(v);
    return v;
}

/* ---- at load ------------------------------------------------------------------------------------------------ */

static int add_act(backend *b, uint32_t width, act_id *out)
{
    cpu *c = cpu_of(b);
    if (c->n_acts == c->cap_acts) {
        c->cap_acts = c->cap_acts ? 2 * c->cap_acts : 16;
        c->acts = xrealloc(c->acts, c->cap_acts, sizeof *c->acts);
    }
    c->acts[c->n_acts++] = (struct cpu_act){.width = width, .stride = padded(width)};
    *out = c->n_acts;
    return 0;
}

/* The longest row that any linear reads, and the widest activation. */
static void widest(const cpu *c, size_t *n_in, size_t *width)
{
    *n_in = *width = 0;
    for (uint32_t i = 0; i < c->n_weights; i++)
        if (c->weights[i].w.multiplied && c->weights[i].w.n_in > *n_in)
            *n_in = c->weights[i].w.n_in;
    for (uint32_t i = 0; i < c->n_acts; i++)
        if (c->acts[i].stride > *width)
            *width = c->acts[i].stride;
}

static bool take_acts(cpu *c)
{
    for (uint32_t i = 0; i < c->n_acts; i++) {
        c->acts[i].data = cpu_pages(c->cfg.rows_max * c->acts[i].stride * sizeof(float));
        if (!c->acts[i].data)
            return false;
    }
    return true;
}

static bool take_ropes(cpu *c)
{
    size_t dims = c->kv_shape.head_dim ? c->kv_shape.head_dim : 1;
    for (int i = 0; i < ROPE_TABLES; i++) {
        c->ropes[i].freq = try_calloc(dims, sizeof(double));
        c->ropes[i].cs = cpu_pages(c->cfg.rows_max * dims * sizeof(float));
        if (!c->ropes[i].freq || !c->ropes[i].cs)
            return false;
    }
    return true;
}

static bool take_scratch(cpu *c)
{
    size_t n_in, width, rows = c->cfg.rows_max;
    widest(c, &n_in, &width);
    c->quantised_bytes = (rows + TILE_ROWS_MAX) * (n_in / PANEL_K + 1) * sizeof *c->quantised;
    c->quantised = cpu_pages(c->quantised_bytes);
    c->wanted_bytes = rows * width * sizeof *c->wanted;
    c->wanted = cpu_pages(c->wanted_bytes);
    c->logits_stride = padded(c->cfg.n_vocab);
    c->logits_bytes = rows * c->logits_stride * sizeof *c->logits;
    c->logits = cpu_pages(c->logits_bytes);
    c->logits_of = try_calloc(rows, sizeof *c->logits_of);
    c->runs = try_calloc(rows, sizeof *c->runs);
    c->scratch_floats = padded(attention_scratch(c->kv_shape.head_dim) + (size_t)QUERIES_MAX * c->kv_shape.head_dim);
    c->scratch = cpu_pages((size_t)pool_size(c->pool) * c->scratch_floats * sizeof *c->scratch);
    c->partials = cpu_pages(PARTIAL_FLOATS * sizeof *c->partials);
    c->tiles = try_calloc(rows, sizeof *c->tiles);
    c->pending = try_calloc(rows * c->kv_shape.n_kv_head, sizeof *c->pending);
    c->has_run = try_calloc(ENGINE_ROWS_MAX, sizeof *c->has_run);
    return c->tiles && c->pending && c->has_run && c->partials && c->quantised && c->wanted && c->logits && c->logits_of && c->runs && c->scratch;
}

static int ready(backend *b, struct why *why)
{
    cpu *c = cpu_of(b);
    if (!take_acts(c) || !take_ropes(c) || !take_scratch(c))
        return why_set(why, ERR_NOMEM, "memory", "no memory for steps of %u rows", c->cfg.rows_max);
    return cpu_pack(c, why);
}

static void free_cpu(backend *b)
{
    cpu *c = cpu_of(b);
    for (int i = 0; i < ROPE_TABLES; i++) {
        free(c->ropes[i].freq);
        cpu_pages_free(c->ropes[i].cs, c->cfg.rows_max * (size_t)(c->kv_shape.head_dim ? c->kv_shape.head_dim : 1) * sizeof(float));
    }
    for (uint32_t i = 0; i < c->n_acts; i++)
        cpu_pages_free(c->acts[i].data, c->cfg.rows_max * c->acts[i].stride * sizeof(float));
    cpu_pages_free(c->quantised, c->quantised_bytes);
    cpu_pages_free(c->wanted, c->wanted_bytes);
    cpu_pages_free(c->logits, c->logits_bytes);
    cpu_pages_free(c->scratch, (size_t)pool_size(c->pool) * c->scratch_floats * sizeof *c->scratch);
    cpu_pages_free(c->partials, PARTIAL_FLOATS * sizeof *c->partials);
    cpu_pages_free(c->kv, c->kv_bytes);
    cpu_free_weights(c);
    free(c->acts);
    free(c->logits_of);
    free(c->runs);
    free(c->tiles);
    free(c->pending);
    free(c->has_run);
    pool_free(c->pool);
    free(c);
}

/* ---- one step ----------------------------------------------------------------------------------------------- */

/* Rows with a neighbour of the same sequence belong together. */
static void find_runs(cpu *c, const struct engine_step *step)
{
    memset(c->has_run, 0, step->n_seqs * sizeof *c->has_run);
    c->n_runs = 0;
    c->one_run_each = true;
    for (uint32_t r = 0; r < step->n_rows; r++) {
        uint32_t seq = step->rows[r].seq;
        if (r && seq == step->rows[r - 1].seq) {
            c->runs[c->n_runs - 1].n++;
            continue;
        }
        c->runs[c->n_runs++] = (struct cpu_run){r, 1};
        c->one_run_each &= !c->has_run[seq];
        c->has_run[seq] = true;
    }
}

static void begin(backend *b, const struct engine_step *step)
{
    cpu *c = cpu_of(b);
    CHECK(step->n_rows <= c->cfg.rows_max);
    c->step = step;
    find_runs(c, step);
    for (uint32_t r = 0; r < step->n_rows; r++)
        c->logits_of[r] = -1;
    for (int i = 0; i < ROPE_TABLES; i++)
        c->ropes[i].filled = false;
}

static void linear(backend *b, act_id in, size_t n, const tensor_id *w, const tensor_id *bias, const act_id *out)
{
    cpu *c = cpu_of(b);
    const struct cpu_act *x = cpu_act_of(c, in);
    struct cpu_product p[CPU_PRODUCTS_MAX];
    CHECK(n <= CPU_PRODUCTS_MAX);
    for (size_t i = 0; i < n; i++) {
        const struct cpu_weight *cw = cpu_weight_of(c, w[i]);
        const struct cpu_act *y = cpu_act_of(c, out[i]);
        CHECK(cw->w.multiplied && cw->w.n_in == x->width && cw->w.n_out == y->width);
        p[i] = (struct cpu_product){&cw->packed, bias ? cpu_vector(c, bias[i]) : NULL, y->data, y->stride};
    }
    cpu_linear(c, x->data, x->stride, (uint32_t)c->step->n_rows, p, n);
}

struct logits_job {
    cpu *c;
    float scale, soft_cap;
};

static void scale_logits(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct logits_job *j = ctx;
    for (uint32_t r = first; r < first + n; r++)
        j->c->k->scale(j->c->logits + r * j->c->logits_stride, j->scale, j->soft_cap, j->c->cfg.n_vocab);
}

static void logits(backend *b, const struct norm_op *op, act_id in, tensor_id w, tensor_id bias, float scale, float soft_cap)
{
    cpu *c = cpu_of(b);
    const struct cpu_act *x = cpu_act_of(c, in);
    const float *weight = cpu_vector(c, op->weight), *shift = cpu_vector(c, op->bias);
    uint32_t n = 0;
    for (uint32_t r = 0; r < c->step->n_rows; r++) {
        if (!c->step->rows[r].want_logits)
            continue;
        const float *row = x->data + r * x->stride;
        float *to = c->wanted + n * x->stride;
        if (op->kind == NORM_RMS)
            c->k->norm_rms(row, weight, op->eps, to, x->width);
        else
            c->k->norm_layer(row, weight, shift, op->eps, to, x->width);
        c->logits_of[r] = (int32_t)n++;
    }
    if (!n)
        return;
    const struct cpu_weight *cw = cpu_weight_of(c, w);
    CHECK(cw->w.multiplied && cw->w.n_in == x->width && cw->w.n_out == c->cfg.n_vocab);
    struct cpu_product p = {&cw->packed, cpu_vector(c, bias), c->logits, c->logits_stride};
    cpu_linear(c, c->wanted, x->stride, n, &p, 1);
    struct logits_job j = {c, scale, soft_cap};
    if (scale != 1 || soft_cap != 0)
        cpu_rows(c, scale_logits, &j, n, c->cfg.n_vocab);
}

static int finish(backend *b)
{
    cpu_of(b)->step = NULL;
    return 0;
}

static const float *logits_row(const backend *b, size_t row)
{
    const cpu *c = (const cpu *)(const void *)b;
    if (row >= c->cfg.rows_max || c->logits_of[row] < 0)
        return NULL;
    return c->logits + (size_t)c->logits_of[row] * c->logits_stride;
}

static const struct backend_ops CPU_OPS = {
    .name = "cpu",
    .free = free_cpu,
    .add_weight = cpu_add_weight,
    .add_act = add_act,
    .add_kv = cpu_add_kv,
    .ready = ready,
    .begin = begin,
    .embed = cpu_embed,
    .norm = cpu_norm,
    .linear = linear,
    .attention = cpu_attention,
    .act_mul = cpu_act_mul,
    .add = cpu_add,
    .logits = logits,
    .finish = finish,
    .logits_row = logits_row,
    .block_bytes = cpu_block_bytes,
    .block_copy = cpu_block_copy,
    .block_export = cpu_block_export,
    .block_import = cpu_block_import,
};

int backend_cpu_new(const struct backend_config *cfg, backend **out, struct why *w)
{
    *out = NULL;
    cpu *c = try_calloc(1, sizeof *c);
    if (!c)
        return why_set(w, ERR_NOMEM, "memory", "no memory for a backend");
    c->base.ops = &CPU_OPS;
    c->cfg = *cfg;
    const char *isa = cfg->isa && *cfg->isa ? cfg->isa : getenv("NUNCHI_ISA");
    int e = kernels_choose(isa, &c->k, w);
    if (e >= 0)
        e = pool_new(cfg->threads, &c->pool, w);
    if (e < 0) {
        free(c);
        return e;
    }
    *out = &c->base;
    return 0;
}

const char *backend_isa(const backend *b)
{
    return b->ops == &CPU_OPS ? ((const cpu *)(const void *)b)->k->name : "any";
}
