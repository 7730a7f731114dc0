#include "model-svc/draft.h"

#include "common/base/err.h"

/* Earlier places looked at, newest first; of those, the longest match is taken. */
#define PLACES_MAX 16
/* A longer match says no more. */
#define MATCH_MAX 16
#define CAP_MIN 64

static int32_t id_at(const struct draft_text *t, uint32_t p)
{
    return p < t->n_prompt ? t->prompt[p] : t->ids[p - t->n_prompt];
}

static uint32_t bucket(const struct drafter *d, int32_t a, int32_t b)
{
    uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32) & (d->cap - 1);
}

void drafter_clear(struct drafter *d)
{
    free(d->head);
    free(d->prev);
    *d = (struct drafter){0};
}

static void grow(struct drafter *d, uint32_t total)
{
    uint32_t cap = d->cap ? d->cap : CAP_MIN;
    while (cap < total)
        cap *= 2;
    drafter_clear(d);
    d->cap = cap;
    d->head = xcalloc(cap, sizeof *d->head);
    d->prev = xcalloc(cap, sizeof *d->prev);
}

/* All pairs but the last: that one is what is looked for. */
static void take_in(struct drafter *d, const struct draft_text *t, uint32_t total)
{
    if (total > d->cap)
        grow(d, total); /* and all over again: as often as it doubles */
    for (uint32_t p = d->n ? d->n : 1; p + 1 < total; p++) {
        uint32_t *head = &d->head[bucket(d, id_at(t, p - 1), id_at(t, p))];
        d->prev[p] = *head;
        *head = p + 1;
        d->n = p + 1;
    }
}

static uint32_t match_at(const struct draft_text *t, uint32_t p, uint32_t last)
{
    uint32_t n = 0;
    while (n < MATCH_MAX && n <= p && id_at(t, p - n) == id_at(t, last - n))
        n++;
    return n;
}

uint32_t drafter_guess(struct drafter *d, const struct draft_text *t, int32_t *out, uint32_t max,
                       uint32_t *match)
{
    uint32_t total = t->n_prompt + t->n_ids, best = 1, at = 0;
    *match = 0;
    if (total < 3)
        return 0;
    take_in(d, t, total);
    uint32_t p = d->head[bucket(d, id_at(t, total - 2), id_at(t, total - 1))];
    for (int i = 0; i < PLACES_MAX && p > 0 && best < MATCH_MAX; i++) {
        uint32_t n = match_at(t, p - 1, total - 1);
        if (n > best) {
            best = n;
            at = p;
        }
        p = d->prev[p - 1];
    }
    if (at == 0)
        return 0;
    *match = best;
    /* a place so near that the guess runs into itself goes round: answers that repeat themselves */
    for (uint32_t i = 0; i < max; i++, at++)
        out[i] = at < total ? id_at(t, at) : out[at - total];
    return max;
}

/* Guesses remembered; when there are twice as many, they count half. */
#define MEMORY 32.0f
/* What others' answers say weighs as much as so many of one's own guesses. */
#define PRIOR 4.0f
/* Nothing is known at first. */
#define FIRST_CHANCE 0.5f

static uint32_t class_of(uint32_t match)
{
    return match <= 2 ? 0 : match == 3 ? 1 : match <= 5 ? 2 : 3;
}

void draft_seen(struct draft_odds *o, uint32_t match, bool hit)
{
    uint32_t c = class_of(match);
    if (o->tries[c] >= 2 * MEMORY) {
        o->hits[c] /= 2;
        o->tries[c] /= 2;
    }
    o->hits[c] += hit ? 1 : 0;
    o->tries[c] += 1;
}

float draft_chance(const struct draft_odds *own, const struct draft_odds *all, uint32_t match)
{
    uint32_t c = class_of(match);
    float usual = (all->hits[c] + PRIOR * FIRST_CHANCE) / (all->tries[c] + PRIOR);
    return (own->hits[c] + PRIOR * usual) / (own->tries[c] + PRIOR);
}
