#include "model-svc/draft.h"

#include "common/base/err.h"

/* Earlier places asked, newest first. */
#define PLACES_MAX 32
/* A longer match says no more. */
#define MATCH_MAX 16
#define CAP_MIN 64

static int32_t id_at(const struct draft_text *t, uint32_t p)
{
    return p < t->n_prompt ? t->prompt[p] : t->ids[p - t->n_prompt];
}

static uint32_t bucket(const struct drafter *d, const struct draft_text *t, uint32_t p, bool pair)
{
    uint64_t key = (uint64_t)(uint32_t)id_at(t, p) << 32;
    key |= pair ? (uint32_t)id_at(t, p - 1) : 0;
    return (uint32_t)(key * 0x9e3779b97f4a7c15u >> 32) & (d->cap - 1);
}

void drafter_clear(struct drafter *d)
{
    free(d->ones.head);
    free(d->ones.prev);
    free(d->pairs.head);
    free(d->pairs.prev);
    *d = (struct drafter){0};
}

static void chains_init(struct draft_chains *c, uint32_t cap)
{
    c->head = xcalloc(cap, sizeof *c->head);
    c->prev = xcalloc(cap, sizeof *c->prev);
}

static void grow(struct drafter *d, uint32_t total)
{
    uint32_t cap = d->cap ? d->cap : CAP_MIN;
    while (cap < total)
        cap *= 2;
    drafter_clear(d);
    d->cap = cap;
    chains_init(&d->ones, cap);
    chains_init(&d->pairs, cap);
}

static void chain(struct draft_chains *c, uint32_t at, uint32_t p)
{
    c->prev[p] = c->head[at];
    c->head[at] = p + 1;
}

/* All but the last: what follows it is what is looked for. */
static void take_in(struct drafter *d, const struct draft_text *t, uint32_t total)
{
    if (total > d->cap)
        grow(d, total); /* and all over again: as often as it doubles */
    for (; d->n + 1 < total; d->n++) {
        chain(&d->ones, bucket(d, t, d->n, false), d->n);
        if (d->n > 0)
            chain(&d->pairs, bucket(d, t, d->n, true), d->n);
    }
}

static uint32_t match_at(const struct draft_text *t, uint32_t p, uint32_t last)
{
    uint32_t n = 0;
    while (n < MATCH_MAX && n <= p && id_at(t, p - n) == id_at(t, last - n))
        n++;
    return n;
}

/* What the places say comes next; each has a say that grows with its match. */
struct vote {
    int32_t id;
    double weight;
    uint32_t match, at; /* the longest for it, and where it goes on; the newest of those */
};

struct poll {
    struct vote votes[PLACES_MAX];
    int n;
    double weight;
};

static void cast(struct poll *p, int32_t id, uint32_t match, uint32_t at)
{
    int i = 0;
    while (i < p->n && p->votes[i].id != id)
        i++;
    if (i == p->n)
        p->votes[p->n++] = (struct vote){.id = id};
    struct vote *v = &p->votes[i];
    double weight = (double)(1ull << 2 * match);
    p->weight += weight;
    v->weight += weight;
    if (match > v->match) {
        v->match = match;
        v->at = at;
    }
}

static void ask(const struct draft_chains *c, uint32_t at, const struct draft_text *t,
                uint32_t total, uint32_t match_min, struct poll *out)
{
    uint32_t p = c->head[at];
    for (int i = 0; i < PLACES_MAX && p > 0; i++, p = c->prev[p - 1]) {
        uint32_t match = match_at(t, p - 1, total - 1);
        if (match >= match_min)
            cast(out, id_at(t, p), match, p);
    }
}

uint32_t drafter_guess(struct drafter *d, const struct draft_text *t, int32_t *out, uint32_t max,
                       struct draft_source *from)
{
    uint32_t total = t->n_prompt + t->n_ids;
    struct poll poll;
    poll.n = 0;
    poll.weight = 0;
    *from = (struct draft_source){0};
    if (total < 2)
        return 0;
    take_in(d, t, total);
    ask(&d->pairs, bucket(d, t, total - 1, true), t, total, 2, &poll);
    if (poll.n == 0)
        ask(&d->ones, bucket(d, t, total - 1, false), t, total, 1, &poll);
    if (poll.n == 0)
        return 0;
    const struct vote *best = &poll.votes[0];
    for (int i = 1; i < poll.n; i++)
        best = poll.votes[i].weight > best->weight ? &poll.votes[i] : best;
    *from = (struct draft_source){best->match, best->weight * 2 >= poll.weight};
    /* a place so near that the guess runs into itself goes round: answers that repeat themselves */
    for (uint32_t i = 0, at = best->at; i < max; i++, at++)
        out[i] = at < total ? id_at(t, at) : out[at - total];
    return max;
}

/* Guesses remembered; when there are twice as many, they count half. */
#define MEMORY 32.0f
/* What others' answers say weighs as much as so many of one's own guesses. */
#define PRIOR 8.0f
/* Nothing is known at first. */
#define FIRST_CHANCE 0.5f

/* The longer the match, the likelier; whether places agree is known of the first id alone. */
static uint32_t class_of(const struct draft_source *from, uint32_t nth)
{
    uint32_t match = from->match + nth;
    uint32_t length = match <= 3 ? match - 1 : match <= 5 ? 3 : 4;
    return length + 5 * (nth > 0 ? 2 : from->agreed ? 1 : 0);
}

void draft_seen(struct draft_odds *o, const struct draft_source *from, uint32_t nth, bool hit)
{
    uint32_t c = class_of(from, nth);
    if (o->tries[c] >= 2 * MEMORY) {
        o->hits[c] /= 2;
        o->tries[c] /= 2;
    }
    o->hits[c] += hit ? 1 : 0;
    o->tries[c] += 1;
}

float draft_chance(const struct draft_odds *own, const struct draft_odds *all,
                   const struct draft_source *from, uint32_t nth)
{
    uint32_t c = class_of(from, nth);
    float usual = (all->hits[c] + PRIOR * FIRST_CHANCE) / (all->tries[c] + PRIOR);
    return (own->hits[c] + PRIOR * usual) / (own->tries[c] + PRIOR);
}
