/* The scheduler with a fake engine: answers are the same however they are batched, preempted,
 * resumed or shared. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/model_asks.h"

static void test_alone_or_among_others(void **state)
{
    (void)state;
    struct gen_request rs[MANY];
    make_requests(rs, MANY, 0);
    uint32_t budgets[] = {32, 33, 100, 4000};
    for (size_t b = 0; b < ARRAY_LEN(budgets); b++) {
        struct sched_config cfg = FAKE_CONFIG;
        cfg.step_tokens = budgets[b];
        struct world *w = world_new(&cfg);
        for (size_t i = 0; i < MANY; i++)
            assert_int_equal(world_ask(w, &rs[i], NULL), 0);
        world_run(w);
        assert_true(w->rows_most <= budgets[b]);
        all_alike(w, rs, MANY);
        everything_back(w);
        world_free(w);
    }
}

static void test_shared_prefix_computed_once(void **state)
{
    (void)state;
    struct gen_request rs[MANY];
    make_requests(rs, MANY, 160);
    uint64_t all = 0;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.draft_max = 0; /* rows are counted */
    struct world *w = world_new(&cfg);
    for (size_t i = 0; i < MANY; i++) {
        all += rs[i].n_prompt;
        assert_int_equal(world_ask(w, &rs[i], NULL), 0);
    }
    world_run(w);
    all_alike(w, rs, MANY);
    uint64_t decoded = 0;
    for (size_t i = 0; i < MANY; i++)
        decoded += answer_of(w, rs[i].gateway, rs[i].request, 0)->n - 1;
    assert_int_equal(w->rows, all - 15 * 160 + decoded);
    everything_back(w);
    world_free(w);
}

static void test_prefix_found_again(void **state)
{
    (void)state;
    /* lengths on both sides of a block's border: at it, the last token alone is computed, in a copy
     * of the block */
    for (uint32_t len = 30; len <= 34; len++) {
        fake_prompt(prompts[0], len, 5, 0);
        struct gen_request r = fake_request(1, 1, prompts[0], len);
        r.max_tokens = 1;
        struct world *w = world_new(&FAKE_CONFIG);
        assert_int_equal(world_ask(w, &r, NULL), 0);
        world_run(w);
        uint64_t before = w->rows;
        r.request = 2;
        assert_int_equal(world_ask(w, &r, NULL), 0);
        world_run(w);
        uint32_t expect = len / 16 * 16 < len ? len / 16 * 16 : len - 1;
        assert_int_equal(answer_of(w, 1, 1, 0)->cached, 0);
        assert_int_equal(answer_of(w, 1, 2, 0)->cached, expect);
        assert_int_equal(w->rows - before, len - expect);
        assert_int_equal(answer_of(w, 1, 1, 0)->ids[0], answer_of(w, 1, 2, 0)->ids[0]);
        world_free(w);
    }
}

/* Tenants and salts keep prefixes apart. */
static void test_prefix_not_shared(void **state)
{
    (void)state;
    static const char other[GENERATE_TENANT_BYTES] = {1};
    static const struct gen_salt salt = {0, {"0123456789abcdef", 16}};
    fake_prompt(prompts[0], 64, 5, 0);
    struct world *w = world_new(&FAKE_CONFIG);
    struct gen_request r = fake_request(1, 1, prompts[0], 64);
    assert_int_equal(world_ask(w, &r, NULL), 0);
    world_run(w);
    r.request = 2;
    r.tenant.p = other;
    assert_int_equal(world_ask(w, &r, NULL), 0);
    world_run(w);
    assert_int_equal(answer_of(w, 1, 2, 0)->cached, 0);
    r = fake_request(1, 3, prompts[0], 64);
    r.salts = &salt;
    r.n_salts = 1;
    assert_int_equal(world_ask(w, &r, NULL), 0);
    world_run(w);
    assert_int_equal(answer_of(w, 1, 3, 0)->cached, 0);
    r = fake_request(1, 4, prompts[0], 64);
    assert_int_equal(world_ask(w, &r, NULL), 0);
    world_run(w);
    assert_int_equal(answer_of(w, 1, 4, 0)->cached, 63);
    world_free(w);
}

