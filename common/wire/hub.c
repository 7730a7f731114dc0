#include "common/wire/hub.h"

#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/wire/session.h"

/* A peer that said BYE "drain" closes when its last request has ended: it is asked so often whether
 * it is still there. */
#define LEAVING_PROBE_US 50000

struct hub_peer {
    struct list link;
    hub *h;
    uint64_t id;
    slice route; /* the routing id, in route_bytes */
    char *route_bytes;
    struct session other;
    const char *gone; /* why it will be taken down; NULL: it is up */
    bool leaving;     /* said BYE "drain" */
};

struct hub {
    loop *l;
    bus_sock *sock;
    struct hub_config cfg; /* its ready is not kept: see ready_body */
    buf ready_body, beat_body;
    struct list peers; /* in order of arrival */
    map *by_route, *by_id;
    uint64_t last_id;
    struct loop_timer beat, reap, probe;
    struct session_tick tick;
};

/* ---- peers
 * --------------------------------------------------------------------------------------------------------
 */

static void unlink_peer(hub_peer *p)
{
    map_del(p->h->by_route, p->route);
    map_del_u64(p->h->by_id, p->id);
    list_remove(&p->link);
}

static void free_peer(hub_peer *p)
{
    session_clear(&p->other);
    free(p->route_bytes);
    free(p);
}

static void take_down(hub_peer *p)
{
    hub *h = p->h;
    const Nunchi__Ready *r = p->other.ready;
    log_info("peer down", LOG_STR("service", r->service), LOG_STR("instance", r->instance),
             LOG_STR("reason", p->gone), LOG_U64("peer", p->id));
    unlink_peer(p); /* before the callback: nothing that it calls finds this peer any more */
    if (h->cfg.down)
        h->cfg.down(h->cfg.ctx, p, p->gone);
    free_peer(p);
}

static void reap(void *ctx)
{
    hub *h = ctx;
    for (;;) { /* from the start each time: a callback may have changed the list */
        hub_peer *found = NULL;
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): take_down has unlinked what it freed
        LIST_EACH(it, &h->peers)
        {
            hub_peer *p = CONTAINER_OF(it, hub_peer, link);
            if (p->gone && !found)
                found = p;
        }
        if (!found)
            return;
        take_down(found);
    }
}

/* Not taken down at once: the caller may stand inside a callback that still uses the peer. */
static void mark_gone(hub_peer *p, const char *reason)
{
    if (p->gone)
        return;
    p->gone = reason;
    loop_timer_in(p->h->l, &p->h->reap, 0);
}

static void send_or_lose(hub_peer *p, int type, slice body)
{
    if (!p->gone && session_send(p->h->sock, p->route, type, body) == ERR_UNAVAILABLE)
        mark_gone(p, p->leaving ? "drain" : "disconnected");
}

static hub_peer *add_peer(hub *h, slice route)
{
    hub_peer *p = xcalloc(1, sizeof *p);
    p->h = h;
    p->id = ++h->last_id;
    p->route_bytes = slice_dup(route);
    p->route = (slice){p->route_bytes, route.n};
    list_append(&h->peers, &p->link);
    map_put(h->by_route, p->route, p);
    map_put_u64(h->by_id, p->id, p);
    return p;
}

/* ---- what comes in
 * --------------------------------------------------------------------------------------------------
 */

static void bye(hub *h, slice route, const char *reason)
{
    if (session_send_bye(h->sock, route, reason) < 0)
        log_debug("a stranger left before it could be answered", LOG_STR("bye", reason));
}

static void greet(hub *h, slice route, slice body)
{
    struct session other = {0};
    int e = session_take_ready(&other, body);
    if (e < 0 || map_len(h->by_id) >= HUB_PEERS_MAX) {
        const char *reason = e == ERR_UNSUPPORTED ? "version" : e < 0 ? "bye" : "full";
        log_warn("peer refused", LOG_STR("reason", reason));
        bye(h, route, reason);
        session_clear(&other);
        return;
    }
    hub_peer *p = add_peer(h, route);
    p->other = other;
    p->other.heard_us = clock_mono_us();
    log_info("peer up", LOG_STR("service", other.ready->service),
             LOG_STR("instance", other.ready->instance), LOG_STR("version", other.ready->version),
             LOG_U64("peer", p->id));
    send_or_lose(p, WIRE_READY, buf_slice(&h->ready_body));
    if (h->cfg.up)
        h->cfg.up(h->cfg.ctx, p);
}

