/* The reference backend against transformers, and the kernels against both:
 * tests/golden/make_engine_golden.py made the data. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/engine.h"

#define IDS_MAX 1024
#define CONTINUE_MAX 64
#define POSITIONS_MAX 8
#define SAMPLES_MAX 8192
/* What is allowed, relative to the rms of a position's logits: the largest difference of one logit,
 * the rms of the differences, and how far the two best logits of a greedy choice must be apart for
 * the choice to count. The kernels see activations in 8 bits, so their single logits stray further
 * than their rms says. */
struct bound {
    float max, rms, gap;
};
/* The reference's bounds are required of it. The kernels' were set from what 8-bit activations were measured to do, with room:
 * they catch damage, and do not prove how close the kernels are (docs/PERFORMANCE.md, "Closeness"). */
static const struct bound REFERENCE = {1e-4f, 5e-5f, 1e-3f}, KERNELS = {0.5f, 0.15f, 0.2f};

struct position {
    uint32_t at, n;
    float rms;
    float logits[SAMPLES_MAX];
};

struct prompt {
    uint32_t n_ids, n_more, n_positions;
    int32_t ids[IDS_MAX + CONTINUE_MAX];
    float gap[CONTINUE_MAX];
    struct position positions[POSITIONS_MAX];
};

static uint32_t read_u32(FILE *f)
{
    uint32_t v;
    assert_int_equal(fread(&v, sizeof v, 1, f), 1);
    return v;
}

static void read_prompt(FILE *f, struct prompt *p)
{
    p->n_ids = read_u32(f);
    p->n_more = read_u32(f);
    p->n_positions = read_u32(f);
    assert_true(p->n_ids <= IDS_MAX && p->n_more <= CONTINUE_MAX &&
                p->n_positions <= POSITIONS_MAX);
    assert_int_equal(fread(p->ids, sizeof p->ids[0], p->n_ids, f), p->n_ids);
    for (uint32_t i = 0; i < p->n_more; i++) {
        assert_int_equal(fread(&p->ids[p->n_ids + i], 4, 1, f), 1);
        assert_int_equal(fread(&p->gap[i], 4, 1, f), 1);
    }
    for (uint32_t i = 0; i < p->n_positions; i++) {
        struct position *q = &p->positions[i];
        q->at = read_u32(f);
        assert_int_equal(fread(&q->rms, 4, 1, f), 1);
        q->n = read_u32(f);
        assert_true(q->n <= SAMPLES_MAX);
        assert_int_equal(fread(q->logits, 4, q->n, f), q->n);
    }
}

struct model {
    model_file *file;
    engine *e;
    uint32_t *blocks;
};

static void open_model(const char *file, const char *backend, struct model *m)
{
    char path[1024];
    const char *folder = getenv("NUNCHI_TEST_MODELS"), *home = getenv("HOME");
    if (folder)
        snprintf(path, sizeof path, "%s/%s", folder, file);
    else
        snprintf(path, sizeof path, "%s/.cache/nunchi/models/%s", home ? home : "", file);
    if (access(path, R_OK) < 0) {
        printf("skipped: there is no %s; nunchi model fetch gets it\n", path);
        skip();
    }
    struct why w;
    if (model_file_open(path, &m->file, &w) < 0)
        fail_msg("%s", w.text);
    struct engine_config cfg = {.backend = backend, .kv_blocks = 64, .rows_max = IDS_MAX};
    if (engine_open(m->file, &cfg, &m->e, &w) < 0)
        fail_msg("%s", w.text);
    m->blocks = xcalloc(64, sizeof *m->blocks);
    for (uint32_t i = 0; i < 64; i++)
        m->blocks[i] = i;
}

static void close_model(struct model *m)
{
    engine_close(m->e);
    model_file_close(m->file);
    free(m->blocks);
}

/* One step over the prompt and its continuation; logits where the golden has them and for the
 * continuation. */