static void test_preempted_goes_on_alike(void **state)
{
    (void)state;
    struct gen_request rs[MANY];
    make_requests(rs, MANY, 0);
    for (uint32_t blocks = 24; blocks <= 60; blocks += 4) {
        struct sched_config cfg = FAKE_CONFIG;
        cfg.n_blocks = blocks;
        cfg.n_context = (blocks - 1) * ENGINE_BLOCK_TOKENS;
        for (size_t i = 0; i < MANY; i++)
            rs[i].max_tokens = 60;
        struct world *w = world_new(&cfg);
        for (size_t i = 0; i < MANY; i++) {
            rs[i].sampling.forbid_ends = true;
            assert_int_equal(world_ask(w, &rs[i], NULL), 0);
        }
        world_run(w);
        all_alike(w, rs, MANY);
        if (blocks < 40)
            assert_true(sched_load_now(w->s).preemptions > 0);
        everything_back(w);
        world_free(w);
    }
}

static void test_choices(void **state)
{
    (void)state;
    for (uint32_t len = 1; len < 50; len += 3) {
        fake_prompt(prompts[0], len, 3, 0);
        struct gen_request r = fake_request(1, 1, prompts[0], len);
        r.n_choices = 8;
        for (uint32_t i = 0; i < 8; i++)
            r.choices[i].index = i;
        struct sched_config cfg = FAKE_CONFIG;
        cfg.draft_max = 0; /* rows are counted */
        struct world *w = world_new(&cfg);
        assert_int_equal(world_ask(w, &r, NULL), 0);
        world_run(w);
        uint64_t decoded = 0;
        for (uint32_t i = 0; i < 8; i++) {
            struct gen_request one = r;
            one.n_choices = 1;
            one.choices[0].index = i;
            struct world *alone = world_alone(&one);
            assert_true(answer_same(answer_of(w, 1, 1, i), answer_of(alone, 1, 1, i)));
            decoded += answer_of(w, 1, 1, i)->n - 1;
            world_free(alone);
        }
        /* the prompt once, its last token once more for each further choice */
        assert_int_equal(w->rows, len + 7 + decoded);
        assert_int_not_equal(memcmp(answer_of(w, 1, 1, 0)->ids, answer_of(w, 1, 1, 1)->ids, 8), 0);
        everything_back(w);
        world_free(w);
    }
}

static void test_resume_at_every_token(void **state)
{
    (void)state;
    fake_prompt(prompts[0], 37, 8, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 37);
    /* a string that ends the answer late, and one that is begun many times */
    r.sampling.seed = 3;
    r.max_tokens = 60;
    r.stops[0] = SLICE_LIT("zzzz");
    r.stops[1] = SLICE_LIT("ab");
    r.n_stops = 2;
    struct world *whole = world_alone(&r);
    struct answer *x = answer_of(whole, 1, 1, 0);
    assert_true(x->done && x->n > 3);
    for (size_t cut = 0; cut <= x->n; cut++) {
        struct world *first = world_new(&FAKE_CONFIG);
        assert_int_equal(world_ask(first, &r, NULL), 0);
        struct answer *p = answer_of(first, 1, 1, 0);
        while (p->n < cut && world_step(first))
            ;
        buf text = {0}; /* what the client had when the worker died, before DONE came */
        if (!p->done || p->n < cut)
            buf_put_slice(&text, buf_slice(&p->text));
        else
            buf_put(&text, p->text.p, p->text.n);
        struct gen_request again = r;
        again.choices[0].ids = x->ids;
        again.choices[0].n_ids = (uint32_t)cut;
        struct world *second = world_new(&FAKE_CONFIG);
        assert_int_equal(world_ask(second, &again, NULL), 0);
        world_run(second);
        struct answer *q = answer_of(second, 1, 1, 0);
        assert_true(q->done);
        assert_int_equal(q->n, x->n);
        assert_memory_equal(q->ids, x->ids, x->n * sizeof x->ids[0]);
        assert_int_equal(q->reason, x->reason);
        if (cut < x->n) {
            buf_put_slice(&text, buf_slice(&q->text));
            assert_true(slice_eq(buf_slice(&text), buf_slice(&x->text)));
        }
        buf_clear(&text);
        world_free(first);
        world_free(second);
    }
    world_free(whole);
}

