#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/cluster.h"
#include "cli/http.h"
#include "cli/sse.h"
#include "cli/term.h"
#include "common/base/json_out.h"

#define VIDEOS_MAX 8
#define QUESTION_MAX (4u << 20)

static const char USAGE[] =
    "usage: nunchi ask [OPTIONS] QUESTION        (QUESTION '-': from standard input)\n"
    "\n"
    "  --video FILE        a video to ask about; several are allowed\n"
    "  --file ID           a video that the gateway has already\n"
    "  --system TEXT       instructions before the question\n"
    "  --model NAME        default: the gateway's first\n"
    "  --max-tokens N      of the answer (default 256)\n"
    "  --temperature T     0: always the same answer (default 0)\n"
    "  --url URL           default: the cluster that runs here, or NUNCHI_URL\n"
    "\n"
    "NUNCHI_API_KEY is sent if it is set.\n";

struct ask {
    const char *url, *model, *system, *question;
    const char *videos[VIDEOS_MAX];
    char files[VIDEOS_MAX][FILE_ID_MAX];
    size_t n_videos, n_files;
    uint64_t max_tokens;
    double temperature;
};

static int parse(int argc, char **argv, struct ask *a)
{
    static const struct option OPTIONS[] = {{"video", required_argument, NULL, 'v'},
                                            {"file", required_argument, NULL, 'f'},
                                            {"system", required_argument, NULL, 's'},
                                            {"model", required_argument, NULL, 'm'},
                                            {"max-tokens", required_argument, NULL, 'n'},
                                            {"temperature", required_argument, NULL, 't'},
                                            {"url", required_argument, NULL, 'u'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    for (int c; (c = getopt_long(argc, argv, "h", OPTIONS, NULL)) != -1;) {
        switch (c) {
        case 'h':
            fputs(USAGE, stdout);
            return 1;
        case 'v':
        case 'f':
            if (a->n_videos + a->n_files == VIDEOS_MAX)
                return cli_usage(USAGE, "at most %d videos", VIDEOS_MAX);
            if (c == 'v')
                a->videos[a->n_videos++] = optarg;
            else
                snprintf(a->files[a->n_files++], FILE_ID_MAX, "%s", optarg);
            break;
        case 's':
            a->system = optarg;
            break;
        case 'm':
            a->model = optarg;
            break;
        case 'n':
            if (slice_u64(slice_str(optarg), &a->max_tokens) < 0)
                return cli_usage(USAGE, "--max-tokens takes a number, not '%.40s'", optarg);
            break;
        case 't':
            if (slice_f64(slice_str(optarg), &a->temperature) < 0)
                return cli_usage(USAGE, "--temperature takes a number, not '%.40s'", optarg);
            break;
        case 'u':
            a->url = optarg;
            break;
        default:
            return cli_bad_option(USAGE);
        }
    }
    if (optind + 1 != argc)
        return cli_usage(USAGE, optind == argc ? "what is the question?"
                                               : "one question, please; put it in quotes");
    a->question = argv[optind];
    if (!a->question[0])
        return cli_usage(USAGE, "what is the question? It is empty");
    return 0;
}

static int read_question(const char *given, buf *out, struct why *w)
{
    if (strcmp(given, "-") != 0) {
        buf_put_str(out, given);
        return 0;
    }
    char chunk[65536];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, stdin)) > 0;) {
        if (out->n + n > QUESTION_MAX)
            return why_set(w, ERR_TOO_BIG, "", "a question has at most %u bytes", QUESTION_MAX);
        buf_put(out, chunk, n);
    }
    return 0;
}

static void put_message(struct json_out *j, const char *role, slice text, const struct ask *a)
{
    json_obj(j);
    json_kv_cstr(j, "role", role);
    json_key(j, "content");
    json_arr(j);
    for (size_t i = 0; a && i < a->n_files; i++) {
        json_obj(j);
        json_kv_cstr(j, "type", "file");
        json_key(j, "file");
        json_obj(j);
        json_kv_cstr(j, "file_id", a->files[i]);
        json_obj_end(j);
        json_obj_end(j);
    }
    json_obj(j);
    json_kv_cstr(j, "type", "text");
    json_kv_str(j, "text", text);
    json_obj_end(j);
    json_arr_end(j);
    json_obj_end(j);
}

