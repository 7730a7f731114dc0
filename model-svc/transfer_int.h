/* Between transfer.c (what is under way), fetching.c (in), offering.c (out). */
#ifndef NUNCHI_MODEL_TRANSFER_INT_H
#define NUNCHI_MODEL_TRANSFER_INT_H

#include "common/base/list.h"
#include "common/base/thread.h"
#include "common/wire/calls.h"
#include "common/wire/pb.h"
#include "model-svc/kvbox.h"
#include "model-svc/transfer.h"
#include "proto/cache.pb-c.h"

/* A cache that says nothing for so long has nothing: computing is sooner done. */
#define TRANSFER_CALL_MS 2000
#define TRANSFER_KEYS_MAX 64 /* of one request, as the caches have it */
/* An answer of a cache is at most a message. */
#define TRANSFER_BYTES_MAX (12u << 20)
#define REPLY_ARENA_BYTES (256u << 10) /* of answers: bulk bytes lie outside */

struct transfer {
    loop *l;
    links *ls;
    calls *calls;
    struct loop_timer tick;
    engine *e;
    struct transfer_ops ops;
    struct digest detail;
    uint64_t block_bytes;
    uint32_t parts;          /* of a block */
    uint32_t blocks_per_ask; /* that fit one message */

    struct list fetches; /* struct fetching */
    char *whole;         /* (block_bytes) of a block that came in parts */

    workq *mover;
    struct offering *going;  /* NULL: nothing is on its way out */
    struct sched_offer next; /* of another group than those before it */
    bool has_next, closing;
    bool touching; /* the mover is at it */
    bool sealing;  /* `going` is the mover's */
};

/* A request to the cache that has `group`. Negative: nobody is asked, and `done` never comes. */
int transfer_ask(transfer *t, const struct digest *group, const Nunchi__CacheRequest *q,
                 shared *const *bulk, size_t n_bulk, call_done_fn done, void *ctx) MUST_USE;
/* Keys of one block's parts, in the arena. */
Nunchi__BlobKey *transfer_key(arena *a, const transfer *t, slice tenant, const struct digest *hash,
                              const struct digest *group, uint32_t part);
int transfer_unpack(arena *a, const struct wire_msg *m, Nunchi__CacheReply **out) MUST_USE;

void transfer_step_aside(void); /* this thread runs when nobody else wants to */
void fetching_start(transfer *t);
void fetching_clear(transfer *t);
void offering_start(transfer *t);
void offering_clear(transfer *t);

#endif
