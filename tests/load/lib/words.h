/* What simulated workers answer: each word is a function of the prompt, the choice and its position
 * alone, so that who asked can tell a right answer from a wrong one, whoever gave it and however
 * often it moved. Tokens of a prompt are its bytes by fours. */
#ifndef NUNCHI_LOAD_WORDS_H
#define NUNCHI_LOAD_WORDS_H

#include "common/base/slice.h"

#define WORD_MAX 16
/* FNV-1a, 64 bits: begin with WORDS_BEGIN. */
#define WORDS_BEGIN UINT64_C(14695981039346656037)

uint64_t words_sum(uint64_t sum, slice bytes);
void words_ids(slice text, buf *ids); /* appends le32 ids, none negative */
uint64_t words_prompt(slice ids);     /* of a prompt's ids, as above */
int32_t words_id(uint64_t prompt, uint32_t choice, uint32_t position);
slice words_text(int32_t id, char out[WORD_MAX]); /* " k3f": plain in JSON */
/* In place of a word: when it was sent, by the monotonic clock of this machine. " @" and ten
 * digits. */
slice words_stamp(uint64_t us, char out[WORD_MAX]);
uint64_t words_stamp_of(slice text); /* 0: it is none */
/* The sum over the text of n words. */
uint64_t words_answer(uint64_t prompt, uint32_t choice, uint32_t n);

#endif
