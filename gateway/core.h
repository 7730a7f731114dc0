/* The gateway's core: requests, workers, and what happens between them, as a state machine without
 * I/O. Typed calls in, a struct gw_out of function pointers out; time is an argument and randomness
 * is drawn by whoever makes the request.
 *
 * A question: admitted -> its videos are read -> tokenised -> looked up in the result cache ->
 * placed on a worker -> streamed. A worker that is lost is replaced at any point; the answer goes
 * on where it stood.
 *
 * Callbacks must not call back into the core for the request they are about; other requests are
 * fine. One thread. */
#ifndef NUNCHI_GATEWAY_CORE_H
#define NUNCHI_GATEWAY_CORE_H

#include "common/wire/frame.h"
#include "gateway/answer.h"
#include "gateway/request.h"
#include "gateway/route.h"
#include "proto/cache.pb-c.h"
#include "proto/session.pb-c.h"
#include "proto/token.pb-c.h"
#include "proto/video.pb-c.h"

typedef struct gw gw;

struct gw_config {
    uint32_t requests_max;      /* admitted at once */
    uint32_t queue_max;         /* of them waiting for a worker; beyond: ERR_BUSY */
    uint32_t tenant_max;        /* admitted at once per tenant; 0: no limit */
    uint64_t queue_tokens_max;  /* prompt tokens waiting for a worker; 0: no limit */
    uint64_t tenant_tokens_max; /* likewise of one tenant; 0: no limit */
    uint32_t request_ms;        /* deadline of a question, waiting included */
    uint32_t worker_wait_ms;    /* how long to wait when no worker of a kind is there at all */
    uint32_t stall_ms; /* a worker that computes nothing for so long though it has requests is given
                          up */
    uint32_t condemned_ms;    /* a request that workers died of is refused for so long */
    uint32_t client_stall_ms; /* a client that reads nothing for so long is cut off */
    int route;                /* enum route_policy */
    uint32_t notes_tokens;    /* budget for video notes in a prompt; 0: the tokenizer's */
};

struct gw_out {
    void *ctx;
    /* As hub_send. Copies. */
    int (*send)(void *ctx, uint64_t peer, const struct wire_msg *m);
};

gw *gw_new(const struct gw_config *cfg, const struct gw_out *out);
void gw_free(gw *g); /* forgets its requests without a word */
uint64_t gw_tick(gw *g,
                 uint64_t now_us); /* what is due; returns the next deadline, UINT64_MAX for none */
void gw_leave(gw *g);              /* not ready any more; goes on admitting */
void gw_drain(gw *g);              /* admits nothing any more */

/* ---- peers: tokenizer, video, model and cache services ---- */
void gw_peer_up(gw *g, uint64_t now_us, uint64_t peer, const Nunchi__Ready *r);
void gw_peer_changed(gw *g, uint64_t now_us, uint64_t peer, const Nunchi__Ready *r,
                     const Nunchi__Heartbeat *h);
/* died: without having said that it would go. */
void gw_peer_down(gw *g, uint64_t now_us, uint64_t peer, bool died);
void gw_peer_msg(gw *g, uint64_t now_us, uint64_t peer, const struct wire_msg *m);

/* ---- questions ---- */
/* Consumes r. 0: admitted; *id is written before any callback. Negative: refused, *f says why, no
 * callback ever. */
int gw_ask(gw *g, uint64_t now_us, struct gw_request *r, const struct gw_client_ops *ops,
           void *client, uint64_t *id, struct gw_fail *f) MUST_USE;
void gw_cancel(gw *g, uint64_t now_us, uint64_t id); /* the client is gone: no more callbacks */
void gw_client_ready(gw *g, uint64_t now_us, uint64_t id); /* it can take more again */

/* ---- files ---- */
/* The end of a call to cache-svc: err < 0 with f, or a reply with the message's bulk frames.
 * Borrowed. */
typedef void (*gw_cache_fn)(void *ctx, const struct gw_fail *f, const Nunchi__CacheReply *r,
                            const struct wire_msg *m);
/* Any operation; `key` chooses among caches. 0 and an id, or negative: no cache is there. */
int gw_cache(gw *g, uint64_t now_us, const Nunchi__CacheRequest *q, slice key, gw_cache_fn fn,
             void *ctx, uint64_t *id, struct gw_fail *f) MUST_USE;
/* The same of a call to tokenizer-svc. */
typedef void (*gw_words_fn)(void *ctx, const struct gw_fail *f, const Nunchi__TokenReply *r,
                            const struct wire_msg *m);
/* Of a text, its ids; of ids (n x le32), their text. ERR_NOT_FOUND: no such model. */
int gw_words(gw *g, uint64_t now_us, const Nunchi__TokenRequest *q, slice model, slice ids,
             gw_words_fn fn, void *ctx, uint64_t *id, struct gw_fail *f) MUST_USE;
void gw_call_cancel(gw *g, uint64_t id); /* no more callbacks of either kind */

/* An upload: begin, bytes as they come, finish; then `accepted` or `failed`, exactly once. */
struct gw_upload_ops {
    void (*more)(void *ctx); /* bytes are wanted again */
    void (*accepted)(void *ctx,
                     const Nunchi__FileRecord *f); /* durable; reading goes on without the client */
    void (*failed)(void *ctx, const struct gw_fail *f);
};
struct gw_upload_meta {
    slice id; /* "file-…" */
    slice tenant;
    slice filename;
    uint64_t size; /* 0: not known yet */
};
int gw_upload_begin(gw *g, uint64_t now_us, const struct gw_upload_meta *m,
                    const struct gw_upload_ops *ops, void *ctx, uint64_t *id,
                    struct gw_fail *f) MUST_USE;
/* Takes all of it; false: enough for now, wait for `more`. */
bool gw_upload_bytes(gw *g, uint64_t now_us, uint64_t id, slice bytes);
void gw_upload_finish(gw *g, uint64_t now_us, uint64_t id, slice purpose, uint64_t unix_s,
                      uint64_t expires_s);
void gw_upload_cancel(gw *g, uint64_t now_us, uint64_t id);

/* ---- what there is ---- */
struct gw_state {
    size_t requests, queued, running, uploads;
    uint64_t queued_tokens; /* of prompts without a model worker */
    size_t workers[4]; /* tokenizer, video, model, cache: up and not draining */
    bool ready;        /* a question sent now would be answered */
    bool draining;
};
void gw_state(gw *g, struct gw_state *s);
/* Models with a worker, each once, for as long as fn runs. */
void gw_models(gw *g, void (*fn)(void *ctx, const Nunchi__ModelInfo *m), void *ctx);

struct gw_counts {
    uint64_t admitted, refused, done, failed, cancelled, cache_hits, cache_misses, retries,
        prompt_tokens, completion_tokens;
    uint64_t taken_back, suspects, condemned, stalled_workers, stalled_clients;
};
const struct gw_counts *gw_counts(const gw *g);
struct route_counts gw_route_counts(const gw *g);

int gw_failed(struct gw_fail *f, int err, const char *code, const char *field, const char *fmt, ...)
    PRINTF_LIKE(5, 6);

#endif
