/* The scheduler over the real engine: an answer is the same alone, among others, in any budget,
 * with guesses and without, after preemption, and when another goes on with it; the kernels choose
 * what the float32 reference chooses wherever it is not a close call. Models: $NUNCHI_TEST_MODELS
 * or ~/.cache/nunchi/models; skipped when they are not there. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

#include "tests/unit/model_fake.h"

#define N_REQUESTS 16
#define STEP_TOKENS 256
/* Two logits closer than this may change places: the kernels round activations to 8 bits, which
 * moves a logit of these small models by a tenth or two, rarely by half. How far the distributions
 * are apart is measured in the engine's tests. */
#define CLOSE_CALL 0.7f

struct real {
    model_file *file;
    vocab *words;
    engine *e;
    sampler *picker;
};

static bool model_path(const char *name, char *out, size_t cap)
{
    const char *dir = getenv("NUNCHI_TEST_MODELS"), *home = getenv("HOME");
    int n = dir ? snprintf(out, cap, "%s/%s", dir, name)
                : snprintf(out, cap, "%s/.cache/nunchi/models/%s", home ? home : "", name);
    return n > 0 && (size_t)n < cap && access(out, R_OK) == 0;
}

static void real_open(struct real *r, const char *name, const char *backend, uint32_t kv_blocks)
{
    char path[4096];
    struct why w = {.text = ""};
    if (!model_path(name, path, sizeof path)) {
        fprintf(stderr, "SKIPPED: %s is not there (NUNCHI_TEST_MODELS)\n", name);
        skip();
    }
    struct engine_config cfg = {
        .backend = backend, .kv_blocks = kv_blocks, .rows_max = STEP_TOKENS};
    *r = (struct real){0};
    if (model_file_open(path, &r->file, &w) < 0 || vocab_open(r->file, &r->words, &w) < 0 ||
        engine_open(r->file, &cfg, &r->e, &w) < 0)
        fail_msg("%s: %s", name, w.text);
    r->picker = sampler_new(vocab_size(r->words));
}

static void real_close(struct real *r)
{
    sampler_free(r->picker);
    engine_close(r->e);
    vocab_close(r->words);
    model_file_close(r->file);
}

static void real_compute(struct world *w, struct sched_work *work)
{
    struct real *r = w->engine;
    struct why why = {.text = ""};
    for (size_t i = 0; i < work->n_copies; i++)
        assert_int_equal(engine_block_copy(r->e, work->copies[i].from, work->copies[i].to,
                                           work->copies[i].n_tokens),
                         0);
    if (engine_compute(r->e, &work->step, &why) < 0)
        fail_msg("%s", why.text);
    for (size_t i = 0; i < work->n_jobs; i++) {
        struct sched_job *j = &work->jobs[i];
        j->in.logits = engine_logits(r->e, j->row);
        sampler_pick(r->picker, j->params, &j->in, &j->out);
    }
}

static slice real_bytes(void *ctx, int32_t id)
{
    const struct real *r = ctx;
    return vocab_bytes(r->words, id);
}

static bool real_is_end(void *ctx, int32_t id)
{
    const struct real *r = ctx;
    return vocab_is_end(r->words, id);
}

static struct world *real_world(struct real *r, uint32_t n_blocks, uint32_t step_tokens,
                                uint32_t seqs_max, uint32_t draft_max)
{
    const struct engine_info *i = engine_info(r->e);
    struct sched_vocab v = {.ctx = r,
                            .text = real_bytes,
                            .bytes = real_bytes,
                            .is_end = real_is_end,
                            .n = (int32_t)i->n_vocab};
    v.n_ends = vocab_ends(r->words, &v.ends);
    struct sched_config cfg = {.n_blocks = n_blocks,
                               .n_context = (n_blocks - 1) * ENGINE_BLOCK_TOKENS,
                               .seqs_max = seqs_max,
                               .step_tokens = step_tokens,
                               .queue_max = 64,
                               .draft_max = draft_max,
                               .step_target_us = 100000,
                               .weights = i->weights};
    return world_new_on(&cfg, &v, real_compute, r);
}

/* ---- prompts: pieces of the vocabulary, so that no tokenizer is needed ---- */

