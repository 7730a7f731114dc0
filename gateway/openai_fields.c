#include "common/base/nearest.h"
#include "gateway/openai_parse.h"

static int take_model(struct parse *p, const json_val *v)
{
    int e = json_to_str(v, &p->r->model, p->w);
    if (e == 0 && (p->r->model.n == 0 || p->r->model.n > NAME_BYTES_MAX))
        e = json_why(p->w, ERR_INVALID, v, "a model's name has 1 to %d bytes", NAME_BYTES_MAX);
    return e;
}

static int take_u32(struct parse *p, const json_val *v, int64_t min, int64_t max, uint32_t *out)
{
    int64_t n;
    int e = json_to_i64(v, min, max, &n, p->w);
    if (e == 0)
        *out = (uint32_t)n;
    return e;
}

static int take_temperature(struct parse *p, const json_val *v)
{
    return json_to_f64(v, 0, 2, &p->r->sampling.temperature, p->w);
}

static int take_top_p(struct parse *p, const json_val *v)
{
    return json_to_f64(v, 0, 1, &p->r->sampling.top_p, p->w);
}

static int take_min_p(struct parse *p, const json_val *v)
{
    return json_to_f64(v, 0, 1, &p->r->sampling.min_p, p->w);
}

static int take_top_k(struct parse *p, const json_val *v)
{
    return take_u32(p, v, 0, TOP_K_MAX, &p->r->sampling.top_k);
}

static int take_presence(struct parse *p, const json_val *v)
{
    return json_to_f64(v, -2, 2, &p->r->sampling.presence_penalty, p->w);
}

static int take_frequency(struct parse *p, const json_val *v)
{
    return json_to_f64(v, -2, 2, &p->r->sampling.frequency_penalty, p->w);
}

static int take_repetition(struct parse *p, const json_val *v)
{
    return json_to_f64(v, 0.01, 10, &p->r->sampling.repetition_penalty, p->w);
}

static int take_seed(struct parse *p, const json_val *v)
{
    int64_t seed;
    int e = json_to_i64(v, INT64_MIN, INT64_MAX, &seed, p->w);
    if (e == 0) {
        p->r->sampling.seed = (uint64_t)seed;
        p->r->sampling.seed_given = true;
    }
    return e;
}

static int take_n(struct parse *p, const json_val *v)
{
    return take_u32(p, v, 1, CHOICES_MAX, &p->r->n);
}

/* Two names of one thing; the newer one wins when both are there (it comes later in the table). */
static int take_max_tokens(struct parse *p, const json_val *v)
{
    return take_u32(p, v, 1, MAX_TOKENS_MAX, &p->r->max_tokens);
}

static int take_echo(struct parse *p, const json_val *v)
{
    return json_to_bool(v, &p->r->echo, p->w);
}

/* 0 asks for the prompt alone (echo). */
static int take_completion_tokens(struct parse *p, const json_val *v)
{
    int e = take_u32(p, v, 0, MAX_TOKENS_MAX, &p->r->max_tokens);
    p->r->echo_alone = e == 0 && p->r->max_tokens == 0;
    return e;
}

static int take_stream(struct parse *p, const json_val *v)
{
    return json_to_bool(v, &p->r->stream, p->w);
}

static int take_stream_options(struct parse *p, const json_val *v)
{
    static const char *const KNOWN[] = {"include_usage", "include_obfuscation"};
    bool stream = false, obfuscation = false;
    int e = json_need_obj(v, p->w);
    if (e == 0)
        e = json_only(v, KNOWN, ARRAY_LEN(KNOWN), p->w);
    if (e == 0)
        e = json_opt_bool(p->root, "stream", &stream, p->w);
    if (e >= 0 && !stream)
        return json_why(p->w, ERR_INVALID, v, "only allowed when 'stream' is true");
    if (e >= 0)
        e = json_opt_bool(v, "include_usage", &p->r->include_usage, p->w);
    if (e >= 0)
        e = json_opt_bool(v, "include_obfuscation", &obfuscation, p->w);
    if (e >= 0 && obfuscation)
        return json_why_key(p->w, ERR_UNSUPPORTED, v, "include_obfuscation",
                            "not supported; leave it out or send false");
    return e < 0 ? e : 0;
}

