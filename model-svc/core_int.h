/* Shared by the scheduler's files (core.c, plan.c, speculate.c, result.c, outbox.c) and nobody
 * else. */
#ifndef NUNCHI_MODEL_CORE_INT_H
#define NUNCHI_MODEL_CORE_INT_H

#include "common/base/map.h"
#include "model-svc/core.h"
#include "model-svc/pace.h"

/* A request while it is open. */
struct generation {
    struct list link; /* in sched.open */
    struct gen_request r;
    arena *a; /* holds r's memory */
    struct stop_set stops;
    fair_flow *flow;
    struct sequence *seqs;  /* (r.n_choices) */
    uint32_t n_open;        /* sequences that have not ended */
    uint32_t n_in_step;     /* sequences that are part of the step under way */
    uint32_t n_planned_ids; /* tokens that the step under way may bring */
    uint64_t credit;
    bool dead; /* nothing more is sent; freed when no step needs it */
    bool started, told_cached;
    uint32_t cached_tokens, fetched_tokens;
    struct fetch *fetch; /* NULL: it waits for none */
    struct list fetch_link;
    uint32_t n_fetches;
    uint32_t drafted, accepted;
    uint64_t arrived_us, started_us, first_us, last_us, deadline_us; /* deadline 0: none */
};

/* Who has something to guess, and how likely its next guess comes true together with all before. */
struct sched_bid {
    struct sequence *q;
    uint32_t n_guessed;
    float chance;
};

struct outbox;

/* What fetching has cost and brought lately; zeros: not known yet. */
struct fetch_costs {
    double ask_us; /* an answer that brings nothing */
    double hit_us; /* … more for each block that it brings */
    double odds;   /* share of the blocks asked for that came */
    uint64_t n_refused;
};

struct sched {
    struct sched_config cfg;
    struct sched_vocab vocab;
    struct sched_out out;
    struct pace pace;
    kvpool *pool;
    fairq *queue;
    struct list open;    /* struct generation */
    map *by_id;          /* (gateway, request) -> struct generation */
    struct list running; /* struct sequence, by order_before */
    uint32_t n_running;
    uint32_t n_waiting; /* requests not started */
    double turn_us;     /* from one request's first step to the next one's, while some wait */
    uint64_t turned_us; /* the latest one's; 0: nobody waited then */
    uint64_t n_arrived;
    uint64_t deadline_us; /* none of those open ends earlier; UINT64_MAX: none has one */
    struct outbox *outbox;
    buf scratch; /* text of one token */

    /* KV from and for caches: fetch.c, offer.c */
    struct list fetches; /* struct fetch */
    uint64_t last_fetch;
    uint32_t n_fetching; /* blocks they hold room for */
    struct fetch_costs fetch_costs;
    struct list offers; /* struct offer, oldest first */
    uint32_t n_offers;

    /* the step under way */
    bool busy;
    struct sched_work work;
    struct engine_row *rows;   /* (step_tokens) */
    struct engine_seq *seqs;   /* (seqs_max) */
    struct sequence **members; /* (seqs_max) whose seqs[i] is */
    struct digest *starts; /* (seqs_max) hash of the block where each prefill of this step begins */
    size_t n_starts;
    struct seq_copy *copies;
    struct sample_job *jobs; /* (step_tokens) */
    struct sequence **order; /* scratch */
    size_t n_rows, n_members;
    const struct generation *only; /* nobody else takes part; NULL: all do */
    struct pace_rows cost;

    /* guesses: speculate.c */
    struct draft_odds odds; /* of all answers */
    double probe_us;        /* time saved up for guesses that are not likely to come true */
    struct sched_bid *bids; /* (seqs_max) scratch */
    struct sampled *picked; /* (DRAFT_MAX + 1) scratch */

    struct sched_load counts; /* what is counted, and nothing else of it */
};

/* core.c */
bool sched_has_credit(const struct generation *g); /* for one more token than planned */
bool sched_order_before(const struct sequence *a, const struct sequence *b);
void sched_start_running(sched *s, struct sequence *q);
/* Takes it off the running list; its blocks go back to the pool. It waits for its turn again, or
 * for credit. */
void sched_preempt(sched *s, struct sequence *q);
void sched_end_sequence(sched *s, struct sequence *q, uint64_t now_us);
/* Ends it with an error (0: silently). Its memory goes when no step needs it. */
void sched_fail(sched *s, struct generation *g, int err, const struct why *w);
void sched_reap(sched *s, struct generation *g);
/* Its sequences wait for their turn, or first for what caches have of the prompt. */
void sched_enqueue(sched *s, struct generation *g);
/* fetch.c. True: it waits for a fetch; sched_enqueue follows. */
bool sched_fetch_begin(sched *s, struct generation *g);
void sched_fetch_forget(struct generation *g); /* it does not wait any more */
void sched_fetch_clear(sched *s);
uint32_t sched_fetch_rate(const sched *s); /* tokens a second; 0: not known */
/* offer.c: what is computed of q up to a position may go out. */
void sched_offer(sched *s, struct sequence *q, uint32_t until);
void sched_offer_clear(sched *s);
/* plan.c */
void sched_copied(sched *s); /* what was copied from may be used again */
void sched_admit(sched *s, uint64_t now_us);
/* speculate.c: adds guesses to the next tokens of order[0 .. n-1], where they are worth their rows.
 */
void sched_speculate(sched *s, size_t n);
/* What the step under way has cost, and how many tokens it brought. */
void sched_step_took(sched *s, uint32_t tokens, uint64_t took_us);

/* outbox.c: copies what it is given; outbox_send may run while another thread adds */
struct outbox *outbox_new(void);
void outbox_free(struct outbox *o);
void outbox_delta(struct outbox *o, uint64_t gateway, const struct sched_delta *d);
void outbox_done(struct outbox *o, uint64_t gateway, const struct sched_done *d);
void outbox_error(struct outbox *o, uint64_t gateway, uint64_t request, uint32_t attempt, int err,
                  const struct why *w);
void outbox_forget(struct outbox *o, uint64_t gateway,
                   uint64_t request); /* request 0: all of the gateway */
void outbox_turn(struct outbox *o);   /* what is there is what outbox_send sends */
void outbox_send(struct outbox *o, const struct sched_out *out);

#endif
