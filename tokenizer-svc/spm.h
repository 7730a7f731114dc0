/* SentencePiece vocabularies with scores: characters are the first symbols, and the two neighbours
 * whose joined piece has the best score merge first; a character the vocabulary lacks becomes its
 * bytes. Spaces are written U+2581. Immutable: threads share one, each with a scratch of its own.
 */
#ifndef NUNCHI_TOKENIZER_SPM_H
#define NUNCHI_TOKENIZER_SPM_H

#include "engine/engine.h"
#include "tokenizer-svc/ids.h"

typedef struct spm spm;
typedef struct spm_scratch spm_scratch;

int spm_new(const vocab *v, spm **out,
            struct why *w) MUST_USE; /* borrows the vocabulary; ERR_NOMEM, ERR_INVALID */
void spm_free(spm *m);               /* NULL is allowed */

spm_scratch *spm_scratch_new(const spm *m);
void spm_scratch_free(spm_scratch *s); /* NULL is allowed */

/* Appends the ids of the text, all of it as text; space_first puts a space before it. Text must be
 * UTF-8. */
int spm_encode(const spm *m, spm_scratch *s, slice text, bool space_first, struct ids *out,
               struct why *w) MUST_USE;

/* True for a piece the vocabulary declares as a whole token that is not made of spaces: those are
 * cut out of a text before merging; runs of spaces are merged like any other piece. */
bool spm_is_literal(const vocab *v, int32_t id);

#endif
