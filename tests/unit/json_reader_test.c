#include "tests/unit/base_testing.h"

#include <math.h>

#include "common/json/json.h"

static const struct json_limits LIM = {.max_bytes = 1 << 20, .max_depth = 32, .max_nodes = 10000};
static struct why why;

static json_doc *parsed(const char *text)
{
    json_doc *d;
    if (json_doc_parse(slice_str(text), &LIM, &d, &why) < 0)
        fail_msg("%s: %s", text, why.text);
    return d;
}

static void refused_with(slice text, const struct json_limits *lim, int e, const char *says)
{
    json_doc *d = (json_doc *)&why;
    int rc = json_doc_parse(text, lim, &d, &why);
    if (rc != e || d || !strstr(why.text, says))
        fail_msg("%.*s: %s, \"%s\" does not say \"%s\"", (int)(text.n < 60 ? text.n : 60), text.p,
                 err_name(rc), why.text, says);
}

static void refused(const char *text, const char *says)
{
    refused_with(slice_str(text), &LIM, ERR_INVALID, says);
}

static void broken_text_is_refused_with_its_place(void **state UNUSED)
{
    refused("", "empty");
    refused(" \n\t", "empty");
    refused("{\"a\":1,}", "line 1, column");
    refused("{\n  \"a\": 1\n  \"b\": 2}", "line 3, column 5");
    refused("{\"a\"", "at the end of the text");
    refused("[1, 2", "at the end of the text");
    refused("\"abc", "line 1");
    refused("{\"a\":1} x", "line 1");
    refused("1 2", "line 1");
    refused("[1}", "line 1");
    refused("{'a':1}", "line 1");
    refused("{a:1}", "line 1");
    refused("[1,,2]", "line 1");
    refused("[01]", "line 1");
    refused("[+1]", "line 1");
    refused("[.5]", "line 1");
    refused("[1.]", "line 1");
    refused("[0x10]", "line 1");
    refused("[NaN]", "line 1");
    refused("[Infinity]", "line 1");
    refused("[-Infinity]", "line 1");
    refused("[nan]", "line 1");
    refused("[True]", "line 1");
    refused("[nul]", "line 1");
    refused("// c\n[]", "line 1");
    refused("\xEF\xBB\xBF[]", "line 1"); /* byte order mark */
    refused("[\"a\nb\"]", "line");
    refused("[\"\\x41\"]", "line 1");
    refused("[\"\\u12\"]", "line 1");
}

static void numbers_that_do_not_fit_are_refused(void **state UNUSED)
{
    refused("[9223372036854775808]", "integer");
    refused("[-9223372036854775809]", "integer");
    refused("[1e400]", "overflow");
    refused("[-1e400]", "overflow");
    json_doc_free(parsed("[9223372036854775807, -9223372036854775808, 1e308, 1e-400]"));
}

static void duplicates_are_refused(void **state UNUSED)
{
    refused("{\"role\":1,\"role\":2}", "duplicate");
    refused("[{\"a\":{\"k\":1,\"\\u006b\":2}}]", "duplicate"); /* the same after unescaping */
    json_doc_free(parsed("[{\"a\":1},{\"a\":2}]"));
}

static void invalid_utf8_is_refused(void **state UNUSED)
{
    refused("[\"\xFF\"]", "line 1");
    refused("[\"\xC0\x80\"]", "line 1");
    refused("[\"\xED\xA0\x80\"]", "line 1");
    refused("[\"\xED\x95\"]", "line 1");
    refused("{\"\xF5\x80\x80\x80\":1}", "line 1");
    refused("[\"\\ud800\"]", "line 1"); /* lone surrogates */
    refused("[\"\\udc00\"]", "line 1");
    refused("[\"\\ud800\\u0041\"]", "line 1");
    json_doc *d = parsed("[\"\\ud83d\\ude00\"]");
    assert_text(json_str_or(json_first(json_doc_root(d)), SLICE_LIT("")), "\xF0\x9F\x98\x80");
    json_doc_free(d);
}

