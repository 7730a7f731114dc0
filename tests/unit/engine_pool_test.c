#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <time.h>

#include "engine/pool.h"

#define PARTS 1000

struct job {
    pool *p;
    atomic_int seen[PARTS];
    atomic_int wrong_thread;
    int slow_part;
};

static void count(void *ctx, size_t part, int thread)
{
    struct job *j = ctx;
    atomic_fetch_add(&j->seen[part], 1);
    if (thread < 0 || thread >= pool_size(j->p))
        atomic_fetch_add(&j->wrong_thread, 1);
}

static void every_part_runs_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 8; threads++) {
        struct job j = {0};
        assert_int_equal(pool_new(threads, &j.p, NULL), 0);
        assert_int_equal(pool_size(j.p), threads);
        int runs = 0;
        for (size_t n = 0; n <= PARTS; n += n < 20 ? 1 : 97, runs++)
            pool_run(j.p, count, &j, n);
        pool_run(j.p, count, &j, PARTS);
        assert_int_equal(j.seen[0], runs); /* all but the run of no parts, and the last */
        assert_int_equal(j.seen[PARTS - 1], 1);
        assert_int_equal(j.wrong_thread, 0);
        pool_free(j.p);
    }
}

/* Many small runs back to back: a late thread must not take a part of another run. */
static void runs_do_not_mix(void **state)
{
    (void)state;
    struct job j = {0};
    assert_int_equal(pool_new(4, &j.p, NULL), 0);
    for (int i = 0; i < 20000; i++)
        pool_run(j.p, count, &j, 1 + (size_t)i % 5);
    assert_int_equal(j.seen[0], 20000);
    assert_int_equal(j.seen[4], 4000);
    pool_free(j.p);
}

/* The threads have gone to sleep: the next run still has all its parts done. */
static void a_run_after_a_rest(void **state)
{
    (void)state;
    struct job j = {0};
    assert_int_equal(pool_new(3, &j.p, NULL), 0);
    for (int i = 0; i < 5; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        pool_run(j.p, count, &j, 64);
    }
    assert_int_equal(j.seen[63], 5);
    pool_free(j.p);
}

static void linger(void *ctx, size_t part, int thread)
{
    struct job *j = ctx;
    if ((int)part == j->slow_part)
        nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    count(ctx, part, thread);
}

/* The caller sleeps until the slowest part is done, whoever has it. */
static void the_caller_waits_for_the_last_part(void **state)
{
    (void)state;
    struct job j = {0};
    assert_int_equal(pool_new(3, &j.p, NULL), 0);
    for (int i = 0; i < 4; i++) {
        j.slow_part = i;
        pool_run(j.p, linger, &j, 4);
        for (int k = 0; k < 4; k++)
            assert_int_equal(j.seen[k], i + 1);
    }
    pool_free(j.p);
}

static void sizes_out_of_range_are_refused(void **state)
{
    (void)state;
    pool *p;
    struct why w;
    assert_int_equal(pool_new(0, &p, &w), ERR_INVALID);
    assert_null(p);
    assert_int_equal(pool_new(ENGINE_THREADS_MAX + 1, &p, &w), ERR_INVALID);
    assert_string_equal(w.field, "threads");
    pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_runs_once),
        cmocka_unit_test(runs_do_not_mix),
        cmocka_unit_test(a_run_after_a_rest),
        cmocka_unit_test(the_caller_waits_for_the_last_part),
        cmocka_unit_test(sizes_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
