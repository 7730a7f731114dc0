#include "engine/backend/cpu.h"

/* Weights of one part stay in the second-level cache while the tiles of rows pass. */
#define PART_BYTES_MAX (192 << 10)
#define PARTS_PER_THREAD 8 /* so that a thread that was held up costs a fraction of the operator */

/* ---- tiles -------------------------------------------------------------------------------------------------------- */

static void run_tiles(const struct cpu_linear *j, const struct cpu_rows_made *in, const struct cpu_product *p,
                      uint32_t first_panel, uint32_t n_panels)
{
    struct linear_tile t = {
        .w = p->w,
        .first_panel = first_panel,
        .n_panels = n_panels,
        .height = j->height,
        .bias = p->bias,
        .xf_stride = in->x_stride,
        .out_stride = p->out_stride,
        .added = p->added,
    };
    size_t tile_blocks = (size_t)j->height * (j->n_in / PANEL_K);
    for (uint32_t r = 0, i = 0; r < j->n_rows; r += j->height, i++) {
        t.x = in->blocks + i * tile_blocks;
        t.xf = in->x + r * in->x_stride;
        t.n_rows = j->n_rows - r < j->height ? j->n_rows - r : j->height;
        t.out = p->out + r * p->out_stride;
        j->c->k->linear(&t);
    }
}

/* One tile of rows through the same panels of gate and up, then the product of the two, quantised
 * where the next linear reads it. Strips of panels, so that what is between stays in the
 * first-level cache. */
static void gated_strip(const struct cpu_linear *j, struct linear_tile *t, uint32_t first_row, struct cpu_room *room)
{
    const struct cpu_gate *g = j->gated;
    const size_t width = (size_t)t->n_panels * PANEL_ROWS, at = (size_t)t->first_panel * PANEL_ROWS;
    t->out_stride = width;
    for (int i = 0; i < 1 + !!g->gate; i++) {
        t->w = i ? g->gate : g->up;
        t->bias = i ? NULL : g->up_bias;
        t->out = room->strip[i] - at;
        j->c->k->linear(t);
    }
    struct act_block *to = g->y->blocks ? g->y->blocks + first_row * (g->y->width / PANEL_K) + at / PANEL_K * t->height : NULL;
    for (uint32_t r = 0; r < (to ? t->height : t->n_rows); r++) {
        float *up = room->strip[0] + r * width, *gate = room->strip[1] + r * width;
        float *out = to ? up : g->y->data + (first_row + r) * g->y->stride + at;
        if (r < t->n_rows)
            j->c->k->act_mul(g->fn, g->gate ? gate : up, g->gate ? up : NULL, out, width);
        if (to && r < t->n_rows)
            j->c->k->quantise(out, width, to + r, t->height);
        for (size_t b = 0; to && r >= t->n_rows && b < width / PANEL_K; b++)
            to[b * t->height + r] = (struct act_block){0};
    }
}

static void run_gated(const struct cpu_linear *j, const struct cpu_rows_made *in, uint32_t first_panel, uint32_t n_panels,
                      struct cpu_room *room)
{
    struct linear_tile t = {.height = j->height, .xf_stride = in->x_stride};
    const size_t tile_blocks = (size_t)j->height * (j->n_in / PANEL_K);
    const uint32_t strip = CPU_STRIP_FLOATS / PANEL_ROWS / j->height / 2 * 2;
    for (uint32_t r = 0, i = 0; r < j->n_rows; r += j->height, i++) {
        t.x = in->blocks + i * tile_blocks;
        t.xf = in->x + r * in->x_stride;
        t.n_rows = j->n_rows - r < j->height ? j->n_rows - r : j->height;
        for (uint32_t p = 0; p < n_panels; p += t.n_panels) {
            t.first_panel = first_panel + p;
            t.n_panels = n_panels - p < strip ? n_panels - p : strip;
            gated_strip(j, &t, r, room);
        }
    }
}

static void linear_part(void *ctx, size_t part, int thread)
{
    const struct cpu_linear *j = ctx;
    const struct cpu_rows_made in = cpu_input_of(j, part, thread);
    size_t i = 0;
    while (part >= j->first_part[i + 1])
        i++;
    uint32_t first = ((uint32_t)part - j->first_part[i]) * j->per_part[i];
    uint32_t left = j->p[i].w->n_panels - first, n = left < j->per_part[i] ? left : j->per_part[i];
    if (j->gated)
        run_gated(j, &in, first, n, &j->c->rooms[thread]);
    else
        run_tiles(j, &in, &j->p[i], first, n);
}

/* Bytes of weights behind one panel of outputs. */
static uint64_t panel_bytes(const struct cpu_linear *j, size_t i)
{
    return j->p[i].w->panel_bytes + (j->gated && j->gated->gate ? j->gated->gate->panel_bytes : 0);
}