/* The worker died between the last delta and DONE: what was held back and the end are still to be
 * told. */
static void test_resume_at_the_end(void **state)
{
    (void)state;
    fake_prompt(prompts[0], 20, 5, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 20);
    struct world *w = NULL;
    for (uint64_t seed = 0; !w; seed++) {
        r.sampling.seed = seed;
        w = world_alone(&r);
        struct answer *a = answer_of(w, 1, 1, 0);
        if (a->reason == SEQ_LENGTH || a->text.n == 0) {
            world_free(w);
            w = NULL;
        }
    }
    struct answer *a = answer_of(w, 1, 1, 0);
    char stop[2] = {a->text.p[a->text.n - 1], '!'};
    struct gen_request s = r;
    s.stops[0] = (slice){stop, 2};
    s.n_stops = 1;
    s.choices[0].ids = a->ids;
    s.choices[0].n_ids = (uint32_t)a->n;
    struct world *v = world_alone(&s);
    struct answer *b = answer_of(v, 1, 1, 0);
    assert_true(b->done);
    assert_int_equal(b->reason, SEQ_STOP);
    assert_int_equal(b->stop.n, 0);
    assert_int_equal(b->n_ids_told, a->n);
    assert_true(slice_eq(buf_slice(&b->text), (slice){stop, 1}));
    assert_int_equal(v->steps, 0);
    everything_back(v);
    world_free(v);
    world_free(w);
}

static void test_ids_beyond_the_end_refused(void **state)
{
    (void)state;
    static const int32_t ids[] = {5, FAKE_END, 6};
    fake_prompt(prompts[0], 10, 8, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 10);
    r.choices[0] = (struct gen_choice){0, ids, 3};
    struct world *w = world_new(&FAKE_CONFIG);
    assert_int_equal(world_ask(w, &r, NULL), ERR_INVALID);
    everything_back(w);
    world_free(w);
}

static void test_cancel_gives_everything_back(void **state)
{
    (void)state;
    struct sched_config cfg = FAKE_CONFIG;
    cfg.n_blocks = 64;
    cfg.n_context = 512;
    struct world *w = world_new(&cfg);
    uint64_t rnd = 1;
    for (uint32_t i = 0; i < 100000; i++) {
        rnd = fake_mix(rnd, i);
        uint32_t len = 1 + (uint32_t)(rnd % 60);
        fake_prompt(prompts[0], len, rnd % 50, 16);
        struct gen_request r = fake_request(1 + rnd % 2, 1 + i, prompts[0], len);
        r.n_choices = 1 + rnd / 7 % 3;
        for (uint32_t c = 0; c < r.n_choices; c++)
            r.choices[c].index = c;
        r.credit = rnd / 11 % 4;
        (void)world_ask(w, &r, NULL);
        /* between steps, or while one is computed */
        struct sched_work *work = rnd / 13 % 2 ? sched_plan(w->s, w->now) : NULL;
        if (rnd / 17 % 3)
            sched_cancel(w->s, r.gateway, r.request);
        if (work) {
            fake_compute(w, work);
            sched_result(w->s, w->now, 0, NULL, 10);
        }
        if (i % 64 == 63) {
            if (rnd / 19 % 2)
                sched_gateway_gone(w->s, 1), sched_gateway_gone(w->s, 2);
            else
                for (uint32_t k = i - 63; k <= i; k++)
                    sched_cancel(w->s, 1, 1 + k), sched_cancel(w->s, 2, 1 + k);
        }
        sched_flush(w->s);
        if (i % 64 == 63) {
            world_forget(w);
            everything_back(w);
        }
    }
    sched_gateway_gone(w->s, 1);
    sched_gateway_gone(w->s, 2);
    everything_back(w);
    world_free(w);
}

