/* Spans: what they are called, how many wait, what a collector is sent, and one that never answers.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/listen.h"
#include "common/trace/export.h"
#include "common/trace/otlp.h"
#include "common/trace/queue.h"

static const struct trace_at AT = {.trace = {1, 2, 3}, .span = {9, 9}, .on = true};

static void ids(void **state UNUSED)
{
    struct trace_span a, b, again;
    trace_begin(&a, &AT, 1, "a", TRACE_SERVER, 100);
    trace_begin(&b, &AT, 2, "b", TRACE_SERVER, 100);
    trace_begin(&again, &AT, 1, "a", TRACE_SERVER, 700);
    assert_memory_equal(a.trace, AT.trace, sizeof a.trace);
    assert_memory_equal(a.parent, AT.span, sizeof a.parent);
    assert_memory_not_equal(a.id, b.id, sizeof a.id);
    assert_memory_equal(a.id, again.id, sizeof a.id);
    struct trace_at in = trace_inside(&a);
    trace_begin(&b, &in, 1, "child", TRACE_INTERNAL, 100);
    assert_memory_equal(b.parent, a.id, sizeof a.id);
    assert_memory_not_equal(b.id, a.id, sizeof a.id);
}

static void a_share_of_all(void **state UNUSED)
{
    int chosen = 0;
    for (int i = 0; i < 10000; i++) {
        uint8_t trace[TRACE_ID_BYTES];
        random_bytes(trace, sizeof trace);
        chosen += trace_chosen(trace, 0.25);
        assert_true(trace_chosen(trace, 1));
        assert_false(trace_chosen(trace, 0));
    }
    assert_true(chosen > 2200 && chosen < 2800);
    uint8_t most[TRACE_ID_BYTES];
    memset(most, 255, sizeof most);
    assert_true(trace_chosen(most, 1));
}

static void attributes_are_bounded(void **state UNUSED)
{
    char text[1000];
    struct trace_span s;
    memset(text, 'x', sizeof text);
    trace_begin(&s, &AT, 1, "a", TRACE_SERVER, 100);
    for (int i = 0; i < 3 * TRACE_ATTRS_MAX; i++)
        trace_text(&s, "k", (slice){text, sizeof text});
    trace_int(&s, "n", 1);
    assert_int_equal(s.n_attrs, TRACE_ATTRS_MAX);
    assert_int_equal(strlen(s.attrs[TRACE_ATTRS_MAX - 1].text), TRACE_TEXT_MAX - 1);
}

static void a_full_queue_drops(void **state UNUSED)
{
    struct trace_span s, out[3];
    trace_begin(&s, &AT, 1, "a", TRACE_SERVER, 0);
    trace_record(&s); /* nobody collects */
    assert_false(trace_on());
    trace_queue_start();
    assert_true(trace_on());
    assert_int_equal(trace_queue_take(out, 3, 1), 0);
    for (uint64_t i = 0; i < TRACE_QUEUE_MAX + 5; i++) {
        s.start_us = i;
        trace_record(&s);
    }
    assert_int_equal(trace_queue_dropped(), 5);
    for (uint64_t i = 0; i < TRACE_QUEUE_MAX; i++) {
        assert_int_equal(trace_queue_take(out, 1, 1000), 1);
        assert_int_equal(out[0].start_us, i);
        if (i % 2) { /* round the ring */
            s.start_us = i;
            trace_record(&s);
            assert_int_equal(trace_queue_dropped(), 5);
        }
    }
    assert_int_equal(trace_queue_take(out, 3, 1000), 3);
    trace_queue_end();
    trace_record(&s);
    size_t left = 0;
    for (size_t n; (n = trace_queue_take(out, 3, 60000)) > 0;)
        left += n; /* what waited, and no waiting for more */
    assert_int_equal(left, TRACE_QUEUE_MAX / 2 - 3);
}

static void as_a_collector_reads_it(void **state UNUSED)
{
    struct otlp_source from = {"nunchi-test", "host:1", 1000};
    struct trace_span s[2];
    trace_begin(&s[0], &AT, 1, "a \"name\"", TRACE_CLIENT, 5);
    s[0].end_us = 3; /* before its start: no time at all */
    trace_int(&s[0], "n", INT64_MIN);
    trace_text(&s[0], "t", SLICE_LIT("\xff\"\n"));
    struct trace_at root = {.trace = {7}};
    trace_begin(&s[1], &root, 2, "b", TRACE_SERVER, 5);
    s[1].end_us = 6;
    s[1].err = ERR_TIMEOUT;
    buf out = {0};
    otlp_json(&from, s, 2, &out);
    const char *text = buf_cstr(&out);
    assert_non_null(strstr(text, "\"traceId\":\"01020300000000000000000000000000\""));
    assert_non_null(strstr(text, "\"parentSpanId\":\"0909000000000000\""));
    assert_non_null(strstr(text, "\"name\":\"a \\\"name\\\"\",\"kind\":3,\"startTimeUnixNano\":"
                                 "\"1005000\",\"endTimeUnixNano\":\"1005000\""));
    assert_non_null(
        strstr(text, "{\"key\":\"n\",\"value\":{\"intValue\":\"-9223372036854775808\"}}"));
    assert_non_null(strstr(text, "\"stringValue\":\"\xef\xbf\xbd\\\"\\n\""));
    assert_non_null(strstr(text, "\"status\":{\"code\":2,\"message\":"));
    const char *second = strstr(text, "\"traceId\":\"0700");
    assert_non_null(second);
    assert_null(strstr(second, "parentSpanId"));
    buf_clear(&out);
}

static void urls(void **state UNUSED)
{
    struct why w;
    assert_int_equal(trace_export_start("", "t", &w), 0);
    assert_int_equal(trace_export_start(NULL, "t", &w), 0);
    assert_false(trace_on());
    assert_int_equal(trace_export_start("collector:4318", "t", &w), ERR_INVALID);
    assert_string_equal(w.field, "otlp");
    assert_int_equal(trace_export_start("file:///etc/passwd", "t", &w), ERR_INVALID);
    assert_int_equal(trace_export_start("http://me:secret@collector:4318", "t", &w), ERR_INVALID);
    assert_null(strstr(w.text, "secret"));
    trace_export_stop();
}

/* It takes the connection and says nothing: the end comes all the same. */
static void a_collector_that_never_answers(void **state UNUSED)
{
    struct why w;
    struct trace_span s;
    char url[64];
    int fd;
    assert_int_equal(listen_tcp("127.0.0.1:0", "http", &fd, &w), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", listen_port(fd));
    assert_int_equal(trace_export_start(url, "nunchi-test", &w), 0);
    trace_begin(&s, &AT, 1, "a", TRACE_SERVER, clock_mono_us());
    for (int i = 0; i < 5000; i++)
        trace_record(&s);
    uint64_t before = clock_mono_us();
    trace_export_stop();
    assert_true(clock_mono_us() - before < (TRACE_STOP_MS + 5000) * 1000u);
    assert_false(trace_on());
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids),
        cmocka_unit_test(a_share_of_all),
        cmocka_unit_test(attributes_are_bounded),
        cmocka_unit_test(a_full_queue_drops),
        cmocka_unit_test(as_a_collector_reads_it),
        cmocka_unit_test(urls),
        cmocka_unit_test(a_collector_that_never_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