static void nul_only_if_asked_for(void **state UNUSED)
{
    struct json_limits nul = LIM;
    nul.allow_nul = true;
    refused("[\"a\\u0000b\"]", "an escaped NUL character is not allowed");
    refused_with(SLICE_LIT("[\"a\0b\"]"), &nul, ERR_INVALID, "line 1");
    refused_with(SLICE_LIT("[1]\0"), &nul, ERR_INVALID, "line 1");
    refused_with(SLICE_LIT("{\"a\\u0000b\":1}"), &nul, ERR_INVALID, "line 1");
    json_doc *d;
    assert_int_equal(json_doc_parse(SLICE_LIT("[\"a\\u0000b\"]"), &nul, &d, &why), 0);
    assert_slice(json_str_or(json_first(json_doc_root(d)), SLICE_LIT("")), SLICE_LIT("a\0b"));
    json_doc_free(d);
}

static void an_error_never_quotes_the_text(void **state UNUSED)
{
    static const char *const SECRET[] = {"{\"a\": hunter2}",
                                         "[hunter2]",
                                         "{\"hunter2\":1,\"hunter2\":2}",
                                         "[\"x\" hunter2]",
                                         "hunter2",
                                         "{\"hunter2\" 1}",
                                         "[\"hunter2",
                                         "[\"hunter2\\q\"]",
                                         "[1hunter2]",
                                         "[\"hunter2\xFF\"]",
                                         "[1] hunter2",
                                         "[\"\\uhunt\"]",
                                         "[\"\\ud800\\u0041\"]",
                                         "[\"\\ud800\\uhunt\"]"};
    for (size_t i = 0; i < ARRAY_LEN(SECRET); i++) {
        refused(SECRET[i], "line 1");
        assert_null(strstr(why.text, "hunt"));
        assert_null(strstr(why.text, "\\u"));
        assert_null(strstr(why.text, "near"));
    }
}

/* ---- limits
 * --------------------------------------------------------------------------------------------- */

static void size_is_limited(void **state UNUSED)
{
    struct json_limits lim = LIM;
    lim.max_bytes = 10;
    json_doc *d;
    assert_int_equal(json_doc_parse(SLICE_LIT("[12345678]"), &lim, &d, NULL), 0);
    json_doc_free(d);
    refused_with(SLICE_LIT("[123456789]"), &lim, ERR_TOO_BIG,
                 "11 bytes of JSON, at most 10 allowed");
}

static slice nested(char *text, size_t depth, const char *open, const char *inner,
                    const char *close)
{
    size_t n = 0;
    for (size_t i = 0; i < depth; i++)
        n = (size_t)(stpcpy(text + n, open) - text);
    n = (size_t)(stpcpy(text + n, inner) - text);
    for (size_t i = 0; i < depth; i++)
        n = (size_t)(stpcpy(text + n, close) - text);
    return (slice){text, n};
}

static void depth_is_limited(void **state UNUSED)
{
    static char text[1 << 19];
    json_doc *d;
    struct json_limits lim = LIM;
    assert_int_equal(json_doc_parse(nested(text, 32, "[", "", "]"), &lim, &d, &why), 0);
    json_doc_free(d);
    refused_with(nested(text, 33, "[", "", "]"), &lim, ERR_TOO_BIG,
                 "line 1, column 33: nested too deeply, at most 32 allowed");
    refused_with(nested(text, 33, "\n{\"a\":", "1", "}"), &lim, ERR_TOO_BIG,
                 "line 34, column 1: nested too deeply");
    assert_int_equal(json_doc_parse(nested(text, 32, "{\"[[[{{\\\"[\":", "1", "}"), &lim, &d, &why),
                     0);
    json_doc_free(d);
    /* never closed, and long enough to overflow a stack that recursed */
    memset(text, '[', sizeof text);
    refused_with((slice){text, sizeof text}, &lim, ERR_TOO_BIG, "nested too deeply");
    lim.max_depth = JSON_DEPTH_MAX;
    lim.max_nodes = SIZE_MAX;
    slice deepest = nested(text, JSON_DEPTH_MAX / 2, "{\"k\":[", "null", "]}");
    assert_int_equal(json_doc_parse(deepest, &lim, &d, &why), 0);
    const json_val *v = json_doc_root(d);
    while (json_first(v))
        v = json_first(v);
    char path[2000];
    json_path(v, path, sizeof path);
    assert_int_equal(strlen(path), JSON_DEPTH_MAX / 2 * strlen("k[0].") - 1);
    json_doc_free(d);
}

