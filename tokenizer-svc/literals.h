/* Finds fixed texts inside a text: the leftmost match, the longest of those that start there. Used
 * for the pieces a vocabulary declares as whole tokens. Immutable once filled. */
#ifndef NUNCHI_TOKENIZER_LITERALS_H
#define NUNCHI_TOKENIZER_LITERALS_H

#include "common/base/slice.h"

typedef struct literals literals;

literals *literals_new(void);
void literals_free(literals *l);                        /* NULL is allowed */
void literals_add(literals *l, slice text, int32_t id); /* borrows text; empty ones are ignored */
void literals_ready(literals *l);                       /* after the last add */
/* The first match at or after `from`: its start in *at, its length in *len, its id. -1: none. */
int32_t literals_find(const literals *l, slice text, size_t from, size_t *at, size_t *len);

#endif
