#include "common/trace/export.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/metrics.h"
#include "common/trace/otlp.h"
#include "common/trace/queue.h"

#define BATCH_MAX 512
#define BATCH_MS 500 /* spans wait so long for others to go with */
#define CONNECT_MS 2000
#define SEND_MS 10000

static struct {
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    atomic_uint_fast64_t stop_by; /* UINT64_MAX: not yet */
    char *url;
    struct otlp_source from;
    char instance[TRACE_TEXT_MAX];
    CURL *curl;
    struct curl_slist *headers;
    char error[CURL_ERROR_SIZE];
    bool failing; /* said once, until it works again */
    metric *sent, *dropped, *lost;
} x;

static size_t ignore(char *p, size_t size, size_t n, void *ctx)
{
    (void)p, (void)ctx;
    return size * n;
}

static int give_up_late(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)ctx, (void)a, (void)b, (void)c, (void)d;
    return clock_mono_us() > atomic_load(&x.stop_by);
}

static bool post(slice json)
{
    long status = 0;
    x.error[0] = 0;
    curl_easy_setopt(x.curl, CURLOPT_POSTFIELDS, json.p);
    curl_easy_setopt(x.curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)json.n);
    CURLcode rc = curl_easy_perform(x.curl);
    curl_easy_getinfo(x.curl, CURLINFO_RESPONSE_CODE, &status);
    bool ok = rc == CURLE_OK && status / 100 == 2;
    if (!ok && !x.failing)
        log_warn("traces cannot be delivered", LOG_STR("url", x.url), LOG_I64("status", status),
                 LOG_STR("why", rc == CURLE_OK ? "" : curl_easy_strerror(rc)));
    if (ok && x.failing)
        log_info("traces are delivered again", LOG_STR("url", x.url));
    x.failing = !ok;
    return ok;
}

static void send_batch(const struct trace_span *s, size_t n)
{
    buf json = {0};
    x.from.unix_minus_mono_us = (int64_t)clock_unix_ms() * 1000 - (int64_t)clock_mono_us();
    otlp_json(&x.from, s, n, &json);
    metric_add(post(buf_slice(&json)) ? x.sent : x.lost, (double)n);
    metric_count_to(x.dropped, (double)trace_queue_dropped());
    buf_clear(&json);
}

/* What came within BATCH_MS of the first span; at the end, whatever is left. */
static size_t gather(struct trace_span *batch)
{
    size_t n = trace_queue_take(batch, BATCH_MAX, BATCH_MS);
    uint64_t now = clock_mono_us(), until = now + BATCH_MS * 1000;
    while (n > 0 && n < BATCH_MAX && now < until && !atomic_load(&x.stopping)) {
        n += trace_queue_take(batch + n, BATCH_MAX - n, (unsigned)((until - now) / 1000 + 1));
        now = clock_mono_us();
    }
    return n;
}

static void *run(void *ctx)
{
    (void)ctx;
    struct trace_span *batch = xcalloc(BATCH_MAX, sizeof *batch);
    for (;;) {
        bool stopping = atomic_load(&x.stopping);
        size_t n = gather(batch);
        if (n > 0)
            send_batch(batch, n);
        if (stopping && (n == 0 || clock_mono_us() > atomic_load(&x.stop_by)))
            break;
    }
    free(batch);
    return NULL;
}

static int make_client(struct why *w)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    x.curl = curl_easy_init();
    if (!x.curl)
        return why_set(w, ERR_NOMEM, "otlp", "no HTTP client");
    x.headers = curl_slist_append(NULL, "Content-Type: application/json");
    curl_easy_setopt(x.curl, CURLOPT_URL, x.url);
    curl_easy_setopt(x.curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(x.curl, CURLOPT_HTTPHEADER, x.headers);
    curl_easy_setopt(x.curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(x.curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(x.curl, CURLOPT_TIMEOUT_MS, (long)SEND_MS);
    curl_easy_setopt(x.curl, CURLOPT_WRITEFUNCTION, ignore);
    curl_easy_setopt(x.curl, CURLOPT_XFERINFOFUNCTION, give_up_late);
    curl_easy_setopt(x.curl, CURLOPT_NOPROGRESS, 0L);
    /* The collector is of this house, as the cluster is. */
    curl_easy_setopt(x.curl, CURLOPT_NOPROXY, "*");
    return 0;
}

static metric *spans(const char *labels)
{
    return metric_counter("nunchi_trace_spans_total", labels,
                          "Spans: delivered, lost because the collector did not take them, dropped "
                          "because too many waited");
}

/* As OTEL_EXPORTER_OTLP_ENDPOINT: the path is ours, unless one is given. */
static char *traces_url(const char *url)
{
    buf out = {0};
    const char *host = strstr(url, "://") + 3, *path = strchr(host, '/');
    buf_put_str(&out, url);
    if (!path || !path[1])
        buf_put_str(&out, path ? "v1/traces" : "/v1/traces");
    char *text = xstrdup(buf_cstr(&out));
    buf_clear(&out);
    return text;
}

int trace_export_start(const char *url, const char *service, struct why *w)
{
    char host[32] = "";
    if (!url || !*url)
        return 0;
    if (!slice_starts(slice_str(url), SLICE_LIT("http://")) &&
        !slice_starts(slice_str(url), SLICE_LIT("https://")))
        return why_set(w, ERR_INVALID, "otlp", "'%s' is not a URL like http://collector:4318", url);
    if (strchr(url, '@'))
        return why_set(w, ERR_INVALID, "otlp", "a URL with a password in it would be logged");
    gethostname(host, sizeof host - 1);
    snprintf(x.instance, sizeof x.instance, "%s:%d", host, (int)getpid());
    x.from = (struct otlp_source){.service = service, .instance = x.instance};
    x.url = traces_url(url);
    int e = make_client(w);
    if (e < 0)
        return e;
    x.sent = spans("result=\"delivered\"");
    x.lost = spans("result=\"lost\"");
    x.dropped = spans("result=\"dropped\"");
    trace_queue_start();
    atomic_store(&x.stopping, false);
    atomic_store(&x.stop_by, UINT64_MAX);
    CHECK(pthread_create(&x.thread, NULL, run, NULL) == 0);
    x.started = true;
    log_info("traces", LOG_STR("url", x.url));
    return 0;
}

void trace_export_stop(void)
{
    if (!x.started)
        return;
    atomic_store(&x.stop_by, clock_mono_us() + TRACE_STOP_MS * 1000);
    atomic_store(&x.stopping, true);
    trace_queue_end();
    pthread_join(x.thread, NULL);
    curl_slist_free_all(x.headers);
    curl_easy_cleanup(x.curl);
    free(x.url);
    x.started = false;
}
