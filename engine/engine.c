/* Opening a model on a backend, and the checks between a caller's step and the decoder. */
#include "engine/engine.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/thread.h"
#include "engine/model/decoder.h"
#include "engine/model/gguf.h"
#include "engine/prepared.h"

#define ROWS_DEFAULT 512
#define KV_BLOCKS_MAX (1u << 24)

struct engine {
    struct engine_info info;
    struct shape shape;
    backend *b;
    decoder *d;
    const prepared *mapped; /* the backend's; NULL: weights are in memory */
    uint32_t rows_max;
    sampler **samplers;                /* (info.threads) one for each that picks */
    size_t n_rows;                     /* of the last step: bounds engine_logits */
    uint32_t written[ENGINE_ROWS_MAX]; /* by sequence of the step being checked: its last row's
                                          position + 1, 0: no row */
};

/* ---- opening
 * --------------------------------------------------------------------------------------------------
 */

static int make_backend(const struct engine_config *cfg, const struct backend_config *bc,
                        backend **out, struct why *w)
{
    slice name = slice_str(cfg->backend && cfg->backend[0] ? cfg->backend : "cpu");
    if (slice_eq_str(name, "cpu"))
        return backend_cpu_new(bc, out, w);
    if (slice_eq_str(name, "reference"))
        return backend_reference_new(bc, out, w);
    return why_set(w, ERR_INVALID, "backend",
                   "there is no backend '%.20s'; there are cpu and reference", name.p);
}

static bool is_reference(const struct engine_config *cfg)
{
    return cfg->backend && strcmp(cfg->backend, "reference") == 0;
}

static int read_kv_type(const struct engine_config *cfg, enum kv_type *out, struct why *w)
{
    slice name = slice_str(cfg->kv_type && cfg->kv_type[0] ? cfg->kv_type : "f16");
    *out = slice_eq_str(name, "int8") ? KV_INT8 : KV_F16;
    if (*out == KV_F16 && !slice_eq_str(name, "f16"))
        return why_set(w, ERR_INVALID, "kv-type", "'%.20s' is no type of KV; f16 and int8 are",
                       name.p);
    if (*out == KV_INT8 && is_reference(cfg))
        return why_set(
            w, ERR_UNSUPPORTED, "kv-type",
            "the reference backend keeps K and V as float32; int8 needs the cpu backend");
    return 0;
}

/* Of one exported block. */
static uint64_t block_bytes(const struct engine_config *cfg, const struct shape *s,
                            enum kv_type type)
{
    uint64_t heads = 2 * (uint64_t)s->n_layer * ENGINE_BLOCK_TOKENS * s->n_kv_head;
    if (type == KV_INT8)
        return heads * (s->head_dim + 2); /* and a step */
    return heads * s->head_dim * (is_reference(cfg) ? sizeof(float) : 2);
}

static int count_blocks(const struct engine_config *cfg, const struct shape *s, enum kv_type type,
                        uint32_t *out, struct why *w)
{
    uint64_t n = cfg->kv_blocks;
    if (n == 0 && cfg->kv_bytes > 0)
        n = cfg->kv_bytes / block_bytes(cfg, s, type);
    else if (n == 0)
        n = (s->n_context + ENGINE_BLOCK_TOKENS - 1) / ENGINE_BLOCK_TOKENS;
    if (n < 1 || n > KV_BLOCKS_MAX)
        return why_set(w, ERR_INVALID, "kv-bytes", "%llu KV blocks; 1 to %u are possible",
                       (unsigned long long)n, KV_BLOCKS_MAX);
    *out = (uint32_t)n;
    return 0;
}

/* What must be equal for two workers to have the same bits. The instruction set and the number of
 * threads are not in it. */
static void name_numerics(struct engine_info *info, enum kv_type kv_type)
{
    digest_stream *s = digest_begin((slice){0});
    digest_add_slice(s, SLICE_LIT("nunchi numerics"));
    digest_add(s, info->weights.b, sizeof info->weights.b);
    digest_add_u32(s, ENGINE_ARITHMETIC_VERSION);
    digest_add_slice(s, slice_str(info->backend));
    digest_add_slice(s, slice_str(kv_type == KV_INT8 ? "int8" : "f16"));
    digest_add_u64(s, info->kv_block_bytes);
    info->numerics = digest_end(s);
}

