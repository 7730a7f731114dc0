#include <getopt.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/cluster.h"

static const char USAGE[] = "usage: nunchi video [--url URL] [--json] FILE|file-ID\n"
                            "\n"
                            "Prints the timeline of a video: what it is, its chapters, scenes, "
                            "subtitles and on-screen text with times.\n";

static void put_time(char out[24], int64_t ms)
{
    long long s = ms / 1000;
    if (s >= 3600)
        snprintf(out, 24, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 24, "%02lld:%02lld", s / 60, s % 60);
}

static int64_t number(const json_val *obj, const char *key)
{
    int64_t v = 0;
    return json_opt_i64(obj, key, 0, INT64_MAX, &v, NULL) < 0 ? 0 : v;
}

static void print_span(const json_val *v, const char *kind, slice text)
{
    char from[24], to[24];
    put_time(from, number(v, "start_ms"));
    put_time(to, number(v, "end_ms"));
    printf("[%s-%s] %s%s", from, to, kind, text.n ? ": " : "");
    for (size_t i = 0; i < text.n; i++)
        putchar(text.p[i] == '\n' ? ' ' : text.p[i]);
    putchar('\n');
}

/* The four lists as one, by time: each list is sorted, so the earliest head is next. */
static void print_timeline(const json_val *notes)
{
    static const char *const KEYS[] = {"chapters", "scenes", "subtitles", "screen_text"};
    static const char *const KINDS[] = {"chapter", "scene", "subtitle", "on screen"};
    const json_val *head[ARRAY_LEN(KEYS)];
    for (size_t i = 0; i < ARRAY_LEN(KEYS); i++)
        head[i] = json_first(json_get(notes, KEYS[i]));
    for (;;) {
        size_t best = ARRAY_LEN(KEYS);
        for (size_t i = 0; i < ARRAY_LEN(KEYS); i++) {
            if (head[i] && (best == ARRAY_LEN(KEYS) ||
                            number(head[i], "start_ms") < number(head[best], "start_ms")))
                best = i;
        }
        if (best == ARRAY_LEN(KEYS))
            return;
        print_span(head[best], KINDS[best], json_str_or(json_get(head[best], "text"), (slice){0}));
        head[best] = json_next(head[best]);
    }
}

static void print_head(const json_val *notes)
{
    const json_val *box = json_get(notes, "container");
    char length[24];
    put_time(length, number(box, "duration_ms"));
    slice format = json_str_or(json_get(box, "format"), SLICE_LIT("?"));
    printf("%.*s, %s", (int)format.n, format.p, length);
    for (const json_val *t = json_first(json_get(box, "tracks")); t; t = json_next(t)) {
        slice kind = json_str_or(json_get(t, "kind"), (slice){0}),
              codec = json_str_or(json_get(t, "codec"), (slice){0});
        printf(", %.*s %.*s", (int)kind.n, kind.p, (int)codec.n, codec.p);
        if (number(t, "width"))
            printf(" %lldx%lld", (long long)number(t, "width"), (long long)number(t, "height"));
    }
    putchar('\n');
}

static int show(const char *url, const char *id, bool raw, struct why *w)
{
    char path[FILE_ID_MAX + 24];
    snprintf(path, sizeof path, "/v1/files/%s/notes", id);
    json_doc *d;
    int e = client_get(url, path, &d, w);
    if (e < 0)
        return e;
    const json_val *root = json_doc_root(d);
    if (raw) {
        buf text = {0};
        json_write(root, &text);
        fwrite(text.p, 1, text.n, stdout);
        putchar('\n');
        buf_clear(&text);
    } else {
        print_head(root);
        print_timeline(root);
        for (const json_val *r = json_first(json_get(root, "remarks")); r; r = json_next(r)) {
            slice s = json_str_or(r, (slice){0});
            printf("note: %.*s\n", (int)s.n, s.p);
        }
    }
    json_doc_free(d);
    return 0;
}

int cmd_video(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"url", required_argument, NULL, 'u'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *given = NULL;
    bool raw = false;
    for (int c; (c = getopt_long(argc, argv, "h", OPTIONS, NULL)) != -1;) {
        if (c == 'h') {
            fputs(USAGE, stdout);
            return CLI_OK;
        }
        if (c == 'u')
            given = optarg;
        else if (c == 'j')
            raw = true;
        else
            return cli_bad_option(USAGE);
    }
    if (optind + 1 != argc)
        return cli_usage(USAGE, "which video?");
    char *url = cluster_url(given);
    char id[FILE_ID_MAX];
    struct why w;
    int e = 0;
    if (strncmp(argv[optind], "file-", 5) == 0)
        snprintf(id, sizeof id, "%s", argv[optind]);
    else
        e = client_upload(url, argv[optind], id, &w);
    if (e >= 0)
        e = client_wait(url, id, &w);
    if (e >= 0)
        e = show(url, id, raw, &w);
    free(url);
    return e < 0 ? cli_fail("%s", w.text) : CLI_OK;
}
