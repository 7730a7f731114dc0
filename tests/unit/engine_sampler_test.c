/* The sampler: each parameter, and that an id depends on nothing but its arguments. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "engine/engine.h"

#define N 1000

static float logits[N];
static sampler *the_sampler;

static int setup(void **state)
{
    (void)state;
    assert_int_equal(sampler_new(N, NULL, &the_sampler, NULL), 0);
    for (int i = 0; i < N; i++)
        logits[i] = -20.0f;
    logits[10] = 2.0f; /* e^2 : e^1 : e^0 = 0.665 : 0.245 : 0.090 */
    logits[20] = 1.0f;
    logits[30] = 0.0f;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sampler_free(the_sampler);
    return 0;
}

static const struct sample_params PLAIN = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};

static struct sampled pick(struct sample_params p, struct sample_input in)
{
    struct sampled out;
    in.logits = in.logits ? in.logits : logits;
    in.n_vocab = N;
    sampler_pick(the_sampler, &p, &in, &out);
    return out;
}

/* How often each of ids 10, 20, 30 comes over many positions; the rest in [3]. */
static void frequencies(struct sample_params p, double share[4])
{
    int n[4] = {0}, all = 40000;
    for (int i = 0; i < all; i++) {
        p.seed = (uint64_t)i;
        int32_t id = pick(p, (struct sample_input){0}).id;
        n[id == 10 ? 0 : id == 20 ? 1 : id == 30 ? 2 : 3]++;
    }
    for (int i = 0; i < 4; i++)
        share[i] = (double)n[i] / all;
}

static void assert_near(double got, double want, double allowed)
{
    if (fabs(got - want) > allowed)
        fail_msg("%g is not %g", got, want);
}

static void temperature_zero_takes_the_best_and_the_first(void **state)
{
    (void)state;
    struct sample_params p = PLAIN;
    p.temperature = 0;
    assert_int_equal(pick(p, (struct sample_input){0}).id, 10);
    float tie[N];
    memcpy(tie, logits, sizeof tie);
    tie[700] = tie[500] = 2.0f;
    assert_int_equal(pick(p, (struct sample_input){.logits = tie}).id, 10);
    tie[10] = 0;
    assert_int_equal(pick(p, (struct sample_input){.logits = tie}).id, 500);
}

static void temperature_one_draws_the_models_distribution(void **state)
{
    (void)state;
    double share[4];
    frequencies(PLAIN, share);
    assert_near(share[0], 0.6652, 0.01);
    assert_near(share[1], 0.2447, 0.01);
    assert_near(share[2], 0.0900, 0.01);
    assert_near(share[3], 0, 0.001);
}

static void a_low_temperature_sharpens(void **state)
{
    (void)state;
    struct sample_params p = PLAIN;
    p.temperature = 0.5f; /* e^4 : e^2 : e^0 */
    double share[4];
    frequencies(p, share);
    assert_near(share[0], 0.8668, 0.01);
    assert_near(share[1], 0.1173, 0.01);
}

static void top_k_top_p_min_p_cut_the_tail(void **state)
{
    (void)state;
    double share[4];
    struct sample_params p = PLAIN;
    p.top_k = 2;
    frequencies(p, share);
    assert_near(share[0], 0.7311, 0.01);
    assert_near(share[2], 0, 0);
    p = PLAIN;
    p.top_p = 0.8f; /* 0.665 is not enough: the second comes in too */
    frequencies(p, share);
    assert_near(share[0], 0.7311, 0.01);
    assert_near(share[2], 0, 0);
    p.top_p = 0.0f; /* the best alone */
    frequencies(p, share);
    assert_near(share[0], 1, 0);
    p = PLAIN;
    p.min_p = 0.3f; /* e^-1 = 0.37 stays, e^-2 = 0.14 goes */
    frequencies(p, share);
    assert_near(share[0], 0.7311, 0.01);
    assert_near(share[2], 0, 0);
    p = PLAIN;
    p.top_k = N;
    frequencies(p, share);
    assert_near(share[2], 0.0900, 0.01);
}

/* Relative 10 4 2 2 1 1: of all six a share of 0.85 are the first four (0.8 is not enough). */
static void top_p_is_a_share_of_what_top_k_leaves(void **state)
{
    (void)state;
    static const float p_of[] = {10, 4, 2, 2, 1, 1, 0.5f};
    float x[N];
    int seen[N] = {0};
    for (int i = 0; i < N; i++)
        x[i] = i < (int)ARRAY_LEN(p_of) ? logf(p_of[i]) : -50.0f;
    struct sample_params p = PLAIN;
    p.top_k = 6;
    p.top_p = 0.85f;
    for (uint64_t seed = 0; seed < 4000; seed++) {
        p.seed = seed;
        seen[pick(p, (struct sample_input){.logits = x}).id]++;
    }
    assert_true(seen[0] > seen[1] && seen[1] > seen[2] && seen[3] > 300);
    assert_int_equal(seen[0] + seen[1] + seen[2] + seen[3], 4000);
}

/* Broken weights give such logits: an id all the same, and nothing beyond memory. */
static void logits_that_are_no_numbers(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    float x[N];
    struct sample_params ways[] = {PLAIN, PLAIN, PLAIN, PLAIN};
    ways[1].top_k = 3;
    ways[2].top_p = 0.5f;
    ways[3].temperature = 0;
    for (size_t k = 0; k < ARRAY_LEN(bad); k++) {
        for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
            memcpy(x, logits, sizeof x);
            x[5] = x[600] = bad[k];
            assert_in_range(pick(ways[i], (struct sample_input){.logits = x}).id, 0, N - 1);
            for (int j = 0; j < N; j++)
                x[j] = bad[k];
            assert_in_range(pick(ways[i], (struct sample_input){.logits = x}).id, 0, N - 1);
        }
    }
}

