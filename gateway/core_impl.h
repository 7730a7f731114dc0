/* Between the core's files: core.c (the whole), ask.c (one call to a worker), job*.c (a question),
 * ingest.c (bytes to a video worker), upload.c (a file), files.c (calls to caches). */
#ifndef NUNCHI_GATEWAY_CORE_IMPL_H
#define NUNCHI_GATEWAY_CORE_IMPL_H

#include "common/base/map.h"
#include "common/base/timers.h"
#include "common/wire/calls.h"
#include "common/wire/pb.h"
#include "gateway/admit.h"
#include "gateway/base64.h"
#include "gateway/core.h"
#include "gateway/route.h"
#include "gateway/suspects.h"

struct gw {
    struct gw_config cfg;
    struct gw_out out;
    uint64_t now_us; /* of the call that is running */
    calls *calls;
    route *route;
    struct timers timers;
    map *jobs;    /* id -> job */
    map *runs;    /* request id on the wire -> job: step messages name many at once */
    map *ingests; /* request id on the wire -> ingest: for credit */
    map *uploads; /* id -> upload */
    map *asks;    /* id -> cache call */
    admit *admit;
    struct list orphans; /* calls whose answer nobody waits for */
    struct list waiting; /* jobs that need a worker, in the order of their turns */
    size_t n_waiting;
    uint64_t last_id, last_span;
    bool dirty; /* a slot or a worker came free: look at the waiting */
    bool leaving, draining;
    suspects *suspects;
    /* While the calls of a worker end that is lost: how it went, and who ran there alone. */
    struct {
        bool died, stuck;
        uint64_t alone; /* a job's id; 0: nobody */
    } loss;
    uint64_t stall_look_us;
    struct gw_counts counts;
};

/* Every entry point: takes the time first, settles last. */
void core_enter(gw *g, uint64_t now_us);
void core_settle(gw *g);

/* ---- ask.c: one call to a worker; embedded, zero-initialised ---- */
struct ask {
    gw *g;
    uint64_t request, peer; /* request 0: none is open */
    uint32_t sequence;
    struct trace_at at; /* what the other side does is done there */
    /* err 0: m is DONE. The ask may be used again from within. */
    void (*done)(struct ask *a, int err, const struct wire_msg *m, const struct why *w);
    void (*chunk)(struct ask *a, const struct wire_msg *m);
};
/* Sends a REQUEST to w. Negative: nothing is open and `done` never comes. */
int ask_send(struct ask *a, struct worker *w, const ProtobufCMessage *body, const slice *frames,
             size_t n_frames, uint32_t timeout_ms) MUST_USE;
/* CHUNK or CREDIT of an open ask. */
int ask_more(struct ask *a, int type, uint16_t flags, const ProtobufCMessage *body,
             const slice *frame) MUST_USE;
void ask_cancel(struct ask *a, const char *reason); /* harmless if none is open */
/* A REQUEST to w whose outcome does not matter; nothing happens without w. */
void ask_and_forget(gw *g, struct worker *w, const ProtobufCMessage *body, const slice *frames,
                    size_t n_frames);
void ask_free_orphans(gw *g);
int ask_unpack(arena *a, const ProtobufCMessageDescriptor *d, const struct wire_msg *m,
               void **out) MUST_USE;

/* ---- ingest.c: a file's bytes to a video worker ---- */
struct ingest_ops {
    void (*more)(void *ctx);
    void (*progress)(void *ctx, const Nunchi__Ingesting *i);
    void (*done)(void *ctx, const Nunchi__Ingested *i);
    void (*failed)(void *ctx, int err, const struct why *w);
};
struct ingest {
    struct ask ask;
    uint64_t request; /* as in ask, until the end was heard */
    const struct ingest_ops *ops;
    void *ctx;
    uint64_t credit;
    buf pending;
    bool ended, end_sent, flush, starved; /* starved: `more` is due once there is room */
    struct loop_timer again;              /* the worker's queue was full */
};
int ingest_start(gw *g, struct ingest *in, struct worker *w, const Nunchi__Ingest *q,
                 const struct ingest_ops *ops, void *ctx) MUST_USE;
/* Takes all; false: enough for now, `more` follows. */
bool ingest_bytes(struct ingest *in, slice bytes);
void ingest_end(struct ingest *in);
void ingest_clear(struct ingest *in, const char *reason); /* cancels what is open, frees */

/* ---- a question ---- */
enum stage { STAGE_VIDEOS, STAGE_TOKENISE, STAGE_LOOKUP, STAGE_PLACE, STAGE_RUN };

struct job;

