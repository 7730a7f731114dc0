/* Who can do what: the table of connected workers, and the choice among them. Pure; one thread. */
#ifndef NUNCHI_GATEWAY_ROUTE_H
#define NUNCHI_GATEWAY_ROUTE_H

#include "common/base/arena.h"
#include "common/base/list.h"
#include "proto/session.pb-c.h"

enum service { SERVICE_TOKENIZER, SERVICE_VIDEO, SERVICE_MODEL, SERVICE_CACHE, SERVICES };

/* How model workers are chosen. All but the first are there to be measured against it. */
enum route_policy { ROUTE_PREFIX, ROUTE_LEAST_LOADED, ROUTE_ROUND_ROBIN };

/* "prefix", "least-loaded", "round-robin"; ERR_INVALID. */
int route_policy_of(const char *name);

struct worker {
    struct list link;
    uint64_t peer;
    enum service service;
    arena *a;
    const Nunchi__Ready *ready; /* own copy */
    uint32_t slots;             /* the newest word on it */
    uint32_t others;            /* requests of other gateways there, when it last said */
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
    uint64_t shunned_until_us; /* it has failed again and again (route_failed) */
    uint32_t failures;         /* in a row, of different requests */
    uint64_t failed;           /* the last of them */
    /* Model workers, for the time that a prompt would take there. Rates: tokens per second,
     * measured there; 0: not yet. */
    uint32_t prefill_rate, decode_rate, fetch_rate;
    uint64_t queued_tokens; /* prompt tokens it has still to compute, as it said last */
    uint64_t sent_tokens;   /* that we have sent it since */
    uint64_t said_us;       /* when that was */
    uint32_t kv_blocks;     /* that it can hold; 0: it does not say */
    uint32_t placed_blocks; /* that we have sent it and it did not have, ever; wraps */
};

typedef struct route route;

route *route_new(enum route_policy policy);
void route_free(route *r);
/* NULL: a service that the gateway has no use for. */
struct worker *route_up(route *r, uint64_t peer, const Nunchi__Ready *ready);
void route_changed(route *r, struct worker *w, uint64_t now_us, const Nunchi__Ready *ready,
                   const Nunchi__Heartbeat *h);
void route_down(route *r, uint64_t peer);
struct worker *route_find(route *r, uint64_t peer);
struct worker *route_next(route *r, struct worker *after); /* walks; NULL starts and ends */

/* NULL if w does not have it. name empty: any. */
const Nunchi__ModelInfo *worker_model(const struct worker *w, slice name);

/* Of which workers, as in ModelInfo: the model's name, the digest of its file, the arithmetic.
 * Empty: any. A worker that does not say its weights matches all. */
struct route_kind {
    slice model, weights, numerics;
};
#define ROUTE_ANY ((struct route_kind){.model = {0}})
/* Up, not draining and not stuck. NULL: none. */
struct worker *route_any(route *r, enum service s, struct route_kind k);
/* The least loaded with a free slot; NULL: none now. */
struct worker *route_pick(route *r, uint64_t now_us, enum service s, struct route_kind k);
/* Whether there are a tokenizer and a model worker of the same weights, the latter with a free slot
 * or, if it may wait, not failing at least. */
bool route_answers(route *r, uint64_t now_us, slice model, bool may_wait);
/* Each model that has a worker, once, in the order in which they came first. */
void route_models(route *r, void (*fn)(void *ctx, const Nunchi__ModelInfo *m), void *ctx);

struct route_wish {
    struct route_kind kind; /* numerics: of the worker that began */
    const uint8_t *hashes; /* n_blocks x 32, chained: those of the prompt */
    size_t n_blocks;
    uint32_t n_tokens;   /* of the prompt, and of what was answered already */
    uint32_t max_tokens; /* still to come at most */
};
/* Where the first token is to be expected soonest, what it costs the others there taken into
 * account. */
struct worker *route_pick_model(route *r, uint64_t now_us, const struct route_wish *q);
/* q goes to w: remembers that its blocks will be there. */
void route_placed(route *r, struct worker *w, const struct route_wish *q);
/* A fault of the worker's own: too many in a row, and it gets nothing for a while, then one request
 * to show that it works again. The same request again does not count: it may be the fault. */
void route_failed(route *r, struct worker *w, uint64_t now_us, uint64_t request);
void route_worked(struct worker *w);
struct route_counts {
    uint64_t placed, warm; /* requests; those sent where a part of their prompt was known to be */
    uint64_t tokens, warm_tokens; /* of their prompts, and of what was known to be there */
    uint64_t shunned;             /* times that a worker's failures closed it */
};
struct route_counts route_counts(const route *r);
/* The cache that holds the key, the same one for every gateway. */
struct worker *route_cache(route *r, slice key);

#endif
