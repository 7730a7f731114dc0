#include "video-svc/decoders.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/map.h"
#include "video-svc/child.h"

#define ARGS 24
#define ARG_BYTES 128
#define PATH_BYTES 4096
#define TRIAL 0 /* no job has this number */

struct run {
    decoders *d;
    uint64_t job;
    child *child; /* NULL: could not be started, and `end` is on its way */
    int err;
    struct why why;
};

struct decoders {
    loop *l;
    const struct video_options *o;
    struct decoders_events ev;
    char program[PATH_BYTES];
    map *runs; /* by job, without the trial */
    struct run trial;
    uint32_t active, wanted; /* layers, as the trial's HELLO says */
    bool hello;
    int failed; /* the trial's FAIL */
    struct why why;
    char remark[256];
};

/* ---- arguments ---- */

struct args {
    char text[ARGS][ARG_BYTES];
    const char *list[ARGS + 1];
    size_t n;
};

static void arg(struct args *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void arg(struct args *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    CHECK(a->n < ARGS);
    vsnprintf(a->text[a->n], ARG_BYTES, fmt, ap);
    va_end(ap);
    a->list[a->n] = a->text[a->n];
    a->list[++a->n] = NULL;
}

static void fill_args(const struct video_options *o, const struct vid_saved *s, struct args *a)
{
    a->n = 0;
    arg(a, "--frames=%s", s && s->keyframes ? "keyframe" : "uniform");
    arg(a, "--frames-max=%lld",
        s && s->frames_max ? (long long)s->frames_max : (long long)o->frames_max);
    arg(a, "--edge=%lld", (long long)o->edge);
    arg(a, "--thumb-edge=%lld", (long long)o->thumb_edge);
    arg(a, "--ocr-languages=%s", o->ocr_languages ? o->ocr_languages : "");
    arg(a, "--ocr-max=%lld", (long long)o->ocr_max);
    arg(a, "--pixels-max=%lld", (long long)o->pixels_max);
    arg(a, "--duration-max=%lld", (long long)o->duration_max_ms);
    arg(a, "--deadline=%lld", (long long)o->decode_ms);
    arg(a, "--memory=%lld", (long long)o->decode_memory);
    arg(a, "--sandbox-uid=%lld", (long long)o->sandbox_uid);
    arg(a, "--sandbox-require=%.100s", o->sandbox_require ? o->sandbox_require : "");
}

static void find_program(decoders *d)
{
    if (d->o->decoder && d->o->decoder[0]) {
        snprintf(d->program, sizeof d->program, "%s", d->o->decoder);
        return;
    }
    ssize_t n = readlink("/proc/self/exe", d->program, sizeof d->program - 32);
    d->program[n > 0 ? n : 0] = 0;
    char *slash = strrchr(d->program, '/');
    char *at = slash ? slash + 1 : d->program;
    snprintf(at, sizeof d->program - (size_t)(at - d->program), "nunchi-decode");
}

/* ---- runs ---- */

static void on_record(void *ctx, const struct record *r)
{
    struct run *run = ctx;
    run->d->ev.record(run->d->ev.ctx, run->job, r);
}

static void on_end(void *ctx, int err, const struct why *w)
{
    struct run *run = ctx;
    decoders *d = run->d;
    uint64_t job = run->job;
    struct why why = w ? *w : (struct why){0};
    map_del_u64(d->runs, job);
    free(run);
    d->ev.end(d->ev.ctx, job, err, &why);
}

static void on_not_started(void *ctx)
{
    struct run *run = ctx;
    struct why w = run->why;
    on_end(run, run->err, &w);
}

void decoders_start(decoders *d, uint64_t job, const struct vid_saved *s, int fd)
{
    struct run *run = xcalloc(1, sizeof *run);
    *run = (struct run){.d = d, .job = job};
    map_put_u64(d->runs, job, run);
    struct args *a = xcalloc(1, sizeof *a);
    fill_args(d->o, s, a);
    struct child_config cfg = {.program = d->program,
                               .args = a->list,
                               .input_fd = fd,
                               .ctx = run,
                               .record = on_record,
                               .end = on_end};
    run->err = fd < 0 ? why_set(&run->why, ERR_IO, "file", "the file is not there any more")
                      : child_start(d->l, &cfg, &run->child, &run->why);
    free(a);
    if (fd >= 0)
        close(fd);
    if (run->err < 0)
        loop_post(d->l, on_not_started, run);
}

void decoders_kill(decoders *d, uint64_t job)
{
    struct run *run = map_get_u64(d->runs, job);
    if (run && run->child)
        child_kill(run->child);
}

/* ---- the trial ---- */

static void on_trial_record(void *ctx, const struct record *r)
{
    decoders *d = ((struct run *)ctx)->d;
    if (r->type == REC_HELLO) {
        d->hello = true;
        d->active = r->hello.active;
        d->wanted = r->hello.wanted;
    } else if (r->type == REC_FAIL) {
        d->failed = err_from_wire(r->fail.code);
        why_set(&d->why, d->failed, "sandbox-require", "%.*s", (int)r->fail.text.n, r->fail.text.p);
    } else if (r->type == REC_REMARK) {
        snprintf(d->remark, sizeof d->remark, "%.*s", (int)r->remark.n, r->remark.p);
    }
}

static void on_trial_end(void *ctx, int err, const struct why *w)
{
    decoders *d = ((struct run *)ctx)->d;
    d->trial.child = NULL;
    struct why why = w ? *w : (struct why){0};
    /* The file was empty: to be told so is the right end. */
    if (err >= 0 && d->failed != ERR_UNREADABLE) {
        err = d->failed < 0 ? d->failed : ERR_INTERNAL;
        why = d->why;
    }
    if (err < 0 && !d->hello)
        why_set(&why, err, "decoder",
                "nunchi-decode does not work here: is it beside this program?");
    d->ev.tried(d->ev.ctx, err, &why, d->active, d->wanted, slice_str(d->remark));
}

static void on_trial_failed(void *ctx)
{
    struct run *run = ctx;
    on_trial_end(run, run->err, &run->why);
}

void decoders_try(decoders *d)
{
    int fd = memfd_create("nothing", MFD_CLOEXEC);
    struct args *a = xcalloc(1, sizeof *a);
    fill_args(d->o, NULL, a);
    d->trial = (struct run){.d = d, .job = TRIAL};
    struct child_config cfg = {.program = d->program,
                               .args = a->list,
                               .input_fd = fd,
                               .ctx = &d->trial,
                               .record = on_trial_record,
                               .end = on_trial_end};
    d->trial.err = fd < 0 ? ERR_IO : child_start(d->l, &cfg, &d->trial.child, &d->trial.why);
    free(a);
    if (fd >= 0)
        close(fd);
    if (d->trial.err < 0)
        loop_post(d->l, on_trial_failed, &d->trial);
}

/* ---- life ---- */

decoders *decoders_new(loop *l, const struct video_options *o, const struct decoders_events *ev)
{
    decoders *d = xcalloc(1, sizeof *d);
    *d = (decoders){.l = l, .o = o, .ev = *ev, .runs = map_new()};
    find_program(d);
    return d;
}

void decoders_free(decoders *d)
{
    if (!d)
        return;
    child_free(d->trial.child);
    void *v;
    for (size_t it = 0; map_next(d->runs, &it, NULL, &v);) {
        child_free(((struct run *)v)->child);
        free(v);
    }
    map_free(d->runs);
    free(d);
}
