#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tokenizer-svc/pretok.h"

/* The words of text, joined by '|'. */
static void words_by(pretok *p, slice text, buf *out)
{
    struct why w = {0};
    buf keep = {0};
    pretok_match *m = pretok_match_new(p);
    assert_int_equal(pretok_normal(p, text, &keep, &text, &w), 0);
    buf_reset(out);
    for (size_t at = 0, len; at < text.n; at += len) {
        assert_int_equal(pretok_word(m, text, at, &len, &w), 0);
        assert_true(len > 0 && len <= text.n - at);
        if (at > 0)
            buf_put_byte(out, '|');
        buf_put(out, text.p + at, len);
    }
    pretok_match_free(m);
    pretok_free(p);
    buf_clear(&keep);
}

static void words(const char *name, slice text, buf *out)
{
    pretok *p;
    struct why w = {0};
    assert_int_equal(pretok_new(slice_str(name), NORMAL_NONE, &p, &w), 0);
    words_by(p, text, out);
}

static void a_models_own_pattern_cuts(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text, *want;
    } cases[] = {
        {"\\p{N}{1,3}", "ab12345c", "ab|123|45|c"}, /* what lies between is a word */
        {"\\s+",
         "a \xc2\x85"
         "b",
         "a| \xc2\x85|b"},
        {"[^\\s]+",
         "a\xc2\x85"
         "b",
         "a|\xc2\x85|b"},
        {"\\S", "ab c", "a|b| |c"},
        {"(?i:x)|\\[", "aX[x", "a|X|[|x"},
        {"z*", "aaz", "aa|z"}, /* nothing is no match */
    };
    buf out = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        pretok *p;
        struct why w = {0};
        assert_int_equal(pretok_new_split(slice_str(cases[i].pattern), NORMAL_NONE, &p, &w), 0);
        words_by(p, slice_str(cases[i].text), &out);
        assert_string_equal(buf_cstr(&out), cases[i].want);
    }
    buf_clear(&out);
}

static void wrong_patterns_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"(",           "[",     "a{2,1}", "\\",
                                      "[[:alpha:]]", "[\\S]", "(?C1",   "\\p{Nope}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        pretok *p;
        struct why w = {0};
        assert_true(pretok_new_split(slice_str(bad[i]), NORMAL_NONE, &p, &w) < 0);
        assert_null(p);
        assert_non_null(strstr(w.text, "pattern"));
    }
}

/* Backtracking without end meets a limit, not the machine's patience. */
static void patterns_that_explode_end(void **state)
{
    (void)state;
    enum { N = 200000 };
    char *text = try_calloc(N + 1, 1);
    pretok *p;
    size_t len;
    struct why w = {0};
    assert_non_null(text);
    memset(text, 'x', N);
    assert_int_equal(pretok_new_split(SLICE_LIT("(x+x+)+[yz]"), NORMAL_NONE, &p, &w), 0);
    pretok_match *m = pretok_match_new(p);
    assert_int_equal(pretok_word(m, (slice){text, N}, 0, &len, &w), ERR_INVALID);
    pretok_match_free(m);
    pretok_free(p);
    free(text);
}

static void each_name_cuts_its_own_way(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *want;
    } cases[] = {
        {"gpt-2", "It's  12 o'clock!!", "It|'s| | 12| o|'|clock|!!"},
        {"smollm", "It's  12 o'clock!!", "It|'s|  |1|2| o|'|clock|!!"},
        {"smollm", "a   1", "a|   |1"},
        {"smollm", "a   b", "a|  | b"},
        {"default", "a   1", "a|  | 1"},
        {"", "x \n\n y", "x| \n\n| y"},
        {"smollm", "\xc2\xbd\xd9\xa3", "\xc2\xbd|\xd9\xa3"}, /* a half, an Arabic three */
        {"gpt-2", "a\xc2\x85 b", "a|\xc2\x85| b"},           /* U+0085 is white space */
        {"gpt-2", "a\xe1\xa0\x8e!", "a|\xe1\xa0\x8e!"},      /* U+180E is not */
        {"llama-bpe", "1234567 I'LL\n\n x", "123|456|7| I|'LL|\n\n| x"},
        {"qwen2", "e\xcc\x81 12", "\xc3\xa9| |1|2"},           /* composed first */
        {"qwen2", "\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81"}, /* a syllable and what ends it */
    };
    buf out = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        words(cases[i].name, slice_str(cases[i].text), &out);
        assert_string_equal(buf_cstr(&out), cases[i].want);
    }
    buf_clear(&out);
}

static void unknown_names_are_refused(void **state)
{
    (void)state;
    pretok *p;
    struct why w = {0};
    assert_int_equal(pretok_new(SLICE_LIT("deepseek-llm"), NORMAL_NONE, &p, &w), ERR_UNSUPPORTED);
    assert_non_null(strstr(w.text, "deepseek-llm"));
    assert_null(p);
}

static void long_runs_are_one_word_and_no_trouble(void **state)
{
    (void)state;
    static const char *const kinds[] = {"smollm", "llama-bpe", "qwen2"};
    enum { N = 1000000 };
    char *text = try_calloc(N + 1, 1);
    assert_non_null(text);
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        for (const char *c = "a !"; *c; c++) {
            pretok *p;
            size_t len;
            assert_int_equal(pretok_new(slice_str(kinds[k]), NORMAL_NONE, &p, NULL), 0);
            pretok_match *m = pretok_match_new(p);
            memset(text, *c, N);
            text[N] = 'b';
            assert_int_equal(pretok_word(m, (slice){text, N + 1}, 0, &len, NULL), 0);
            assert_true(len >= N - 1);
            pretok_match_free(m);
            pretok_free(p);
        }
    free(text);
}

static void a_pile_of_marks_is_refused(void **state)
{
    (void)state;
    pretok *p;
    struct why w = {0};
    buf text = {0}, keep = {0};
    slice out;
    assert_int_equal(pretok_new(SLICE_LIT("qwen2"), NORMAL_NONE, &p, NULL), 0);
    buf_put_byte(&text, 'a');
    for (int i = 0; i < PRETOK_MARKS_MAX; i++)
        buf_put_str(&text, i % 2 ? "\xcc\x81" : "\xcc\xa3");
    assert_int_equal(pretok_normal(p, buf_slice(&text), &keep, &out, &w), 0);
    buf_put_str(&text, "\xcc\x81");
    assert_int_equal(pretok_normal(p, buf_slice(&text), &keep, &out, &w), ERR_INVALID);
    pretok_free(p);
    buf_clear(&text);
    buf_clear(&keep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_name_cuts_its_own_way),
        cmocka_unit_test(a_models_own_pattern_cuts),
        cmocka_unit_test(wrong_patterns_are_refused),
        cmocka_unit_test(patterns_that_explode_end),
        cmocka_unit_test(unknown_names_are_refused),
        cmocka_unit_test(long_runs_are_one_word_and_no_trouble),
        cmocka_unit_test(a_pile_of_marks_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
