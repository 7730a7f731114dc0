#include "cache-svc/serve.h"

#include "cache-svc/core.h"
#include "cache-svc/kv_stores.h"
#include "cache-svc/metrics.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/hub.h"
#include "common/wire/links.h"
#include "common/wire/pb.h"
#include "common/wire/traced.h"
#include "common/wire/wire_metrics.h"

#define WATCH_MS 100 /* while draining */

struct cache_serve {
    loop *l;
    bus *b;
    hub *hub;
    links *links;
    store *store;
    kv_stores *kv;
    cache_core *core;
    uint32_t slots;
    uint64_t drain_us, drain_until_us;
    bool draining;
    struct loop_timer sweep, watch;
};

/* ---- askers: a peer of the hub or a link, told apart by the lowest bit
 * --------------------------------------------------- */

static uint64_t from_peer(const hub_peer *p)
{
    return hub_peer_id(p) << 1;
}

static uint64_t from_link(const peer_link *k)
{
    return link_id(k) << 1 | 1;
}

static int send_to(cache_serve *s, uint64_t from, const struct wire_msg *m)
{
    if (from & 1) {
        peer_link *k = s->links ? links_find(s->links, from >> 1) : NULL;
        return k ? link_post(k, m) : ERR_UNAVAILABLE;
    }
    hub_peer *p = s->hub ? hub_find(s->hub, from >> 1) : NULL;
    return p ? hub_send(s->hub, p, m) : ERR_UNAVAILABLE;
}

static struct wire_head answer_head(const struct cache_asker *to, int type)
{
    struct wire_head h = to->head;
    h.type = (uint8_t)type;
    h.flags = 0;
    h.sequence = 0;
    return h;
}

static void record(const cache_serve *s, const struct cache_asker *to, int err)
{
    struct trace_at at = traced_at(&to->head);
    struct trace_span *span = trace_new(&at, to->head.request, "cache", TRACE_SERVER, to->began_us);
    if (span)
        span->err = err;
    trace_end(span, loop_now_us(s->l));
}

static void failed(void *ctx, const struct cache_asker *to, int err, const struct why *why)
{
    cache_serve *s = ctx;
    char param[WHY_FIELD_MAX];
    Nunchi__Error e;
    buf body = {0};
    nunchi__error__init(&e);
    memcpy(param, why->field, sizeof param);
    e.code = err_to_wire(err);
    e.message = pb_bytes(slice_str(why->text));
    e.param = param;
    pb_pack(&e.base, &body);
    struct wire_msg m = {.head = answer_head(to, WIRE_ERROR), .body = buf_slice(&body)};
    int sent = send_to(s, to->from, &m);
    if (sent < 0) /* the asker's own deadline ends the request */
        log_warn("an answer could not be sent", LOG_STR("error", err_name(sent)));
    cache_metrics_failed();
    record(s, to, err);
    buf_clear(&body);
}

static void done(void *ctx, const struct cache_asker *to, const Nunchi__CacheReply *r,
                 shared *const *values, size_t n_values)
{
    cache_serve *s = ctx;
    buf body = {0};
    pb_pack(&r->base, &body);
    struct wire_msg m = {
        .head = answer_head(to, WIRE_DONE), .body = buf_slice(&body), .n_frames = n_values};
    for (size_t i = 0; i < n_values; i++) {
        m.frames[i] = shared_slice(values[i]);
        m.held[i] = values[i];
    }
    record(s, to, 0);
    int e = send_to(s, to->from, &m);
    if (e < 0)
        log_warn("an answer could not be sent", LOG_STR("error", err_name(e)));
    buf_clear(&body);
}

/* ---- requests
 * ----------------------------------------------------------------------------------------------------------------
 */

static void on_msg(cache_serve *s, uint64_t from, const struct wire_msg *m)
{
    if (m->head.type == WIRE_CANCEL) {
        cache_core_cancel(s->core, from, &m->head);
        return;
    }
    if (m->head.type != WIRE_REQUEST)
        return; /* nothing here is chunked or on credit */
    cache_metrics_request();
    if (s->draining) {
        struct cache_asker to = {.from = from, .head = m->head};
        struct why w;
        why_set(&w, ERR_UNAVAILABLE, "", "this cache is shutting down");
        failed(s, &to, ERR_UNAVAILABLE, &w);
        return;
    }
    cache_core_request(s->core, from, m, clock_unix_ms(), loop_now_us(s->l));
}

