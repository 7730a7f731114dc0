#include "tests/unit/base_testing.h"

#include <math.h>

#include "common/base/json_out.h"

static void a_tree_is_written(void **state UNUSED)
{
    buf b = {0};
    struct json_out j;
    json_begin(&j, &b);
    json_obj(&j);
    json_kv_cstr(&j, "id", "x");
    json_kv_cstr(&j, "none", NULL);
    json_kv_i64(&j, "low", INT64_MIN);
    json_kv_u64(&j, "high", UINT64_MAX);
    json_kv_f64(&j, "f", 0.1);
    json_kv_bool(&j, "t", true);
    json_kv_str(&j, "s", SLICE_LIT("a\"b"));
    json_key(&j, "list");
    json_arr(&j);
    json_arr(&j);
    json_arr_end(&j);
    json_obj(&j);
    json_obj_end(&j);
    json_null(&j);
    json_raw(&j, SLICE_LIT("[1]"));
    json_arr_end(&j);
    json_key(&j, "nan");
    json_f64(&j, NAN);
    json_kv_f64(&j, "inf", -INFINITY);
    json_kv_f64(&j, "zero", -0.0);
    json_obj_end(&j);
    assert_text(
        buf_slice(&b),
        "{\"id\":\"x\",\"none\":null,\"low\":-9223372036854775808,\"high\":18446744073709551615,"
        "\"f\":0.1,\"t\":true,\"s\":\"a\\\"b\",\"list\":[[],{},null,[1]],\"nan\":null,\"inf\":null,"
        "\"zero\":-0.0}");
    buf_clear(&b);
}

static void string_is(slice in, const char *want)
{
    buf b = {0};
    struct json_out j;
    json_begin(&j, &b);
    json_str(&j, in);
    assert_text(buf_slice(&b), want);
    buf_clear(&b);
}

static void strings_are_escaped_and_repaired(void **state UNUSED)
{
    string_is(SLICE_LIT(""), "\"\"");
    string_is((slice){NULL, 0}, "\"\"");
    string_is(SLICE_LIT("\"\\\b\f\n\r\t\x01\x1f/\x7f"),
              "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f/\x7f\"");
    string_is(SLICE_LIT("a\0b"), "\"a\\u0000b\"");
    string_is(SLICE_LIT("한\xE2\x80\xA8"), "\"한\xE2\x80\xA8\"");
    string_is(SLICE_LIT("a\xED\x95"), "\"a\xEF\xBF\xBD\"");
    string_is(SLICE_LIT("\xFF\n\xC0"), "\"\xEF\xBF\xBD\\n\xEF\xBF\xBD\"");
}

static void value_without_key(void)
{
    buf b = {0};
    struct json_out j;
    json_begin(&j, &b);
    json_obj(&j);
    json_i64(&j, 1);
}
static void key_in_array(void)
{
    buf b = {0};
    struct json_out j;
    json_begin(&j, &b);
    json_arr(&j);
    json_key(&j, "k");
}
static void key_without_value(void)
{
    buf b = {0};
    struct json_out j;
    json_begin(&j, &b);
    json_obj(&j);
    json_key(&j, "k");
    json_obj_end(&j);
}
static void wrong_end(void)
{
    buf b = {0};
    struct json_out j;
    json_begin(&j, &b);
    json_obj(&j);
    json_arr_end(&j);
}
static void end_of_nothing(void)
{
    buf b = {0};
    struct json_out j;
    json_begin(&j, &b);
    json_obj_end(&j);
}
static void too_deep(void)
{
    buf b = {0};
    struct json_out j;
    json_begin(&j, &b);
    for (int i = 0; i <= JSON_OUT_DEPTH_MAX; i++)
        json_arr(&j);
}

static void misuse_is_our_mistake(void **state UNUSED)
{
    void (*const all[])(void) = {value_without_key, key_in_array,   key_without_value,
                                 wrong_end,         end_of_nothing, too_deep};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        assert_true(dies(all[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tree_is_written),
        cmocka_unit_test(strings_are_escaped_and_repaired),
        cmocka_unit_test(misuse_is_our_mistake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
