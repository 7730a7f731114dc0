#include "common/wire/links.h"

#include "common/base/hash.h"
#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/wire/backlog.h"
#include "common/wire/resolve.h"
#include "common/wire/session.h"

#define RESOLVE_MS 3000
#define FLUSH_US 2000         /* while something waits for room in a socket */
#define TICKS_PER_BEAT 5      /* how often a link that is not up yet is looked at */
#define RESOLVE_POLL_US 10000 /* while names are being looked up */

enum link_state {
    LINK_CONNECTING, /* READY could not be sent yet */
    LINK_GREETING,   /* sent; theirs is awaited */
    LINK_UP,
};

struct peer_link {
    struct list link;
    links *ls;
    char endpoint[ADDRESS_TEXT];
    bus_sock *sock; /* NULL: could not be made, tried again */
    enum link_state state;
    uint64_t id, since_us, beat_us; /* since: in this state; beat: when the last was sent */
    struct session other;
    bool listed;  /* its address is still among the targets */
    bool leaving; /* the other side said BYE "drain" */
    void *user;
    struct backlog backlog;
    bool unread; /* its backlog was full */
};

struct links {
    bus *b;
    loop *l;
    struct links_config cfg;
    buf ready_body, beat_body;
    struct list all;
    uint64_t last_id, beat_us, silent_us;
    size_t n_links, n_up, n_targets;
    struct target targets[TARGETS_MAX];
    resolve *looking;
    struct loop_timer tick_timer, resolve_timer, flush_timer;
    struct session_tick tick;
    bool said_failed, has_names;
};

static void on_msg(void *ctx, bus_sock *s, slice peer, const struct wire_msg *m);

/* ---- one link
 * ---------------------------------------------------------------------------------------------------------
 */

static void set_state(peer_link *k, enum link_state state)
{
    k->state = state;
    k->since_us = clock_mono_us();
}

static void greet(peer_link *k)
{
    if (k->sock &&
        session_send(k->sock, slice_str(""), WIRE_READY, buf_slice(&k->ls->ready_body)) == 0)
        set_state(k, LINK_GREETING);
}

/* A fresh socket: what was queued in the old one belonged to a connection that is over. */
static int reconnect(peer_link *k, struct why *w)
{
    bus_close(k->sock);
    k->sock = NULL;
    set_state(k, LINK_CONNECTING);
    int e = bus_connect(k->ls->b, k->endpoint, on_msg, k, &k->sock, w);
    if (e == 0)
        greet(k);
    return e;
}

static void lost(peer_link *k, const char *reason)
{
    links *ls = k->ls;
    if (k->state != LINK_UP)
        return;
    log_info("link down", LOG_STR("endpoint", k->endpoint), LOG_STR("reason", reason),
             LOG_U64("link", k->id));
    set_state(k, LINK_CONNECTING);
    ls->n_up--;
    k->leaving = false;
    if (ls->cfg.down)
        ls->cfg.down(ls->cfg.ctx, k, reason);
    k->user = NULL;
    k->unread = false;
    backlog_clear(&k->backlog);
    session_clear(&k->other);
}

static void drop_link(peer_link *k)
{
    lost(k, "address gone");
    list_remove(&k->link);
    k->ls->n_links--;
    bus_close(k->sock);
    free(k);
}

static int add_link(links *ls, const char *endpoint, struct why *w)
{
    if (ls->n_links >= LINKS_MAX)
        return why_set(w, ERR_TOO_BIG, "targets", "more than %d addresses", LINKS_MAX);
    peer_link *k = xcalloc(1, sizeof *k);
    k->ls = ls;
    k->listed = true;
    backlog_init(&k->backlog);
    memcpy(k->endpoint, endpoint, strlen(endpoint) + 1);
    list_append(&ls->all, &k->link);
    ls->n_links++;
    int e = reconnect(k, w);
    if (e < 0)
        drop_link(k);
    return e;
}

