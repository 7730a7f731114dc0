/* Forms, base64 and keys: what comes in pieces, and what is compared. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gateway/base64.h"
#include "gateway/keys.h"
#include "gateway/multipart.h"

/* ---- multipart ---- */

struct got {
    buf log; /* name(filename)=data; */
    int fail_at_part;
};

static int on_part(void *ctx, slice name, slice filename, bool is_file, struct why *w)
{
    struct got *g = ctx;
    if (g->fail_at_part)
        return why_set(w, ERR_UNSUPPORTED, "x", "no");
    buf_put_slice(&g->log, name);
    if (is_file) {
        buf_put_byte(&g->log, '(');
        buf_put_slice(&g->log, filename);
        buf_put_byte(&g->log, ')');
    }
    buf_put_byte(&g->log, '=');
    return 0;
}

static int on_data(void *ctx, slice bytes, struct why *w UNUSED)
{
    buf_put_slice(&((struct got *)ctx)->log, bytes);
    return 0;
}

static int on_end(void *ctx, struct why *w UNUSED)
{
    buf_put_byte(&((struct got *)ctx)->log, ';');
    return 0;
}

static const struct multipart_ops OPS = {on_part, on_data, on_end};

#define TYPE "multipart/form-data; boundary=XX"

/* Feeds the text in pieces of `step` bytes. */
static int form(const char *type, slice text, size_t step, struct got *g, struct why *w)
{
    struct multipart m;
    int e = multipart_init(&m, slice_str(type), &OPS, g, w);
    for (size_t at = 0; e == 0 && at < text.n; at += step)
        e = multipart_feed(&m, (slice){text.p + at, text.n - at < step ? text.n - at : step}, w);
    if (e == 0)
        e = multipart_end(&m, w);
    multipart_clear(&m);
    return e;
}

static void check_form(const char *type, const char *text, const char *want)
{
    for (size_t step = 1; step <= strlen(text); step++) {
        struct got g = {0};
        struct why w = {0};
        int e = form(type, slice_str(text), step, &g, &w);
        if (e != 0 || strcmp(buf_cstr(&g.log), want) != 0)
            fail_msg("step %zu: %s '%s', not '%s' (%s)", step, err_name(e), buf_cstr(&g.log), want,
                     w.text);
        buf_clear(&g.log);
    }
}

static void forms(void **state UNUSED)
{
    check_form(
        TYPE,
        "--XX\r\nContent-Disposition: form-data; "
        "name=\"purpose\"\r\n\r\nuser_data\r\n--XX\r\nContent-Disposition: form-data; "
        "name=\"file\"; filename=\"a b.mp4\"\r\nContent-Type: video/mp4\r\n\r\nBYTES\r\n--XX--\r\n",
        "purpose=user_data;file(a b.mp4)=BYTES;");
    /* Empty parts, bytes that look like a boundary, preamble and epilogue, blanks after a boundary,
     * quotes. */
    check_form(TYPE,
               "hello\r\n--XX \t\r\nContent-Disposition: form-data; "
               "name=a\r\n\r\n\r\n--XX\r\ncontent-disposition: FORM-DATA; "
               "name=\"b\"; "
               "filename=\"q\\\"q.mp4\"\r\n\r\n\r\n--XY\r\n--X\r\n-\r\n\r\n--XX--bye\r\n--XX\r\n",
               "a=;b(q\"q.mp4)=\r\n--XY\r\n--X\r\n-\r\n;");
    check_form("Multipart/Form-Data; charset=x; boundary=\"X X\"",
               "--X X\r\nContent-Disposition: form-data; name=\"f\"; "
               "filename*=UTF-8''%ED%95%9C.mp4\r\n\r\nz\r\n--X X--",
               "f(\xed\x95\x9c.mp4)=z;");
    check_form(TYPE, "--XX--", "");
}

static void broken_forms(void **state UNUSED)
{
    static const struct {
        const char *type, *text;
        int err;
    } BAD[] = {
        {"application/json", "", ERR_INVALID},
        {"multipart/form-data", "", ERR_INVALID},
        {"multipart/form-data; boundary=", "", ERR_INVALID},
        {"multipart/form-data; "
         "boundary=0123456789012345678901234567890123456789012345678901234567890123456789X",
         "", ERR_INVALID},
        {TYPE, "", ERR_INVALID},
        {TYPE, "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nno end", ERR_INVALID},
        {TYPE, "--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--", ERR_INVALID},
        {TYPE, "--XX\r\n\r\nx\r\n--XX--", ERR_INVALID},
        {TYPE, "--XX\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nx\r\n--XX--",
         ERR_INVALID},
        {TYPE, "--XXzz\r\n", ERR_INVALID}};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        struct got g = {0};
        struct why w = {0};
        int e = form(BAD[i].type, slice_str(BAD[i].text), 3, &g, &w);
        if (e != BAD[i].err || !w.text[0])
            fail_msg("%zu: %s", i, err_name(e));
        buf_clear(&g.log);
    }
}

