#include "model-svc/traces.h"

/* The span of the whole request. Its steps are recorded while it runs and lie in it: it is begun
 * again wherever it is needed, with the same id. */
static struct trace_span whole(const struct trace_at *at, uint64_t request, uint64_t arrived_us)
{
    struct trace_span s;
    trace_begin(&s, at, request, "generate", TRACE_SERVER, arrived_us);
    return s;
}

static uint64_t phase(const struct trace_at *in, uint64_t n, const char *name, uint64_t from,
                      uint64_t us)
{
    struct trace_span s;
    trace_begin(&s, in, n, name, TRACE_INTERNAL, from);
    s.end_us = from + us;
    trace_record(&s);
    return s.end_us;
}

void traces_request(const struct sched_done *d)
{
    if (!d->trace.on || !trace_on())
        return;
    struct trace_span s = whole(&d->trace, d->request, d->arrived_us);
    struct trace_at in = trace_inside(&s);
    uint64_t at = phase(&in, 1, "queue", d->arrived_us, d->queue_us);
    at = phase(&in, 2, "prefill", at, d->prefill_us);
    s.end_us = phase(&in, 3, "decode", at, d->decode_us);
    trace_int(&s, "gen_ai.usage.input_tokens", d->prompt_tokens);
    trace_int(&s, "nunchi.cached_tokens", d->cached_tokens);
    trace_int(&s, "nunchi.fetched_tokens", d->fetched_tokens);
    int64_t generated = 0;
    for (size_t i = 0; i < d->n_ends; i++)
        generated += d->ends[i].n_ids;
    trace_int(&s, "gen_ai.usage.output_tokens", generated);
    trace_int(&s, "nunchi.drafted_tokens", d->drafted);
    trace_int(&s, "nunchi.accepted_tokens", d->accepted);
    trace_record(&s);
}

void traces_step(const struct sched_part *parts, size_t n, uint32_t rows, uint64_t now_us,
                 uint64_t took_us)
{
    for (size_t i = 0; i < n; i++) {
        struct trace_span request = whole(&parts[i].trace, parts[i].request, parts[i].arrived_us);
        struct trace_at in = trace_inside(&request);
        struct trace_span s;
        trace_begin(&s, &in, now_us + i, "step", TRACE_INTERNAL, now_us - took_us);
        s.end_us = now_us;
        trace_int(&s, "nunchi.rows", parts[i].rows);
        trace_int(&s, "nunchi.drafted_rows", parts[i].drafts);
        trace_int(&s, "nunchi.step_rows", rows);
        trace_record(&s);
    }
}
