/* Models, health, metrics. */
#include "common/base/metrics.h"
#include "common/base/process.h"
#include "gateway/api_impl.h"

/* ---- models ---- */

static void put_model(void *ctx, const Nunchi__ModelInfo *m)
{
    openai_put_model(ctx, m);
}

void status_models(struct ex *x)
{
    buf out = {0};
    struct json_out j;
    json_begin(&j, &out);
    json_obj(&j);
    json_kv_cstr(&j, "object", "list");
    json_key(&j, "data");
    json_arr(&j);
    gw_models(x->a->g, put_model, &j);
    json_arr_end(&j);
    json_obj_end(&j);
    api_json(x, 200, buf_slice(&out));
    buf_clear(&out);
}

struct lookup {
    slice name;
    buf out;
};

static void match_model(void *ctx, const Nunchi__ModelInfo *m)
{
    struct lookup *l = ctx;
    struct json_out j;
    if (l->out.n || !slice_eq_str(l->name, m->name))
        return;
    json_begin(&j, &l->out);
    openai_put_model(&j, m);
}

void status_model(struct ex *x)
{
    struct lookup l = {.name = x->id};
    struct gw_fail f;
    gw_models(x->a->g, match_model, &l);
    if (l.out.n) {
        api_json(x, 200, buf_slice(&l.out));
    } else {
        gw_failed(&f, ERR_NOT_FOUND, "model_not_found", "model",
                  "this model is not served here; see /v1/models");
        api_fail(x, &f);
    }
    buf_clear(&l.out);
}

/* ---- health ---- */

void status_health(struct ex *x)
{
    api_json(x, 200, SLICE_LIT("{\"status\":\"ok\"}"));
}

static const char *const SERVICES_TEXT[] = {"tokenizer", "video", "model", "cache"};

void status_ready(struct ex *x)
{
    struct gw_state s;
    buf out = {0};
    struct json_out j;
    gw_state(x->a->g, &s);
    json_begin(&j, &out);
    json_obj(&j);
    json_kv_bool(&j, "ready", s.ready);
    json_kv_bool(&j, "draining", s.draining);
    json_key(&j, "workers");
    json_obj(&j);
    for (size_t i = 0; i < ARRAY_LEN(SERVICES_TEXT); i++)
        json_kv_u64(&j, SERVICES_TEXT[i], s.workers[i]);
    json_obj_end(&j);
    json_key(&j, "missing"); /* what questions need, and then what questions about videos need */
    json_arr(&j);
    for (size_t i = 0; i < ARRAY_LEN(SERVICES_TEXT); i++)
        if (s.workers[i] == 0)
            json_cstr(&j, SERVICES_TEXT[i]);
    json_arr_end(&j);
    json_obj_end(&j);
    api_json(x, s.ready ? 200 : 503, buf_slice(&out));
    buf_clear(&out);
}

/* ---- metrics ---- */

#define CACHE_HELP "Answers looked for in the result cache, and whether they were there"
#define PROMPT_HELP "Tokens of prompts that were sent to workers; warm: known to be in their KV"
#define PLACED_HELP                                                                                \
    "Requests sent to a model worker; warm: with some of the prompt known to be there"

