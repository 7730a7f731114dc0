#include "common/wire/calls.h"

#include "common/base/map.h"
#include "common/base/timers.h"
#include "common/wire/pb.h"
#include "proto/session.pb-c.h"

#define ERROR_ARENA_BYTES ((size_t)256 << 10) /* an Error is at most WIRE_CONTROL_MAX packed */

struct open_call {
    struct call call;
    calls *owner;
    uint64_t request;
    uint64_t end_us, quiet_us; /* UINT64_MAX: never */
    struct loop_timer
        timer; /* may stand at an older, earlier deadline: looked at again when it fires */
};

struct calls {
    map *open; /* request id -> open_call */
    uint64_t last_id;
    struct timers timers;
    uint64_t now_us; /* of the running tick */
};

calls *calls_new(void)
{
    calls *c = xcalloc(1, sizeof *c);
    c->open = map_new();
    return c;
}

void calls_free(calls *c)
{
    if (!c)
        return;
    timers_clear(&c->timers);
    void *v;
    for (size_t it = 0; map_next(c->open, &it, NULL, &v);)
        free(v);
    map_free(c->open);
    free(c);
}

static uint64_t after(uint64_t now_us, uint32_t ms)
{
    return ms ? now_us + (uint64_t)ms * 1000 : UINT64_MAX;
}

static uint64_t due_us(const struct open_call *o)
{
    return o->end_us < o->quiet_us ? o->end_us : o->quiet_us;
}

static void forget(struct open_call *o)
{
    timers_cancel(&o->owner->timers, &o->timer);
    map_del_u64(o->owner->open, o->request);
    free(o);
}

/* Forgets first: the callback may open or cancel calls. */
static void finish(struct open_call *o, int err, const struct wire_msg *m, const struct why *why)
{
    struct call call = o->call;
    forget(o);
    call.done(call.ctx, err, m, why);
}

static void finish_because(struct open_call *o, int err, const char *sentence)
{
    struct why w;
    why_set(&w, err, "", "%s", sentence);
    finish(o, err, NULL, &w);
}

static void on_due(void *ctx)
{
    struct open_call *o = ctx;
    uint64_t due = due_us(o), now = o->owner->now_us;
    if (due > now)
        timers_set(&o->owner->timers, &o->timer, due);
    else
        finish_because(o, ERR_TIMEOUT,
                       o->end_us <= now ? "no answer in time" : "the answer stopped coming");
}

uint64_t calls_open(calls *c, uint64_t now_us, const struct call *call)
{
    struct open_call *o = xcalloc(1, sizeof *o);
    *o = (struct open_call){
        .call = *call,
        .owner = c,
        .request = ++c->last_id,
        .end_us = after(now_us, call->timeout_ms),
        .quiet_us = after(now_us, call->silence_ms),
        .timer = {.fn = on_due, .ctx = o},
    };
    map_put_u64(c->open, o->request, o);
    if (due_us(o) != UINT64_MAX)
        timers_set(&c->timers, &o->timer, due_us(o));
    return o->request;
}

/* What the peer says went wrong; its text is not ours, so it is made printable and cut. */
static int read_error(slice body, struct why *w)
{
    arena *a = arena_new(ERROR_ARENA_BYTES);
    void *v;
    int err = pb_unpack(a, &nunchi__error__descriptor, body, WIRE_CONTROL_MAX, &v, w);
    if (err == 0) {
        const Nunchi__Error *e = v;
        err = err_from_wire(e->code);
        buf text = {0};
        utf8_put_lossy(&text, pb_slice(e->message));
        size_t n = utf8_complete_len(text.p, text.n < WHY_TEXT_MAX ? text.n : WHY_TEXT_MAX - 1);
        why_set(w, err, e->param, "%.*s", (int)n, n ? text.p : "");
        buf_clear(&text);
    } else {
        err = ERR_PROTO;
    }
    arena_free(a);
    return err;
}

bool calls_msg(calls *c, uint64_t now_us, uint64_t peer, const struct wire_msg *m)
{
    struct open_call *o = map_get_u64(c->open, m->head.request);
    if (!o || o->call.peer != peer || m->head.attempt != 0)
        return false;
    struct why w = {0};
    switch (m->head.type) {
    case WIRE_CHUNK:
        if (!o->call.chunk) {
            finish_because(o, ERR_PROTO, "a chunk where none is due");
            return true;
        }
        o->quiet_us = after(now_us, o->call.silence_ms);
        o->call.chunk(o->call.ctx, m);
        return true;
    case WIRE_DONE:
        finish(o, 0, m, NULL);
        return true;
    case WIRE_ERROR:
        finish(o, read_error(m->body, &w), NULL, &w);
        return true;
    default:
        return false;
    }
}

void calls_peer_down(calls *c, uint64_t peer)
{
    size_t n = 0;
    uint64_t *ids = xcalloc(map_len(c->open) + 1, sizeof *ids);
    void *v;
    for (size_t it = 0; map_next(c->open, &it, NULL, &v);) {
        const struct open_call *o = v;
        if (o->call.peer == peer)
            ids[n++] = o->request;
    }
    for (size_t i = 0; i < n; i++) { /* a callback may have cancelled others of them */
        struct open_call *o = map_get_u64(c->open, ids[i]);
        if (o)
            finish_because(o, ERR_UNAVAILABLE, "the other side went away");
    }
    free(ids);
}

bool calls_cancel(calls *c, uint64_t request)
{
    struct open_call *o = map_get_u64(c->open, request);
    if (o)
        forget(o);
    return o != NULL;
}

uint64_t calls_tick(calls *c, uint64_t now_us)
{
    c->now_us = now_us;
    timers_run(&c->timers, now_us);
    return timers_next_us(&c->timers);
}

size_t calls_open_count(const calls *c)
{
    return map_len(c->open);
}
