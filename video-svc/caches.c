#include "video-svc/caches.h"

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/wire/calls.h"
#include "common/wire/pb.h"

#define REPLY_ARENA_BYTES ((size_t)4 << 20)

struct caches {
    loop *l;
    links *ls;
    calls *calls;
    struct loop_timer tick;
    caches_fn fn;
    void *ctx;
    size_t posted; /* failures on their way through the loop */
    bool closing;
};

struct asked {
    caches *s;
    uint64_t a;
    uint32_t b, c;
    int err; /* of one that was not sent */
};

static void set_tick(caches *s)
{
    uint64_t next = calls_tick(s->calls, clock_mono_us());
    if (next == UINT64_MAX)
        loop_timer_cancel(s->l, &s->tick);
    else
        loop_timer_set(s->l, &s->tick, next);
}

static void on_tick(void *ctx)
{
    set_tick(ctx);
}

static void on_done(void *ctx, int err, const struct wire_msg *m, const struct why *w UNUSED)
{
    struct asked *k = ctx;
    caches *s = k->s;
    arena *a = arena_new(REPLY_ARENA_BYTES);
    void *reply = NULL;
    CHECK(err < 0 || m); /* an answer comes with its message */
    if (err >= 0)
        err = pb_unpack(a, &nunchi__cache_reply__descriptor, m->body, WIRE_BODY_MAX, &reply, NULL);
    if (s->fn)
        s->fn(s->ctx, k->a, k->b, k->c, err, err < 0 ? NULL : reply, m ? m->frames : NULL,
              m ? m->n_frames : 0);
    arena_free(a);
    free(k);
}

static void on_not_sent(void *ctx)
{
    struct asked *k = ctx;
    caches *s = k->s;
    s->posted--;
    if (s->closing) {
        free(k);
        if (s->posted == 0)
            free(s);
        return;
    }
    on_done(k, k->err, NULL, NULL);
}

static int send(caches *s, struct asked *k, peer_link *to, const Nunchi__CacheRequest *q,
                slice bulk)
{
    const struct call c = {
        .peer = link_id(to), .timeout_ms = CACHES_CALL_MS, .done = on_done, .ctx = k};
    uint64_t id = calls_open(s->calls, clock_mono_us(), &c);
    buf body = {0};
    pb_pack(&q->base, &body);
    struct wire_msg m = {.head = {.type = WIRE_REQUEST, .request = id}, .body = buf_slice(&body)};
    if (bulk.n > 0)
        m.frames[m.n_frames++] = bulk;
    int e = link_send(to, &m);
    buf_clear(&body);
    if (e < 0)
        calls_cancel(s->calls, id);
    return e;
}

void caches_call(caches *s, uint64_t a, uint32_t b, uint32_t c, slice key,
                 const Nunchi__CacheRequest *q, slice bulk)
{
    struct asked *k = xcalloc(1, sizeof *k);
    *k = (struct asked){.s = s, .a = a, .b = b, .c = c};
    peer_link *to = links_holder(s->ls, key);
    k->err = to ? send(s, k, to, q, bulk) : ERR_UNAVAILABLE;
    if (k->err < 0) {
        s->posted++;
        loop_post(s->l, on_not_sent, k);
    }
    set_tick(s);
}

static void on_msg(void *ctx, peer_link *k, const struct wire_msg *m)
{
    caches *s = ctx;
    (void)calls_msg(s->calls, clock_mono_us(), link_id(k), m);
    set_tick(s);
}

static void on_down(void *ctx, peer_link *k, const char *reason UNUSED)
{
    caches *s = ctx;
    calls_peer_down(s->calls, link_id(k));
}

static void on_up(void *ctx UNUSED, peer_link *k UNUSED)
{
}

int caches_open(bus *b, loop *l, const char *targets, const Nunchi__Ready *ready, caches_fn fn,
                void *ctx, caches **out, struct why *w)
{
    caches *s = xcalloc(1, sizeof *s);
    *s = (caches){.l = l, .calls = calls_new(), .fn = fn, .ctx = ctx};
    s->tick = (struct loop_timer){.fn = on_tick, .ctx = s};
    struct links_config cfg = {
        .targets = targets, .ready = ready, .ctx = s, .up = on_up, .down = on_down, .msg = on_msg};
    int e = links_new(b, l, &cfg, &s->ls, w);
    if (e < 0) {
        calls_free(s->calls);
        free(s);
        return e;
    }
    *out = s;
    return 0;
}

void caches_close(caches *s)
{
    if (!s)
        return;
    s->fn = NULL;
    /* Every open call ends, so that what was kept for it is freed. */
    for (peer_link *k = links_next(s->ls, NULL); k; k = links_next(s->ls, k))
        calls_peer_down(s->calls, link_id(k));
    loop_timer_cancel(s->l, &s->tick);
    links_free(s->ls);
    calls_free(s->calls);
    s->closing = true;
    if (s->posted == 0)
        free(s);
}
