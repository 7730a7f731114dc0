#include "tests/load/lib/stream.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/json_out.h"

#define SLOW_READ_BYTES 64
#define SLOW_READ_US 50000

const char *const FAILURE_NAMES[FAILURES] = {"connect",  "closed",  "status", "event",
                                             "protocol", "timeout", "wrong"};

static void on_socket(void *ctx, uint32_t events);
static void on_read_later(void *ctx);

void stream_init(struct stream *s, struct run *r, bool slow)
{
    *s = (struct stream){.r = r, .fd = -1, .slow = slow};
    s->read_later = (struct loop_timer){.fn = on_read_later, .ctx = s};
    list_append(&r->idle, &s->idle);
}

/* ---- the connection ---- */

static void disconnect(struct stream *s)
{
    if (s->fd < 0)
        return;
    loop_timer_cancel(s->r->l, &s->read_later);
    loop_fd_del(s->r->l, s->watch);
    close(s->fd);
    s->watch = NULL;
    s->fd = -1;
}

static int connect_to_target(struct stream *s)
{
    s->fd = target_connect(&s->r->target, s->slow);
    s->fresh = true;
    s->sent = 0;
    if (s->fd < 0)
        return s->fd;
    s->watch = loop_fd_add(s->r->l, s->fd, EPOLLIN | EPOLLOUT, on_socket, s);
    return s->watch ? 0 : ERR_IO;
}

void stream_clear(struct stream *s)
{
    disconnect(s);
    buf_clear(&s->out);
    answer_clear(&s->in);
}

/* ---- ends ---- */

/* What a server says may be anything; this is for a terminal. */
static void note_first(char *to, size_t cap, enum failure kind, slice why)
{
    snprintf(to, cap, "%s: %.*s", FAILURE_NAMES[kind], (int)(why.n < 200 ? why.n : 200), why.p);
    for (; *to; to++)
        *to = (unsigned char)*to < ' ' || *to == 127 ? ' ' : *to;
}

static void fail(struct stream *s, enum failure kind, slice why)
{
    struct load_result *to = s->r->to;
    disconnect(s);
    s->busy = false;
    if (!s->slow) {
        to->failed[kind]++;
        if (!to->why[0])
            note_first(to->why, sizeof to->why, kind, why);
    }
    run_ended(s->r, s);
}

void stream_give_up(struct stream *s)
{
    if (s->busy)
        fail(s, FAIL_TIMEOUT, SLICE_LIT("not done when the run ended"));
}

static void count(struct stream *s)
{
    struct load_result *to = s->r->to;
    const struct answer *a = &s->in;
    double pieces = (double)a->n_pieces,
           tokens = a->has_usage ? (double)a->completion_tokens : pieces;
    to->n_ok++;
    to->tokens += tokens;
    to->prompt_tokens += (double)a->prompt_tokens;
    to->cached_tokens += (double)a->cached_tokens;
    to->steady_tokens += (double)s->steady_pieces * tokens / pieces;
    spread_add(&to->whole, clock_mono_us() - s->begun_us);
}

static void finish(struct stream *s)
{
    struct answer *a = &s->in;
    char text[16];
    if (a->closes)
        disconnect(s);
    s->fresh = false;
    if (a->status != 200) {
        snprintf(text, sizeof text, "%d ", a->status);
        buf why = {0};
        buf_put_str(&why, text);
        buf_put_slice(&why, buf_slice(&a->kept));
        fail(s, FAIL_STATUS, buf_slice(&why));
        buf_clear(&why);
    } else if (a->failed) {
        fail(s, FAIL_EVENT, buf_slice(&a->kept));
    } else if (!a->done) {
        fail(s, FAIL_PROTOCOL, SLICE_LIT("an answer without [DONE]"));
    } else if (s->r->o->check_words && a->text_sum != s->wanted) {
        fail(s, FAIL_WRONG, SLICE_LIT("not the words that this prompt is answered with"));
    } else if (a->n_pieces == 0) {
        fail(s, FAIL_PROTOCOL, SLICE_LIT("an answer without text"));
    } else {
        s->busy = false;
        if (!s->slow)
            count(s);
        run_ended(s->r, s);
    }
}

/* ---- reading and writing ---- */

static void first_text(struct stream *s, uint64_t now)
{
    struct run *r = s->r;
    if (!s->ever && ++r->n_ever == r->n_measured && r->o->rate <= 0)
        r->steady_from_us = now;
    s->ever = true;
    spread_add(&r->to->first, now - s->begun_us);
}

/* The pieces that came with one read came at one time. */
static void pieces_came(struct stream *s, uint64_t n, uint64_t now)
{
    struct run *r = s->r;
    if (s->slow || n == 0)
        return;
    if (r->steady_from_us && !r->steady_to_us)
        s->steady_pieces += n;
    if (s->in.n_pieces == n)
        first_text(s, now);
    else
        spread_add(&r->to->gap, now - s->last_us);
    for (uint64_t i = 1; i < n; i++)
        spread_add(&r->to->gap, 0);
    if (s->in.stamp_us && now > s->in.stamp_us)
        spread_add(&r->to->delay, now - s->in.stamp_us);
    s->in.stamp_us = 0;
    s->last_us = now;
}

