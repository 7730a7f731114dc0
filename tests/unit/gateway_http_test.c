/* The HTTP server against raw connections on loopback, client and server turned by one thread. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "gateway/http.h"
#include "gateway/limits.h"

/* Ends a test that hangs; no test waits for it. */
#define PATIENCE_US 20000000

static loop *l;
static http *h;
static int fd;
static uint32_t idle_ms = 20000;
static buf heard; /* by the client */
static struct {
    http_ex *x;
    buf body;
    size_t n_begin, n_end, n_over, n_gone, n_drained;
    char method[16], path[64];
    bool pause_first, answer_in_begin, echo;
} s;

static void on_begin(void *ctx UNUSED, http_ex *x)
{
    s.x = x;
    s.n_begin++;
    snprintf(s.method, sizeof s.method, "%.*s", (int)http_method(x).n, http_method(x).p);
    snprintf(s.path, sizeof s.path, "%.*s", (int)http_path(x).n, http_path(x).p);
    if (s.answer_in_begin)
        http_respond(x, 403, "text/plain", SLICE_LIT("no"));
}

static void on_body(void *ctx UNUSED, http_ex *x, slice bytes)
{
    buf_put_slice(&s.body, bytes);
    if (s.pause_first) {
        s.pause_first = false;
        http_pause(x);
    }
}

static void on_end(void *ctx UNUSED, http_ex *x)
{
    s.n_end++;
    if (s.echo)
        http_respond(x, 200, "text/plain", s.body.n ? buf_slice(&s.body) : SLICE_LIT("ok"));
}

static void on_drained(void *ctx UNUSED, http_ex *x UNUSED)
{
    s.n_drained++;
}

static void on_over(void *ctx UNUSED, http_ex *x UNUSED, bool gone)
{
    s.n_over++;
    s.n_gone += gone;
    s.x = NULL;
}

static int setup(void **state UNUSED)
{
    struct why w;
    struct http_config cfg = {.endpoint = "127.0.0.1:0",
                              .connections_max = 16,
                              .idle_ms = idle_ms,
                              .begin = on_begin,
                              .body = on_body,
                              .end = on_end,
                              .drained = on_drained,
                              .over = on_over};
    memset(&s, 0, sizeof s);
    l = loop_new();
    assert_int_equal(http_new(l, &cfg, &h, &w), 0);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)http_port(h)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return 0;
}

static int teardown(void **state UNUSED)
{
    http_free(h);
    assert_int_equal(s.n_over, s.n_begin);
    loop_free(l);
    if (fd >= 0)
        close(fd);
    buf_clear(&heard);
    buf_clear(&s.body);
    return 0;
}

static void listen_in(void)
{
    char piece[65536];
    ssize_t n;
    while (fd >= 0 && (n = recv(fd, piece, sizeof piece, 0)) > 0)
        buf_put(&heard, piece, (size_t)n);
}

/* Turns the loop until the condition holds. */
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        uint64_t end = clock_mono_us() + PATIENCE_US;                                              \
        while (!(condition)) {                                                                     \
            loop_turn(l, 20000);                                                                   \
            listen_in();                                                                           \
            assert_true(clock_mono_us() < end);                                                    \
        }                                                                                          \
    } while (0)

static void say(const char *text)
{
    size_t n = strlen(text), at = 0;
    while (at < n) {
        ssize_t k = send(fd, text + at, n - at, MSG_NOSIGNAL);
        if (k > 0)
            at += (size_t)k;
        else
            loop_turn(l, 1000);
    }
}

static bool has(const char *text)
{
    return heard.n && strstr(buf_cstr(&heard), text);
}

