/* Stop strings over bytes. The outcome is a function of the bytes fed, one by one, so it does not
 * matter how they were cut into tokens, and feeding the ids of an answer again gives the same
 * state. The first stop string to end wins; of several that end at the same byte, the longest. */
#ifndef NUNCHI_MODEL_STOP_H
#define NUNCHI_MODEL_STOP_H

#include "common/base/slice.h"

#define STOPS_MAX 16
#define STOP_BYTES_MAX 256

/* The strings of one request; shared by its choices. */
struct stop_set {
    size_t n;
    slice text[STOPS_MAX]; /* borrowed */
    uint16_t fail[STOPS_MAX]
                 [STOP_BYTES_MAX]; /* fail[s][i]: longest proper border of the first i+1 bytes */
};

/* One choice's place in them. Zero-initialise. */
struct stop_state {
    uint16_t matched[STOPS_MAX]; /* how much of each string the bytes so far end with */
    uint16_t n_held;
    char held[STOP_BYTES_MAX]; /* the last bytes: they may begin a stop string */
};

/* texts: at most STOPS_MAX, each 1..STOP_BYTES_MAX bytes (checked by the caller), alive as long as
 * the set. */
void stops_init(struct stop_set *set, const slice *texts, size_t n);
/* Feeds bytes; appends to *out those that are now certain to be text. Returns the index of the stop
 * string that ended, or -1. After a match nothing more may be fed; neither the string nor what
 * follows it is text. */
int stops_feed(const struct stop_set *set, struct stop_state *st, slice bytes, buf *out);
/* What is held back: text after all, if the answer ends here. */
slice stops_held(const struct stop_state *st);

#endif
