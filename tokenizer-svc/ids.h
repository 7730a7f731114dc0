/* A growing list of token ids. Embedded by its owner; zero is empty. */
#ifndef NUNCHI_TOKENIZER_IDS_H
#define NUNCHI_TOKENIZER_IDS_H

#include "common/base/slice.h"

struct ids {
    int32_t *p;
    size_t n, cap;
};

int ids_reserve(struct ids *l, size_t more) MUST_USE; /* ERR_NOMEM */
int ids_put(struct ids *l, int32_t id) MUST_USE;
int ids_put_all(struct ids *l, const int32_t *p, size_t n) MUST_USE;
void ids_clear(struct ids *l); /* frees; empty and usable again */

#endif
