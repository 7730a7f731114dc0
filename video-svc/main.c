#include <signal.h>

#include "common/base/alive.h"
#include "common/base/log.h"
#include "common/base/monitor.h"
#include "video-svc/serve.h"

struct program {
    loop *l;
    video_serve *serve;
    monitor *watch;
    bool asked;
};

/* The first signal drains; the second does not wait. */
static void on_term(void *ctx, int signo UNUSED)
{
    struct program *p = ctx;
    if (p->asked) {
        loop_stop(p->l, 1);
        return;
    }
    p->asked = true;
    video_serve_drain(p->serve);
}

static void on_ignored(void *ctx UNUSED, int signo UNUSED)
{
}

int main(int argc, char **argv)
{
    struct video_options o = {0};
    enum config_verdict verdict = config_load(&VIDEO_OPTIONS, argc, argv, &o);
    if (verdict != CONFIG_RUN)
        return verdict == CONFIG_EXIT_OK ? 0 : 2;
    enum log_level level = LOG_INFO;
    int known = log_level_parse(slice_str(o.log_level), &level);
    CHECK(known == 0); /* checked with the options */
    log_init("video", level, 2);
    config_log(&VIDEO_OPTIONS, &o);

    struct program p = {.l = loop_new()};
    loop_signal(p.l, SIGTERM, on_term, &p);
    loop_signal(p.l, SIGINT, on_term, &p);
    loop_signal(p.l, SIGHUP, on_ignored, &p);
    alive_start(p.l);
    p.serve = video_serve_new(p.l, &o);
    struct monitor_config mc = {o.metrics, p.serve, video_serve_collect, video_serve_ready, 0};
    struct why w = {0};
    int e = monitor_new(p.l, &mc, &p.watch, &w);
    if (e < 0)
        log_error("cannot start", LOG_STR("error", err_name(e)), LOG_STR("field", w.field),
                  LOG_STR("why", w.text));
    int code = e < 0 ? 1 : loop_run(p.l);
    monitor_free(p.watch);
    video_serve_free(p.serve);
    loop_free(p.l);
    config_free(&VIDEO_OPTIONS, &o);
    return code;
}