/* ---- what comes in
 * ------------------------------------------------------------------------------------------------------
 */

static void changed(peer_link *k)
{
    if (k->leaving) {
        k->other.beat.draining = true;
        k->other.beat.slots = 0;
    }
    if (k->ls->cfg.changed)
        k->ls->cfg.changed(k->ls->cfg.ctx, k);
}

static void came_up(peer_link *k)
{
    links *ls = k->ls;
    const Nunchi__Ready *r = k->other.ready;
    set_state(k, LINK_UP);
    k->id = ++ls->last_id;
    k->beat_us = 0;
    ls->n_up++;
    log_info("link up", LOG_STR("endpoint", k->endpoint), LOG_STR("service", r->service),
             LOG_STR("instance", r->instance), LOG_STR("version", r->version),
             LOG_U64("link", k->id));
    if (ls->cfg.up)
        ls->cfg.up(ls->cfg.ctx, k);
}

static void on_ready(peer_link *k, slice body)
{
    if (k->state == LINK_CONNECTING)
        return; /* an answer to a READY that was said on behalf of an earlier connection */
    struct session other = {.heard_us = clock_mono_us()};
    int e = session_take_ready(&other, body);
    if (e < 0) {
        log_warn("READY not understood", LOG_STR("endpoint", k->endpoint),
                 LOG_STR("error", err_name(e)));
        session_clear(&other);
        return;
    }
    bool was_up = k->state == LINK_UP;
    if (was_up && strcmp(k->other.ready->instance, other.ready->instance) != 0) {
        lost(k, "restarted");
        was_up = false;
    }
    session_clear(&k->other);
    k->other = other;
    if (was_up)
        changed(k);
    else
        came_up(k);
}

/* A new connection, at the next tick and not at once: a way on which everything is damaged shall
 * not keep us busy. */
static void give_up(peer_link *k, const char *reason)
{
    lost(k, reason);
    bus_close(k->sock);
    k->sock = NULL;
    set_state(k, LINK_CONNECTING);
    k->since_us -= k->ls->silent_us;
}

/* The other side learns why, so that it does not take us for dead. */
static void on_damage(peer_link *k)
{
    if (k->state == LINK_UP && session_send_bye(k->sock, slice_str(""), "damaged") < 0)
        log_debug("left without a good-bye", LOG_STR("endpoint", k->endpoint));
    give_up(k, "damaged");
}

static void on_bye(peer_link *k, slice body)
{
    const char *reason = session_bye_reason(body);
    if (strcmp(reason, "who") == 0) {
        if (k->state != LINK_UP)
            return; /* our READY is under way already */
        lost(k, "restarted");
        greet(k);
    } else if (strcmp(reason, "drain") == 0) {
        if (k->state != LINK_UP)
            return;
        k->leaving = true;
        changed(k);
    } else if (strcmp(reason, "damaged") == 0) {
        give_up(k, reason);
    } else {
        log_warn("refused by the other side", LOG_STR("endpoint", k->endpoint),
                 LOG_STR("reason", reason));
        lost(k, reason);
        set_state(
            k, LINK_GREETING); /* it may think otherwise later: a new connection after silent_ms */
    }
}

static void on_msg(void *ctx, bus_sock *s UNUSED, slice peer UNUSED, const struct wire_msg *m)
{
    peer_link *k = ctx;
    if (!m) {
        on_damage(k);
        return;
    }
    k->other.heard_us = clock_mono_us();
    switch (m->head.type) {
    case WIRE_READY:
        on_ready(k, m->body);
        break;
    case WIRE_HEARTBEAT:
        if (k->state == LINK_UP && session_take_heartbeat(&k->other, m->body) == 0)
            changed(k);
        break;
    case WIRE_BYE:
        on_bye(k, m->body);
        break;
    default:
        if (k->state == LINK_UP && k->ls->cfg.msg)
            k->ls->cfg.msg(k->ls->cfg.ctx, k, m); /* the last thing here: it may free the links */
    }
}

