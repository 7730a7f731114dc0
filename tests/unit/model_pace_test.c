/* What steps cost, learnt from steps of machines made up here. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "model-svc/pace.h"

/* A machine: reading the weights, products of a row (more than the weights' time only beyond some
 * rows), a row of the vocabulary, looking back at a position. */
struct machine {
    double weights, row, words, look;
};
static const struct machine SMALL = {4000, 350, 100, 0.2}, LARGE = {20000, 3000, 300, 1};

static uint64_t takes(const struct machine *m, const struct pace_rows *r, uint64_t decode_looks)
{
    double products = m->row * (r->decode + r->prompt);
    return (uint64_t)((products > m->weights ? products : m->weights) + products / 4 +
                      m->words * r->decode + m->look * (double)(r->looks + decode_looks));
}

static uint64_t noisy(uint64_t us, uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return us * (90 + (*s >> 33) % 21) / 100;
}

static struct pace pace_of(void)
{
    return (struct pace){.target_us = 100000, .rows_max = 512};
}

static void near(double value, double truth, double share)
{
    if (fabs(value - truth) > truth * share)
        fail_msg("%g where %g is true", value, truth);
}

static void test_decodes(void **state)
{
    (void)state;
    struct pace p = pace_of();
    uint64_t s = 1;
    assert_true(pace_decode_us(&p, 1) <= 0);
    for (int i = 0; i < 400; i++) {
        struct pace_rows r = {.decode = 1 + (uint32_t)(s >> 40) % 16};
        pace_step(&p, &r, r.decode, noisy(takes(&SMALL, &r, 0), &s));
    }
    for (uint32_t n = 1; n <= 16; n++) {
        struct pace_rows r = {.decode = n};
        near(pace_decode_us(&p, n), (double)takes(&SMALL, &r, 0), 0.15);
    }
    for (uint32_t n = 1; n < 64; n++)
        assert_true(pace_decode_us(&p, n + 1) >= pace_decode_us(&p, n));
}

/* From steps of one size alone: others are believed to cost more for more rows, less than as many
 * steps. */
static void test_unknown_sizes(void **state)
{
    (void)state;
    for (uint32_t known = 1; known <= 64; known *= 4) {
        struct pace p = pace_of();
        pace_step(&p, &(struct pace_rows){.decode = known}, known, 8000);
        near(pace_decode_us(&p, known), 8000, 0.01);
        for (uint32_t n = 1; n < 128; n++) {
            double us = pace_decode_us(&p, n), more = pace_decode_us(&p, n + 1);
            assert_true(more > us && more < us * (n + 1) / n);
        }
    }
}

static void test_one_slow_step(void **state)
{
    (void)state;
    struct pace p = pace_of();
    for (int i = 0; i < 50; i++)
        pace_step(&p, &(struct pace_rows){.decode = 1}, 1, 5000);
    pace_step(&p, &(struct pace_rows){.decode = 1}, 1, 500000);
    near(pace_decode_us(&p, 1), 5000, 0.25);
}

/* Prefills one prompt beside so many decodes; the longest step that was cut by time. */
static uint64_t prefill(struct pace *p, const struct machine *m, uint32_t prompt, uint32_t decodes,
                        uint64_t *s)
{
    uint64_t most = 0;
    for (uint32_t at = 0; at < prompt;) {
        uint32_t rows = pace_prompt_rows(p, pace_prompt_time(p, decodes), at);
        rows = rows < 16 ? 16 : rows;
        rows = rows < prompt - at ? rows : prompt - at;
        struct pace_rows r = {decodes, rows, pace_looks(at, rows)};
        uint64_t us = noisy(takes(m, &r, 0), s);
        if (rows > 16)
            most = us > most ? us : most;
        pace_step(p, &r, decodes, us);
        at += rows;
    }
    return most;
}

