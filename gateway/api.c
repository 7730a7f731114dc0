#include "gateway/api_impl.h"

#include <stdio.h>

#include "common/base/log.h"

#define TICK_US 1000000

static const struct endpoint ENDPOINTS[] = {
    {"POST", "/v1/chat/completions", false, answer_begin, answer_body, answer_chat, answer_over},
    {"POST", "/v1/completions", false, answer_begin, answer_body, answer_completion, answer_over},
    {"POST", "/tokenize", false, NULL, words_body, words_tokenize, words_over},
    {"POST", "/detokenize", false, NULL, words_body, words_detokenize, words_over},
    {"GET", "/v1/models", false, NULL, NULL, status_models, NULL},
    {"GET", "/v1/models/{id}", false, NULL, NULL, status_model, NULL},
    {"POST", "/v1/files", false, upload_begin, upload_body, upload_end, upload_over},
    {"GET", "/v1/files", false, NULL, NULL, files_list, files_over},
    {"GET", "/v1/files/{id}", false, NULL, NULL, files_get, files_over},
    {"DELETE", "/v1/files/{id}", false, NULL, NULL, files_delete, files_over},
    {"GET", "/v1/files/{id}/content", false, NULL, NULL, files_content, files_over},
    {"GET", "/v1/files/{id}/notes", false, NULL, NULL, files_notes, files_over},
    {"GET", "/v1/files/{id}/frames/{rest}", false, NULL, NULL, files_frame, files_over},
    {"GET", "/healthz", true, NULL, NULL, status_health, NULL},
    {"GET", "/readyz", true, NULL, NULL, status_ready, NULL},
    {"GET", "/metrics", false, NULL, NULL, status_metrics, NULL},
};

/* ---- finding the endpoint ---- */

/* "{id}" takes one segment, not empty. */
static bool path_is(slice path, const char *pattern, slice *id, slice *rest)
{
    slice want = slice_str(pattern), a, b;
    *id = *rest = (slice){0};
    if (path.n == 0 || path.p[path.n - 1] == '/')
        return false;
    for (;;) {
        bool more_a = slice_split(&path, '/', &a), more_b = slice_split(&want, '/', &b);
        if (!more_a || !more_b)
            return more_a == more_b;
        if (slice_eq_str(b, "{id}") && a.n)
            *id = a;
        else if (slice_eq_str(b, "{rest}") && a.n)
            *rest = a;
        else if (!slice_eq(a, b))
            return false;
    }
}

/* HEAD is answered as GET: the server leaves the body out. */
static const struct endpoint *find(struct ex *x, bool *path_known)
{
    slice method = http_method(x->h), path = http_path(x->h);
    if (slice_eq_str(method, "HEAD"))
        method = SLICE_LIT("GET");
    *path_known = false;
    for (size_t i = 0; i < ARRAY_LEN(ENDPOINTS); i++) {
        if (!path_is(path, ENDPOINTS[i].path, &x->id, &x->rest))
            continue;
        *path_known = true;
        if (slice_eq_str(method, ENDPOINTS[i].method))
            return &ENDPOINTS[i];
    }
    return NULL;
}

static void refuse_method(struct ex *x)
{
    buf allow = {0};
    slice id, rest;
    for (size_t i = 0; i < ARRAY_LEN(ENDPOINTS); i++)
        if (path_is(http_path(x->h), ENDPOINTS[i].path, &id, &rest))
            buf_printf(&allow, "%s%s", allow.n ? ", " : "", ENDPOINTS[i].method);
    http_add_header(x->h, "Allow", buf_slice(&allow));
    buf_clear(&allow);
    static const char TEXT[] =
        "{\"error\":{\"message\":\"this path does not take that method\",\"type\":"
        "\"invalid_request_error\",\"param\":null,\"code\":\"method_not_allowed\"}}";
    api_json(x, 405, SLICE_LIT(TEXT));
}

/* ---- answering ---- */

void api_count(struct ex *x, int status)
{
    x->status = status;
    metrics_response(status);
}