/* ---- heartbeats
 * ----------------------------------------------------------------------------------------------------------
 */

static int beat(peer_link *k, uint64_t now)
{
    links *ls = k->ls;
    Nunchi__Heartbeat hb = NUNCHI__HEARTBEAT__INIT;
    if (ls->cfg.heartbeat)
        ls->cfg.heartbeat(ls->cfg.ctx, k, &hb);
    buf_reset(&ls->beat_body);
    pb_pack(&hb.base, &ls->beat_body);
    k->beat_us = now;
    return session_send(k->sock, slice_str(""), WIRE_HEARTBEAT, buf_slice(&ls->beat_body));
}

static void renew(peer_link *k, const char *reason)
{
    struct why w;
    lost(k, reason);
    if (reconnect(k, &w) < 0)
        log_warn("cannot connect", LOG_STR("endpoint", k->endpoint), LOG_STR("why", w.text));
}

static void look_after(peer_link *k, uint64_t now)
{
    links *ls = k->ls;
    uint64_t here = now - k->since_us;
    if (!k->listed && k->state != LINK_UP) {
        drop_link(k); /* one that is up stays while it lives, whatever the name server says */
        return;
    }
    switch (k->state) {
    case LINK_CONNECTING:
        if (!k->sock && here >= ls->silent_us)
            renew(k, "");
        else
            greet(k);
        break;
    case LINK_GREETING:
        if (here > ls->silent_us)
            renew(k, "");
        break;
    case LINK_UP:
        if (now > k->other.heard_us && now - k->other.heard_us > ls->silent_us)
            renew(k, k->leaving ? "drain" : "silent");
        else if ((k->leaving || now - k->beat_us >= ls->beat_us) && beat(k, now) < 0 && k->leaving)
            renew(k, "drain"); /* said good-bye, and its connection is gone */
        break;
    }
}

static void on_tick(void *ctx)
{
    links *ls = ctx;
    uint64_t now = clock_mono_us(), late = session_tick_late(&ls->tick, now);
    loop_timer_in(ls->l, &ls->tick_timer, ls->tick.every_us);
    LIST_EACH(it, &ls->all)
    {
        peer_link *k = CONTAINER_OF(it, peer_link, link);
        k->other.heard_us += late;
        k->since_us += k->since_us + late <= now ? late : 0;
        look_after(k, now);
    }
}

void links_beat(links *ls)
{
    for (peer_link *k = links_next(ls, NULL); k; k = links_next(ls, k))
        if (beat(k, clock_mono_us()) < 0)
            log_debug("heartbeat not sent", LOG_STR("endpoint", k->endpoint));
}

/* ---- what must arrive ---- */

static int send_msg(void *link, const struct wire_msg *m)
{
    return bus_send(((peer_link *)link)->sock, slice_str(""), m);
}

static void on_flush(void *ctx)
{
    links *ls = ctx;
    bool more = false;
    LIST_EACH(it, &ls->all)
    {
        peer_link *k = CONTAINER_OF(it, peer_link, link);
        if (k->state != LINK_UP)
            continue;
        if (k->unread) {
            log_warn("the other side does not read: given up", LOG_STR("endpoint", k->endpoint));
            give_up(k, "unread");
            continue;
        }
        backlog_flush(&k->backlog, send_msg, k);
        more |= !backlog_empty(&k->backlog);
    }
    if (more)
        loop_timer_in(ls->l, &ls->flush_timer, FLUSH_US);
}

/* ---- addresses
 * ------------------------------------------------------------------------------------------------------------
 */