static void beyond_the_hard_depth(void)
{
    struct json_limits lim = LIM;
    lim.max_depth = JSON_DEPTH_MAX + 1;
    json_doc *d;
    (void)!json_doc_parse(SLICE_LIT("[]"), &lim, &d, NULL);
}

static void the_hard_depth_is_our_own_rule(void **state UNUSED)
{
    assert_true(dies(beyond_the_hard_depth));
}

static void the_number_of_values_is_limited(void **state UNUSED)
{
    static const struct {
        const char *text;
        size_t n; /* values in it */
    } CASES[] = {{"1", 1},
                 {"[]", 1},
                 {"[ \n ]", 1},
                 {"{}", 1},
                 {"[1]", 2},
                 {"[[],{},[]]", 4},
                 {"{\"a\":1,\"b\":[1,2,{\"c\":\"],[,,,\"}]}", 7},
                 {"[\"\\\\\",\"\\\"\"]", 3}};
    for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
        struct json_limits lim = LIM;
        json_doc *d;
        lim.max_nodes = CASES[i].n;
        if (json_doc_parse(slice_str(CASES[i].text), &lim, &d, &why) < 0)
            fail_msg("%s: %s", CASES[i].text, why.text);
        json_doc_free(d);
        lim.max_nodes--;
        if (lim.max_nodes)
            refused_with(slice_str(CASES[i].text), &lim, ERR_TOO_BIG, "too many values");
    }
    static char many[1 << 19];
    many[0] = '[';
    for (size_t i = 1; i + 1 < sizeof many; i++)
        many[i] = i % 2 ? '0' : ',';
    refused_with((slice){many, sizeof many}, &LIM, ERR_TOO_BIG,
                 "too many values, at most 10000 allowed");
}

/* ---- looking around
 * --------------------------------------------------------------------------------------- */

static void a_tree_is_walked_in_order(void **state UNUSED)
{
    json_doc *d = parsed("{\"z\":null,\"a\":true,\"m\":[1,2.5,\"x\",{},[]],\"\":-0}");
    const json_val *root = json_doc_root(d);
    static const char *const NAMES[] = {"z", "a", "m", ""};
    size_t i = 0;
    for (const json_val *v = json_first(root); v; v = json_next(v))
        assert_text(json_name(v), NAMES[i++]);
    assert_int_equal(i, 4);
    static const enum json_kind KINDS[] = {JSON_KIND_INT, JSON_KIND_REAL, JSON_KIND_STR,
                                           JSON_KIND_OBJ, JSON_KIND_ARR};
    const json_val *m = json_get(root, "m");
    assert_int_equal(json_len(m), 5);
    for (i = 0; i < 5; i++)
        assert_int_equal(json_kind(json_at(m, i)), KINDS[i]);
    assert_null(json_at(m, 5));
    assert_null(json_at(m, SIZE_MAX));
    assert_text(json_name(json_at(m, 0)), "");
    assert_int_equal(json_kind(json_get(root, "")), JSON_KIND_INT);
    assert_null(json_get(root, "zz"));
    assert_null(json_get(m, "x"));
    assert_null(json_next(root));
    assert_true(json_absent(json_get(root, "z")));
    assert_true(json_absent(json_get(root, "zz")));
    json_doc_free(d);
}

static void nothing_is_null(void **state UNUSED)
{
    assert_int_equal(json_kind(NULL), JSON_KIND_NULL);
    assert_int_equal(json_len(NULL), 0);
    assert_null(json_first(NULL));
    assert_null(json_next(NULL));
    assert_null(json_at(NULL, 0));
    assert_null(json_get(NULL, "a"));
    assert_text(json_name(NULL), "");
    assert_text(json_str_or(NULL, SLICE_LIT("x")), "x");
    json_doc_free(NULL);
    char path[8];
    json_path(NULL, path, sizeof path);
    assert_string_equal(path, "");
}

