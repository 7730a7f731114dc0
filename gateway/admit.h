/* Who is let in, whose turn it is, and when the refused should come again. Pure; one thread.
 *
 * What waits is counted in requests and in prompt tokens, in all and per tenant: tokens are what
 * the workers' time goes into. Those who wait get their turns as in start-time fair queueing
 * (Goyal, Vin, Cheng 1996), the cost of a request being its tokens: a client with a hundred
 * requests waiting does not put off another's first by a hundred. */
#ifndef NUNCHI_GATEWAY_ADMIT_H
#define NUNCHI_GATEWAY_ADMIT_H

#include "gateway/answer.h"

struct admit_limits {
    uint32_t requests_max;      /* open at once */
    uint32_t queue_max;         /* of them without a worker */
    uint32_t tenant_max;        /* open at once of one tenant; 0: no limit */
    uint64_t queue_tokens_max;  /* of prompts that wait; 0: no limit */
    uint64_t tenant_tokens_max; /* of prompts of one tenant that wait; 0: no limit */
};

/* One request's place in the books; embedded, zero-initialised. */
struct ticket {
    uint8_t tenant[32], client[16];
    uint64_t tokens; /* of its prompt, waiting ones */
    uint64_t turn;   /* the smaller the earlier */
    bool in, waits;
};

typedef struct admit admit;

admit *admit_new(const struct admit_limits *limits);
void admit_free(admit *a);
/* 0, or *f says which limit, and after how long there should be room, from what was measured
 * lately. n_queued: requests that wait for a worker now. */
int admit_check(admit *a, uint64_t now_us, const struct ticket *t, size_t n_queued,
                struct gw_fail *f) MUST_USE;
void admit_enter(admit *a, struct ticket *t);
void admit_tokens(admit *a, struct ticket *t, uint64_t tokens); /* a guess until they are known */
void admit_placed(admit *a, struct ticket *t, uint64_t now_us); /* harmless the second time */
void admit_leave(admit *a, struct ticket *t, uint64_t now_us);
uint64_t admit_waiting_tokens(const admit *a);

#endif