static void take_addresses(links *ls, const struct addresses *a)
{
    struct why w;
    LIST_EACH(it, &ls->all)
    CONTAINER_OF(it, peer_link, link)->listed = a->failed; /* an incomplete answer removes nobody */
    for (size_t i = 0; i < a->n; i++) {
        peer_link *found = NULL;
        LIST_EACH(it, &ls->all)
        {
            peer_link *k = CONTAINER_OF(it, peer_link, link);
            if (strcmp(k->endpoint, a->list[i].endpoint) == 0)
                found = k;
        }
        if (found)
            found->listed = true;
        else if (add_link(ls, a->list[i].endpoint, &w) < 0)
            log_warn("cannot connect", LOG_STR("endpoint", a->list[i].endpoint),
                     LOG_STR("why", w.text));
    }
    if (a->failed && !ls->said_failed)
        log_warn("a target's name cannot be looked up; trying again", LOG_STR("why", a->why));
    if (!a->failed && ls->said_failed)
        log_info("all names of targets can be looked up again");
    ls->said_failed = a->failed;
}

static void on_resolve(void *ctx)
{
    links *ls = ctx;
    if (!ls->looking)
        ls->looking = resolve_start(ls->targets, ls->n_targets);
    const struct addresses *a = ls->looking ? resolve_result(ls->looking) : NULL;
    if (a) {
        take_addresses(ls, a);
        resolve_free(ls->looking);
        ls->looking = NULL;
    }
    loop_timer_in(ls->l, &ls->resolve_timer,
                  ls->looking ? RESOLVE_POLL_US : (uint64_t)ls->cfg.resolve_ms * 1000);
}

/* What can be known at once is an error at once: keys that are missing, and final addresses that
 * cannot be connected to. */
static int first_links(links *ls, struct why *w)
{
    int e = 0;
    for (size_t i = 0; i < ls->n_targets && e == 0; i++) {
        const struct target *t = &ls->targets[i];
        e = bus_may_connect(ls->b, t->endpoint, w);
        if (e == 0 && t->host[0])
            ls->has_names = true;
    }
    if (e < 0 || ls->has_names)
        return e;
    struct addresses *a = xcalloc(1, sizeof *a);
    for (size_t i = 0; i < ls->n_targets; i++)
        memcpy(a->list[a->n++].endpoint, ls->targets[i].endpoint, ADDRESS_TEXT);
    take_addresses(ls, a);
    free(a);
    return 0;
}

/* ---- all of them
 * ------------------------------------------------------------------------------------------------------------
 */

int links_new(bus *b, loop *l, const struct links_config *cfg, links **out, struct why *w)
{
    links *ls = xcalloc(1, sizeof *ls);
    *out = NULL;
    ls->b = b;
    ls->l = l;
    ls->cfg = *cfg;
    ls->cfg.targets = NULL; /* borrowed for this call only */
    ls->cfg.ready = NULL;
    ls->cfg.resolve_ms = cfg->resolve_ms ? cfg->resolve_ms : RESOLVE_MS;
    ls->beat_us = (uint64_t)(cfg->heartbeat_ms ? cfg->heartbeat_ms : SESSION_BEAT_MS) * 1000;
    ls->silent_us = (uint64_t)(cfg->silent_ms ? cfg->silent_ms : SESSION_SILENT_MS) * 1000;
    ls->tick.every_us = ls->beat_us / TICKS_PER_BEAT;
    ls->tick_timer = (struct loop_timer){.fn = on_tick, .ctx = ls};
    ls->flush_timer = (struct loop_timer){.fn = on_flush, .ctx = ls};
    ls->resolve_timer = (struct loop_timer){.fn = on_resolve, .ctx = ls};
    list_init(&ls->all);
    session_pack_ready(cfg->ready, &ls->ready_body);
    int e = targets_parse(cfg->targets, ls->targets, w);
    if (e >= 0) {
        ls->n_targets = (size_t)e;
        e = first_links(ls, w);
    }
    if (e < 0) {
        links_free(ls);
        return e;
    }
    loop_timer_in(l, &ls->tick_timer, ls->tick.every_us);
    if (ls->has_names)
        on_resolve(ls);
    *out = ls;
    return 0;
}

