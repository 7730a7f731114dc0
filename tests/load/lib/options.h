/* What a run of http_load is asked for. One table gives flags, ranges and --help. */
#ifndef NUNCHI_LOAD_OPTIONS_H
#define NUNCHI_LOAD_OPTIONS_H

#include "common/base/config.h"

/* One run: more would be a soak test, for which the fixed-size statistics were not made. */
#define LOAD_STREAMS_MAX 16384
#define LOAD_REQUESTS_MAX 1000000
#define LOAD_TOKENS_MAX 1048576
#define LOAD_WORDS_MAX 100000

struct load_options {
    char *url, *model, *key, *header;
    bool any_host;
    int64_t streams, requests, duration_ms, timeout_ms;
    double rate;
    int64_t slow, slow_tokens;

    int64_t prompt_words, shared_words, max_tokens, seed, shared_seed;
    char *prompts;
    double temperature;
    bool ignore_eos, usage, check_words;

    char *cpu_of, *json;
    bool quiet;
};

extern const struct config_spec LOAD_OPTIONS;

#endif