void api_json(struct ex *x, int status, slice body)
{
    api_count(x, status);
    http_respond(x->h, status, "application/json", body);
}

void api_fail(struct ex *x, const struct gw_fail *f)
{
    if (!x->h || http_answered(x->h))
        return;
    buf out = {0};
    struct openai_error e = {.err = f->err, .code = f->code, .why = &f->why};
    openai_put_error(&out, &e);
    if (f->retry_after_ms) {
        char s[16];
        snprintf(s, sizeof s, "%u", (f->retry_after_ms + 999) / 1000);
        http_add_header(x->h, "Retry-After", slice_str(s));
    }
    if (f->err == ERR_AUTH)
        http_add_header(x->h, "WWW-Authenticate", SLICE_LIT("Bearer"));
    api_json(x, err_http(f->err), buf_slice(&out));
    buf_clear(&out);
}

void api_fail_err(struct ex *x, int err, const struct why *w)
{
    struct gw_fail f = {.err = err, .retry_after_ms = err_retryable(err) ? 1000 : 0};
    if (w)
        f.why = *w;
    api_fail(x, &f);
}

slice api_tenant(const struct ex *x)
{
    return (slice){(const char *)x->tenant.id, sizeof x->tenant.id};
}

/* ---- an exchange begins ---- */

static bool id_ok(slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x21 || s.p[i] > 0x7e)
            return false;
    return s.n > 0 && s.n <= REQUEST_ID_BYTES_MAX;
}

static void take_request_id(struct ex *x)
{
    slice given = http_header(x->h, "X-Request-Id");
    if (id_ok(given)) {
        memcpy(x->request_id, given.p, given.n);
    } else {
        uint8_t raw[16];
        char hex[33];
        random_bytes(raw, sizeof raw);
        hex_encode(raw, sizeof raw, hex);
        snprintf(x->request_id, sizeof x->request_id, "req_%s", hex);
    }
    http_add_header(x->h, "X-Request-Id", slice_str(x->request_id));
}

/* W3C: 00-<32 hex>-<16 hex>-<2 hex>; anything else is as if it were not there. */
static void take_trace(struct ex *x)
{
    slice t = http_header(x->h, "traceparent");
    bool shaped =
        t.n == 55 && slice_starts(t, SLICE_LIT("00-")) && t.p[35] == '-' && t.p[52] == '-';
    uint8_t flags;
    struct trace_at *at = &x->trace;
    if (shaped && hex_decode((slice){t.p + 3, 32}, at->trace, sizeof at->trace) == 0 &&
        hex_decode((slice){t.p + 36, 16}, at->span, sizeof at->span) == 0 &&
        hex_decode((slice){t.p + 53, 2}, &flags, 1) == 0) {
        at->on = flags & 1;
    } else {
        random_bytes(at->trace, sizeof at->trace);
        memset(at->span, 0, sizeof at->span);
        at->on = trace_chosen(at->trace, x->a->cfg.trace_ratio);
    }
    at->on &= trace_on();
    x->span = trace_new(at, random_u64(), "request", TRACE_SERVER, x->began_us);
}

static void record(struct ex *x, bool gone)
{
    struct trace_span *s = x->span;
    if (!s)
        return;
    if (!x->at || !slice_starts(slice_str(x->at->path), SLICE_LIT("/v1/"))) {
        free(s); /* probes and strangers would be most of all traces */
        return;
    }
    s->err = x->status >= 500 ? ERR_INTERNAL : gone ? ERR_CANCELLED : 0;
    s->name = x->at->path;
    trace_text(s, "http.request.method", slice_str(x->at->method));
    trace_text(s, "nunchi.request_id", slice_str(x->request_id));
    trace_int(s, "http.response.status_code", x->status);
    if (x->usage.prompt_tokens) {
        trace_int(s, "gen_ai.usage.input_tokens", (int64_t)x->usage.prompt_tokens);
        trace_int(s, "gen_ai.usage.output_tokens", (int64_t)x->usage.completion_tokens);
        trace_int(s, "nunchi.cached_tokens", (int64_t)x->usage.cached_tokens);
    }
    trace_end(s, loop_now_us(x->a->l));
}