/* A cancel takes the request out of the very next step, and what it had computed stays findable. */
static void test_cancel_keeps_the_prefix(void **state)
{
    (void)state;
    fake_prompt(prompts[0], 64, 5, 0);
    struct world *w = world_new(&FAKE_CONFIG);
    struct gen_request r = fake_request(1, 1, prompts[0], 64);
    assert_int_equal(world_ask(w, &r, NULL), 0);
    assert_true(world_step(w));
    sched_cancel(w->s, 1, 1);
    assert_false(world_step(w));
    everything_back(w);
    r.request = 2;
    assert_int_equal(world_ask(w, &r, NULL), 0);
    world_run(w);
    assert_int_equal(answer_of(w, 1, 2, 0)->cached, 63);
    assert_false(answer_of(w, 1, 1, 0)->done);
    world_free(w);
}

static void test_credit_parks(void **state)
{
    (void)state;
    fake_prompt(prompts[0], 20, 5, 0);
    struct world *w = world_new(&FAKE_CONFIG);
    struct gen_request r = fake_request(1, 1, prompts[0], 20);
    r.sampling.forbid_ends = true;
    r.credit = 0;
    assert_int_equal(world_ask(w, &r, NULL), 0);
    assert_false(world_step(w));
    struct answer *a = answer_of(w, 1, 1, 0);
    for (size_t n = 1; n <= 20; n += 3) {
        sched_credit(w->s, 1, 1, n - a->n);
        world_run(w);
        assert_int_equal(a->n, n);
        assert_false(a->done);
    }
    sched_credit(w->s, 1, 1, UINT64_MAX);
    sched_credit(w->s, 1, 1, UINT64_MAX); /* adds up without overflow */
    world_run(w);
    r.credit = UINT64_MAX;
    all_alike(w, &r, 1);
    everything_back(w);
    world_free(w);
}

/* All choices together: never one token more than granted. */
static void test_credit_is_shared_by_choices(void **state)
{
    (void)state;
    fake_prompt(prompts[0], 20, 5, 0);
    struct world *w = world_new(&FAKE_CONFIG);
    struct gen_request r = fake_request(1, 1, prompts[0], 20);
    r.sampling.forbid_ends = true;
    r.n_choices = 3;
    r.choices[1].index = 1;
    r.choices[2].index = 2;
    r.credit = 11; /* not a multiple of the choices */
    assert_int_equal(world_ask(w, &r, NULL), 0);
    world_run(w);
    size_t n = 0;
    for (uint32_t c = 0; c < 3; c++)
        n += answer_of(w, 1, 1, c)->n;
    assert_int_equal(n, 11);
    sched_credit(w->s, 1, 1, 1000);
    world_run(w);
    r.credit = UINT64_MAX;
    all_alike(w, &r, 1);
    world_free(w);
}

static void test_ends(void **state)
{
    (void)state;
    fake_prompt(prompts[0], 20, 5, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 20);
    r.sampling.forbid_ends = true;
    r.max_tokens = 7;
    struct world *w = world_alone(&r);
    assert_int_equal(answer_of(w, 1, 1, 0)->n, 7);
    assert_int_equal(answer_of(w, 1, 1, 0)->reason, SEQ_LENGTH);
    world_free(w);
    /* one among many seeds ends by itself */
    size_t ended = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        r.sampling.forbid_ends = false;
        r.sampling.seed = seed;
        r.max_tokens = 400;
        w = world_alone(&r);
        struct answer *a = answer_of(w, 1, 1, 0);
        assert_int_equal(a->n_ids_told, a->n);
        if (a->reason == SEQ_STOP) {
            ended++;
            assert_int_equal(a->ids[a->n - 1], FAKE_END);
            assert_int_equal(a->stop.n, 0);
        }
        world_free(w);
    }
    assert_true(ended > 10);
}