static int32_t prompts[N_REQUESTS][400];

static void make_prompts(const struct real *r, struct gen_request *rs, uint32_t len_max,
                         uint32_t max_tokens)
{
    int32_t n = vocab_size(r->words);
    for (size_t i = 0; i < N_REQUESTS; i++) {
        uint32_t len = 5 + (uint32_t)(fake_mix(i, 3) % (len_max - 5));
        for (uint32_t k = 0; k < len; k++)
            prompts[i][k] = 300 + (int32_t)(fake_mix(fake_mix(i % 4 && k < 40 ? 0 : i, k), 9) %
                                            (uint64_t)(n - 400) % 30000);
        rs[i] = fake_request(1 + i % 2, 1 + i, prompts[i], len);
        rs[i].sampling.temperature = i % 2 ? 0.8f : 0;
        rs[i].sampling.top_p = 0.95f;
        rs[i].sampling.seed = i;
        rs[i].max_tokens = max_tokens;
    }
}

static void run_together(struct world *w, const struct gen_request *rs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(world_ask(w, &rs[i], NULL), 0);
    world_run(w);
}

static void same_answers(struct world *x, struct world *y, const struct gen_request *rs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct answer *a = answer_of(x, rs[i].gateway, rs[i].request, 0);
        struct answer *b = answer_of(y, rs[i].gateway, rs[i].request, 0);
        for (size_t k = 0; k < a->n && k < b->n; k++)
            if (a->ids[k] != b->ids[k])
                fail_msg("request %zu: id %zu is %d and %d", i, k, (int)a->ids[k], (int)b->ids[k]);
        assert_true(answer_same(a, b));
    }
}

/* Each alone, with nothing remembered from the others, and nothing guessed. */
static struct world *each_alone(struct real *r, const struct gen_request *rs, size_t n,
                                uint32_t blocks)
{
    struct world *all = real_world(r, blocks, STEP_TOKENS, 1, 0);
    for (size_t i = 0; i < n; i++) {
        struct world *w = real_world(r, blocks, STEP_TOKENS, 1, 0);
        assert_int_equal(world_ask(w, &rs[i], NULL), 0);
        world_run(w);
        struct answer *a = answer_of(w, rs[i].gateway, rs[i].request, 0);
        struct answer *keep = answer_open(all, rs[i].gateway, rs[i].request, 0);
        *keep = *a;
        a->text = a->stop = (buf){0};
        world_free(w);
    }
    return all;
}

static void alone_and_together(const char *name, const char *backend, uint32_t len_max,
                               uint32_t max_tokens, size_t n)
{
    struct real r;
    struct gen_request rs[N_REQUESTS];
    real_open(&r, name, backend, 512);
    make_prompts(&r, rs, len_max, max_tokens);
    struct world *alone = each_alone(&r, rs, n, 512);
    static const struct {
        uint32_t blocks, step_tokens, seqs, draft_max;
    } ways[] = {{512, STEP_TOKENS, 16, 0}, {512, 19, 16, 2}, {30, 64, 16, 8}, {512, 64, 1, 8}};
    for (size_t k = 0; k < ARRAY_LEN(ways); k++) {
        struct world *w =
            real_world(&r, ways[k].blocks, ways[k].step_tokens, ways[k].seqs, ways[k].draft_max);
        run_together(w, rs, n);
        same_answers(alone, w, rs, n);
        if (k == 2 && n == N_REQUESTS)
            assert_true(sched_load_now(w->s).preemptions > 0);
        if (k == 3) /* answers of models as small as these go round in circles */
            assert_true(sched_load_now(w->s).accepted > 0);
        world_free(w);
    }
    world_free(alone);
    real_close(&r);
}

static void test_smollm2_cpu(void **state UNUSED)
{
    alone_and_together("SmolLM2-135M-Instruct.Q4_1.gguf", "cpu", 220, 40, N_REQUESTS);
}

static void test_gemma_cpu(void **state UNUSED)
{
    alone_and_together("gemma-3-270m-q4_k_m.gguf", "cpu", 120, 20, 8);
}

