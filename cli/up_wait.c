#include "cli/up_wait.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/home.h"
#include "cli/http.h"
#include "cli/logs.h"
#include "cli/term.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/json/json.h"

static const char *stage_of(slice what)
{
    if (slice_eq_str(what, "hash"))
        return "checking the model";
    return slice_eq_str(what, "prepare") ? "preparing the model" : "loading the model";
}

/* The newest "loading" line that the first model worker wrote, as progress: first its hash is
 * taken, then it is read, and the first time its weights are prepared. */
static void show_loading(struct progress *show, off_t from)
{
    static const struct json_limits LIMITS = {
        .max_bytes = LOG_LINE_MAX, .max_depth = 4, .max_nodes = 64};
    char *path = home_path("logs/model-1.log");
    buf text = {0};
    int64_t permille = -1;
    const char *stage = "starting";
    if (file_read(path, 16u << 20, &text, NULL) >= 0 && text.n > (size_t)from) {
        slice rest = {text.p + from, text.n - (size_t)from}, line;
        while (slice_split(&rest, '\n', &line)) {
            json_doc *d = NULL;
            if (json_doc_parse(line, &LIMITS, &d, NULL) >= 0 &&
                slice_eq_str(json_str_or(json_get(json_doc_root(d), "msg"), (slice){0}),
                             "loading") &&
                json_opt_i64(json_doc_root(d), "permille", 0, 1000, &permille, NULL) >= 0)
                stage = stage_of(json_str_or(json_get(json_doc_root(d), "what"), (slice){0}));
            json_doc_free(d);
        }
    }
    progress_show(show, stage, (int)permille);
    buf_clear(&text);
    free(path);
}

off_t up_log_size(const char *name)
{
    char *path = home_path(name);
    struct stat st;
    off_t n = stat(path, &st) == 0 ? st.st_size : 0;
    free(path);
    return n;
}

/* A service that keeps dying will not become ready. */
static const struct cluster_service *who_fails(const struct cluster *c)
{
    for (size_t i = 0; i < c->n_services; i++) {
        if (c->services[i].restarts >= 3)
            return &c->services[i];
    }
    return NULL;
}

static int report_failure(const struct cluster_service *s)
{
    buf text = {0};
    log_reason(s->name, &text);
    cli_fail("%s keeps ending: %s\nnunchi logs %s tells more", s->name, buf_cstr(&text), s->name);
    buf_clear(&text);
    return CLI_FAILED;
}

/* Questions about text are answered before those about videos: that service tries its sandbox
 * first, and a machine may not let it have one. */
#define VIDEO_WAIT_US 10000000

enum readiness { NOT_READY, READY_FOR_TEXT, READY };

/* So many of a kind of service are there. */
static bool has(const json_val *root, const char *service, uint64_t n)
{
    int64_t there = 0;
    return json_opt_i64(json_get(root, "workers"), service, 0, INT64_MAX, &there, NULL) >= 0 &&
           (uint64_t)there >= n;
}

/* Of several models, all are waited for; of one, its first worker. */
static bool models_ready(const json_val *root, const struct up_options *o)
{
    return o->n_models == 1 ||
           (has(root, "tokenizer", o->n_models) && has(root, "model", o->n_models * o->workers));
}

static enum readiness ask_readiness(const char *url, const struct up_options *o)
{
    static const struct json_limits LIMITS = {
        .max_bytes = 1 << 16, .max_depth = 4, .max_nodes = 64};
    struct http_reply r = {0};
    json_doc *d = NULL;
    enum readiness is = NOT_READY;
    if (http_fetch(url, 2000, &r, NULL) >= 0 && r.status == 200 &&
        json_doc_parse(buf_slice(&r.body), &LIMITS, &d, NULL) >= 0 &&
        models_ready(json_doc_root(d), o))
        is = json_len(json_get(json_doc_root(d), "missing")) > 0 ? READY_FOR_TEXT : READY;
    json_doc_free(d);
    http_reply_clear(&r);
    return is;
}

static int without_video(void)
{
    fputs("questions about videos are not answered yet; see: nunchi logs video\n", stderr);
    return CLI_OK;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
    (void)signo;
    interrupted = 1;
}

int up_wait_ready(const char *url, const struct up_options *o, pid_t supervisor, off_t log_from)
{
    /* The supervisor is out of the terminal's reach: whoever gives up here has to stop it. */
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    struct progress show = {.last = -1};
    buf at = {0};
    buf_printf(&at, "%s/readyz", url);
    uint64_t until = clock_mono_us() + o->timeout_s * 1000000;
    uint64_t video_until = 0; /* from when on text is served */
    int code = -1;
    struct cluster c;
    while (code < 0 && clock_mono_us() < until) {
        enum readiness is = ask_readiness(buf_cstr(&at), o);
        bool known = cluster_read(&c, NULL) >= 0;
        const struct cluster_service *bad = known ? who_fails(&c) : NULL;
        if (is == READY_FOR_TEXT && video_until == 0)
            video_until = clock_mono_us() + VIDEO_WAIT_US;
        if (is == READY) {
            code = CLI_OK;
        } else if (is == READY_FOR_TEXT && (bad || clock_mono_us() >= video_until)) {
            progress_end(&show);
            code = without_video();
        } else if (bad) {
            progress_end(&show);
            code = report_failure(bad);
        } else if (interrupted) {
            progress_end(&show);
            code = cli_fail("interrupted; stopping what was started");
        } else if (waitpid(supervisor, NULL, WNOHANG) != 0) {
            code = cli_fail("the supervisor ended; see: nunchi logs supervisor");
        } else {
            show_loading(&show, log_from);
            nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        }
    }
    progress_end(&show);
    buf_clear(&at);
    return code >= 0 ? code
                     : cli_fail("not ready after %llu s, stopping it again; see: nunchi logs",
                                (unsigned long long)o->timeout_s);
}