static void test_stop_string_over_tokens(void **state)
{
    (void)state;
    fake_prompt(prompts[0], 20, 5, 0);
    struct gen_request r = fake_request(1, 1, prompts[0], 20);
    r.sampling.forbid_ends = true;
    struct world *w = world_alone(&r);
    struct answer *a = answer_of(w, 1, 1, 0);
    assert_true(a->text.n > 30);
    /* any piece of the text, also across tokens, ends it just before */
    for (size_t at = 0; at + 5 < a->text.n; at++) {
        slice stop = {a->text.p + at, 5};
        size_t first = 0;
        while (memcmp(a->text.p + first, stop.p, stop.n) != 0)
            first++;
        struct gen_request s = r;
        s.stops[0] = stop;
        s.n_stops = 1;
        struct world *v = world_alone(&s);
        struct answer *b = answer_of(v, 1, 1, 0);
        assert_int_equal(b->reason, SEQ_STOP);
        assert_true(slice_eq(buf_slice(&b->stop), stop));
        assert_true(slice_eq(buf_slice(&b->text), (slice){a->text.p, first}));
        world_free(v);
    }
    world_free(w);
}

static void test_engine_error_ends_its_requests(void **state)
{
    (void)state;
    struct gen_request rs[3];
    make_requests(rs, 3, 0);
    struct world *w = world_new(&FAKE_CONFIG);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(world_ask(w, &rs[i], NULL), 0);
    assert_true(world_step(w));
    w->fail_next = ERR_NOMEM;
    assert_true(world_step(w));
    size_t failed = 0;
    for (size_t i = 0; i < 3; i++)
        failed += answer_of(w, rs[i].gateway, rs[i].request, 0)->err == ERR_NOMEM;
    assert_true(failed > 0);
    world_run(w);
    everything_back(w);
    world_free(w);
}

static void test_attempts(void **state)
{
    (void)state;
    fake_prompt(prompts[0], 20, 5, 0);
    struct world *w = world_new(&FAKE_CONFIG);
    struct gen_request r = fake_request(1, 1, prompts[0], 20);
    r.attempt = 1;
    assert_int_equal(world_ask(w, &r, NULL), 0);
    assert_int_equal(world_ask(w, &r, NULL), ERR_EXISTS);
    assert_true(world_step(w));
    r.attempt = 2;
    world_forget(w);
    assert_int_equal(world_ask(w, &r, NULL), 0);
    assert_int_equal(sched_open(w->s), 1);
    world_run(w);
    all_alike(w, &r, 1);
    everything_back(w);
    world_free(w);
}

static void test_one_batch_per_gateway_and_step(void **state)
{
    (void)state;
    struct gen_request rs[12];
    make_requests(rs, 12, 0);
    struct sched_config cfg = FAKE_CONFIG;
    cfg.step_tokens = 4000;
    struct world *w = world_new(&cfg);
    for (size_t i = 0; i < 12; i++) {
        rs[i].sampling.forbid_ends = true;
        rs[i].max_tokens = 20;
        assert_int_equal(world_ask(w, &rs[i], NULL), 0);
    }
    world_run(w);
    assert_true(w->batches <= 3 * w->steps);
    assert_true(w->batches >= w->steps);
    world_free(w);
}

static void test_storm(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++)
        storm(seed, FAKE_CONFIG.draft_max);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone_or_among_others),
        cmocka_unit_test(test_shared_prefix_computed_once),
        cmocka_unit_test(test_prefix_found_again),
        cmocka_unit_test(test_prefix_not_shared),
        cmocka_unit_test(test_preempted_goes_on_alike),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_resume_at_every_token),
        cmocka_unit_test(test_resume_at_the_end),
        cmocka_unit_test(test_ids_beyond_the_end_refused),
        cmocka_unit_test(test_cancel_gives_everything_back),
        cmocka_unit_test(test_cancel_keeps_the_prefix),
        cmocka_unit_test(test_credit_parks),
        cmocka_unit_test(test_credit_is_shared_by_choices),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_stop_string_over_tokens),
        cmocka_unit_test(test_engine_error_ends_its_requests),
        cmocka_unit_test(test_attempts),
        cmocka_unit_test(test_one_batch_per_gateway_and_step),
        cmocka_unit_test(test_storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
