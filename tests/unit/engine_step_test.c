/* The engine as a whole on a tiny model of random weights: what it refuses, that a row's logits do
 * not depend on how the work was cut, and that KV blocks can be copied and carried to another
 * engine. Both backends, and both kinds of KV. */
#include "tests/unit/engine_gguf.h"

#include <math.h>
#include <stdio.h>

#define EMBD 32
#define FF 64
#define VOCAB 40
#define CONTEXT 128
#define BLOCKS 16
#define PROMPT 40

struct tiny {
    struct gguf_out file;
    model_file *f;
    engine *e;
};

static uint32_t bits(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void describe(struct gguf_out *o, const char *arch)
{
    gguf_begin(o);
    meta_str(o, "general.architecture", arch);
    meta_str(o, "general.name", "tiny");
    meta_u32(o, "llama.block_count", 2);
    meta_u32(o, "llama.embedding_length", EMBD);
    meta_u32(o, "llama.feed_forward_length", FF);
    meta_u32(o, "llama.context_length", CONTEXT);
    meta_u32(o, "llama.attention.head_count", 2);
    meta_u32(o, "llama.attention.head_count_kv", 1);
    meta_f32(o, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    meta_f32(o, "llama.rope.freq_base", 10000);
}

static void matrix(struct gguf_out *o, const char *name, uint64_t n_out, uint64_t n_in)
{
    out_tensor(o, name, 0, n_in, n_out, n_out * n_in * 4);
}

/* The tensors of a llama; `without` is left out. */
static void tensors(struct gguf_out *o, const char *without)
{
    static const struct {
        const char *name;
        uint64_t n_out, n_in;
    } in_layer[] = {{"attn_norm", 1, EMBD}, {"attn_q", EMBD, EMBD},      {"attn_k", 16, EMBD},
                    {"attn_v", 16, EMBD},   {"attn_output", EMBD, EMBD}, {"ffn_norm", 1, EMBD},
                    {"ffn_gate", FF, EMBD}, {"ffn_up", FF, EMBD},        {"ffn_down", EMBD, FF}};
    matrix(o, "token_embd.weight", VOCAB, EMBD);
    matrix(o, "output_norm.weight", 1, EMBD);
    for (int l = 0; l < 2; l++) {
        for (size_t i = 0; i < ARRAY_LEN(in_layer); i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, in_layer[i].name);
            if (!without || strcmp(name, without) != 0)
                matrix(o, name, in_layer[i].n_out, in_layer[i].n_in);
        }
    }
}

/* Ends the file with random floats in [-1, 1) * 0.4: every tensor here is F32. */
static void fill(struct gguf_out *o)
{
    uint32_t state = 7;
    gguf_end(o);
    for (size_t at = o->b.n - o->data; at < o->b.n; at += 4) {
        float v = ((float)bits(&state) * 0x1p-23f - 1.0f) * 0.4f;
        memcpy(o->b.p + at, &v, 4);
    }
}

static int try_open(struct tiny *t, const char *backend, struct why *w)
{
    bool bytes = strcmp(backend, "int8") == 0;
    struct engine_config cfg = {.backend = bytes ? "cpu" : backend,
                                .kv_type = bytes ? "int8" : "f16",
                                .threads = 2,
                                .kv_blocks = BLOCKS,
                                .rows_max = 64};
    fill(&t->file);
    t->e = NULL;
    if (model_file_open_mem(t->file.b.p, t->file.b.n, &t->f, w) < 0)
        fail_msg("%s", w->text);
    return engine_open(t->f, &cfg, &t->e, w);
}

static void open_tiny(struct tiny *t, const char *backend)
{
    struct why w = {.text = ""};
    describe(&t->file, "llama");
    tensors(&t->file, NULL);
    if (try_open(t, backend, &w) < 0)
        fail_msg("%s", w.text);
}

static void close_tiny(struct tiny *t)
{
    engine_close(t->e);
    model_file_close(t->f);
    buf_clear(&t->file.b);
}

static const char *const BACKENDS[] = {"reference", "cpu", "int8"}; /* the last is cpu, too */

static int32_t token_at(uint32_t position)
{
    return (int32_t)(position * 7 % VOCAB);
}

/* ---- running ---- */

static void compute(engine *e, const struct engine_seq *seqs, size_t n_seqs,
                    const struct engine_row *rows, size_t n)
{
    struct why w = {.text = ""};
    struct engine_step s = {.seqs = seqs, .n_seqs = n_seqs, .rows = rows, .n_rows = n};
    if (engine_compute(e, &s, &w) < 0)
        fail_msg("%s", w.text);
}

static struct engine_row row_at(uint32_t seq, uint32_t position)
{
    return (struct engine_row){.seq = seq,
                               .token = token_at(position),
                               .position = position,
                               .attend_until = position + 1,
                               .want_logits = true};
}

/* Positions from..until-1 of one sequence in one step; the last one's logits. */
static void prefill(engine *e, const struct engine_seq *s, uint32_t from, uint32_t until,
                    float out[VOCAB])
{
    struct engine_row rows[64];
    for (uint32_t p = from; p < until; p++)
        rows[p - from] = row_at(0, p);
    compute(e, s, 1, rows, until - from);
    memcpy(out, engine_logits(e, until - from - 1), VOCAB * sizeof *out);
}

static const uint32_t HIGH[] = {9, 3, 12, 5}, LOW[] = {0, 1, 2, 4};
static const struct engine_seq ONE = {HIGH, 4}, OTHER = {LOW, 4};

static void same_bits(const float *a, const float *b)
{
    assert_memory_equal(a, b, VOCAB * sizeof *a);
}

static void however_it_is_cut(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(BACKENDS); k++) {
        struct tiny t;
        float whole[VOCAB], got[VOCAB];
        open_tiny(&t, BACKENDS[k]);
        prefill(t.e, &ONE, 0, PROMPT, whole);
        for (uint32_t step = 1; step < PROMPT; step += 6) {
            for (uint32_t at = 0; at < PROMPT; at += step)
                prefill(t.e, &OTHER, at, at + step < PROMPT ? at + step : PROMPT, got);
            same_bits(whole, got);
        }
        /* Two sequences in turns in one step. */
        struct engine_row rows[50];
        struct engine_seq both[] = {ONE, OTHER};
        for (uint32_t i = 0; i < 50; i++)
            rows[i] = row_at(i % 2, 15 + i / 2);
        prefill(t.e, &ONE, 0, 15, got);
        prefill(t.e, &OTHER, 0, 15, got);
        compute(t.e, both, 2, rows, 50);
        same_bits(whole, engine_logits(t.e, 48));
        same_bits(whole, engine_logits(t.e, 49));
        close_tiny(&t);
    }
}

