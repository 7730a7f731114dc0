/* What goes to the gateways, each one's in order. What a gateway's full socket has no room for
 * waits here: the scheduler never waits for a gateway. One thread: the loop's. */
#ifndef NUNCHI_MODEL_GATES_H
#define NUNCHI_MODEL_GATES_H

#include "common/wire/links.h"

struct gates {
    loop *l;
    links *ls; /* set when there are links; borrowed */
    void *ctx;
    void (*lost)(void *ctx, uint64_t gateway); /* it does not read: what waited for it is dropped,
                                                  its requests should end */
    struct loop_timer retry;
};

void gates_init(struct gates *g, loop *l, void (*lost)(void *ctx, uint64_t gateway), void *ctx);
/* Before the links are freed. */
void gates_clear(struct gates *g);

/* For the links' up and down. */
void gates_up(peer_link *k);
void gates_down(peer_link *k);

/* Copies the body if it has to wait. Nothing happens when the gateway is gone. */
void gates_send(struct gates *g, uint64_t gateway, const struct wire_head *h, slice body);

#endif