static void a_scalar_may_be_the_root(void **state UNUSED)
{
    json_doc *d = parsed(" \"hi\" ");
    assert_text(json_str_or(json_doc_root(d), SLICE_LIT("")), "hi");
    assert_int_equal(json_need_obj(json_doc_root(d), &why), ERR_INVALID);
    assert_string_equal(why.text, "expected an object, got a string");
    assert_string_equal(why.field, "");
    json_doc_free(d);
}

/* ---- requests
 * ------------------------------------------------------------------------------------------------
 */

static const char REQUEST[] = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}"
                              ",{\"role\":\"user\",\"content\":"
                              "[{\"type\":\"text\",\"text\":7}]}],\"n\":2,\"temperature\":0.7,"
                              "\"top_p\":1,\"max_tokens\":16.0,\"stream\":true,"
                              "\"seed\":null,\"big\":1e300,\"half\":1.5,\"stop\":[],\"opts\":{}}";

static void wrong(int rc, const char *field, const char *text)
{
    assert_int_equal(rc, ERR_INVALID);
    assert_string_equal(why.field, field);
    assert_string_equal(why.text, text);
}

static void good_members_are_read(void **state UNUSED)
{
    json_doc *d = parsed(REQUEST);
    const json_val *r = json_doc_root(d), *v = NULL;
    slice s;
    int64_t i = -1;
    double f;
    bool b;
    assert_int_equal(json_req_str(r, "model", 1, &s, &why), 0);
    assert_text(s, "m");
    assert_int_equal(json_opt_str(r, "model", 10, &s, &why), 1);
    assert_int_equal(json_opt_i64(r, "n", 1, 2, &i, &why), 1);
    assert_int_equal(i, 2);
    assert_int_equal(json_opt_i64(r, "max_tokens", 1, 100, &i, &why), 1);
    assert_int_equal(i, 16);
    assert_int_equal(json_opt_f64(r, "temperature", 0, 2, &f, &why), 1);
    assert_true(f == 0.7);
    assert_int_equal(json_opt_f64(r, "top_p", 0, 1, &f, &why), 1);
    assert_true(f == 1);
    assert_int_equal(json_opt_bool(r, "stream", &b, &why), 1);
    assert_true(b);
    assert_int_equal(json_opt_arr(r, "messages", 2, &v, &why), 1);
    assert_int_equal(json_len(v), 2);
    assert_int_equal(json_opt_obj(r, "opts", &v, &why), 1);
    assert_int_equal(json_req(r, "stop", &v, &why), 0);
    assert_int_equal(json_need_arr(v, 0, 4, &why), 0);
    i = 99;
    assert_int_equal(json_opt_i64(r, "seed", 0, 1, &i, &why), 0); /* null */
    assert_int_equal(json_opt_i64(r, "absent", 0, 1, &i, &why), 0);
    assert_int_equal(json_opt_str(r, "absent", 0, &s, &why), 0);
    assert_int_equal(json_opt_f64(r, "absent", 0, 0, &f, &why), 0);
    assert_int_equal(json_opt_bool(r, "absent", &b, &why), 0);
    assert_int_equal(json_opt_arr(r, "absent", 0, &v, &why), 0);
    assert_int_equal(json_opt_obj(r, "absent", &v, &why), 0);
    assert_int_equal(i, 99);
    json_doc_free(d);
}

