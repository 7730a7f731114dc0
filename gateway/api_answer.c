/* POST /v1/chat/completions and /v1/completions. */
#include <stdio.h>

#include "common/base/log.h"
#include "gateway/api_impl.h"

#define PING_US 15000000
/* Bodies that wait for the parsing thread. */
#define PARSE_QUEUE_MAX 64

struct parse_job {
    struct ex *x; /* NULL: its client has left */
    api *a;
    enum openai_api api;
    buf body;
    struct gw_request *r;
    int err;
    struct why why;
};

/* ---- the body ---- */

static void count_body(struct ex *x, size_t n)
{
    x->counted += n;
    x->a->body_bytes += n;
}

static void uncount_body(struct ex *x)
{
    x->a->body_bytes -= x->counted;
    x->counted = 0;
}

static void body_too_big(struct ex *x)
{
    struct why w;
    why_set(&w, ERR_TOO_BIG, "", "the body has more than %u bytes; upload videos to /v1/files",
            BODY_BYTES_MAX);
    api_fail_err(x, ERR_TOO_BIG, &w);
}

void answer_begin(struct ex *x)
{
    uint64_t length;
    if (http_length(x->h, &length) && length > BODY_BYTES_MAX)
        body_too_big(x);
}

void answer_body(struct ex *x, slice bytes)
{
    struct why w;
    if (http_answered(x->h))
        return;
    if (x->body.n + bytes.n > BODY_BYTES_MAX) {
        body_too_big(x);
    } else if (x->a->body_bytes + bytes.n > BODIES_BYTES_MAX) {
        why_set(&w, ERR_BUSY, "", "too many large requests at once");
        api_fail_err(x, ERR_BUSY, &w);
    } else {
        count_body(x, bytes.n);
        buf_put_slice(&x->body, bytes);
        return;
    }
    buf_clear(&x->body);
    uncount_body(x);
}

/* ---- what the core says ---- */

static void send_head(struct ex *x, const char *cache)
{
    if (x->head_sent)
        return;
    x->head_sent = true;
    http_add_header(x->h, "Cache-Control", SLICE_LIT("no-cache"));
    http_add_header(x->h, "X-Accel-Buffering", SLICE_LIT("no"));
    if (cache)
        http_add_header(x->h, "X-Nunchi-Cache", slice_str(cache));
    api_count(x, 200);
    http_stream_begin(x->h, 200, "text/event-stream; charset=utf-8");
}

static void send(struct ex *x, buf *out)
{
    if (out->n && x->answer.stream) {
        http_stream_write(x->h, buf_slice(out));
        x->wrote_us = loop_now_us(x->a->l);
    }
    buf_clear(out);
}

static void ping(struct ex *x, const char *text)
{
    buf out = {0};
    send_head(x, NULL);
    openai_answer_ping(&out, text);
    send(x, &out);
}

static void on_waiting(void *ctx, uint32_t permille)
{
    struct ex *x = ctx;
    char text[48];
    if (!x->answer.stream)
        return;
    snprintf(text, sizeof text, "reading video %u%%", permille / 10);
    ping(x, text);
}

static void on_start(void *ctx, const struct gw_start *s)
{
    struct ex *x = ctx;
    buf out = {0};
    const char *cache = s->cached ? "hit" : "miss";
    if (x->answer.stream)
        send_head(x, cache);
    else
        http_add_header(x->h, "X-Nunchi-Cache", slice_str(cache));
    openai_answer_start(&x->answer, s, &out);
    send(x, &out);
}

static void on_delta(void *ctx, const struct gw_delta *d)
{
    struct ex *x = ctx;
    buf out = {0};
    if (!x->counted_first) {
        x->counted_first = true;
        metrics_first_token((double)(loop_now_us(x->a->l) - x->began_us) / 1e6);
    }
    openai_answer_delta(&x->answer, d, &out);
    send(x, &out);
}

static void on_choice_end(void *ctx, uint32_t choice, enum gw_end why)
{
    struct ex *x = ctx;
    buf out = {0};
    openai_answer_end(&x->answer, choice, why, &out);
    send(x, &out);
}

static void on_done(void *ctx, const struct gw_usage *u)
{
    struct ex *x = ctx;
    buf out = {0};
    x->job = 0;
    x->usage = *u;
    metrics_answer((double)(loop_now_us(x->a->l) - x->began_us) / 1e6);
    openai_answer_done(&x->answer, u, &out);
    if (x->answer.stream) {
        send(x, &out);
        http_stream_end(x->h);
    } else {
        api_json(x, 200, buf_slice(&out));
        buf_clear(&out);
    }
}

static void on_failed(void *ctx, const struct gw_fail *f)
{
    struct ex *x = ctx;
    x->job = 0;
    log_info("request failed", LOG_STR("id", x->request_id), LOG_STR("error", err_name(f->err)),
             LOG_STR("why", f->why.text));
    if (!x->head_sent) {
        api_fail(x, f);
        return;
    }
    buf out = {0};
    struct openai_error e = {.err = f->err, .code = f->code, .why = &f->why};
    openai_answer_failed(&e, &out);
    send(x, &out);
    http_stream_end(x->h);
}

static bool on_ready(void *ctx)
{
    struct ex *x = ctx;
    return !http_full(x->h);
}

