/* Speed of the engine alone, as one JSON object: prefill of one prompt, and decoding of 1, 4, 16 ... sequences together.
 *     engine_bench MODEL [--threads T] [--prompt P] [--gen G] [--batch 1,4,16] [--context C] [--isa ISA] [--kv-type T] [--backend B]
 *                  [--chunk ROWS] [--repeat N] [--weights mapped|packed]
 * Decoding starts at position C. The ids are arbitrary: speed does not depend on them. Each figure is the best of N repeats: other work on the machine
 * only ever makes it slower. tok_per_cpu_s is per second of processor time (all threads together): less disturbed by it. */
#include <stdio.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/json_out.h"
#include "common/base/thread.h"
#include "engine/engine.h"

#define BATCHES_MAX 16

struct options {
    const char *model, *isa, *backend, *kv_type;
    int threads, repeat;
    bool mapped; /* weights from a prepared file, written first if it is not there */
    uint32_t prompt, gen, chunk, context;
    uint32_t batch[BATCHES_MAX];
    size_t n_batch;
};

struct bench {
    struct options o;
    engine *e;
    const struct engine_info *info;
    uint32_t *blocks; /* all of the pool, in order */
    struct engine_row *rows;
    struct engine_seq *seqs;
    uint32_t seq_blocks;
};

static _Noreturn void fail(const char *what, const struct why *w)
{
    fprintf(stderr, "engine_bench: %s: %s\n", what, w->text);
    exit(1);
}

struct lap {
    double wall, cpu; /* seconds */
};

static struct lap now(void)
{
    return (struct lap){(double)clock_mono_us() * 1e-6, (double)clock() / CLOCKS_PER_SEC};
}

static void keep_best(struct lap *best, struct lap start)
{
    struct lap end = now();
    end.wall -= start.wall;
    end.cpu -= start.cpu;
    best->wall = end.wall < best->wall ? end.wall : best->wall;
    best->cpu = end.cpu < best->cpu ? end.cpu : best->cpu;
}

static int32_t some_id(const struct bench *b, uint32_t i)
{
    return (int32_t)((i * 2654435761u >> 8) % b->info->n_vocab);
}

static void compute(struct bench *b, size_t n_seqs, size_t n_rows)
{
    struct why w = {0};
    struct engine_step s = {.seqs = b->seqs, .n_seqs = n_seqs, .rows = b->rows, .n_rows = n_rows};
    if (engine_compute(b->e, &s, &w) < 0)
        fail("compute", &w);
}

/* The first `n` positions of a sequence, in chunks; logits of the last alone. */
static void prefill(struct bench *b, uint32_t seq, uint32_t n)
{
    for (uint32_t at = 0; at < n;) {
        uint32_t rows = n - at < b->o.chunk ? n - at : b->o.chunk;
        for (uint32_t i = 0; i < rows; i++, at++)
            b->rows[i] = (struct engine_row){.seq = seq, .token = some_id(b, at + 7 * seq), .position = at, .attend_until = at + 1,
                                             .want_logits = at + 1 == n};
        compute(b, seq + 1, rows);
    }
}

/* `gen` steps of one token for each of n sequences, from position `at`. */
static void decode(struct bench *b, uint32_t n, uint32_t at, uint32_t gen)
{
    for (uint32_t g = 0; g < gen; g++) {
        for (uint32_t s = 0; s < n; s++)
            b->rows[s] = (struct engine_row){.seq = s, .token = some_id(b, at + g + 31 * s), .position = at + g,
                                             .attend_until = at + g + 1, .want_logits = true};
        compute(b, n, n);
    }
}

static struct lap best_prefill(struct bench *b)
{
    struct lap best = {1e30, 1e30};
    for (int r = 0; r < b->o.repeat; r++) {
        struct lap start = now();
        prefill(b, 0, b->o.prompt);
        keep_best(&best, start);
    }
    return best;
}

/* Something in the first n positions of n_seqs sequences, without computing it: speed does not depend on it. */
static void fill(struct bench *b, uint32_t n_seqs, uint32_t n)
{
    size_t bytes = (size_t)b->info->kv_block_bytes;
    void *block = xcalloc(1, bytes);
    prefill(b, 0, n < ENGINE_BLOCK_TOKENS ? n : ENGINE_BLOCK_TOKENS);
    if (engine_block_export(b->e, b->seqs[0].blocks[0], block, bytes) < 0)
        exit(1);
    for (uint32_t s = 0; s < n_seqs; s++)
        for (uint32_t i = 0; i < n; i += ENGINE_BLOCK_TOKENS)
            if (engine_block_import(b->e, b->seqs[s].blocks[i / ENGINE_BLOCK_TOKENS], block, bytes) < 0)
                exit(1);
    free(block);
}

static struct lap best_decode(struct bench *b, uint32_t n, uint32_t context)
{
    struct lap best = {1e30, 1e30};
    fill(b, n, context);
    for (int r = 0; r < b->o.repeat; r++) {
        struct lap start = now();
        decode(b, n, context, b->o.gen);
        keep_best(&best, start);
    }
    return best;
}

