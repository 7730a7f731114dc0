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

/* An index of where each id, and each pair of ids, was said: 16 to 32 bytes an id. Zero-initialise.
 */
struct drafter {
    struct draft_chains {
        uint32_t *head; /* (cap) by hash: 1 + the position of its last id; 0: none */
        uint32_t *prev; /* (cap) by position: the place of the same hash before it */
    } ones, pairs;
    uint32_t cap, n;
};

/* Where a guess comes from. */
struct draft_source {
    uint32_t match; /* so many of the latest ids were said before; 0: there is no guess */
    bool agreed;    /* most of the places where they were said go on with the guess */
};

void drafter_clear(struct drafter *d);
/* Takes in what the text has more than last time (it never shrinks or changes), and writes at most
 * `max` ids that may follow. Returns how many; amortised O(1) for each id of the text. */
uint32_t drafter_guess(struct drafter *d, const struct draft_text *t, int32_t *out, uint32_t max,
                       struct draft_source *from);

/* How often guesses come true, by what they come from. Recent ones count more. Zero-initialise. */
#define DRAFT_CLASSES 15
struct draft_odds {
    float hits[DRAFT_CLASSES], tries[DRAFT_CLASSES];
};

/* nth: of the ids guessed, from 0; those before it came true. */
void draft_seen(struct draft_odds *o, const struct draft_source *from, uint32_t nth, bool hit);
/* The chance that it comes true if those before it do, in an answer whose odds are `own`, among
 * answers whose odds are `all`. */
float draft_chance(const struct draft_odds *own, const struct draft_odds *all,
                   const struct draft_source *from, uint32_t nth);

#endif
