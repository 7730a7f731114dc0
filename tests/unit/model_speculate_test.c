/* Guessing ahead changes no answer, saves steps where answers repeat what was said, and costs next
 * to nothing where they do not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/model_asks.h"

static struct world *world_with(uint32_t draft_max)
{
    struct sched_config cfg = FAKE_CONFIG;
    cfg.draft_max = draft_max;
    return world_new(&cfg);
}

/* One answer after the other. */
static void ask_all(struct world *w, const struct gen_request *rs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(world_ask(w, &rs[i], NULL), 0);
        world_run(w);
    }
}

static void test_same_bytes_in_a_storm(void **state)
{
    (void)state;
    static const unsigned habits[] = {50, 90, 100, FAKE_NEW};
    for (uint64_t seed = 1; seed <= 12; seed++) {
        fake_habit = habits[seed % 4];
        storm(seed, seed % 3 ? DRAFT_MAX : 2);
    }
}

static void test_fewer_steps_where_answers_repeat(void **state)
{
    (void)state;
    struct gen_request rs[MANY];
    make_requests(rs, MANY, 0);
    fake_habit = 95;
    struct world *off = world_with(0), *on = world_with(8);
    for (size_t i = 0; i < MANY; i++) {
        rs[i].sampling.forbid_ends = true;
        rs[i].max_tokens = 200;
    }
    ask_all(off, rs, MANY);
    ask_all(on, rs, MANY);
    for (size_t i = 0; i < MANY; i++)
        assert_true(answer_same(answer_of(off, rs[i].gateway, rs[i].request, 0),
                                answer_of(on, rs[i].gateway, rs[i].request, 0)));
    assert_int_equal(sched_load_now(off->s).drafted, 0);
    assert_true(on->steps * 2 < off->steps);
    assert_true(on->busy_us * 2 < off->busy_us);
    world_free(on);
    world_free(off);
}

/* With granted tokens running out at any point, and never one token beyond them. */
static void test_credit(void **state)
{
    (void)state;
    fake_habit = 100;
    fake_prompt(prompts[0], 60, 5, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 60);
    r.sampling.forbid_ends = true;
    r.max_tokens = 150;
    r.n_choices = 2;
    r.choices[1].index = 1;
    for (uint64_t grant = 1; grant < 12; grant++) {
        struct world *w = world_with(8);
        r.credit = grant;
        assert_int_equal(world_ask(w, &r, NULL), 0);
        struct answer *a = answer_of(w, 1, 1, 0), *b = answer_of(w, 1, 1, 1);
        for (uint64_t granted = grant; !a->done; granted += grant) {
            world_run(w);
            assert_true(a->n + b->n <= granted);
            assert_true(a->done || a->n + b->n == granted);
            sched_credit(w->s, 1, 1, grant);
        }
        if (grant > 4)
            assert_true(sched_load_now(w->s).accepted > 0);
        struct gen_request all = r;
        all.credit = UINT64_MAX;
        all_alike(w, &all, 1);
        everything_back(w);
        world_free(w);
    }
}

/* An answer ends inside what was guessed: at its length, at a stop string, at the end token. */
static void test_ends_within_guesses(void **state)
{
    (void)state;
    fake_habit = 100;
    fake_prompt(prompts[0], 60, 5, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 60);
    r.sampling.forbid_ends = true;
    r.max_tokens = 120;
    struct world *whole = world_alone(&r);
    struct answer *a = answer_of(whole, 1, 1, 0);
    for (uint32_t n = 60; n < 80; n++) {
        struct sched_config cfg = FAKE_CONFIG;
        cfg.n_context = 60 + n; /* nor does a guess stand beyond what the context holds */
        struct world *w = world_new(&cfg);
        struct gen_request s = r;
        s.max_tokens = n;
        ask_all(w, &s, 1);
        assert_true(sched_load_now(w->s).accepted > 20);
        all_alike(w, &s, 1);
        world_free(w);
        /* the text from somewhere on occurs before as well: a stop string of its end and what
         * repeats is met in the middle of a run */
        w = world_with(8);
        s = r;
        s.stops[0] = (slice){a->text.p + n, 40};
        s.n_stops = 1;
        ask_all(w, &s, 1);
        all_alike(w, &s, 1);
        assert_int_equal(answer_of(w, 1, 1, 0)->reason, SEQ_STOP);
        world_free(w);
    }
    world_free(whole);
}

static void test_resumed_at_every_token(void **state)
{
    (void)state;
    fake_habit = 97;
    fake_prompt(prompts[0], 50, 9, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 50);
    r.sampling.forbid_ends = true;
    r.max_tokens = 80;
    struct world *whole = world_alone(&r);
    struct answer *a = answer_of(whole, 1, 1, 0);
    for (uint32_t cut = 0; cut < a->n; cut++) {
        struct world *w = world_with(8);
        struct gen_request again = r;
        again.choices[0].ids = a->ids;
        again.choices[0].n_ids = cut;
        ask_all(w, &again, 1);
        struct answer *b = answer_of(w, 1, 1, 0);
        assert_int_equal(b->n, a->n);
        assert_memory_equal(b->ids, a->ids, a->n * sizeof a->ids[0]);
        world_free(w);
    }
    world_free(whole);
}