static void peer_msg(void *ctx, hub_peer *p, const struct wire_msg *m)
{
    on_msg(ctx, from_peer(p), m);
}
static void peer_down(void *ctx, hub_peer *p, const char *reason UNUSED)
{
    cache_core_gone(((cache_serve *)ctx)->core, from_peer(p));
}
static void gateway_msg(void *ctx, peer_link *k, const struct wire_msg *m)
{
    on_msg(ctx, from_link(k), m);
}
static void gateway_down(void *ctx, peer_link *k, const char *reason UNUSED)
{
    cache_core_gone(((cache_serve *)ctx)->core, from_link(k));
}

static void fill_beat(const cache_serve *s, Nunchi__Heartbeat *out)
{
    out->slots = s->draining ? 0 : s->slots;
    out->running = (uint32_t)cache_core_running(s->core);
    out->draining = s->draining;
}
static void peer_beat(void *ctx, hub_peer *p UNUSED, Nunchi__Heartbeat *out)
{
    fill_beat(ctx, out);
}
static void gateway_beat(void *ctx, peer_link *k UNUSED, Nunchi__Heartbeat *out)
{
    fill_beat(ctx, out);
}

/* ---- the store
 * ------------------------------------------------------------------------------------ */

static int core_send(void *ctx, enum store_line line, const slice *argv, size_t n, store_fn fn,
                     void *fn_ctx)
{
    cache_serve *s = ctx;
    return store_send(s->store, line, argv, n, fn, fn_ctx);
}

static int core_send_kv(void *ctx, slice group, const slice *argv, size_t n, store_fn fn,
                        void *fn_ctx)
{
    cache_serve *s = ctx;
    return kv_stores_send(s->kv, group, argv, n, fn, fn_ctx);
}

static void on_sweep(void *ctx)
{
    cache_serve *s = ctx;
    loop_timer_in(s->l, &s->sweep, (uint64_t)CACHE_SWEEP_MS * 1000);
    if (!s->draining && store_up(s->store))
        cache_core_sweep(s->core, clock_unix_ms());
}

/* ---- the end
 * ----------------------------------------------------------------------------------------------------------------------
 */

static void on_watch(void *ctx)
{
    cache_serve *s = ctx;
    bool late = clock_mono_us() >= s->drain_until_us;
    if (cache_core_idle(s->core) || late)
        loop_stop(s->l, cache_core_idle(s->core) ? 0 : 1);
    else
        loop_timer_in(s->l, &s->watch, (uint64_t)WATCH_MS * 1000);
}

void cache_serve_drain(cache_serve *s)
{
    log_info("draining", LOG_U64("running", cache_core_running(s->core)));
    s->draining = true;
    s->drain_until_us = clock_mono_us() + s->drain_us;
    links_beat(s->links);
    hub_probe(s->hub, NULL);
    on_watch(s);
}

void cache_serve_reload(cache_serve *s)
{
    struct why w;
    if (bus_reload_keys(s->b, &w) < 0)
        log_error("the keys that may connect stay as they were", LOG_STR("why", w.text));
    else
        log_info("keys that may connect read again");
}

/* ---- the beginning
 * ----------------------------------------------------------------------------------------------------------------
 */

static int open_sockets(cache_serve *s, const struct cache_options *o, struct why *w)
{
    struct bus_config keys = {o->curve_key_file, o->curve_allow_file, o->curve_server_key,
                              o->insecure_network};
    char name[] = "cache";
    Nunchi__Ready ready;
    nunchi__ready__init(&ready);
    ready.service = name;
    ready.slots = s->slots;
    struct hub_config hc = {.endpoint = o->bind,
                            .ready = &ready,
                            .ctx = s,
                            .down = peer_down,
                            .msg = peer_msg,
                            .heartbeat = peer_beat};
    struct links_config lc = {.targets = o->gateways,
                              .ready = &ready,
                              .ctx = s,
                              .down = gateway_down,
                              .msg = gateway_msg,
                              .heartbeat = gateway_beat};
    int e = bus_new(s->l, &keys, &s->b, w);
    if (e == 0)
        e = hub_new(s->b, s->l, &hc, &s->hub, w);
    if (e == 0)
        e = links_new(s->b, s->l, &lc, &s->links, w);
    return e;
}

