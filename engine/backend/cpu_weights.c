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
    const struct cpu_weight *cw;
    uint8_t *to;
    uint32_t per_part;
};

static void pack_part(void *ctx, size_t part, int thread UNUSED)
{
    const struct packing *p = ctx;
    uint32_t first = (uint32_t)part * p->per_part, left = p->cw->packed.n_panels - first;
    packed_write(&p->cw->packed, &p->cw->w, p->to, first, left < p->per_part ? left : p->per_part);
}

static void pack_weight(cpu *c, const struct cpu_weight *cw, uint8_t *to, const char *what)
{
    uint32_t n = cw->packed.n_panels;
    struct packing p = {cw, to, n / 1024 + 1};
    pool_run(c->pool, pack_part, &p, (n + p.per_part - 1) / p.per_part);
    if (c->cfg.progress)
        c->cfg.progress(c->cfg.progress_ctx, what, (int)((double)(cw->at + cw->bytes) * 1000 / (double)c->packed_bytes));
}

static void set_data(cpu *c, const uint8_t *data)
{
    for (uint32_t i = 0; i < c->n_weights; i++)
        if (c->weights[i].w.multiplied)
            c->weights[i].packed.data = data + c->weights[i].at;
}

static int pack_in_memory(cpu *c, struct why *why)
{
    c->packed = cpu_pages(c->packed_bytes);
    if (!c->packed)
        return why_set(why, ERR_NOMEM, "memory", "no memory for %zu MiB of weights", c->packed_bytes >> 20);
    for (uint32_t i = 0; i < c->n_weights; i++)
        if (c->weights[i].w.multiplied)
            pack_weight(c, &c->weights[i], c->packed + c->weights[i].at, "pack");
    set_data(c, c->packed);
    return 0;
}

/* ---- prepared files ----------------------------------------------------------------------------------------- */

#define PROBE_ROWS 40 /* not whole panels */
#define PROBE_K 512   /* blocks of every type */

/* What the packer makes of a weight of arbitrary bytes: a layout that changed is seen even if nobody remembered to raise
 * PACK_VERSION. */
static void probe_layout(const struct format *f, digest_stream *s)
{
    size_t n = PROBE_ROWS * format_row_bytes(f, PROBE_K), bytes;
    uint8_t *in = xcalloc(n, 1), *out;
    for (size_t i = 0; i < n; i++)
        in[i] = (uint8_t)(i * 2654435761u >> 13);
    struct weight w = {.type = f->type, .n_out = PROBE_ROWS, .n_in = PROBE_K, .data = in, .multiplied = true};
    struct packed p;
    if (packed_plan(&w, &p, &bytes, NULL) == 0) {
        out = xcalloc(bytes, 1);
        packed_write(&p, &w, out, 0, p.n_panels);
        digest_add_slice(s, (slice){(const char *)out, bytes});
        free(out);
    }
    free(in);
}

static struct digest layout_digest(void)
{
    digest_stream *s = digest_begin((slice){0});
    digest_add_slice(s, SLICE_LIT("nunchi layout"));
    digest_add_u32(s, PACK_VERSION);
    for (int type = 0; type <= WEIGHT_BF16; type++)
        if (format_of((enum weight_type)type))
            probe_layout(format_of((enum weight_type)type), s);
    return digest_end(s);
}

static int give_all(void *ctx, prepared_writer *pw, struct why *why)
{
    cpu *c = ctx;
    size_t most = 0;
    for (uint32_t i = 0; i < c->n_weights; i++)
        most = c->weights[i].bytes > most ? c->weights[i].bytes : most;
    uint8_t *room = cpu_pages(most);
    int e = room ? 0 : why_set(why, ERR_NOMEM, "memory", "no memory for a weight of %zu MiB", most >> 20);
    for (uint32_t i = 0; i < c->n_weights && e >= 0; i++) {
        if (!c->weights[i].w.multiplied)
            continue;
        pack_weight(c, &c->weights[i], room, "prepare");
        e = prepared_add(pw, room, c->weights[i].bytes, why);
    }
    cpu_pages_free(room, most);
    return e;
}

static int map_prepared(cpu *c, struct why *why)
{
    struct prepared_tensor *t = xcalloc(c->n_weights, sizeof *t);
    struct prepared_want want = {.source = c->cfg.weights, .layout = layout_digest(), .tensors = t, .bytes = c->packed_bytes, .owner = c->cfg.model_owner};
    for (uint32_t i = 0; i < c->n_weights; i++) {
        const struct cpu_weight *cw = &c->weights[i];
        if (cw->w.multiplied)
            t[want.n_tensors++] = (struct prepared_tensor){cw->w.type, cw->w.n_out, cw->w.n_in, cw->at, cw->bytes};
    }
    struct prepared_how how = {c->cfg.model_path, c->cfg.model_mode, give_all, c};
    int e = prepared_get(&want, &how, &c->mapped, why);
    if (e >= 0)
        set_data(c, prepared_data(c->mapped));
    free(t);
    return e;
}

int cpu_pack(cpu *c, struct why *why)
{
    int e = ERR_NOT_FOUND;
    if (c->cfg.prepare == ENGINE_PREPARE_NEVER || !c->packed_bytes)
        return pack_in_memory(c, why);
    if (c->cfg.model_path)
        e = map_prepared(c, &c->why_not_mapped);
    else
        why_set(&c->why_not_mapped, e, "prepared", "the model is not a file");
    if (e < 0 && c->cfg.prepare == ENGINE_PREPARE_REQUIRED)
        return why_set(why, e, "prepared", "%s", c->why_not_mapped.text);
    return e < 0 ? pack_in_memory(c, why) : 0;
}

void cpu_held(const backend *b, struct backend_held *out)
{
    const cpu *c = (const cpu *)(const void *)b;
    *out = (struct backend_held){c->packed_bytes, c->mapped, c->mapped ? "" : c->why_not_mapped.text};
}

void cpu_free_weights(cpu *c)
{
    for (uint32_t i = 0; i < c->n_weights; i++)
        free((void *)(uintptr_t)c->weights[i].vector);
    free(c->weights);
    cpu_pages_free(c->packed, c->packed_bytes);
    prepared_close(c->mapped);
}
