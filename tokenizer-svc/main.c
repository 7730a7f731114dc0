#include <signal.h>

#include "common/base/alive.h"
#include "common/base/log.h"
#include "common/base/monitor.h"
#include "common/trace/export.h"
#include "tokenizer-svc/options.h"
#include "tokenizer-svc/serve.h"

struct program {
    loop *l;
    bus *b;
    struct tok_model model;
    core *core;
    serve *serve;
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
    serve_drain(p->serve);
}

static void on_hup(void *ctx UNUSED, int signo UNUSED)
{
}

static int start(struct program *p, const struct tokenizer_options *o, struct why *w)
{
    struct bus_config keys = {o->curve_key_file, o->curve_allow_file, o->curve_server_key,
                              o->insecure_network};
    struct serve_config serving = {
        .gateways = o->gateways,
        .threads = (int)o->threads,
        .slots = (uint32_t)o->slots,
        .waiting_bytes = (uint64_t)o->waiting_bytes,
        .drain_ms = (uint64_t)o->drain_ms,
    };
    int e = tok_model_open(o->model, o->model_name, (uint32_t)o->context, &p->model, w);
    if (e < 0)
        return e;
    struct core_config cfg = {p->model.vocab, p->model.name.p, p->model.weights, p->model.n_context,
                              o->chat_format};
    e = core_new(&cfg, &p->core, w);
    if (e == 0)
        e = bus_new(p->l, &keys, &p->b, w);
    if (e == 0)
        e = serve_new(p->l, p->b, p->core, &p->model, &serving, &p->serve, w);
    struct monitor_config mc = {o->metrics, p->serve, serve_collect, serve_ready, 0};
    if (e == 0)
        e = monitor_new(p->l, &mc, &p->watch, w);
    if (e == 0)
        log_info("ready", LOG_STR("model", p->model.name.p), LOG_STR("family", p->model.family.p),
                 LOG_I64("vocab", vocab_size(p->model.vocab)),
                 LOG_U64("context", p->model.n_context),
                 LOG_STR("chat", core_can_chat(p->core) ? "yes" : "no"));
    return e;
}

int main(int argc, char **argv)
{
    struct tokenizer_options o = {0};
    enum config_verdict verdict = config_load(&TOKENIZER_OPTIONS, argc, argv, &o);
    if (verdict != CONFIG_RUN)
        return verdict == CONFIG_EXIT_OK ? 0 : 2;
    enum log_level level = LOG_INFO;
    int known = log_level_parse(slice_str(o.log_level), &level);
    CHECK(known == 0); /* checked with the options */
    log_init("tokenizer", level, 2);
    config_log(&TOKENIZER_OPTIONS, &o);

    struct program p = {.l = loop_new()};
    struct why w = {0};
    loop_signal(p.l, SIGTERM, on_term, &p);
    loop_signal(p.l, SIGINT, on_term, &p);
    loop_signal(p.l, SIGHUP, on_hup, &p);
    alive_start(p.l);
    int e = trace_export_start(o.otlp, "nunchi-tokenizer", &w);
    if (e == 0)
        e = start(&p, &o, &w);
    if (e < 0)
        log_error("cannot start", LOG_STR("error", err_name(e)), LOG_STR("field", w.field),
                  LOG_STR("why", w.text));
    int code = e < 0 ? 1 : loop_run(p.l);
    monitor_free(p.watch);
    serve_free(p.serve);
    bus_free(p.b);
    core_free(p.core);
    tok_model_close(&p.model);
    trace_export_stop();
    loop_free(p.l);
    config_free(&TOKENIZER_OPTIONS, &o);
    return code;
}
