/* What speeds are a share of: that each instruction set's loops do work and are timed, what is
 * refused, and how many positions a token attends to. How fast a machine is, no test says. */
#include "tests/unit/engine_testing.h"

#include "engine/model/family.h"

static void every_instruction_set_has_limits(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n = all_kernels(k);
    for (size_t i = 0; i < n; i++) {
        struct engine_limits l;
        struct why w = {0};
        assert_int_equal(engine_limits_measure(k[i]->name, 1, &l, &w), 0);
        bool known = strcmp(k[i]->name, "portable") != 0;
        assert_int_equal(l.threads, 1);
        assert_true(l.read_bytes > 0);
        assert_int_equal(l.int8_ops > 0, known);
        assert_int_equal(l.float_ops > 0, known);
        assert_true(!known || l.int8_ops > l.float_ops);
    }
}

static void what_cannot_be_measured_is_refused(void **state UNUSED)
{
    struct engine_limits l;
    struct why w = {0};
    assert_int_equal(engine_limits_measure("mmx", 1, &l, &w), ERR_INVALID);
    assert_non_null(strstr(w.text, "mmx"));
    assert_int_equal(engine_limits_measure(NULL, -1, &l, &w), ERR_INVALID);
    assert_int_equal(engine_limits_measure(NULL, 257, &l, &w), ERR_INVALID);
}

/* The loops' results: sums that a compiler cannot leave out, and the largest number read, wherever
 * it stands. */
static void the_loops_do_their_work(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n = all_kernels(k);
    float *p = aligned_floats(256);
    for (size_t i = 0; i < n; i++) {
        const struct peak *peak = &k[i]->peak;
        assert_true(peak->dot_ops == 0 || peak->dots(1001) > peak->dots(1000));
        assert_int_equal(peak->fmas(1000) % 12, 0); /* twelve sums in every lane are near 2 */
        for (size_t at = 0; at < 256; at++) {
            p[at] = 1;
            assert_int_equal(peak->read(p, 256), 0x3f800000);
            p[at] = 0;
            assert_int_equal(peak->read(p, 256), 0);
        }
    }
    free(p);
}

static void windows_shorten_what_is_attended_to(void **state UNUSED)
{
    const struct family windowed = {.global_every = 2}, plain = {0};
    struct shape s = {.family = &windowed, .n_layer = 3, .window = 4};
    assert_int_equal(shape_attended(&s, 3), 9);
    assert_int_equal(shape_attended(&s, 4), 12);
    assert_int_equal(shape_attended(&s, 10), 4 + 10 + 4);
    s.family = &plain;
    assert_int_equal(shape_attended(&s, 10), 12);
    s.family = &windowed;
    s.window = 0;
    assert_int_equal(shape_attended(&s, 10), 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_instruction_set_has_limits),
        cmocka_unit_test(what_cannot_be_measured_is_refused),
        cmocka_unit_test(the_loops_do_their_work),
        cmocka_unit_test(windows_shorten_what_is_attended_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
