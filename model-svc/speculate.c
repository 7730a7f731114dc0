/* Which guesses a step verifies. A row more costs what steps of that many rows have cost, and
 * brings the chance that its guess comes true: rows are added, likeliest first, as long as tokens
 * per second grow. What is not likely enough is tried now and then, for a share of the time so
 * small that answers without repetitions do not suffer. None of this changes an answer. */
#include "model-svc/core_int.h"

/* Rows of guesses in a step: each takes a row of the vocabulary's width. */
#define ROWS_MAX 32
/* Of the time that steps take, for trying guesses that would not pay by what is known. */
#define PROBE_SHARE 0.02
/* How much longer than without guesses a slow model's steps may take. */
#define SLOW_FACTOR 1.5
/* Below it, a guess is not looked at further. */
#define CHANCE_MIN 0.02f
/* KV blocks that guesses leave to others, beside one for each that runs. */
#define SPARE_BLOCKS 4

/* How many guesses q could use: they must not end beyond what it may say, may send, or has room
 * for. */
static uint32_t most_for(const sched *s, const struct sequence *q)
{
    const struct generation *g = q->gen;
    uint32_t max = s->cfg.draft_max, total = sequence_total(q);
    uint32_t to_say = g->r.max_tokens - q->n_ids - 1;
    uint64_t to_send = g->credit - g->n_planned_ids;
    max = max < to_say ? max : to_say;
    max = max < to_send ? max : (uint32_t)to_send;
    if (kvpool_available(s->pool) < s->n_running + SPARE_BLOCKS) {
        uint32_t room = q->n_blocks * ENGINE_BLOCK_TOKENS - total;
        max = max < room ? max : room;
    }
    return max;
}

static float chance_after(const sched *s, const struct sequence *q, float so_far, uint32_t n)
{
    if (q->n_ids < q->n_echoed)
        return so_far; /* certain */
    return so_far * draft_chance(&q->odds, &s->odds, &q->draft_from, n);
}

static size_t collect(sched *s, size_t n)
{
    size_t n_bids = 0;
    for (size_t i = 0; i < n; i++) {
        struct sequence *q = s->order[i];
        uint32_t max = most_for(s, q), guessed = max > 0 ? sequence_guess(q, max) : 0;
        if (guessed > 0)
            s->bids[n_bids++] = (struct sched_bid){q, guessed, chance_after(s, q, 1, 0)};
    }
    return n_bids;
}

static struct sched_bid *likeliest(const sched *s, size_t n_bids)
{
    struct sched_bid *best = NULL;
    for (size_t i = 0; i < n_bids; i++) {
        struct sched_bid *b = &s->bids[i];
        if (b->q->n_drafts < b->n_guessed && sched_has_credit(b->q->gen) &&
            (!best || b->chance > best->chance))
            best = b;
    }
    return best;
}

static void add(const sched *s, struct sched_bid *b)
{
    b->q->n_drafts++;
    b->q->gen->n_planned_ids++;
    b->chance = chance_after(s, b->q, b->chance, b->q->n_drafts);
}

static void take_back(struct sequence *q)
{
    q->n_drafts--;
    q->gen->n_planned_ids--;
}

/* No guess makes a step longer than steps should be; where a model is so slow that they are anyway,
 * it may still save whole steps. */
static double longest_step(const struct sched *s, double plain)
{
    double target = (double)s->pace.target_us;
    return plain * SLOW_FACTOR > target ? plain * SLOW_FACTOR : target;
}

/* Adds guesses to n next tokens; those after which the step brings most tokens per second stay.
 * Returns how many. */
static size_t add_worthy(sched *s, size_t n, size_t n_bids)
{
    struct sequence *added[ROWS_MAX];
    size_t n_added = 0, n_best = 0;
    double plain = pace_decode_us(&s->pace, (uint32_t)n), tokens = (double)n;
    double best = tokens / plain, most = longest_step(s, plain);
    struct sched_bid *b;
    while (n_added < ROWS_MAX && n + n_added < s->cfg.step_tokens && (b = likeliest(s, n_bids)) &&
           b->chance >= CHANCE_MIN) {
        tokens += (double)b->chance;
        add(s, b);
        added[n_added++] = b->q;
        double us = pace_decode_us(&s->pace, (uint32_t)(n + n_added));
        if (us > most)
            break;
        if (tokens / us > best) {
            best = tokens / us;
            n_best = n_added;
        }
    }
    while (n_added > n_best)
        take_back(added[--n_added]);
    return n_added;
}

/* One more, to see whether guesses have become better than they were. */
static void probe(sched *s, size_t rows, size_t n_bids)
{
    double us =
        pace_decode_us(&s->pace, (uint32_t)rows + 1) - pace_decode_us(&s->pace, (uint32_t)rows);
    if (us > s->probe_us || rows >= s->cfg.step_tokens)
        return;
    struct sched_bid *best = NULL;
    for (size_t i = 0; i < n_bids; i++) {
        struct sched_bid *b = &s->bids[i];
        if (b->q->n_drafts == 0 && sched_has_credit(b->q->gen) &&
            (!best || b->chance > best->chance))
            best = b;
    }
    if (!best)
        return;
    add(s, best);
    s->probe_us -= us;
}

static void make_room(sched *s, struct sequence *q)
{
    struct seq_copy copy;
    uint32_t total = sequence_total(q);
    uint32_t room = sequence_room(q, s->pool, total + q->n_drafts, &copy);
    CHECK(copy.n_tokens == 0 && room >= total); /* the next token's place is its own already */
    while (q->n_drafts > room - total)
        take_back(q);
}

void sched_speculate(sched *s, size_t n)
{
    if (s->cfg.draft_max == 0 || n == 0 || pace_decode_us(&s->pace, (uint32_t)n) <= 0)
        return;
    size_t n_bids = collect(s, n);
    probe(s, n + add_worthy(s, n, n_bids), n_bids);
    for (size_t i = 0; i < n_bids; i++)
        if (s->bids[i].q->n_drafts > 0)
            make_room(s, s->bids[i].q);
}

void sched_step_took(sched *s, uint32_t tokens, uint64_t took_us)
{
    pace_step(&s->pace, &s->cost, tokens, took_us);
    if (s->cost.prompt > 0)
        return;
    double most = pace_decode_us(&s->pace, 1);
    s->probe_us += PROBE_SHARE * (double)took_us;
    s->probe_us = s->probe_us < most ? s->probe_us : most;
}