static void backends_agree(void **state)
{
    (void)state;
    /* Float weights: K and V in 16 or 8 bits are the only rounding. */
    static const float within[] = {0, 2e-3f, 3e-2f};
    for (size_t k = 1; k < ARRAY_LEN(BACKENDS); k++) {
        struct tiny a, b;
        float x[VOCAB], y[VOCAB];
        open_tiny(&a, "reference");
        open_tiny(&b, BACKENDS[k]);
        prefill(a.e, &ONE, 0, PROMPT, x);
        prefill(b.e, &ONE, 0, PROMPT, y);
        for (int i = 0; i < VOCAB; i++)
            assert_true(fabsf(x[i] - y[i]) < within[k] * (1 + fabsf(x[i])));
        close_tiny(&a);
        close_tiny(&b);
    }
}

/* A row of the embedding table given as a vector is that token. */
static void vectors_as_rows(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(BACKENDS); k++) {
        struct tiny t;
        float want[VOCAB];
        open_tiny(&t, BACKENDS[k]);
        prefill(t.e, &ONE, 0, 20, want);
        float embedding[EMBD];
        memcpy(embedding,
               gguf_tensor(t.f, "token_embd.weight")->data +
                   (size_t)token_at(19) * sizeof embedding,
               sizeof embedding);
        struct engine_row r = row_at(0, 19);
        r.token = TOKEN_NONE;
        r.vec = embedding;
        compute(t.e, &ONE, 1, &r, 1);
        same_bits(want, engine_logits(t.e, 0));
        close_tiny(&t);
    }
}

