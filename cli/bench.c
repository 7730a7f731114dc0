#include "cli/bench.h"

#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "common/base/clock.h"

/* Positions that are really computed before decoding; blocks of KV beyond them are copies. Speed
 * does not depend on values. */
#define FILLED_MAX 256

struct bench {
    const struct bench_options *o;
    struct bench_result *out;
    void (*say)(void *ctx, const char *what, int permille);
    void *ctx;
    engine *e;
    uint32_t *blocks; /* all of the pool, in order */
    struct engine_row *rows;
    struct engine_seq *seqs; /* each with blocks of its own */
    uint32_t n_seqs, seq_blocks, n_vocab;
};

struct lap {
    double wall, cpu; /* seconds */
};

static struct lap lap_now(void)
{
    return (struct lap){(double)clock_mono_us() * 1e-6, (double)clock() / CLOCKS_PER_SEC};
}

static void keep_best(struct lap *best, struct lap start)
{
    struct lap end = lap_now();
    end.wall -= start.wall;
    end.cpu -= start.cpu;
    best->wall = end.wall < best->wall ? end.wall : best->wall;
    best->cpu = end.cpu < best->cpu ? end.cpu : best->cpu;
}

/* ---- steps --------------------------------------------------------------------------------- */

static int32_t some_id(const struct bench *b, uint64_t i)
{
    return (int32_t)((i * 2654435761u >> 8) % b->n_vocab);
}

static int compute(struct bench *b, size_t n_seqs, size_t n_rows, struct why *w)
{
    struct engine_step s = {.seqs = b->seqs, .n_seqs = n_seqs, .rows = b->rows, .n_rows = n_rows};
    return engine_compute(b->e, &s, w);
}

/* The first n positions of the first sequence, in chunks; logits of the last alone. */
static int prefill(struct bench *b, uint64_t n, struct why *w)
{
    for (uint64_t at = 0; at < n;) {
        uint64_t rows = n - at < b->o->chunk ? n - at : b->o->chunk;
        for (uint64_t i = 0; i < rows; i++, at++)
            b->rows[i] = (struct engine_row){.token = some_id(b, at),
                                             .position = (uint32_t)at,
                                             .attend_until = (uint32_t)at + 1,
                                             .want_logits = at + 1 == n};
        int e = compute(b, 1, rows, w);
        if (e < 0)
            return e;
    }
    return 0;
}

/* `gen` steps of one token for each of n sequences, after the context. */
static int decode(struct bench *b, uint32_t n, struct why *w)
{
    for (uint64_t g = 0; g < b->o->gen; g++) {
        uint32_t at = (uint32_t)(b->o->context + g);
        for (uint32_t s = 0; s < n; s++)
            b->rows[s] = (struct engine_row){.seq = s,
                                             .token = some_id(b, at + 31ull * s),
                                             .position = at,
                                             .attend_until = at + 1,
                                             .want_logits = true};
        int e = compute(b, n, n, w);
        if (e < 0)
            return e;
    }
    return 0;
}

/* Gives every sequence something in all positions before the context's end. */
static int fill_context(struct bench *b, struct why *w)
{
    uint64_t n = b->o->context < FILLED_MAX ? b->o->context : FILLED_MAX;
    int e = prefill(b, n, w);
    uint32_t filled = (uint32_t)(n + ENGINE_BLOCK_TOKENS - 1) / ENGINE_BLOCK_TOKENS;
    for (uint32_t i = filled; e >= 0 && filled > 0 && i < b->n_seqs * b->seq_blocks; i++)
        e = engine_block_copy(b->e, i % filled, i, ENGINE_BLOCK_TOKENS);
    return e < 0 ? e : 0;
}

/* ---- rates --------------------------------------------------------------------------------- */

/* All that one timed run does. */
struct work {
    double tokens, weight_bytes, kv_bytes, int_ops, float_ops, attention_ops;
};

static double ops(struct engine_macs m, double tokens, double heads)
{
    return 2 * (tokens * (double)m.layers + heads * (double)m.head);
}

/* Keys and values of a prompt are counted as arithmetic alone: its rows share what is read. */
static struct work prefill_work(const struct bench *b)
{
    double n = (double)b->o->prompt, attention = 0;
    for (uint64_t at = 0; at < b->o->prompt; at++)
        attention += 2 * (double)engine_cost(b->e, (uint32_t)at + 1).attention_macs;
    const struct engine_cost *c = &b->out->cost;
    double chunks = (double)((b->o->prompt + b->o->chunk - 1) / b->o->chunk);
    return (struct work){.tokens = n,
                         .weight_bytes = chunks * (double)c->weight_bytes,
                         .int_ops = ops(c->ints, n, 1),
                         .float_ops = ops(c->floats, n, 1),
                         .attention_ops = attention};
}

