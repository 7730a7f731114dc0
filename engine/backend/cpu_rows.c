#include "engine/backend/cpu.h"
#include "engine/math.h"

#define ROWS_ALONE 4096 /* floats below which waking the others costs more than it saves */

struct rows_job {
    cpu_rows_fn fn;
    void *ctx;
    uint32_t n_rows, per_part;
};

static void rows_part(void *ctx, size_t part, int thread)
{
    const struct rows_job *j = ctx;
    uint32_t first = (uint32_t)part * j->per_part, left = j->n_rows - first;
    j->fn(j->ctx, first, left < j->per_part ? left : j->per_part, thread);
}

void cpu_rows(cpu *c, cpu_rows_fn fn, void *ctx, uint32_t n_rows, size_t row_cost)
{
    uint32_t threads = (uint32_t)pool_size(c->pool);
    if (threads == 1 || n_rows == 1 || n_rows * row_cost < ROWS_ALONE) {
        fn(ctx, 0, n_rows, 0);
        return;
    }
    struct rows_job j = {fn, ctx, n_rows, n_rows / (threads * 2) + 1};
    pool_run(c->pool, rows_part, &j, (n_rows + j.per_part - 1) / j.per_part);
}

static float *row_of(const struct cpu_act *a, uint32_t row)
{
    return a->data + row * a->stride;
}

/* ---- embedding ---------------------------------------------------------------------------------------------- */

struct embed_job {
    cpu *c;
    const struct cpu_weight *table;
    float scale;
    const struct cpu_act *out;
};

static void embed_rows(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct embed_job *j = ctx;
    const struct weight *w = &j->table->w;
    size_t row_bytes = format_row_bytes(j->table->f, w->n_in);
    for (uint32_t r = first; r < first + n; r++) {
        const struct engine_row *row = &j->c->step->rows[r];
        float *out = row_of(j->out, r);
        if (row->vec) {
            memcpy(out, row->vec, w->n_in * sizeof *out);
            continue;
        }
        CHECK(row->token >= 0 && (uint32_t)row->token < w->n_out);
        format_row(j->table->f, (const uint8_t *)w->data + (size_t)row->token * row_bytes, w->n_in, out);
        if (j->scale != 1)
            j->c->k->scale(out, j->scale, 0, w->n_in);
    }
}

void cpu_embed(backend *b, tensor_id table, float scale, act_id out)
{
    cpu *c = cpu_of(b);
    struct embed_job j = {c, cpu_weight_of(c, table), scale, cpu_act_of(c, out)};
    CHECK(j.table->w.gathered && j.table->w.n_in == j.out->width);
    cpu_rows(c, embed_rows, &j, (uint32_t)c->step->n_rows, j.out->width);
}

/* ---- norms -------------------------------------------------------------------------------------------------- */

struct norm_job {
    const struct kernels *k;
    const struct norm_op *op;
    const float *weight, *bias;
    const struct cpu_act *in, *out;
    uint32_t n_head, head_dim; /* n_head vectors of head_dim in each row */
};

static void norm_rows(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct norm_job *j = ctx;
    for (uint32_t r = first; r < first + n; r++)
        for (uint32_t h = 0; h < j->n_head; h++) {
            const float *x = row_of(j->in, r) + (size_t)h * j->head_dim;
            float *y = row_of(j->out, r) + (size_t)h * j->head_dim;
            if (j->op->kind == NORM_RMS)
                j->k->norm_rms(x, j->weight, j->op->eps, y, j->head_dim);
            else
                j->k->norm_layer(x, j->weight, j->bias, j->op->eps, y, j->head_dim);
        }
}

static void norm(cpu *c, const struct norm_op *op, const struct cpu_act *in, const struct cpu_act *out, uint32_t n_head,
                 uint32_t head_dim)
{
    struct norm_job j = {c->k, op, cpu_vector(c, op->weight), cpu_vector(c, op->bias), in, out, n_head, head_dim};
    cpu_rows(c, norm_rows, &j, (uint32_t)c->step->n_rows, (size_t)n_head * head_dim);
}

void cpu_norm_heads(backend *b, const struct norm_op *op, act_id x, uint32_t n_head, uint32_t head_dim)
{
    cpu *c = cpu_of(b);
    norm(c, op, cpu_act_of(c, x), cpu_act_of(c, x), n_head, head_dim);
}

/* ---- rotary positions --------------------------------------------------------------------------------------- */

static bool same_rope(const struct rope_op *a, const struct rope_op *b)
{
    return a->n_dims == b->n_dims && a->theta == b->theta && a->freq_scale == b->freq_scale &&
           a->freq_factors == b->freq_factors;
}

/* In double precision: a position times a frequency keeps its angle beyond 100,000 tokens. */
static void rope_frequencies(cpu *c, struct cpu_rope *t, const struct rope_op *op)
{
    const float *factors = cpu_vector(c, op->freq_factors);
    for (uint32_t i = 0; i < op->n_dims / 2; i++) {
        double f = math_pow64((double)op->theta, -2.0 * i / op->n_dims) * (double)op->freq_scale;
        t->freq[i] = factors ? f / (double)factors[i] : f;
    }
    t->op = *op;
    t->used = true;
    t->filled = false;
}

static struct cpu_rope *rope_table(cpu *c, const struct rope_op *op)
{
    for (int i = 0; i < ROPE_TABLES; i++)
        if (c->ropes[i].used && same_rope(&c->ropes[i].op, op))
            return &c->ropes[i];
    struct cpu_rope *t = &c->ropes[c->next_rope++ % ROPE_TABLES];
    rope_frequencies(c, t, op);
    return t;
}

struct rope_job {
    cpu *c;
    struct cpu_rope *table;
    const struct rope_op *op;
    const struct cpu_act *x;
    uint32_t n_head, head_dim;
};

static void angle_rows(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct rope_job *j = ctx;
    uint32_t half = j->op->n_dims / 2;
    for (uint32_t r = first; r < first + n; r++) {
        float *cs = j->table->cs + (size_t)r * j->op->n_dims;
        double position = j->c->step->rows[r].position;
        for (uint32_t i = 0; i < half; i++) {
            double s, co;
            math_sincos64(position * j->table->freq[i], &s, &co);
            cs[i] = (float)co;
            cs[half + i] = (float)s;
        }
    }
}

static void rope_rows(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct rope_job *j = ctx;
    for (uint32_t r = first; r < first + n; r++)
        for (uint32_t h = 0; h < j->n_head; h++)
            j->c->k->rope(j->op->kind, row_of(j->x, r) + (size_t)h * j->head_dim,
                          j->table->cs + (size_t)r * j->op->n_dims, j->op->n_dims);
}

void cpu_rope_op(backend *b, const struct rope_op *op, act_id x, uint32_t n_head, uint32_t head_dim)
{
    cpu *c = cpu_of(b);
    if (op->kind == ROPE_NONE)
        return;
    CHECK(op->n_dims <= head_dim && op->n_dims % 2 == 0 && op->n_dims <= c->kv_shape.head_dim);
    struct rope_job j = {c, rope_table(c, op), op, cpu_act_of(c, x), n_head, head_dim};
    uint32_t n_rows = (uint32_t)c->step->n_rows;
    if (!j.table->filled)
        cpu_rows(c, angle_rows, &j, n_rows, (size_t)op->n_dims * 16);
    j.table->filled = true;
    cpu_rows(c, rope_rows, &j, n_rows, (size_t)n_head * head_dim);
}