static void from_stranger(hub *h, slice route, const struct wire_msg *m)
{
    if (m->head.type == WIRE_READY)
        greet(h, route, m->body);
    else if (m->head.type != WIRE_BYE)
        bye(h, route, "who");
}

/* A peer that leaves takes nothing new, whatever its heartbeats say. */
static void hold_leaving(hub_peer *p)
{
    if (!p->leaving)
        return;
    p->other.beat.draining = true;
    p->other.beat.slots = 0;
}

static void changed(hub_peer *p, bool ready)
{
    hold_leaving(p);
    if (p->h->cfg.changed)
        p->h->cfg.changed(p->h->cfg.ctx, p, ready);
}

static void on_bye(hub_peer *p, slice body)
{
    const char *reason = session_bye_reason(body);
    if (strcmp(reason, "who") == 0) {
        send_or_lose(p, WIRE_READY, buf_slice(&p->h->ready_body));
    } else if (strcmp(reason, "drain") == 0) {
        p->leaving = true;
        loop_timer_in(p->h->l, &p->h->probe, LEAVING_PROBE_US);
        changed(p, false);
    } else {
        mark_gone(p, reason);
    }
}

/* What was lost with a damaged message may be an end, a credit, a cancel: both sides begin anew
 * instead. */
static void on_damage(hub_peer *p)
{
    bye(p->h, p->route, "damaged");
    mark_gone(p, "damaged");
}

static void on_msg(void *ctx, bus_sock *s UNUSED, slice route, const struct wire_msg *m)
{
    hub *h = ctx;
    hub_peer *p = map_get(h->by_route, route);
    if (!p) {
        if (m)
            from_stranger(h, route, m);
        return;
    }
    if (p->gone)
        return;
    if (!m) {
        on_damage(p);
        return;
    }
    p->other.heard_us = clock_mono_us();
    switch (m->head.type) {
    case WIRE_READY:
        if (session_take_ready(&p->other, m->body) == 0)
            changed(p, true);
        break;
    case WIRE_HEARTBEAT:
        if (session_take_heartbeat(&p->other, m->body) == 0)
            changed(p, false);
        break;
    case WIRE_BYE:
        on_bye(p, m->body);
        break;
    default:
        if (h->cfg.msg)
            h->cfg.msg(h->cfg.ctx, p, m);
    }
}

/* ---- heartbeats
 * ------------------------------------------------------------------------------------------------------
 */

static void beat_peer(hub_peer *p)
{
    hub *h = p->h;
    Nunchi__Heartbeat hb = NUNCHI__HEARTBEAT__INIT;
    if (p->gone)
        return;
    if (h->cfg.heartbeat)
        h->cfg.heartbeat(h->cfg.ctx, p, &hb);
    buf_reset(&h->beat_body);
    pb_pack(&hb.base, &h->beat_body);
    send_or_lose(p, WIRE_HEARTBEAT, buf_slice(&h->beat_body));
}

static void on_beat(void *ctx)
{
    hub *h = ctx;
    uint64_t now = clock_mono_us(), late = session_tick_late(&h->tick, now);
    loop_timer_in(h->l, &h->beat, h->tick.every_us);
    LIST_EACH(it, &h->peers)
    {
        hub_peer *p = CONTAINER_OF(it, hub_peer, link);
        p->other.heard_us += late;
        if (now > p->other.heard_us && now - p->other.heard_us > (uint64_t)h->cfg.silent_ms * 1000)
            mark_gone(p, "silent");
        else
            beat_peer(p);
    }
}

static void on_probe(void *ctx)
{
    hub *h = ctx;
    bool again = false;
    LIST_EACH(it, &h->peers)
    {
        hub_peer *p = CONTAINER_OF(it, hub_peer, link);
        if (!p->leaving || p->gone)
            continue;
        beat_peer(p);
        again = true;
    }
    if (again)
        loop_timer_in(h->l, &h->probe, LEAVING_PROBE_US);
}