struct job_video {
    struct job *job;
    const struct gw_part *part;
    struct ask ask;       /* to a cache */
    struct ingest ingest; /* GW_VIDEO_DATA */
    struct base64 decoder;
    size_t at; /* of the base64 text */
    struct loop_timer again;
    uint64_t trouble_us; /* since when nothing works; 0: it does */
    uint64_t quiet_us;   /* since when the file's state has not changed */
    uint64_t touched;
    uint32_t permille;
    bool has_content, ready;
    uint8_t content[DIGEST_BYTES];
    buf notes; /* packed, as they came from the cache */
    uint8_t salt[16];
};

struct job_choice {
    int32_t *ids;
    uint32_t n_ids, cap;
    buf text;     /* kept while the answer may be stored */
    buf logprobs; /* kept likewise: le32 length and packed TokenLogprob, again and again */
    buf held;     /* log probabilities of tokens whose text is not certain yet, the same way */
};

struct job {
    gw *g;
    uint64_t id;
    struct gw_request *r;
    const struct gw_client_ops *ops;
    void *client;
    enum stage stage;
    struct trace_span *span; /* of the stage; NULL: it is not traced */
    struct ticket ticket;
    struct list wait_link; /* in gw.waiting, or self-linked */
    uint64_t alone_us;     /* since when there is no worker of the kind at all; 0: there is */
    struct loop_timer deadline, wake;
    uint64_t began_us;
    unsigned attempts; /* of the stage */

    struct job_video *video; /* n_videos, of as many as the request has parts that are videos */
    size_t n_videos;
    uint64_t told_us; /* when `waiting` was called last */

    struct ask ask; /* tokenizer, cache lookup, model: one at a time */
    uint64_t run;   /* its request in gw.runs; 0: none */
    buf ids, hashes;
    uint32_t n_tokens, max_tokens; /* of an answer, with what is echoed */
    uint32_t n_echoed;
    buf first; /* of an echo */
    struct digest content;

    bool cacheable, started;
    struct digest result_key;
    uint8_t weights[DIGEST_BYTES]; /* of the model file by which it was made tokens of */
    bool has_weights;
    uint8_t numerics[DIGEST_BYTES];
    bool has_numerics;
    struct job_choice *choice; /* r->n */
    uint64_t credit;           /* tokens that the worker may still send */
    uint32_t cached_tokens;
    struct loop_timer stall; /* the client does not read */
    unsigned deaths;         /* of workers under it, since its last new token */
    bool parked;             /* its worker has no credit of ours left */
    uint64_t heard_us;       /* of its worker: when it was placed, or a delta came */
    bool alone; /* it is suspected to be why: placed where nothing is computed beside it */
    bool moved; /* a new token since it was placed */
    bool numerics_changed; /* it went on where numbers come out differently */
};

/* job.c */
void job_enter(struct job *j, enum stage s);
/* In two steps, for who asks a worker before the stage is entered: the span that what is asked for
 * lies in, which is the caller's, and the stage, which takes it. */
struct trace_span *job_span(struct job *j, enum stage s);
void job_enter_with(struct job *j, enum stage s, struct trace_span *span);
void job_wait(struct job *j, enum stage s);            /* for a worker: at the end of the line */
void job_unwait(struct job *j);                        /* harmless if it does not wait */
void job_try(struct job *j);                           /* whether one is there now */
void job_fail(struct job *j, const struct gw_fail *f); /* frees j */
void job_fail_err(struct job *j, int err, const struct why *w);
void job_finish(struct job *j, const struct gw_usage *u); /* frees j */
void job_free(struct job *j, const char *reason);
/* False, or the job has failed: nobody has been there for too long. */
bool job_alone(struct job *j, enum service s, const char *what);
/* job_video.c */
void job_videos_start(struct job *j);
void job_video_clear(struct job_video *v);
/* job_tokens.c */
void job_tokenise(struct job *j);
/* Its ids are for a file that no worker has any more, nothing was answered yet, and there is a
 * tokenizer with the new one. */
bool job_outdated(struct job *j);
void job_retokenise(struct job *j); /* back into the line */
/* Workers that the job's tokens are for. */
struct route_kind job_kind(const struct job *j);
/* job_result.c */
void job_lookup(struct job *j);
void job_store(struct job *j, const struct gw_usage *u, const enum gw_end *ends,
               const uint32_t *n_ids);
void job_keep(struct job *j, uint32_t choice, slice text); /* for job_store */
void job_keep_logprobs(struct job *j, uint32_t choice, slice packed);
struct digest job_hash(
    const struct job *j); /* of everything that the answer depends on but the arithmetic */
/* job_run.c */
void job_leave_worker(struct job *j); /* its deltas are not for it any more */
void job_place(struct job *j);
void job_delta(struct job *j, const Nunchi__Delta *d);
void job_grant(struct job *j);
void job_stalled(void *job);       /* a timer */
void job_take_back(struct job *j); /* from its worker, which may not know of it */

/* upload.c, files.c */
struct upload;
void upload_free(struct upload *u, const char *reason);
struct front_call;
void front_call_free(struct front_call *c);

#endif
