/* Time of one pick of an id, in microseconds, on one thread: for each way to sample, and for logits of several kinds.
 *     sampler_bench [--isa ISA] [--repeat N] [MODEL]
 * With a model its own logits are taken too: of a few positions, so that nothing can be learned by heart. Each figure is
 * the best of N repeats: other work on the machine only ever makes it slower. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "engine/engine.h"

#define PICKS 64  /* of one repeat */
#define COPIES 16 /* rows of logits, as a step of 16 sequences leaves them: more than a core's own cache */
#define SAID 4000 /* ids so far, for penalties */

static uint64_t random_state = 1;

static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state ^ random_state >> 29) * 0x9e3779b97f4a7c15u >> 32);
}

static float random_normal(void)
{
    float s = 0;
    for (int i = 0; i < 12; i++)
        s += (float)random_u32() * 0x1p-32f;
    return s - 6;
}

/* ---- kinds of logits ---------------------------------------------------------------------------------------- */

static void peaked(float *x, int32_t n) /* as models are: a broad hill far below a few good ones */
{
    for (int32_t i = 0; i < n; i++)
        x[i] = 2.5f * random_normal() - 3;
    for (int i = 0; i < 60; i++)
        x[random_u32() % (uint32_t)n] = 20 - 6 * logf(1 + (float)i) / logf(4);
}

static void hill(float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        x[i] = 2.5f * random_normal();
}

static void equal(float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        x[i] = 1;
}

static void one_alone(float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        x[i] = -INFINITY;
    x[n / 2] = 3;
}

static void no_number(float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        x[i] = i % 3 ? NAN : INFINITY;
}

static const struct {
    const char *name;
    void (*fill)(float *x, int32_t n);
} KINDS[] = {{"peaked", peaked}, {"hill", hill}, {"equal", equal}, {"one alone", one_alone}, {"NaN, inf", no_number}};

/* ---- ways to sample ----------------------------------------------------------------------------------------- */

static int32_t said[SAID];
static struct sample_bias bias[SAMPLE_BIAS_MAX];

#define PLAIN .top_p = 1, .repetition_penalty = 1
#define ALL_FILTERS .temperature = 0.7f, .top_p = 0.9f, .top_k = 40, .min_p = 0.05f
#define PENALTIES .repetition_penalty = 1.1f, .presence_penalty = 0.5f, .frequency_penalty = 0.3f
static const struct way {
    const char *name;
    struct sample_params p;
} WAYS[] = {
    {"greedy", {PLAIN}},
    {"temperature 0.7", {PLAIN, .temperature = 0.7f}},
    {"  + top_p 0.9", {.temperature = 0.7f, .top_p = 0.9f, .repetition_penalty = 1}},
    {"  + top_k 40", {.temperature = 0.7f, .top_p = 0.9f, .top_k = 40, .repetition_penalty = 1}},
    {"  + min_p 0.05", {ALL_FILTERS, .repetition_penalty = 1}},
    {"  + penalties, 4000 ids", {ALL_FILTERS, PENALTIES}},
    {"  + 20 logprobs", {ALL_FILTERS, PENALTIES, .want_logprob = true, .n_logprobs = 20}},
    {"  + 1024 biases", {ALL_FILTERS, PENALTIES, .want_logprob = true, .n_logprobs = 20, .bias = bias, .n_bias = SAMPLE_BIAS_MAX}},
    {"temperature 100, top_p 0.9", {.temperature = 100, .top_p = 0.9f, .repetition_penalty = 1}},
    {"temperature 100, top_k 5000", {.temperature = 100, .top_p = 0.9f, .top_k = 5000, .repetition_penalty = 1}},
    {"min_p 0.05", {.temperature = 0.7f, .top_p = 1, .min_p = 0.05f, .repetition_penalty = 1}},
    {"greedy, 20 logprobs", {PLAIN, .want_logprob = true, .n_logprobs = 20}},
};

static _Noreturn void fail(const char *what, const struct why *w)
{
    fprintf(stderr, "sampler_bench: %s: %s\n", what, w->text);
    exit(1);
}

static double microseconds(sampler *s, const struct sample_params *way, const float *logits, int32_t n_vocab, int repeat)
{
    uint64_t best = UINT64_MAX;
    struct sampled out;
    for (int r = 0; r < repeat; r++) {
        uint64_t start = clock_mono_us();
        for (size_t i = 0; i < PICKS; i++) {
            struct sample_params p = *way;
            p.seed = i;
            struct sample_input in = {.logits = logits + i % COPIES * (size_t)n_vocab, .n_vocab = n_vocab, .generated = said, .n_generated = SAID};
            sampler_pick(s, &p, &in, &out);
        }
        uint64_t took = clock_mono_us() - start;
        best = took < best ? took : best;
    }
    return (double)best / PICKS;
}

/* Ids as text has them: small ones more often. */
static void fill_ids(int32_t n_vocab)
{
    for (size_t i = 0; i < SAID; i++)
        said[i] = (int32_t)(expf((float)random_u32() * 0x1p-32f * logf((float)n_vocab - 1)));
    for (size_t i = 0; i < SAMPLE_BIAS_MAX; i++)
        bias[i] = (struct sample_bias){(int32_t)(random_u32() % (uint32_t)n_vocab), i % 4 ? 1 : -100};
}

