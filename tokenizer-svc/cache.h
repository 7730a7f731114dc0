/* Words seen before and their ids: fixed memory, direct-mapped, one per thread. A word is one cache
 * line. */
#ifndef NUNCHI_TOKENIZER_CACHE_H
#define NUNCHI_TOKENIZER_CACHE_H

#include "tokenizer-svc/ids.h"

#define WORD_BYTES_MAX 30 /* longer words are rare, and not kept */
#define WORD_IDS_MAX 8

struct word {
    uint8_t len; /* 0: empty */
    uint8_t n;
    char text[WORD_BYTES_MAX];
    int32_t ids[WORD_IDS_MAX];
};

struct word_cache {
    struct word *at; /* NULL: no cache */
    uint64_t mix;
};

void word_cache_init(struct word_cache *c);
void word_cache_clear(struct word_cache *c);
/* The place of this word, holding it or another; NULL when it is too long for the cache. */
struct word *word_cache_slot(const struct word_cache *c, slice text);
bool word_is(const struct word *w, slice text);
void word_set(struct word *w, slice text, const int32_t *ids,
              size_t n); /* ignored when too many ids */

#endif
