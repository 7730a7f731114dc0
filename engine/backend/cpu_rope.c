/* Rotary positions: one table a step for each of the model's rotations, shared by its layers. */
#include "engine/backend/cpu.h"
#include "engine/math.h"

static bool same_rope(const struct rope_op *a, const struct rope_op *b)
{
    return a->n_dims == b->n_dims && a->theta == b->theta && a->freq_scale == b->freq_scale && a->freq_factors == b->freq_factors &&
           a->magnitude == b->magnitude;
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

struct angle_job {
    const cpu *c;
    struct cpu_rope *table;
};

static void angle_rows(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct angle_job *j = ctx;
    uint32_t half = j->table->op.n_dims / 2;
    for (uint32_t r = first; r < first + n; r++) {
        float *cs = j->table->cs + (size_t)r * half * 2;
        double position = j->c->step->rows[r].position;
        for (uint32_t i = 0; i < half; i++) {
            double s, co;
            math_sincos64(position * j->table->freq[i], &s, &co);
            cs[i] = (float)co * j->table->op.magnitude;
            cs[half + i] = (float)s * j->table->op.magnitude;
        }
    }
}

const struct cpu_rope *cpu_rope_of(cpu *c, const struct rope_op *op)
{
    if (op->kind == ROPE_NONE)
        return NULL;
    CHECK(op->n_dims % 2 == 0 && op->n_dims <= c->kv_shape.head_dim);
    struct angle_job j = {c, rope_table(c, op)};
    if (!j.table->filled)
        cpu_rows(c, angle_rows, &j, (uint32_t)c->step->n_rows, (size_t)op->n_dims * 16);
    j.table->filled = true;
    return j.table;
}
