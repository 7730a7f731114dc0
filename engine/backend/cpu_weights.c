#include "engine/backend/cpu.h"

static float *vector_of(const struct cpu_weight *cw)
{
    size_t n = cw->w.n_in, room = (n + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS;
    float *v = try_calloc(room, sizeof *v);
    if (v)
        format_row(cw->f, cw->w.data, n, v);
    return v;
}

static int prepare(struct cpu_weight *cw, struct why *why)
{
    if (cw->w.multiplied)
        return packed_plan(&cw->w, &cw->packed, &cw->bytes, why);
    if (!cw->w.n_in || cw->w.n_in % cw->f->block)
        return why_set(why, ERR_UNSUPPORTED, "shape", "a %s weight with rows of %u: multiples of %u are needed",
                       cw->f->name, cw->w.n_in, cw->f->block);
    if (cw->w.n_out != 1 || cw->w.gathered)
        return 0;
    cw->vector = vector_of(cw);
    return cw->vector ? 0 : why_set(why, ERR_NOMEM, "memory", "no memory for a vector of %u", cw->w.n_in);
}

int cpu_add_weight(backend *b, const struct weight *w, tensor_id *out, struct why *why)
{
    cpu *c = cpu_of(b);
    struct cpu_weight cw = {.w = *w, .f = format_of(w->type)};
    if (!cw.f)
        return why_set(why, ERR_UNSUPPORTED, "type", "weights of GGUF type %d cannot be used", (int)w->type);
    int e = prepare(&cw, why);
    if (e < 0)
        return e;
    if (cw.w.multiplied) {
        cw.at = c->packed_bytes;
        if (size_add(c->packed_bytes, cw.bytes, &c->packed_bytes) < 0)
            return why_set(why, ERR_TOO_BIG, "shape", "the weights are too big");
    }
    if (c->n_weights == c->cap_weights) {
        c->cap_weights = c->cap_weights ? 2 * c->cap_weights : 64;
        c->weights = xrealloc(c->weights, c->cap_weights, sizeof *c->weights);
    }
    c->weights[c->n_weights++] = cw;
    *out = c->n_weights;
    return 0;
}

struct packing {
    cpu *c;
    const struct cpu_weight *cw;
    uint32_t per_part;
};

static void pack_part(void *ctx, size_t part, int thread UNUSED)
{
    const struct packing *p = ctx;
    uint32_t first = (uint32_t)part * p->per_part, left = p->cw->packed.n_panels - first;
    packed_write(&p->cw->packed, &p->cw->w, p->c->packed + p->cw->at, first, left < p->per_part ? left : p->per_part);
}

int cpu_pack(cpu *c, struct why *why)
{
    c->packed = cpu_pages(c->packed_bytes);
    if (!c->packed)
        return why_set(why, ERR_NOMEM, "memory", "no memory for %zu MiB of weights", c->packed_bytes >> 20);
    for (uint32_t i = 0; i < c->n_weights; i++) {
        struct cpu_weight *cw = &c->weights[i];
        if (!cw->w.multiplied)
            continue;
        cw->packed.data = c->packed + cw->at;
        uint32_t n = cw->packed.n_panels;
        struct packing p = {c, cw, n / 1024 + 1};
        pool_run(c->pool, pack_part, &p, (n + p.per_part - 1) / p.per_part);
    }
    return 0;
}

void cpu_free_weights(cpu *c)
{
    for (uint32_t i = 0; i < c->n_weights; i++)
        free((void *)(uintptr_t)c->weights[i].vector);
    free(c->weights);
    cpu_pages_free(c->packed, c->packed_bytes);
}
