/* POST /v1/files: a form whose file goes on to a video worker as it comes in. */
#include <stdio.h>

#include "gateway/api_impl.h"

/* Besides the file: other fields and boundaries. */
#define FORM_SLACK_BYTES (64u << 10)
#define EXPIRES_MIN_S 3600
#define EXPIRES_MAX_S 2592000 /* OpenAI's range: an hour to 30 days */

/* ---- what the core says ---- */

static void on_more(void *ctx)
{
    struct ex *x = ctx;
    http_unpause(x->h);
}

static void on_accepted(void *ctx, const Nunchi__FileRecord *f)
{
    struct ex *x = ctx;
    buf out = {0};
    struct json_out j;
    x->upload = 0;
    json_begin(&j, &out);
    openai_put_file(&j, f);
    api_json(x, 200, buf_slice(&out));
    buf_clear(&out);
}

static void on_failed(void *ctx, const struct gw_fail *f)
{
    struct ex *x = ctx;
    x->upload = 0;
    http_unpause(x->h);
    api_fail(x, f);
}

static const struct gw_upload_ops OPS = {on_more, on_accepted, on_failed};

/* ---- the form ---- */

static int refuse_size(struct ex *x, struct why *w)
{
    return why_set(w, ERR_TOO_BIG, "file", "more than %llu bytes (file-max-bytes)",
                   (unsigned long long)x->a->cfg.file_max_bytes);
}

static int begin_file(struct ex *x, slice filename, struct why *w)
{
    uint8_t raw[16];
    struct gw_fail f;
    buf name = {0};
    if (x->file_id[0])
        return why_set(w, ERR_INVALID, "file", "one file at a time");
    random_bytes(raw, sizeof raw);
    memcpy(x->file_id, "file-", 5);
    hex_encode(raw, sizeof raw, x->file_id + 5);
    utf8_put_lossy(&name, filename);
    struct gw_upload_meta m = {
        .id = slice_str(x->file_id), .tenant = api_tenant(x), .filename = buf_slice(&name)};
    int e = gw_upload_begin(x->a->g, loop_now_us(x->a->l), &m, &OPS, x, &x->upload, &f);
    buf_clear(&name);
    x->in_file = true;
    return e < 0 ? why_set(w, e, "file", "%s", f.why.text) : 0;
}

static int on_part(void *ctx, slice name, slice filename, bool is_file, struct why *w)
{
    struct ex *x = ctx;
    if (name.n >= sizeof x->field)
        return why_set(w, ERR_INVALID, "", "a field of the form has a name of more than %zu bytes",
                       sizeof x->field - 1);
    memcpy(x->field, name.p, name.n);
    x->field[name.n] = 0;
    buf_reset(&x->value);
    if (strcmp(x->field, "file") != 0)
        return 0;
    if (!is_file)
        return why_set(w, ERR_INVALID, "file", "must be a file with a name, not a plain field");
    if (filename.n > FILENAME_BYTES_MAX)
        return why_set(w, ERR_INVALID, "file", "its name has more than %d bytes",
                       FILENAME_BYTES_MAX);
    return begin_file(x, filename, w);
}

static int on_data(void *ctx, slice bytes, struct why *w)
{
    struct ex *x = ctx;
    if (!x->in_file) {
        if (x->value.n + bytes.n > FORM_FIELD_BYTES_MAX)
            return why_set(w, ERR_TOO_BIG, x->field, "more than %d bytes", FORM_FIELD_BYTES_MAX);
        buf_put_slice(&x->value, bytes);
        return 0;
    }
    x->file_bytes += bytes.n;
    if (x->file_bytes > x->a->cfg.file_max_bytes)
        return refuse_size(x, w);
    if (x->upload && !gw_upload_bytes(x->a->g, loop_now_us(x->a->l), x->upload, bytes))
        http_pause(x->h);
    return 0;
}

static int take_purpose(struct ex *x, slice v, struct why *w)
{
    static const char *const SERVED[] = {"user_data", "vision", "assistants"};
    for (size_t i = 0; i < ARRAY_LEN(SERVED); i++)
        if (slice_eq_str(v, SERVED[i])) {
            snprintf(x->purpose, sizeof x->purpose, "%s", SERVED[i]);
            return 0;
        }
    return why_set(w, ERR_UNSUPPORTED, "purpose", "one of user_data, vision, assistants");
}

static int take_expiry(struct ex *x, slice v, struct why *w)
{
    uint64_t s;
    if (slice_u64(v, &s) < 0 || s < EXPIRES_MIN_S || s > EXPIRES_MAX_S)
        return why_set(w, ERR_INVALID, "expires_after[seconds]",
                       "a number of seconds from %d to %d", EXPIRES_MIN_S, EXPIRES_MAX_S);
    x->expires_s = s;
    return 0;
}

static int on_part_end(void *ctx, struct why *w)
{
    struct ex *x = ctx;
    slice v = buf_slice(&x->value);
    if (x->in_file) {
        x->in_file = false;
        return x->file_bytes ? 0 : why_set(w, ERR_INVALID, "file", "the file is empty");
    }
    if (strcmp(x->field, "purpose") == 0)
        return take_purpose(x, v, w);
    if (strcmp(x->field, "expires_after[seconds]") == 0)
        return take_expiry(x, v, w);
    if (strcmp(x->field, "expires_after[anchor]") == 0)
        return slice_eq_str(v, "created_at")
                   ? 0
                   : why_set(w, ERR_INVALID, x->field, "only 'created_at'");
    return why_set(w, ERR_INVALID, x->field,
                   "no such field; a form has file, purpose, expires_after[seconds]");
}

static const struct multipart_ops FORM = {on_part, on_data, on_part_end};

/* ---- the exchange ---- */

static void give_up(struct ex *x, int err, const struct why *w)
{
    if (x->upload)
        gw_upload_cancel(x->a->g, loop_now_us(x->a->l), x->upload);
    x->upload = 0;
    api_fail_err(x, err, w);
}

void upload_begin(struct ex *x)
{
    struct why w;
    uint64_t length;
    int e = multipart_init(&x->form, http_header(x->h, "Content-Type"), &FORM, x, &w);
    x->has_form = e == 0;
    if (e == 0 && http_length(x->h, &length) &&
        length > x->a->cfg.file_max_bytes + FORM_SLACK_BYTES)
        e = refuse_size(x, &w);
    if (e < 0)
        api_fail_err(x, e, &w);
}

void upload_body(struct ex *x, slice bytes)
{
    struct why w;
    if (http_answered(x->h))
        return;
    int e = multipart_feed(&x->form, bytes, &w);
    if (e < 0)
        give_up(x, e, &w);
}

void upload_end(struct ex *x)
{
    struct why w;
    if (http_answered(x->h))
        return;
    int e = multipart_end(&x->form, &w);
    if (e == 0 && !x->file_id[0])
        e = why_set(&w, ERR_INVALID, "file", "the form has no file");
    if (e == 0 && !x->purpose[0])
        e = why_set(&w, ERR_INVALID, "purpose", "missing; one of user_data, vision, assistants");
    if (e < 0) {
        give_up(x, e, &w);
        return;
    }
    uint64_t unix_s = clock_unix_ms() / 1000;
    gw_upload_finish(x->a->g, loop_now_us(x->a->l), x->upload, slice_str(x->purpose), unix_s,
                     x->expires_s ? unix_s + x->expires_s : 0);
}

void upload_over(struct ex *x)
{
    if (x->upload)
        gw_upload_cancel(x->a->g, loop_now_us(x->a->l), x->upload);
    if (x->has_form)
        multipart_clear(&x->form);
    buf_clear(&x->value);
}
