#include "tests/load/lib/sim_options.h"

#include <stddef.h>

#define ROW(field, name, type, def, min, max, help)                                                \
    CONFIG_OPT(struct sim_options, field, name, type, def, min, max, help)

static const struct opt ROWS[] = {
    CONFIG_GROUP("Cluster"),
    ROW(gateways, "gateways", OPT_STR, "127.0.0.1:8650", 0, 0,
        "gateways to register with: host:port or ipc:// endpoints, separated by commas"),
    ROW(workers, "workers", OPT_INT, "1", 0, SIM_WORKERS_MAX, "model workers to be"),
    ROW(tokenizers, "tokenizers", OPT_INT, "1", 0, 16, "tokenizers to be"),
    CONFIG_GROUP("Each model worker"),
    ROW(slots, "slots", OPT_INT, "64", 1, 65536, "requests at once, of each gateway"),
    ROW(step_ms, "step-ms", OPT_MS, "50", 1, 3600000,
        "a step, whatever is in it: each running answer gets one token"),
    ROW(prefill_rate, "prefill-rate", OPT_INT, "2000", 1, 10000000,
        "prompt tokens a second, one prompt after the other"),
    ROW(kv_blocks, "kv-blocks", OPT_INT, "4096", 1, 1048576,
        "blocks of 16 tokens that it remembers having computed"),
    ROW(stamps, "stamps", OPT_BOOL, "false", 0, 0,
        "words say when they were sent: http_load on the same machine then tells how long they "
        "took"),
    CONFIG_GROUP("Running"),
    ROW(log_level, "log-level", OPT_STR, "warn", 0, 8, "debug, info, warn or error"),
};

const struct config_spec SIM_OPTIONS = {
    .program = "sim_workers",
    .about = "Model workers that wait instead of computing: the real wire, many in one process.",
    .opts = ROWS,
    .n_opts = ARRAY_LEN(ROWS),
};
