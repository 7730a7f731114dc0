#include "engine/backend/cpu.h"

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
