/* The connecting side: one link to every address behind every target, looked up again every few
 * seconds, READY said on each, heartbeats both ways, a new connection when the other side falls
 * silent. Loop thread only (names are resolved on a thread of its own). Used by every worker
 * towards gateways, and by those who use cache-svc towards caches. */
#ifndef NUNCHI_LINKS_H
#define NUNCHI_LINKS_H

#include "common/wire/bus.h"
#include "proto/session.pb-c.h"

typedef struct links links;
typedef struct peer_link peer_link;

#define LINKS_MAX 256 /* addresses in all */

struct links_config {
    const char *targets; /* "gateway:5570, 10.0.0.7:5570, ipc:///run/x": hosts are resolved to every
                            address */
    uint32_t resolve_ms; /* 0: 3000 */
    uint32_t heartbeat_ms;      /* 0: 500 */
    uint32_t silent_ms;         /* 0: 2000 */
    const Nunchi__Ready *ready; /* copied */
    void *ctx;
    void (*up)(void *ctx, peer_link *k); /* the other side's READY came */
    void (*changed)(void *ctx, peer_link *k);
    void (*down)(void *ctx, peer_link *k,
                 const char *reason); /* requests from it are void; k is freed after, if its address
                                         went, or lives on reconnecting */
    void (*msg)(void *ctx, peer_link *k, const struct wire_msg *m);
    void (*heartbeat)(void *ctx, peer_link *k, Nunchi__Heartbeat *out);
};

int links_new(bus *b, loop *l, const struct links_config *cfg, links **out, struct why *w) MUST_USE;
void links_free(links *ls);                                  /* says BYE "drain" */
void links_set_ready(links *ls, const Nunchi__Ready *ready); /* sent again on all */
/* Tells each side its slots and load now rather than at the next beat. */
void links_beat(links *ls);
size_t links_n_up(const links *ls);
peer_link *links_next(links *ls,
                      peer_link *after); /* walks those that are up; NULL starts and ends */
/* The one that holds the key: the same for everybody who sees the same links (rendezvous hashing of
 * instances). NULL: none is up. */
peer_link *links_holder(links *ls, slice key);
peer_link *links_find(links *ls, uint64_t id); /* NULL when gone or down */

uint64_t link_id(const peer_link *k); /* changes with every reconnect: fences what belonged to the
                                         old connection */
const char *link_endpoint(const peer_link *k);
const Nunchi__Ready *link_ready(const peer_link *k); /* of the other side */
const Nunchi__Heartbeat *link_heartbeat(const peer_link *k);
void link_set(peer_link *k, void *user);
void *link_get(const peer_link *k);
int link_send(peer_link *k, const struct wire_msg *m) MUST_USE;
/* For what must arrive while the link is up: what the socket has no room for waits here, in order
 * (backlog.h). Do not mix with link_send on one link. A side that does not read until the backlog
 * is full is given up, soon, not within this call. */
int link_post(peer_link *k, const struct wire_msg *m) MUST_USE;

#endif
