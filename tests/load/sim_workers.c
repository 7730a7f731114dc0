/* Many workers that wait instead of computing, on the real wire: for loading a gateway with a
 * cluster that this machine does not have (README.md). Ends on SIGTERM. */
#include <signal.h>
#include <stdio.h>

#include "common/base/fds.h"
#include "common/base/log.h"
#include "tests/load/lib/sim.h"

#define GATEWAYS_ALIKE 4 /* that room is made for */

struct program {
    loop *l;
    bus *b;
    sim_model *models[SIM_WORKERS_MAX];
    sim_tokenizer *tokenizers[16];
};

static void on_term(void *ctx, int signo UNUSED)
{
    loop_stop(((struct program *)ctx)->l, 0);
}

static int start(struct program *p, const struct sim_options *o, struct why *w)
{
    struct bus_config open = {.insecure_network = false};
    /* Of each socket: its connection, its mailbox, and what its link and its name need. */
    int e = fds_make_room((uint64_t)(o->workers + o->tokenizers) * 4 * GATEWAYS_ALIKE + 256, w);
    if (e == 0)
        e = bus_new(p->l, &open, &p->b, w);
    for (int64_t i = 0; e == 0 && i < o->tokenizers; i++)
        e = sim_tokenizer_new(p->l, p->b, o, &p->tokenizers[i], w);
    for (int64_t i = 0; e == 0 && i < o->workers; i++)
        e = sim_model_new(p->l, p->b, o, &p->models[i], w);
    return e;
}

static void stop(struct program *p)
{
    for (size_t i = 0; i < ARRAY_LEN(p->models); i++)
        sim_model_free(p->models[i]);
    for (size_t i = 0; i < ARRAY_LEN(p->tokenizers); i++)
        sim_tokenizer_free(p->tokenizers[i]);
    bus_free(p->b);
    loop_free(p->l);
}

int main(int argc, char **argv)
{
    struct sim_options o = {0};
    struct why w = {0};
    enum config_verdict verdict = config_load(&SIM_OPTIONS, argc, argv, &o);
    if (verdict != CONFIG_RUN)
        return verdict == CONFIG_EXIT_OK ? 0 : 2;
    enum log_level level = LOG_WARN;
    if (log_level_parse(slice_str(o.log_level), &level) < 0)
        fprintf(stderr, "sim_workers: --log-level: one of debug, info, warn, error\n");
    log_init("sim", level, 2);
    static struct program p;
    p.l = loop_new();
    loop_signal(p.l, SIGTERM, on_term, &p);
    loop_signal(p.l, SIGINT, on_term, &p);
    int code = 2;
    if (start(&p, &o, &w) < 0)
        fprintf(stderr, "sim_workers: --%s: %s\n", w.field, w.text);
    else
        code = loop_run(p.l);
    stop(&p);
    config_free(&SIM_OPTIONS, &o);
    return code;
}
