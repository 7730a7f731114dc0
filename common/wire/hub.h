/* The bound side of the protocol: peers that connect, say READY, and live until they fall silent or
 * say BYE. Loop thread only. Used by gateway (for workers) and cache-svc (for those who store and
 * fetch). */
#ifndef NUNCHI_HUB_H
#define NUNCHI_HUB_H

#include "common/wire/bus.h"
#include "proto/session.pb-c.h"

typedef struct hub hub;
typedef struct hub_peer hub_peer;

#define HUB_PEERS_MAX 4096 /* beyond: BYE "full" */

struct hub_config {
    const char *endpoint;
    uint32_t heartbeat_ms;      /* 0: 500 */
    uint32_t silent_ms;         /* a peer not heard of for so long is gone; 0: 2000 */
    const Nunchi__Ready *ready; /* what we say of ourselves; copied */
    void *ctx;
    void (*up)(void *ctx, hub_peer *p); /* its first READY */
    void (*changed)(void *ctx, hub_peer *p,
                    bool ready); /* a later READY (ready), or a HEARTBEAT; NULL: not wanted */
    void (*down)(void *ctx, hub_peer *p, const char *reason); /* p is freed after the call */
    /* REQUEST, CHUNK, DONE, ERROR, CANCEL, CREDIT of a peer that is up. */
    void (*msg)(void *ctx, hub_peer *p, const struct wire_msg *m);
    /* Fills the HEARTBEAT for this peer (slots granted to it, load); NULL: zeros. */
    void (*heartbeat)(void *ctx, hub_peer *p, Nunchi__Heartbeat *out);
};

int hub_new(bus *b, loop *l, const struct hub_config *cfg, hub **out, struct why *w) MUST_USE;
void hub_free(hub *h); /* says BYE "drain" to all */
const char *hub_endpoint(hub *h);
void hub_set_ready(hub *h, const Nunchi__Ready *ready); /* sent to all peers */
size_t hub_n_peers(const hub *h);
hub_peer *hub_next(hub *h, hub_peer *after); /* walks; NULL starts and ends */

uint64_t hub_peer_id(const hub_peer *p); /* unique in this process, never reused */
hub_peer *hub_find(hub *h, uint64_t id); /* NULL when gone */
const Nunchi__Ready *hub_peer_ready(const hub_peer *p);
const Nunchi__Heartbeat *hub_peer_heartbeat(const hub_peer *p); /* zeros before the first */

/* As bus_send. ERR_UNAVAILABLE means the peer is gone: `down` follows soon (not inside this call).
 */
int hub_send(hub *h, hub_peer *p, const struct wire_msg *m) MUST_USE;
/* A heartbeat now to peers that hold our requests: an unroutable one is found out in this call's
 * wake. */
void hub_probe(hub *h, hub_peer *p);

#endif
