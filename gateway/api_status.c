/* Models, health, metrics. */
#include "common/base/metrics.h"
#include "common/wire/pb.h"
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

enum {
    C_ADMITTED,
    C_REFUSED,
    C_DONE,
    C_FAILED,
    C_CANCELLED,
    C_HITS,
    C_MISSES,
    C_RETRIES,
    C_PROMPT,
    C_COMPLETION,
    C_UNKNOWN,
    COUNTERS
};

static struct {
    metric *counter[COUNTERS], *running, *queued, *uploads, *workers[4], *response[4], *first,
        *answer;
} all;

static metric *responses(const char *labels)
{
    return metric_counter("nunchi_gateway_http_responses_total", labels,
                          "HTTP answers by class of status");
}

static metric *workers(const char *labels)
{
    return metric_gauge("nunchi_gateway_workers", labels, "Workers that are up and take work");
}

static void init_counters(void)
{
    static const struct {
        const char *name, *help;
    } ROWS[COUNTERS] = {
        [C_ADMITTED] = {"nunchi_gateway_requests_total", "Questions admitted"},
        [C_REFUSED] = {"nunchi_gateway_requests_refused_total",
                       "Questions refused for lack of room or model"},
        [C_DONE] = {"nunchi_gateway_requests_done_total", "Questions answered to the end"},
        [C_FAILED] = {"nunchi_gateway_requests_failed_total", "Questions that ended with an error"},
        [C_CANCELLED] = {"nunchi_gateway_requests_cancelled_total", "Questions whose client left"},
        [C_HITS] = {"nunchi_gateway_result_cache_hits_total", "Answers from the result cache"},
        [C_MISSES] = {"nunchi_gateway_result_cache_misses_total",
                      "Answers looked for in the result cache and not found"},
        [C_RETRIES] = {"nunchi_gateway_retries_total", "Times that work went on at another worker"},
        [C_PROMPT] = {"nunchi_gateway_prompt_tokens_total", "Prompt tokens of answered questions"},
        [C_COMPLETION] = {"nunchi_gateway_completion_tokens_total",
                          "Generated tokens of answered questions"},
        [C_UNKNOWN] = {"nunchi_gateway_unknown_fields_total", "Protobuf fields that were skipped"},
    };
    for (size_t i = 0; i < COUNTERS; i++)
        all.counter[i] = metric_counter(ROWS[i].name, "", ROWS[i].help);
}

void metrics_init(void)
{
    if (all.running)
        return;
    init_counters();
    all.running = metric_gauge("nunchi_gateway_requests_running", "",
                               "Questions being answered by a model worker");
    all.queued =
        metric_gauge("nunchi_gateway_requests_queued", "", "Questions that wait for a worker");
    all.uploads = metric_gauge("nunchi_gateway_uploads", "", "Files on their way in or being read");
    all.workers[0] = workers("service=\"tokenizer\"");
    all.workers[1] = workers("service=\"video\"");
    all.workers[2] = workers("service=\"model\"");
    all.workers[3] = workers("service=\"cache\"");
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

/* The core counts by itself; what it counted since the last look is added. */
static void catch_up(const struct gw_counts *c)
{
    const uint64_t now[COUNTERS] = {
        c->admitted,        c->refused,      c->done,    c->failed,        c->cancelled,
        c->cache_hits,      c->cache_misses, c->retries, c->prompt_tokens, c->completion_tokens,
        pb_unknown_fields()};
    for (size_t i = 0; i < COUNTERS; i++)
        metric_count_to(all.counter[i], (double)now[i]);
}

void status_metrics(struct ex *x)
{
    struct gw_state s;
    buf out = {0};
    gw_state(x->a->g, &s);
    metric_set(all.running, (double)s.running);
    metric_set(all.queued, (double)s.queued);
    metric_set(all.uploads, (double)s.uploads);
    for (size_t i = 0; i < ARRAY_LEN(all.workers); i++)
        metric_set(all.workers[i], (double)s.workers[i]);
    catch_up(gw_counts(x->a->g));
    metrics_render(&out);
    api_count(x, 200);
    http_respond(x->h, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&out));
    buf_clear(&out);
}
