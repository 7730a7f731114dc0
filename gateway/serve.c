#include "gateway/serve.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/fds.h"
#include "common/base/log.h"
#include "common/wire/hub.h"
#include "common/wire/wire_metrics.h"
#include "gateway/api.h"
#include "gateway/route.h"

#define SECRET_BYTES_MAX 4096
#define DRAIN_LOOK_US 50000
/* Requests that workers may have open at a gateway: they send none. */
/* Beside clients: workers, and what the process itself needs. */
#define OTHER_FDS 2048
#define GATEWAY_SLOTS 0

struct gateway_serve {
    loop *l;
    const struct gateway_options *o;
    keys *keys;
    proxies *proxies;
    bus *b;
    hub *h;
    gw *g;
    api *a;
    http *web;
    struct loop_timer timer, drain;
    uint64_t drain_until_us;
    void *prepare;
    char instance[33];
    bool draining;
};

/* ---- the hub ---- */

static void on_up(void *ctx, hub_peer *p)
{
    gateway_serve *v = ctx;
    gw_peer_up(v->g, loop_now_us(v->l), hub_peer_id(p), hub_peer_ready(p));
}

static void on_changed(void *ctx, hub_peer *p, bool ready)
{
    gateway_serve *v = ctx;
    const Nunchi__Heartbeat *h = hub_peer_heartbeat(p);
    /* Before the first heartbeat, READY alone says how many slots there are. */
    bool said = h->slots || h->running || h->queued || h->draining || h->kv_blocks;
    gw_peer_changed(v->g, loop_now_us(v->l), hub_peer_id(p), ready ? hub_peer_ready(p) : NULL,
                    said ? h : NULL);
}