static int take_stop_string(struct parse *p, const json_val *v)
{
    slice s;
    int e = json_to_str(v, &s, p->w);
    if (e < 0)
        return e;
    if (s.n == 0 || s.n > STOP_BYTES_MAX)
        return json_why(p->w, ERR_INVALID, v, "a stop string has 1 to %d bytes", STOP_BYTES_MAX);
    p->r->stop[p->r->n_stop++] = s;
    return 0;
}

static int take_stop(struct parse *p, const json_val *v)
{
    if (json_kind(v) == JSON_KIND_STR)
        return take_stop_string(p, v);
    int e = json_need_arr(v, 0, STOPS_MAX, p->w);
    for (const json_val *s = json_first(v); e == 0 && s; s = json_next(s))
        e = take_stop_string(p, s);
    return e;
}

static int take_bias(struct parse *p, const json_val *v)
{
    int e = json_need_obj(v, p->w);
    if (e < 0)
        return e;
    size_t n = json_len(v);
    if (n > BIAS_MAX)
        return json_why(p->w, ERR_INVALID, v, "%zu entries, at most %d", n, BIAS_MAX);
    struct gw_bias *bias = arena_get(p->r->a, (n ? n : 1) * sizeof *bias);
    for (const json_val *m = json_first(v); m; m = json_next(m), bias++) {
        uint64_t id;
        double add;
        if (slice_u64(json_name(m), &id) < 0 || id > INT32_MAX)
            return json_why(p->w, ERR_INVALID, m, "the keys of logit_bias are token ids");
        if ((e = json_to_f64(m, -100, 100, &add, p->w)) < 0)
            return e;
        *bias = (struct gw_bias){.id = (int32_t)id, .add = (float)add};
    }
    p->r->sampling.bias = bias - n;
    p->r->sampling.n_bias = n;
    return 0;
}

static int take_logprobs_flag(struct parse *p, const json_val *v)
{
    return json_to_bool(v, &p->r->sampling.logprobs, p->w);
}

static int take_top_logprobs(struct parse *p, const json_val *v)
{
    int e = take_u32(p, v, 0, TOP_LOGPROBS_MAX, &p->r->sampling.top_logprobs);
    bool on = false;
    if (e == 0)
        e = json_opt_bool(p->root, "logprobs", &on, p->w);
    if (e >= 0 && !on && p->r->sampling.top_logprobs)
        return json_why(p->w, ERR_INVALID, v, "only allowed when 'logprobs' is true");
    return e < 0 ? e : 0;
}

/* In /v1/completions `logprobs` is a number: the chosen token's and so many of the likeliest. */
static int take_logprobs_count(struct parse *p, const json_val *v)
{
    p->r->sampling.logprobs = true;
    return take_u32(p, v, 0, COMPLETION_LOGPROBS_MAX, &p->r->sampling.top_logprobs);
}

static int take_ignore_eos(struct parse *p, const json_val *v)
{
    return json_to_bool(v, &p->r->ignore_eos, p->w);
}

static int take_hint(struct parse *p, const json_val *v)
{
    slice s;
    int e = json_to_str(v, &s, p->w);
    if (e == 0 && s.n > HINT_BYTES_MAX)
        e = json_why(p->w, ERR_INVALID, v, "%zu bytes, at most %d", s.n, HINT_BYTES_MAX);
    return e;
}

/* ---- fields of which only the value that means "without" is served ---- */

static int only_false(struct parse *p, const json_val *v)
{
    bool on;
    int e = json_to_bool(v, &on, p->w);
    if (e == 0 && on)
        e = json_why(p->w, ERR_UNSUPPORTED, v, "not supported; leave it out or send false");
    return e;
}

static int only_empty(struct parse *p, const json_val *v)
{
    if (json_kind(v) == JSON_KIND_ARR && json_len(v) == 0)
        return 0;
    return json_why(p->w, ERR_UNSUPPORTED, v, "calling tools is not supported yet; leave it out");
}

