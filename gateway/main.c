#include <signal.h>

#include "common/base/alive.h"
#include "common/base/log.h"
#include "common/trace/export.h"
#include "gateway/serve.h"

struct program {
    loop *l;
    gateway_serve *serve;
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
    gateway_serve_drain(p->serve);
}

static void on_hup(void *ctx, int signo UNUSED)
{
    struct program *p = ctx;
    gateway_serve_reload(p->serve);
}

int main(int argc, char **argv)
{
    struct gateway_options o = {0};
    enum config_verdict verdict = config_load(&GATEWAY_OPTIONS, argc, argv, &o);
    if (verdict != CONFIG_RUN)
        return verdict == CONFIG_EXIT_OK ? 0 : 2;
    enum log_level level = LOG_INFO;
    int known = log_level_parse(slice_str(o.log_level), &level);
    CHECK(known == 0); /* checked with the options */
    log_init("gateway", level, 2);
    config_log(&GATEWAY_OPTIONS, &o);
    signal(SIGPIPE, SIG_IGN); /* clients leave while they are written to */

    struct program p = {.l = loop_new()};
    struct why w;
    loop_signal(p.l, SIGTERM, on_term, &p);
    loop_signal(p.l, SIGINT, on_term, &p);
    loop_signal(p.l, SIGHUP, on_hup, &p);
    alive_start(p.l);
    int code = 1;
    if (trace_export_start(o.otlp, "nunchi-gateway", &w) < 0 ||
        gateway_serve_new(p.l, &o, &p.serve, &w) < 0)
        log_error("cannot start", LOG_STR("about", w.field), LOG_STR("why", w.text));
    else
        code = loop_run(p.l);
    gateway_serve_free(p.serve);
    trace_export_stop();
    loop_free(p.l);
    config_free(&GATEWAY_OPTIONS, &o);
    return code;
}