/* The core counts by itself; what it says is taken over whenever somebody looks. */
#define ROWS(X)                                                                                    \
    X(c->admitted, "requests_total", NULL, "Questions admitted", false)                            \
    X(c->refused, "requests_refused_total", NULL, "Questions refused for lack of room or model",   \
      false)                                                                                       \
    X(c->done, "requests_done_total", NULL, "Questions answered to the end", false)                \
    X(c->failed, "requests_failed_total", NULL, "Questions that ended with an error", false)       \
    X(c->cancelled, "requests_cancelled_total", NULL, "Questions whose client left", false)        \
    X(c->cache_hits, "result_cache_lookups_total", "result=\"hit\"", CACHE_HELP, false)            \
    X(c->cache_misses, "result_cache_lookups_total", "result=\"miss\"", CACHE_HELP, false)         \
    X(c->retries, "retries_total", NULL, "Times that work went on at another worker", false)       \
    X(c->prompt_tokens, "prompt_tokens_total", NULL, "Prompt tokens of answered questions", false) \
    X(c->completion_tokens, "completion_tokens_total", NULL,                                       \
      "Generated tokens of answered questions", false)                                             \
    X(r.placed - r.warm, "placed_total", "prefix=\"cold\"", PLACED_HELP, false)                    \
    X(r.warm, "placed_total", "prefix=\"warm\"", PLACED_HELP, false)                               \
    X(r.tokens - r.warm_tokens, "placed_tokens_total", "prefix=\"cold\"", PROMPT_HELP, false)      \
    X(r.warm_tokens, "placed_tokens_total", "prefix=\"warm\"", PROMPT_HELP, false)                 \
    X(r.shunned, "workers_shunned_total", NULL,                                                    \
      "Times that a worker failed so often that it gets nothing for a while", false)               \
    X(c->stalled_workers, "workers_stalled_total", NULL,                                           \
      "Times that a worker was given up because it computed nothing", false)                       \
    X(c->taken_back, "requests_taken_back_total", NULL,                                            \
      "Requests placed anew because a message about them was lost", false)                         \
    X(c->suspects, "requests_suspected_total", NULL,                                               \
      "Requests that run alone because workers died under them", false)                            \
    X(c->condemned, "requests_condemned_total", NULL,                                              \
      "Questions refused because workers die of them", false)                                      \
    X(c->stalled_clients, "clients_stalled_total", NULL,                                           \
      "Clients cut off because they read nothing", false)                                          \
    X(s->running, "requests_running", NULL, "Questions being answered by a model worker", true)    \
    X(s->queued, "requests_queued", NULL, "Questions that wait for a worker", true)                \
    X(s->queued_tokens, "queued_tokens", NULL,                                                     \
      "Prompt tokens of questions without a model worker, guessed until counted", true)            \
    X(s->uploads, "uploads", NULL, "Files on their way in or being read", true)                    \
    X(s->workers[0], "workers", "service=\"tokenizer\"", WORKERS_HELP, true)                       \
    X(s->workers[1], "workers", "service=\"video\"", WORKERS_HELP, true)                           \
    X(s->workers[2], "workers", "service=\"model\"", WORKERS_HELP, true)                           \
    X(s->workers[3], "workers", "service=\"cache\"", WORKERS_HELP, true)                           \
    X(s->ready, "ready", NULL, "1: a question sent now would be answered", true)
#define WORKERS_HELP "Workers that are up and take work"

#define ROW(value, name, ...) METRIC_ROW(value, "nunchi_gateway_" name, __VA_ARGS__)

static const struct metric_row TABLE[] = {ROWS(ROW)};

static struct {
    metric *rows[ARRAY_LEN(TABLE)], *response[4], *first, *answer;
} all;

static metric *responses(const char *labels)
{
    return metric_counter("nunchi_gateway_http_responses_total", labels,
                          "HTTP answers by class of status");
}

void metrics_init(void)
{
    if (all.first)
        return;
    metric_rows_make(TABLE, ARRAY_LEN(TABLE), all.rows);
    all.response[0] = responses("code=\"2xx\"");
    all.response[1] = responses("code=\"3xx\"");
    all.response[2] = responses("code=\"4xx\"");
    all.response[3] = responses("code=\"5xx\"");
    all.first = metric_histogram("nunchi_gateway_first_token_seconds", "",
                                 "From the request's head to its first text", METRIC_SECONDS,
                                 METRIC_SECONDS_N);
    all.answer = metric_histogram("nunchi_gateway_answer_seconds", "",
                                  "From the request's head to the answer's end", METRIC_SECONDS,
                                  METRIC_SECONDS_N);
}

void metrics_response(int status)
{
    if (status >= 200 && status < 600)
        metric_inc(all.response[status / 100 - 2]);
}

void metrics_first_token(double seconds)
{
    metric_observe(all.first, seconds);
}

void metrics_answer(double seconds)
{
    metric_observe(all.answer, seconds);
}

static void bring_up_to_date(gw *g)
{
    struct gw_state state;
    const struct gw_state *s = &state;
    const struct gw_counts *c = gw_counts(g);
    struct route_counts r = gw_route_counts(g);
    gw_state(g, &state);
    const double now[] = {ROWS(METRIC_VALUE)};
    metric_rows_set(all.rows, now, ARRAY_LEN(now));
}

void status_metrics(struct ex *x)
{
    buf out = {0};
    process_metrics();
    bring_up_to_date(x->a->g);
    if (x->a->cfg.collect)
        x->a->cfg.collect(x->a->cfg.ctx);
    metrics_render(&out);
    api_count(x, 200);
    http_respond(x->h, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&out));
    buf_clear(&out);
}