static void compute(struct model *m, const struct prompt *p)
{
    static struct engine_row rows[IDS_MAX + CONTINUE_MAX];
    uint32_t n = p->n_ids + p->n_more;
    for (uint32_t i = 0; i < n; i++)
        rows[i] = (struct engine_row){.token = p->ids[i],
                                      .position = i,
                                      .attend_until = i + 1,
                                      .want_logits = i + 1 >= p->n_ids};
    for (uint32_t i = 0; i < p->n_positions; i++)
        rows[p->positions[i].at].want_logits = true;
    struct engine_seq seq = {m->blocks, 64};
    struct engine_step step = {.seqs = &seq, .n_seqs = 1, .rows = rows, .n_rows = n};
    struct why w;
    if (engine_compute(m->e, &step, &w) < 0)
        fail_msg("%s", w.text);
}

/* Raises *max and *rms to those of the worst position; a NaN stays. */
static void differences(struct model *m, const struct prompt *p, uint32_t stride, float *max,
                        float *rms)
{
    for (uint32_t i = 0; i < p->n_positions; i++) {
        const struct position *q = &p->positions[i];
        const float *got = engine_logits(m->e, q->at);
        float squares = 0;
        for (uint32_t k = 0; k < q->n; k++) {
            float off = fabsf(got[k * stride] - q->logits[k]) / q->rms;
            *max = off > *max || off != off ? off : *max;
            squares += off * off;
        }
        float all = sqrtf(squares / (float)q->n);
        *rms = all > *rms || all != all ? all : *rms;
    }
}

static void same_greedy_ids(struct model *m, const struct prompt *p, float gap)
{
    float close = gap * p->positions[p->n_positions - 1].rms;
    uint32_t n_vocab = engine_info(m->e)->n_vocab;
    for (uint32_t i = 0; i < p->n_more; i++) {
        const float *got = engine_logits(m->e, p->n_ids + i - 1);
        uint32_t best = 0;
        for (uint32_t k = 1; k < n_vocab; k++)
            best = got[k] > got[best] ? k : best;
        int32_t want = p->ids[p->n_ids + i];
        if (p->gap[i] > close && (int32_t)best != want)
            fail_msg("continuation %u: id %u, not %d; the two best were %g apart", i, best, want,
                     (double)p->gap[i]);
    }
}

static void check(const char *file, const char *golden, const char *backend,
                  const struct bound *allowed)
{
    static struct prompt p;
    struct model m;
    open_model(file, backend, &m);
    FILE *f = fopen(golden, "rb");
    assert_non_null(f);
    uint32_t stride = read_u32(f), n = read_u32(f);
    float max = 0, rms = 0;
    for (uint32_t i = 0; i < n; i++) {
        read_prompt(f, &p);
        compute(&m, &p);
        differences(&m, &p, stride, &max, &rms);
        same_greedy_ids(&m, &p, allowed->gap);
    }
    fclose(f);
    close_model(&m);
    printf("%s, %s: differences up to %.2e of the rms, rms %.2e in the worst position\n", file,
           backend, (double)max, (double)rms);
    assert_true(max < allowed->max && rms < allowed->rms);
}

#define SMOLLM2 "SmolLM2-135M-Instruct.Q4_1.gguf", "tests/golden/data/engine_smollm2.bin"
#define GEMMA3 "gemma-3-270m-q4_k_m.gguf", "tests/golden/data/engine_gemma3.bin"

static void reference_equals_transformers_smollm2(void **state)
{
    (void)state;
    check(SMOLLM2, "reference", &REFERENCE);
}

static void reference_equals_transformers_gemma3(void **state)
{
    (void)state;
    check(GEMMA3, "reference", &REFERENCE);
}

/* The kernels quantise activations to 8 bits: their bound is that of the arithmetic, the greedy ids
 * are the real test. */
static void kernels_stay_close_smollm2(void **state)
{
    (void)state;
    check(SMOLLM2, "cpu", &KERNELS);
}

static void kernels_stay_close_gemma3(void **state)
{
    (void)state;
    check(GEMMA3, "cpu", &KERNELS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_equals_transformers_smollm2),
        cmocka_unit_test(reference_equals_transformers_gemma3),
        cmocka_unit_test(kernels_stay_close_smollm2),
        cmocka_unit_test(kernels_stay_close_gemma3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
