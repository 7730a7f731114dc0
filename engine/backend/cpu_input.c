#include "engine/backend/cpu.h"

/* Sums, norms and quantising of what a linear reads. For few rows every thread does it for itself: no thread waits for
 * another, and the same rows give the same bits. For many rows it is a run of its own, by parts of rows. */

static void norm_row(const cpu *c, const struct cpu_norm *n, const float *x, float *out, size_t width)
{
    if (n->kind == NORM_RMS)
        c->k->norm_rms(x, n->weight, n->eps, out, width);
    else
        c->k->norm_layer(x, n->weight, n->bias, n->eps, out, width);
}

/* Row i of the product as floats: where it lies already, or in the thread's room. */
static const float *input_row(const struct cpu_linear *j, uint32_t i, bool keep_sum, struct cpu_room *room)
{
    const struct cpu_input *in = j->in;
    size_t r = in->rows ? in->rows[i] : i, width = in->x->width;
    const float *x = in->x->data + r * in->x->stride;
    if (in->delta) {
        const float *delta = in->delta->data + r * in->delta->stride;
        float *sum = keep_sum && in->sum ? in->sum->data + r * in->sum->stride : room->sum;
        if (in->delta_norm.any) {
            norm_row(j->c, &in->delta_norm, delta, room->normed, width);
            delta = room->normed;
        }
        j->c->k->sum(x, delta, sum, width);
        x = sum;
    }
    if (!in->norm.any)
        return x;
    norm_row(j->c, &in->norm, x, room->normed, width);
    return room->normed;
}

static void input_rows(const struct cpu_linear *j, uint32_t first, uint32_t n, bool keep_sum, const struct cpu_rows_made *to,
                       struct cpu_room *room)
{
    size_t n_blocks = j->n_in / PANEL_K, h = j->height;
    for (uint32_t r = first; r < first + n; r++) {
        struct act_block *tile = to->blocks + r / h * h * n_blocks + r % h;
        if (r >= j->n_rows) {
            for (size_t b = 0; j->integer && b < n_blocks; b++)
                tile[b * h] = (struct act_block){0};
            continue;
        }
        const float *x = input_row(j, r, keep_sum, room);
        if (j->integer)
            j->c->k->quantise(x, j->n_in, tile, h);
        if (j->floats)
            memcpy(to->x + r * to->x_stride, x, j->n_in * sizeof *x);
    }
}

static void input_part(void *ctx, uint32_t first, uint32_t n, int thread)
{
    const struct cpu_linear *j = ctx;
    input_rows(j, first, n, true, &j->made, &j->c->rooms[thread]);
}

static bool few(const struct cpu_linear *j)
{
    return (size_t)j->padded_rows * j->n_in <= CPU_FEW_FLOATS && j->n_rows <= CPU_FEW_ROWS;
}

void cpu_input_begin(struct cpu_linear *j)
{
    cpu *c = j->c;
    const struct cpu_input *in = j->in;
    j->each_thread = false;
    j->made = (struct cpu_rows_made){c->quantised, c->inputs, in->x->stride};
    if (in->x->blocks) { /* quantised by who made it */
        CHECK(!in->delta && !in->norm.any && !in->rows && !j->floats);
        j->made.blocks = in->x->blocks;
        return;
    }
    if (few(j)) {
        c->n_inputs++;
        j->each_thread = true;
        return;
    }
    cpu_rows(c, input_part, j, j->padded_rows, j->n_in);
}

struct cpu_rows_made cpu_input_of(const struct cpu_linear *j, size_t part, int thread)
{
    struct cpu_room *room = &j->c->rooms[thread];
    struct cpu_rows_made own = {room->blocks, room->x, j->in->x->stride};
    if (!j->each_thread)
        return j->made;
    if (room->input != j->c->n_inputs || part == 0) /* whoever has part 0 writes the sum down */
        input_rows(j, 0, j->padded_rows, part == 0, &own, room);
    room->input = j->c->n_inputs;
    return own;
}