static int only_none(struct parse *p, const json_val *v)
{
    if (slice_eq_str(json_str_or(v, SLICE_LIT("")), "none"))
        return 0;
    return json_why(p->w, ERR_UNSUPPORTED, v,
                    "calling tools is not supported yet; leave it out or send \"none\"");
}

static int only_text_format(struct parse *p, const json_val *v)
{
    slice type = {0};
    int e = json_need_obj(v, p->w);
    if (e == 0)
        e = json_req_str(v, "type", HINT_BYTES_MAX, &type, p->w);
    if (e == 0 && !slice_eq_str(type, "text"))
        e = json_why(p->w, ERR_UNSUPPORTED, v, "only {\"type\":\"text\"} is supported yet");
    return e;
}

static int only_text_modality(struct parse *p, const json_val *v)
{
    int e = json_need_arr(v, 1, 8, p->w);
    for (const json_val *m = json_first(v); e == 0 && m; m = json_next(m))
        if (!slice_eq_str(json_str_or(m, SLICE_LIT("")), "text"))
            e = json_why(p->w, ERR_UNSUPPORTED, m, "answers are text; only \"text\" is supported");
    return e;
}

static int only_default_tier(struct parse *p, const json_val *v)
{
    slice tier = json_str_or(v, SLICE_LIT(""));
    if (slice_eq_str(tier, "auto") || slice_eq_str(tier, "default"))
        return 0;
    return json_why(p->w, ERR_UNSUPPORTED, v, "only \"auto\" and \"default\" are supported");
}

/* best_of other than n means sampling answers that nobody sees. */
static int only_best_of_n(struct parse *p, const json_val *v)
{
    int64_t best, n = 1;
    int e = json_to_i64(v, 1, CHOICES_MAX, &best, p->w);
    if (e == 0)
        e = json_opt_i64(p->root, "n", 1, CHOICES_MAX, &n, p->w);
    if (e >= 0 && best != n)
        e = json_why(p->w, ERR_UNSUPPORTED, v, "only the same number as 'n' is supported");
    return e < 0 ? e : 0;
}

static int only_empty_text(struct parse *p, const json_val *v)
{
    if (json_kind(v) == JSON_KIND_STR && json_str_or(v, SLICE_LIT("x")).n == 0)
        return 0;
    return json_why(p->w, ERR_UNSUPPORTED, v,
                    "inserting before a suffix is not supported; leave it out");
}

#define CHAT OPENAI_CHAT
#define COMPLETION OPENAI_COMPLETION
#define BOTH (OPENAI_CHAT | OPENAI_COMPLETION)

/* What the API knows. A name that is in no row is refused as OpenAI refuses it. Order matters for
 * max_tokens alone. */
