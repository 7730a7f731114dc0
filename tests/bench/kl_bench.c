/* How far the CPU backend's answers are from float32: mean KL divergence of its next-token distributions from those of
 * the reference backend, over real text.
 *     kl_bench MODEL TEXT... [--positions 4000] [--threads T] [--isa ISA] [--kv-type f16|int8] [--base FILE]
 * Text is cut into chunks of 512 tokens; the second half of each counts. --base writes the reference's distributions in the
 * form that `llama-perplexity --kl-divergence --kl-divergence-base FILE -m MODEL` reads, so that a peer can be measured
 * on the same positions. Distributions are kept in that file's 16 bits for both. */
#include <math.h>
#include <stdio.h>

#include "common/base/json_out.h"
#include "common/base/thread.h"
#include "engine/engine.h"
#include "tokenizer-svc/tokenizer.h"

#define CONTEXT 512
#define FIRST (CONTEXT / 2)
#define COUNTED (CONTEXT - 1 - FIRST) /* of a chunk: the last position has no next token */
#define TEXT_BYTES_MAX (16u << 20)

struct bench {
    model_file *f;
    vocab *v;
    struct ids ids;
    uint32_t n_vocab, positions;
    engine *reference, *cpu;
    uint16_t *base; /* (COUNTED, base_stride): scale, lowest (two floats), then steps of scale above the lowest */
    size_t base_stride;
    FILE *out;
    double kl, kl_squares, same_top;
    uint32_t n;
};

static _Noreturn void fail(const char *what, const char *text)
{
    fprintf(stderr, "kl_bench: %s: %s\n", what, text);
    exit(1);
}

static void read_text(const char *path, buf *to)
{
    char piece[65536];
    FILE *f = fopen(path, "rb");
    if (!f)
        fail(path, "cannot be opened");
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0 && to->n < TEXT_BYTES_MAX;)
        buf_put(to, piece, n);
    fclose(f);
}

static void encode(struct bench *b, slice text)
{
    struct why w = {0};
    tokenizer *t;
    if (tokenizer_new(b->v, &t, &w) < 0)
        fail("vocabulary", w.text);
    tok_scratch *s = tok_scratch_new(t);
    if (!s || tokenizer_encode(t, s, text, true, &b->ids, &w) < 0)
        fail("text", w.text);
    tok_scratch_free(s);
    tokenizer_free(t);
}

static engine *open_engine(struct bench *b, const char *backend, int threads, const char *isa, const char *kv_type)
{
    struct why w = {0};
    engine *e;
    struct engine_config cfg = {.backend = backend, .threads = threads, .isa = isa, .kv_type = kv_type, .kv_blocks = CONTEXT / ENGINE_BLOCK_TOKENS,
                                .rows_max = CONTEXT};
    if (engine_open(b->f, &cfg, &e, &w) < 0)
        fail(backend, w.text);
    return e;
}

static void compute(struct bench *b, engine *e, const int32_t *ids)
{
    static struct engine_row rows[CONTEXT];
    uint32_t blocks[CONTEXT / ENGINE_BLOCK_TOKENS];
    struct why w = {0};
    for (uint32_t i = 0; i < ARRAY_LEN(blocks); i++)
        blocks[i] = i;
    for (uint32_t i = 0; i < CONTEXT; i++)
        rows[i] = (struct engine_row){.token = ids[i], .position = i, .attend_until = i + 1,
                                      .want_logits = i >= FIRST && i < FIRST + COUNTED};
    if (vocab_add_bos(b->v))
        rows[0].token = vocab_bos(b->v);
    struct engine_seq seq = {blocks, ARRAY_LEN(blocks)};
    struct engine_step step = {.seqs = &seq, .n_seqs = 1, .rows = rows, .n_rows = CONTEXT};
    if (engine_compute(e, &step, &w) < 0)
        fail("compute", w.text);
}

static double log_total(const float *l, uint32_t n, float *most)
{
    double sum = 0;
    *most = l[0];
    for (uint32_t i = 1; i < n; i++)
        *most = l[i] > *most ? l[i] : *most;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)(l[i] - *most));
    return (double)*most + log(sum);
}

/* One position of the reference into 16 bits: nothing below the most likely by more than 16 is told apart. */
static void keep(struct bench *b, const float *l, uint16_t *to)
{
    float most, least = l[0];
    double total = log_total(l, b->n_vocab, &most);
    for (uint32_t i = 1; i < b->n_vocab; i++)
        least = l[i] < least ? l[i] : least;
    least = least > most - 16 ? least : most - 16;
    float head[2] = {(most - least) / 65535, (float)((double)least - total)};
    memcpy(to, head, sizeof head);
    for (uint32_t i = 0; i < b->n_vocab; i++)
        to[4 + i] = l[i] > least ? (uint16_t)lrintf((l[i] - least) / head[0]) : 0;
}

