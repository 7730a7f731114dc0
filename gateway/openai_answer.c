#include "gateway/openai_answer.h"

#include <stdio.h>

#include "gateway/openai_logprobs.h"

void openai_answer_init(struct openai_answer *a, enum openai_api api, const struct gw_request *r,
                        const uint8_t unique[16], uint64_t created_s)
{
    char hex[33];
    *a = (struct openai_answer){.api = api,
                                .stream = r->stream,
                                .include_usage = r->include_usage,
                                .with_logprobs = r->sampling.logprobs,
                                .echo = r->echo,
                                .created_s = created_s,
                                .n_choices = r->n,
                                .choice = xcalloc(r->n, sizeof *a->choice),
                                .model = slice_dup(r->model)};
    hex_encode(unique, 16, hex);
    snprintf(a->id, sizeof a->id, "%s-%s", api == OPENAI_CHAT ? "chatcmpl" : "cmpl", hex);
}

void openai_answer_clear(struct openai_answer *a)
{
    for (size_t i = 0; i < a->n_choices; i++) {
        buf_clear(&a->choice[i].text);
        buf_clear(&a->choice[i].tail);
        logprobs_clear(&a->choice[i].logprobs);
    }
    free(a->choice);
    free(a->model);
    a->choice = NULL;
    a->n_choices = 0;
    a->model = NULL;
}

void openai_answer_start(struct openai_answer *a, const struct gw_start *s, buf *out UNUSED)
{
    char hex[13] = "";
    if (s->numerics.n >= 6)
        hex_encode(s->numerics.p, 6, hex);
    snprintf(a->fingerprint, sizeof a->fingerprint, "fp_%s", hex);
    for (uint32_t i = 0; a->echo && i < a->n_choices; i++) {
        buf_put_slice(&a->choice[i].tail, s->first);
        if (a->with_logprobs)
            logprobs_add_first(&a->choice[i].logprobs, &a->choice[i].offset, s->first);
    }
}

/* ---- what all objects begin with ---- */

static const char *object_name(const struct openai_answer *a)
{
    if (a->api == OPENAI_COMPLETION)
        return "text_completion";
    return a->stream ? "chat.completion.chunk" : "chat.completion";
}

static void put_head(const struct openai_answer *a, struct json_out *j)
{
    json_obj(j);
    json_kv_cstr(j, "id", a->id);
    json_kv_cstr(j, "object", object_name(a));
    json_kv_u64(j, "created", a->created_s);
    json_kv_cstr(j, "model", a->model);
    json_kv_cstr(j, "system_fingerprint", a->fingerprint);
}

static void put_usage(struct json_out *j, const struct gw_usage *u)
{
    json_key(j, "usage");
    json_obj(j);
    json_kv_u64(j, "prompt_tokens", u->prompt_tokens);
    json_kv_u64(j, "completion_tokens", u->completion_tokens);
    json_kv_u64(j, "total_tokens", u->prompt_tokens + u->completion_tokens);
    json_key(j, "prompt_tokens_details");
    json_obj(j);
    json_kv_u64(j, "cached_tokens", u->cached_tokens);
    json_obj_end(j);
    json_obj_end(j);
}

static void put_finish(struct json_out *j, const enum gw_end *end)
{
    json_key(j, "finish_reason");
    json_cstr(j, !end ? NULL : *end == GW_END_STOP ? "stop" : "length");
}

static void put_logprobs(const struct openai_answer *a, struct json_out *j, struct answer_choice *c)
{
    json_key(j, "logprobs");
    if (a->with_logprobs && c->logprobs.n)
        logprobs_put(j, a->api, &c->logprobs);
    else
        json_null(j);
}

/* Our own word, where there is something to say: its end may not be what it would have been. */
static void put_moved(struct json_out *j, const struct gw_usage *u)
{
    if (!u->numerics_changed)
        return;
    json_key(j, "nunchi");
    json_obj(j);
    json_key(j, "numerics_changed");
    json_bool(j, true);
    json_obj_end(j);
}

/* ---- streaming ---- */

static void event_begin(const struct openai_answer *a, struct json_out *j, buf *out)
{
    buf_put_str(out, "data: ");
    json_begin(j, out);
    put_head(a, j);
    json_key(j, "choices");
    json_arr(j);
}

static void event_end(const struct openai_answer *a, struct json_out *j, const struct gw_usage *u)
{
    json_arr_end(j);
    if (u) {
        if (a->include_usage)
            put_usage(j, u);
        put_moved(j, u);
    } else if (a->include_usage) {
        json_key(j, "usage");
        json_null(j);
    }
    json_obj_end(j);
    buf_put_str(j->to, "\n\n");
}

struct piece {
    bool role; /* the first event of a chat's choice */
    slice text;
    const enum gw_end *end;
};

