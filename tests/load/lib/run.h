/* The load itself: streams that ask and read, and what came of it. */
#ifndef NUNCHI_LOAD_RUN_H
#define NUNCHI_LOAD_RUN_H

#include "tests/load/lib/cputime.h"
#include "tests/load/lib/prompts.h"
#include "tests/load/lib/spread.h"
#include "tests/load/lib/target.h"

enum failure {
    FAIL_CONNECT,  /* no connection */
    FAIL_CLOSED,   /* it ended before the answer did */
    FAIL_STATUS,   /* not 200 */
    FAIL_EVENT,    /* an error within the stream */
    FAIL_PROTOCOL, /* not HTTP, or a stream without [DONE] or without text */
    FAIL_TIMEOUT,  /* open when the run ended */
    FAIL_WRONG,    /* whole, but not the text that it must be (--check-words) */
    FAILURES
};
extern const char *const FAILURE_NAMES[FAILURES];

struct load_result {
    struct spread first; /* from the (intended) start to the first text */
    struct spread gap;   /* between two pieces of text of one answer */
    struct spread delay; /* from when a simulated worker sent a stamp until it was read here */
    struct spread whole; /* from the (intended) start to [DONE] */
    uint64_t n_ok, n_begun, failed[FAILURES];
    char why[256]; /* of the first failure */
    double prompt_tokens, cached_tokens, tokens;
    double wall_s; /* from the first request to the last end */
    /* While all streams were busy: from the moment when each had its first text until the first
     * found nothing left to ask. 0 if that never was, or with --rate. */
    double steady_s, steady_tokens;
    struct cputime cpu;
};

int load_run(const struct load_options *o, struct load_result *out, struct why *w) MUST_USE;

#endif
