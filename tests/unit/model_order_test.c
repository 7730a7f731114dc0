/* Who of the scheduler's requests comes next, and who waits: fairness, priorities, credit,
 * deadlines, a queue that ends somewhere. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/model_asks.h"

static void test_queue_full(void **state)
{
    (void)state;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.queue_max = 4;
    cfg.seqs_max = 1;
    fake_prompt(prompts[0], 20, 5, 0);
    struct world *w = world_new(&cfg);
    uint32_t retry_ms = 0;
    for (uint64_t i = 0; i < 4; i++) {
        struct gen_request r = fake_request(1, 1 + i, prompts[0], 20);
        assert_int_equal(world_ask(w, &r, &retry_ms), 0);
    }
    struct gen_request r = fake_request(1, 9, prompts[0], 20);
    assert_int_equal(world_ask(w, &r, &retry_ms), ERR_BUSY);
    assert_true(retry_ms >= 100 && retry_ms <= 60000);
    assert_true(world_step(w)); /* one leaves the queue */
    assert_int_equal(world_ask(w, &r, &retry_ms), 0);
    world_run(w);
    everything_back(w);
    world_free(w);
}

static void test_deadlines(void **state)
{
    (void)state;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.seqs_max = 1;
    fake_prompt(prompts[0], 20, 5, 0);
    struct world *w = world_new(&cfg);
    assert_true(sched_tick(w->s, w->now) == UINT64_MAX);
    struct gen_request r = fake_request(1, 1, prompts[0], 20);
    r.deadline_ms = 5;
    assert_int_equal(world_ask(w, &r, NULL), 0);
    r.request = 2; /* waits in the queue */
    r.deadline_ms = 7;
    assert_int_equal(world_ask(w, &r, NULL), 0);
    uint64_t t0 = w->now;
    assert_int_equal(sched_tick(w->s, t0), t0 + 5000);
    assert_true(world_step(w));
    struct sched_work *work = sched_plan(w->s, w->now); /* the deadline falls into a step */
    assert_non_null(work);
    assert_int_equal(sched_tick(w->s, t0 + 5000), t0 + 7000);
    fake_compute(w, work);
    sched_result(w->s, t0 + 5000, 0, NULL, 10);
    sched_flush(w->s);
    assert_int_equal(answer_of(w, 1, 1, 0)->err, ERR_TIMEOUT);
    assert_int_equal(answer_of(w, 1, 1, 0)->n, 1);
    assert_true(sched_tick(w->s, t0 + 7000) == UINT64_MAX);
    sched_flush(w->s);
    assert_int_equal(answer_of(w, 1, 2, 0)->err, ERR_TIMEOUT);
    everything_back(w);
    world_free(w);
}

/* A parked request gives its place and its blocks to others, and goes on alike. */
static void test_parked_makes_way(void **state)
{
    (void)state;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.seqs_max = 1;
    cfg.n_blocks = 24;
    cfg.n_context = 23 * 16;
    struct gen_request rs[2];
    make_requests(rs, 2, 0);
    rs[0].credit = 3;
    rs[0].sampling.forbid_ends = true;
    struct world *w = world_new(&cfg);
    assert_int_equal(world_ask(w, &rs[0], NULL), 0);
    world_run(w);
    assert_int_equal(world_ask(w, &rs[1], NULL), 0);
    world_run(w);
    assert_true(answer_of(w, rs[1].gateway, rs[1].request, 0)->done);
    sched_credit(w->s, rs[0].gateway, rs[0].request, 1000);
    world_run(w);
    rs[0].credit = UINT64_MAX;
    all_alike(w, rs, 2);
    world_free(w);
}

/* One client's flood of long prompts does not keep another's short one waiting. */
static void test_fair_between_clients(void **state)
{
    (void)state;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.seqs_max = 8;
    cfg.step_tokens = 64;
    struct world *w = world_new(&cfg);
    for (uint64_t i = 0; i < 40; i++) {
        fake_prompt(prompts[i], PROMPT_MAX, i + 1, 0);
        struct gen_request r = fake_request(1, 1 + i, prompts[i], PROMPT_MAX);
        r.client = SLICE_LIT("flooding-client1");
        assert_int_equal(world_ask(w, &r, NULL), 0);
    }
    for (int i = 0; i < 20; i++)
        assert_true(world_step(w));
    fake_prompt(prompts[40], 40, 77, 0);
    struct gen_request r = fake_request(1, 1000, prompts[40], 40);
    r.client = SLICE_LIT("patient-client-2");
    assert_int_equal(world_ask(w, &r, NULL), 0);
    uint64_t asked = w->steps;
    world_run(w);
    struct answer *a = answer_of(w, 1, 1000, 0);
    assert_true(a->done);
    /* it waits for one place among the eight at the most, not for the forty */
    uint64_t later = 0;
    for (uint64_t i = 0; i < 40; i++)
        later += answer_of(w, 1, 1 + i, 0)->first_step > a->first_step;
    assert_true(a->first_step > asked);
    assert_true(later >= 28);
    world_free(w);
}