/* Whether its requests may be what it went down of. */
static bool died(const char *reason)
{
    static const char *const others[] = {"drain", "bye", "damaged"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (strcmp(reason, others[i]) == 0)
            return false;
    return true;
}

static void on_down(void *ctx, hub_peer *p, const char *reason)
{
    gateway_serve *v = ctx;
    if (v->g)
        gw_peer_down(v->g, loop_now_us(v->l), hub_peer_id(p), died(reason));
}

static void on_msg(void *ctx, hub_peer *p, const struct wire_msg *m)
{
    gateway_serve *v = ctx;
    gw_peer_msg(v->g, loop_now_us(v->l), hub_peer_id(p), m);
}

static int send_peer(void *ctx, uint64_t peer, const struct wire_msg *m)
{
    gateway_serve *v = ctx;
    hub_peer *p = hub_find(v->h, peer);
    return p ? hub_send(v->h, p, m) : ERR_UNAVAILABLE;
}

/* ---- the core's time ---- */

static void on_timer(void *ctx UNUSED)
{
    /* what is due is done before the next sleep */
}

static bool prepare(void *ctx)
{
    gateway_serve *v = ctx;
    uint64_t next = gw_tick(v->g, loop_now_us(v->l));
    if (next == UINT64_MAX)
        loop_timer_cancel(v->l, &v->timer);
    else
        loop_timer_set(v->l, &v->timer, next);
    return false;
}

/* ---- starting ---- */

static int load_keys(gateway_serve *v, struct why *w)
{
    buf secret = {0};
    int e = 0;
    if (v->o->cluster_secret_file)
        e = read_small_file(v->o->cluster_secret_file, SECRET_BYTES_MAX, &secret, w);
    if (e == 0 && v->o->keys_file)
        e = keys_load(v->o->keys_file, slice_trim(buf_slice(&secret)), &v->keys, w);
    buf_clear(&secret);
    return e;
}

static int start_hub(gateway_serve *v, struct why *w)
{
    struct bus_config bc = {.secret_key_file = v->o->curve_key_file,
                            .allow_file = v->o->curve_allow_file,
                            .server_key = v->o->curve_server_key,
                            .insecure_network = v->o->insecure_network};
    int e = bus_new(v->l, &bc, &v->b, w);
    if (e < 0)
        return e;
    uint8_t raw[16];
    char version[32];
    Nunchi__Ready ready;
    char service[] = "gateway";
    random_bytes(raw, sizeof raw);
    hex_encode(raw, sizeof raw, v->instance);
    snprintf(version, sizeof version, "%s", NUNCHI_VERSION);
    nunchi__ready__init(&ready);
    ready.service = service;
    ready.instance = v->instance;
    ready.version = version;
    ready.wire_min = ready.wire_max = WIRE_VERSION;
    ready.started_unix_ms = clock_unix_ms();
    ready.slots = GATEWAY_SLOTS;
    struct hub_config hc = {.endpoint = v->o->bind,
                            .ready = &ready,
                            .ctx = v,
                            .up = on_up,
                            .changed = on_changed,
                            .down = on_down,
                            .msg = on_msg};
    return hub_new(v->b, v->l, &hc, &v->h, w);
}

static void start_core(gateway_serve *v)
{
    struct gw_config cfg = {.requests_max = (uint32_t)v->o->requests_max,
                            .queue_max = (uint32_t)v->o->queue_max,
                            .tenant_max = (uint32_t)v->o->key_requests_max,
                            .request_ms = (uint32_t)v->o->request_ms,
                            .worker_wait_ms = (uint32_t)v->o->worker_wait_ms,
                            .stall_ms = (uint32_t)v->o->stall_ms,
                            .condemned_ms = (uint32_t)v->o->condemned_ms,
                            .client_stall_ms = (uint32_t)v->o->client_stall_ms,
                            .queue_tokens_max = (uint64_t)v->o->queue_tokens_max,
                            .tenant_tokens_max = (uint64_t)v->o->key_tokens_max,
                            .route = route_policy_of(v->o->route),
                            .notes_tokens = (uint32_t)v->o->notes_tokens};
    struct gw_out out = {.ctx = v, .send = send_peer};
    v->g = gw_new(&cfg, &out);
}

static void collect(void *ctx)
{
    wire_metrics(((gateway_serve *)ctx)->b);
}

static int start_http(gateway_serve *v, struct why *w)
{
    struct api_config ac = {.keys = v->keys,
                            .proxies = v->proxies,
                            .metrics_public = v->o->metrics_public,
                            .file_max_bytes = (uint64_t)v->o->file_max_bytes,
                            .body_ms = (uint32_t)v->o->body_ms,
                            .request_ms = (uint32_t)v->o->request_ms,
                            .trace_ratio = v->o->trace_ratio,
                            .ctx = v,
                            .collect = collect};
    struct http_config hc = {.endpoint = v->o->http,
                             .connections_max = (uint32_t)v->o->connections_max,
                             .idle_ms = (uint32_t)v->o->idle_ms};
    v->a = api_new(v->l, v->g, &ac);
    api_attach(v->a, &hc);
    return http_new(v->l, &hc, &v->web, w);
}

static bool http_is_local(const char *endpoint)
{
    return slice_starts(slice_str(endpoint), SLICE_LIT("127.")) ||
           slice_starts(slice_str(endpoint), SLICE_LIT("localhost:")) ||
           slice_starts(slice_str(endpoint), SLICE_LIT("[::1]:"));
}

int gateway_serve_new(loop *l, const struct gateway_options *o, gateway_serve **out, struct why *w)
{
    gateway_serve *v = xcalloc(1, sizeof *v);
    if (fds_make_room((uint64_t)o->connections_max + OTHER_FDS, w) < 0)
        log_warn("not all connections that connections-max allows will be possible",
                 LOG_STR("why", w->text));
    v->l = l;
    v->o = o;
    *out = NULL;
    start_core(v);
    int e = proxies_new(o->trusted_proxies, &v->proxies, w);
    if (e == 0)
        e = load_keys(v, w);
    if (e == 0)
        e = start_hub(v, w);
    if (e == 0)
        e = start_http(v, w);
    if (e < 0) {
        gateway_serve_free(v);
        return e;
    }
    v->timer = (struct loop_timer){.fn = on_timer, .ctx = v};
    v->prepare = loop_prepare_add(l, prepare, v);
    if (!v->keys && !http_is_local(o->http))
        log_warn("whoever reaches this address may ask: no keys are set", LOG_STR("http", o->http));
    log_info("ready", LOG_STR("http", o->http), LOG_U64("port", http_port(v->web)),
             LOG_STR("bind", hub_endpoint(v->h)), LOG_U64("keys", keys_count(v->keys)));
    *out = v;
    return 0;
}

void gateway_serve_free(gateway_serve *v)
{
    if (!v)
        return;
    http_free(v->web);
    api_free(v->a);
    if (v->prepare)
        loop_prepare_del(v->l, v->prepare);
    loop_timer_cancel(v->l, &v->timer);
    loop_timer_cancel(v->l, &v->drain);
    gw_free(v->g); /* cancels what workers still do for us */
    v->g = NULL;
    hub_free(v->h);
    bus_free(v->b);
    keys_free(v->keys);
    proxies_free(v->proxies);
    free(v);
}

/* ---- ending ---- */

static void on_drain(void *ctx)
{
    gateway_serve *v = ctx;
    struct gw_state s;
    gw_state(v->g, &s);
    if ((s.requests == 0 && http_n_open(v->web) == 0) || loop_now_us(v->l) >= v->drain_until_us)
        loop_stop(v->l, 0);
    else
        loop_timer_in(v->l, &v->drain, DRAIN_LOOK_US);
}

static void close_doors(void *ctx)
{
    gateway_serve *v = ctx;
    log_info("draining", LOG_U64("open", http_n_open(v->web)));
    gw_drain(v->g);
    http_quiesce(v->web);
    v->drain_until_us = loop_now_us(v->l) + (uint64_t)v->o->drain_ms * 1000;
    v->drain = (struct loop_timer){.fn = on_drain, .ctx = v};
    loop_timer_in(v->l, &v->drain, 0);
}

void gateway_serve_drain(gateway_serve *v)
{
    if (v->draining)
        return;
    v->draining = true;
    log_info("leaving", LOG_U64("open", http_n_open(v->web)));
    gw_leave(v->g);
    v->drain = (struct loop_timer){.fn = close_doors, .ctx = v};
    loop_timer_in(v->l, &v->drain, (uint64_t)v->o->drain_wait_ms * 1000);
}

void gateway_serve_reload(gateway_serve *v)
{
    struct why w;
    if (!v->o->curve_key_file)
        return;
    if (bus_reload_keys(v->b, &w) < 0)
        log_error("the allow-list could not be read again; the old one stays",
                  LOG_STR("why", w.text));
    else
        log_info("allow-list read again");
}