/* In a span that looks ahead, the first row sees the last one. */
static void rows_that_look_ahead(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(BACKENDS); k++) {
        struct tiny t;
        float causal[VOCAB], ahead[2][VOCAB];
        open_tiny(&t, BACKENDS[k]);
        prefill(t.e, &ONE, 0, 1, causal);
        for (int i = 0; i < 2; i++) {
            struct engine_row rows[4];
            for (uint32_t p = 0; p < 4; p++) {
                rows[p] = row_at(0, p);
                rows[p].attend_until = 4;
            }
            rows[3].token = i ? 3 : 30;
            compute(t.e, &ONE, 1, rows, 4);
            memcpy(ahead[i], engine_logits(t.e, 0), sizeof ahead[i]);
        }
        assert_memory_not_equal(causal, ahead[0], sizeof causal);
        assert_memory_not_equal(ahead[0], ahead[1], sizeof causal);
        close_tiny(&t);
    }
}

/* ---- KV blocks ---- */

static void blocks_travel(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(BACKENDS); k++) {
        struct tiny a, b;
        float want[VOCAB], got[VOCAB];
        open_tiny(&a, BACKENDS[k]);
        open_tiny(&b, BACKENDS[k]);
        size_t n = (size_t)engine_info(a.e)->kv_block_bytes;
        void *bytes = malloc(n);
        assert_non_null(bytes);
        prefill(a.e, &ONE, 0, PROMPT, want);
        for (uint32_t i = 0; i < 2; i++) { /* two full blocks to another engine, at other numbers */
            assert_int_equal(engine_block_export(a.e, HIGH[i], bytes, n), 0);
            assert_int_equal(engine_block_import(b.e, LOW[i], bytes, n), 0);
        }
        prefill(b.e, &OTHER, 32, PROMPT, got);
        same_bits(want, got);

        /* Copy on write: 5 tokens of the third block, then on with the sixth. */
        assert_int_equal(engine_block_copy(a.e, HIGH[2], 7, 5), 0);
        uint32_t blocks[] = {HIGH[0], HIGH[1], 7};
        struct engine_seq copy = {blocks, 3};
        prefill(a.e, &copy, 37, PROMPT, got);
        same_bits(want, got);

        assert_int_equal(engine_block_export(a.e, BLOCKS, bytes, n), ERR_INVALID);
        assert_int_equal(engine_block_export(a.e, 0, bytes, n - 1), ERR_INVALID);
        assert_int_equal(engine_block_import(a.e, BLOCKS, bytes, n), ERR_INVALID);
        assert_int_equal(engine_block_import(a.e, 0, bytes, n - 1), ERR_INVALID);
        assert_int_equal(engine_block_import(a.e, 0, bytes, n), 0);
        memset(bytes, 0xff, n); /* NaN in every format */
        assert_int_equal(engine_block_import(a.e, 0, bytes, n), ERR_INVALID);
        assert_int_equal(engine_block_copy(a.e, 0, BLOCKS, 1), ERR_INVALID);
        assert_int_equal(engine_block_copy(a.e, BLOCKS, 0, 1), ERR_INVALID);
        assert_int_equal(engine_block_copy(a.e, 0, 1, ENGINE_BLOCK_TOKENS + 1), ERR_INVALID);
        free(bytes);
        close_tiny(&a);
        close_tiny(&b);
    }
}

/* ---- what is refused ---- */

static engine *checked;

static void refused(const struct engine_seq *seqs, size_t n_seqs, const struct engine_row *rows,
                    size_t n, int want)
{
    struct why w = {.text = ""};
    struct engine_step s = {.seqs = seqs, .n_seqs = n_seqs, .rows = rows, .n_rows = n};
    assert_int_equal(engine_compute(checked, &s, &w), want);
    assert_true(w.text[0] != 0);
    assert_null(engine_logits(checked, 0));
}

static void bad_row(struct engine_row r)
{
    refused(&ONE, 1, &r, 1, r.adapter ? ERR_UNSUPPORTED : ERR_INVALID);
}

