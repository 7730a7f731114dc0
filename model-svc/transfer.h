/* Moves KV blocks between the engine and the caches: what the scheduler wants fetched comes in,
 * checked and straight from the message into the backend's pages; what it offers goes out when
 * there is time, sealed by a thread of the lowest priority. Loop thread; the scheduler behind `ops`
 * is locked by who implements them. */
#ifndef NUNCHI_MODEL_TRANSFER_H
#define NUNCHI_MODEL_TRANSFER_H

#include "common/wire/links.h"
#include "model-svc/core.h"

typedef struct transfer transfer;

struct transfer_ops {
    void *ctx;
    bool (*fetch_next)(void *ctx, struct sched_fetch *out);
    void (*fetched)(void *ctx, uint64_t id, uint32_t n);
    void (*fetch_end)(void *ctx, uint64_t id, uint64_t took_us,
                      uint32_t damaged); /* requests go on */
    bool (*offer_next)(void *ctx, struct sched_offer *out);
    void (*offer_end)(void *ctx, const struct sched_offer *o, bool exported);
};

struct transfer_config {
    const char *caches;         /* targets, as in links_config */
    const Nunchi__Ready *ready; /* what this worker says of itself */
    engine *e;                  /* blocks that are fetched or offered are no part of any step */
    struct transfer_ops ops;
};

int transfer_new(bus *b, loop *l, const struct transfer_config *cfg, transfer **out,
                 struct why *w) MUST_USE;
void transfer_free(
    transfer *t); /* ends what is under way; before the scheduler and the engine go */
/* Looks for fetches and offers. After requests came, and after steps. */
void transfer_pump(transfer *t);

#endif