static void bad_members_are_named_with_their_path(void **state UNUSED)
{
    json_doc *d = parsed(REQUEST);
    const json_val *r = json_doc_root(d), *messages = json_get(r, "messages"), *v;
    slice s = SLICE_LIT("kept");
    int64_t i;
    double f;
    bool b;
    const json_val *part = json_first(json_get(json_at(messages, 1), "content"));
    wrong(json_req_str(part, "text", 9, &s, &why), "messages[1].content[0].text",
          "expected a string, got an integer");
    wrong(json_req_str(part, "id", 9, &s, &why), "messages[1].content[0].id",
          "required, but missing");
    wrong(json_req(r, "seed", &v, &why), "seed", "required, but null");
    wrong(json_req(messages, "x", &v, &why), "messages", "expected an object, got an array");
    wrong(json_req_str(r, "model", 0, &s, &why), "model", "1 bytes, at most 0 allowed");
    wrong(json_opt_i64(r, "n", 3, 8, &i, &why), "n", "2 is out of range: 3 to 8 is allowed");
    wrong(json_opt_i64(r, "n", 3, INT64_MAX, &i, &why), "n", "2 is below the least value, 3");
    wrong(json_opt_i64(r, "n", INT64_MIN, 1, &i, &why), "n", "2 is above the largest value, 1");
    wrong(json_opt_i64(r, "half", 0, 8, &i, &why), "half", "expected an integer, got a number");
    wrong(json_opt_i64(r, "big", 0, INT64_MAX, &i, &why), "big",
          "expected an integer, got a number");
    wrong(json_opt_i64(r, "model", 0, 8, &i, &why), "model", "expected an integer, got a string");
    wrong(json_opt_f64(r, "temperature", 1, 2, &f, &why), "temperature",
          "0.7 is out of range: 1 to 2 is allowed");
    wrong(json_opt_f64(r, "temperature", 1, INFINITY, &f, &why), "temperature",
          "0.7 is below the least value, 1");
    wrong(json_opt_f64(r, "temperature", -INFINITY, 0, &f, &why), "temperature",
          "0.7 is above the largest value, 0");
    wrong(json_opt_f64(r, "stream", 0, 1, &f, &why), "stream", "expected a number, got a boolean");
    wrong(json_opt_bool(r, "n", &b, &why), "n", "expected a boolean, got an integer");
    wrong(json_opt_arr(r, "messages", 1, &v, &why), "messages", "2 elements, at most 1 allowed");
    wrong(json_opt_arr(r, "n", 1, &v, &why), "n", "expected an array, got an integer");
    wrong(json_opt_obj(r, "stop", &v, &why), "stop", "expected an object, got an array");
    wrong(json_need_arr(json_get(r, "stop"), 1, 4, &why), "stop", "0 elements, at least 1 needed");
    wrong(json_to_str(NULL, &s, &why), "", "expected a string, got null");
    assert_int_equal(json_to_str(json_get(r, "n"), &s, NULL), ERR_INVALID);
    assert_text(s, "kept");
    json_doc_free(d);
}