static void bad_steps(void **state)
{
    (void)state;
    struct tiny t;
    open_tiny(&t, "reference");
    checked = t.e;
    struct engine_row good = row_at(0, 3), r;
#define BAD(member, value) (r = good, r.member = (value), bad_row(r))
    BAD(token, -1);
    BAD(token, VOCAB);
    BAD(seq, 1);
    BAD(adapter, 1);
    BAD(position, CONTEXT);
    BAD(position, UINT32_MAX);
    BAD(attend_until, 3);
    BAD(attend_until, 5); /* beyond what this step writes */
    BAD(attend_until, CONTEXT + 1);
    BAD(attend_until, 0);
#undef BAD
    struct engine_row far = row_at(0, 64); /* the sequence has 4 blocks */
    bad_row(far);
    struct engine_row twice[] = {good, good}, back[] = {row_at(0, 4), good};
    refused(&ONE, 1, twice, 2, ERR_INVALID);
    refused(&ONE, 1, back, 2, ERR_INVALID);
    uint32_t wrong[] = {9, BLOCKS};
    struct engine_seq s = {wrong, 2};
    refused(&s, 1, &good, 1, ERR_INVALID);
    static struct engine_row many[65];
    for (uint32_t i = 0; i < 65; i++)
        many[i] = row_at(0, i);
    refused(&ONE, 1, many, 65, ERR_INVALID);
    refused(&ONE, 1, many, 0, ERR_INVALID);
    refused(&ONE, 0, &good, 1, ERR_INVALID);
    static struct engine_seq seqs[ENGINE_ROWS_MAX + 1];
    refused(seqs, ENGINE_ROWS_MAX + 1, &good, 1, ERR_INVALID);
    close_tiny(&t);
}

static void wrong_model(struct tiny *t, int want, const char *says)
{
    struct why w = {.text = ""};
    int e = try_open(t, "reference", &w);
    if (e != want || !strstr(w.text, says))
        fail_msg("got %s \"%s\", want %s \"%s\"", err_name(e), w.text, err_name(want), says);
    close_tiny(t);
}

static void bad_models(void **state)
{
    (void)state;
    struct tiny t;
    describe(&t.file, "mamba"), tensors(&t.file, NULL);
    wrong_model(&t, ERR_UNSUPPORTED, "mamba");
    describe(&t.file, "llama"), tensors(&t.file, "blk.1.ffn_up.weight");
    wrong_model(&t, ERR_INVALID, "blk.1.ffn_up.weight");
    describe(&t.file, "llama"), tensors(&t.file, "blk.0.attn_k.weight"),
        matrix(&t.file, "blk.0.attn_k.weight", 8, EMBD);
    wrong_model(&t, ERR_INVALID, "blk.0.attn_k.weight");
    describe(&t.file, "llama"), tensors(&t.file, "blk.0.attn_k.weight");
    out_tensor(&t.file, "blk.0.attn_k.weight", 25, EMBD, 16, EMBD * 16 * 2);
    wrong_model(&t, ERR_UNSUPPORTED, "I16");
    describe(&t.file, "llama"), tensors(&t.file, NULL),
        matrix(&t.file, "blk.0.ffn_gate.bias", 1, FF);
    wrong_model(&t, ERR_UNSUPPORTED, "blk.0.ffn_gate.bias");
    describe(&t.file, "llama"), meta_str(&t.file, "llama.rope.scaling.type", "dynamic"),
        tensors(&t.file, NULL);
    wrong_model(&t, ERR_UNSUPPORTED, "dynamic");
    describe(&t.file, "llama"), meta_u32(&t.file, "llama.attention.value_length", 8),
        tensors(&t.file, NULL);
    wrong_model(&t, ERR_UNSUPPORTED, "values");
    gguf_begin(&t.file);
    wrong_model(&t, ERR_INVALID, "what it is");
}

static void bad_configs(void **state)
{
    (void)state;
    static const struct {
        struct engine_config cfg;
        int want;
    } bad[] = {
        {{.backend = "cuda"}, ERR_INVALID},
        {{.threads = -1}, ERR_INVALID},
        {{.threads = 100000}, ERR_INVALID},
        {{.rows_max = ENGINE_ROWS_MAX + 1}, ERR_INVALID},
        {{.kv_bytes = 1}, ERR_INVALID},
        {{.isa = "mmx"}, ERR_INVALID},
        {{.kv_type = "fp8"}, ERR_INVALID},
        {{.kv_type = "int8", .backend = "reference"}, ERR_UNSUPPORTED},
    };
    struct tiny t;
    open_tiny(&t, "cpu");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct why w = {.text = ""};
        engine *e;
        assert_int_equal(engine_open(t.f, &bad[i].cfg, &e, &w), bad[i].want);
        assert_true(e == NULL && w.text[0]);
    }
    close_tiny(&t);
}

