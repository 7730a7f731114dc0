#include "tests/unit/base_testing.h"

#include <locale.h>
#include <math.h>

#include "common/base/nearest.h"
#include "common/base/num.h"

static void slices_compare(void **state UNUSED)
{
    assert_true(slice_eq(slice_str(NULL), SLICE_LIT("")));
    assert_true(slice_eq((slice){NULL, 0}, SLICE_LIT("")));
    assert_false(slice_eq(SLICE_LIT("ab"), SLICE_LIT("ac")));
    assert_true(slice_eq(SLICE_LIT("a\0b"), (slice){"a\0b", 3}));
    assert_true(slice_eq_str(SLICE_LIT("abc"), "abc"));
    assert_false(slice_eq_str(SLICE_LIT("abc\0"), "abc"));
    assert_true(slice_starts(SLICE_LIT("file-1"), SLICE_LIT("file-")));
    assert_false(slice_starts(SLICE_LIT("fil"), SLICE_LIT("file-")));
    assert_true(slice_eq_secret(SLICE_LIT("key"), SLICE_LIT("key")));
    assert_false(slice_eq_secret(SLICE_LIT("key"), SLICE_LIT("kez")));
    assert_false(slice_eq_secret(SLICE_LIT("key"), SLICE_LIT("keyy")));
    assert_true(slice_eq_secret((slice){NULL, 0}, SLICE_LIT("")));
}

static void slices_are_trimmed_and_split(void **state UNUSED)
{
    assert_text(slice_trim(SLICE_LIT(" \t\r\n a b \v\f")), "a b");
    assert_text(slice_trim(SLICE_LIT(" \n ")), "");
    slice rest = SLICE_LIT("a,,b,"), piece;
    const char *const want[] = {"a", "", "b", ""};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_true(slice_split(&rest, ',', &piece));
        assert_text(piece, want[i]);
    }
    assert_false(slice_split(&rest, ',', &piece));
    rest = SLICE_LIT("");
    assert_true(slice_split(&rest, ',', &piece)); /* one empty piece */
    assert_false(slice_split(&rest, ',', &piece));
}

static void whole_numbers(void **state UNUSED)
{
    uint64_t v = 5;
    assert_int_equal(slice_u64(SLICE_LIT("0"), &v), 0);
    assert_int_equal(v, 0);
    assert_int_equal(slice_u64(SLICE_LIT("18446744073709551615"), &v), 0);
    assert_true(v == UINT64_MAX);
    static const char *const BAD[] = {"",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1x",
                                      "0x10",
                                      "18446744073709551616",
                                      "99999999999999999999999"};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++)
        assert_int_equal(slice_u64(slice_str(BAD[i]), &v), ERR_INVALID);
    assert_int_equal(slice_u64((slice){"1\0", 2}, &v), ERR_INVALID);
    assert_true(v == UINT64_MAX);
}

static void fractions(void **state UNUSED)
{
    static const struct {
        const char *text;
        double v;
    } GOOD[] = {{"0", 0},  {"-1.5", -1.5}, {"+2", 2},           {".5", .5},
                {"5.", 5}, {"1e3", 1000},  {"1.25E-2", 0.0125}, {"1e-999", 0}};
    double v;
    for (size_t i = 0; i < ARRAY_LEN(GOOD); i++) {
        assert_int_equal(slice_f64(slice_str(GOOD[i].text), &v), 0);
        assert_true(v == GOOD[i].v);
    }
    static const char *const BAD[] = {"",     ".",    "-",    "e5",       "1e",   "1e+",
                                      "nan",  "inf",  "-inf", "infinity", "0x10", "1,5",
                                      "1.5 ", " 1.5", "1.5x", "1..5",     "--1",  "1e999"};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++)
        assert_int_equal(slice_f64(slice_str(BAD[i]), &v), ERR_INVALID);
    char nines[200];
    memset(nines, '9', sizeof nines);
    assert_int_equal(slice_f64((slice){nines, sizeof nines}, &v), ERR_INVALID);
    assert_int_equal(slice_f64((slice){nines, 100}, &v), 0);
    assert_int_equal(slice_f64((slice){"1\0002", 3}, &v), ERR_INVALID);
}

static void round_trip(double v, const char *want)
{
    char text[F64_TEXT_MAX];
    double back;
    size_t n = f64_text(v, text);
    assert_int_equal(n, strlen(text));
    assert_int_equal(slice_f64((slice){text, n}, &back), 0);
    assert_memory_equal(&back, &v, sizeof v);
    if (want)
        assert_string_equal(text, want);
}

