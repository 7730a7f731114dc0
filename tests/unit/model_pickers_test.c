/* Sampling on several threads picks what one thread picks, run after run. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model-svc/pickers.h"

#define N_VOCAB 3000
#define N_JOBS 40

static float logits[N_JOBS][N_VOCAB];

static void make_jobs(struct sched_job *jobs, const struct sample_params *params)
{
    uint64_t rnd = 1;
    for (size_t j = 0; j < N_JOBS; j++) {
        for (size_t i = 0; i < N_VOCAB; i++) {
            rnd = rnd * 6364136223846793005u + 1442695040888963407u;
            logits[j][i] = (float)(rnd >> 40) / 1e6f;
        }
        jobs[j] = (struct sched_job){
            .params = params,
            .in = {.logits = logits[j], .n_vocab = N_VOCAB, .choice = (uint32_t)j}};
    }
}

static void test_as_one_thread(void **state)
{
    (void)state;
    static const struct sample_params params = {.temperature = 0.9f,
                                                .top_p = 0.95f,
                                                .repetition_penalty = 1,
                                                .seed = 11,
                                                .want_logprob = true,
                                                .n_logprobs = 3};
    static struct sched_job expect[N_JOBS], jobs[N_JOBS];
    make_jobs(expect, &params);
    pickers *one = pickers_new(1, N_VOCAB);
    pickers_run(one, expect, N_JOBS);
    pickers_free(one);
    pickers *many = pickers_new(4, N_VOCAB);
    for (size_t round = 0; round < 200; round++) {
        size_t n = round % (N_JOBS + 1);
        make_jobs(jobs, &params);
        pickers_run(many, jobs, n);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(jobs[i].out.id, expect[i].out.id);
            assert_true(jobs[i].out.logprob == expect[i].out.logprob);
            assert_int_equal(jobs[i].out.n_top, 3);
        }
        for (size_t i = n; i < N_JOBS; i++)
            assert_int_equal(jobs[i].out.n_top, 0);
    }
    pickers_free(many);
}

static void test_comes_and_goes(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++)
        pickers_free(pickers_new(i % 12, 16));
    pickers_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_one_thread),
        cmocka_unit_test(test_comes_and_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
