/* The heart of both tokenizers: which two neighbours merge, in which order, and the merging of a
 * run of symbols. The pair of lowest rank merges first, the leftmost of equals; time is O(n log n)
 * whatever the text, so that a million equal characters cost no more than a million different ones.
 * Immutable once filled: threads share it. */
#ifndef NUNCHI_TOKENIZER_MERGES_H
#define NUNCHI_TOKENIZER_MERGES_H

#include "common/base/slice.h"

#define MERGE_NONE UINT32_MAX

typedef struct merges merges;

/* Scratch of one thread, reused between runs; zero is empty. */
struct merge_scratch {
    uint64_t *heap;
    uint32_t *next, *prev, *rank;
    size_t cap; /* symbols the arrays have room for */
};

merges *merges_new(void);
void merges_free(merges *m); /* NULL is allowed */
/* The first rank given to a pair stays. ERR_NOMEM. */
int merges_add(merges *m, int32_t left, int32_t right, uint32_t rank, int32_t merged) MUST_USE;
uint32_t merges_rank(const merges *m, int32_t left, int32_t right,
                     int32_t *merged); /* MERGE_NONE: they do not */
size_t merges_len(const merges *m);

/* Merges sym[0..n) in place; returns the new number of symbols through *n. ERR_NOMEM. */
int merges_apply(const merges *m, struct merge_scratch *s, int32_t *sym, size_t *n) MUST_USE;
void merge_scratch_clear(struct merge_scratch *s);

#endif