static void copy_text(char *out, size_t cap, slice s)
{
    snprintf(out, cap, "%.*s", (int)(s.n < cap ? s.n : cap - 1), s.n ? s.p : "");
}

static void fill_held(engine *e)
{
    struct backend_held held = {.why_not = ""};
    if (e->b->ops->held)
        e->b->ops->held(e->b, &held);
    e->mapped = held.mapped;
    e->info.packed_bytes = held.bytes;
    e->info.prepared_path = held.mapped ? prepared_path(held.mapped) : NULL;
    copy_text(e->info.in_memory_why, sizeof e->info.in_memory_why, slice_str(held.why_not));
}

static void fill_info(engine *e, const model_file *f, uint32_t n_blocks, enum kv_type kv_type)
{
    struct engine_info *i = &e->info;
    const struct shape *s = &e->shape;
    slice name = {0};
    if (model_file_str(f, "general.name", &name) < 0)
        name = (slice){0};
    copy_text(i->family, sizeof i->family, slice_str(s->family->name));
    copy_text(i->name, sizeof i->name, name);
    copy_text(i->backend, sizeof i->backend, slice_str(e->b->ops->name));
    copy_text(i->isa, sizeof i->isa, slice_str(backend_isa(e->b)));
    i->n_vocab = s->n_vocab;
    i->n_context = s->n_context;
    i->n_layer = s->n_layer;
    i->n_embd = s->n_embd;
    i->n_kv_blocks = n_blocks;
    i->kv_block_bytes = e->b->ops->block_bytes(e->b);
    struct decoder_cost cost = decoder_cost(e->d);
    i->weight_bytes = cost.weight_bytes;
    i->macs_per_token = cost.ints.layers + cost.ints.head + cost.floats.layers + cost.floats.head;
    name_numerics(i, kv_type);
    fill_held(e);
}

struct hashing {
    const struct engine_config *cfg;
};

static void hash_progress(void *ctx, int permille)
{
    const struct engine_config *cfg = ((struct hashing *)ctx)->cfg;
    cfg->progress(cfg->progress_ctx, "hash", permille);
}

static int check_config(const struct engine_config *cfg, struct why *w)
{
    if (cfg->threads < 0 || cfg->threads > ENGINE_THREADS_MAX)
        return why_set(w, ERR_INVALID, "threads", "%d threads; 1 to %d are possible", cfg->threads,
                       ENGINE_THREADS_MAX);
    if (cfg->rows_max > ENGINE_ROWS_MAX)
        return why_set(w, ERR_INVALID, "rows", "%u rows in a step; at most %d", cfg->rows_max,
                       ENGINE_ROWS_MAX);
    return 0;
}

static int threads_here(void)
{
    int n = thread_cpus();
    return n < ENGINE_THREADS_MAX ? n : ENGINE_THREADS_MAX;
}

/* What was made of a model may be read by whoever may read the model. */
static void describe_file(const model_file *f, struct backend_config *bc)
{
    struct stat st;
    bool known = f->fd >= 0 && fstat(f->fd, &st) == 0;
    bc->model_path = f->path;
    bc->model_mode = known ? (st.st_mode & 0444) | 0600 : 0600;
    bc->model_owner = known ? st.st_uid : geteuid();
}

static int make_samplers(engine *e, const char *isa, int threads, struct why *w)
{
    e->samplers = xcalloc((size_t)threads, sizeof(sampler *));
    for (e->info.threads = 0; e->info.threads < threads; e->info.threads++) {
        sampler **s = &e->samplers[e->info.threads];
        int err = sampler_new((int32_t)e->shape.n_vocab, isa, s, w);
        if (err < 0)
            return err;
    }
    return 0;
}