static void an_id_depends_on_seed_choice_and_position_alone(void **state)
{
    (void)state;
    float flat[N] = {0};
    int32_t ids[4] = {1, 2, 3, 4};
    struct sample_params p = PLAIN;
    struct sample_input in = {.logits = flat, .generated = ids, .n_generated = 4, .choice = 1};
    p.seed = 5;
    int32_t first = pick(p, in).id;
    sampler *other;
    assert_int_equal(sampler_new(N, NULL, &other, NULL), 0);
    struct sampled again;
    in.n_vocab = N;
    sampler_pick(other, &p, &in, &again);
    sampler_free(other);
    assert_int_equal(again.id, first);
    in.choice = 2;
    int32_t by_choice = pick(p, in).id;
    in.choice = 1;
    in.n_generated = 3;
    int32_t by_position = pick(p, in).id;
    in.n_generated = 4;
    p.seed = 6;
    int32_t by_seed = pick(p, in).id;
    assert_true(by_choice != first && by_position != first && by_seed != first);
    p.seed = 5;
    assert_int_equal(pick(p, in).id, first);
}

static void penalties_are_openais(void **state)
{
    (void)state;
    int32_t ids[3] = {10, 10, 20};
    struct sample_params p = PLAIN;
    p.temperature = 0;
    struct sample_input in = {.generated = ids, .n_generated = 3};
    p.presence_penalty = 0.9f;
    assert_int_equal(pick(p, in).id, 10); /* 1.1, 0.1, 0 */
    p.frequency_penalty = 0.6f;           /* -0.1, -0.5, 0 */
    assert_int_equal(pick(p, in).id, 30);
    p.presence_penalty = p.frequency_penalty = 0;
    p.repetition_penalty = 4; /* 0.5, 0.25, 0: over the prompt too */
    assert_int_equal(pick(p, in).id, 10);
    in = (struct sample_input){.prompt = ids, .n_prompt = 1};
    assert_int_equal(pick(p, in).id, 20); /* 0.5, 1, 0 */
    p.repetition_penalty = 1;
    p.presence_penalty = 2;
    assert_int_equal(pick(p, in).id, 10); /* presence counts generated ids alone */
}

static void bias_adds_and_forbids(void **state)
{
    (void)state;
    struct sample_bias bias[2] = {{30, 3.0f}, {10, -100.0f}};
    struct sample_params p = PLAIN;
    p.temperature = 0;
    p.bias = bias;
    p.n_bias = 1;
    assert_int_equal(pick(p, (struct sample_input){0}).id, 30);
    bias[0].add = 0;
    p.n_bias = 2;
    assert_int_equal(pick(p, (struct sample_input){0}).id, 20);
    p.temperature = 1;
    double share[4];
    frequencies(p, share);
    assert_near(share[0], 0, 0);
}

static void forbidden_ends_never_come(void **state)
{
    (void)state;
    int32_t ends[] = {10};
    struct sample_params p = PLAIN;
    p.temperature = 0;
    p.forbid_ends = true;
    assert_int_equal(pick(p, (struct sample_input){.ends = ends, .n_ends = 1}).id, 20);
}

static void logprobs_are_the_models_own(void **state)
{
    (void)state;
    struct sample_params p = PLAIN;
    p.temperature = 0;
    p.want_logprob = true;
    p.n_logprobs = 3;
    struct sample_bias bias = {10, -100.0f};
    p.bias = &bias;
    p.n_bias = 1;
    struct sampled out = pick(p, (struct sample_input){0});
    double norm = log(exp(2) + exp(1) + 1 + (N - 3) * exp(-20));
    assert_int_equal(out.id, 20);
    assert_near((double)out.logprob, 1 - norm, 1e-5);
    assert_int_equal(out.n_top, 3);
    assert_int_equal(out.top[0].id, 10);
    assert_int_equal(out.top[1].id, 20);
    assert_int_equal(out.top[2].id, 30);
    assert_near((double)out.top[0].logprob, 2 - norm, 1e-5);
    assert_near((double)out.top[2].logprob, 0 - norm, 1e-5);
    p.n_logprobs = 5;
    out = pick(p, (struct sample_input){0});
    assert_int_equal(out.top[3].id, 0); /* ties: lowest first */
    assert_int_equal(out.top[4].id, 1);
}

static void input_is_left_as_it_was(void **state)
{
    (void)state;
    float before[N];
    memcpy(before, logits, sizeof before);
    struct sample_params p = PLAIN;
    int32_t ids[] = {10, -5, N, 2000000};
    p.presence_penalty = p.frequency_penalty = 1;
    p.repetition_penalty = 2;
    pick(p,
         (struct sample_input){.generated = ids, .n_generated = 4, .prompt = ids, .n_prompt = 4});
    assert_memory_equal(before, logits, sizeof before);
    p = PLAIN;
    p.temperature = 0;
    assert_int_equal(pick(p, (struct sample_input){0}).id, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(temperature_zero_takes_the_best_and_the_first),
        cmocka_unit_test(temperature_one_draws_the_models_distribution),
        cmocka_unit_test(a_low_temperature_sharpens),
        cmocka_unit_test(top_k_top_p_min_p_cut_the_tail),
        cmocka_unit_test(top_p_is_a_share_of_what_top_k_leaves),
        cmocka_unit_test(logits_that_are_no_numbers),
        cmocka_unit_test(an_id_depends_on_seed_choice_and_position_alone),
        cmocka_unit_test(penalties_are_openais),
        cmocka_unit_test(bias_adds_and_forbids),
        cmocka_unit_test(forbidden_ends_never_come),
        cmocka_unit_test(logprobs_are_the_models_own),
        cmocka_unit_test(input_is_left_as_it_was),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
