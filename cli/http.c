#include "cli/http.h"

#include <curl/curl.h>

/* A reply that is kept whole: error texts, file objects, timelines. */
#define REPLY_MAX (64u << 20)

struct call {
    CURL *curl;
    const char *url;
    struct curl_slist *headers;
    struct http_reply *out;
    http_data_fn data;
    http_sent_fn sent;
    void *ctx;
    bool stopped;
};

static size_t on_data(char *p, size_t size, size_t n, void *user)
{
    struct call *c = user;
    size_t len = size * n;
    long status = 0;
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    if (c->data && status == 200) {
        c->stopped = !c->data(c->ctx, (slice){p, len});
        return c->stopped ? 0 : len;
    }
    if (c->out->body.n + len > REPLY_MAX)
        return 0;
    buf_put(&c->out->body, p, len);
    return len;
}

static int on_progress(void *user, curl_off_t down_all, curl_off_t down, curl_off_t up_all,
                       curl_off_t up)
{
    struct call *c = user;
    (void)down_all, (void)down;
    if (c->sent && up_all > 0)
        c->sent(c->ctx, (uint64_t)up, (uint64_t)up_all);
    return 0;
}

static int begin(struct call *c, const char *url, struct why *w)
{
    static bool global;
    if (!global)
        curl_global_init(CURL_GLOBAL_DEFAULT);
    global = true;
    c->url = url;
    c->curl = curl_easy_init();
    if (!c->curl)
        return why_set(w, ERR_NOMEM, "", "no HTTP client");
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(c->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c->curl, CURLOPT_XFERINFODATA, c);
    curl_easy_setopt(c->curl, CURLOPT_NOPROGRESS, 0L);
    /* The cluster is on this host or this network: a proxy set for the web is not for it. */
    curl_easy_setopt(c->curl, CURLOPT_NOPROXY, "*");
    const char *key = getenv("NUNCHI_API_KEY");
    if (key && key[0]) {
        buf line = {0};
        buf_printf(&line, "Authorization: Bearer %s", key);
        c->headers = curl_slist_append(c->headers, buf_cstr(&line));
        buf_clear(&line);
    }
    return 0;
}

/* A URL without its path: what a user would recognise. */
static slice url_base(const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    return (slice){url, (size_t)(host - url) + strcspn(host, "/")};
}

static int finish(struct call *c, struct why *w)
{
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    CURLcode rc = curl_easy_perform(c->curl);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &c->out->status);
    curl_slist_free_all(c->headers);
    curl_easy_cleanup(c->curl);
    if (rc == CURLE_OK || (rc == CURLE_WRITE_ERROR && c->stopped))
        return 0;
    slice base = url_base(c->url);
    if (rc == CURLE_COULDNT_CONNECT)
        return why_set(w, ERR_UNAVAILABLE, "",
                       "nothing answers at %.*s; start a cluster here with: nunchi up", (int)base.n,
                       base.p);
    return why_set(w, ERR_UNAVAILABLE, "", "%.*s: %s", (int)base.n, base.p, curl_easy_strerror(rc));
}

int http_fetch(const char *url, int timeout_ms, struct http_reply *out, struct why *w)
{
    struct call c = {.out = out};
    int e = begin(&c, url, w);
    if (e < 0)
        return e;
    curl_easy_setopt(c.curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    return finish(&c, w);
}

int http_post_stream(const char *url, slice json, http_data_fn fn, void *ctx,
                     struct http_reply *out, struct why *w)
{
    struct call c = {.out = out, .data = fn, .ctx = ctx};
    int e = begin(&c, url, w);
    if (e < 0)
        return e;
    c.headers = curl_slist_append(c.headers, "Content-Type: application/json");
    curl_easy_setopt(c.curl, CURLOPT_POSTFIELDS, json.p);
    curl_easy_setopt(c.curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)json.n);
    return finish(&c, w);
}

int http_upload(const char *url, const char *path, const char *purpose, http_sent_fn fn, void *ctx,
                struct http_reply *out, struct why *w)
{
    struct call c = {.out = out, .sent = fn, .ctx = ctx};
    int e = begin(&c, url, w);
    if (e < 0)
        return e;
    curl_mime *mime = curl_mime_init(c.curl);
    curl_mimepart *part = curl_mime_addpart(mime);
    curl_mime_name(part, "purpose");
    curl_mime_data(part, purpose, CURL_ZERO_TERMINATED);
    part = curl_mime_addpart(mime);
    curl_mime_name(part, "file");
    curl_mime_filedata(part, path);
    curl_easy_setopt(c.curl, CURLOPT_MIMEPOST, mime);
    e = finish(&c, w);
    curl_mime_free(mime);
    return e;
}

void http_reply_clear(struct http_reply *r)
{
    buf_clear(&r->body);
    r->status = 0;
}
