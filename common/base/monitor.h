/* A small HTTP listener for those who watch a process: GET /metrics (Prometheus text), /healthz (the loop turns) and
 * /readyz (it can do its work), one request a connection. Not for the public: bind it where only watchers are.
 * What a stranger may cost is bounded: MONITOR_CONNECTIONS_MAX at once, MONITOR_HEAD_MAX bytes and MONITOR_MS each. */
#ifndef NUNCHI_MONITOR_H
#define NUNCHI_MONITOR_H

#include "common/base/config.h"
#include "common/base/loop.h"

typedef struct monitor monitor;

#define MONITOR_CONNECTIONS_MAX 32
#define MONITOR_HEAD_MAX 8192
#define MONITOR_MS 10000

struct monitor_config {
    const char *address; /* as for listen_tcp; NULL or "": nobody listens */
    void *ctx;
    void (*collect)(void *ctx); /* before the series are rendered; may be NULL */
    bool (*ready)(void *ctx);
    uint32_t limit_ms; /* of one connection; 0: MONITOR_MS */
};

/* A row for a service's table of options; its struct has a field `metrics`. */
#define MONITOR_OPTION(st)                                                                         \
    CONFIG_OPT(st, metrics, "metrics", OPT_STR, NULL, 0, 0,                                        \
               "address of /metrics, /healthz and /readyz, as 127.0.0.1:9650; port 0: any free one; default: none")

/* *out NULL and 0: no address. Logs where it listens. */
int monitor_new(loop *l, const struct monitor_config *cfg, monitor **out, struct why *w) MUST_USE;
void monitor_free(monitor *m); /* NULL is allowed */
uint16_t monitor_port(const monitor *m);

#endif