static void form_limits(void **state UNUSED)
{
    buf text = {0};
    for (int n = FORM_PARTS_MAX; n <= FORM_PARTS_MAX + 1; n++) {
        struct got g = {0};
        struct why w;
        buf_reset(&text);
        for (int i = 0; i < n; i++)
            buf_put_str(&text, "--XX\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n");
        buf_put_str(&text, "--XX--");
        assert_int_equal(form(TYPE, buf_slice(&text), 1000, &g, &w),
                         n > FORM_PARTS_MAX ? ERR_TOO_BIG : 0);
        buf_clear(&g.log);
    }
    buf_reset(&text);
    buf_put_str(&text, "--XX\r\nX: ");
    for (int i = 0; i < PART_HEADERS_BYTES_MAX; i++)
        buf_put_byte(&text, 'x');
    struct got g = {.fail_at_part = 0};
    struct why w;
    assert_int_equal(form(TYPE, buf_slice(&text), 100, &g, &w), ERR_TOO_BIG);
    buf_clear(&text);
    g.fail_at_part = 1;
    assert_int_equal(form(TYPE,
                          SLICE_LIT("--XX\r\nContent-Disposition: form-data; name=a\r\n\r\nx"), 100,
                          &g, &w),
                     ERR_UNSUPPORTED);
}

/* ---- base64 ---- */

static void check_base64(const char *text, const char *want)
{
    size_t len = 99;
    buf whole = {0};
    for (size_t step = 1; step <= strlen(text) + 1; step++) {
        struct base64 b = {0};
        buf_reset(&whole);
        int e = 0;
        for (size_t at = 0; e == 0 && at < strlen(text); at += step)
            e = base64_feed(&b,
                            (slice){text + at, strlen(text) - at < step ? strlen(text) - at : step},
                            &whole);
        if (e == 0)
            e = base64_end(&b, &whole);
        assert_int_equal(e, want ? 0 : ERR_INVALID);
        if (want)
            assert_string_equal(buf_cstr(&whole), want);
    }
    assert_int_equal(base64_check(slice_str(text), &len), want ? 0 : ERR_INVALID);
    if (want)
        assert_int_equal(len, strlen(want));
    buf_clear(&whole);
}

static void base64(void **state UNUSED)
{
    check_base64("", "");
    check_base64("QQ==", "A");
    check_base64("QUI=", "AB");
    check_base64("QUJD", "ABC");
    check_base64("QUJDRA", "ABCD"); /* padding left out */
    check_base64("QU JD\r\nRA==", "ABCD");
    check_base64("Pz8_-_8", "???\xfb\xff");
    check_base64("Pz8/+/8=", "???\xfb\xff");
    check_base64("Q", NULL);
    check_base64("QQ=", NULL);
    check_base64("QQ===", NULL);
    check_base64("QUI==", NULL);
    check_base64("QUJD=", NULL);
    check_base64("QQ==QQ==", NULL);
    check_base64("Q*==", NULL);
    check_base64("=", NULL);
}

/* ---- keys ---- */

static int check(const keys *k, const char *header, struct tenant *t)
{
    struct why w;
    return keys_check(k, slice_str(header), t, &w);
}

static void api_keys(void **state UNUSED)
{
    keys *k;
    struct why w;
    struct tenant a, b, c, d;
    slice text = SLICE_LIT("# people\n\nsk-first-key\nteam: sk-second-key \nteam:sk-third-key\n");
    assert_int_equal(keys_parse(text, SLICE_LIT("secret"), &k, &w), 0);
    assert_int_equal(keys_count(k), 3);
    assert_int_equal(check(k, "Bearer sk-first-key", &a), 0);
    assert_int_equal(check(k, "bearer  sk-second-key", &b), 0);
    assert_int_equal(check(k, "Bearer sk-third-key", &c), 0);
    assert_string_equal(b.name, "team");
    assert_memory_equal(b.id, c.id, sizeof b.id);
    assert_memory_not_equal(a.id, b.id, sizeof a.id);
    static const char *const WRONG[] = {"",
                                        "Bearer",
                                        "Bearer ",
                                        "Bearer sk-first-ke",
                                        "Bearer sk-first-key2",
                                        "Basic sk-first-key",
                                        "sk-first-key",
                                        "Bearer team:sk-second-key"};
    for (size_t i = 0; i < ARRAY_LEN(WRONG); i++)
        assert_int_equal(check(k, WRONG[i], &d), ERR_AUTH);
    keys_free(k);
    assert_int_equal(keys_parse(text, SLICE_LIT("another"), &k, &w), 0);
    assert_int_equal(check(k, "Bearer sk-first-key", &d), 0);
    assert_memory_not_equal(a.id, d.id, sizeof a.id);
    keys_free(k);
    assert_int_equal(check(NULL, "", &d), 0);
    assert_int_equal(d.id[0], 0);
}

static void broken_key_files(void **state UNUSED)
{
    keys *k;
    struct why w;
    assert_int_equal(keys_parse(SLICE_LIT(""), (slice){0}, &k, &w), ERR_INVALID);
    assert_int_equal(keys_parse(SLICE_LIT("# none\n"), (slice){0}, &k, &w), ERR_INVALID);
    assert_int_equal(keys_parse(SLICE_LIT("short\n"), (slice){0}, &k, &w), ERR_INVALID);
    assert_non_null(strstr(w.text, "line 1"));
    assert_int_equal(keys_load("/nonexistent", (slice){0}, &k, &w), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),       cmocka_unit_test(broken_forms),
        cmocka_unit_test(form_limits), cmocka_unit_test(base64),
        cmocka_unit_test(api_keys),    cmocka_unit_test(broken_key_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