int engine_open(model_file *f, const struct engine_config *cfg, engine **out, struct why *w)
{
    *out = NULL;
    int err = check_config(cfg, w);
    if (err < 0)
        return err;
    engine *e = xcalloc(1, sizeof *e);
    struct hashing hashing = {cfg};
    uint32_t n_blocks = 0;
    int threads = cfg->threads ? cfg->threads : threads_here();
    e->rows_max = cfg->rows_max ? cfg->rows_max : ROWS_DEFAULT;
    enum kv_type kv_type;
    err = read_kv_type(cfg, &kv_type, w);
    if (err >= 0)
        err = shape_read(f, &e->shape, w);
    if (err >= 0)
        err = count_blocks(cfg, &e->shape, kv_type, &n_blocks, w);
    if (err >= 0 && (err = model_file_digest(f, &e->info.weights,
                                             cfg->progress ? hash_progress : NULL, &hashing)) < 0)
        why_set(w, err, "model", "the model file cannot be read");
    struct backend_config bc = {.rows_max = e->rows_max,
                                .n_vocab = e->shape.n_vocab,
                                .threads = threads,
                                .isa = cfg->isa,
                                .kv_type = kv_type,
                                .prepare = cfg->prepare,
                                .weights = e->info.weights,
                                .progress = cfg->progress,
                                .progress_ctx = cfg->progress_ctx};
    describe_file(f, &bc);
    if (err >= 0)
        err = make_backend(cfg, &bc, &e->b, w);
    if (err >= 0)
        err =
            decoder_load(f, &e->shape, e->b, n_blocks, cfg->progress, cfg->progress_ctx, &e->d, w);
    if (err >= 0)
        err = make_samplers(e, cfg->isa, threads, w);
    if (err < 0) {
        engine_close(e);
        return err;
    }
    fill_info(e, f, n_blocks, kv_type);
    model_file_drop_pages(f); /* rows of the embedding are all that is read from now on */
    *out = e;
    return 0;
}

void engine_close(engine *e)
{
    if (!e)
        return;
    for (int i = 0; i < e->info.threads; i++)
        sampler_free(e->samplers[i]);
    free(e->samplers);
    decoder_free(e->d);
    if (e->b)
        e->b->ops->free(e->b);
    free(e);
}

const struct engine_info *engine_info(const engine *e)
{
    return &e->info;
}

struct engine_cost engine_cost(const engine *e, uint32_t context)
{
    const struct shape *s = &e->shape;
    struct decoder_cost c = decoder_cost(e->d);
    uint64_t attended = shape_attended(s, context);
    return (struct engine_cost){
        .weight_bytes = c.weight_bytes,
        .ints = c.ints,
        .floats = c.floats,
        .kv_bytes = attended * (e->info.kv_block_bytes / s->n_layer / ENGINE_BLOCK_TOKENS),
        .attention_macs = attended * s->n_head * s->head_dim * 2,
    };
}

/* ---- prepared weights
 * ---------------------------------------------------------------------------------------------------
 */

size_t engine_n_pieces(const engine *e)
{
    return e->mapped ? prepared_n_pieces(e->mapped) : 0;
}

void engine_touch_piece(const engine *e, size_t i)
{
    prepared_touch(e->mapped, i);
}

bool engine_check_piece(const engine *e, size_t i)
{
    return prepared_piece_ok(e->mapped, i);
}

int engine_discard_prepared(const engine *e)
{
    return e->mapped ? prepared_discard(e->mapped) : 0;
}

/* ---- a step
 * ---------------------------------------------------------------------------------------------------
 */

static int bad_row(struct why *w, size_t i, const char *what)
{
    return why_set(w, ERR_INVALID, "rows", "row %zu: %s", i, what);
}

static int check_row(const engine *e, const struct engine_step *step, size_t i, struct why *w)
{
    const struct engine_row *r = &step->rows[i];
    if (r->seq >= step->n_seqs)
        return bad_row(w, i, "no such sequence");
    const struct engine_seq *s = &step->seqs[r->seq];
    if (!r->vec && (r->token < 0 || (uint32_t)r->token >= e->shape.n_vocab))
        return bad_row(w, i, "the token is outside the vocabulary");
    if (r->adapter != 0)
        return why_set(w, ERR_UNSUPPORTED, "adapter", "adapters are not supported yet");
    if (r->position >= e->shape.n_context)
        return bad_row(w, i, "the position is beyond the model's context");
    if (r->attend_until <= r->position || r->attend_until > e->shape.n_context)
        return bad_row(w, i, "a row attends at least to itself and at most to the context's end");
    if ((r->attend_until - 1) / ENGINE_BLOCK_TOKENS >= s->n_blocks)
        return bad_row(w, i, "its sequence has no block for what it attends to");
    return 0;
}

