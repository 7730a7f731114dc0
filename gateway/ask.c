#include "gateway/core_impl.h"

static void closed(struct ask *a)
{
    struct worker *w = route_find(a->g->route, a->peer);
    if (w && w->open)
        w->open--;
    a->request = 0;
    a->g->dirty = true;
}

static void on_chunk(void *ctx, const struct wire_msg *m)
{
    struct ask *a = ctx;
    if (a->chunk)
        a->chunk(a, m);
}

static struct wire_msg message(struct ask *a, int type, uint16_t flags)
{
    struct wire_msg m = {.head = {.type = (uint8_t)type,
                                  .flags = flags,
                                  .request = a->request,
                                  .sequence = a->sequence++}};
    memcpy(m.head.trace, a->at.trace, sizeof m.head.trace);
    memcpy(m.head.span, a->at.span, sizeof m.head.span);
    if (a->at.on && type == WIRE_REQUEST)
        m.head.flags |= WIRE_TRACED;
    return m;
}

static int send(struct ask *a, struct wire_msg *m, const ProtobufCMessage *body)
{
    buf packed = {0};
    if (body)
        pb_pack(body, &packed);
    m->body = buf_slice(&packed);
    int e = a->g->out.send(a->g->out.ctx, a->peer, m);
    buf_clear(&packed);
    return e;
}

/* A peer that cannot be told is gone, or finds out when its answer is not wanted. */
static void tell_cancel(struct ask *a, const char *reason)
{
    Nunchi__Cancel c;
    nunchi__cancel__init(&c);
    union {
        const char *in;
        char *out;
    } text = {.in = reason};
    c.reason = text.out;
    struct wire_msg m = message(a, WIRE_CANCEL, 0);
    if (send(a, &m, &c.base) < 0)
        a->g->dirty = true;
}

static void on_done(void *ctx, int err, const struct wire_msg *m, const struct why *w)
{
    struct ask *a = ctx;
    if (err == ERR_TIMEOUT || err == ERR_PROTO ||
        a->g->loss.stuck) /* found out here: there it may still be worked on */
        tell_cancel(a, "deadline");
    closed(a);
    a->done(a, err, m, w);
}

int ask_send(struct ask *a, struct worker *w, const ProtobufCMessage *body, const slice *frames,
             size_t n_frames, uint32_t timeout_ms)
{
    CHECK(a->request == 0 && n_frames <= WIRE_FRAMES_MAX);
    gw *g = a->g;
    struct call call = {
        .peer = w->peer, .timeout_ms = timeout_ms, .done = on_done, .chunk = on_chunk, .ctx = a};
    a->peer = w->peer;
    a->sequence = 0;
    a->request = calls_open(g->calls, g->now_us, &call);
    struct wire_msg m = message(a, WIRE_REQUEST, 0);
    m.n_frames = n_frames;
    for (size_t i = 0; i < n_frames; i++)
        m.frames[i] = frames[i];
    int e = send(a, &m, body);
    if (e < 0) {
        calls_cancel(g->calls, a->request);
        a->request = 0;
        w->busy_until_us = g->now_us + 100000; /* gone or full: the next look is for another */
        return e;
    }
    w->open++;
    return 0;
}

int ask_more(struct ask *a, int type, uint16_t flags, const ProtobufCMessage *body,
             const slice *frame)
{
    struct wire_msg m = message(a, type, flags);
    if (frame) {
        m.frames[0] = *frame;
        m.n_frames = 1;
    }
    int e = send(a, &m, body);
    if (e < 0)
        a->sequence--;
    return e;
}

void ask_cancel(struct ask *a, const char *reason)
{
    if (!a->request)
        return;
    tell_cancel(a, reason);
    calls_cancel(a->g->calls, a->request);
    closed(a);
}

int ask_unpack(arena *a, const ProtobufCMessageDescriptor *d, const struct wire_msg *m, void **out)
{
    return pb_unpack(a, d, m->body, WIRE_BODY_MAX, out, NULL);
}

/* ---- calls whose answer nobody waits for ---- */

struct orphan {
    struct ask ask;
    struct list link; /* in gw.orphans */
};

static void orphan_free(struct orphan *o)
{
    list_remove(&o->link);
    free(o);
}

static void on_orphan_done(struct ask *a, int err UNUSED, const struct wire_msg *m UNUSED,
                           const struct why *w UNUSED)
{
    orphan_free(CONTAINER_OF(a, struct orphan, ask));
}

void ask_and_forget(gw *g, struct worker *w, const ProtobufCMessage *body, const slice *frames,
                    size_t n_frames)
{
    if (!w)
        return;
    struct orphan *o = xcalloc(1, sizeof *o);
    o->ask = (struct ask){.g = g, .done = on_orphan_done};
    list_append(&g->orphans, &o->link);
    if (ask_send(&o->ask, w, body, frames, n_frames, CACHE_CALL_MS) < 0)
        orphan_free(o);
}

void ask_free_orphans(gw *g)
{
    LIST_EACH(it, &g->orphans)
    orphan_free(CONTAINER_OF(it, struct orphan, link));
}
