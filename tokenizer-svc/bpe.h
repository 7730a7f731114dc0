/* Byte-level BPE: a word's bytes are its first symbols, and merges make tokens of them. Immutable:
 * threads share one, each with a scratch of its own. */
#ifndef NUNCHI_TOKENIZER_BPE_H
#define NUNCHI_TOKENIZER_BPE_H

#include "engine/engine.h"
#include "tokenizer-svc/ids.h"

typedef struct bpe bpe;
typedef struct bpe_scratch bpe_scratch;

/* Borrows the vocabulary. ERR_UNSUPPORTED: a pre-tokenizer not known here; ERR_INVALID: no bytes in
 * the vocabulary. */
int bpe_new(const vocab *v, bpe **out, struct why *w) MUST_USE;
void bpe_free(bpe *b); /* NULL is allowed */

bpe_scratch *bpe_scratch_new(const bpe *b);
void bpe_scratch_free(bpe_scratch *s); /* NULL is allowed */

/* Appends the ids of the text, all of it as text. A byte the vocabulary lacks has no id and is left
 * out, as the reference does. Text must be UTF-8. ERR_NOMEM, ERR_INVALID (see pretok.h). */
int bpe_encode(const bpe *b, bpe_scratch *s, slice text, struct ids *out, struct why *w) MUST_USE;

#endif
