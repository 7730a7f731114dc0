#include "tokenizer-svc/cache.h"

#include "common/base/clock.h"

#define CACHE_BITS 14 /* 16,384 words, 1 MiB: covers nearly all words of a text */

_Static_assert(sizeof(struct word) == 64, "a word fills one cache line");

void word_cache_init(struct word_cache *c)
{
    c->at = try_calloc((size_t)1 << CACHE_BITS, sizeof *c->at);
    c->mix = random_u64() | 1;
}

void word_cache_clear(struct word_cache *c)
{
    free(c->at);
    c->at = NULL;
}

static uint64_t load(const char *p, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, p, n);
    return v;
}

struct word *word_cache_slot(const struct word_cache *c, slice text)
{
    if (!c->at || text.n == 0 || text.n > WORD_BYTES_MAX)
        return NULL;
    uint64_t h = text.n * c->mix;
    size_t i = 0;
    for (; i + 8 <= text.n; i += 8)
        h = (h ^ load(text.p + i, 8)) * c->mix, h ^= h >> 32;
    h = (h ^ load(text.p + i, text.n - i)) * c->mix;
    return &c->at[h >> (64 - CACHE_BITS)];
}

bool word_is(const struct word *w, slice text)
{
    return w->len == text.n && memcmp(w->text, text.p, text.n) == 0;
}

void word_set(struct word *w, slice text, const int32_t *ids, size_t n)
{
    if (n > WORD_IDS_MAX)
        return;
    w->len = (uint8_t)text.n;
    w->n = (uint8_t)n;
    memcpy(w->text, text.p, text.n);
    if (n > 0)
        memcpy(w->ids, ids, n * sizeof *ids);
}