static const struct field FIELDS[] = {
    {"model", BOTH, take_model, NULL},
    {"messages", CHAT, take_messages, NULL},
    {"prompt", COMPLETION, take_prompt, NULL},
    {"temperature", BOTH, take_temperature, NULL},
    {"top_p", BOTH, take_top_p, NULL},
    {"top_k", BOTH, take_top_k, NULL},
    {"min_p", BOTH, take_min_p, NULL},
    {"presence_penalty", BOTH, take_presence, NULL},
    {"frequency_penalty", BOTH, take_frequency, NULL},
    {"repetition_penalty", BOTH, take_repetition, NULL},
    {"seed", BOTH, take_seed, NULL},
    {"n", BOTH, take_n, NULL},
    {"max_tokens", CHAT, take_max_tokens, NULL},
    {"max_tokens", COMPLETION, take_completion_tokens, NULL},
    {"max_completion_tokens", CHAT, take_max_tokens, NULL},
    {"stream", BOTH, take_stream, NULL},
    {"stream_options", BOTH, take_stream_options, NULL},
    {"stop", BOTH, take_stop, NULL},
    {"logit_bias", BOTH, take_bias, NULL},
    {"logprobs", CHAT, take_logprobs_flag, NULL},
    {"top_logprobs", CHAT, take_top_logprobs, NULL},
    {"logprobs", COMPLETION, take_logprobs_count, NULL},
    {"ignore_eos", BOTH, take_ignore_eos, NULL},
    {"user", BOTH, take_hint, NULL},
    {"safety_identifier", BOTH, take_hint, NULL},
    {"prompt_cache_key", BOTH, take_hint, NULL},
    {"prompt_cache_retention", BOTH, take_hint, NULL},
    {"service_tier", BOTH, only_default_tier, NULL},
    {"store", CHAT, only_false, NULL},
    {"response_format", CHAT, only_text_format, NULL},
    {"modalities", CHAT, only_text_modality, NULL},
    {"tools", CHAT, only_empty, NULL},
    {"functions", CHAT, only_empty, NULL},
    {"tool_choice", CHAT, only_none, NULL},
    {"function_call", CHAT, only_none, NULL},
    {"best_of", COMPLETION, only_best_of_n, NULL},
    {"echo", COMPLETION, take_echo, NULL},
    {"suffix", COMPLETION, only_empty_text, NULL},
    {"parallel_tool_calls", CHAT, NULL, "calling tools is not supported yet; leave it out"},
    {"audio", CHAT, NULL, "audio is not supported; leave it out"},
    {"prediction", CHAT, NULL, "predicted outputs are not supported; leave it out"},
    {"reasoning_effort", CHAT, NULL,
     "the models served here have no reasoning effort; leave it out"},
    {"verbosity", CHAT, NULL, "not supported; leave it out"},
    {"web_search_options", CHAT, NULL, "searching the web is not supported; leave it out"},
    {"moderation", CHAT, NULL, "not supported; leave it out"},
    {"metadata", CHAT, NULL,
     "only means something with 'store', which is not supported; leave it out"},
};

static int take_field(struct parse *p, const struct field *f)
{
    const json_val *v = json_get(p->root, f->name);
    if (json_absent(v) || !(f->apis & (int)p->api))
        return 0;
    if (!f->take)
        return json_why(p->w, ERR_UNSUPPORTED, v, "%s", f->refusal);
    return f->take(p, v);
}

static int refuse_unknown(struct parse *p)
{
    const char *known[ARRAY_LEN(FIELDS)];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(FIELDS); i++)
        if (FIELDS[i].apis & (int)p->api)
            known[n++] = FIELDS[i].name;
    return json_only(p->root, known, n, p->w);
}

static int take_all(struct parse *p)
{
    int e = json_need_obj(p->root, p->w);
    if (e == 0)
        e = refuse_unknown(p);
    for (size_t i = 0; e == 0 && i < ARRAY_LEN(FIELDS); i++)
        e = take_field(p, &FIELDS[i]);
    const json_val *there;
    if (e == 0)
        e = json_req(p->root, "model", &there, p->w);
    if (e == 0)
        e = json_req(p->root, p->api == OPENAI_CHAT ? "messages" : "prompt", &there, p->w);
    return e;
}

int openai_parse(enum openai_api api, slice body, struct gw_request **out, struct why *w)
{
    static const struct json_limits LIMITS = {.max_bytes = BODY_BYTES_MAX,
                                              .max_depth = JSON_DEPTH,
                                              .max_nodes = JSON_NODES,
                                              .allow_nul = false};
    *out = NULL;
    struct gw_request *r = gw_request_new();
    int e = json_doc_parse(body, &LIMITS, &r->doc, w);
    if (e == ERR_TOO_BIG && body.n <= BODY_BYTES_MAX)
        e = ERR_INVALID; /* too deep or of too many values: not a matter of bytes */
    if (e == 0) {
        struct parse p = {.api = api, .r = r, .root = json_doc_root(r->doc), .w = w};
        r->chat = api == OPENAI_CHAT;
        e = take_all(&p);
        if (e == 0 && r->echo_alone && !r->echo)
            e = why_set(w, ERR_INVALID, "max_tokens",
                        "max_tokens: 1 at least; 0 goes with echo alone");
    }
    if (e < 0) {
        gw_request_free(r);
        return e;
    }
    if (api == OPENAI_COMPLETION && r->max_tokens == 0 && !r->echo_alone)
        r->max_tokens = 16; /* OpenAI's default for this endpoint */
    *out = r;
    return 0;
}