static void test_resumed_elsewhere(void **state UNUSED)
{
    struct real r;
    struct gen_request rs[N_REQUESTS];
    real_open(&r, "SmolLM2-135M-Instruct.Q4_1.gguf", "cpu", 256);
    make_prompts(&r, rs, 100, 30);
    struct world *whole = each_alone(&r, rs, 4, 256);
    for (size_t i = 0; i < 4; i++) {
        struct answer *a = answer_of(whole, rs[i].gateway, rs[i].request, 0);
        for (size_t cut = 1; cut < a->n; cut += 9) {
            struct gen_request again = rs[i];
            again.choices[0].ids = a->ids;
            again.choices[0].n_ids = (uint32_t)cut;
            struct world *w = real_world(&r, 256, STEP_TOKENS, 4, 8);
            run_together(w, &again, 1);
            struct answer *b = answer_of(w, rs[i].gateway, rs[i].request, 0);
            assert_int_equal(b->n, a->n);
            assert_memory_equal(b->ids, a->ids, a->n * sizeof a->ids[0]);
            world_free(w);
        }
    }
    world_free(whole);
    real_close(&r);
}

static int32_t piece(const struct real *r, const char *text)
{
    int32_t id = vocab_find(r->words, slice_str(text));
    assert_true(id >= 0);
    return id;
}

/* What the reference answers, with the gaps between its two best. */
static struct world *reference_answer(const char *name, const char *const *pieces, size_t n,
                                      struct gen_request *q)
{
    struct real r;
    real_open(&r, name, "reference", 64);
    for (size_t i = 0; i < n; i++)
        prompts[0][i] = piece(&r, pieces[i]);
    *q = fake_request(1, 1, prompts[0], (uint32_t)n);
    q->sampling.temperature = 0;
    q->sampling.want_logprob = true;
    q->sampling.n_logprobs = 2;
    q->max_tokens = 24;
    struct world *w = real_world(&r, 64, STEP_TOKENS, 1, 0);
    run_together(w, q, 1);
    real_close(&r);
    return w;
}

/* Each token of the reference's answer, chosen again by the kernels from the same beginning. */
static void kernels_agree(const char *name, const char *const *pieces, size_t n, const char *expect)
{
    struct gen_request q;
    struct world *ref = reference_answer(name, pieces, n, &q);
    struct answer *a = answer_of(ref, 1, 1, 0);
    assert_true(a->n > 0);
    buf_put_byte(&a->text, 0);
    if (!strstr(a->text.p, expect))
        fail_msg("the reference says \"%s\"", a->text.p);
    struct real r;
    real_open(&r, name, "cpu", 64);
    struct world *w = real_world(&r, 64, STEP_TOKENS, 1, 0);
    size_t close = 0;
    for (size_t cut = 0; cut < a->n; cut++) {
        struct gen_request one = q;
        one.request = 100 + cut;
        one.choices[0].ids = a->ids;
        one.choices[0].n_ids = (uint32_t)cut;
        one.max_tokens = (uint32_t)cut + 1;
        run_together(w, &one, 1);
        struct answer *b = answer_of(w, 1, 100 + cut, 0);
        if (a->gap[cut] < CLOSE_CALL)
            close++;
        else if (b->ids[cut] != a->ids[cut])
            fail_msg("token %zu: the reference chooses %d by %g, the kernels %d", cut,
                     (int)a->ids[cut], (double)a->gap[cut], (int)b->ids[cut]);
    }
    assert_true(close < a->n);
    world_free(w);
    real_close(&r);
    world_free(ref);
}

static void test_kernels_choose_as_reference(void **state UNUSED)
{
    static const char *const smol[] = {"The", "Ġcapital", "Ġof", "ĠFrance", "Ġis"};
    static const char *const gemma[] = {"<bos>", "The", "▁capital", "▁of", "▁France", "▁is"};
    kernels_agree("SmolLM2-135M-Instruct.Q4_1.gguf", smol, ARRAY_LEN(smol), "Paris");
    kernels_agree("gemma-3-270m-q4_k_m.gguf", gemma, ARRAY_LEN(gemma), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smollm2_cpu),
        cmocka_unit_test(test_gemma_cpu),
        cmocka_unit_test(test_resumed_elsewhere),
        cmocka_unit_test(test_kernels_choose_as_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