static void add_position(struct bench *b, const uint16_t *base, const float *l)
{
    float head[2], most;
    double total = log_total(l, b->n_vocab, &most), kl = 0;
    uint32_t top = 0, base_top = 0;
    memcpy(head, base, sizeof head);
    for (uint32_t i = 0; i < b->n_vocab; i++) {
        double p = (double)head[0] * base[4 + i] + (double)head[1];
        if (p > -16)
            kl += exp(p) * (p - ((double)l[i] - total));
        top = l[i] > l[top] ? i : top;
        base_top = base[4 + i] > base[4 + base_top] ? i : base_top;
    }
    b->kl += kl;
    b->kl_squares += kl * kl;
    b->same_top += top == base_top;
    b->n++;
}

static void run_chunk(struct bench *b, const int32_t *ids)
{
    compute(b, b->reference, ids);
    for (uint32_t i = 0; i < COUNTED; i++)
        keep(b, engine_logits(b->reference, FIRST + i), b->base + i * b->base_stride);
    if (b->out && fwrite(b->base, 2 * b->base_stride, COUNTED, b->out) != COUNTED)
        fail("--base", "cannot be written");
    compute(b, b->cpu, ids);
    for (uint32_t i = 0; i < COUNTED; i++)
        add_position(b, b->base + i * b->base_stride, engine_logits(b->cpu, FIRST + i));
}

static void open_base(struct bench *b, const char *path, uint32_t n_chunks)
{
    int32_t head[3] = {CONTEXT, (int32_t)b->n_vocab, (int32_t)n_chunks};
    b->out = fopen(path, "wb");
    if (!b->out || fwrite("_logits_", 8, 1, b->out) != 1 || fwrite(head, sizeof head, 1, b->out) != 1 ||
        fwrite(b->ids.p, sizeof *b->ids.p * CONTEXT, n_chunks, b->out) != n_chunks)
        fail(path, "cannot be written");
}

static void report(const struct bench *b)
{
    buf out = {0};
    struct json_out j;
    double mean = b->kl / b->n;
    json_begin(&j, &out);
    json_obj(&j);
    json_key(&j, "positions"), json_u64(&j, b->n);
    json_key(&j, "mean_kl"), json_f64(&j, mean);
    json_key(&j, "standard_error"), json_f64(&j, sqrt((b->kl_squares / b->n - mean * mean) / b->n));
    json_key(&j, "same_top"), json_f64(&j, b->same_top / b->n);
    json_obj_end(&j);
    printf("%s\n", buf_cstr(&out));
    buf_clear(&out);
}

struct options {
    const char *model, *base, *isa, *kv_type;
    int threads;
    uint32_t positions;
};

static struct options options(int argc, char **argv, buf *text)
{
    struct options o = {.positions = 4000, .threads = thread_cpus()};
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        uint64_t n = 0;
        if (argv[i][0] != '-') {
            if (o.model)
                read_text(argv[i], text);
            else
                o.model = argv[i];
            continue;
        }
        i++;
        bool number = slice_u64(slice_str(v), &n) == 0 && n >= 1 && n <= 1000000;
        if (!strcmp(argv[i - 1], "--base"))
            o.base = v;
        else if (!strcmp(argv[i - 1], "--kv-type"))
            o.kv_type = v;
        else if (!strcmp(argv[i - 1], "--isa"))
            o.isa = v;
        else if (!strcmp(argv[i - 1], "--threads") && number && n <= 256)
            o.threads = (int)n;
        else if (!strcmp(argv[i - 1], "--positions") && number)
            o.positions = (uint32_t)n;
        else
            fail(argv[i - 1], "not an option, or without its number");
    }
    if (!o.model || !text->n)
        fail("usage", "kl_bench MODEL TEXT... [--positions 4000] [--threads T] [--isa ISA] [--kv-type f16|int8] [--base FILE]");
    return o;
}

int main(int argc, char **argv)
{
    buf text = {0};
    struct bench b = {0};
    struct why w = {0};
    struct options o = options(argc, argv, &text);
    if (model_file_open(o.model, &b.f, &w) < 0 || vocab_open(b.f, &b.v, &w) < 0)
        fail(o.model, w.text);
    encode(&b, buf_slice(&text));
    uint32_t n_chunks = (o.positions + COUNTED - 1) / COUNTED;
    if (b.ids.n < (size_t)n_chunks * CONTEXT)
        fail("text", "too short for so many positions: a chunk of 512 tokens gives 255");
    b.reference = open_engine(&b, "reference", o.threads, NULL, NULL);
    b.cpu = open_engine(&b, "cpu", o.threads, o.isa, o.kv_type);
    b.n_vocab = engine_info(b.cpu)->n_vocab;
    b.base_stride = 2 * (((size_t)b.n_vocab + 1) / 2) + 4;
    b.base = xcalloc(COUNTED * b.base_stride, sizeof *b.base);
    if (o.base)
        open_base(&b, o.base, n_chunks);
    for (uint32_t i = 0; i < n_chunks; i++)
        run_chunk(&b, b.ids.p + (size_t)i * CONTEXT);
    if (b.out && fclose(b.out))
        fail(o.base, "cannot be written");
    report(&b);
    engine_close(b.cpu);
    engine_close(b.reference);
    vocab_close(b.v);
    model_file_close(b.f);
    ids_clear(&b.ids);
    buf_clear(&text);
    free(b.base);
    return 0;
}
