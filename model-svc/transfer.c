#include "model-svc/transfer_int.h"

#include <sys/resource.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define CLOSING_TURN_US 10000
#define LEAST_PRIORITY 19

static void set_tick(transfer *t)
{
    uint64_t next = calls_tick(t->calls, clock_mono_us());
    if (next == UINT64_MAX)
        loop_timer_cancel(t->l, &t->tick);
    else
        loop_timer_set(t->l, &t->tick, next);
}

static void on_tick(void *ctx)
{
    set_tick(ctx);
}

/* ---- requests ---- */

int transfer_ask(transfer *t, const struct digest *group, const Nunchi__CacheRequest *q,
                 shared *const *bulk, size_t n_bulk, call_done_fn done, void *ctx)
{
    /* another when it is gone, which then has to be filled */
    peer_link *to = links_holder(t->ls, (slice){(const char *)group->b, DIGEST_BYTES});
    if (!to)
        return ERR_UNAVAILABLE;
    const struct call c = {
        .peer = link_id(to), .timeout_ms = TRANSFER_CALL_MS, .done = done, .ctx = ctx};
    uint64_t id = calls_open(t->calls, clock_mono_us(), &c);
    buf body = {0};
    pb_pack(&q->base, &body);
    struct wire_msg m = {.head = {.type = WIRE_REQUEST, .request = id},
                         .body = buf_slice(&body),
                         .n_frames = n_bulk};
    for (size_t i = 0; i < n_bulk; i++) {
        m.frames[i] = shared_slice(bulk[i]);
        m.held[i] = bulk[i];
    }
    int e = link_send(to, &m);
    buf_clear(&body);
    if (e < 0)
        calls_cancel(t->calls, id);
    set_tick(t);
    return e;
}

static ProtobufCBinaryData bytes_of(arena *a, const struct digest *d)
{
    uint8_t *p = arena_get(a, DIGEST_BYTES);
    memcpy(p, d->b, DIGEST_BYTES);
    return (ProtobufCBinaryData){DIGEST_BYTES, p};
}

Nunchi__BlobKey *transfer_key(arena *a, const transfer *t, slice tenant, const struct digest *hash,
                              const struct digest *group, uint32_t part)
{
    Nunchi__BlobKey *k = arena_get(a, sizeof *k);
    nunchi__blob_key__init(k);
    k->space = NUNCHI__SPACE__KV;
    k->tenant = pb_bytes(tenant);
    k->key = bytes_of(a, hash);
    k->detail = bytes_of(a, &t->detail);
    k->part = part;
    k->group = bytes_of(a, group);
    return k;
}

int transfer_unpack(arena *a, const struct wire_msg *m, Nunchi__CacheReply **out)
{
    void *v;
    int e = pb_unpack(a, &nunchi__cache_reply__descriptor, m->body, WIRE_BODY_MAX, &v, NULL);
    *out = e < 0 ? NULL : v;
    return e;
}

/* ---- links ---- */

static void on_msg(void *ctx, peer_link *k, const struct wire_msg *m)
{
    transfer *t = ctx;
    (void)calls_msg(t->calls, clock_mono_us(), link_id(k), m);
    set_tick(t);
    transfer_pump(t);
}

static void on_down(void *ctx, peer_link *k, const char *reason UNUSED)
{
    transfer *t = ctx;
    calls_peer_down(t->calls, link_id(k));
    transfer_pump(t);
}

static void on_up(void *ctx, peer_link *k UNUSED)
{
    transfer_pump(ctx);
}

/* A prefix that comes in from a cache should not wait for the kernel to clear its pages. */
static void touch(void *ctx)
{
    const transfer *t = ctx;
    transfer_step_aside();
    engine_touch_kv(t->e);
}

static void on_touched(void *ctx)
{
    ((transfer *)ctx)->touching = false;
}

void transfer_step_aside(void)
{
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), LEAST_PRIORITY); /* of this thread alone */
}

void transfer_pump(transfer *t)
{
    if (t->closing)
        return;
    fetching_start(t);
    offering_start(t);
}

int transfer_new(bus *b, loop *l, const struct transfer_config *cfg, transfer **out, struct why *w)
{
    const struct engine_info *i = engine_info(cfg->e);
    transfer *t = xcalloc(1, sizeof *t);
    *t = (transfer){.l = l,
                    .calls = calls_new(),
                    .e = cfg->e,
                    .ops = cfg->ops,
                    .detail = kvbox_detail(&i->numerics, i->kv_block_bytes),
                    .block_bytes = i->kv_block_bytes,
                    .parts = kvbox_parts(i->kv_block_bytes)};
    t->tick = (struct loop_timer){.fn = on_tick, .ctx = t};
    list_init(&t->fetches);
    t->whole = xcalloc(1, t->block_bytes);
    uint64_t fit = TRANSFER_BYTES_MAX / (t->block_bytes + (uint64_t)t->parts * KVBOX_HEAD_BYTES);
    uint32_t keys = TRANSFER_KEYS_MAX / (t->parts ? t->parts : 1);
    t->blocks_per_ask = fit < keys ? (uint32_t)fit : keys;
    t->mover = workq_new(l, 1, "kv");
    t->touching = workq_add(t->mover, 1, touch, on_touched, t) == 0;
    *out = t;
    if (t->parts == 0 || t->blocks_per_ask == 0) {
        transfer_free(t);
        *out = NULL;
        return why_set(w, ERR_TOO_BIG, "caches",
                       "a KV block of this model has %llu bytes, more than a message carries",
                       (unsigned long long)i->kv_block_bytes);
    }
    struct links_config lc = {.targets = cfg->caches,
                              .ready = cfg->ready,
                              .ctx = t,
                              .up = on_up,
                              .down = on_down,
                              .msg = on_msg};
    int e = links_new(b, l, &lc, &t->ls, w);
    if (e < 0) {
        transfer_free(t);
        *out = NULL;
    }
    return e;
}

void transfer_free(transfer *t)
{
    if (!t)
        return;
    t->closing = true;
    workq_free(t->mover); /* what it is at ends first … */
    while (t->sealing || t->touching)
        loop_turn(t->l, CLOSING_TURN_US); /* … and is told by the loop */
    for (peer_link *k = t->ls ? links_next(t->ls, NULL) : NULL; k; k = links_next(t->ls, k))
        calls_peer_down(t->calls, link_id(k));
    fetching_clear(t);
    offering_clear(t);
    loop_timer_cancel(t->l, &t->tick);
    if (t->ls)
        links_free(t->ls);
    calls_free(t->calls);
    free(t->whole);
    free(t);
}
