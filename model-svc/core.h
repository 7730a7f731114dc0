/* The scheduler: requests in, steps for the engine out, results in, deltas out. Continuous
 * batching: a step is the next token of every running sequence and, within a budget of rows and
 * measured time, chunks of prompts; sequences join and leave between steps. It touches neither
 * sockets nor the engine nor a clock, and draws no random numbers: what it answers is a function of
 * the requests alone, however they are batched, preempted or moved. One thread at a time: who
 * shares it locks it, but for sched_send. */
#ifndef NUNCHI_MODEL_CORE_H
#define NUNCHI_MODEL_CORE_H

#include "model-svc/request.h"
#include "model-svc/sequence.h"

typedef struct sched sched;

/* What ids mean. Functions of the id alone; slices live as long as the scheduler. */
struct sched_vocab {
    void *ctx;
    slice (*text)(void *ctx, int32_t id); /* its part of an answer: empty for control tokens */
    slice (*bytes)(void *ctx,
                   int32_t id); /* what it stands for, control tokens literally: for logprobs */
    bool (*is_end)(void *ctx, int32_t id);
    const int32_t *ends;
    size_t n_ends;
    int32_t n;
};

struct sched_config {
    uint32_t n_blocks;       /* of the engine's KV */
    uint32_t n_context;      /* tokens of one sequence; at most what n_blocks hold */
    uint32_t seqs_max;       /* running at once; at most step_tokens */
    uint32_t step_tokens;    /* rows of one step */
    uint32_t queue_max;      /* requests waiting for their first step; more are refused */
    uint32_t draft_max;      /* ids guessed ahead of an answer, at most; 0: none (DRAFT_MAX) */
    bool fetch;              /* there are caches: KV is fetched from them and offered to them */
    uint64_t step_target_us; /* a step should take no longer while answers are running */
    struct digest weights;
};

/* One choice's part of a step. Borrowed for the call. */
struct sched_delta {
    uint64_t request;
    uint32_t attempt, choice;
    uint32_t position; /* ids before these */
    const int32_t *ids;
    size_t n_ids;
    slice text;
    const struct sampled *logprobs; /* (n_ids), or NULL when not asked for */
    uint32_t cached_tokens;         /* in the first delta of a request */
};

struct sched_end {
    uint32_t choice, n_ids;
    enum seq_end reason;
    slice text, stop;
};

struct sched_done {
    uint64_t request;
    uint32_t attempt;
    const struct sched_end *ends;
    size_t n_ends;
    uint32_t prompt_tokens, cached_tokens, fetched_tokens;
    uint32_t drafted, accepted; /* rows spent on guesses, and those that came true */
    uint64_t queue_us, prefill_us, decode_us;
    struct trace_at trace;
    uint64_t arrived_us;
};

/* A request's part of the step under way. */
struct sched_part {
    struct trace_at trace;
    uint64_t arrived_us, request;
    uint32_t rows, drafts; /* its own */
};

/* The outbox: called by sched_send alone, in the order things happened for a request. */
struct sched_out {
    void *ctx;
    void (*deltas)(void *ctx, uint64_t gateway, const struct sched_delta *d,
                   size_t n); /* all of one gateway's of a step */
    void (*done)(void *ctx, uint64_t gateway, const struct sched_done *d);
    void (*error)(void *ctx, uint64_t gateway, uint64_t request, uint32_t attempt, int err,
                  const struct why *w);
};

/* What a step asks of the engine, in this order: the copies, the rows, the sampling. Everything it
 * points to stays as it is until sched_result. */
struct sched_work {
    const struct seq_copy *copies;
    size_t n_copies;
    struct engine_step step;
    struct sample_job *jobs;
    size_t n_jobs;
};

sched *sched_new(const struct sched_config *cfg, const struct sched_vocab *words,
                 const struct sched_out *out);
void sched_free(sched *s); /* ends nothing, sends nothing; no step may be under way */

