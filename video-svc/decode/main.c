/* nunchi-decode: one video, one process, one way out. It is started by nunchi-video with the file
 * and a socket already open, loads what it needs, walls itself in, and only then looks at the first
 * byte of the file. */
#include <errno.h>
#include <fcntl.h>
#include <iconv.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "video-svc/decode/dump.h"
#include "video-svc/decode/pass.h"
#include "video-svc/decode/options.h"
#include "video-svc/decode/sandbox.h"

#define DUMP_BYTES_MAX (64u << 20) /* what a person may have written to a file of their own */
#define CPU_MARGIN_S 10            /* the deadline by the clock comes first */

/* In place of libc's, for the demuxers: MPEG-TS names its programs in any of twenty character sets,
 * and libc would load code from disk for each. These names are not used; without them the file
 * reads just as well. */
iconv_t iconv_open(const char *to UNUSED, const char *from UNUSED)
{
    errno = EINVAL;
    union {
        intptr_t in;
        iconv_t out;
    } refused = {.in = -1};
    return refused.out;
}

struct out {
    int fd;
    bool as_json, seen_any;
    buf b;
};

static void write_all(const struct out *o)
{
    for (size_t at = 0; at < o->b.n;) {
        ssize_t n = write(o->fd, o->b.p + at, o->b.n - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            _exit(1); /* nobody is listening any more */
        at += (size_t)n;
    }
}

static void emit(void *ctx, const struct record *r)
{
    struct out *o = ctx;
    buf_reset(&o->b);
    if (o->as_json) {
        struct json_out j;
        if (r->type == REC_PROGRESS)
            return;
        buf_put_str(&o->b, o->seen_any ? ",\n " : "[");
        json_begin(&j, &o->b);
        dump_record(&j, r);
        if (r->type == REC_DONE || r->type == REC_FAIL)
            buf_put_str(&o->b, "]\n");
        o->seen_any = true;
    } else {
        record_pack(r, &o->b);
    }
    write_all(o);
}

/* OpenMP, inside tesseract, reads its settings when the program is loaded, and there are to be no
 * threads. */
static void without_threads(char **argv)
{
    if (getenv("OMP_THREAD_LIMIT"))
        return;
    setenv("OMP_THREAD_LIMIT", "1", 1);
    execv("/proc/self/exe", argv);
}

static uint32_t enter(const struct decode_config *c, int out_fd)
{
    tzset(); /* reads a file when first needed */
    const struct sandbox_config s = {
        .uid = (uint32_t)c->sandbox_uid,
        .memory_bytes = (uint64_t)c->memory_bytes,
        .cpu_seconds = (uint32_t)(c->deadline_ms / 1000) + CPU_MARGIN_S,
        .file_bytes = c->dump || c->report ? DUMP_BYTES_MAX : 0,
        .out_fd = out_fd,
    };
    return sandbox_enter(&s);
}

static int selftest(const struct decode_config *c)
{
    enter(c, STDERR_FILENO);
    int r = sandbox_selftest(c->selftest);
    const char *said = r == ERR_INVALID ? "no such test\n"
                       : r              ? "refused\n"
                                        : "it worked: the sandbox does not hold\n";
    (void)!write(STDERR_FILENO, said, strlen(said));
    return r == ERR_INVALID ? 2 : r ? 3 : 0;
}

static int open_input(const struct decode_config *c)
{
    if (!c->dump)
        return (int)c->input_fd;
    int fd = open(c->dump, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fprintf(stderr, "nunchi-decode: cannot open %s: %s\n", c->dump, strerror(errno));
    return fd;
}

static struct pass_config pass_of(const struct decode_config *c, struct out *o, ocr *reader)
{
    return (struct pass_config){
        .media = {.pixels_max = (uint64_t)c->pixels_max,
                  .packets_max = (uint64_t)c->packets_max,
                  .frames_max = (uint64_t)c->pictures_max,
                  .duration_max_ms = (uint32_t)c->duration_max_ms,
                  .deadline_us = clock_mono_us() + (uint64_t)c->deadline_ms * 1000,
                  .exact_pixels_max = (uint64_t)c->exact_pixels_max,
                  .keyframes = strcmp(c->frames, "keyframe") == 0},
        .frames_max = (uint32_t)c->frames_max,
        .edge = (uint32_t)c->edge,
        .thumb_edge = (uint32_t)c->thumb_edge,
        .ocr_max = (uint32_t)c->ocr_max,
        .ocr = reader,
        .emit = emit,
        .ctx = o,
    };
}

static void refuse(struct out *o, int e, const char *text)
{
    emit(o, &(struct record){.type = REC_FAIL, .fail = {err_to_wire(e), slice_str(text)}});
}

/* Loads, walls in, says which walls stand, reads. */
static int read_video(const struct decode_config *c)
{
    struct out o = {.fd = c->dump ? STDOUT_FILENO : (int)c->output_fd, .as_json = c->dump};
    int fd = open_input(c);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 2;
    struct why w = {0};
    ocr *reader = NULL;
    int e = c->ocr_languages && c->ocr_languages[0] && c->ocr_max
                ? ocr_new(c->ocr_languages, &reader, &w)
                : 0;
    uint32_t required = 0, active = enter(c, o.fd);
    emit(&o, &(struct record){.type = REC_HELLO, .hello = {REC_VERSION, active, SANDBOX_ALL}});
    if (sandbox_layers_parse(slice_str(c->sandbox_require), &required, NULL) < 0 ||
        (required & ~active & ~sandbox_left_out())) {
        refuse(&o, ERR_UNAVAILABLE, "a required layer of the sandbox is missing");
        return 1;
    }
    if (e < 0) /* the rest of the video can be read without */
        emit(&o, &(struct record){.type = REC_REMARK, .remark = slice_str(w.text)});
    struct pass_config pass = pass_of(c, &o, reader);
    e = pass_run(&pass, fd, (uint64_t)st.st_size);
    ocr_free(reader);
    buf_clear(&o.b);
    return e < 0 ? 1 : 0;
}

static int report(const struct decode_config *c)
{
    struct out o = {.fd = STDOUT_FILENO};
    uint32_t active = enter(c, o.fd);
    struct json_out j;
    json_begin(&j, &o.b);
    dump_record(&j,
                &(struct record){.type = REC_HELLO, .hello = {REC_VERSION, active, SANDBOX_ALL}});
    buf_put_byte(&o.b, '\n');
    write_all(&o);
    buf_clear(&o.b);
    return 0;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the service's end is ours */
    without_threads(argv);
    struct decode_config c = {0};
    enum config_verdict v = config_load(&DECODE_SPEC, argc, argv, &c);
    if (v != CONFIG_RUN)
        return v == CONFIG_EXIT_OK ? 0 : 2;
    int code = c.selftest ? selftest(&c) : c.report ? report(&c) : read_video(&c);
    config_free(&DECODE_SPEC, &c);
    return code;
}