static struct work decode_work(const struct bench *b, uint32_t sequences)
{
    const struct engine_cost *c = &b->out->cost;
    double steps = (double)b->o->gen, n = steps * sequences;
    return (struct work){.tokens = n,
                         .weight_bytes = steps * (double)c->weight_bytes,
                         .kv_bytes = n * (double)c->kv_bytes,
                         .int_ops = ops(c->ints, n, n),
                         .float_ops = ops(c->floats, n, n),
                         .attention_ops = 2 * n * (double)c->attention_macs};
}

/* Weights are read while their products are computed, and KV likewise. */
static double least_seconds(const struct work *w, const struct engine_limits *l)
{
    double weights = w->weight_bytes / l->read_bytes, kv = w->kv_bytes / l->read_bytes;
    double products = w->int_ops / l->int8_ops + w->float_ops / l->float_ops;
    double attention = w->attention_ops / l->float_ops;
    return (products > weights ? products : weights) + (attention > kv ? attention : kv);
}

static struct bench_rate rate_of(uint32_t sequences, const struct work *w, struct lap t,
                                 const struct engine_limits *l)
{
    bool known = l->int8_ops > 0 && l->float_ops > 0 && l->read_bytes > 0;
    return (struct bench_rate){.sequences = sequences,
                               .tok_s = w->tokens / t.wall,
                               .tok_per_cpu_s = w->tokens / t.cpu,
                               .read_bytes_s = (w->weight_bytes + w->kv_bytes) / t.wall,
                               .int_ops_s = w->int_ops / t.wall,
                               .float_ops_s = w->float_ops / t.wall,
                               .limit_tok_s = known ? w->tokens / least_seconds(w, l) : 0};
}

/* ---- measuring ----------------------------------------------------------------------------- */

static int time_prefill(struct bench *b, struct lap *best, struct why *w)
{
    int e = 0;
    for (uint64_t r = 0; e >= 0 && r < b->o->repeat; r++) {
        struct lap start = lap_now();
        b->say(b->ctx, "prefill", (int)(1000 * r / b->o->repeat));
        e = prefill(b, b->o->prompt, w);
        keep_best(best, start);
    }
    return e;
}

static int time_decode(struct bench *b, uint32_t sequences, struct lap *best, struct why *w)
{
    char what[64];
    snprintf(what, sizeof what, "decode, %u sequence%s", sequences, sequences == 1 ? "" : "s");
    int e = 0;
    for (uint64_t r = 0; e >= 0 && r < b->o->repeat; r++) {
        struct lap start = lap_now();
        b->say(b->ctx, what, (int)(1000 * r / b->o->repeat));
        e = decode(b, sequences, w);
        keep_best(best, start);
    }
    return e;
}

/* Limits come last: what they read would count as memory of the engine. */
static int measure(struct bench *b, struct why *w)
{
    const struct lap never = {1e30, 1e30};
    struct lap prompt = never, steps[BENCH_BATCHES_MAX];
    struct rusage usage;
    int e = time_prefill(b, &prompt, w);
    if (e >= 0)
        e = fill_context(b, w);
    for (size_t i = 0; e >= 0 && i < b->o->n_batch; i++) {
        steps[i] = never;
        e = time_decode(b, b->o->batch[i], &steps[i], w);
    }
    if (e < 0)
        return e;
    b->out->peak_rss_bytes =
        getrusage(RUSAGE_SELF, &usage) < 0 ? 0 : (uint64_t)usage.ru_maxrss * 1024;
    b->say(b->ctx, "this machine's limits", -1);
    e = engine_limits_measure(b->o->isa, (int)b->o->threads, &b->out->limits, w);
    if (e < 0)
        return e;
    struct work work = prefill_work(b);
    b->out->prefill = rate_of(1, &work, prompt, &b->out->limits);
    for (size_t i = 0; i < b->o->n_batch; i++) {
        work = decode_work(b, b->o->batch[i]);
        b->out->decode[i] = rate_of(b->o->batch[i], &work, steps[i], &b->out->limits);
    }
    return 0;
}

/* ---- opening ------------------------------------------------------------------------------- */