static void whole_answer(void **state UNUSED)
{
    s.echo = true;
    say("GET /a%20b?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(has("\r\n\r\nok"));
    assert_true(has("HTTP/1.1 200 OK"));
    assert_string_equal(s.path, "/a b");
    UNTIL(s.n_over == 1);
    assert_int_equal(s.n_gone, 0);
    buf_reset(&heard);
    say("POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"); /* the connection is kept
                                                                           */
    UNTIL(has("\r\n\r\nhello"));
}

static void answer_later(void **state UNUSED)
{
    say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(s.n_end == 1);
    http_add_header(s.x, "X-Test", SLICE_LIT("a\r\nb: c"));
    http_respond(s.x, 404, "text/plain", SLICE_LIT("late"));
    UNTIL(has("\r\n\r\nlate"));
    assert_true(has("X-Test: ab: c\r\n")); /* no header of its own */
}

static void a_header_on_several_lines(void **state UNUSED)
{
    buf all = {0};
    say("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nx-forwarded-for: "
        "3.3.3.3\r\n\r\n");
    UNTIL(s.n_end == 1);
    http_header_lines(s.x, "X-Forwarded-For", &all);
    assert_string_equal(buf_cstr(&all), "1.1.1.1, 2.2.2.2,3.3.3.3");
    buf_reset(&all);
    http_header_lines(s.x, "X-Other", &all);
    assert_int_equal(all.n, 0);
    http_respond(s.x, 200, "text/plain", SLICE_LIT("ok"));
    UNTIL(s.n_over == 1);
    buf_clear(&all);
}

static void stream(void **state UNUSED)
{
    say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(s.n_end == 1);
    http_stream_begin(s.x, 200, "text/event-stream");
    http_stream_write(s.x, SLICE_LIT("first"));
    UNTIL(has("first")); /* at once, though the stream goes on */
    http_stream_write(s.x, SLICE_LIT("second"));
    UNTIL(has("second"));
    http_stream_end(s.x);
    UNTIL(has("\r\n0\r\n\r\n"));
    UNTIL(s.n_over == 1);
    assert_int_equal(s.n_gone, 0);
}

static void leaves_while_waiting(void **state UNUSED)
{
    say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(s.n_end == 1);
    close(fd);
    fd = -1;
    UNTIL(s.n_over == 1);
    assert_int_equal(s.n_gone, 1);
}

static void leaves_an_idle_stream(void **state UNUSED)
{
    say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(s.n_end == 1);
    http_stream_begin(s.x, 200, "text/event-stream");
    http_stream_write(s.x, SLICE_LIT("first"));
    UNTIL(has("first"));
    close(fd);
    fd = -1;
    UNTIL(s.n_over == 1);
    assert_int_equal(s.n_gone, 1);
}

static void leaves_in_mid_body(void **state UNUSED)
{
    say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
    UNTIL(s.body.n == 5);
    close(fd);
    fd = -1;
    UNTIL(s.n_over == 1);
    assert_int_equal(s.n_gone, 1);
    assert_int_equal(s.n_end, 0);
}

static void paused_body(void **state UNUSED)
{
    s.pause_first = s.echo = true;
    say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
    UNTIL(s.body.n == 5);
    say("world");
    for (int i = 0; i < 5; i++)
        loop_turn(l, 1000);
    assert_int_equal(s.body.n, 5);
    http_unpause(s.x);
    UNTIL(has("\r\n\r\nhelloworld"));
}

static void leaves_while_paused(void **state UNUSED)
{
    s.pause_first = true;
    say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
    UNTIL(s.body.n == 5);
    close(fd);
    fd = -1;
    UNTIL(s.n_over == 1);
    assert_int_equal(s.n_gone, 1);
}

static void refused_before_its_body(void **state UNUSED)
{
    s.answer_in_begin = true;
    say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
    for (int i = 0; i < 5; i++)
        loop_turn(l, 1000);
    say("world"); /* most clients listen only now */
    UNTIL(has("HTTP/1.1 403"));
    assert_int_equal(s.body.n, 0);
    assert_int_equal(s.n_end, 0);
}

static void refused_before_it_is_asked_for(void **state UNUSED)
{
    s.answer_in_begin = true;
    say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n");
    UNTIL(has("HTTP/1.1 403"));
}

static void large_headers(void **state UNUSED)
{
    buf text = {0};
    buf_put_str(&text, "GET / HTTP/1.1\r\nHost: x\r\nX-Big: ");
    for (size_t i = 0; i < HEADERS_BYTES_MAX; i++)
        buf_put_byte(&text, 'a');
    buf_put_str(&text, "\r\n\r\n");
    say(buf_cstr(&text));
    UNTIL(has("HTTP/1.1 431"));
    buf_clear(&text);
}

static void slow_reader(void **state UNUSED)
{
    static char piece[65536];
    memset(piece, 'x', sizeof piece);
    say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(s.n_end == 1);
    http_stream_begin(s.x, 200, "text/plain");
    size_t sent = 0;
    while (!http_full(s.x)) { /* nobody reads: the kernel's buffers fill, then the queue */
        http_stream_write(s.x, (slice){piece, sizeof piece});
        sent += sizeof piece;
        loop_turn(l, 0);
    }
    assert_int_equal(s.n_drained, 0);
    assert_true(http_queued(s.x) >= HTTP_QUEUE_HIGH_BYTES);
    UNTIL(s.n_drained == 1);
    http_stream_end(s.x);
    UNTIL(heard.n >= 5 && memcmp(heard.p + heard.n - 5, "0\r\n\r\n", 5) == 0);
    assert_true(heard.n > sent);
}

static void given_up(void **state UNUSED)
{
    say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(s.n_end == 1);
    http_abort(s.x);
    UNTIL(s.n_over == 1);
    assert_int_equal(s.n_gone, 1);
}

/* teardown ends the server while this one waits. */
static void open_at_the_end(void **state UNUSED)
{
    say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(s.n_end == 1);
    http_quiesce(h);
    assert_int_equal(http_n_open(h), 1);
}

static void garbage(void **state UNUSED)
{
    say("\x01\x02 nonsense\r\n\r\n\r\n");
    close(fd);
    fd = -1;
    for (int i = 0; i < 10; i++)
        loop_turn(l, 1000);
    assert_int_equal(http_n_open(h), 0);
}

/* A head that never ends: every byte is activity, and yet the connection is closed. */
static void trickled_head(void **state UNUSED)
{
    char c = 'x';
    ssize_t n;
    teardown(NULL);
    idle_ms = 2000;
    setup(NULL);
    idle_ms = 20000;
    say("GET / HTTP/1.1\r\nX: ");
    uint64_t end = clock_mono_us() + PATIENCE_US;
    do {
        (void)send(fd, "y", 1, MSG_NOSIGNAL);
        loop_turn(l, 50000);
        n = recv(fd, &c, 1, 0);
        assert_true(clock_mono_us() < end);
    } while (n < 0 && errno == EAGAIN);
    assert_int_equal(s.n_begin, 0);
}

/* What a proxy in front could read otherwise is refused, and nothing after it is read. */
static void two_ends_of_a_body(void **state UNUSED)
{
    static const char *const HEADS[] = {
        "Content-Length: 0\r\nContent-Length: 27\r\n",
        "content-length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
    };
    s.echo = true;
    for (size_t i = 0; i < ARRAY_LEN(HEADS); i++) {
        char text[256];
        char c;
        snprintf(text, sizeof text,
                 "POST / HTTP/1.1\r\nHost: x\r\n%s\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n", HEADS[i]);
        say(text);
        UNTIL(has("\"invalid_request_error\"") && s.n_over == s.n_begin);
        assert_true(has("HTTP/1.1 400") && has("Connection: close"));
        UNTIL(recv(fd, &c, 1, 0) == 0 || errno == ECONNRESET);
        assert_string_equal(s.path, "/");
        teardown(NULL);
        setup(NULL);
        s.echo = true;
    }
}

/* The daemon itself would run out of memory for them and never answer. */
static void many_arguments(void **state UNUSED)
{
    char c;
    say("GET /?");
    for (int i = 0; i < 1000; i++)
        say("a=b&");
    say(" HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(has("HTTP/1.1 414"));
    UNTIL(recv(fd, &c, 1, 0) == 0 || errno == ECONNRESET);
    assert_int_equal(s.n_end, 0);
}

static int another(void)
{
    int n = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)http_port(h)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(n, (struct sockaddr *)&a, sizeof a), 0);
    fcntl(n, F_SETFL, O_NONBLOCK);
    assert_int_equal(send(n, "G", 1, MSG_NOSIGNAL), 1);
    return n;
}

