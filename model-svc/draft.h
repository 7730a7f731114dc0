/* Guesses at what an answer says next: what followed the last time its latest ids were said, in the
 * prompt or in the answer itself. Answers about notes quote them. A guess costs a row of a step and
 * never changes an answer; `draft_odds` says how often guesses come true. No I/O. One thread. */
#ifndef NUNCHI_MODEL_DRAFT_H
#define NUNCHI_MODEL_DRAFT_H

#include <stdbool.h>
#include <stdint.h>

/* Most ids guessed at once: beyond it, steps cost more than they bring even if all come true. */
#define DRAFT_MAX 32

/* What is known, in two pieces. */
struct draft_text {
    const int32_t *prompt, *ids;
    uint32_t n_prompt, n_ids;
};

/* An index of where each pair of ids was said last: 8 to 16 bytes an id. Zero-initialise. */
struct drafter {
    uint32_t *head; /* (cap) by hash of a pair: 1 + the position of its second id; 0: none */
    uint32_t *prev; /* (cap) by position: the same pair's, or another of that hash, before it */
    uint32_t cap, n;
};

void drafter_clear(struct drafter *d);
/* Takes in what the text has more than last time (it never shrinks or changes), and writes at most
 * `max` ids that may follow. *match: how many of the latest ids were said before, 2 at least.
 * Returns how many ids; amortised O(1) for each id of the text. */
uint32_t drafter_guess(struct drafter *d, const struct draft_text *t, int32_t *out, uint32_t max,
                       uint32_t *match);

/* How often guesses come true, by the length of the match: the longer, the more often. Recent ones
 * count more. Zero-initialise. */
#define DRAFT_CLASSES 4
struct draft_odds {
    float hits[DRAFT_CLASSES], tries[DRAFT_CLASSES];
};

void draft_seen(struct draft_odds *o, uint32_t match, bool hit);
/* The chance that an id guessed from such a match comes true, in an answer whose odds are `own`,
 * among answers whose odds are `all`. */
float draft_chance(const struct draft_odds *own, const struct draft_odds *all, uint32_t match);

#endif