void hub_probe(hub *h, hub_peer *p)
{
    if (p) {
        beat_peer(p);
        return;
    }
    LIST_EACH(it, &h->peers)
    beat_peer(CONTAINER_OF(it, hub_peer, link));
}

/* ---- the hub
 * ---------------------------------------------------------------------------------------------------------
 */

int hub_new(bus *b, loop *l, const struct hub_config *cfg, hub **out, struct why *w)
{
    hub *h = xcalloc(1, sizeof *h);
    *out = NULL;
    h->l = l;
    h->cfg = *cfg;
    h->cfg.endpoint = NULL; /* borrowed for this call only */
    h->cfg.ready = NULL;
    h->cfg.silent_ms = cfg->silent_ms ? cfg->silent_ms : SESSION_SILENT_MS;
    h->tick.every_us = (uint64_t)(cfg->heartbeat_ms ? cfg->heartbeat_ms : SESSION_BEAT_MS) * 1000;
    h->beat = (struct loop_timer){.fn = on_beat, .ctx = h};
    h->reap = (struct loop_timer){.fn = reap, .ctx = h};
    h->probe = (struct loop_timer){.fn = on_probe, .ctx = h};
    list_init(&h->peers);
    h->by_route = map_new();
    h->by_id = map_new();
    session_pack_ready(cfg->ready, &h->ready_body);
    int e = bus_bind(b, cfg->endpoint, on_msg, h, &h->sock, w);
    if (e < 0) {
        hub_free(h);
        return e;
    }
    loop_timer_in(l, &h->beat, h->tick.every_us);
    *out = h;
    return 0;
}

void hub_free(hub *h)
{
    if (!h)
        return;
    for (struct list *it; (it = list_pop(&h->peers));) {
        hub_peer *p = CONTAINER_OF(it, hub_peer, link);
        if (!p->gone)
            bye(h, p->route, "drain");
        unlink_peer(p);
        free_peer(p);
    }
    bus_close(h->sock);
    loop_timer_cancel(h->l, &h->beat);
    loop_timer_cancel(h->l, &h->reap);
    loop_timer_cancel(h->l, &h->probe);
    map_free(h->by_route);
    map_free(h->by_id);
    buf_clear(&h->ready_body);
    buf_clear(&h->beat_body);
    free(h);
}

const char *hub_endpoint(hub *h)
{
    return bus_endpoint(h->sock);
}

void hub_set_ready(hub *h, const Nunchi__Ready *ready)
{
    session_pack_ready(ready, &h->ready_body);
    LIST_EACH(it, &h->peers)
    send_or_lose(CONTAINER_OF(it, hub_peer, link), WIRE_READY, buf_slice(&h->ready_body));
}

size_t hub_n_peers(const hub *h)
{
    return map_len(h->by_id);
}

hub_peer *hub_next(hub *h, hub_peer *after)
{
    struct list *it = after ? after->link.next : h->peers.next;
    while (it != &h->peers && CONTAINER_OF(it, hub_peer, link)->gone)
        it = it->next;
    return it == &h->peers ? NULL : CONTAINER_OF(it, hub_peer, link);
}

uint64_t hub_peer_id(const hub_peer *p)
{
    return p->id;
}

hub_peer *hub_find(hub *h, uint64_t id)
{
    hub_peer *p = map_get_u64(h->by_id, id);
    return p && !p->gone ? p : NULL;
}

const Nunchi__Ready *hub_peer_ready(const hub_peer *p)
{
    return p->other.ready;
}

const Nunchi__Heartbeat *hub_peer_heartbeat(const hub_peer *p)
{
    return &p->other.beat;
}

int hub_send(hub *h, hub_peer *p, const struct wire_msg *m)
{
    if (p->gone)
        return ERR_UNAVAILABLE;
    int e = bus_send(h->sock, p->route, m);
    if (e == ERR_UNAVAILABLE)
        mark_gone(p, p->leaving ? "drain" : "disconnected");
    return e;
}
