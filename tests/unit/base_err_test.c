#include "tests/unit/base_testing.h"

#include <errno.h>

static void every_error_has_a_row_and_a_number_of_its_own(void **state UNUSED)
{
    static const int ALL[] = {
#define X(name, num, http, type, retry, text) ERR_##name,
        ERR_MAP(X)
#undef X
    };
    for (size_t i = 0; i < ARRAY_LEN(ALL); i++) {
        assert_true(ALL[i] < 0);
        assert_int_equal(err_from_wire(err_to_wire(ALL[i])), ALL[i]);
        assert_in_range(err_http(ALL[i]), 400, 504);
        assert_string_not_equal(err_name(ALL[i]), "UNKNOWN");
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(ALL[i], ALL[k]);
    }
}

static void the_table_answers(void **state UNUSED)
{
    assert_string_equal(err_name(ERR_TOO_BIG), "TOO_BIG");
    assert_int_equal(err_http(ERR_BUSY), 429);
    assert_string_equal(err_openai_type(ERR_INVALID), "invalid_request_error");
    assert_int_equal(err_retryable(ERR_UNAVAILABLE), 1);
    assert_int_equal(err_retryable(ERR_INVALID), 0);
    assert_int_equal(err_to_wire(ERR_INVALID), 1); /* part of the protocol */
}

static void strangers_get_safe_answers(void **state UNUSED)
{
    assert_string_equal(err_name(0), "OK");
    assert_string_equal(err_name(7), "OK");
    assert_int_equal(err_http(3), 200);
    assert_string_equal(err_name(-9999), "UNKNOWN");
    assert_int_equal(err_http(-9999), 500);
    assert_int_equal(err_from_wire(0), ERR_PROTO);
    assert_int_equal(err_from_wire(UINT32_MAX), ERR_PROTO);
    assert_int_equal(err_to_wire(-9999), err_to_wire(ERR_INTERNAL));
    assert_int_equal(err_to_wire(INT32_MIN), err_to_wire(ERR_INTERNAL));
}

static void errno_is_translated(void **state UNUSED)
{
    assert_int_equal(err_from_errno(ENOMEM), ERR_NOMEM);
    assert_int_equal(err_from_errno(EAGAIN), ERR_AGAIN);
    assert_int_equal(err_from_errno(ENOENT), ERR_NOT_FOUND);
    assert_int_equal(err_from_errno(EPIPE), ERR_IO);
}

static void a_reason_is_kept_and_cut_between_characters(void **state UNUSED)
{
    struct why w;
    assert_int_equal(why_set(&w, ERR_TOO_BIG, "messages", "%d messages, at most %d", 9, 4),
                     ERR_TOO_BIG);
    assert_string_equal(w.text, "9 messages, at most 4");
    assert_string_equal(w.field, "messages");
    assert_int_equal(why_set(NULL, ERR_AUTH, "x", "y"), ERR_AUTH);

    char hangul[3 * 200 + 1];
    for (int i = 0; i < 200; i++)
        memcpy(hangul + 3 * i, "\xED\x95\x9C", 3); /* 한 */
    hangul[600] = '\0';
    why_set(&w, ERR_INVALID, hangul, "%s", hangul);
    assert_int_equal(strlen(w.text), (WHY_TEXT_MAX - 1) / 3 * 3);
    assert_int_equal(strlen(w.field), (WHY_FIELD_MAX - 1) / 3 * 3);
    assert_true(utf8_valid(slice_str(w.text)));
}

static void a_reason_may_be_added_to(void **state UNUSED)
{
    struct why w;
    why_set(&w, ERR_INVALID, "stop", "too long");
    why_set(&w, ERR_INVALID, w.field, "choice 2: %s", w.text);
    assert_string_equal(w.text, "choice 2: too long");
    assert_string_equal(w.field, "stop");
}

static void sizes_do_not_wrap(void **state UNUSED)
{
    size_t out = 7;
    assert_int_equal(size_mul(SIZE_MAX / 2, 3, &out), ERR_TOO_BIG);
    assert_int_equal(size_add(SIZE_MAX, 1, &out), ERR_TOO_BIG);
    assert_int_equal(out, 7);
    assert_int_equal(size_mul(6, 7, &out), 0);
    assert_int_equal(out, 42);
    assert_null(try_calloc(SIZE_MAX / 2, 3));
    void *p = try_calloc(0, 8);
    assert_non_null(p);
    free(p);
}

static void check_false(void)
{
    CHECK(1 == 2);
}
static void alloc_wraps(void)
{
    free(xcalloc(SIZE_MAX, 2));
}
static void realloc_wraps(void)
{
    free(xrealloc(NULL, SIZE_MAX, 2));
}

static void our_own_mistakes_stop_the_program(void **state UNUSED)
{
    assert_true(dies(check_false));
    assert_true(dies(alloc_wraps));
    assert_true(dies(realloc_wraps));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_has_a_row_and_a_number_of_its_own),
        cmocka_unit_test(the_table_answers),
        cmocka_unit_test(strangers_get_safe_answers),
        cmocka_unit_test(errno_is_translated),
        cmocka_unit_test(a_reason_is_kept_and_cut_between_characters),
        cmocka_unit_test(a_reason_may_be_added_to),
        cmocka_unit_test(sizes_do_not_wrap),
        cmocka_unit_test(our_own_mistakes_stop_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
