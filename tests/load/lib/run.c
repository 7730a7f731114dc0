#include "tests/load/lib/run.h"

#include <math.h>

#include "common/base/clock.h"
#include "common/base/fds.h"
#include "tests/load/lib/stream.h"

/* Prompts of slow streams are others than those of the measured ones. */
#define SLOW_NUMBERS ((uint64_t)1 << 40)

/* ---- when a request begins ---- */

static bool may_begin(const struct run *r, uint64_t now)
{
    return r->to->n_begun < r->n_requests && now < r->stop_us;
}

/* Time to the next arrival: exponential, so that arrivals are independent of one another. */
static double next_gap_us(struct run *r)
{
    double u = (double)(load_random(&r->chance) >> 11) * 0x1p-53;
    return -log1p(-u) * 1e6 / r->o->rate;
}

/* With a rate, the intended start; without, now. UINT64_MAX: not yet. */
static uint64_t due(struct run *r, uint64_t now)
{
    if (r->o->rate <= 0)
        return now;
    uint64_t at = r->start_us + (uint64_t)r->next_us;
    if (at > now) {
        loop_timer_set(r->l, &r->arrival, at);
        return UINT64_MAX;
    }
    r->next_us += next_gap_us(r);
    return at;
}

static void end_steady(struct run *r, uint64_t now)
{
    if (r->steady_from_us && !r->steady_to_us)
        r->steady_to_us = now;
}

/* Before every sleep: streams that are free take what is due. */
static bool on_prepare(void *ctx)
{
    struct run *r = ctx;
    uint64_t now = clock_mono_us(), at;
    LIST_EACH(it, &r->idle)
    {
        struct stream *s = CONTAINER_OF(it, struct stream, idle);
        if (s->slow) {
            list_remove(it);
            stream_ask(s, SLOW_NUMBERS + r->n_slow++, now);
            continue;
        }
        if (!may_begin(r, now)) {
            end_steady(r, now);
            break;
        }
        if ((at = due(r, now)) == UINT64_MAX)
            break;
        list_remove(it);
        stream_ask(s, r->to->n_begun++, at);
    }
    if (r->n_ended == r->to->n_begun && !may_begin(r, now))
        loop_stop(r->l, 0);
    return false;
}

static void on_arrival(void *ctx UNUSED)
{
    /* the hook before the next sleep looks */
}

void run_ended(struct run *r, struct stream *s)
{
    list_append(&r->idle, &s->idle);
    if (s->slow)
        return;
    r->n_ended++;
    r->end_us = clock_mono_us();
}

static void on_timeout(void *ctx)
{
    struct run *r = ctx;
    r->stop_us = 0;
    for (int64_t i = 0; i < r->o->streams; i++)
        if (!r->streams[i].slow)
            stream_give_up(&r->streams[i]);
}

/* ---- a run ---- */

static void start(struct run *r)
{
    const struct load_options *o = r->o;
    r->l = loop_new();
    r->n_requests = (uint64_t)(o->requests ? o->requests : o->streams - o->slow);
    uint64_t measured = (uint64_t)(o->streams - o->slow);
    r->n_measured = measured < r->n_requests ? measured : r->n_requests;
    r->chance = (uint64_t)o->seed;
    list_init(&r->idle);
    r->streams = xcalloc((size_t)o->streams, sizeof *r->streams);
    for (int64_t i = 0; i < o->streams; i++)
        stream_init(&r->streams[i], r, i < o->slow);
    r->prepare = loop_prepare_add(r->l, on_prepare, r);
    r->arrival = (struct loop_timer){.fn = on_arrival, .ctx = r};
    r->timeout = (struct loop_timer){.fn = on_timeout, .ctx = r};
    r->start_us = r->end_us = clock_mono_us();
    r->stop_us = r->start_us + (uint64_t)o->duration_ms * 1000;
    loop_timer_in(r->l, &r->timeout, (uint64_t)o->timeout_ms * 1000);
}

static void stop(struct run *r)
{
    for (int64_t i = 0; i < r->o->streams; i++)
        stream_clear(&r->streams[i]);
    loop_prepare_del(r->l, r->prepare);
    loop_free(r->l);
    free(r->streams);
    r->to->wall_s = (double)(r->end_us - r->start_us) * 1e-6;
    if (r->steady_to_us > r->steady_from_us)
        r->to->steady_s = (double)(r->steady_to_us - r->steady_from_us) * 1e-6;
}

static int open_all(struct run *r, struct why *w)
{
    int err = target_open(&r->target, r->o, w);
    if (err < 0 || (err = prompts_open(&r->prompts, r->o, w)) < 0)
        return err;
    if (!r->o->model)
        return target_model(&r->target, &r->model, w);
    buf_put_str(&r->model, r->o->model);
    return 0;
}

int load_run(const struct load_options *o, struct load_result *out, struct why *w)
{
    struct run *r = xcalloc(1, sizeof *r);
    *out = (struct load_result){.n_ok = 0};
    r->o = o;
    r->to = out;
    int err = fds_make_room((uint64_t)o->streams + 64, w);
    if (err == 0)
        err = open_all(r, w);
    if (err == 0)
        err = cputime_begin(&out->cpu, o->cpu_of, w);
    if (err == 0) {
        start(r);
        loop_run(r->l);
        cputime_end(&out->cpu);
        stop(r);
    }
    prompts_close(&r->prompts);
    target_close(&r->target);
    buf_clear(&r->model);
    buf_clear(&r->body);
    buf_clear(&r->text);
    free(r);
    return err;
}
