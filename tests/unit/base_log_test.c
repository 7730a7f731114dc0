#include "tests/unit/base_testing.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sys/mman.h>

#include "common/base/log.h"
#include "common/json/json.h"

static int fd;

/* The log goes into a memory file; what was written since the last look is parsed back. */
static int open_log(void **state UNUSED)
{
    fd = memfd_create("log", 0);
    assert_true(fd >= 0);
    log_init("nunchi-test", LOG_INFO, fd);
    return 0;
}

static int close_log(void **state UNUSED)
{
    log_init("nunchi-test", LOG_INFO, STDERR_FILENO);
    return close(fd);
}

static slice written(char *text, size_t room)
{
    ssize_t n = pread(fd, text, room, 0);
    assert_true(n >= 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return (slice){text, (size_t)n};
}

static json_doc *one_line(char *text, size_t room)
{
    static const struct json_limits LIM = {
        .max_bytes = 1 << 16, .max_depth = 4, .max_nodes = 200, .allow_nul = true};
    slice s = written(text, room);
    assert_true(s.n > 0 && s.n <= LOG_LINE_MAX && s.p[s.n - 1] == '\n');
    assert_ptr_equal(memchr(s.p, '\n', s.n), s.p + s.n - 1);
    json_doc *d;
    struct why w;
    if (json_doc_parse(s, &LIM, &d, &w) < 0)
        fail_msg("%s in %.*s", w.text, (int)s.n, s.p);
    return d;
}

static slice member(const json_doc *d, const char *key)
{
    return json_str_or(json_get(json_doc_root(d), key), SLICE_LIT("?"));
}

static void a_line_is_one_json_object(void **state UNUSED)
{
    char text[LOG_LINE_MAX + 1];
    double f;
    int64_t i;
    errno = 77;
    log_info("worker up", LOG_STR("worker", "w-1"), LOG_U64("slots", 16), LOG_I64("neg", -3),
             LOG_F64("half", 0.5), LOG_F64("nan", NAN), LOG_HEX("key", "\x01\xfe", 2),
             LOG_SLICE("text", SLICE_LIT("a\"\\\n\t\xff\0한")), LOG_STR("none", NULL));
    assert_int_equal(errno, 77);
    json_doc *d = one_line(text, sizeof text);
    assert_text(member(d, "lvl"), "info");
    assert_text(member(d, "svc"), "nunchi-test");
    assert_text(member(d, "msg"), "worker up");
    assert_text(member(d, "worker"), "w-1");
    assert_text(member(d, "key"), "01fe");
    assert_slice(member(d, "text"), SLICE_LIT("a\"\\\n\t\xEF\xBF\xBD\0한"));
    assert_int_equal(json_opt_i64(json_doc_root(d), "neg", -10, 0, &i, NULL), 1);
    assert_int_equal(i, -3);
    assert_int_equal(json_opt_f64(json_doc_root(d), "half", 0, 1, &f, NULL), 1);
    assert_true(json_absent(json_get(json_doc_root(d), "nan")));
    slice ts = member(d, "ts");
    assert_int_equal(ts.n, strlen("2026-01-02T03:04:05.678Z"));
    assert_true(ts.p[4] == '-' && ts.p[10] == 'T' && ts.p[19] == '.' && ts.p[23] == 'Z');
    json_doc_free(d);
}

static void the_date_is_right(void **state UNUSED)
{
    char text[LOG_LINE_MAX + 1], want[32];
    time_t before, after;
    slice ts;
    json_doc *d = NULL;
    do { /* again if midnight, or any second, fell in between */
        json_doc_free(d);
        before = time(NULL);
        log_info("now");
        after = time(NULL);
        d = one_line(text, sizeof text);
        ts = member(d, "ts");
    } while (before != after);
    struct tm tm;
    gmtime_r(&before, &tm);
    strftime(want, sizeof want, "%Y-%m-%dT%H:%M:%S", &tm);
    assert_text(((slice){ts.p, 19}), want);
    json_doc_free(d);
}

static void what_is_below_the_level_is_not_written(void **state UNUSED)
{
    char text[LOG_LINE_MAX + 1];
    log_debug("quiet");
    assert_int_equal(written(text, sizeof text).n, 0);
    log_set_level(LOG_ERROR);
    log_warn("quiet");
    assert_int_equal(written(text, sizeof text).n, 0);
    log_error("loud");
    json_doc_free(one_line(text, sizeof text));
    log_set_level(LOG_DEBUG);
    log_debug("loud");
    json_doc_free(one_line(text, sizeof text));
    log_set_level(LOG_INFO);
    enum log_level l;
    assert_int_equal(log_level_parse(SLICE_LIT("warn"), &l), 0);
    assert_int_equal(l, LOG_WARN);
    assert_int_equal(log_level_parse(SLICE_LIT("warning"), &l), ERR_INVALID);
}

static void a_long_line_is_cut_and_stays_json(void **state UNUSED)
{
    static char big[8000];
    char text[LOG_LINE_MAX + 1];
    for (size_t n = 3900; n < 4100; n++) { /* around the limit, every length */
        memset(big, '"', sizeof big);
        memset(big, 'x', n - 100);
        log_info("m", LOG_STR("first", "kept"), LOG_SLICE("big", ((slice){big, n})),
                 LOG_STR("last", "dropped"));
        json_doc *d = one_line(text, sizeof text);
        assert_text(member(d, "first"), "kept");
        bool cut = json_get(json_doc_root(d), "cut") != NULL;
        assert_int_equal(cut, json_get(json_doc_root(d), "last") == NULL);
        json_doc_free(d);
    }
    memset(big, 'm', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    log_info(big, LOG_STR("k", "v"));
    json_doc_free(one_line(text, sizeof text));
}

static void *shout(void *arg)
{
    for (int i = 0; i < 200; i++)
        log_info("from a thread", LOG_STR("who", arg), LOG_I64("i", i));
    return NULL;
}

static void threads_do_not_mix_lines(void **state UNUSED)
{
    enum { N = 4 };
    static char text[1 << 18];
    static char names[N][2] = {"a", "b", "c", "d"};
    pthread_t t[N];
    assert_int_equal(fcntl(fd, F_SETFL, O_APPEND), 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(pthread_create(&t[i], NULL, shout, names[i]), 0);
    for (int i = 0; i < N; i++)
        pthread_join(t[i], NULL);
    slice all = written(text, sizeof text), line;
    int n = 0;
    while (slice_split(&all, '\n', &line) && line.n) {
        assert_true(slice_starts(line, SLICE_LIT("{\"ts\":\"")));
        assert_int_equal(line.p[line.n - 1], '}');
        n++;
    }
    assert_int_equal(n, N * 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_one_json_object),
        cmocka_unit_test(the_date_is_right),
        cmocka_unit_test(what_is_below_the_level_is_not_written),
        cmocka_unit_test(a_long_line_is_cut_and_stays_json),
        cmocka_unit_test(threads_do_not_mix_lines),
    };
    return cmocka_run_group_tests(tests, open_log, close_log);
}
