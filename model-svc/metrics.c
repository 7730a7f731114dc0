#include "model-svc/metrics.h"

#include "common/base/metrics.h"

#define ROWS(X)                                                                                    \
    X(l->running, "requests_running", NULL, "Requests being computed", true)                       \
    X(l->queued, "requests_queued", NULL, "Requests that wait for their first step", true)         \
    X(l->queued_tokens, "queued_tokens", NULL,                                                     \
      "Prompt tokens still to compute, those of running requests included", true)                  \
    X(l->blocks, "kv_blocks", NULL, "KV blocks of 16 tokens that there are", true)                 \
    X(l->blocks_free, "kv_blocks_free", NULL, "KV blocks that could be taken now", true)           \
    X(l->prefill_tok_s, "prefill_tokens_per_second", NULL, "Measured lately; 0: not yet", true)    \
    X(l->decode_tok_s, "decode_tokens_per_second", NULL,                                           \
      "Measured lately, of all sequences together; 0: not yet", true)                              \
    X(l->fetch_tok_s, "fetch_tokens_per_second", NULL,                                             \
      "Tokens whose KV comes from caches, measured lately; 0: not yet", true)                      \
    X(l->steps, "steps_total", NULL, "Steps computed", false)                                      \
    X(l->rows, "rows_total", NULL, "Rows computed in steps", false)                                \
    X(l->preemptions, "preemptions_total", NULL, "Sequences that gave up their blocks", false)     \
    X(l->drafted, "drafted_tokens_total", NULL, "Rows spent on guesses", false)                    \
    X(l->accepted, "accepted_tokens_total", NULL, "Guesses that came true", false)                 \
    X(l->kv.fetched, "kv_lookups_total", "result=\"fetched\"", KV_HELP, false)                     \
    X(l->kv.missed, "kv_lookups_total", "result=\"missed\"", KV_HELP, false)                       \
    X(l->kv.damaged, "kv_lookups_total", "result=\"damaged\"", KV_HELP, false)                     \
    X(l->kv.recomputed, "kv_lookups_total", "result=\"recomputed\"", KV_HELP, false)               \
    X(l->kv.exported, "kv_exported_total", NULL, "Blocks given to caches", false)                  \
    X(l->kv.dropped, "kv_export_dropped_total", NULL,                                              \
      "Blocks that were not given to caches: no room, or no cache", false)

#define KV_HELP                                                                                    \
    "Blocks that a prompt lacks here: fetched from a cache, missed there, damaged, or not asked "  \
    "for because computing them is sooner done"

#define ROW(value, name, ...) METRIC_ROW(value, "nunchi_model_" name, __VA_ARGS__)

static const struct metric_row TABLE[] = {ROWS(ROW)};

static struct {
    metric *rows[ARRAY_LEN(TABLE)];
    metric *done, *failed, *refused, *prompt, *cached, *fetched, *generated;
    metric *step_s, *queue_s, *prefill_s, *decode_s;
} all;

/* 0.1 ms to 10 s: steps of small models are short. */
static const double STEP_SECONDS[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                      0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};

static metric *requests(const char *labels)
{
    return metric_counter("nunchi_model_requests_total", labels, "Requests by how they ended");
}

static metric *phase(const char *labels)
{
    return metric_histogram("nunchi_model_phase_seconds", labels,
                            "What requests that ended spent where", METRIC_SECONDS,
                            METRIC_SECONDS_N);
}

static metric *tokens(const char *labels)
{
    return metric_counter("nunchi_model_tokens_total", labels,
                          "Of requests that ended: tokens of prompts, those of them found in this "
                          "worker's KV and fetched from caches, and generated ones");
}

void model_metrics_init(void)
{
    metric_rows_make(TABLE, ARRAY_LEN(TABLE), all.rows);
    all.done = requests("result=\"done\"");
    all.failed = requests("result=\"failed\"");
    all.refused = requests("result=\"refused\"");
    all.prompt = tokens("kind=\"prompt\"");
    all.cached = tokens("kind=\"cached\"");
    all.fetched = tokens("kind=\"fetched\"");
    all.generated = tokens("kind=\"generated\"");
    all.queue_s = phase("phase=\"queue\"");
    all.prefill_s = phase("phase=\"prefill\"");
    all.decode_s = phase("phase=\"decode\"");
    all.step_s = metric_histogram("nunchi_model_step_seconds", "", "Time of a step", STEP_SECONDS,
                                  ARRAY_LEN(STEP_SECONDS));
}

void model_metrics_load(const struct sched_load *l)
{
    const double now[] = {ROWS(METRIC_VALUE)};
    metric_rows_set(all.rows, now, ARRAY_LEN(now));
}

void model_metrics_step(uint64_t took_us)
{
    metric_observe(all.step_s, (double)took_us / 1e6);
}

void model_metrics_done(const struct sched_done *d)
{
    metric_inc(all.done);
    metric_add(all.prompt, d->prompt_tokens);
    metric_add(all.cached, d->cached_tokens);
    metric_add(all.fetched, d->fetched_tokens);
    for (size_t i = 0; i < d->n_ends; i++)
        metric_add(all.generated, d->ends[i].n_ids);
    metric_observe(all.queue_s, (double)d->queue_us / 1e6);
    metric_observe(all.prefill_s, (double)d->prefill_us / 1e6);
    metric_observe(all.decode_s, (double)d->decode_us / 1e6);
}

void model_metrics_error(void)
{
    metric_inc(all.failed);
}

void model_metrics_refused(void)
{
    metric_inc(all.refused);
}
