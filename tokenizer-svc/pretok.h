/* Cuts a text into the words that byte-level merging may not cross, as the model was trained: one
 * pattern per name of GGUF's tokenizer.ggml.pre, or the model's own. This pair is the only one that
 * includes pcre2.h and utf8proc.h.
 *
 * The patterns say what a space is by listing the code points of Unicode's White_Space: PCRE2's own
 * \s leaves out U+0085 and counts U+180E, and ids would differ. Letters and numbers are those of
 * PCRE2's Unicode tables. */
#ifndef NUNCHI_TOKENIZER_PRETOK_H
#define NUNCHI_TOKENIZER_PRETOK_H

#include "engine/engine.h"

typedef struct pretok pretok;             /* immutable: threads share it */
typedef struct pretok_match pretok_match; /* scratch of one thread */

/* "smollm", "gpt-2", "llama-bpe" … (pretok.c lists them); an empty name is "gpt-2". normal: even
 * if the name does not say so. ERR_UNSUPPORTED for other names. */
int pretok_new(slice name, enum vocab_normal normal, pretok **out, struct why *w) MUST_USE;
/* By a pattern that came with the model: its matches are words, and so is what lies between two.
 * ERR_INVALID: it does not compile; ERR_UNSUPPORTED: it uses what PCRE2 reads in another way. */
int pretok_new_split(slice pattern, enum vocab_normal normal, pretok **out, struct why *w) MUST_USE;
void pretok_free(pretok *p); /* NULL is allowed */
bool pretok_whole_words(
    const pretok *p); /* a word that is in the vocabulary is taken whole, whatever its merges */

pretok_match *pretok_match_new(const pretok *p); /* for this pretok alone; aborts without memory */
void pretok_match_free(pretok_match *m);         /* NULL is allowed */

/* The text in the normal form the model wants; borrows `text` where it is in that form already,
 * else *keep holds the result. Text must be UTF-8. ERR_INVALID: a pile of combining marks beyond
 * PRETOK_MARKS_MAX. */
#define PRETOK_MARKS_MAX 1024 /* sorting a pile of marks takes time by the square of its height */
int pretok_normal(const pretok *p, slice text, buf *keep, slice *out, struct why *w) MUST_USE;

/* Length of the word at text[at..): at least 1 while at < text.n. Text must be UTF-8. ERR_INVALID
 * when matching takes more than its limits (none of our patterns does; a model's may). */
int pretok_word(pretok_match *m, slice text, size_t at, size_t *len, struct why *w) MUST_USE;

#endif
