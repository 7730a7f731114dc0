/* The load generator's reading: the same counts however the bytes are cut, and errors for what is
 * no answer. */
#include "tests/unit/base_testing.h"

#include "tests/load/lib/answer.h"
#include "tests/load/lib/prompts.h"
#include "tests/load/lib/spread.h"

#define HEAD                                                                                       \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

/* One chunk for each of the events. */
static void put_chunk(buf *out, const char *text)
{
    buf_printf(out, "%zx\r\n%s\r\n", strlen(text), text);
}

static void put_stream(buf *out)
{
    buf_put_str(out, HEAD);
    put_chunk(out,
              "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n");
    put_chunk(out, ": reading video 42%\n\n");
    put_chunk(out, "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n");
    put_chunk(out, "data: {\"choices\":[{\"delta\":{\"content\": \"lo\"}}]}\n\n"
                   "data: {\"choices\":[{\"delta\":{\"content\":null}}],\"usage\":null}\n\n");
    put_chunk(out, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3,"
                   "\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n");
    put_chunk(out, "data: [DONE]\n\n");
    buf_put_str(out, "0\r\n\r\n");
}

static int feed_in_pieces(struct answer *a, slice in, size_t piece, struct why *w)
{
    size_t at = 0;
    while (at < in.n && a->state != ANSWER_DONE) {
        size_t n = in.n - at < piece ? in.n - at : piece;
        int used = answer_feed(a, (slice){in.p + at, n}, w);
        if (used < 0)
            return used;
        at += (size_t)used;
    }
    return (int)at;
}

static void test_any_cut(void **state UNUSED)
{
    buf in = {0};
    struct answer a = {0};
    struct why w = {0};
    put_stream(&in);
    for (size_t piece = 1; piece <= in.n; piece++) {
        answer_init(&a);
        assert_int_equal(feed_in_pieces(&a, buf_slice(&in), piece, &w), in.n);
        assert_int_equal(a.state, ANSWER_DONE);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.n_pieces, 2);
        assert_true(a.done && !a.failed && !a.closes && a.has_usage);
        assert_int_equal(a.prompt_tokens, 12);
        assert_int_equal(a.completion_tokens, 3);
        assert_int_equal(a.cached_tokens, 8);
    }
    answer_clear(&a);
    buf_clear(&in);
}

static void take(struct answer *a, const char *text)
{
    struct why w = {0};
    answer_init(a);
    assert_int_equal(feed_in_pieces(a, slice_str(text), 7, &w), strlen(text));
}

static void test_bodies(void **state UNUSED)
{
    struct answer a = {0};
    take(&a, "HTTP/1.1 429 Too Many\r\nContent-Length: 5\r\nConnection: close\r\n\r\nenter");
    assert_int_equal(a.state, ANSWER_DONE);
    assert_int_equal(a.status, 429);
    assert_true(a.closes);
    assert_text(buf_slice(&a.kept), "enter");

    take(&a, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_int_equal(a.state, ANSWER_DONE);
    assert_int_equal(a.status, 200);

    take(&a,
         "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {\"content\":\"x\"}\n\n");
    assert_int_equal(a.state, ANSWER_BODY);
    assert_int_equal(answer_eof(&a), 0);
    assert_int_equal(a.state, ANSWER_DONE);
    assert_int_equal(a.n_pieces, 1);
    assert_true(a.closes && !a.done);

    take(&a, HEAD "1c\r\ndata: {\"error\":{\"code\":1}}\n\n");
    assert_true(a.failed);
    assert_text(buf_slice(&a.kept), "{\"error\":{\"code\":1}}");
    assert_int_equal(answer_eof(&a), ERR_PROTO); /* the last chunk is missing */
    answer_clear(&a);
}

static void refused(const char *text)
{
    struct answer a = {0};
    struct why w = {0};
    answer_init(&a);
    assert_int_equal(feed_in_pieces(&a, slice_str(text), 5, &w), ERR_PROTO);
    assert_true(w.text[0]);
    answer_clear(&a);
}

static void test_what_is_no_answer(void **state UNUSED)
{
    refused("SSH-2.0-OpenSSH_9.2\r\n");
    refused("HTTP/1.1 twohundred\r\n\r\n");
    refused("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n");
    refused(HEAD "zz\r\n");
    refused(HEAD "ffffffffffffffff\r\n");
}

static void test_a_head_without_end(void **state UNUSED)
{
    struct answer a = {0};
    struct why w = {0};
    buf text = {0};
    buf_put_str(&text, "HTTP/1.1 200 OK\r\n");
    while (text.n <= ANSWER_HEAD_MAX)
        buf_put_str(&text, "X-More: and more and more\r\n");
    answer_init(&a);
    assert_int_equal(feed_in_pieces(&a, buf_slice(&text), 100, &w), ERR_PROTO);
    answer_clear(&a);
    buf_clear(&text);
}

static void test_a_body_is_kept_to_its_limit(void **state UNUSED)
{
    struct answer a = {0};
    struct why w = {0};
    buf text = {0};
    buf_printf(&text, "HTTP/1.1 500 Oh\r\nContent-Length: %d\r\n\r\n", ANSWER_KEPT_MAX + 10);
    for (int i = 0; i < ANSWER_KEPT_MAX + 10; i++)
        buf_put_byte(&text, 'x');
    answer_init(&a);
    assert_int_equal(feed_in_pieces(&a, buf_slice(&text), 4096, &w), text.n);
    assert_int_equal(a.state, ANSWER_DONE);
    assert_int_equal(a.kept.n, ANSWER_KEPT_MAX);
    answer_clear(&a);
    buf_clear(&text);
}

static void test_percentiles(void **state UNUSED)
{
    static struct spread s;
    for (uint64_t us = 1; us <= 100000; us++)
        spread_add(&s, us);
    const double shares[] = {0.01, 0.5, 0.9, 0.99, 1};
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        double want = shares[i] * 100000, got = (double)spread_at(&s, shares[i]);
        assert_true(got >= want && got <= want * 1.016);
    }
    assert_int_equal(s.max_us, 100000);
    spread_add(&s, UINT64_MAX / 2); /* beyond the last bucket */
    assert_int_equal(spread_at(&s, 1), s.max_us);
}

static void test_prompts(void **state UNUSED)
{
    struct load_options o = {.shared_words = 5, .prompt_words = 20, .seed = 1};
    struct prompts p;
    struct why w;
    buf a = {0}, b = {0}, again = {0};
    assert_int_equal(prompts_open(&p, &o, &w), 0);
    prompts_put(&p, 1, &a);
    prompts_put(&p, 2, &b);
    prompts_put(&p, 1, &again);
    assert_slice(buf_slice(&a), buf_slice(&again));
    assert_true(slice_starts(buf_slice(&a), buf_slice(&p.shared)) && p.shared.n > 0);
    assert_true(slice_starts(buf_slice(&b), buf_slice(&p.shared)));
    assert_false(slice_eq(buf_slice(&a), buf_slice(&b)));
    prompts_close(&p);
    buf_clear(&a);
    buf_clear(&b);
    buf_clear(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_cut),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_what_is_no_answer),
        cmocka_unit_test(test_a_head_without_end),
        cmocka_unit_test(test_a_body_is_kept_to_its_limit),
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_prompts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
