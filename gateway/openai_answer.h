/* One answer in OpenAI's shapes: deltas in, JSON or server-sent events out. No I/O, no clock. */
#ifndef NUNCHI_GATEWAY_OPENAI_ANSWER_H
#define NUNCHI_GATEWAY_OPENAI_ANSWER_H

#include "gateway/answer.h"
#include "gateway/openai.h"

struct logprob_text { /* members of JSON arrays, without the brackets */
    buf a, b, c, d;
    size_t n;
};

struct answer_choice {
    buf text; /* not streamed: all of it */
    buf tail; /* bytes of a character that is not whole yet */
    struct logprob_text logprobs;
    uint64_t offset; /* characters so far, for text_offset */
    bool begun;
    enum gw_end end;
};

struct openai_answer {
    enum openai_api api;
    bool stream, include_usage, with_logprobs, echo;
    char id[48];
    uint64_t created_s;
    char fingerprint[24];
    char *model;
    uint32_t n_choices;
    struct answer_choice *choice; /* n_choices */
};

/* `unique` is 16 random bytes: the id's text. */
void openai_answer_init(struct openai_answer *a, enum openai_api api, const struct gw_request *r,
                        const uint8_t unique[16], uint64_t created_s);
void openai_answer_clear(struct openai_answer *a);
/* Each appends what is to be sent now; without streaming only done does. */
void openai_answer_start(struct openai_answer *a, const struct gw_start *s, buf *out);
void openai_answer_delta(struct openai_answer *a, const struct gw_delta *d, buf *out);
void openai_answer_end(struct openai_answer *a, uint32_t choice, enum gw_end why, buf *out);
void openai_answer_done(struct openai_answer *a, const struct gw_usage *u, buf *out);
/* An error after the head was sent. */
void openai_answer_failed(const struct openai_error *e, buf *out);
/* A comment, which clients skip; keeps connections and people awake. */
void openai_answer_ping(buf *out, const char *text);

#endif
