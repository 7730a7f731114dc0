/* What cache-svc does, without sockets: requests in, answers out through `cache_out`, the store and
 * the clock as parameters. One thread. */
#ifndef NUNCHI_CACHE_CORE_H
#define NUNCHI_CACHE_CORE_H

#include "cache-svc/files.h"
#include "cache-svc/store.h"
#include "common/wire/frame.h"

typedef struct cache_core cache_core;

#define CACHE_KEYS_MAX 64 /* of one BlobGet */
/* Requests being worked on, of all askers together; each may hold a message's worth of values. */
#define CACHE_OPS_MAX 256
/* Values held for answers that are not complete yet. More are misses. */
#define CACHE_HELD_MAX ((size_t)256 << 20)

struct cache_limits {
    struct file_limits files;
    uint64_t ram_bytes, kv_ram_bytes;
    uint64_t tenant_percent; /* of memory: a tenant that has more makes room from its own */
    uint64_t result_ttl_s, kv_ttl_s;
};

/* Who asked: `from` is known to the caller; answers of a request that was cancelled or whose asker
 * is gone are not sent. */
struct cache_asker {
    uint64_t from;
    struct wire_head head;
    uint64_t began_us; /* as it was given */
};

struct cache_out {
    void *ctx;
    /* The values are the answer's bulk frames; who needs them longer refs them. */
    void (*done)(void *ctx, const struct cache_asker *to, const Nunchi__CacheReply *r,
                 shared *const *values, size_t n_values);
    void (*failed)(void *ctx, const struct cache_asker *to, int err, const struct why *w);
};

/* The store as a callback, so that tests can answer in its place. As store_send. */
struct cache_store {
    void *ctx;
    int (*send)(void *ctx, enum store_line line, const slice *argv, size_t n, store_fn fn,
                void *fn_ctx);
    /* The same to the store of KV blocks that holds `group` (32 bytes); NULL: there is none. */
    int (*send_kv)(void *ctx, slice group, const slice *argv, size_t n, store_fn fn, void *fn_ctx);
};

cache_core *cache_core_new(const struct cache_limits *lim, const struct cache_store *st,
                           const struct cache_out *out);
/* The store must have ended its commands before. */
void cache_core_free(cache_core *c);
/* now_us: told back with the answer. */
void cache_core_request(cache_core *c, uint64_t from, const struct wire_msg *m,
                        uint64_t now_unix_ms, uint64_t now_us);
void cache_core_cancel(cache_core *c, uint64_t from, const struct wire_head *h);
void cache_core_gone(cache_core *c, uint64_t from); /* the asker: its answers go nowhere */
/* Removes what has expired and what no file names any more; to be called every CACHE_SWEEP_MS. */
#define CACHE_SWEEP_MS 30000
void cache_core_sweep(cache_core *c, uint64_t now_unix_ms);
size_t cache_core_running(const cache_core *c); /* requests not answered yet */
bool cache_core_idle(const cache_core *c);      /* no request and no sweep */

struct cache_counts {
    uint64_t hits_ram, hits_store, misses, damaged, puts, puts_dropped, files_expired, orphans;
    struct {
        uint64_t hits_ram, hits_store, misses, puts, puts_dropped, evicted;
    } kv;
};
struct cache_counts cache_core_counts(const cache_core *c);
size_t cache_core_ram_bytes(const cache_core *c);
size_t cache_core_kv_bytes(const cache_core *c);

#endif
