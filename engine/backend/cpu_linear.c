#include "engine/backend/cpu.h"

/* Weights of one part stay in the second-level cache while the tiles of rows pass. */
#define PART_BYTES_MAX (192 << 10)
#define PARTS_PER_THREAD 4 /* so that a thread that was held up costs a fraction of the operator */

struct linear_job {
    cpu *c;
    const float *x;
    size_t x_stride;
    uint32_t n_rows, n_in, height;
    const struct cpu_product *p;
    size_t n;
    uint32_t per_part[CPU_PRODUCTS_MAX];   /* panels */
    uint32_t first_part[CPU_PRODUCTS_MAX + 1];
};

static void quantise_rows(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct linear_job *j = ctx;
    size_t n_blocks = j->n_in / PANEL_K, h = j->height;
    for (uint32_t r = first; r < first + n; r++) {
        struct act_block *to = j->c->quantised + r / h * h * n_blocks + r % h;
        if (r < j->n_rows)
            j->c->k->quantise(j->x + r * j->x_stride, j->n_in, to, h);
        else
            for (size_t b = 0; b < n_blocks; b++)
                to[b * h] = (struct act_block){0};
    }
}

static void run_tiles(const struct linear_job *j, const struct cpu_product *p, uint32_t first_panel, uint32_t n_panels)
{
    struct linear_tile t = {
        .w = p->w, .first_panel = first_panel, .n_panels = n_panels, .height = j->height, .bias = p->bias,
        .xf_stride = j->x_stride, .out_stride = p->out_stride,
    };
    size_t tile_blocks = (size_t)j->height * (j->n_in / PANEL_K);
    for (uint32_t r = 0, i = 0; r < j->n_rows; r += j->height, i++) {
        t.x = j->c->quantised + i * tile_blocks;
        t.xf = j->x + r * j->x_stride;
        t.n_rows = j->n_rows - r < j->height ? j->n_rows - r : j->height;
        t.out = p->out + r * p->out_stride;
        j->c->k->linear(&t);
    }
}

static void linear_part(void *ctx, size_t part, int thread UNUSED)
{
    const struct linear_job *j = ctx;
    size_t i = 0;
    while (part >= j->first_part[i + 1])
        i++;
    uint32_t first = ((uint32_t)part - j->first_part[i]) * j->per_part[i];
    uint32_t left = j->p[i].w->n_panels - first;
    run_tiles(j, &j->p[i], first, left < j->per_part[i] ? left : j->per_part[i]);
}

static void cut(struct linear_job *j)
{
    uint64_t total = 0;
    for (size_t i = 0; i < j->n; i++)
        total += (uint64_t)j->p[i].w->n_panels * j->p[i].w->panel_bytes;
    uint64_t bytes = total / (uint64_t)(pool_size(j->c->pool) * PARTS_PER_THREAD) + 1;
    if (j->n_rows > j->height && bytes > PART_BYTES_MAX)
        bytes = PART_BYTES_MAX;
    for (size_t i = 0; i < j->n; i++) {
        const struct packed *w = j->p[i].w;
        uint64_t panels = bytes / w->panel_bytes, least = w->n_panels / (POOL_PARTS_MAX / CPU_PRODUCTS_MAX) + 1;
        panels = panels < least ? least : panels;
        j->per_part[i] = panels > w->n_panels ? w->n_panels : (uint32_t)panels;
        j->first_part[i + 1] = j->first_part[i] + (w->n_panels + j->per_part[i] - 1) / j->per_part[i];
    }
}

void cpu_linear(cpu *c, const float *x, size_t x_stride, uint32_t n_rows, const struct cpu_product *p, size_t n)
{
    CHECK(n >= 1 && n <= CPU_PRODUCTS_MAX);
    struct linear_job j = {.c = c, .x = x, .x_stride = x_stride, .n_rows = n_rows, .n_in = p[0].w->n_in, .p = p, .n = n};
    j.height = kernels_height(c->k, n_rows);
    bool integer = false;
    for (size_t i = 0; i < n; i++) {
        CHECK(p[i].w->n_in == j.n_in);
        integer |= p[i].w->f->bits != 0;
    }
    uint32_t padded = (n_rows + j.height - 1) / j.height * j.height;
    if (integer)
        cpu_rows(c, quantise_rows, &j, padded, j.n_in);
    cut(&j);
    pool_run(c->pool, linear_part, &j, j.first_part[n]);
}