/* Taken away, or failed, while guesses are being verified. */
static void test_gone_in_the_middle(void **state)
{
    (void)state;
    fake_habit = 100;
    fake_prompt(prompts[0], 60, 5, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 60);
    r.sampling.forbid_ends = true;
    r.max_tokens = 300;
    for (int how = 0; how < 2; how++) {
        struct world *w = world_with(8);
        r.request = 1;
        assert_int_equal(world_ask(w, &r, NULL), 0);
        struct sched_work *work;
        while ((work = sched_plan(w->s, w->now))->n_jobs < 4) {
            fake_compute(w, work);
            sched_result(w->s, w->now, 0, NULL, 1000 + 10 * work->step.n_rows);
            sched_flush(w->s);
        }
        fake_compute(w, work);
        if (how == 0)
            sched_cancel(w->s, 1, 1);
        sched_result(w->s, w->now, how ? ERR_NOMEM : 0, NULL, 1000);
        sched_flush(w->s);
        assert_int_equal(answer_of(w, 1, 1, 0)->err, how ? ERR_NOMEM : 0);
        everything_back(w);
        world_forget(w);
        r.request = 2; /* its prefix is good to go on from */
        ask_all(w, &r, 1);
        all_alike(w, &r, 1);
        world_free(w);
    }
}

/* Guesses that never come true: what they cost is counted. */
static void test_misses_cost_little(void **state)
{
    (void)state;
    static const struct {
        uint64_t step_us, row_us;
    } machines[] = {{0, 1000}, {1000, 100}, {1000, 300}, {1000, 10}};
    fake_habit = FAKE_NEW;
    for (size_t m = 0; m < ARRAY_LEN(machines); m++) {
        struct world *on = world_with(8), *off = world_with(0);
        on->step_us = off->step_us = machines[m].step_us;
        on->row_us = off->row_us = machines[m].row_us;
        for (uint64_t i = 0; i < 400; i++) {
            fake_prompt(prompts[0], 2, i, 0);
            struct gen_request r = fake_request(1, 1 + i, prompts[0], 2);
            r.max_tokens = 58;
            ask_all(on, &r, 1);
            ask_all(off, &r, 1);
            world_forget(on);
            world_forget(off);
        }
        struct sched_load l = sched_load_now(on->s);
        assert_true(l.drafted > 0); /* it goes on looking whether that has changed */
        assert_true(l.accepted * 20 < l.drafted);
        assert_true(on->busy_us * 100 < off->busy_us * 103);
        if (machines[m].step_us == 0)
            assert_true(l.drafted * 100 < l.rows * 3);
        world_free(on);
        world_free(off);
    }
}

/* … and soon after that they do. */
static void test_notices_when_guesses_come_true(void **state)
{
    (void)state;
    struct world *w = world_with(8);
    w->row_us = 100;
    for (uint64_t i = 0; i < 200; i++) {
        fake_habit = i < 150 ? FAKE_NEW : 95;
        fake_prompt(prompts[0], 40, i, 0);
        struct gen_request r = fake_request(1, 1 + i, prompts[0], i < 150 ? 2 : 40);
        r.sampling.forbid_ends = true;
        r.max_tokens = i < 150 ? 58 : 100;
        ask_all(w, &r, 1);
        world_forget(w);
        if (i == 159)
            w->steps = 0;
    }
    assert_true(w->steps * 2 < 40 * 100);
    world_free(w);
}

/* A row that costs as much as any other is spent on a guess only where it is nearly certain. */
static void test_other_rows_come_first(void **state)
{
    (void)state;
    struct gen_request rs[MANY];
    make_requests(rs, MANY, 0);
    fake_habit = 70;
    struct world *w = world_with(8);
    w->step_us = 10;
    w->row_us = 1000;
    for (size_t i = 0; i < MANY; i++) {
        rs[i].sampling.forbid_ends = true;
        rs[i].max_tokens = 200;
        assert_int_equal(world_ask(w, &rs[i], NULL), 0);
    }
    world_run(w);
    struct sched_load l = sched_load_now(w->s);
    assert_true((l.drafted - l.accepted) * 100 < l.rows * 3);
    all_alike(w, rs, MANY);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_in_a_storm),
        cmocka_unit_test(test_fewer_steps_where_answers_repeat),
        cmocka_unit_test(test_credit),
        cmocka_unit_test(test_ends_within_guesses),
        cmocka_unit_test(test_resumed_at_every_token),
        cmocka_unit_test(test_gone_in_the_middle),
        cmocka_unit_test(test_misses_cost_little),
        cmocka_unit_test(test_notices_when_guesses_come_true),
        cmocka_unit_test(test_other_rows_come_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
