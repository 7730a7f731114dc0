/* What the core tells the client's side of an answer, in order: start, then deltas and choice ends,
 * then done; or failed at any time. Exactly one of done and failed ends it; nothing follows.
 * Pointers are borrowed for the call. */
#ifndef NUNCHI_GATEWAY_ANSWER_H
#define NUNCHI_GATEWAY_ANSWER_H

#include "common/base/slice.h"
#include "proto/generate.pb-c.h"

struct gw_start {
    slice numerics; /* 32 bytes: names the arithmetic */
    bool cached;    /* answered from the result cache */
    slice first;    /* of an echo: the text of the prompt's first token, which no delta brings */
};

struct gw_delta {
    uint32_t choice;
    slice text; /* not aligned to characters */
    Nunchi__TokenLogprob *const *logprobs;
    size_t n_logprobs;
};

enum gw_end { GW_END_STOP, GW_END_LENGTH };

struct gw_usage {
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    bool numerics_changed; /* its end was computed by other arithmetic than its beginning: no worker
                              of the first kind was left */
};

struct gw_fail {
    int err;
    const char *code; /* of OpenAI's error objects; NULL: by err */
    struct why why;
    uint32_t retry_after_ms; /* 0: not said */
};

struct gw_client_ops {
    void (*waiting)(void *ctx,
                    uint32_t permille); /* a video is still being read; about once a second */
    void (*start)(void *ctx, const struct gw_start *s);
    void (*delta)(void *ctx, const struct gw_delta *d);
    void (*choice_end)(void *ctx, uint32_t choice, enum gw_end why);
    void (*done)(void *ctx, const struct gw_usage *u);
    void (*failed)(void *ctx, const struct gw_fail *f);
    /* False: the client does not keep up; tokens are not asked for until gw_client_ready. */
    bool (*ready)(void *ctx);
};

#endif