static void count_types(const model_file *f, struct bench_result *out)
{
    for (size_t i = 0; i < model_file_n_tensors(f); i++) {
        struct tensor_info t = model_file_tensor(f, i);
        size_t k = 0;
        while (k < out->n_types && strcmp(out->types[k].type, t.type) != 0)
            k++;
        if (k == BENCH_TYPES_MAX)
            continue;
        out->n_types = k == out->n_types ? k + 1 : out->n_types;
        out->types[k].type = t.type;
        out->types[k].bytes += t.bytes;
        for (; k > 0 && out->types[k].bytes > out->types[k - 1].bytes; k--) {
            uint64_t bytes = out->types[k].bytes;
            const char *type = out->types[k].type;
            out->types[k] = out->types[k - 1];
            out->types[k - 1].bytes = bytes;
            out->types[k - 1].type = type;
        }
    }
}

static int check_length(const struct bench_options *o, const struct engine_info *info,
                        struct why *w)
{
    uint64_t decoded = o->context + o->gen, longest = o->prompt > decoded ? o->prompt : decoded;
    if (longest <= info->n_context)
        return 0;
    return why_set(w, ERR_INVALID, "prompt", "%s makes %llu tokens; this model's context has %u",
                   o->prompt > decoded ? "--prompt" : "--context with --gen",
                   (unsigned long long)longest, info->n_context);
}

static int open_engine(struct bench *b, model_file *f, struct why *w)
{
    const struct bench_options *o = b->o;
    uint64_t decoded = o->context + o->gen, longest = o->prompt > decoded ? o->prompt : decoded;
    for (size_t i = 0; i < o->n_batch; i++)
        b->n_seqs = o->batch[i] > b->n_seqs ? o->batch[i] : b->n_seqs;
    b->seq_blocks = (uint32_t)((longest - 1) / ENGINE_BLOCK_TOKENS) + 1;
    uint32_t n_blocks = b->seq_blocks * b->n_seqs;
    uint64_t n_rows = o->chunk > b->n_seqs ? o->chunk : b->n_seqs;
    struct engine_config cfg = {.threads = (int)o->threads,
                                .isa = o->isa,
                                .kv_type = o->kv_type,
                                .kv_blocks = n_blocks,
                                .rows_max = (uint32_t)n_rows,
                                .progress = b->say,
                                .progress_ctx = b->ctx,
                                .prepare = ENGINE_PREPARE_AUTO}; /* as a worker does */
    int e = engine_open(f, &cfg, &b->e, w);
    if (e < 0)
        return e;
    b->rows = xcalloc(n_rows, sizeof *b->rows);
    b->seqs = xcalloc(b->n_seqs, sizeof *b->seqs);
    b->blocks = xcalloc(n_blocks, sizeof *b->blocks);
    for (uint32_t i = 0; i < n_blocks; i++)
        b->blocks[i] = i;
    for (uint32_t s = 0; s < b->n_seqs; s++)
        b->seqs[s] = (struct engine_seq){b->blocks + (size_t)s * b->seq_blocks, b->seq_blocks};
    return check_length(o, engine_info(b->e), w);
}

static void describe(struct bench *b)
{
    const struct engine_info *i = engine_info(b->e);
    struct bench_result *r = b->out;
    snprintf(r->family, sizeof r->family, "%s", i->family);
    snprintf(r->name, sizeof r->name, "%s", i->name);
    snprintf(r->isa, sizeof r->isa, "%s", i->isa);
    r->threads = i->threads;
    r->prepared = i->prepared_path != NULL;
    snprintf(r->in_memory_why, sizeof r->in_memory_why, "%s", i->in_memory_why);
    r->cost = engine_cost(b->e, (uint32_t)(b->o->context + b->o->gen / 2) + 1);
    b->n_vocab = i->n_vocab;
}

int bench_run(const struct bench_options *o, void (*say)(void *ctx, const char *what, int permille),
              void *ctx, struct bench_result *out, struct why *w)
{
    struct bench b = {.o = o, .out = out, .say = say, .ctx = ctx};
    model_file *f = NULL;
    memset(out, 0, sizeof *out);
    double start = lap_now().wall;
    int e = model_file_open(o->model, &f, w);
    if (e >= 0)
        e = open_engine(&b, f, w);
    out->load_s = lap_now().wall - start;
    if (e >= 0) {
        count_types(f, out);
        describe(&b);
        e = measure(&b, w);
    }
    engine_close(b.e);
    model_file_close(f);
    free(b.rows);
    free(b.seqs);
    free(b.blocks);
    return e;
}
