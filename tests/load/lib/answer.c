#include "tests/load/lib/answer.h"

#include <ctype.h>
#include <strings.h>

static bool has(slice text, const char *what)
{
    return memmem(text.p, text.n, what, strlen(what)) != NULL;
}

/* ---- what an event says: looked for, not parsed, because this runs beside the server it measures
 * ---- */

static const char *behind_key(slice text, const char *key)
{
    const char *p = memmem(text.p, text.n, key, strlen(key)), *end = text.p + text.n;
    if (!p)
        return NULL;
    for (p += strlen(key); p < end && *p == ' '; p++)
        ;
    if (p == end || *p++ != ':')
        return NULL;
    for (; p < end && *p == ' '; p++)
        ;
    return p < end ? p : NULL;
}

static void take_number(slice text, const char *key, uint64_t *out)
{
    const char *p = behind_key(text, key), *end = text.p + text.n;
    if (!p || !isdigit((unsigned char)*p))
        return;
    for (*out = 0; p < end && isdigit((unsigned char)*p) && *out < UINT64_MAX / 100; p++)
        *out = *out * 10 + (uint64_t)(*p - '0');
}

/* The text of an event up to its first quotation mark: escapes stay as they are. Empty: none. */
static slice text_of(slice event)
{
    const char *p = behind_key(event, "\"content\""), *end = event.p + event.n;
    if (!p || p + 1 >= end || p[0] != '"')
        return (slice){0};
    const char *close = memchr(p + 1, '"', (size_t)(end - p - 1));
    return (slice){p + 1, (size_t)((close ? close : end) - p - 1)};
}

static void on_event(void *ctx, slice text)
{
    struct answer *a = ctx;
    if (slice_eq_str(text, "[DONE]")) {
        a->done = true;
        return;
    }
    if (slice_starts(text, SLICE_LIT("{\"error\""))) {
        a->failed = true;
        buf_reset(&a->kept);
        buf_put(&a->kept, text.p, text.n < ANSWER_KEPT_MAX ? text.n : ANSWER_KEPT_MAX);
        return;
    }
    slice piece = text_of(text);
    a->n_pieces += piece.n > 0;
    uint64_t stamp = words_stamp_of(piece);
    a->stamp_us = stamp ? stamp : a->stamp_us;
    a->text_sum = words_sum(a->text_sum, piece);
    const char *usage = behind_key(text, "\"usage\"");
    if (!usage || *usage != '{')
        return;
    a->has_usage = true;
    take_number(text, "\"prompt_tokens\"", &a->prompt_tokens);
    take_number(text, "\"completion_tokens\"", &a->completion_tokens);
    take_number(text, "\"cached_tokens\"", &a->cached_tokens);
}

/* ---- the head ---- */

void answer_init(struct answer *a)
{
    buf line = a->line, kept = a->kept, sse_line = a->sse.line;
    *a = (struct answer){
        .body = BODY_UNTIL_CLOSE, .text_sum = WORDS_BEGIN, .line = line, .kept = kept};
    a->sse = (struct sse){.line = sse_line, .data = on_event, .ctx = a};
    buf_reset(&a->line);
    buf_reset(&a->kept);
    buf_reset(&a->sse.line);
}

void answer_clear(struct answer *a)
{
    buf_clear(&a->line);
    buf_clear(&a->kept);
    sse_clear(&a->sse);
}

static int status_line(struct answer *a, slice line, struct why *w)
{
    uint64_t status = 0;
    if (line.n < 12 || !slice_starts(line, SLICE_LIT("HTTP/1.")) ||
        slice_u64((slice){line.p + 9, 3}, &status) < 0)
        return why_set(w, ERR_PROTO, "", "the answer is not HTTP/1");
    a->status = (int)status;
    a->closes = line.p[7] == '0';
    return 0;
}

static int header_line(struct answer *a, slice line, struct why *w)
{
    slice name, value = line;
    if (!slice_split(&value, ':', &name))
        return 0;
    value = slice_trim(value);
    if (name.n == 14 && !strncasecmp(name.p, "content-length", 14)) {
        if (slice_u64(value, &a->left) < 0)
            return why_set(w, ERR_PROTO, "", "Content-Length is not a number");
        a->body = BODY_LENGTH;
    } else if (name.n == 17 && !strncasecmp(name.p, "transfer-encoding", 17)) {
        a->body = BODY_CHUNKED;
    } else if (name.n == 12 && !strncasecmp(name.p, "content-type", 12)) {
        a->stream = has(value, "text/event-stream");
    } else if (name.n == 10 && !strncasecmp(name.p, "connection", 10)) {
        a->closes = has(value, "close");
    }
    return 0;
}