static void report(struct bench *b)
{
    buf out = {0};
    struct json_out j;
    struct lap s = best_prefill(b);
    json_begin(&j, &out);
    json_obj(&j);
    json_key(&j, "isa"), json_cstr(&j, b->info->isa);
    json_key(&j, "threads"), json_i64(&j, b->info->threads);
    json_key(&j, "weight_bytes"), json_u64(&j, b->info->weight_bytes);
    json_key(&j, "prefill"), json_obj(&j);
    json_key(&j, "tokens"), json_u64(&j, b->o.prompt);
    json_key(&j, "tok_per_s"), json_f64(&j, b->o.prompt / s.wall);
    json_key(&j, "tok_per_cpu_s"), json_f64(&j, b->o.prompt / s.cpu);
    json_obj_end(&j);
    json_key(&j, "decode"), json_arr(&j);
    for (size_t i = 0; i < b->o.n_batch; i++) {
        uint32_t n = b->o.batch[i];
        s = best_decode(b, n, b->o.context);
        json_obj(&j);
        json_key(&j, "sequences"), json_u64(&j, n);
        json_key(&j, "context"), json_u64(&j, b->o.context);
        json_key(&j, "tok_per_s"), json_f64(&j, (double)n * b->o.gen / s.wall);
        json_key(&j, "tok_per_cpu_s"), json_f64(&j, (double)n * b->o.gen / s.cpu);
        json_key(&j, "gb_per_s"), json_f64(&j, 1e-9 * (double)b->info->weight_bytes * b->o.gen / s.wall);
        json_obj_end(&j);
    }
    json_arr_end(&j);
    json_obj_end(&j);
    printf("%s\n", buf_cstr(&out));
    buf_clear(&out);
}

static uint32_t number(const char *text, uint32_t least, uint32_t most, const char *name)
{
    uint64_t v;
    if (slice_u64(slice_str(text), &v) < 0 || v < least || v > most) {
        fprintf(stderr, "engine_bench: %s is a number from %u to %u\n", name, least, most);
        exit(2);
    }
    return (uint32_t)v;
}

static void batches(struct options *o, const char *text)
{
    slice rest = slice_str(text), piece;
    for (o->n_batch = 0; o->n_batch < BATCHES_MAX && slice_split(&rest, ',', &piece); o->n_batch++) {
        char *one = slice_dup(piece);
        o->batch[o->n_batch] = number(one, 1, 1024, "--batch");
        free(one);
    }
}

static struct options options(int argc, char **argv)
{
    struct options o = {.repeat = 3, .prompt = 512, .gen = 32, .chunk = 512, .context = 64 /* as llama-batched-bench -npp 64 */, .batch = {1, 4, 16}, .n_batch = 3};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
        if (a[0] != '-') {
            o.model = a;
            continue;
        }
        i++;
        if (!strcmp(a, "--threads"))
            o.threads = (int)number(v, 1, 256, a);
        else if (!strcmp(a, "--prompt"))
            o.prompt = number(v, 1, 65536, a);
        else if (!strcmp(a, "--gen"))
            o.gen = number(v, 1, 65536, a);
        else if (!strcmp(a, "--chunk"))
            o.chunk = number(v, 1, ENGINE_ROWS_MAX, a);
        else if (!strcmp(a, "--context"))
            o.context = number(v, 1, 65536, a);
        else if (!strcmp(a, "--repeat"))
            o.repeat = (int)number(v, 1, 1000, a);
        else if (!strcmp(a, "--batch"))
            batches(&o, v);
        else if (!strcmp(a, "--kv-type"))
            o.kv_type = v;
        else if (!strcmp(a, "--isa"))
            o.isa = v;
        else if (!strcmp(a, "--weights"))
            o.mapped = strcmp(v, "mapped") == 0;
        else if (!strcmp(a, "--backend"))
            o.backend = v;
        else
            o.model = NULL, i = argc;
    }
    if (!o.model) {
        fprintf(stderr, "usage: engine_bench MODEL [--threads T] [--prompt P] [--gen G] [--batch 1,4,16] [--context C] "
                        "[--isa ISA] [--kv-type T] [--backend B] [--chunk ROWS] [--repeat N] [--weights mapped|packed]\n");
        exit(2);
    }
    return o;
}

static void open_engine(struct bench *b, model_file *f)
{
    uint32_t most = 1;
    for (size_t i = 0; i < b->o.n_batch; i++)
        most = b->o.batch[i] > most ? b->o.batch[i] : most;
    uint32_t decoded = b->o.context + b->o.gen, longest = b->o.prompt > decoded ? b->o.prompt : decoded;
    b->seq_blocks = (longest - 1) / ENGINE_BLOCK_TOKENS + 1;
    uint32_t n_blocks = b->seq_blocks * most, rows = b->o.chunk > most ? b->o.chunk : most;
    struct engine_config cfg = {.backend = b->o.backend, .threads = b->o.threads ? b->o.threads : thread_cpus(), .isa = b->o.isa,
                                .kv_type = b->o.kv_type,                                 .kv_blocks = n_blocks, .rows_max = rows,
                                .prepare = b->o.mapped ? ENGINE_PREPARE_REQUIRED : ENGINE_PREPARE_NEVER};
    struct why w = {0};
    if (engine_open(f, &cfg, &b->e, &w) < 0)
        fail("engine", &w);
    b->info = engine_info(b->e);
    b->rows = xcalloc(rows, sizeof *b->rows);
    b->seqs = xcalloc(most, sizeof *b->seqs);
    b->blocks = xcalloc(n_blocks, sizeof *b->blocks);
    for (uint32_t i = 0; i < n_blocks; i++)
        b->blocks[i] = i;
    for (uint32_t s = 0; s < most; s++)
        b->seqs[s] = (struct engine_seq){b->blocks + s * b->seq_blocks, b->seq_blocks};
}

int main(int argc, char **argv)
{
    struct bench b = {.o = options(argc, argv)};
    struct why w = {0};
    model_file *f;
    if (model_file_open(b.o.model, &f, &w) < 0)
        fail(b.o.model, &w);
    open_engine(&b, f);
    report(&b);
    engine_close(b.e);
    model_file_close(f);
    free(b.rows);
    free(b.seqs);
    free(b.blocks);
    return 0;
}