void links_free(links *ls)
{
    if (!ls)
        return;
    for (struct list *it; (it = list_pop(&ls->all));) {
        peer_link *k = CONTAINER_OF(it, peer_link, link);
        backlog_flush(&k->backlog, send_msg, k);
        backlog_clear(&k->backlog);
        if (k->state == LINK_UP && session_send_bye(k->sock, slice_str(""), "drain") < 0)
            log_debug("left without a good-bye", LOG_STR("endpoint", k->endpoint));
        session_clear(&k->other);
        bus_close(k->sock);
        free(k);
    }
    loop_timer_cancel(ls->l, &ls->tick_timer);
    loop_timer_cancel(ls->l, &ls->resolve_timer);
    loop_timer_cancel(ls->l, &ls->flush_timer);
    resolve_free(ls->looking);
    buf_clear(&ls->ready_body);
    buf_clear(&ls->beat_body);
    free(ls);
}

void links_set_ready(links *ls, const Nunchi__Ready *ready)
{
    session_pack_ready(ready, &ls->ready_body);
    LIST_EACH(it, &ls->all)
    {
        peer_link *k = CONTAINER_OF(it, peer_link, link);
        if (k->state != LINK_CONNECTING &&
            session_send(k->sock, slice_str(""), WIRE_READY, buf_slice(&ls->ready_body)) < 0)
            log_debug("READY not sent", LOG_STR("endpoint", k->endpoint));
    }
}

size_t links_n_up(const links *ls)
{
    return ls->n_up;
}

peer_link *links_next(links *ls, peer_link *after)
{
    struct list *it = after ? after->link.next : ls->all.next;
    while (it != &ls->all && CONTAINER_OF(it, peer_link, link)->state != LINK_UP)
        it = it->next;
    return it == &ls->all ? NULL : CONTAINER_OF(it, peer_link, link);
}

peer_link *links_holder(links *ls, slice key)
{
    peer_link *best = NULL;
    uint64_t most = 0;
    for (peer_link *k = links_next(ls, NULL); k; k = links_next(ls, k)) {
        uint64_t weight = hash_rendezvous(key, slice_str(link_ready(k)->instance));
        if (!best || weight > most) {
            best = k;
            most = weight;
        }
    }
    return best;
}

peer_link *links_find(links *ls, uint64_t id)
{
    for (peer_link *k = links_next(ls, NULL); k; k = links_next(ls, k))
        if (k->id == id)
            return k;
    return NULL;
}

uint64_t link_id(const peer_link *k)
{
    return k->id;
}

const char *link_endpoint(const peer_link *k)
{
    return k->endpoint;
}

const Nunchi__Ready *link_ready(const peer_link *k)
{
    return k->other.ready;
}

const Nunchi__Heartbeat *link_heartbeat(const peer_link *k)
{
    return &k->other.beat;
}

void link_set(peer_link *k, void *user)
{
    k->user = user;
}

void *link_get(const peer_link *k)
{
    return k->user;
}

int link_send(peer_link *k, const struct wire_msg *m)
{
    return k->state == LINK_UP ? send_msg(k, m) : ERR_UNAVAILABLE;
}

int link_post(peer_link *k, const struct wire_msg *m)
{
    if (k->state != LINK_UP || k->unread)
        return ERR_UNAVAILABLE;
    backlog_flush(&k->backlog, send_msg, k);
    int e = backlog_empty(&k->backlog) ? send_msg(k, m) : ERR_AGAIN;
    if (e != ERR_AGAIN)
        return e;
    k->unread = backlog_keep(&k->backlog, m) < 0;
    loop_timer_in(k->ls->l, &k->ls->flush_timer, FLUSH_US);
    return k->unread ? ERR_UNAVAILABLE : 0;
}