static void put_piece(const struct openai_answer *a, struct json_out *j, const struct piece *p)
{
    if (a->api == OPENAI_COMPLETION) {
        json_kv_str(j, "text", p->text);
        return;
    }
    json_key(j, "delta");
    json_obj(j);
    if (p->role) {
        json_kv_cstr(j, "role", "assistant");
        json_kv_cstr(j, "content", "");
        json_key(j, "refusal");
        json_null(j);
    } else if (p->text.n) {
        json_kv_str(j, "content", p->text);
    }
    json_obj_end(j);
}

static void put_event(struct openai_answer *a, uint32_t choice, const struct piece *p, buf *out)
{
    struct json_out j;
    event_begin(a, &j, out);
    json_obj(&j);
    json_kv_u64(&j, "index", choice);
    put_piece(a, &j, p);
    put_logprobs(a, &j, &a->choice[choice]);
    put_finish(&j, p->end);
    json_obj_end(&j);
    event_end(a, &j, NULL);
}

/* Chats begin with an event that names the role; it goes out with the first text. */
static void begin_choice(struct openai_answer *a, uint32_t choice, buf *out)
{
    struct answer_choice *c = &a->choice[choice];
    if (c->begun || a->api != OPENAI_CHAT)
        return;
    c->begun = true;
    struct logprob_text later = c->logprobs;
    c->logprobs = (struct logprob_text){0};
    put_event(a, choice, &(struct piece){.role = true}, out);
    c->logprobs = later;
}

/* Whole characters of what has come so far; the rest waits. */
static void take_whole(struct answer_choice *c, bool last, buf *text)
{
    size_t n = last ? c->tail.n : utf8_complete_len(c->tail.p, c->tail.n);
    if (n == 0)
        return;
    utf8_put_lossy(text, (slice){c->tail.p, n});
    buf_drop_front(&c->tail, n);
}

void openai_answer_delta(struct openai_answer *a, const struct gw_delta *d, buf *out)
{
    CHECK(d->choice < a->n_choices);
    struct answer_choice *c = &a->choice[d->choice];
    for (size_t i = 0; a->with_logprobs && i < d->n_logprobs; i++)
        logprobs_add(&c->logprobs, a->api, &c->offset, d->logprobs[i]);
    if (d->text.n)
        buf_put_slice(&c->tail, d->text);
    if (!a->stream) {
        take_whole(c, false, &c->text);
        return;
    }
    buf text = {0};
    take_whole(c, false, &text);
    if (text.n || c->logprobs.n) {
        begin_choice(a, d->choice, out);
        put_event(a, d->choice, &(struct piece){.text = buf_slice(&text)}, out);
    }
    buf_clear(&text);
}

void openai_answer_end(struct openai_answer *a, uint32_t choice, enum gw_end why, buf *out)
{
    CHECK(choice < a->n_choices);
    struct answer_choice *c = &a->choice[choice];
    c->end = why;
    if (!a->stream) {
        take_whole(c, true, &c->text);
        return;
    }
    buf text = {0};
    take_whole(c, true, &text);
    begin_choice(a, choice, out);
    if (text.n)
        put_event(a, choice, &(struct piece){.text = buf_slice(&text)}, out);
    put_event(a, choice, &(struct piece){.end = &why}, out);
    buf_clear(&text);
}

/* ---- whole ---- */

static void put_message(const struct openai_answer *a, struct json_out *j,
                        const struct answer_choice *c)
{
    if (a->api == OPENAI_COMPLETION) {
        json_kv_str(j, "text", buf_slice(&c->text));
        return;
    }
    json_key(j, "message");
    json_obj(j);
    json_kv_cstr(j, "role", "assistant");
    json_kv_str(j, "content", buf_slice(&c->text));
    json_key(j, "refusal");
    json_null(j);
    json_key(j, "annotations");
    json_arr(j);
    json_arr_end(j);
    json_obj_end(j);
}

static void put_whole(struct openai_answer *a, const struct gw_usage *u, buf *out)
{
    struct json_out j;
    json_begin(&j, out);
    put_head(a, &j);
    json_key(&j, "choices");
    json_arr(&j);
    for (uint32_t i = 0; i < a->n_choices; i++) {
        json_obj(&j);
        json_kv_u64(&j, "index", i);
        put_message(a, &j, &a->choice[i]);
        put_logprobs(a, &j, &a->choice[i]);
        put_finish(&j, &a->choice[i].end);
        json_obj_end(&j);
    }
    json_arr_end(&j);
    put_usage(&j, u);
    put_moved(&j, u);
    json_obj_end(&j);
}

void openai_answer_done(struct openai_answer *a, const struct gw_usage *u, buf *out)
{
    if (!a->stream) {
        put_whole(a, u, out);
        return;
    }
    if (a->include_usage || u->numerics_changed) {
        struct json_out j;
        event_begin(a, &j, out);
        event_end(a, &j, u);
    }
    buf_put_str(out, "data: [DONE]\n\n");
}

void openai_answer_failed(const struct openai_error *e, buf *out)
{
    buf_put_str(out, "data: ");
    openai_put_error(out, e);
    buf_put_str(out, "\n\n");
}

void openai_answer_ping(buf *out, const char *text)
{
    buf_printf(out, ": %s\n\n", text);
}