/* A connection that was kept may have been closed while the request was on its way: asked again. */
static void lost(struct stream *s, int error)
{
    bool silent = s->in.state == ANSWER_HEAD && s->in.status == 0;
    bool stale = silent && !s->fresh;
    disconnect(s);
    if (stale && connect_to_target(s) == 0)
        return;
    const char *why = error ? strerror(error) : "the connection ended before the answer";
    fail(s, silent && error == ECONNREFUSED ? FAIL_CONNECT : FAIL_CLOSED, slice_str(why));
}

static void on_read_later(void *ctx)
{
    struct stream *s = ctx;
    if (s->watch)
        loop_fd_set(s->r->l, s->watch, EPOLLIN);
}

static void on_end(struct stream *s, int error)
{
    if (!s->busy)
        disconnect(s);
    else if (error == 0 && answer_eof(&s->in) == 0)
        finish(s);
    else
        lost(s, error);
}

/* A server may answer and close before it has read everything: what it said is read then. */
static void write_request(struct stream *s)
{
    while (s->sent < s->out.n) {
        ssize_t n = send(s->fd, s->out.p + s->sent, s->out.n - s->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0 && errno == ECONNREFUSED) {
            on_end(s, errno);
            return;
        }
        s->sent = n < 0 ? s->out.n : s->sent + (size_t)n;
    }
    loop_fd_set(s->r->l, s->watch, EPOLLIN);
}

static void on_bytes(struct stream *s, slice bytes)
{
    struct why w = {.text = "bytes that nobody asked for"};
    uint64_t now = clock_mono_us(), before = s->in.n_pieces;
    int used = s->busy ? answer_feed(&s->in, bytes, &w) : ERR_PROTO;
    if (used != (int)bytes.n) {
        fail(s, FAIL_PROTOCOL, used < 0 ? slice_str(w.text) : SLICE_LIT("bytes behind the answer"));
        return;
    }
    pieces_came(s, s->in.n_pieces - before, now);
    if (s->in.state == ANSWER_DONE) {
        finish(s);
    } else if (s->slow) {
        loop_fd_set(s->r->l, s->watch, 0);
        loop_timer_in(s->r->l, &s->read_later, SLOW_READ_US);
    }
}

static void read_some(struct stream *s)
{
    ssize_t n = read(s->fd, s->r->piece, s->slow ? SLOW_READ_BYTES : READ_BYTES);
    if (n > 0)
        on_bytes(s, (slice){s->r->piece, (size_t)n});
    else if (n == 0)
        on_end(s, 0);
    else if (errno != EAGAIN && errno != EINTR)
        on_end(s, errno);
}

static void on_socket(void *ctx, uint32_t events)
{
    struct stream *s = ctx;
    if (events & EPOLLOUT)
        write_request(s);
    if (s->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        read_some(s);
}

/* ---- asking ---- */

static void put_messages(struct json_out *j, slice text)
{
    json_key(j, "messages");
    json_arr(j);
    json_obj(j);
    json_kv_cstr(j, "role", "user");
    json_kv_str(j, "content", text);
    json_obj_end(j);
    json_arr_end(j);
}

static void put_body(struct run *r, uint64_t number, bool slow)
{
    const struct load_options *o = r->o;
    struct json_out j;
    buf_reset(&r->text);
    buf_reset(&r->body);
    prompts_put(&r->prompts, number, &r->text);
    json_begin(&j, &r->body);
    json_obj(&j);
    json_kv_str(&j, "model", buf_slice(&r->model));
    put_messages(&j, buf_slice(&r->text));
    json_kv_bool(&j, "stream", true);
    json_kv_i64(&j, "max_tokens", slow ? o->slow_tokens : o->max_tokens);
    json_kv_f64(&j, "temperature", o->temperature);
    if (o->ignore_eos)
        json_kv_bool(&j, "ignore_eos", true);
    if (o->usage) {
        json_key(&j, "stream_options");
        json_obj(&j);
        json_kv_bool(&j, "include_usage", true);
        json_obj_end(&j);
    }
    json_obj_end(&j);
}

static uint64_t wanted_sum(slice prompt, int64_t n)
{
    buf ids = {0};
    words_ids(prompt, &ids);
    uint64_t sum = words_answer(words_prompt(buf_slice(&ids)), 0, (uint32_t)n);
    buf_clear(&ids);
    return sum;
}

void stream_ask(struct stream *s, uint64_t number, uint64_t begun_us)
{
    struct run *r = s->r;
    put_body(r, number, s->slow);
    buf_reset(&s->out);
    if (r->o->check_words)
        s->wanted = wanted_sum(buf_slice(&r->text), s->slow ? r->o->slow_tokens : r->o->max_tokens);
    target_head(&r->target, "POST", "/v1/chat/completions", r->body.n, &s->out);
    buf_put_slice(&s->out, buf_slice(&r->body));
    answer_init(&s->in);
    s->sent = 0;
    s->busy = true;
    s->begun_us = s->last_us = begun_us;
    s->steady_pieces = 0;
    if (s->fd < 0 && connect_to_target(s) < 0)
        fail(s, FAIL_CONNECT, SLICE_LIT("no connection"));
    else
        loop_fd_set(r->l, s->watch, EPOLLIN | EPOLLOUT);
}