static void test_no_step_over_the_target(void **state)
{
    (void)state;
    static const struct machine *const machines[] = {&SMALL, &LARGE};
    for (int m = 0; m < 2; m++) {
        for (uint32_t decodes = 1; decodes <= 16; decodes += 5) {
            struct pace p = pace_of();
            uint64_t s = 7;
            for (int i = 0; i < 20; i++) {
                struct pace_rows r = {.decode = decodes};
                pace_step(&p, &r, decodes, noisy(takes(machines[m], &r, 0), &s));
            }
            (void)prefill(&p, machines[m], 8000, decodes, &s); /* learns */
            uint64_t most = 0;
            for (int i = 0; i < 4; i++) { /* long and short prompts by turns */
                uint64_t a = prefill(&p, machines[m], 8000, decodes, &s);
                uint64_t b = prefill(&p, machines[m], 500, decodes, &s);
                most = a > most ? a : most;
                most = b > most ? b : most;
            }
            if (most > 135000)
                fail_msg("a step of %llu us", (unsigned long long)most);
            /* nor are steps much smaller than they may be */
            uint32_t rows = pace_prompt_rows(&p, pace_prompt_time(&p, decodes), 0);
            struct pace_rows r = {decodes, rows, pace_looks(0, rows)};
            uint64_t us = takes(machines[m], &r, 0);
            if (us < 70000)
                fail_msg("a step of %llu us only", (unsigned long long)us);
        }
    }
}

/* Steps far back in a long text cost more, for fewer rows. */
static void test_long_texts(void **state)
{
    (void)state;
    struct pace p = pace_of();
    uint64_t s = 3;
    for (int i = 0; i < 10; i++)
        (void)prefill(&p, &SMALL, i % 2 ? 16000 : 2000, 0, &s);
    uint32_t near_rows = pace_prompt_rows(&p, 90000, 0);
    uint32_t far_rows = pace_prompt_rows(&p, 90000, 15000);
    /* 350 and 3350 us a row */
    near(near_rows, 90000 / 380.0, 0.3);
    near(far_rows, 90000 / 3360.0, 0.3);
}

/* While nobody waits, a model whose weights take long to read may take longer steps. */
static void test_alone(void **state)
{
    (void)state;
    struct pace p = pace_of();
    uint64_t s = 5;
    (void)prefill(&p, &LARGE, 4000, 0, &s);
    pace_step(&p, &(struct pace_rows){.decode = 1}, 1, 22000);
    assert_true(pace_prompt_time(&p, 0) > 150000);
    assert_true(pace_prompt_time(&p, 1) < 100000);
    p = pace_of();
    (void)prefill(&p, &SMALL, 4000, 0, &s);
    pace_step(&p, &(struct pace_rows){.decode = 1}, 1, 4500);
    assert_true(pace_prompt_time(&p, 0) < 100000);
}

static void test_promises(void **state)
{
    (void)state;
    struct pace p = pace_of();
    assert_int_equal(pace_prefill_rate(&p), 0);
    assert_int_equal(pace_decode_rate(&p), 0);
    assert_int_equal(pace_retry_ms(&p, 0), 100);
    assert_int_equal(pace_retry_ms(&p, 5000), 5000);
    for (int i = 0; i < 50; i++) {
        pace_step(&p, &(struct pace_rows){0, 100, pace_looks(0, 100)}, 1, 50000);
        pace_step(&p, &(struct pace_rows){.decode = 4}, 8, 10000); /* four guesses came true */
    }
    near(pace_prefill_rate(&p), 2000, 0.15);
    near(pace_decode_rate(&p), 800, 0.01);
    near(pace_retry_ms(&p, 10000), 5000, 0.15);
    assert_int_equal(pace_retry_ms(&p, UINT64_MAX), 60000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decodes),       cmocka_unit_test(test_unknown_sizes),
        cmocka_unit_test(test_one_slow_step), cmocka_unit_test(test_no_step_over_the_target),
        cmocka_unit_test(test_long_texts),    cmocka_unit_test(test_alone),
        cmocka_unit_test(test_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