static void info(void **state)
{
    (void)state;
    struct tiny a, b, c, d;
    open_tiny(&d, "int8");
    open_tiny(&a, "cpu");
    open_tiny(&b, "cpu");
    open_tiny(&c, "reference");
    const struct engine_info *i = engine_info(a.e);
    assert_string_equal(i->family, "llama");
    assert_string_equal(i->name, "tiny");
    assert_true(i->n_vocab == VOCAB && i->n_context == CONTEXT && i->n_layer == 2 &&
                i->n_embd == EMBD);
    assert_int_equal(i->n_kv_blocks, BLOCKS);
    assert_int_equal(i->kv_block_bytes, 2 * 2 * ENGINE_BLOCK_TOKENS * 16 * 2);
    assert_int_equal(engine_info(c.e)->kv_block_bytes, 2 * i->kv_block_bytes);
    assert_int_equal(engine_info(d.e)->kv_block_bytes, 2 * 2 * ENGINE_BLOCK_TOKENS * (16 + 2));
    assert_false(digest_eq(&i->numerics, &engine_info(d.e)->numerics));
    uint64_t macs = 2 * (EMBD * EMBD * 2 + EMBD * 16 * 2 + 3 * EMBD * FF) + VOCAB * EMBD;
    assert_true(i->macs_per_token == macs && i->weight_bytes == macs * 4);
    struct engine_cost cost = engine_cost(a.e, 10);
    assert_true(cost.floats.head == VOCAB * EMBD && cost.floats.layers == macs - VOCAB * EMBD);
    assert_true(cost.ints.head == 0 && cost.ints.layers == 0 && cost.weight_bytes == macs * 4);
    assert_int_equal(cost.kv_bytes, 10 * 2 * 2 * 16 * 2); /* layers, K and V, width, halves */
    assert_int_equal(cost.attention_macs,
                     10 * 2 * 2 * 16 * 2); /* layers, heads, width, q·k and ·V */
    assert_true(digest_eq(&i->numerics, &engine_info(b.e)->numerics));
    assert_true(digest_eq(&i->weights, &engine_info(c.e)->weights));
    assert_false(digest_eq(&i->numerics, &engine_info(c.e)->numerics));
    close_tiny(&d);
    close_tiny(&a);
    close_tiny(&b);
    close_tiny(&c);
}

/* Jobs of a step are picked by whichever thread: each as a sampler alone picks it from those
 * logits. */
static void sampled_on_the_engines_threads(void **state)
{
    (void)state;
    enum { JOBS = 120 };
    static struct sample_job jobs[JOBS];
    static const struct sample_params params = {
        .temperature = 5, .top_p = 0.95f, .repetition_penalty = 1, .seed = 3, .n_logprobs = 2};
    for (size_t k = 0; k < ARRAY_LEN(BACKENDS); k++) {
        struct tiny t;
        sampler *alone;
        float logits[VOCAB];
        open_tiny(&t, BACKENDS[k]);
        prefill(t.e, &ONE, 0, PROMPT, logits);
        for (uint32_t i = 0; i < JOBS; i++) /* a row may have several */
            jobs[i] = (struct sample_job){
                .row = i % PROMPT, .params = &params, .in = {.choice = i / PROMPT}};
        engine_sample(t.e, jobs, JOBS);
        engine_sample(t.e, NULL, 0);
        assert_int_equal(sampler_new(VOCAB, NULL, &alone, NULL), 0);
        for (size_t i = 0; i < JOBS; i++) {
            struct sampled want = {0};
            struct sample_input in = {.logits = engine_logits(t.e, jobs[i].row),
                                      .n_vocab = VOCAB,
                                      .choice = jobs[i].in.choice};
            sampler_pick(alone, &params, &in, &want);
            assert_memory_equal(&jobs[i].out, &want, sizeof want);
        }
        sampler_free(alone);
        close_tiny(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(info),
        cmocka_unit_test(however_it_is_cut),
        cmocka_unit_test(backends_agree),
        cmocka_unit_test(vectors_as_rows),
        cmocka_unit_test(rows_that_look_ahead),
        cmocka_unit_test(blocks_travel),
        cmocka_unit_test(sampled_on_the_engines_threads),
        cmocka_unit_test(bad_steps),
        cmocka_unit_test(bad_models),
        cmocka_unit_test(bad_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
