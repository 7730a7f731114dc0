/* The decoder as a process: walls that hold, and every way in which it can end. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/unit/video_testing.h"
#include "video-svc/child.h"
#include "video-svc/spool.h"

static char decoder[512];

static void need_decoder(void)
{
    if (!video_program("nunchi-decode", decoder, sizeof decoder)) {
        print_message("SKIPPED: nunchi-decode is not built\n");
        skip();
    }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static void the_walls_hold(void **state UNUSED)
{
    need_decoder();
    if (SANITIZED) {
        print_message("SKIPPED: sanitizers need what the sandbox forbids\n");
        skip();
    }
    static const char *const TRY[] = {"open", "socket", "exec", "fork", "exec-memory", "write"};
    for (size_t i = 0; i < ARRAY_LEN(TRY); i++) {
        char line[700];
        snprintf(line, sizeof line, "'%s' --sandbox-selftest %s >/dev/null 2>&1; exit $?", decoder,
                 TRY[i]);
        int status = system(line);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 128 + SIGSYS);
    }
}

struct ending {
    loop *l;
    bool ended;
    int err;
    struct why why;
    size_t n_records;
    int failed;
    char said[300];
    child *kill_at_hello;
};

static void on_record(void *ctx, const struct record *r)
{
    struct ending *e = ctx;
    e->n_records++;
    if (r->type == REC_FAIL) {
        e->failed = err_from_wire(r->fail.code);
        snprintf(e->said, sizeof e->said, "%.*s", (int)r->fail.text.n, r->fail.text.p);
    }
    if (r->type == REC_HELLO && e->kill_at_hello)
        child_kill(e->kill_at_hello);
}

static void on_end(void *ctx, int err, const struct why *w)
{
    struct ending *e = ctx;
    e->ended = true;
    e->err = err;
    e->why = *w;
    loop_stop(e->l, 0);
}

static struct ending ending;

static const struct ending *run(const char *program, const char *const *args, int fd, bool kill_it)
{
    ending = (struct ending){.l = loop_new()};
    struct child_config cfg = {.program = program,
                               .args = args,
                               .input_fd = fd,
                               .ctx = &ending,
                               .record = on_record,
                               .end = on_end};
    child *c = NULL;
    assert_int_equal(child_start(ending.l, &cfg, &c, &ending.why), 0);
    if (kill_it)
        ending.kill_at_hello = c;
    loop_run(ending.l);
    loop_free(ending.l);
    assert_true(ending.ended);
    return &ending;
}

static int memory_file(const char *text)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return fd;
}

static const char *const NO_ARGS[] = {NULL};
static const char *const PLAIN[] = {"--ocr-languages=", NULL};

static void it_says_what_is_wrong(void **state UNUSED)
{
    need_decoder();
    int fd = memory_file("#EXTM3U\nfile:///etc/passwd\n");
    const struct ending *e = run(decoder, PLAIN, fd, false);
    assert_int_equal(e->err, 0);
    assert_int_equal(e->failed, ERR_UNREADABLE);
    assert_non_null(strstr(e->said, "HLS playlist"));
    close(fd);
}

static void it_can_be_killed(void **state UNUSED)
{
    need_decoder();
    int fd = memory_file("x");
    const struct ending *e = run(decoder, PLAIN, fd, true);
    assert_true(e->err == ERR_CANCELLED || e->err == 0);
    close(fd);
}

static void a_missing_layer_is_refused(void **state UNUSED)
{
    need_decoder();
    if (geteuid() != 0) {
        print_message("SKIPPED: only root can leave a layer out\n");
        skip();
    }
    static const char *const STAY_ROOT[] = {"--ocr-languages=", "--sandbox-require=uid",
                                            "--sandbox-uid=0", NULL};
    int fd = memory_file("x");
    assert_int_equal(run(decoder, STAY_ROOT, fd, false)->failed, ERR_UNAVAILABLE);
    close(fd);
}

static void programs_that_are_no_decoder(void **state UNUSED)
{
    int fd = memory_file("x");
    assert_int_equal(run("/bin/true", NO_ARGS, fd, false)->err, ERR_INTERNAL);
    /* Crash. sh takes our arguments, the first is "-c". */
    static const char *const CRASH[] = {"-c", "kill -SEGV $$", NULL};
    assert_int_equal(run("/bin/sh", CRASH, fd, false)->err, ERR_UNREADABLE);
    assert_non_null(strstr(ending.why.text, "crashed"));
    static const char *const BREACH[] = {"-c", "kill -SYS $$", NULL};
    assert_int_equal(run("/bin/sh", BREACH, fd, false)->err, ERR_UNREADABLE);
    static const char *const KILLED[] = {"-c", "kill -KILL $$", NULL};
    assert_int_equal(run("/bin/sh", KILLED, fd, false)->err, ERR_NOMEM);
    /* Garbage without end. */
    static const char *const FLOOD[] = {"-c", "exec cat /dev/zero >&4", NULL};
    assert_int_equal(run("/bin/sh", FLOOD, fd, false)->err, ERR_PROTO);
    static const char *const NOISE[] = {"-c", "exec cat /dev/urandom >&4", NULL};
    assert_int_equal(run("/bin/sh", NOISE, fd, false)->err, ERR_PROTO);
    close(fd);
}

