/* Who can do what: the table of connected workers, and the choice among them. Pure; one thread. */
#ifndef NUNCHI_GATEWAY_ROUTE_H
#define NUNCHI_GATEWAY_ROUTE_H

#include "common/base/arena.h"
#include "common/base/list.h"
#include "proto/session.pb-c.h"

enum service { SERVICE_TOKENIZER, SERVICE_VIDEO, SERVICE_MODEL, SERVICE_CACHE, SERVICES };

struct worker {
    struct list link;
    uint64_t peer;
    enum service service;
    arena *a;
    const Nunchi__Ready *ready; /* own copy */
    uint32_t slots;             /* the newest word on it */
    uint32_t load;              /* running and queued there, of all gateways */
    uint32_t open;              /* our requests there */
    bool draining;
    uint64_t busy_until_us; /* it said BUSY */
    uint64_t alone; /* the job that runs there without others, as far as we can have it; 0: none */
    uint32_t running;  /* as it says */
    uint64_t steps;    /* as it says; 0: it does not */
    uint64_t moved_us; /* when steps was last another number, or nothing ran */
    uint64_t short_us; /* since when it has had fewer requests of ours, or given them less credit,
                          than we count; 0: it agrees */
    uint32_t parked;   /* our requests there that we let wait for credit */
    bool stuck;        /* it does not move: no requests until it does */
};

typedef struct route route;

route *route_new(void);
void route_free(route *r);
/* NULL: a service that the gateway has no use for. */
struct worker *route_up(route *r, uint64_t peer, const Nunchi__Ready *ready);
void route_changed(struct worker *w, uint64_t now_us, const Nunchi__Ready *ready,
                   const Nunchi__Heartbeat *h);
void route_down(route *r, uint64_t peer);
struct worker *route_find(route *r, uint64_t peer);
struct worker *route_next(route *r, struct worker *after); /* walks; NULL starts and ends */

/* NULL if w does not have it. name empty: any. */
const Nunchi__ModelInfo *worker_model(const struct worker *w, slice name);
/* Up and not draining; model empty: any. */
bool route_any(route *r, enum service s, slice model);
/* The least loaded with a free slot; NULL: none now. */
struct worker *route_pick(route *r, uint64_t now_us, enum service s, slice model);

struct route_wish {
    slice model;
    slice numerics;        /* 32 bytes: of the worker that began; empty: any */
    const uint8_t *hashes; /* n_blocks x 32, chained: those of the prompt */
    size_t n_blocks;
};
/* Weighs how much of the prompt a worker has lately seen against its load. */
struct worker *route_pick_model(route *r, uint64_t now_us, const struct route_wish *q);
/* Remembers that these blocks are at w now. */
void route_placed(route *r, const struct worker *w, const struct route_wish *q);
/* The cache that holds the key, the same one for every gateway. */
struct worker *route_cache(route *r, slice key);

#endif
