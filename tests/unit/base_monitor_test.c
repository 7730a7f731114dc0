/* The listener for watchers, over real sockets: what it says, and what a stranger may cost it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base/listen.h"
#include "common/base/metrics.h"
#include "common/base/monitor.h"

static struct {
    loop *l;
    monitor *m;
    bool ready;
    int collected;
    metric *gauge;
} t;

static void collect(void *ctx UNUSED)
{
    metric_set(t.gauge, ++t.collected);
}

static bool ready(void *ctx UNUSED)
{
    return t.ready;
}

static void begin(uint32_t limit_ms)
{
    struct why w;
    struct monitor_config cfg = {"127.0.0.1:0", NULL, collect, ready, limit_ms};
    t.l = loop_new();
    t.ready = true;
    t.collected = 0;
    t.gauge = metric_gauge("nunchi_test_collected", "", "How often");
    assert_int_equal(monitor_new(t.l, &cfg, &t.m, &w), 0);
    assert_non_null(t.m);
}

static void end(void)
{
    monitor_free(t.m);
    loop_free(t.l);
}

static int dial(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(monitor_port(t.m)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* All that comes until the other side ends it. */
static slice read_all(int fd, buf *out)
{
    char piece[4096];
    for (;;) {
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n > 0)
            buf_put(out, piece, (size_t)n);
        else if (n < 0 && errno == EAGAIN)
            loop_turn(t.l, 1000);
        else
            break;
    }
    close(fd);
    return buf_slice(out);
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void assert_says(const char *request, const char *status, const char *content)
{
    buf got = {0};
    int fd = dial();
    say(fd, request);
    read_all(fd, &got);
    assert_non_null(strstr(buf_cstr(&got), status));
    assert_non_null(strstr(buf_cstr(&got), content));
    buf_clear(&got);
}

static void what_it_says(void **state UNUSED)
{
    begin(0);
    assert_says("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n",
                "\nnunchi_test_collected 1\n");
    assert_says("GET /metrics?a=b HTTP/1.1\r\n\r\n", "version=0.0.4",
                "\nnunchi_test_collected 2\n"); /* as of now */
    assert_says("GET /metrics HTTP/1.0\n\n", "200", "\nprocess_open_fds ");
    assert_says("GET /healthz HTTP/1.1\r\n\r\n", "200", "ok");
    assert_says("GET /readyz HTTP/1.1\r\n\r\n", "200", "ok");
    t.ready = false;
    assert_says("GET /readyz HTTP/1.1\r\n\r\n", "503", "not ready");
    assert_says("GET /healthz HTTP/1.1\r\n\r\n", "200", "ok");
    assert_says("GET / HTTP/1.1\r\n\r\n", "404", "/metrics");
    assert_says("POST /metrics HTTP/1.1\r\n\r\n", "405", "GET");
    assert_says("\r\n\r\n", "405", "GET");
    assert_says("GET\n\n", "404", "/metrics");
    end();
}

static void process_series(void **state UNUSED)
{
    begin(0);
    buf got = {0};
    int fd = dial();
    say(fd, "GET /metrics HTTP/1.1\r\n\r\n");
    read_all(fd, &got);
    double now = (double)time(NULL),
           started = strtod(strstr(buf_cstr(&got), "\nprocess_start_time_seconds ") + 28, NULL),
           rss = strtod(strstr(buf_cstr(&got), "\nprocess_resident_memory_bytes ") + 31, NULL);
    assert_true(started <= now + 1 && started > now - 600);
    assert_true(rss > 1e6 && rss < 1e9);
    buf_clear(&got);
    end();
}

static void a_head_without_end(void **state UNUSED)
{
    begin(0);
    buf got = {0}, head = {0};
    int fd = dial();
    while (head.n < MONITOR_HEAD_MAX)
        buf_put_str(&head, "GET /metrics ");
    head.n = MONITOR_HEAD_MAX - 1;
    assert_int_equal(send(fd, head.p, head.n, 0), head.n);
    loop_turn(t.l, 1000);
    assert_true(recv(fd, head.p, 1, 0) < 0 && errno == EAGAIN); /* it may still become a request */
    say(fd, "x");
    read_all(fd, &got);
    assert_non_null(strstr(buf_cstr(&got), "431"));
    buf_clear(&got);
    buf_clear(&head);
    end();
}

static void who_says_nothing_is_hung_up_on(void **state UNUSED)
{
    begin(20);
    buf got = {0};
    int fd = dial();
    say(fd, "GET /metrics"); /* and no more */
    assert_int_equal(read_all(fd, &got).n, 0);
    fd = dial();
    say(fd, "GET /metrics HTTP/1.1\r\n\r\n"); /* answered, and stays */
    for (uint64_t until = loop_now_us(t.l) + 100000; loop_now_us(t.l) < until;)
        loop_turn(t.l, 10000);
    shutdown(fd, SHUT_WR);
    assert_true(read_all(fd, &got).n > 0);
    end();
    buf_clear(&got);
}

static void more_than_it_takes(void **state UNUSED)
{
    enum { MORE = MONITOR_CONNECTIONS_MAX + 5 };
    begin(0);
    int fds[MORE];
    buf got = {0};
    for (int i = 0; i < MORE; i++)
        fds[i] = dial();
    for (int i = 0; i < MORE; i++)
        say(fds[i], "GET /healthz HTTP/1.1\r\n"); /* not ended: they stay */
    for (int i = 0; i < 3 * MORE; i++)
        loop_turn(t.l, 0);
    say(fds[MORE - 1], "\r\n"); /* it waits in the kernel */
    for (int i = 0; i < MORE; i++)
        loop_turn(t.l, 0);
    assert_true(recv(fds[MORE - 1], &(char){0}, 1, 0) < 0 && errno == EAGAIN);
    for (int i = 0; i < MORE - 1; i++) {
        if (i < 5)
            close(fds[i]); /* some make room by leaving */
        else
            say(fds[i], "\r\n");
    }
    for (int i = 5; i < MORE; i++) {
        got.n = 0;
        read_all(fds[i], &got);
        assert_non_null(strstr(buf_cstr(&got), "ok"));
    }
    buf_clear(&got);
    end();
}

static void addresses(void **state UNUSED)
{
    struct why w;
    int fd = -1;
    monitor *m;
    loop *l = loop_new();
    struct monitor_config none = {.address = NULL}, empty = {.address = ""},
                          bad = {"9650", .ctx = NULL};
    assert_int_equal(monitor_new(l, &none, &m, &w), 0);
    assert_null(m);
    assert_int_equal(monitor_new(l, &empty, &m, &w), 0);
    assert_null(m);
    assert_int_equal(monitor_new(l, &bad, &m, &w), ERR_INVALID);
    assert_string_equal(w.field, "metrics");
    monitor_free(NULL);
    assert_int_equal(listen_tcp("[::1]:0", "http", &fd, &w), 0);
    assert_true(listen_port(fd) > 0);
    close(fd);
    assert_int_equal(listen_tcp("*:0", "http", &fd, &w), 0);
    close(fd);
    assert_int_equal(listen_tcp("localhost:", "http", &fd, &w), ERR_INVALID);
    assert_int_equal(listen_tcp("203.0.113.7:1", "http", &fd, &w), ERR_IO); /* not ours */
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_says),       cmocka_unit_test(process_series),
        cmocka_unit_test(a_head_without_end), cmocka_unit_test(who_says_nothing_is_hung_up_on),
        cmocka_unit_test(more_than_it_takes), cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
