/* Text to ids and back with one model's vocabulary. A `tokenizer` is immutable and shared by
 * threads; each thread has a tok_scratch. Control tokens never come out of text: whoever wants one
 * names it (tokenizer_special). */
#ifndef NUNCHI_TOKENIZER_TOKENIZER_H
#define NUNCHI_TOKENIZER_TOKENIZER_H

#include "engine/engine.h"
#include "tokenizer-svc/ids.h"

typedef struct tokenizer tokenizer;
typedef struct tok_scratch tok_scratch;

/* Borrows the vocabulary. ERR_UNSUPPORTED, ERR_INVALID, ERR_NOMEM: the vocabulary cannot be used,
 * *w says why. */
int tokenizer_new(const vocab *v, tokenizer **out, struct why *w) MUST_USE;
void tokenizer_free(tokenizer *t); /* NULL is allowed */
const vocab *tokenizer_vocab(const tokenizer *t);

tok_scratch *tok_scratch_new(const tokenizer *t);
void tok_scratch_free(tok_scratch *s); /* NULL is allowed */

/* Appends the ids of `text`, which must be UTF-8. What looks like a special token in it is text
 * like any other; pieces that the vocabulary declares as whole (rows of new lines) are taken whole.
 * at_start: nothing stands before it, or a special token (vocabularies that begin a text with a
 * space need to know).
 * ERR_INVALID, ERR_NOMEM. */
int tokenizer_encode(const tokenizer *t, tok_scratch *s, slice text, bool at_start, struct ids *out,
                     struct why *w) MUST_USE;

/* The token that is written so and is no ordinary text (control, or declared whole); TOKEN_NONE if
 * there is none. */
int32_t tokenizer_special(const tokenizer *t, slice literal);

/* Most bytes of text that one id can stand for: a text of n bytes has at least n / this ids. */
size_t tokenizer_piece_max(const tokenizer *t);

/* Ids to text as they come. What is written so far is always whole characters: a syllable that is
 * split over tokens is held back until it is complete; bytes that never become a character turn
 * into U+FFFD. Embedded; zero it, set the vocabulary. */
struct tok_decoder {
    const vocab *v;
    bool skip_special;
    bool started;
    char tail[4];
    uint8_t n_tail;
};
void tok_decode(struct tok_decoder *d, int32_t id, buf *out);
void tok_decode_end(struct tok_decoder *d, buf *out); /* what is held back, repaired */

#endif