static void put_request(const struct ask *a, slice model, slice question, buf *body)
{
    struct json_out j;
    json_begin(&j, body);
    json_obj(&j);
    json_kv_str(&j, "model", model);
    json_kv_bool(&j, "stream", true);
    json_kv_u64(&j, "max_completion_tokens", a->max_tokens);
    json_kv_f64(&j, "temperature", a->temperature);
    json_key(&j, "messages");
    json_arr(&j);
    if (a->system)
        put_message(&j, "system", slice_str(a->system), NULL);
    put_message(&j, "user", question, a);
    json_arr_end(&j);
    json_obj_end(&j);
}

struct answer {
    struct sse events;
    struct progress show;
    struct why why; /* of an error event */
    bool failed, any;
};

static void on_data(void *ctx, slice text)
{
    static const struct json_limits LIMITS = {
        .max_bytes = SSE_LINE_MAX, .max_depth = 16, .max_nodes = 10000};
    struct answer *an = ctx;
    json_doc *d = NULL;
    if (slice_eq_str(text, "[DONE]") || json_doc_parse(text, &LIMITS, &d, NULL) < 0)
        return;
    const json_val *root = json_doc_root(d);
    if (json_get(root, "error")) {
        client_refused(0, text, &an->why);
        an->failed = true;
    }
    slice piece = json_str_or(
        json_get(json_get(json_at(json_get(root, "choices"), 0), "delta"), "content"), (slice){0});
    if (piece.n > 0) {
        progress_end(&an->show);
        an->any = true;
        fwrite(piece.p, 1, piece.n, stdout);
        fflush(stdout);
    }
    json_doc_free(d);
}

static void on_comment(void *ctx, slice text)
{
    struct answer *an = ctx;
    char what[80];
    snprintf(what, sizeof what, "%.*s", (int)text.n, text.p);
    if (!an->any && !slice_eq_str(text, "ping"))
        progress_show(&an->show, what, -1);
}

static bool on_bytes(void *ctx, slice data)
{
    struct answer *an = ctx;
    return sse_feed(&an->events, data) >= 0;
}

static int stream_answer(const char *url, slice body, struct why *w)
{
    struct answer an = {.show.last = -1};
    an.events = (struct sse){.data = on_data, .comment = on_comment, .ctx = &an};
    struct http_reply r = {0};
    buf at = {0};
    buf_printf(&at, "%s/v1/chat/completions", url);
    int e = http_post_stream(buf_cstr(&at), body, on_bytes, &an, &r, w);
    progress_end(&an.show);
    if (an.any)
        putchar('\n');
    if (e >= 0 && r.status != 200)
        e = client_refused(r.status, buf_slice(&r.body), w);
    else if (e >= 0 && an.failed)
        e = why_set(w, ERR_INTERNAL, "", "%s", an.why.text);
    sse_clear(&an.events);
    buf_clear(&at);
    http_reply_clear(&r);
    return e;
}

static int send_videos(struct ask *a, const char *url, struct why *w)
{
    for (size_t i = 0; i < a->n_videos; i++) {
        int e = client_upload(url, a->videos[i], a->files[a->n_files], w);
        if (e < 0)
            return e;
        a->n_files++;
    }
    return 0;
}

static int ask(struct ask *a, const char *url, struct why *w)
{
    buf model = {0}, question = {0}, body = {0};
    int e = read_question(a->question, &question, w);
    if (e >= 0 && a->model)
        buf_put_str(&model, a->model);
    else if (e >= 0)
        e = client_model(url, &model, w);
    if (e >= 0)
        e = send_videos(a, url, w);
    if (e >= 0) {
        put_request(a, buf_slice(&model), buf_slice(&question), &body);
        e = stream_answer(url, buf_slice(&body), w);
    }
    if (e >= 0 && a->n_videos > 0 && term_is_tty())
        fprintf(stderr, "(ask more about it with: nunchi ask --file %s \"…\")\n",
                a->files[a->n_files - 1]);
    buf_clear(&model);
    buf_clear(&question);
    buf_clear(&body);
    return e;
}

int cmd_ask(int argc, char **argv)
{
    struct ask a = {.max_tokens = 256, .question = ""};
    int e = parse(argc, argv, &a);
    if (e != 0)
        return e == 1 ? CLI_OK : e;
    char *url = cluster_url(a.url);
    struct why w = {0};
    e = ask(&a, url, &w);
    free(url);
    return e < 0 ? cli_fail("%s", w.text) : CLI_OK;
}