static void head(int32_t n_vocab)
{
    printf("%-28s", "");
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++)
        printf("%12s", KINDS[k].name);
    printf("   (us a pick, %d entries)\n", n_vocab);
}

static sampler *new_sampler(int32_t n_vocab, const char *isa)
{
    sampler *s;
    struct why w = {0};
    if (sampler_new(n_vocab, isa, &s, &w) < 0)
        fail("isa", &w);
    return s;
}

static void measure_kinds(int32_t n_vocab, const char *isa, int repeat)
{
    size_t n = (size_t)n_vocab * COPIES;
    float *logits[ARRAY_LEN(KINDS)];
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++) {
        logits[k] = xcalloc(n, sizeof(float));
        for (size_t c = 0; c < COPIES; c++)
            KINDS[k].fill(logits[k] + c * (size_t)n_vocab, n_vocab);
    }
    fill_ids(n_vocab);
    head(n_vocab);
    sampler *s = new_sampler(n_vocab, isa);
    for (size_t w = 0; w < ARRAY_LEN(WAYS); w++) {
        printf("%-28s", WAYS[w].name);
        for (size_t k = 0; k < ARRAY_LEN(KINDS); k++)
            printf("%12.1f", microseconds(s, &WAYS[w].p, logits[k], n_vocab, repeat));
        printf("\n");
    }
    sampler_free(s);
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++)
        free(logits[k]);
}

/* Logits of the last COPIES of a few dozen ids. */
static float *logits_of(engine *e)
{
    struct why w = {0};
    int32_t n_vocab = (int32_t)engine_info(e)->n_vocab;
    float *logits = xcalloc((size_t)n_vocab * COPIES, sizeof(float));
    uint32_t blocks[4] = {0, 1, 2, 3};
    struct engine_row rows[48];
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++)
        rows[i] = (struct engine_row){.token = (int32_t)(200 + i * 37 % 5000), .position = i, .attend_until = i + 1, .want_logits = true};
    struct engine_seq seq = {blocks, ARRAY_LEN(blocks)};
    if (engine_compute(e, &(struct engine_step){&seq, 1, rows, ARRAY_LEN(rows)}, &w) < 0)
        fail("compute", &w);
    for (size_t c = 0; c < COPIES; c++)
        memcpy(logits + c * (size_t)n_vocab, engine_logits(e, ARRAY_LEN(rows) - COPIES + c), (size_t)n_vocab * sizeof(float));
    return logits;
}

/* All rows of a step on the engine's threads, as after a step of COPIES sequences. */
static double microseconds_together(engine *e, const struct sample_params *way, int repeat)
{
    static struct sample_job jobs[COPIES];
    uint64_t best = UINT64_MAX;
    for (uint32_t i = 0; i < COPIES; i++)
        jobs[i] = (struct sample_job){.row = i, .params = way, .in = {.generated = said, .n_generated = SAID, .choice = i}};
    for (int r = 0; r < 20 * repeat; r++) {
        uint64_t start = clock_mono_us();
        engine_sample(e, jobs, COPIES);
        uint64_t took = clock_mono_us() - start;
        best = took < best ? took : best;
    }
    return (double)best;
}

static void measure_model(const char *path, const char *isa, int repeat)
{
    struct why w = {0};
    model_file *f;
    engine *e;
    if (model_file_open(path, &f, &w) < 0)
        fail(path, &w);
    if (engine_open(f, &(struct engine_config){.kv_blocks = 8, .isa = isa}, &e, &w) < 0)
        fail(path, &w);
    int32_t n_vocab = (int32_t)engine_info(e)->n_vocab;
    float *logits = logits_of(e);
    fill_ids(n_vocab);
    printf("%s: us a pick, %d entries; %d rows on %d threads\n", engine_info(e)->name, n_vocab, COPIES, engine_info(e)->threads);
    sampler *s = new_sampler(n_vocab, isa);
    for (size_t i = 0; i < ARRAY_LEN(WAYS); i++)
        printf("%-28s%12.1f%12.1f\n", WAYS[i].name, microseconds(s, &WAYS[i].p, logits, n_vocab, repeat),
               microseconds_together(e, &WAYS[i].p, repeat));
    sampler_free(s);
    free(logits);
    engine_close(e);
    model_file_close(f);
}

int main(int argc, char **argv)
{
    const char *isa = NULL, *model = NULL;
    int repeat = 5;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--isa") && i + 1 < argc)
            isa = argv[++i];
        else if (!strcmp(argv[i], "--repeat") && i + 1 < argc)
            repeat = (int)strtol(argv[++i], NULL, 10);
        else if (argv[i][0] != '-')
            model = argv[i];
        else {
            fprintf(stderr, "usage: sampler_bench [--isa ISA] [--repeat N] [MODEL]\n");
            return 2;
        }
    }
    measure_kinds(49152, isa, repeat);
    measure_kinds(262144, isa, repeat);
    if (model)
        measure_model(model, isa, repeat);
    return 0;
}