static void end_head(struct answer *a)
{
    bool more = a->status >= 100 && a->status < 200; /* another head follows */
    if (more) {
        a->body = BODY_UNTIL_CLOSE;
        return;
    }
    a->state = a->body == BODY_LENGTH && a->left == 0 ? ANSWER_DONE : ANSWER_BODY;
    a->chunk = CHUNK_SIZE;
}

/* The line without its end, when it is whole. */
static bool take_line(struct answer *a, slice *rest, slice *line)
{
    const char *nl = memchr(rest->p, '\n', rest->n);
    size_t n = nl ? (size_t)(nl - rest->p) + 1 : rest->n;
    buf_put(&a->line, rest->p, n);
    *rest = (slice){rest->p + n, rest->n - n};
    if (!nl)
        return false;
    *line = (slice){a->line.p, a->line.n - 1};
    if (line->n && line->p[line->n - 1] == '\r')
        line->n--;
    return true;
}

static int feed_head(struct answer *a, slice *rest, struct why *w)
{
    slice line;
    size_t before = rest->n;
    bool whole = take_line(a, rest, &line);
    a->head_bytes += before - rest->n;
    if (a->head_bytes > ANSWER_HEAD_MAX)
        return why_set(w, ERR_PROTO, "", "the head has more than %d bytes", ANSWER_HEAD_MAX);
    if (!whole)
        return 0;
    int err = 0;
    if (line.n == 0 && a->status)
        end_head(a);
    else if (a->status == 0 || slice_starts(line, SLICE_LIT("HTTP/1.")))
        err = status_line(a, line, w);
    else
        err = header_line(a, line, w);
    buf_reset(&a->line);
    return err;
}

/* ---- the body ---- */

static int body_bytes(struct answer *a, slice bytes, struct why *w)
{
    if (a->stream && a->status == 200)
        return sse_feed(&a->sse, bytes) < 0 ? why_set(w, ERR_PROTO, "", "an event is too long") : 0;
    size_t room = ANSWER_KEPT_MAX - a->kept.n;
    buf_put(&a->kept, bytes.p, bytes.n < room ? bytes.n : room);
    return 0;
}

static int feed_counted(struct answer *a, slice *rest, struct why *w)
{
    size_t n = rest->n < a->left ? rest->n : (size_t)a->left;
    int err = body_bytes(a, (slice){rest->p, n}, w);
    *rest = (slice){rest->p + n, rest->n - n};
    a->left -= n;
    return err;
}

static int chunk_size(struct answer *a, slice line, struct why *w)
{
    size_t n = 0;
    for (a->left = 0; n < line.n && n < 12 && isxdigit((unsigned char)line.p[n]); n++) {
        int c = tolower((unsigned char)line.p[n]);
        a->left = a->left * 16 + (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (n == 0 || n == 12)
        return why_set(w, ERR_PROTO, "", "a chunk has no size");
    a->chunk = a->left ? CHUNK_DATA : CHUNK_TRAILER;
    return 0;
}

static int feed_chunked(struct answer *a, slice *rest, struct why *w)
{
    slice line;
    int err = 0;
    if (a->chunk == CHUNK_DATA) {
        err = feed_counted(a, rest, w);
        if (a->left == 0)
            a->chunk = CHUNK_END;
        return err;
    }
    bool whole = take_line(a, rest, &line);
    if (a->line.n > ANSWER_HEAD_MAX)
        return why_set(w, ERR_PROTO, "", "a chunk's size has too many digits");
    if (!whole)
        return 0;
    if (a->chunk == CHUNK_SIZE)
        err = chunk_size(a, line, w);
    else if (a->chunk == CHUNK_END)
        a->chunk = CHUNK_SIZE;
    else if (line.n == 0)
        a->state = ANSWER_DONE;
    buf_reset(&a->line);
    return err;
}

static int feed_body(struct answer *a, slice *rest, struct why *w)
{
    int err;
    if (a->body == BODY_CHUNKED)
        return feed_chunked(a, rest, w);
    if (a->body == BODY_UNTIL_CLOSE) {
        err = body_bytes(a, *rest, w);
        *rest = (slice){rest->p + rest->n, 0};
        return err;
    }
    err = feed_counted(a, rest, w);
    if (a->left == 0)
        a->state = ANSWER_DONE;
    return err;
}

int answer_feed(struct answer *a, slice bytes, struct why *w)
{
    slice rest = bytes;
    while (rest.n > 0 && a->state != ANSWER_DONE) {
        int err = a->state == ANSWER_HEAD ? feed_head(a, &rest, w) : feed_body(a, &rest, w);
        if (err < 0)
            return err;
    }
    return (int)(bytes.n - rest.n);
}

int answer_eof(struct answer *a)
{
    if (a->state == ANSWER_BODY && a->body == BODY_UNTIL_CLOSE)
        a->state = ANSWER_DONE;
    return a->state == ANSWER_DONE ? 0 : ERR_PROTO;
}