/* Rows of a sequence ascend, and none looks at a position that is written neither before this step
 * nor in it. */
static int check_order(engine *e, const struct engine_step *step, struct why *w)
{
    memset(e->written, 0, step->n_seqs * sizeof e->written[0]);
    for (size_t i = 0; i < step->n_rows; i++) {
        const struct engine_row *r = &step->rows[i];
        if (r->position < e->written[r->seq])
            return bad_row(w, i, "rows of a sequence must ascend");
        e->written[r->seq] = r->position + 1;
    }
    for (size_t i = 0; i < step->n_rows; i++) {
        if (step->rows[i].attend_until > e->written[step->rows[i].seq])
            return bad_row(w, i, "it attends beyond the last row of its sequence");
    }
    return 0;
}

static int check_step(engine *e, const struct engine_step *step, struct why *w)
{
    if (step->n_seqs > ENGINE_ROWS_MAX)
        return why_set(w, ERR_INVALID, "seqs", "%zu sequences in a step; at most %d are possible",
                       step->n_seqs, ENGINE_ROWS_MAX);
    if (step->n_rows == 0 || step->n_rows > e->rows_max)
        return why_set(w, ERR_INVALID, "rows", "%zu rows in a step; 1 to %u are possible",
                       step->n_rows, e->rows_max);
    for (size_t i = 0; i < step->n_seqs; i++) {
        for (uint32_t k = 0; k < step->seqs[i].n_blocks; k++) {
            if (step->seqs[i].blocks[k] >= e->info.n_kv_blocks)
                return why_set(w, ERR_INVALID, "blocks", "block %u does not exist",
                               step->seqs[i].blocks[k]);
        }
    }
    for (size_t i = 0; i < step->n_rows; i++) {
        int err = check_row(e, step, i, w);
        if (err < 0)
            return err;
    }
    return check_order(e, step, w);
}

int engine_compute(engine *e, const struct engine_step *step, struct why *w)
{
    e->n_rows = 0;
    int err = check_step(e, step, w);
    if (err >= 0 && (err = decoder_run(e->d, step)) < 0)
        why_set(w, err, "", "the backend failed");
    if (err >= 0)
        e->n_rows = step->n_rows;
    return err < 0 ? err : 0;
}

const float *engine_logits(const engine *e, size_t row)
{
    return row < e->n_rows ? e->b->ops->logits_row(e->b, row) : NULL;
}

struct picking {
    engine *e;
    struct sample_job *jobs;
};

static void pick_one(void *ctx, size_t part, int thread)
{
    const struct picking *p = ctx;
    struct sample_job *j = &p->jobs[part];
    j->in.logits = engine_logits(p->e, j->row);
    j->in.n_vocab = (int32_t)p->e->shape.n_vocab;
    CHECK(j->in.logits);
    sampler_pick(p->e->samplers[thread], j->params, &j->in, &j->out);
}

void engine_sample(engine *e, struct sample_job *jobs, size_t n)
{
    e->b->ops->parallel(e->b, pick_one, &(struct picking){e, jobs}, n);
}

/* ---- KV blocks
 * ------------------------------------------------------------------------------------------------
 */

int engine_block_copy(engine *e, uint32_t from, uint32_t to, uint32_t n_tokens)
{
    if (from >= e->info.n_kv_blocks || to >= e->info.n_kv_blocks || n_tokens > ENGINE_BLOCK_TOKENS)
        return ERR_INVALID;
    e->b->ops->block_copy(e->b, from, to, n_tokens);
    return 0;
}

void engine_touch_kv(const engine *e)
{
    if (e->b->ops->kv_touch)
        e->b->ops->kv_touch(e->b);
}

int engine_block_export(const engine *e, uint32_t block, void *out, size_t cap)
{
    if (block >= e->info.n_kv_blocks || cap < e->info.kv_block_bytes)
        return ERR_INVALID;
    e->b->ops->block_export(e->b, block, out);
    return 0;
}

int engine_block_import(engine *e, uint32_t block, const void *p, size_t n)
{
    if (block >= e->info.n_kv_blocks || n != e->info.kv_block_bytes)
        return ERR_INVALID;
    return e->b->ops->block_import(e->b, block, p) ? 0 : ERR_INVALID;
}
