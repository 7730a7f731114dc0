#include "tests/unit/base_testing.h"

#include <math.h>
#include <pthread.h>

#include "common/base/metrics.h"

static void rendered(slice want)
{
    buf b = {0};
    metrics_render(&b);
    slice all = buf_slice(&b);
    if (!memmem(all.p, all.n, want.p, want.n))
        fail_msg("missing:\n%.*s\nin:\n%.*s", (int)want.n, want.p, (int)all.n, all.p);
    assert_int_equal(all.p[all.n - 1], '\n');
    buf_clear(&b);
}

static void families_stand_together(void **state UNUSED)
{
    metric *a = metric_counter("t_requests_total", "code=\"200\"", "Requests.\nBy \\ code.");
    metric *g = metric_gauge("t_depth", "", "Queue depth.");
    metric *b = metric_counter("t_requests_total", "code=\"429\"", "Requests.\nBy \\ code.");
    metric_inc(a);
    metric_add(b, 2.5);
    metric_set(g, 7);
    metric_add(g, -10);
    assert_true(metric_value(g) == -3);
    rendered(SLICE_LIT(
        "# HELP t_requests_total Requests.\\nBy \\\\ code.\n# TYPE t_requests_total counter\n"
        "t_requests_total{code=\"200\"} 1\nt_requests_total{code=\"429\"} 2.5\n"));
    rendered(SLICE_LIT("# HELP t_depth Queue depth.\n# TYPE t_depth gauge\nt_depth -3\n"));
}

static void the_same_series_is_one(void **state UNUSED)
{
    metric *a = metric_counter("t_same_total", "x=\"1\"", "h");
    metric_inc(a);
    assert_ptr_equal(metric_counter("t_same_total", "x=\"1\"", "h"), a);
    assert_ptr_not_equal(metric_counter("t_same_total", "x=\"2\"", "h"), a);
    const double bounds[] = {1};
    metric *h = metric_histogram("t_same_hist", "", "h", bounds, 1);
    assert_ptr_equal(metric_histogram("t_same_hist", "", "h", bounds, 1), h);
}

static void a_histogram_counts_up(void **state UNUSED)
{
    const double bounds[] = {0.1, 1, 10};
    metric *h = metric_histogram("t_seconds", "svc=\"model\"", "Time.", bounds, 3);
    metric *plain =
        metric_histogram("t_plain_seconds", "", "Time.", METRIC_SECONDS, METRIC_SECONDS_N);
    const double values[] = {0.05, 0.1, 0.5, 10, 11, INFINITY * 0 /* nan: dropped */};
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        metric_observe(h, values[i]);
    metric_observe(plain, 0.0001);
    assert_true(metric_value(h) == 5);
    rendered(SLICE_LIT(
        "# TYPE t_seconds histogram\n"
        "t_seconds_bucket{svc=\"model\",le=\"0.1\"} 2\nt_seconds_bucket{svc=\"model\",le=\"1\"} 3\n"
        "t_seconds_bucket{svc=\"model\",le=\"10\"} 4\nt_seconds_bucket{svc=\"model\",le=\"+Inf\"} "
        "5\n"
        "t_seconds_sum{svc=\"model\"} 21.65\nt_seconds_count{svc=\"model\"} 5\n"));
    rendered(SLICE_LIT("t_plain_seconds_bucket{le=\"0.001\"} 1\n"));
    rendered(SLICE_LIT("t_plain_seconds_count 1\n"));
}

static void special_values_have_their_names(void **state UNUSED)
{
    metric_set(metric_gauge("t_special", "v=\"inf\"", "h"), INFINITY);
    metric_set(metric_gauge("t_special", "v=\"neg\"", "h"), -INFINITY);
    metric_set(metric_gauge("t_special", "v=\"nan\"", "h"), NAN);
    rendered(SLICE_LIT(
        "t_special{v=\"inf\"} +Inf\nt_special{v=\"neg\"} -Inf\nt_special{v=\"nan\"} NaN\n"));
}

static void counter_goes_down(void)
{
    metric_add(metric_counter("t_down_total", "", "h"), -1);
}
static void one_name_two_kinds(void)
{
    metric_counter("t_kind", "a=\"1\"", "h");
    metric_gauge("t_kind", "a=\"2\"", "h");
}
static void unsorted_bounds(void)
{
    const double bounds[] = {2, 1};
    metric_histogram("t_unsorted", "", "h", bounds, 2);
}

static void misuse_is_our_mistake(void **state UNUSED)
{
    assert_true(dies(counter_goes_down));
    assert_true(dies(one_name_two_kinds));
    assert_true(dies(unsorted_bounds));
}

enum { THREADS = 4, ROUNDS = 20000 };
static metric *shared_counter, *shared_histogram;

static void *hammer(void *arg UNUSED)
{
    for (int i = 0; i < ROUNDS; i++) {
        metric_inc(shared_counter);
        metric_observe(shared_histogram, i % 2 ? 0.002 : 100);
    }
    return NULL;
}

static void nothing_is_lost_between_threads(void **state UNUSED)
{
    shared_counter = metric_counter("t_shared_total", "", "h");
    shared_histogram =
        metric_histogram("t_shared_seconds", "", "h", METRIC_SECONDS, METRIC_SECONDS_N);
    pthread_t t[THREADS];
    buf b = {0};
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hammer, NULL), 0);
    metrics_render(&b); /* while they run */
    buf_clear(&b);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    assert_true(metric_value(shared_counter) == THREADS * ROUNDS);
    assert_true(metric_value(shared_histogram) == THREADS * ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_stand_together),
        cmocka_unit_test(the_same_series_is_one),
        cmocka_unit_test(a_histogram_counts_up),
        cmocka_unit_test(special_values_have_their_names),
        cmocka_unit_test(misuse_is_our_mistake),
        cmocka_unit_test(nothing_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
