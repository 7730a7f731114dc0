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
    const struct cpu_weight *table, *positions; /* positions NULL: none */
    float scale;
    const struct cpu_act *out;
};

static const uint8_t *table_row(const struct cpu_weight *t, uint32_t i)
{
    CHECK(i < t->w.n_out);
    return (const uint8_t *)t->w.data + i * format_row_bytes(t->f, t->w.n_in);
}

static void embed_rows(void *ctx, uint32_t first, uint32_t n, int thread)
{
    const struct embed_job *j = ctx;
    uint32_t width = j->out->width;
    float *place = j->c->rooms[thread].sum;
    for (uint32_t r = first; r < first + n; r++) {
        const struct engine_row *row = &j->c->step->rows[r];
        float *out = row_of(j->out, r);
        if (row->vec) {
            memcpy(out, row->vec, width * sizeof *out);
        } else {
            CHECK(row->token >= 0);
            format_row(j->table->f, table_row(j->table, (uint32_t)row->token), width, out);
            if (j->scale != 1)
                j->c->k->scale(out, j->scale, 0, width);
        }
        if (!j->positions)
            continue;
        format_row(j->positions->f, table_row(j->positions, row->position), width, place);
        j->c->k->sum(out, place, out, width);
    }
}

void cpu_embed(backend *b, tensor_id table, tensor_id positions, float scale, act_id out)
{
    cpu *c = cpu_of(b);
    struct embed_job j = {c, cpu_weight_of(c, table), positions ? cpu_weight_of(c, positions) : NULL, scale, cpu_act_of(c, out)};
    CHECK(j.table->w.gathered && j.table->w.n_in == j.out->width);
    cpu_rows(c, embed_rows, &j, (uint32_t)c->step->n_rows, j.out->width);
}
