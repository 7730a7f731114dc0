#include "cache-svc/options.h"

#include "cache-svc/core.h"
#include "cache-svc/files.h"
#include "common/base/log.h"
#include "common/base/monitor.h"
#include "common/trace/export.h"
#include "common/wire/options.h"

#define OPT(field, name, type, def, min, max, help)                                                \
    CONFIG_OPT(struct cache_options, field, name, type, def, min, max, help)

static const struct opt OPTIONS[] = {
    CONFIG_GROUP("Store"),
    OPT(redis, "redis", OPT_STR, "127.0.0.1:6379", 0, 0, "where Redis is: host:port or unix:/path"),
    OPT(redis_password_file, "redis-password-file", OPT_STR, NULL, 0, 0,
        "a file whose first line is Redis's password"),
    OPT(redis_timeout_ms, "redis-timeout-ms", OPT_MS, "1000", 10, 60000,
        "Redis is taken for away when it is silent for so long on an open command"),
    OPT(ram_bytes, "ram-bytes", OPT_SIZE, "256m", 0, 0, "memory for values before Redis is asked"),
    OPT(tenant_percent, "tenant-percent", OPT_INT, "50", 1, 100,
        "a tenant that has more than this part of the memory, of values or of KV blocks, makes room "
        "from its own when it is full"),
    OPT(result_ttl_s, "result-ttl-s", OPT_INT, "86400", 1, 2592000,
        "how long an answer is remembered, where the asker does not say"),

    CONFIG_GROUP("KV blocks"),
    OPT(kv_redis, "kv-redis", OPT_STR, NULL, 0, 0,
        "Redis servers for KV blocks, as for redis, with commas between; none: in memory only. Not "
        "the one with the records: what may be forgotten must not push out what must last"),
    OPT(kv_timeout_ms, "kv-timeout-ms", OPT_MS, "300", 10, 60000,
        "such a server is taken for away when it is silent for so long on an open command"),
    OPT(kv_ram_bytes, "kv-ram-bytes", OPT_SIZE, "512m", 0, 0,
        "memory for KV blocks before Redis is asked"),
    OPT(kv_ttl_s, "kv-ttl-s", OPT_INT, "86400", 1, 2592000, "how long a KV block is remembered"),

    CONFIG_GROUP("Files"),
    OPT(files_quota_bytes, "files-quota-bytes", OPT_SIZE, "100g", 0, 0,
        "most bytes of all files of one tenant, as uploaded"),
    OPT(files_quota_count, "files-quota-count", OPT_INT, "1000", 1, 10000,
        "most files of one tenant; they are read together, so this bounds each operation"),
    OPT(files_ttl_s, "files-ttl-s", OPT_INT, "0", 0, 315360000,
        "files are deleted after so long, where the upload names no end; 0: never"),
    OPT(files_silent_ms, "files-silent-ms", OPT_MS, "60000", 1000, 86400000,
        "a file whose reader is silent for so long is shown as failed"),

    CONFIG_GROUP("Cluster"),
    OPT(slots, "slots", OPT_INT, "64", 1, CACHE_OPS_MAX,
        "most requests open at once, of each peer"),
    OPT(bind, "bind", OPT_STR, "tcp://127.0.0.1:8651", 0, 0,
        "where video and model services connect: tcp://address:port or ipc:///path"),
    WIRE_GATEWAYS_OPTION(struct cache_options),
    WIRE_KEYS_OPTIONS(struct cache_options),

    CONFIG_GROUP("Running"),
    MONITOR_OPTION(struct cache_options),
    TRACE_OPTION(struct cache_options),
    OPT(log_level, "log-level", OPT_STR, "info", 0, 8, "debug, info, warn or error"),
    OPT(drain_ms, "drain-ms", OPT_MS, "30000", 0, 86400000,
        "how long running requests may go on after SIGTERM"),
};

static int check(const void *ctx, struct why *w)
{
    const struct cache_options *o = ctx;
    enum log_level level;
    if (log_level_parse(slice_str(o->log_level), &level) < 0)
        return why_set(w, ERR_INVALID, "log-level", "log-level must be debug, info, warn or error");
    return 0;
}

const struct config_spec CACHE_OPTIONS = {
    .program = "nunchi-cache",
    .about = "Remembers answers, and keeps files and what was read from them: memory before Redis.",
    .opts = OPTIONS,
    .n_opts = ARRAY_LEN(OPTIONS),
    .check = check,
};