/* Nor does a long prompt that is being computed already. */
static void test_short_prompt_overtakes_long(void **state)
{
    (void)state;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.step_tokens = 32;
    struct world *w = world_new(&cfg);
    int32_t *many = xcalloc(900, sizeof *many);
    fake_prompt(many, 900, 2, 0);
    struct gen_request l = fake_request(1, 1, many, 900);
    l.client = SLICE_LIT("client-number-01");
    assert_int_equal(world_ask(w, &l, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_true(world_step(w));
    fake_prompt(prompts[0], 60, 1, 0);
    struct gen_request r = fake_request(1, 2, prompts[0], 60);
    r.client = SLICE_LIT("client-number-02");
    assert_int_equal(world_ask(w, &r, NULL), 0);
    uint64_t asked = w->steps;
    world_run(w);
    assert_true(answer_of(w, 1, 2, 0)->first_step <= asked + 5);
    assert_true(answer_of(w, 1, 1, 0)->first_step > asked + 20);
    all_alike(w, &l, 1);
    all_alike(w, &r, 1);
    free(many);
    world_free(w);
}

/* Answers that grow beside a long urgent prompt give the room back that it was promised. */
static void test_growing_answers_yield_to_a_prompt(void **state)
{
    (void)state;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.n_blocks =
        16 * 2 + 36 + 17; /* room for the sixteen to grow by one block each, not by two */
    cfg.n_context = 50 * 16;
    cfg.step_tokens = 32;
    cfg.seqs_max = 17;
    struct world *w = world_new(&cfg);
    struct gen_request rs[17];
    int32_t *many = xcalloc(560, sizeof *many);
    make_requests(rs, 17, 0);
    for (size_t i = 0; i < 17; i++) {
        rs[i].n_prompt = i < 16 ? 1 : 560;
        rs[i].prompt = i < 16 ? prompts[i] : many;
        fake_prompt(i < 16 ? prompts[i] : many, rs[i].n_prompt, i + 1, 0);
        rs[i].priority = i < 16 ? -1 : 1;
        rs[i].max_tokens = 150;
        rs[i].sampling.forbid_ends = true;
        if (i == 16)
            while (answer_of(w, rs[15].gateway, rs[15].request, 0)->n < 17)
                assert_true(world_step(w));
        assert_int_equal(world_ask(w, &rs[i], NULL), 0);
    }
    uint64_t asked = w->steps;
    world_run(w);
    assert_true(sched_load_now(w->s).preemptions > 0);
    assert_true(answer_of(w, rs[16].gateway, rs[16].request, 0)->first_step <= asked + 36);
    all_alike(w, rs, 17);
    everything_back(w);
    free(many);
    world_free(w);
}

static void test_urgent_displaces_batch(void **state)
{
    (void)state;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.seqs_max = 2;
    struct gen_request rs[3];
    make_requests(rs, 3, 0);
    for (int i = 0; i < 3; i++) {
        rs[i].sampling.forbid_ends = true;
        rs[i].max_tokens = 50;
        rs[i].priority = i < 2 ? -1 : 1;
    }
    struct world *w = world_new(&cfg);
    assert_int_equal(world_ask(w, &rs[0], NULL), 0);
    assert_int_equal(world_ask(w, &rs[1], NULL), 0);
    for (int i = 0; i < 10; i++)
        assert_true(world_step(w));
    assert_int_equal(world_ask(w, &rs[2], NULL), 0);
    while (!answer_of(w, rs[2].gateway, rs[2].request, 0)->done)
        assert_true(world_step(w));
    assert_false(answer_of(w, rs[1].gateway, rs[1].request, 0)->done);
    world_run(w);
    all_alike(w, rs, 3);
    everything_back(w);
    world_free(w);
}

/* While answers run, a long prompt comes in pieces that fit the time a step may take. */
static void test_long_prompt_beside_answers(void **state)
{
    (void)state;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.step_target_us = 1000 + 10 * 40; /* the fake's cost of about 40 rows */
    cfg.step_tokens = 1024;
    struct world *w = world_new(&cfg);
    fake_prompt(prompts[0], 20, 1, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 20);
    r.sampling.forbid_ends = true;
    r.max_tokens = 60;
    assert_int_equal(world_ask(w, &r, NULL), 0);
    for (int i = 0; i < 20; i++)
        assert_true(world_step(w));
    int32_t *many = xcalloc(900, sizeof *many);
    fake_prompt(many, 900, 2, 0);
    struct gen_request l = fake_request(1, 2, many, 900);
    assert_int_equal(world_ask(w, &l, NULL), 0);
    w->rows_most = 0;
    struct answer *a = answer_of(w, 1, 1, 0);
    for (int i = 0; i < 10; i++) {
        size_t n = a->n;
        assert_true(world_step(w));
        assert_int_equal(a->n, n + 1);
    }
    assert_true(w->rows_most < 200);
    world_run(w);
    all_alike(w, &l, 1);
    free(many);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_full),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_parked_makes_way),
        cmocka_unit_test(test_fair_between_clients),
        cmocka_unit_test(test_short_prompt_overtakes_long),
        cmocka_unit_test(test_growing_answers_yield_to_a_prompt),
        cmocka_unit_test(test_urgent_displaces_batch),
        cmocka_unit_test(test_long_prompt_beside_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
