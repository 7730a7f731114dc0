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

static bool take_rooms(cpu *c, size_t width)
{
    size_t n = (size_t)pool_size(c->pool);
    size_t blocks = CPU_FEW_FLOATS / PANEL_K * sizeof(struct act_block) / sizeof(float);
    size_t floats = (2 + CPU_FEW_ROWS) * width + 2 * CPU_STRIP_FLOATS + blocks;
    c->rooms_bytes = n * floats * sizeof(float);
    c->rooms = aligned_alloc(_Alignof(struct cpu_room), n * sizeof *c->rooms);
    c->rooms_memory = cpu_pages(c->rooms_bytes);
    if (!c->rooms || !c->rooms_memory)
        return false;
    for (size_t i = 0; i < n; i++) {
        float *p = c->rooms_memory + i * floats;
        c->rooms[i] = (struct cpu_room){.blocks = (struct act_block *)(void *)p};
        c->rooms[i].sum = p += blocks;
        c->rooms[i].normed = p += width;
        c->rooms[i].x = p += width;
        c->rooms[i].strip[0] = p += CPU_FEW_ROWS * width;
        c->rooms[i].strip[1] = p + CPU_STRIP_FLOATS;
    }
    return true;
}

static bool take_scratch(cpu *c)
{
    size_t n_in, width, rows = c->cfg.rows_max;
    widest(c, &n_in, &width);
    c->quantised_bytes = (rows + TILE_ROWS_MAX) * (n_in / PANEL_K + 1) * sizeof *c->quantised;
    c->quantised = cpu_pages(c->quantised_bytes);
    c->gated = cpu_pages(c->quantised_bytes);
    c->inputs_bytes = rows * width * sizeof *c->inputs;
    c->inputs = cpu_pages(c->inputs_bytes);
    c->logits_stride = padded(c->cfg.n_vocab);
    c->logits_bytes = rows * c->logits_stride * sizeof *c->logits;
    c->logits = cpu_pages(c->logits_bytes);
    c->logits_of = try_calloc(rows, sizeof *c->logits_of);
    c->wanted = try_calloc(rows, sizeof *c->wanted);
    c->runs = try_calloc(rows, sizeof *c->runs);
    c->scratch_floats = padded(attention_scratch(c->kv_shape.head_dim) + (size_t)QUERIES_MAX * c->kv_shape.head_dim);
    c->scratch = cpu_pages((size_t)pool_size(c->pool) * c->scratch_floats * sizeof *c->scratch);
    c->partials = cpu_pages(PARTIAL_FLOATS * sizeof *c->partials);
    c->tiles = try_calloc(rows, sizeof *c->tiles);
    c->pending = try_calloc(rows * c->kv_shape.n_kv_head, sizeof *c->pending);
    c->has_run = try_calloc(ENGINE_ROWS_MAX, sizeof *c->has_run);
    return take_rooms(c, width) && c->tiles && c->pending && c->has_run && c->partials && c->quantised && c->gated && c->inputs &&
           c->wanted && c->logits && c->logits_of && c->runs && c->scratch;
}

static int ready(backend *b, struct why *why)
{
    cpu *c = cpu_of(b);
    for (uint32_t i = 0; i < c->n_weights; i++)
        c->float_weights |= c->weights[i].w.multiplied && !c->weights[i].f->bits;
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
    cpu_pages_free(c->gated, c->quantised_bytes);
    cpu_pages_free(c->inputs, c->inputs_bytes);
    cpu_pages_free(c->rooms_memory, c->rooms_bytes);
    cpu_pages_free(c->logits, c->logits_bytes);
    cpu_pages_free(c->scratch, (size_t)pool_size(c->pool) * c->scratch_floats * sizeof *c->scratch);
    cpu_pages_free(c->partials, PARTIAL_FLOATS * sizeof *c->partials);
    cpu_pages_free(c->kv, c->kv_bytes);
    cpu_free_weights(c);
    free(c->acts);
    free(c->logits_of);
    free(c->wanted);
    free(c->rooms);
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

static void parallel(backend *b, void (*fn)(void *ctx, size_t part, int thread), void *ctx, size_t n)
{
    pool_run(cpu_of(b)->pool, fn, ctx, n);
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
    .linear = cpu_linear,
    .gated = cpu_gated,
    .attention = cpu_attention,
    .logits = cpu_logits,
    .finish = finish,
    .logits_row = logits_row,
    .parallel = parallel,
    .held = cpu_held,
    .block_bytes = cpu_block_bytes,
    .kv_touch = cpu_kv_touch,
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