/* Three times as many as may be open say nothing; whoever speaks is heard, whoever waits for an
 * answer gets it. */
static void silent_crowd(void **state UNUSED)
{
    int silent[48], waiting = fd;
    http_ex *first;
    say("GET /first HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(s.n_end == 1);
    first = s.x;
    for (size_t i = 0; i < ARRAY_LEN(silent); i++) {
        silent[i] = another();
        loop_turn(l, 1000);
    }
    fd = another();
    s.echo = true;
    say("ET /second HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(has("\r\n\r\nok"));
    close(fd);
    fd = waiting;
    buf_reset(&heard);
    http_respond(first, 200, "text/plain", SLICE_LIT("first"));
    UNTIL(has("\r\n\r\nfirst"));
    for (size_t i = 0; i < ARRAY_LEN(silent); i++)
        close(silent[i]);
}

static void bad_endpoints(void **state UNUSED)
{
    static const char *const BAD[] = {
        "", "8642", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999999999999999", "300.0.0.1:1"};
    struct http_config cfg = {.connections_max = 1};
    struct why w;
    http *other;
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        cfg.endpoint = BAD[i];
        assert_true(http_new(l, &cfg, &other, &w) < 0);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(whole_answer),
                                       T(answer_later),
                                       T(a_header_on_several_lines),
                                       T(stream),
                                       T(leaves_while_waiting),
                                       T(leaves_an_idle_stream),
                                       T(leaves_in_mid_body),
                                       T(paused_body),
                                       T(leaves_while_paused),
                                       T(refused_before_its_body),
                                       T(refused_before_it_is_asked_for),
                                       T(large_headers),
                                       T(slow_reader),
                                       T(given_up),
                                       T(open_at_the_end),
                                       T(garbage),
                                       T(trickled_head),
                                       T(two_ends_of_a_body),
                                       T(many_arguments),
                                       T(silent_crowd),
                                       T(bad_endpoints)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