static const struct gw_client_ops OPS = {on_waiting, on_start,  on_delta, on_choice_end,
                                         on_done,    on_failed, on_ready};

/* ---- asking ---- */

static bool wants_no_store(struct ex *x)
{
    slice rest = http_header(x->h, "Cache-Control"), word;
    while (slice_split(&rest, ',', &word))
        if (slice_eq_str(slice_trim(word), "no-store"))
            return true;
    return false;
}

/* Fairness is among keys; without keys among addresses. */
static void set_client(struct ex *x, struct gw_request *r)
{
    uint8_t address[CLIENT_BYTES_MAX];
    buf forwarded = {0};
    if (x->a->cfg.proxies)
        http_header_lines(x->h, "X-Forwarded-For", &forwarded);
    size_t n = proxies_client(x->a->cfg.proxies, http_client(x->h), buf_slice(&forwarded), address);
    slice who = x->a->cfg.keys ? api_tenant(x) : (slice){(const char *)address, n};
    struct digest d = digest_of((slice){0}, who);
    memcpy(r->client, d.b, sizeof r->client);
    buf_clear(&forwarded);
}

static int set_deadline(struct ex *x, struct gw_request *r, struct gw_fail *f)
{
    slice text = slice_trim(http_header(x->h, "X-Nunchi-Timeout-Ms"));
    uint64_t ms = 0;
    if (text.n == 0)
        return 0;
    if (slice_u64(text, &ms) < 0 || ms < 1 || ms > x->a->cfg.request_ms)
        return gw_failed(f, ERR_INVALID, NULL, "X-Nunchi-Timeout-Ms",
                         "X-Nunchi-Timeout-Ms is a number of milliseconds from 1 to %u",
                         x->a->cfg.request_ms);
    r->deadline_ms = (uint32_t)ms;
    return 0;
}

static void ask(struct ex *x, struct gw_request *r)
{
    struct gw_fail f;
    uint8_t unique[16];
    memcpy(r->tenant, x->tenant.id, sizeof r->tenant);
    r->trace = x->span ? trace_inside(x->span) : x->trace;
    set_client(x, r);
    if (set_deadline(x, r, &f) < 0) {
        gw_request_free(r);
        api_fail(x, &f);
        return;
    }
    r->no_store = wants_no_store(x);
    if (!r->sampling.seed_given)
        r->sampling.seed = random_u64();
    random_bytes(unique, sizeof unique);
    openai_answer_init(&x->answer, x->api, r, unique, clock_unix_ms() / 1000);
    x->has_answer = true;
    if (gw_ask(x->a->g, loop_now_us(x->a->l), r, &OPS, x, &x->job, &f) < 0)
        api_fail(x, &f);
}

/* ---- parsing: small bodies here, large ones on a thread of their own ---- */

static void parse_work(void *ctx)
{
    struct parse_job *p = ctx;
    p->err = openai_parse(p->api, buf_slice(&p->body), &p->r, &p->why);
    buf_clear(&p->body);
}

static void parse_done(void *ctx)
{
    struct parse_job *p = ctx;
    struct ex *x = p->x;
    if (x) {
        x->parsing = NULL;
        uncount_body(x);
    }
    if (!x)
        gw_request_free(p->r);
    else if (p->err < 0)
        api_fail_err(x, p->err, &p->why);
    else
        ask(x, p->r);
    free(p);
}

static void parse(struct ex *x, enum openai_api which)
{
    if (http_answered(x->h))
        return;
    x->api = which;
    struct parse_job *p = xcalloc(1, sizeof *p);
    *p = (struct parse_job){.x = x, .a = x->a, .api = which, .body = x->body};
    x->body = (buf){0};
    x->parsing = p;
    if (p->body.n <= BODY_INLINE_BYTES) {
        parse_work(p);
        parse_done(p);
    } else if (workq_add(x->a->parsers, PARSE_QUEUE_MAX, parse_work, parse_done, p) < 0) {
        struct why w;
        why_set(&w, ERR_BUSY, "", "too many large requests at once");
        x->parsing = NULL;
        uncount_body(x);
        buf_clear(&p->body);
        free(p);
        api_fail_err(x, ERR_BUSY, &w);
    }
}

void answer_chat(struct ex *x)
{
    parse(x, OPENAI_CHAT);
}

void answer_completion(struct ex *x)
{
    parse(x, OPENAI_COMPLETION);
}

/* ---- the rest of its life ---- */

void answer_drained(struct ex *x)
{
    if (x->job)
        gw_client_ready(x->a->g, loop_now_us(x->a->l), x->job);
}

void answer_tick(struct ex *x, uint64_t now_us)
{
    if (!x->h || http_answered(x->h) != x->head_sent)
        return;
    if (x->job && x->answer.stream && now_us - x->wrote_us >= PING_US)
        ping(x, "ping");
    bool slow = x->at && x->at->body == answer_body && !x->body_done &&
                now_us - x->began_us >= (uint64_t)x->a->cfg.body_ms * 1000;
    if (slow)
        http_abort(x->h);
}

void answer_over(struct ex *x)
{
    if (x->job)
        gw_cancel(x->a->g, loop_now_us(x->a->l), x->job);
    if (x->parsing)
        x->parsing->x = NULL;
    uncount_body(x);
    buf_clear(&x->body);
    if (x->has_answer)
        openai_answer_clear(&x->answer);
}
