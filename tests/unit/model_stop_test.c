/* Stop strings: the same outcome however the bytes are cut, and nothing held back that cannot begin
 * one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model-svc/stop.h"

struct outcome {
    buf text;
    int hit;
    size_t fed; /* bytes until the end */
};

static void run(const slice *stops, size_t n, slice in, size_t piece, struct outcome *o)
{
    struct stop_set set;
    struct stop_state st = {0};
    stops_init(&set, stops, n);
    *o = (struct outcome){.hit = -1};
    while (o->fed < in.n && o->hit < 0) {
        size_t k = in.n - o->fed < piece ? in.n - o->fed : piece;
        o->hit = stops_feed(&set, &st, (slice){in.p + o->fed, k}, &o->text);
        o->fed += k;
    }
    if (o->hit < 0)
        buf_put_slice(&o->text, stops_held(&st));
}

/* By the definition: the first end of any, the longest of those. */
static int naive(const slice *stops, size_t n, slice in, size_t *text)
{
    for (size_t end = 1; end <= in.n; end++) {
        int best = -1;
        for (size_t s = 0; s < n; s++)
            if (stops[s].n <= end && memcmp(in.p + end - stops[s].n, stops[s].p, stops[s].n) == 0 &&
                (best < 0 || stops[s].n > stops[best].n))
                best = (int)s;
        if (best >= 0) {
            *text = end - stops[best].n;
            return best;
        }
    }
    *text = in.n;
    return -1;
}

static void test_any_cut(void **state)
{
    (void)state;
    uint64_t rnd = 12345;
    for (int round = 0; round < 3000; round++) {
        char in[64], text[STOPS_MAX][6];
        slice stops[STOPS_MAX];
        for (size_t i = 0; i < sizeof in;
             i++, rnd = rnd * 6364136223846793005u + 1442695040888963407u)
            in[i] = (char)('a' + (rnd >> 33) % 3);
        size_t n = 1 + (rnd >> 40) % 4;
        for (size_t s = 0; s < n; s++) {
            stops[s] = (slice){text[s], 2 + (rnd >> 45) % 5};
            for (size_t i = 0; i < stops[s].n;
                 i++, rnd = rnd * 6364136223846793005u + 1442695040888963407u)
                text[s][i] = (char)('a' + (rnd >> 33) % 3);
        }
        size_t expect;
        int hit = naive(stops, n, (slice){in, sizeof in}, &expect);
        for (size_t piece = 1; piece <= sizeof in; piece = piece * 2 + 1) {
            struct outcome o;
            run(stops, n, (slice){in, sizeof in}, piece, &o);
            assert_int_equal(o.hit, hit);
            assert_int_equal(o.text.n, expect);
            assert_memory_equal(o.text.p ? o.text.p : in, in, expect);
            buf_clear(&o.text);
        }
    }
}

static void test_holds_back_no_more_than_needed(void **state)
{
    (void)state;
    struct stop_set set;
    struct stop_state st = {0};
    slice stop = SLICE_LIT("\n\nQ:");
    buf out = {0};
    stops_init(&set, &stop, 1);
    assert_int_equal(stops_feed(&set, &st, SLICE_LIT("yes.\n"), &out), -1);
    assert_true(slice_eq(buf_slice(&out), SLICE_LIT("yes.")));
    assert_true(slice_eq(stops_held(&st), SLICE_LIT("\n")));
    assert_int_equal(stops_feed(&set, &st, SLICE_LIT("\n\n"), &out), -1);
    assert_true(slice_eq(buf_slice(&out), SLICE_LIT("yes.\n")));
    assert_int_equal(stops_feed(&set, &st, SLICE_LIT("Q"), &out), -1);
    assert_int_equal(stops_feed(&set, &st, SLICE_LIT(": and more"), &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE_LIT("yes.\n")));
    buf_clear(&out);
}

static void test_longest_allowed(void **state)
{
    (void)state;
    char text[STOP_BYTES_MAX];
    memset(text, 'x', sizeof text);
    slice stop = {text, sizeof text};
    struct outcome o;
    char *in = xcalloc(1000, 1);
    memset(in, 'x', 1000);
    run(&stop, 1, (slice){in, 255}, 7, &o);
    assert_int_equal(o.hit, -1);
    assert_int_equal(o.text.n, 255);
    buf_clear(&o.text);
    in[254] = 'y';
    run(&stop, 1, (slice){in, 1000}, 1, &o);
    assert_int_equal(o.hit, 0);
    assert_int_equal(o.text.n, 255);
    buf_clear(&o.text);
    free(in);
}

static void test_none(void **state)
{
    (void)state;
    struct outcome o;
    run(NULL, 0, SLICE_LIT("all of it"), 4, &o);
    assert_int_equal(o.hit, -1);
    assert_true(slice_eq(buf_slice(&o.text), SLICE_LIT("all of it")));
    buf_clear(&o.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_cut),
        cmocka_unit_test(test_holds_back_no_more_than_needed),
        cmocka_unit_test(test_longest_allowed),
        cmocka_unit_test(test_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
