#include <signal.h>

#include "cache-svc/serve.h"
#include "common/base/alive.h"
#include "common/base/heap.h"
#include "common/base/log.h"
#include "common/base/monitor.h"
#include "common/trace/export.h"

struct program {
    loop *l;
    cache_serve *serve;
    monitor *watch;
    bool asked;
};

/* The first signal drains; the second does not wait. */
static void on_term(void *ctx, int signo UNUSED)
{
    struct program *p = ctx;
    if (p->asked || !p->serve) {
        loop_stop(p->l, 1);
        return;
    }
    p->asked = true;
    cache_serve_drain(p->serve);
}

static void on_hup(void *ctx, int signo UNUSED)
{
    struct program *p = ctx;
    if (p->serve)
        cache_serve_reload(p->serve);
}

int main(int argc, char **argv)
{
    struct cache_options o = {0};
    enum config_verdict verdict = config_load(&CACHE_OPTIONS, argc, argv, &o);
    if (verdict != CONFIG_RUN)
        return verdict == CONFIG_EXIT_OK ? 0 : 2;
    enum log_level level = LOG_INFO;
    int known = log_level_parse(slice_str(o.log_level), &level);
    CHECK(known == 0); /* checked with the options */
    log_init("cache", level, 2);
    config_log(&CACHE_OPTIONS, &o);

    heap_keep_large();
    struct program p = {.l = loop_new()};
    struct why w = {0};
    loop_signal(p.l, SIGTERM, on_term, &p);
    loop_signal(p.l, SIGINT, on_term, &p);
    loop_signal(p.l, SIGHUP, on_hup, &p);
    alive_start(p.l);
    int e = trace_export_start(o.otlp, "nunchi-cache", &w);
    if (e == 0)
        e = cache_serve_new(p.l, &o, &p.serve, &w);
    struct monitor_config mc = {o.metrics, p.serve, cache_serve_collect, cache_serve_ready, 0};
    if (e == 0)
        e = monitor_new(p.l, &mc, &p.watch, &w);
    if (e < 0)
        log_error("cannot start", LOG_STR("error", err_name(e)), LOG_STR("field", w.field),
                  LOG_STR("why", w.text));
    int code = e < 0 ? 1 : loop_run(p.l);
    monitor_free(p.watch);
    cache_serve_free(p.serve);
    trace_export_stop();
    loop_free(p.l);
    config_free(&CACHE_OPTIONS, &o);
    return code;
}