/* Takes the request, and the arena it lies in, when it returns 0. ERR_BUSY: the queue is full,
 * *retry_ms says when to try again. ERR_EXISTS: this request and attempt are here already (a newer
 * attempt replaces an older one). ERR_INVALID: ids that go on after the answer's end. */
int sched_take_request(sched *s, uint64_t now_us, const struct gen_request *r, arena *a,
                       uint32_t *retry_ms, struct why *w) MUST_USE;
/* These ignore what is not open. */
void sched_cancel(sched *s, uint64_t gateway, uint64_t request);
void sched_credit(sched *s, uint64_t gateway, uint64_t request, uint64_t tokens);
void sched_gateway_gone(sched *s, uint64_t gateway);
/* Ends what is over its deadline. Returns when to be called next; UINT64_MAX: no deadline is open.
 */
uint64_t sched_tick(sched *s, uint64_t now_us);

/* The next step, or NULL when nothing can be computed. Then no other until its result is in. */
struct sched_work *sched_plan(sched *s, uint64_t now_us);
/* The step is computed (err 0) or failed (its requests end with the error). took_us: measured by
 * who computed it. */
void sched_result(sched *s, uint64_t now_us, int err, const struct why *w, uint64_t took_us);
/* Of the step under way: the parts of requests that are traced, at most max of them; *rows: of all. */
size_t sched_traced(const sched *s, struct sched_part *out, size_t max, uint32_t *rows);
/* Sends what results, ticks and refusals left in the outbox. To be called after the next step is on
 * its way. In two halves for who shares the scheduler: collect is one of its calls, send is not and
 * always follows a collect. */
void sched_flush(sched *s);
void sched_collect(sched *s);
void sched_send(sched *s);

/* ---- KV that travels: decided here, moved by whoever has the engine and the sockets (transfer.h)
 * ---- */

/* Blocks of one group lie in one place. */
#define KV_GROUP_BLOCKS 64

/* Blocks of a prompt to ask the caches for. Pointers are good until sched_fetch_end, and until then
 * nobody else touches the blocks that are to be filled: blocks[first .. first + n - 1], with
 * chain[] the hashes of all of the prompt's blocks up to there. */
struct sched_fetch {
    uint64_t id;
    const struct digest *chain;
    const uint32_t *blocks;
    uint32_t first, n;
    slice tenant;
};
bool sched_fetch_next(sched *s, struct sched_fetch *out); /* each once */
void sched_fetched(sched *s, uint64_t id, uint32_t n);    /* the first n of them are filled */
/* No more will come. damaged: of those that were answered, how many were not what was asked for. */
void sched_fetch_end(sched *s, uint64_t id, uint64_t took_us,
                     uint32_t damaged); /* took 0: nobody was there to ask */

/* A computed block to put into a cache. It stays as it is until sched_offer_end. */
struct sched_offer {
    uint32_t block;
    struct digest hash, group;
    char tenant[GENERATE_TENANT_BYTES];
};
bool sched_offer_next(sched *s, struct sched_offer *out);
void sched_offer_end(sched *s, const struct sched_offer *o, bool exported);

struct sched_load {
    uint32_t running, queued;             /* requests */
    uint64_t queued_tokens;               /* still to prefill, running ones included */
    uint32_t blocks, blocks_free;         /* free: could be taken now */
    uint32_t prefill_tok_s, decode_tok_s; /* 0: not measured yet */
    uint64_t steps, preemptions;
    uint64_t rows, drafted, accepted; /* computed; of them guesses; of those, come true */
    uint32_t fetch_tok_s; /* tokens whose KV comes from caches in a second; 0: not measured */
    struct {
        uint64_t wanted, fetched, missed, damaged; /* blocks asked for, and what came of it */
        uint64_t recomputed;                       /* not asked for: computing is sooner done */
        uint64_t exported, dropped;
    } kv;
};
struct sched_load sched_load_now(const sched *s);
size_t sched_open(const sched *s); /* requests open */
struct sched_share {
    uint32_t open, parked; /* parked: no choice of it has credit for one more token */
};
struct sched_share sched_share_of(const sched *s, uint64_t gateway);

#endif
