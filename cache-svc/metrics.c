#include "cache-svc/metrics.h"

#include "common/base/metrics.h"

#define LOOKUPS "lookups_total"
#define LOOKUPS_HELP "Values asked for: found in memory, found in Redis, or not"
#define PUTS_HELP "Values given to be kept"
#define DROPPED_HELP "Values given and not kept in Redis: it is away, slow or full"
#define RAM_HELP "Memory held by values"

#define ROWS(X)                                                                                    \
    X(c->hits_ram, LOOKUPS, "kind=\"value\",result=\"memory\"", LOOKUPS_HELP, false)               \
    X(c->hits_store, LOOKUPS, "kind=\"value\",result=\"redis\"", LOOKUPS_HELP, false)              \
    X(c->misses, LOOKUPS, "kind=\"value\",result=\"miss\"", LOOKUPS_HELP, false)                   \
    X(c->kv.hits_ram, LOOKUPS, "kind=\"kv\",result=\"memory\"", LOOKUPS_HELP, false)               \
    X(c->kv.hits_store, LOOKUPS, "kind=\"kv\",result=\"redis\"", LOOKUPS_HELP, false)              \
    X(c->kv.misses, LOOKUPS, "kind=\"kv\",result=\"miss\"", LOOKUPS_HELP, false)                   \
    X(c->puts, "puts_total", "kind=\"value\"", PUTS_HELP, false)                                   \
    X(c->kv.puts, "puts_total", "kind=\"kv\"", PUTS_HELP, false)                                   \
    X(c->puts_dropped, "puts_dropped_total", "kind=\"value\"", DROPPED_HELP, false)                \
    X(c->kv.puts_dropped, "puts_dropped_total", "kind=\"kv\"", DROPPED_HELP, false)                \
    X(c->kv.evicted, "evicted_total", "kind=\"kv\"", "Values that made room for others", false)    \
    X(c->damaged, "damaged_total", NULL, "Values that were not what was stored; misses", false)    \
    X(c->files_expired, "files_expired_total", NULL, "Files removed after their time", false)      \
    X(c->orphans, "orphans_total", NULL, "Values removed that no file named any more", false)      \
    X(l->running, "running", NULL, "Requests not answered yet", true)                              \
    X(l->ram_bytes, "ram_bytes", "kind=\"value\"", RAM_HELP, true)                                 \
    X(l->kv_ram_bytes, "ram_bytes", "kind=\"kv\"", RAM_HELP, true)                                 \
    X(l->store_up, "redis_up", NULL, "1: records and values can be stored", true)                  \
    X(l->kv_stores_up, "kv_redis_up", NULL, "Redis servers for KV that can be reached", true)

#define ROW(value, name, ...) METRIC_ROW(value, "nunchi_cache_" name, __VA_ARGS__)

static const struct metric_row TABLE[] = {ROWS(ROW)};

static struct {
    metric *rows[ARRAY_LEN(TABLE)], *requests, *failed;
} all;

void cache_metrics_init(void)
{
    metric_rows_make(TABLE, ARRAY_LEN(TABLE), all.rows);
    all.requests = metric_counter("nunchi_cache_requests_total", "", "Requests received");
    all.failed = metric_counter("nunchi_cache_failed_total", "", "Requests answered with an error");
}

void cache_metrics_request(void)
{
    metric_inc(all.requests);
}

void cache_metrics_failed(void)
{
    metric_inc(all.failed);
}

void cache_metrics_counts(const struct cache_counts *c, const struct cache_levels *l)
{
    const double now[] = {ROWS(METRIC_VALUE)};
    metric_rows_set(all.rows, now, ARRAY_LEN(now));
}
