/* Log probabilities in the two shapes that OpenAI has for them. */
#ifndef NUNCHI_GATEWAY_OPENAI_LOGPROBS_H
#define NUNCHI_GATEWAY_OPENAI_LOGPROBS_H

#include "gateway/openai_answer.h"

void logprobs_add(struct logprob_text *t, enum openai_api api, uint64_t *offset,
                  const Nunchi__TokenLogprob *lp);
/* The first token of an echoed prompt: nothing stands before it that could tell how likely it is. */
void logprobs_add_first(struct logprob_text *t, uint64_t *offset, slice text);
/* The value of "logprobs"; empties t. */
void logprobs_put(struct json_out *j, enum openai_api api, struct logprob_text *t);
void logprobs_clear(struct logprob_text *t);

#endif