static void begin(struct ex *x)
{
    struct why w;
    bool path_known;
    x->at = find(x, &path_known);
    bool needs_key =
        !x->at || !(x->at->open || (x->at->end == status_metrics && x->a->cfg.metrics_public));
    int e = keys_check(x->a->cfg.keys, http_header(x->h, "Authorization"), &x->tenant, &w);
    if (e < 0 && needs_key) {
        api_fail_err(x, e, &w);
    } else if (!x->at && path_known) {
        refuse_method(x);
    } else if (!x->at) {
        why_set(&w, ERR_NOT_FOUND, "",
                "there is no such path; see /v1/models, /v1/chat/completions, /v1/files");
        api_fail_err(x, ERR_NOT_FOUND, &w);
    } else if (x->at->begin) {
        x->at->begin(x);
    }
}

static void on_begin(void *ctx, http_ex *h)
{
    api *a = ctx;
    struct ex *x = xcalloc(1, sizeof *x);
    x->a = a;
    x->h = h;
    x->began_us = x->wrote_us = loop_now_us(a->l);
    list_append(&a->open, &x->link);
    http_set(h, x);
    take_request_id(x);
    take_trace(x);
    begin(x);
}

static void on_body(void *ctx UNUSED, http_ex *h, slice bytes)
{
    struct ex *x = http_get(h);
    if (x->at && x->at->body)
        x->at->body(x, bytes);
}

static void on_end(void *ctx UNUSED, http_ex *h)
{
    struct ex *x = http_get(h);
    x->body_done = true;
    if (x->at)
        x->at->end(x);
}

static void on_drained(void *ctx UNUSED, http_ex *h)
{
    answer_drained(http_get(h));
}

static void log_over(const struct ex *x, bool gone)
{
    log_info("request", LOG_STR("id", x->request_id),
             LOG_HEX("trace", x->trace.trace, sizeof x->trace.trace),
             LOG_STR("path", x->at ? x->at->path : "?"), LOG_I64("status", x->status),
             LOG_STR("key", x->tenant.name ? x->tenant.name : ""),
             LOG_F64("ms", (double)(loop_now_us(x->a->l) - x->began_us) / 1000),
             LOG_STR("gone", gone ? "yes" : "no"), LOG_U64("prompt_tokens", x->usage.prompt_tokens),
             LOG_U64("completion_tokens", x->usage.completion_tokens));
}

static void on_over(void *ctx UNUSED, http_ex *h, bool gone)
{
    struct ex *x = http_get(h);
    x->h = NULL;
    if (x->at && x->at->over)
        x->at->over(x);
    if (!x->at || !x->at->open)
        log_over(x, gone);
    record(x, gone);
    list_remove(&x->link);
    free(x);
}

/* ---- the whole ---- */

static void on_tick(void *ctx)
{
    api *a = ctx;
    uint64_t now = loop_now_us(a->l);
    loop_timer_in(a->l, &a->tick, TICK_US);
    LIST_EACH(it, &a->open)
    answer_tick(CONTAINER_OF(it, struct ex, link), now);
}

api *api_new(loop *l, gw *g, const struct api_config *cfg)
{
    api *a = xcalloc(1, sizeof *a);
    a->l = l;
    a->g = g;
    a->cfg = *cfg;
    list_init(&a->open);
    a->parsers = workq_new(l, 1, "parse");
    a->tick = (struct loop_timer){.fn = on_tick, .ctx = a};
    loop_timer_in(l, &a->tick, TICK_US);
    metrics_init();
    return a;
}

void api_free(api *a)
{
    if (!a)
        return;
    loop_timer_cancel(a->l, &a->tick);
    workq_free(a->parsers);
    loop_turn(a->l, 0); /* what the parsers had finished is let go of */
    free(a);
}

void api_attach(api *a, struct http_config *cfg)
{
    cfg->ctx = a;
    cfg->begin = on_begin;
    cfg->body = on_body;
    cfg->end = on_end;
    cfg->drained = on_drained;
    cfg->over = on_over;
}
