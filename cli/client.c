#include "cli/client.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/http.h"
#include "cli/term.h"

#define POLL_MS 200

static const struct json_limits LIMITS = {
    .max_bytes = 64u << 20, .max_depth = 32, .max_nodes = 2000000};

int client_refused(long status, slice body, struct why *w)
{
    json_doc *d = NULL;
    slice text = {0}, param = {0};
    if (json_doc_parse(body, &LIMITS, &d, NULL) >= 0) {
        const json_val *error = json_get(json_doc_root(d), "error");
        text = json_str_or(json_get(error, "message"), text);
        param = json_str_or(json_get(error, "param"), param);
    }
    /* Most messages begin with the field already. */
    if (slice_starts(text, param))
        param.n = 0;
    if (status == 401)
        why_set(w, ERR_INVALID, "",
                getenv("NUNCHI_API_KEY") ? "the gateway does not know the key in NUNCHI_API_KEY"
                                         : "the gateway asks for a key: set NUNCHI_API_KEY");
    else if (text.n > 0)
        why_set(w, ERR_INVALID, "", "%.*s%s%.*s%s", (int)text.n, text.p, param.n ? " (" : "",
                (int)param.n, param.n ? param.p : "", param.n ? ")" : "");
    else
        why_set(w, ERR_INVALID, "", "the gateway answered %ld", status);
    json_doc_free(d);
    return ERR_INVALID;
}

int client_get(const char *url, const char *path, json_doc **out, struct why *w)
{
    struct http_reply r = {0};
    buf at = {0};
    buf_printf(&at, "%s%s", url, path);
    *out = NULL;
    int e = http_fetch(buf_cstr(&at), 30000, &r, w);
    if (e >= 0 && r.status != 200)
        e = client_refused(r.status, buf_slice(&r.body), w);
    else if (e >= 0)
        e = json_doc_parse(buf_slice(&r.body), &LIMITS, out, w);
    buf_clear(&at);
    http_reply_clear(&r);
    return e;
}

int client_model(const char *url, buf *out, struct why *w)
{
    json_doc *d;
    int e = client_get(url, "/v1/models", &d, w);
    if (e < 0)
        return e;
    slice id =
        json_str_or(json_get(json_at(json_get(json_doc_root(d), "data"), 0), "id"), (slice){0});
    buf_put_slice(out, id);
    json_doc_free(d);
    return id.n > 0 ? 0
                    : why_set(w, ERR_UNAVAILABLE, "",
                              "the gateway has no model yet; see: nunchi status");
}

static void show_sent(void *ctx, uint64_t sent, uint64_t all)
{
    progress_show(ctx, "sending", (int)(sent * 1000 / all));
}

int client_upload(const char *url, const char *path, char id[FILE_ID_MAX], struct why *w)
{
    if (access(path, R_OK) < 0)
        return why_set(w, ERR_NOT_FOUND, "", "there is no readable file %s", path);
    struct http_reply r = {0};
    struct progress show = {.last = -1};
    buf at = {0};
    buf_printf(&at, "%s/v1/files", url);
    json_doc *d = NULL;
    int e = http_upload(buf_cstr(&at), path, "user_data", show_sent, &show, &r, w);
    progress_end(&show);
    if (e >= 0 && r.status != 200)
        e = client_refused(r.status, buf_slice(&r.body), w);
    else if (e >= 0)
        e = json_doc_parse(buf_slice(&r.body), &LIMITS, &d, w);
    slice got = json_str_or(json_get(d ? json_doc_root(d) : NULL, "id"), (slice){0});
    if (e >= 0 && (got.n == 0 || got.n >= FILE_ID_MAX))
        e = why_set(w, ERR_PROTO, "", "the gateway's answer names no file");
    if (e >= 0)
        snprintf(id, FILE_ID_MAX, "%.*s", (int)got.n, got.p);
    json_doc_free(d);
    buf_clear(&at);
    http_reply_clear(&r);
    return e;
}

/* 1: read; 0: not yet; or an error. */
static int look(const char *url, const char *id, struct progress *show, struct why *w)
{
    char path[FILE_ID_MAX + 16];
    snprintf(path, sizeof path, "/v1/files/%s", id);
    json_doc *d;
    int e = client_get(url, path, &d, w);
    if (e < 0)
        return e;
    const json_val *root = json_doc_root(d);
    slice status = json_str_or(json_get(root, "status"), (slice){0});
    if (slice_eq_str(status, "processed")) {
        e = 1;
    } else if (slice_eq_str(status, "error")) {
        slice why =
            json_str_or(json_get(root, "status_details"), SLICE_LIT("the video cannot be read"));
        e = why_set(w, ERR_UNREADABLE, "", "%.*s", (int)why.n, why.p);
    } else {
        int64_t permille = -1;
        const json_val *nunchi = json_get(root, "nunchi");
        if (json_opt_i64(nunchi, "permille", 0, 1000, &permille, NULL) < 0)
            permille = -1;
        progress_show(show, "reading the video", (int)permille);
    }
    json_doc_free(d);
    return e;
}

int client_wait(const char *url, const char *id, struct why *w)
{
    struct progress show = {.last = -1};
    int e;
    while ((e = look(url, id, &show, w)) == 0)
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    progress_end(&show);
    return e < 0 ? e : 0;
}
