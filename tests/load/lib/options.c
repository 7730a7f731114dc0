#include "tests/load/lib/options.h"

#include <stddef.h>

#define ROW(field, name, type, def, min, max, help)                                                \
    CONFIG_OPT(struct load_options, field, name, type, def, min, max, help)

static const struct opt ROWS[] = {
    CONFIG_GROUP("Server"),
    ROW(url, "url", OPT_STR, "http://127.0.0.1:8642", 0, 0, "where it listens: http://host:port"),
    ROW(any_host, "any-host", OPT_BOOL, "false", 0, 0,
        "allow a target that is not this machine: it may not be yours to load"),
    ROW(model, "model-name", OPT_STR, NULL, 0, 256,
        "model to ask for; default: the first that GET /v1/models names"),
    ROW(key, "key", OPT_STR, NULL, 0, 1024, "API key"),
    ROW(header, "header", OPT_STR, NULL, 0, 1024,
        "one more header of every request, as 'Cache-Control: no-store'"),
    CONFIG_GROUP("Load"),
    ROW(streams, "streams", OPT_INT, "1", 1, LOAD_STREAMS_MAX,
        "connections; each sends its next request when its last one ended"),
    ROW(rate, "rate", OPT_FLOAT, "0", 0, 100000,
        "requests a second that arrive by chance (Poisson) however slow the answers are; their "
        "times count from the intended start, also while all connections are taken. 0: see "
        "--streams"),
    ROW(requests, "requests", OPT_INT, "0", 0, LOAD_REQUESTS_MAX,
        "how many in all; 0: one for each stream"),
    ROW(duration_ms, "duration", OPT_MS, "10m", 1, 3600000, "after that no request is begun"),
    ROW(timeout_ms, "timeout", OPT_MS, "10m", 1, 7200000,
        "after that the run ends; what is open then counts as failed"),
    ROW(slow, "slow", OPT_INT, "0", 0, LOAD_STREAMS_MAX,
        "streams that hardly read (64 bytes every 50 ms); they are left out of the statistics and "
        "not waited for"),
    ROW(slow_tokens, "slow-tokens", OPT_INT, "1500", 1, LOAD_TOKENS_MAX,
        "tokens of their answers: enough to fill the buffers in between"),
    CONFIG_GROUP("Requests"),
    ROW(prompt_words, "prompt-words", OPT_INT, "80", 1, LOAD_WORDS_MAX,
        "words of each prompt, no two prompts alike; about 1.1 tokens each"),
    ROW(shared_words, "shared-words", OPT_INT, "0", 0, LOAD_WORDS_MAX,
        "words that all prompts begin with, before their own"),
    ROW(shared_seed, "shared-seed", OPT_INT, "1", 0, 1e15,
        "of the shared words: keep it to find them cached, change it to find them new"),
    ROW(prompts, "prompts", OPT_STR, NULL, 0, 0,
        "a file of prompts, one a line, in place of made-up ones"),
    ROW(max_tokens, "max-tokens", OPT_INT, "64", 1, LOAD_TOKENS_MAX, "tokens of each answer"),
    ROW(ignore_eos, "ignore-eos", OPT_BOOL, "true", 0, 0,
        "answers go on to max-tokens (nunchi and llama-server know ignore_eos)"),
    ROW(temperature, "temperature", OPT_FLOAT, "0", 0, 2, "0: the most likely token"),
    ROW(usage, "usage", OPT_BOOL, "true", 0, 0,
        "ask for usage and count tokens by it; without, every piece of text counts as one"),
    ROW(seed, "seed", OPT_INT, "1", 0, 1e15, "of the rest of the prompts, and of arrivals"),
    ROW(check_words, "check-words", OPT_BOOL, "false", 0, 0,
        "the server's workers are simulated (sim_workers): each answer is compared with what it "
        "must be; others fail"),
    CONFIG_GROUP("Report"),
    ROW(cpu_of, "cpu-of", OPT_STR, NULL, 0, 1024,
        "process ids, separated by commas, whose processor time is to be reported"),
    ROW(json, "json", OPT_STR, NULL, 0, 0, "file for the numbers as JSON; - for standard output"),
    ROW(quiet, "quiet", OPT_BOOL, "false", 0, 0, "no table"),
};

static int check(const void *cfg, struct why *w)
{
    const struct load_options *o = cfg;
    if (o->slow >= o->streams && o->slow > 0)
        return why_set(w, ERR_INVALID, "slow", "%lld of %lld streams are slow: none is measured",
                       (long long)o->slow, (long long)o->streams);
    if (o->header && (!strchr(o->header, ':') || o->header[0] == ':'))
        return why_set(w, ERR_INVALID, "header", "--header takes 'Name: value', not '%.40s'",
                       o->header);
    if (o->rate > 0 && o->requests == 0)
        return why_set(w, ERR_INVALID, "requests", "--rate needs --requests");
    return 0;
}

const struct config_spec LOAD_OPTIONS = {
    .program = "http_load",
    .about = "Load for a server that speaks OpenAI's API: streaming chat completions, measured.",
    .opts = ROWS,
    .n_opts = ARRAY_LEN(ROWS),
    .check = check,
};