static void numbers_read_back_equal(void **state UNUSED)
{
    round_trip(0.1, "0.1");
    round_trip(0.30000000000000004, "0.30000000000000004");
    round_trip(1e300, "1e+300");
    round_trip(123456, "123456");
    round_trip(-0.0, "-0");
    round_trip(5e-324, NULL);
    round_trip(1.7976931348623157e308, NULL);
    uint64_t x = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        double v;
        memcpy(&v, &x, sizeof v);
        if (isfinite(v))
            round_trip(v, NULL);
    }
}

/* Any installed locale that writes 1,5 will do. */
static bool set_comma_locale(void)
{
    static const char *const NAMES[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "fr_FR.utf8",
                                        "ru_RU.UTF-8"};
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (setlocale(LC_ALL, NAMES[i]) && localeconv()->decimal_point[0] == ',')
            return true;
    return false;
}

static void the_locale_changes_nothing(void **state UNUSED)
{
    if (!set_comma_locale()) {
        print_message("no locale with a decimal comma is installed\n");
        skip();
    }
    double v;
    round_trip(1.5, "1.5");
    assert_int_equal(slice_f64(SLICE_LIT("1,5"), &v), ERR_INVALID);
    setlocale(LC_ALL, "C");
}

static void a_buffer_grows(void **state UNUSED)
{
    buf b = {0};
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%d,", i);
    assert_int_equal(b.n, 3890);
    buf_drop_front(&b, 2);
    assert_true(slice_starts(buf_slice(&b), SLICE_LIT("1,2,3,")));
    assert_int_equal(strlen(buf_cstr(&b)), b.n);
    buf_reset(&b);
    buf_put_str(&b, "a");
    buf_put_byte(&b, 0);
    buf_put_slice(&b, SLICE_LIT("b"));
    buf_put(&b, NULL, 0);
    assert_slice(buf_slice(&b), SLICE_LIT("a\0b"));
    assert_int_equal(buf_try_reserve(&b, SIZE_MAX), ERR_NOMEM);
    assert_int_equal(buf_try_reserve(&b, SIZE_MAX / 2), ERR_NOMEM);
    assert_slice(buf_slice(&b), SLICE_LIT("a\0b"));
    buf_drop_front(&b, 3);
    buf_clear(&b);
    assert_int_equal(b.n, 0);
    assert_string_equal(buf_cstr(&b), "");
    buf_clear(&b);
}

static void hex_goes_both_ways(void **state UNUSED)
{
    char text[9];
    unsigned char bytes[4] = {1, 2, 3, 4};
    hex_encode("\x00\x9a\xff\x10", 4, text);
    assert_string_equal(text, "009aff10");
    assert_int_equal(hex_decode(SLICE_LIT("009AFf10"), bytes, 4), 0);
    assert_memory_equal(bytes, "\x00\x9a\xff\x10", 4);
    static const char *const BAD[] = {"",         "009aff1",  "009aff100", "009aff1g",
                                      "009aff1 ", "0x9aff10", "009aff1@",  "009aff1`"};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++)
        assert_int_equal(hex_decode(slice_str(BAD[i]), bytes, 4), ERR_INVALID);
    assert_memory_equal(bytes, "\x00\x9a\xff\x10", 4);
}

static const char *nearest_of(const char *word)
{
    struct nearest n;
    nearest_init(&n, slice_str(word));
    nearest_offer(&n, "kv-blocks");
    nearest_offer(&n, "listen");
    nearest_offer(&n, "model");
    return n.name;
}

static void the_nearest_name_is_found(void **state UNUSED)
{
    assert_int_equal(text_distance(SLICE_LIT("kitten"), SLICE_LIT("sitting")), 3);
    assert_int_equal(text_distance(SLICE_LIT("ab"), SLICE_LIT("ba")), 1);
    assert_int_equal(text_distance(SLICE_LIT(""), SLICE_LIT("abc")), 3);
    assert_string_equal(nearest_of("kv-blokcs"), "kv-blocks");
    assert_string_equal(nearest_of("kv_block"), "kv-blocks");
    assert_string_equal(nearest_of("lisen"), "listen");
    assert_null(nearest_of("temperature"));
    assert_null(nearest_of(""));
    char longer[NEAREST_WORD_MAX + 2];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_null(nearest_of(longer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_compare),
        cmocka_unit_test(slices_are_trimmed_and_split),
        cmocka_unit_test(whole_numbers),
        cmocka_unit_test(fractions),
        cmocka_unit_test(numbers_read_back_equal),
        cmocka_unit_test(the_locale_changes_nothing),
        cmocka_unit_test(a_buffer_grows),
        cmocka_unit_test(hex_goes_both_ways),
        cmocka_unit_test(the_nearest_name_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