static void make_core(cache_serve *s, const struct cache_options *o)
{
    struct cache_limits lim = {
        .files = {.quota_bytes = (uint64_t)o->files_quota_bytes,
                  .quota_count = (uint64_t)o->files_quota_count,
                  .ttl_s = (uint64_t)o->files_ttl_s,
                  .silent_ms = (uint64_t)o->files_silent_ms},
        .ram_bytes = (uint64_t)o->ram_bytes,
        .kv_ram_bytes = (uint64_t)o->kv_ram_bytes,
        .tenant_percent = (uint64_t)o->tenant_percent,
        .result_ttl_s = (uint64_t)o->result_ttl_s,
        .kv_ttl_s = (uint64_t)o->kv_ttl_s,
    };
    struct cache_store st = {.ctx = s, .send = core_send, .send_kv = s->kv ? core_send_kv : NULL};
    struct cache_out out = {.ctx = s, .done = done, .failed = failed};
    s->core = cache_core_new(&lim, &st, &out);
    cache_metrics_init();
}

int cache_serve_new(loop *l, const struct cache_options *o, cache_serve **out, struct why *w)
{
    cache_serve *s = xcalloc(1, sizeof *s);
    struct store_config sc = {.address = o->redis,
                              .password_file = o->redis_password_file,
                              .timeout_ms = (uint32_t)o->redis_timeout_ms,
                              .loss =
                                  "answers are cached in memory only, file operations are refused"};
    struct store_config kc = {.password_file = o->redis_password_file,
                              .timeout_ms = (uint32_t)o->kv_timeout_ms,
                              .loss = "the KV blocks that it keeps are misses"};
    *out = NULL;
    s->l = l;
    s->slots = (uint32_t)o->slots;
    s->drain_us = (uint64_t)o->drain_ms * 1000;
    s->sweep = (struct loop_timer){.fn = on_sweep, .ctx = s};
    s->watch = (struct loop_timer){.fn = on_watch, .ctx = s};
    int e = store_new(l, &sc, &s->store, w);
    if (e == 0)
        e = kv_stores_new(l, o->kv_redis, &kc, &s->kv, w);
    make_core(s, o);
    if (e == 0)
        e = open_sockets(s, o, w);
    if (e < 0) {
        cache_serve_free(s);
        return e;
    }
    loop_timer_in(l, &s->sweep, (uint64_t)CACHE_SWEEP_MS * 1000);
    log_info("ready", LOG_STR("endpoint", hub_endpoint(s->hub)), LOG_STR("redis", o->redis));
    *out = s;
    return 0;
}

void cache_serve_free(cache_serve *s)
{
    if (!s)
        return;
    loop_timer_cancel(s->l, &s->sweep);
    loop_timer_cancel(s->l, &s->watch);
    kv_stores_free(s->kv);
    store_free(s->store); /* ends what the core waits for; the answers still go out */
    links_free(s->links);
    hub_free(s->hub);
    bus_free(s->b);
    cache_core_free(s->core);
    free(s);
}

void cache_serve_collect(void *serve)
{
    const cache_serve *s = serve;
    struct cache_counts c = cache_core_counts(s->core);
    struct cache_levels l = {.running = cache_core_running(s->core),
                             .ram_bytes = cache_core_ram_bytes(s->core),
                             .kv_ram_bytes = cache_core_kv_bytes(s->core),
                             .kv_stores_up = s->kv ? kv_stores_up(s->kv) : 0,
                             .store_up = store_up(s->store)};
    cache_metrics_counts(&c, &l);
    wire_metrics(s->b);
}

/* Whoever stores connects here: gateways need not be there. */
bool cache_serve_ready(void *serve)
{
    return !((const cache_serve *)serve)->draining;
}

const char *cache_serve_endpoint(cache_serve *s)
{
    return hub_endpoint(s->hub);
}
