#include "tests/unit/base_testing.h"

static void every_code_point_round_trips(void **state UNUSED)
{
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        char p[4];
        uint32_t back = 0;
        size_t n = utf8_encode(cp, p);
        if (cp >= 0xD800 && cp <= 0xDFFF) {
            assert_int_equal(n, 0);
            continue;
        }
        if (n == 0 || utf8_decode(p, n, &back) != n || back != cp ||
            utf8_decode(p, n - 1, &back) != 0)
            fail_msg("U+%04X does not round-trip", cp);
        for (size_t k = 1; k <= n; k++) /* a cut is seen, wherever it is */
            if (utf8_complete_len(p, k) != (k == n ? n : 0))
                fail_msg("U+%04X cut after %zu bytes", cp, k);
    }
    char p[4];
    assert_int_equal(utf8_encode(0x110000, p), 0);
    assert_int_equal(utf8_encode(UINT32_MAX, p), 0);
}

static const char *const BAD[] = {
    "\x80",             /* continuation alone */
    "\xC0\x80",         /* overlong NUL */
    "\xC1\xBF",         /* overlong */
    "\xE0\x80\x80",     /* overlong */
    "\xE0\x9F\xBF",     /* overlong */
    "\xF0\x8F\xBF\xBF", /* overlong */
    "\xED\xA0\x80",     /* surrogate, first */
    "\xED\xBF\xBF",     /* surrogate, last */
    "\xF4\x90\x80\x80", /* beyond U+10FFFF */
    "\xF5\x80\x80\x80", /* no such first byte */
    "\xFF",
    "\xFE",
    "\xE2\x82",         /* cut */
    "\xF0\x9F\x98",     /* cut */
    "\xE2\x28\xA1",     /* second byte wrong */
    "\xF0\x9F\x28\x80", /* third byte wrong */
    "ok\xC3",
};

static void what_is_not_utf8_is_refused(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++)
        if (utf8_valid(slice_str(BAD[i])))
            fail_msg("accepted case %zu", i);
    assert_true(utf8_valid(SLICE_LIT(
        "a\0b \xC3\xA9 \xED\x95\x9C \xF0\x9F\x98\x80 \xEE\x80\x80 \xED\x9F\xBF \xF4\x8F\xBF\xBF")));
    assert_true(utf8_valid((slice){NULL, 0}));
    uint32_t cp;
    assert_int_equal(utf8_decode("", 0, &cp), 0);
}

static void repaired(const char *in, const char *want)
{
    buf b = {0};
    utf8_put_lossy(&b, slice_str(in));
    assert_text(buf_slice(&b), want);
    assert_true(utf8_valid(buf_slice(&b)));
    buf_clear(&b);
}

#define R "\xEF\xBF\xBD"

/* The Unicode standard's own examples of "one per maximal subpart" (section 3.9, tables 3-8 to
 * 3-11). */
static void bad_bytes_are_replaced_as_unicode_says(void **state UNUSED)
{
    repaired("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", R R R R R R R R "A");
    repaired("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", R R R R R R R R "A");
    repaired("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", R R R R R "A" R R "B");
    repaired("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", R R R R "A");
    repaired("a\xED\x95", "a" R);
    repaired("\xED\x95\x9C!", "\xED\x95\x9C!");
    repaired("", "");
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        buf b = {0};
        utf8_put_lossy(&b, slice_str(BAD[i]));
        assert_true(utf8_valid(buf_slice(&b)));
        buf_clear(&b);
    }
}

/* A Hangul syllable that a tokenizer cut in three never shows as a broken character. */
static void a_split_syllable_is_held_back(void **state UNUSED)
{
    static const char HAN[] = "a\xED\x95\x9C";
    assert_int_equal(utf8_complete_len(HAN, 1), 1);
    assert_int_equal(utf8_complete_len(HAN, 2), 1);
    assert_int_equal(utf8_complete_len(HAN, 3), 1);
    assert_int_equal(utf8_complete_len(HAN, 4), 4);
    assert_int_equal(utf8_complete_len("", 0), 0);
}

static void bytes_that_never_become_valid_are_not_held_back(void **state UNUSED)
{
    assert_int_equal(utf8_complete_len("\xFF", 1), 1);
    assert_int_equal(utf8_complete_len("\x80\x80\x80\x80", 4), 4);
    assert_int_equal(utf8_complete_len("\xC0", 1), 1);
    assert_int_equal(utf8_complete_len("\xE0\x80", 2), 2);
    assert_int_equal(utf8_complete_len("\xED\xA0", 2), 2);
    assert_int_equal(utf8_complete_len("\xF4\x90\x80", 3), 3);
    assert_int_equal(utf8_complete_len("\xE2\x28", 2), 2);
    assert_int_equal(utf8_complete_len("\xF0\x9F\x98", 3), 0);
    assert_int_equal(utf8_complete_len("\x80\xF0\x9F", 3), 1);
}

static void spaces_are_those_of_unicode(void **state)
{
    (void)state;
    size_t n = 0;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++)
        n += utf8_is_space(cp);
    assert_int_equal(n, 25); /* PropList.txt, White_Space */
    assert_true(utf8_is_space(0x85) && utf8_is_space(0x3000) && !utf8_is_space(0x1c) &&
                !utf8_is_space(0x180e) && !utf8_is_space(0x200b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spaces_are_those_of_unicode),
        cmocka_unit_test(every_code_point_round_trips),
        cmocka_unit_test(what_is_not_utf8_is_refused),
        cmocka_unit_test(bad_bytes_are_replaced_as_unicode_says),
        cmocka_unit_test(a_split_syllable_is_held_back),
        cmocka_unit_test(bytes_that_never_become_valid_are_not_held_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