static void nothing_else_is_inherited(void **state UNUSED)
{
    int fd = memory_file("x"), secret = open("/dev/null", O_RDONLY);
    assert_true(secret >= 0);
    setenv("SECRET", "x", 1);
    static const char *const LOOK[] = {
        "-c",
        "n=5; while [ $n -lt 60 ]; do [ -e /proc/$$/fd/$n ] && kill -SEGV $$; n=$((n+1)); done; [ "
        "-z \"$SECRET\" ] || kill -SEGV $$",
        NULL};
    assert_int_equal(run("/bin/sh", LOOK, fd, false)->err, ERR_INTERNAL); /* ended quietly */
    close(secret);
    close(fd);
}

/* ---- the spool ---- */

static struct vid_saved saved(const char *name, const char *id, uint64_t size)
{
    struct vid_saved s = {.size = size, .frames_max = 7};
    snprintf(s.name, sizeof s.name, "%s", name);
    snprintf(s.file_id, sizeof s.file_id, "%s", id);
    memset(s.tenant, 3, sizeof s.tenant);
    memset(s.content.b, 9, sizeof s.content.b);
    return s;
}

#define NAME1 "00112233445566778899aabbccddeeff"
#define NAME2 "ffeeddccbbaa99887766554433221100"

static void accepted_files_survive(void **state UNUSED)
{
    struct why w;
    spool *s;
    struct vid_saved *found, a = saved(NAME1, "file-1", 6), b = saved(NAME2, "", 3);
    assert_int_equal(spool_open("spool", &s, &w), 0);
    assert_int_equal(spool_found(s, &found), 0);
    assert_int_equal(spool_write(s, &a, SLICE_LIT("abc")), 0);
    assert_int_equal(spool_write(s, &a, SLICE_LIT("def")), 0);
    assert_int_equal(spool_seal(s, &a), 0);
    assert_int_equal(spool_write(s, &b, SLICE_LIT("xyz")), 0); /* never sealed */
    /* A second process has a folder of its own, and leaves a living one's alone. */
    spool *other;
    assert_int_equal(spool_open("spool", &other, &w), 0);
    assert_int_equal(spool_found(other, &found), 0);
    spool_close(other);
    spool_close(s);

    assert_int_equal(spool_open("spool", &s, &w), 0);
    assert_int_equal(spool_found(s, &found), 1);
    assert_string_equal(found[0].file_id, "file-1");
    assert_string_equal(found[0].name, NAME1);
    assert_int_equal(found[0].size, 6);
    assert_int_equal(found[0].frames_max, 7);
    assert_memory_equal(&found[0].content, &a.content, sizeof a.content);
    free(found);
    int fd = spool_read_fd(s, &a);
    char text[8] = {0};
    assert_int_equal(read(fd, text, sizeof text), 6);
    assert_string_equal(text, "abcdef");
    close(fd);
    assert_int_equal(access("spool/0/" NAME2 ".video", F_OK), -1);
    spool_close(s);
}

static void what_a_dead_process_left_is_taken_over(void **state UNUSED)
{
    struct why w;
    spool *s, *t;
    struct vid_saved *found;
    assert_int_equal(mkdir("spool/5", 0700), 0);
    assert_int_equal(video_shell("mv spool/0/" NAME1 ".* spool/5/"), 0);
    assert_int_equal(spool_open("spool", &s, &w), 0);
    assert_int_equal(spool_found(s, &found), 1);
    free(found);
    /* Damaged entries, and entries whose file is shorter than they say, are not believed. */
    assert_int_equal(video_shell("printf x >>spool/0/" NAME1 ".video"), 0);
    assert_int_equal(spool_found(s, &found), 0);
    free(found);
    assert_int_equal(access("spool/0/" NAME1 ".job", F_OK), -1);
    assert_int_equal(spool_open("/proc/nowhere", &t, &w), ERR_IO);
    assert_string_equal(w.field, "spool-dir");
    spool_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_walls_hold),
        cmocka_unit_test(it_says_what_is_wrong),
        cmocka_unit_test(it_can_be_killed),
        cmocka_unit_test(a_missing_layer_is_refused),
        cmocka_unit_test(programs_that_are_no_decoder),
        cmocka_unit_test(nothing_else_is_inherited),
        cmocka_unit_test(accepted_files_survive),
        cmocka_unit_test(what_a_dead_process_left_is_taken_over),
    };
    return cmocka_run_group_tests(tests, video_folder_make, video_folder_remove);
}
