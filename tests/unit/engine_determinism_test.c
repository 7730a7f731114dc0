#include "tests/unit/engine_testing.h"

/* The promise of engine.h on real models: a row's logits are the same bits whatever shares its step, however the prompt
 * was cut, on any number of threads and any instruction set. */

#define SMOL "SmolLM2-135M-Instruct.Q4_1.gguf"
#define GEMMA "gemma-3-270m-q4_k_m.gguf"
#define ROWS_MAX 512
#define BLOCKS 1024 /* 64 for each of SEQS */
#define SEQS 16

struct run {
    const char *isa;
    int threads;
    uint32_t chunk;      /* rows of the prompt per step */
    uint32_t neighbours; /* other sequences in every step */
    bool scattered;      /* blocks from all over the pool */
    const char *kv_type; /* NULL: f16 */
};

static const char *find_model(const char *name)
{
    static char path[4096];
    const char *folder = getenv("NUNCHI_TEST_MODELS"), *home = getenv("HOME");
    if (folder && *folder)
        snprintf(path, sizeof path, "%s/%s", folder, name);
    else
        snprintf(path, sizeof path, "%s/.cache/nunchi/models/%s", home ? home : "", name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        print_message("SKIPPED: no model %s; NUNCHI_TEST_MODELS names the folder\n", name);
        return NULL;
    }
    fclose(f);
    return path;
}

static int32_t id_at(const engine *e, uint32_t seq, uint32_t position)
{
    struct rng r = {seq * 1000003u + position};
    rng_u32(&r);
    return (int32_t)(rng_u32(&r) % (engine_info(e)->n_vocab < 49152 ? engine_info(e)->n_vocab : 49152));
}

static void blocks_of(const struct run *run, uint32_t seq, uint32_t n, uint32_t *out)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = run->scattered ? ((seq + i * SEQS) * 37 + 11) % 1021 : seq * (BLOCKS / SEQS) + i;
}

/* Logits after a prompt of n_prompt ids and of `extra` single steps after it: (extra + 1, n_vocab). */
static float *logits_after(model_file *f, const struct run *run, uint32_t n_prompt, uint32_t extra)
{
    struct engine_config cfg = {.threads = run->threads, .isa = run->isa, .kv_type = run->kv_type, .kv_blocks = BLOCKS, .rows_max = ROWS_MAX};
    struct why w = {0};
    engine *e;
    int err = engine_open(f, &cfg, &e, &w);
    if (err < 0)
        fail_msg("%s", w.text);
    const uint32_t n_vocab = engine_info(e)->n_vocab, total = n_prompt + extra;
    static uint32_t blocks[SEQS][BLOCKS];
    struct engine_seq seqs[SEQS];
    static struct engine_row rows[ROWS_MAX];
    uint32_t n_seqs = 1 + run->neighbours;
    for (uint32_t s = 0; s < n_seqs; s++) {
        uint32_t n = s || run->scattered ? 12 : BLOCKS;
        n = s == 0 ? (total + 15) / 16 : n;
        blocks_of(run, s, n, blocks[s]);
        seqs[s] = (struct engine_seq){blocks[s], n};
    }
    float *out = malloc((size_t)(extra + 1) * n_vocab * sizeof *out);
    assert_non_null(out);
    for (uint32_t at = 0, step = 0; at < total; step++) {
        uint32_t n = at >= n_prompt ? 1 : n_prompt - at < run->chunk ? n_prompt - at : run->chunk;
        uint32_t n_rows = 0, mine;
        /* Half of the neighbours come before, and each is at a place of its own. */
        for (uint32_t s = 1; s <= run->neighbours / 2; s++)
            rows[n_rows++] = (struct engine_row){.seq = s, .token = id_at(e, s, step), .position = step % 190,
                                                 .attend_until = step % 190 + 1, .want_logits = s % 3 == 0};
        mine = n_rows;
        for (uint32_t i = 0; i < n; i++)
            rows[n_rows++] = (struct engine_row){.seq = 0, .token = id_at(e, 0, at + i), .position = at + i,
                                                 .attend_until = at + i + 1, .want_logits = at + i + 1 >= n_prompt};
        for (uint32_t s = run->neighbours / 2 + 1; s < n_seqs; s++)
            rows[n_rows++] = (struct engine_row){.seq = s, .token = id_at(e, s, step), .position = step % 190,
                                                 .attend_until = step % 190 + 1, .want_logits = true};
        struct engine_step st = {.seqs = seqs, .n_seqs = n_seqs, .rows = rows, .n_rows = n_rows};
        if (engine_compute(e, &st, &w) < 0)
            fail_msg("%s", w.text);
        at += n;
        if (at >= n_prompt)
            memcpy(out + (size_t)(at - n_prompt) * n_vocab, engine_logits(e, mine + n - 1), n_vocab * sizeof *out);
    }
    engine_close(e);
    return out;
}