static void cut(struct cpu_linear *j)
{
    uint64_t total = 0;
    for (size_t i = 0; i < j->n; i++)
        total += j->p[i].w->n_panels * panel_bytes(j, i);
    uint64_t bytes = total / (uint64_t)(pool_size(j->c->pool) * PARTS_PER_THREAD) + 1;
    if (j->n_rows > j->height && bytes > PART_BYTES_MAX)
        bytes = PART_BYTES_MAX;
    for (size_t i = 0; i < j->n; i++) {
        const struct packed *w = j->p[i].w;
        uint64_t panels = bytes / panel_bytes(j, i), least = w->n_panels / (POOL_PARTS_MAX / CPU_PRODUCTS_MAX) + 1;
        panels = panels < least ? least : panels;
        if (j->gated) /* two panels are one quantised block */
            panels += panels % 2;
        j->per_part[i] = panels > w->n_panels ? w->n_panels : (uint32_t)panels;
        j->first_part[i + 1] = j->first_part[i] + (w->n_panels + j->per_part[i] - 1) / j->per_part[i];
    }
}

static void run(cpu *c, const struct cpu_input *in, uint32_t n_rows, const struct cpu_product *p, size_t n,
                const struct cpu_gate *gated)
{
    struct cpu_linear j = {.c = c, .in = in, .n_rows = n_rows, .n_in = p[0].w->n_in, .p = p, .n = n, .gated = gated};
    j.height = kernels_height(c->k, n_rows);
    j.padded_rows = (n_rows + j.height - 1) / j.height * j.height;
    for (size_t i = 0; i < n + (gated && gated->gate); i++) {
        const struct packed *w = i < n ? p[i].w : gated->gate;
        CHECK(w->n_in == j.n_in && j.n_in == in->x->width);
        *(w->f->bits ? &j.integer : &j.floats) = true;
    }
    cpu_input_begin(&j);
    cut(&j);
    pool_run(c->pool, linear_part, &j, j.first_part[n]);
}

/* ---- the operators
 * ------------------------------------------------------------------------------------------ */

static struct cpu_norm norm_of(cpu *c, const struct norm_op *op)
{
    if (!op)
        return (struct cpu_norm){.any = false};
    return (struct cpu_norm){true, op->kind, op->eps, cpu_vector(c, op->weight), cpu_vector(c, op->bias)};
}

static struct cpu_input input_of(cpu *c, const struct linear_in *in)
{
    return (struct cpu_input){
        .x = cpu_act_of(c, in->x),
        .delta = in->delta ? cpu_act_of(c, in->delta) : NULL,
        .sum = in->sum ? cpu_act_of(c, in->sum) : NULL,
        .norm = norm_of(c, in->norm),
        .delta_norm = norm_of(c, in->delta_norm),
    };
}

static const struct cpu_weight *matrix_of(cpu *c, tensor_id id)
{
    const struct cpu_weight *w = cpu_weight_of(c, id);
    CHECK(w->w.multiplied);
    return w;
}

void cpu_linear(backend *b, const struct linear_in *in, size_t n, const struct linear_out *out)
{
    cpu *c = cpu_of(b);
    struct cpu_input x = input_of(c, in);
    struct cpu_product p[CPU_PRODUCTS_MAX];
    CHECK(n >= 1 && n <= CPU_PRODUCTS_MAX);
    for (size_t i = 0; i < n; i++) {
        const struct cpu_weight *w = matrix_of(c, out[i].w);
        struct cpu_act *y = cpu_act_of(c, out[i].y);
        CHECK(w->w.n_out == y->width);
        p[i] = (struct cpu_product){&w->packed, cpu_vector(c, out[i].bias), y->data, y->stride, out[i].added};
    }
    run(c, &x, (uint32_t)c->step->n_rows, p, n, NULL);
}

void cpu_gated(backend *b, const struct linear_in *in, const struct gated_op *op)
{
    cpu *c = cpu_of(b);
    struct cpu_input x = input_of(c, in);
    const struct cpu_weight *up = matrix_of(c, op->up), *gate = op->gate ? matrix_of(c, op->gate) : NULL;
    struct cpu_act *y = cpu_act_of(c, op->y);
    CHECK(up->w.n_out == y->width && (!gate || gate->w.n_out == y->width));
    y->blocks = c->float_weights ? NULL : c->gated;
    struct cpu_gate g = {op->fn, gate ? &gate->packed : NULL, &up->packed, cpu_vector(c, op->up_bias), y};
    struct cpu_product p = {.w = &up->packed};
    run(c, &x, (uint32_t)c->step->n_rows, &p, 1, &g);
}

/* ---- logits ------------------------------------------------------------------------------------------------------- */

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

void cpu_logits(backend *b, const struct linear_in *in, tensor_id w, tensor_id bias, float scale, float soft_cap)
{
    cpu *c = cpu_of(b);
    struct cpu_input x = input_of(c, in);
    uint32_t n = 0;
    for (uint32_t r = 0; r < c->step->n_rows; r++)
        if (c->step->rows[r].want_logits) {
            c->wanted[n] = r;
            c->logits_of[r] = (int32_t)n++;
        }
    if (!n)
        return;
    x.rows = c->wanted;
    const struct cpu_weight *cw = matrix_of(c, w);
    CHECK(cw->w.n_out == c->cfg.n_vocab);
    struct cpu_product p = {&cw->packed, cpu_vector(c, bias), c->logits, c->logits_stride, false};
    run(c, &x, n, &p, 1, NULL);
    struct logits_job j = {c, scale, soft_cap};
    if (scale != 1 || soft_cap != 0)
        cpu_rows(c, scale_logits, &j, n, c->cfg.n_vocab);
}
