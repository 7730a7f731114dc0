#include "tests/load/lib/report.h"

#include <inttypes.h>

#include "common/base/json_out.h"

static double per_s(double n, double s)
{
    return s > 0 ? n / s : 0;
}

uint64_t report_failed(const struct load_result *r)
{
    uint64_t n = 0;
    for (size_t i = 0; i < FAILURES; i++)
        n += r->failed[i];
    return n;
}

/* Milliseconds to three digits behind the point. */
static double ms(uint64_t us)
{
    return (double)us / 1000;
}

static void put_spread(struct json_out *j, const char *key, const struct spread *s)
{
    json_key(j, key);
    json_obj(j);
    json_kv_u64(j, "n", s->n);
    json_kv_f64(j, "mean", s->n ? ms(s->sum_us / s->n) : 0);
    json_kv_f64(j, "p50", ms(spread_at(s, 0.50)));
    json_kv_f64(j, "p90", ms(spread_at(s, 0.90)));
    json_kv_f64(j, "p99", ms(spread_at(s, 0.99)));
    json_kv_f64(j, "max", ms(s->max_us));
    json_obj_end(j);
}

static void put_load(struct json_out *j, const struct load_options *o)
{
    json_key(j, "load");
    json_obj(j);
    json_kv_i64(j, "streams", o->streams);
    json_kv_f64(j, "rate", o->rate);
    json_kv_i64(j, "shared_words", o->shared_words);
    json_kv_i64(j, "prompt_words", o->prompt_words);
    json_kv_i64(j, "max_tokens", o->max_tokens);
    json_kv_i64(j, "slow", o->slow);
    json_obj_end(j);
}

static void put_requests(struct json_out *j, const struct load_result *r)
{
    json_key(j, "requests");
    json_obj(j);
    json_kv_u64(j, "begun", r->n_begun);
    json_kv_u64(j, "ok", r->n_ok);
    json_key(j, "failed");
    json_obj(j);
    for (size_t i = 0; i < FAILURES; i++)
        json_kv_u64(j, FAILURE_NAMES[i], r->failed[i]);
    json_obj_end(j);
    json_key(j, "first_failure");
    json_cstr(j, r->why[0] ? r->why : NULL);
    json_obj_end(j);
}

static void put_tokens(struct json_out *j, const struct load_result *r)
{
    json_key(j, "tokens");
    json_obj(j);
    json_kv_f64(j, "prompt", r->prompt_tokens);
    json_kv_f64(j, "cached", r->cached_tokens);
    json_kv_f64(j, "answer", r->tokens);
    json_kv_f64(j, "per_s", per_s(r->tokens, r->wall_s));
    json_kv_f64(j, "steady_per_s", per_s(r->steady_tokens, r->steady_s));
    json_kv_f64(j, "steady_s", r->steady_s);
    json_obj_end(j);
}

static void put_cpu(struct json_out *j, const struct load_result *r)
{
    json_key(j, "cpu_s");
    json_obj(j);
    json_kv_f64(j, "http_load", r->cpu.own_s);
    json_kv_f64(j, "machine", r->cpu.machine_s);
    json_key(j, "processes");
    json_arr(j);
    for (size_t i = 0; i < r->cpu.n; i++) {
        json_obj(j);
        json_kv_i64(j, "pid", r->cpu.of[i].pid);
        json_kv_cstr(j, "name", r->cpu.of[i].name);
        json_kv_f64(j, "s", r->cpu.of[i].used_s);
        json_obj_end(j);
    }
    json_arr_end(j);
    json_obj_end(j);
}

void report_json(const struct load_options *o, const struct load_result *r, buf *out)
{
    struct json_out j;
    json_begin(&j, out);
    json_obj(&j);
    put_load(&j, o);
    put_requests(&j, r);
    json_kv_f64(&j, "wall_s", r->wall_s);
    put_tokens(&j, r);
    put_spread(&j, "first_token_ms", &r->first);
    put_spread(&j, "gap_ms", &r->gap);
    if (r->delay.n)
        put_spread(&j, "delay_ms", &r->delay);
    put_spread(&j, "answer_ms", &r->whole);
    put_cpu(&j, r);
    json_obj_end(&j);
    buf_put_byte(out, '\n');
}

static void row(buf *out, const char *name, const struct spread *s)
{
    buf_printf(out, "%-16s %9.1f %9.1f %9.1f %9.1f %9.1f\n", name, s->n ? ms(s->sum_us / s->n) : 0,
               ms(spread_at(s, 0.50)), ms(spread_at(s, 0.90)), ms(spread_at(s, 0.99)),
               ms(s->max_us));
}

static void failures(buf *out, const struct load_result *r)
{
    if (!report_failed(r))
        return;
    buf_put_str(out, "failed:");
    for (size_t i = 0; i < FAILURES; i++)
        if (r->failed[i])
            buf_printf(out, " %s %" PRIu64, FAILURE_NAMES[i], r->failed[i]);
    buf_printf(out, "; the first: %s\n", r->why);
}

void report_table(const struct load_options *o, const struct load_result *r, buf *out)
{
    double n = r->n_ok ? (double)r->n_ok : 1;
    buf_printf(out, "%" PRIu64 " of %" PRIu64 " answers in %.2f s, ", r->n_ok, r->n_begun,
               r->wall_s);
    if (o->rate > 0)
        buf_printf(out, "%.1f requests a second; ", o->rate);
    else
        buf_printf(out, "%lld streams; ", (long long)o->streams);
    buf_printf(out, "%.0f prompt (%.0f cached), %.0f new tokens each\n", r->prompt_tokens / n,
               r->cached_tokens / n, r->tokens / n);
    failures(out, r);
    buf_printf(out, "new tokens/s     %9.1f", per_s(r->tokens, r->wall_s));
    if (r->steady_s > 0)
        buf_printf(out, "   while all were busy (%.2f s) %.1f", r->steady_s,
                   per_s(r->steady_tokens, r->steady_s));
    buf_printf(out, "\n%-16s %9s %9s %9s %9s %9s\n", "milliseconds", "mean", "p50", "p90", "p99",
               "max");
    row(out, "first token", &r->first);
    row(out, "gap", &r->gap);
    if (r->delay.n)
        row(out, "worker to here", &r->delay);
    row(out, "whole answer", &r->whole);
    buf_printf(out, "processor s      %9.2f machine, %.2f http_load", r->cpu.machine_s,
               r->cpu.own_s);
    for (size_t i = 0; i < r->cpu.n; i++)
        buf_printf(out, ", %.2f %s", r->cpu.of[i].used_s, r->cpu.of[i].name);
    buf_put_byte(out, '\n');
}