static void compare(model_file *f, const struct run *runs, size_t n_runs, uint32_t n_prompt, uint32_t extra, uint32_t n_vocab)
{
    float *want = logits_after(f, &runs[0], n_prompt, extra);
    bool differs = false;
    for (uint32_t i = 1; i < n_vocab; i++) {
        assert_true(isfinite(want[i]));
        differs |= want[i] != want[0];
    }
    assert_true(differs);
    for (size_t r = 1; r < n_runs; r++) {
        struct why w;
        const struct kernels *k;
        if (kernels_choose(runs[r].isa, &k, &w) == ERR_UNSUPPORTED) {
            print_message("SKIPPED: %s\n", w.text);
            continue;
        }
        float *got = logits_after(f, &runs[r], n_prompt, extra);
        char what[120];
        snprintf(what, sizeof what, "isa %s, %d threads, chunks of %u, %u neighbours%s", runs[r].isa ? runs[r].isa : "best",
                 runs[r].threads, runs[r].chunk, runs[r].neighbours, runs[r].scattered ? ", scattered" : "");
        assert_same_bits(got, want, (size_t)(extra + 1) * n_vocab, what);
        free(got);
    }
    free(want);
}

static void check_model(const char *name, const struct run *runs, size_t n_runs, uint32_t n_prompt, uint32_t extra, uint32_t n_vocab)
{
    const char *path = find_model(name);
    if (!path)
        skip();
    struct why w;
    model_file *f;
    assert_int_equal(model_file_open(path, &f, &w), 0);
    compare(f, runs, n_runs, n_prompt, extra, n_vocab);
    model_file_close(f);
}

static void a_prompt_over_two_segments(void **state UNUSED)
{
    static const struct run RUNS[] = {
        {NULL, 1, 512, 0, false, NULL}, {NULL, 2, 512, 0, true, NULL},  {NULL, 3, 64, 0, false, NULL},    {NULL, 4, 7, 0, true, NULL},
        {NULL, 2, 1, 0, false, NULL},   {NULL, 1, 100, 15, false, NULL}, {NULL, 2, 33, 15, false, NULL}, {"avx2", 2, 512, 0, true, NULL},
        {"avx2", 3, 50, 7, false, NULL},
    };
    check_model(SMOL, RUNS, ARRAY_LEN(RUNS), 250, 10, 49152);
}

static void a_short_prompt_in_portable_code(void **state UNUSED)
{
    static const struct run RUNS[] = {{NULL, 2, 512, 0, false, NULL}, {"portable", 2, 512, 0, true, NULL}, {"portable", 2, 5, 3, false, NULL}};
    check_model(SMOL, RUNS, ARRAY_LEN(RUNS), 10, 2, 49152);
}

/* Windows of 512, head norms, five formats in one file. */
static void a_prompt_beyond_the_window(void **state UNUSED)
{
    static const struct run RUNS[] = {{NULL, 1, 512, 0, false, NULL}, {NULL, 2, 100, 5, false, NULL}, {"avx2", 2, 512, 0, false, NULL}};
    check_model(GEMMA, RUNS, ARRAY_LEN(RUNS), 530, 3, 262144);
}

static void the_other_formats_in_portable_code(void **state UNUSED)
{
    static const struct run RUNS[] = {{NULL, 2, 512, 0, false, NULL}, {"portable", 2, 512, 0, false, NULL}};
    check_model(GEMMA, RUNS, ARRAY_LEN(RUNS), 5, 1, 262144);
}

static void a_prompt_over_bytes(void **state UNUSED)
{
    static const struct run RUNS[] = {{NULL, 2, 512, 0, false, "int8"},   {NULL, 1, 100, 15, true, "int8"},
                                      {NULL, 3, 7, 2, false, "int8"},     {NULL, 2, 1, 0, true, "int8"},
                                      {"avx2", 2, 300, 5, false, "int8"}, {"avx2", 1, 90, 0, true, "int8"}};
    static const struct run FEW[] = {{NULL, 2, 512, 0, false, "int8"}, {"portable", 2, 5, 3, true, "int8"}};
    check_model(SMOL, RUNS, ARRAY_LEN(RUNS), 270, 5, 49152);
    check_model(SMOL, FEW, ARRAY_LEN(FEW), 10, 2, 49152);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_over_two_segments),
        cmocka_unit_test(a_short_prompt_in_portable_code),
        cmocka_unit_test(a_prompt_beyond_the_window),
        cmocka_unit_test(the_other_formats_in_portable_code),
        cmocka_unit_test(a_prompt_over_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