static void whole_numbers_at_the_edges(void **state UNUSED)
{
    json_doc *d = parsed("[9223372036854775807,-9223372036854775808,9223372036854775807.0,-"
                         "9223372036854775808.0,-0.0]");
    const json_val *r = json_doc_root(d);
    int64_t i;
    assert_int_equal(json_to_i64(json_at(r, 0), INT64_MIN, INT64_MAX, &i, &why), 0);
    assert_true(i == INT64_MAX);
    assert_int_equal(json_to_i64(json_at(r, 1), INT64_MIN, INT64_MAX, &i, &why), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(json_to_i64(json_at(r, 2), INT64_MIN, INT64_MAX, &i, &why),
                     ERR_INVALID); /* rounds to 2^63 */
    assert_string_equal(why.field, "[2]");
    assert_int_equal(json_to_i64(json_at(r, 3), INT64_MIN, INT64_MAX, &i, &why), 0);
    assert_int_equal(json_to_i64(json_at(r, 4), 0, 0, &i, &why), 0);
    json_doc_free(d);
}

static void unknown_members_are_named(void **state UNUSED)
{
    static const char *const KNOWN[] = {"type", "text", "file_id"};
    json_doc *d = parsed("[{\"type\":1,\"file_id\":2},{\"type\":1,\"fileid\":2},{\"zebra\":1}]");
    const json_val *r = json_doc_root(d);
    assert_int_equal(json_only(json_at(r, 0), KNOWN, 3, &why), 0);
    wrong(json_only(json_at(r, 1), KNOWN, 3, &why), "[1].fileid", "unknown; did you mean file_id?");
    wrong(json_only(json_at(r, 2), KNOWN, 3, &why), "[2].zebra", "unknown");
    wrong(json_only(r, KNOWN, 3, &why), "", "expected an object, got an array");
    json_doc_free(d);
}

static void a_path_is_short_and_printable(void **state UNUSED)
{
    static char text[400];
    memset(text, 0, sizeof text);
    strcpy(text, "{\"a\\nb\\u007f\":{\"");
    for (int i = 0; i < 100; i++)
        strcat(text, "한");
    strcat(text, "\":true}}");
    json_doc *d = parsed(text);
    const json_val *v = json_first(json_first(json_doc_root(d)));
    int64_t i;
    assert_int_equal(json_to_i64(v, 0, 1, &i, &why), ERR_INVALID);
    assert_true(slice_starts(slice_str(why.field), SLICE_LIT("a?b?.한")));
    assert_true(strlen(why.field) < WHY_FIELD_MAX && utf8_valid(slice_str(why.field)));
    char tiny[1];
    json_path(v, tiny, 1);
    assert_string_equal(tiny, "");
    assert_int_equal(json_why_key(&why, ERR_UNSUPPORTED, v, "x\ty", "no %d", 1), ERR_UNSUPPORTED);
    assert_string_equal(why.text, "no 1");
    assert_int_equal(json_why_key(NULL, ERR_BUSY, v, "x", "no"), ERR_BUSY);
    json_doc_free(d);
}

/* ---- writing
 * --------------------------------------------------------------------------------------------------
 */

static void written_as(const char *in, const char *want)
{
    json_doc *d = parsed(in);
    buf b = {0};
    json_write(json_doc_root(d), &b);
    assert_text(buf_slice(&b), want);
    buf_clear(&b);
    json_doc_free(d);
}

static void what_was_read_can_be_written(void **state UNUSED)
{
    written_as("1", "1");
    written_as(" [ ] ", "[]");
    written_as("{ }", "{}");
    written_as("{\"z\" : [1, 2.50, {\"a\":{}, \"b\":[[]]}, null], \"a\\n\" : \"\\u00e9\\/\", "
               "\"t\":true,\"f\":false}",
               "{\"z\":[1,2.5,{\"a\":{},\"b\":[[]]},null],\"a\\n\":\"é/\",\"t\":true,\"f\":false}");
    static char text[200];
    slice deep = nested(text, 32, "[", "", "]"); /* deeper than the writer's own levels */
    text[deep.n] = '\0';
    written_as(text, text);
    json_doc *d = parsed("{\"skip\":[0],\"part\":{\"a\":[1,{\"b\":2}]},\"after\":3}");
    buf b = {0};
    json_write(json_get(json_doc_root(d), "part"), &b);
    assert_text(buf_slice(&b), "{\"a\":[1,{\"b\":2}]}");
    buf_reset(&b);
    json_write(NULL, &b);
    assert_text(buf_slice(&b), "null");
    buf_clear(&b);
    json_doc_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_text_is_refused_with_its_place),
        cmocka_unit_test(numbers_that_do_not_fit_are_refused),
        cmocka_unit_test(duplicates_are_refused),
        cmocka_unit_test(invalid_utf8_is_refused),
        cmocka_unit_test(nul_only_if_asked_for),
        cmocka_unit_test(an_error_never_quotes_the_text),
        cmocka_unit_test(size_is_limited),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(the_hard_depth_is_our_own_rule),
        cmocka_unit_test(the_number_of_values_is_limited),
        cmocka_unit_test(a_tree_is_walked_in_order),
        cmocka_unit_test(nothing_is_null),
        cmocka_unit_test(a_scalar_may_be_the_root),
        cmocka_unit_test(good_members_are_read),
        cmocka_unit_test(bad_members_are_named_with_their_path),
        cmocka_unit_test(whole_numbers_at_the_edges),
        cmocka_unit_test(unknown_members_are_named),
        cmocka_unit_test(a_path_is_short_and_printable),
        cmocka_unit_test(what_was_read_can_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
