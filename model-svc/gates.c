#include "model-svc/gates.h"

#include "common/base/list.h"
#include "common/base/log.h"

/* What a gateway's full socket holds back here, at most; one that does not read that long has lost
 * its requests. */
#define PENDING_BYTES_MAX (32u << 20)
#define PENDING_RETRY_US 2000

/* A gateway while its link is up. */
struct gate {
    struct list pending; /* struct parcel: what its socket had no room for, in order */
    size_t pending_bytes;
};

struct parcel {
    struct list link;
    struct wire_head head;
    buf body;
};

static void forget_pending(struct gate *g)
{
    LIST_EACH(it, &g->pending)
    {
        struct parcel *p = CONTAINER_OF(it, struct parcel, link);
        list_remove(it);
        buf_clear(&p->body);
        free(p);
    }
    g->pending_bytes = 0;
}

static int send_now(peer_link *k, const struct wire_head *h, slice body)
{
    struct wire_msg m = {.head = *h, .body = body};
    return link_send(k, &m);
}

/* True when nothing is left waiting. */
static bool send_pending(peer_link *k, struct gate *g)
{
    LIST_EACH(it, &g->pending)
    {
        struct parcel *p = CONTAINER_OF(it, struct parcel, link);
        if (send_now(k, &p->head, buf_slice(&p->body)) == ERR_AGAIN)
            return false;
        g->pending_bytes -= p->body.n;
        list_remove(it);
        buf_clear(&p->body);
        free(p);
    }
    return true;
}

static void on_retry(void *ctx)
{
    struct gates *s = ctx;
    bool all = true;
    for (peer_link *k = links_next(s->ls, NULL); k; k = links_next(s->ls, k))
        all &= send_pending(k, link_get(k));
    if (!all)
        loop_timer_in(s->l, &s->retry, PENDING_RETRY_US);
}

static void put_off(struct gates *s, peer_link *k, struct gate *g, const struct wire_head *h,
                    slice body)
{
    if (g->pending_bytes + body.n > PENDING_BYTES_MAX) {
        log_warn("a gateway does not read its answers: its requests end",
                 LOG_STR("endpoint", link_endpoint(k)));
        forget_pending(g);
        s->lost(s->ctx, link_id(k));
        return;
    }
    struct parcel *p = xcalloc(1, sizeof *p);
    p->head = *h;
    buf_put_slice(&p->body, body);
    list_append(&g->pending, &p->link);
    g->pending_bytes += body.n;
    loop_timer_in(s->l, &s->retry, PENDING_RETRY_US);
}

/* Order is kept: while something waits for a gateway, what follows waits behind it. */
void gates_send(struct gates *s, uint64_t gateway, const struct wire_head *h, slice body)
{
    peer_link *k = links_find(s->ls, gateway);
    if (!k)
        return;
    struct gate *g = link_get(k);
    int err = ERR_AGAIN;
    if (send_pending(k, g))
        err = send_now(k, h, body);
    if (err == ERR_AGAIN)
        put_off(s, k, g, h, body);
    else if (err < 0)
        log_warn("cannot send", LOG_STR("endpoint", link_endpoint(k)),
                 LOG_STR("error", err_name(err)));
}

void gates_init(struct gates *s, loop *l, void (*lost)(void *ctx, uint64_t gateway), void *ctx)
{
    *s = (struct gates){.l = l, .ctx = ctx, .lost = lost, .retry = {.fn = on_retry, .ctx = s}};
}

void gates_clear(struct gates *s)
{
    loop_timer_cancel(s->l, &s->retry);
    for (peer_link *k = s->ls ? links_next(s->ls, NULL) : NULL; k; k = links_next(s->ls, k))
        gates_down(k);
}

void gates_up(peer_link *k)
{
    struct gate *g = xcalloc(1, sizeof *g);
    list_init(&g->pending);
    link_set(k, g);
}

void gates_down(peer_link *k)
{
    struct gate *g = link_get(k);
    if (g)
        forget_pending(g);
    free(g);
    link_set(k, NULL);
}
