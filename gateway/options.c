#include "gateway/options.h"

#include "common/base/log.h"
#include "common/trace/export.h"
#include "gateway/route.h"

#define OPT(field, name, type, def, min, max, help)                                                \
    CONFIG_OPT(struct gateway_options, field, name, type, def, min, max, help)

static const struct opt OPTIONS[] = {
    CONFIG_GROUP("HTTP"),
    OPT(http, "http", OPT_STR, "127.0.0.1:8642", 0, 0,
        "address that clients connect to; port 0: any free one"),
    OPT(connections_max, "connections-max", OPT_INT, "4096", 1, 65536,
        "most open connections: each costs a file descriptor and up to 32 KiB"),
    OPT(idle_ms, "idle-ms", OPT_MS, "60s", 1000, 3600000,
        "a connection on which nothing moves for so long is closed; waiting for an answer does not "
        "count"),
    OPT(body_ms, "body-ms", OPT_MS, "60s", 1000, 3600000,
        "a JSON body has arrived by then, or its connection is closed"),
    OPT(file_max_bytes, "file-max-bytes", OPT_SIZE, "512m", 1024, 1099511627776.0,
        "most bytes of one uploaded video: it is spooled by a video worker, whose disk is bounded"),

    CONFIG_GROUP("Requests"),
    OPT(requests_max, "requests-max", OPT_INT, "1024", 1, 65536,
        "most questions open at once; more are answered 429"),
    OPT(queue_max, "queue-max", OPT_INT, "256", 1, 65536,
        "most of them waiting for a worker; more are answered 429"),
    OPT(key_requests_max, "key-requests-max", OPT_INT, "0", 0, 65536,
        "most questions of one key open at once at this gateway; 0: no limit"),
    OPT(queue_tokens_max, "queue-tokens-max", OPT_INT, "1000000", 0, 1e12,
        "most prompt tokens of those that wait, guessed until they are counted; more are answered "
        "429; 0: no limit"),
    OPT(key_tokens_max, "key-tokens-max", OPT_INT, "0", 0, 1e12,
        "most prompt tokens of one key that wait at this gateway; 0: no limit"),
    OPT(request_ms, "request-ms", OPT_MS, "10m", 1000, 86400000,
        "a question is answered by then, waiting included, or 504"),
    OPT(worker_wait_ms, "worker-wait-ms", OPT_MS, "20s", 0, 3600000,
        "how long a question waits when no worker that it needs is there, as after a crash; then "
        "503"),
    OPT(stall_ms, "stall-ms", OPT_MS, "60s", 0, 3600000,
        "a model worker that has requests and computes no step for so long is given up as if it "
        "were "
        "gone: far longer than a step of the largest model; 0: never"),
    OPT(condemned_ms, "condemned-ms", OPT_MS, "10m", 0, 86400000,
        "a request that workers have died of is refused for so long"),
    OPT(client_stall_ms, "client-stall-ms", OPT_MS, "2m", 1000, 86400000,
        "a client that reads nothing of its answer for so long is cut off, and its request "
        "cancelled"),
    OPT(notes_tokens, "notes-tokens", OPT_INT, "0", 0, 1048576,
        "most tokens of a prompt that describe videos; 0: a third of the model's context"),

    OPT(route, "route", OPT_STR, "prefix", 0, 16,
        "how model workers are chosen: prefix (the soonest first token, counting what each has of "
        "the "
        "prompt), least-loaded, round-robin"),

    CONFIG_GROUP("Access"),
    OPT(keys_file, "keys", OPT_STR, NULL, 0, 0,
        "API keys, one a line, as key or name:key; every path but /healthz and /readyz then needs "
        "one"),
    OPT(cluster_secret_file, "cluster-secret-file", OPT_STR, NULL, 0, 0,
        "any bytes, the same at all gateways: what belongs to a key is stored under names made "
        "with it"),
    OPT(trusted_proxies, "trusted-proxies", OPT_STR, NULL, 0, 0,
        "load balancers before this gateway, as 10.0.0.0/8,fd00::/8: X-Forwarded-For is believed "
        "from them, so that clients are told apart"),
    OPT(metrics_public, "metrics-public", OPT_BOOL, "false", 0, 0, "/metrics needs no key"),

    CONFIG_GROUP("Cluster"),
    OPT(bind, "bind", OPT_STR, "tcp://127.0.0.1:8650", 0, 0,
        "where workers connect: tcp://address:port or ipc://path"),
    OPT(curve_key_file, "curve-key-file", OPT_STR, NULL, 0, 0,
        "our key pair: two Z85 lines, public then secret"),
    OPT(curve_allow_file, "curve-allow-file", OPT_STR, NULL, 0, 0,
        "public keys of workers that may connect, one a line"),
    OPT(curve_server_key, "curve-server-key", OPT_STR, NULL, 0, 40,
        "accepted for a uniform configuration; a gateway connects to nobody"),
    OPT(insecure_network, "insecure-network", OPT_BOOL, "false", 0, 0,
        "allow workers from beyond loopback without keys: only on a private container network"),

    CONFIG_GROUP("Running"),
    TRACE_OPTION(struct gateway_options),
    OPT(trace_ratio, "trace-ratio", OPT_FLOAT, "0.1", 0, 1,
        "share of requests that are traced, of those whose client does not say (traceparent)"),
    OPT(log_level, "log-level", OPT_STR, "info", 0, 8, "debug, info, warn or error"),
    OPT(drain_wait_ms, "drain-wait-ms", OPT_MS, "0", 0, 600000,
        "for so long after SIGTERM /readyz says no and questions are still taken: for a load "
        "balancer to see it"),
    OPT(drain_ms, "drain-ms", OPT_MS, "30000", 0, 86400000,
        "how long running answers may go on after SIGTERM"),
};

static int check(const void *cfg, struct why *w)
{
    const struct gateway_options *o = cfg;
    enum log_level level;
    if (log_level_parse(slice_str(o->log_level), &level) < 0)
        return why_set(w, ERR_INVALID, "log-level", "log-level is one of debug, info, warn, error");
    if (route_policy_of(o->route) < 0)
        return why_set(w, ERR_INVALID, "route",
                       "route is one of prefix, least-loaded, round-robin");
    return 0;
}

const struct config_spec GATEWAY_OPTIONS = {
    .program = "nunchi-gateway",
    .about = "HTTP in, answers out: the OpenAI API of a nunchi cluster.",
    .opts = OPTIONS,
    .n_opts = ARRAY_LEN(OPTIONS),
    .check = check};
