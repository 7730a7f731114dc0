/* One choice of a request: its tokens, and the KV blocks that hold what is computed of them.
 * (Prompt, parameters, ids so far) is all of its state; everything else here can be dropped and
 * made again. */
#ifndef NUNCHI_MODEL_SEQUENCE_H
#define NUNCHI_MODEL_SEQUENCE_H

#include "common/wire/blockhash.h"
#include "engine/engine.h"
#include "model-svc/blocks.h"
#include "model-svc/draft.h"
#include "model-svc/fair.h"
#include "model-svc/request.h"

enum seq_state {
    SEQ_QUEUED,   /* waits for its turn; holds no blocks */
    SEQ_PARKED,   /* waits for credit; holds no blocks */
    SEQ_FETCHING, /* waits for what caches have of its prompt; holds no blocks */
    SEQ_RUNNING,  /* may hold blocks; takes steps while there is credit */
    SEQ_ENDED,
};

enum seq_end { SEQ_STOP, SEQ_LENGTH };

struct generation; /* core_int.h */

struct sequence {
    struct fair_entry queued;
    struct list running;
    struct generation *gen;
    enum seq_state state;
    uint64_t order; /* of arrival; the smaller goes first and is preempted last */

    uint32_t choice;
    const int32_t *prompt; /* (n_prompt) borrowed from the request */
    uint32_t n_prompt;
    const int32_t *echoed; /* (n_echoed) the first of the ids, borrowed from the request */
    uint32_t n_echoed;
    int32_t *ids; /* (n_ids) generated, those given with the request first */
    uint32_t n_ids, n_given, cap_ids;

    uint32_t *blocks; /* (n_blocks) position p lies in blocks[p / ENGINE_BLOCK_TOKENS] */
    uint32_t n_blocks, cap_blocks;
    uint32_t n_computed; /* positions whose K and V are in blocks */

    blockhash *chain;
    struct digest *hashes; /* of the full blocks of the tokens known */
    uint32_t n_hashes, cap_hashes, n_chained;
    uint32_t n_offered; /* blocks from the front that caches need not be offered any more */
    const struct gen_salt *salts;
    size_t n_salts, next_salt;

    struct stop_state stop;
    struct drafter drafter; /* empty until it is asked, and when it does not run */
    struct draft_odds odds;

    /* the step under way */
    uint32_t n_rows;   /* 0: not part of it */
    uint32_t n_drafts; /* of them, its last ones: the ids guessed stand behind those that are */
    struct draft_source draft_from;
    uint32_t job, n_jobs; /* its sampling jobs, for the next id and behind each guess */

    enum seq_end end;
    slice end_stop; /* the stop string; empty for an end token */
    slice end_text; /* held back, and text after all */
};

/* weights: digest of the model. Takes the choice's ids so far, without looking at them: see
 * sequence_replay. */
void sequence_init(struct sequence *s, const struct gen_request *r, const struct gen_choice *c,
                   const struct digest *weights);
void sequence_clear(struct sequence *s, kvpool *pool);

uint32_t sequence_hashes(struct sequence *s); /* brings s->hashes up to date; how many there are */
uint32_t sequence_total(const struct sequence *s);                   /* tokens known */
int32_t sequence_token(const struct sequence *s, uint32_t position); /* or a guess behind them */
void sequence_append(struct sequence *s, int32_t id);
/* Guesses at most `max` ids that come next and leaves them behind those it has, where they are no
 * part of it: see sequence_token. Returns how many. */
uint32_t sequence_guess(struct sequence *s, uint32_t max);

/* Takes blocks that are already computed for as many of its tokens as possible; one token at least
 * is left, because its logits are needed. */
void sequence_reuse(struct sequence *s, kvpool *pool);
/* The same prompt, computed by another choice of the same request: shares its blocks, the last one
 * copied when written. */
void sequence_share_prompt(struct sequence *s, const struct sequence *from, kvpool *pool);
/* Hash of the block that the next position to compute lies in; false if the tokens known do not
 * fill it. */
bool sequence_next_hash(struct sequence *s, struct digest *out);
/* Blocks beyond those it has that it needs to hold everything known and one token more. */
uint32_t sequence_lacks(const struct sequence *s);

struct seq_copy {
    uint32_t from, to, n_tokens;
};
/* Makes positions n_computed .. until-1 writable. A shared block is replaced by a copy: *copy says
 * what to copy first (n_tokens 0: nothing), and its `from` is the caller's to give back when that
 * is done: until then nobody else may be given it. Returns up to where there is room: less than
 * `until` when blocks ran out. */
uint32_t sequence_room(struct sequence *s, kvpool *pool, uint32_t until, struct seq_copy *copy);
/* K and V up to `until` are computed: full blocks become findable. */
void sequence_computed(struct sequence *s, kvpool *pool, uint32_t until);
/* Gives all blocks back; they can be found again until their room is needed. */
void sequence_drop(struct sequence *s, kvpool *pool);

#endif
