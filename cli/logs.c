#include "cli/logs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/home.h"
#include "common/json/json.h"

/* From a log's end at most so much is read, however large it has grown. */
#define LOG_READ_MAX (64 << 20)
#define LOG_FILES_MAX 128

/* The end of a file; an empty one if it cannot be read. */
static void read_end(const char *path, buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    off_t size = lseek(fd, 0, SEEK_END);
    lseek(fd, size > LOG_READ_MAX ? size - LOG_READ_MAX : 0, SEEK_SET);
    char chunk[65536];
    for (ssize_t n; out->n < LOG_READ_MAX && (n = read(fd, chunk, sizeof chunk)) > 0;)
        buf_put(out, chunk, (size_t)n);
    close(fd);
}

static char *log_path(const char *service)
{
    char name[80];
    snprintf(name, sizeof name, "logs/%.64s.log", service);
    return home_path(name);
}

void log_tail(FILE *to, const char *service, size_t n_lines, bool title)
{
    char *path = log_path(service);
    buf text = {0};
    read_end(path, &text);
    size_t at = text.n;
    for (size_t seen = 0; at > 0; at--) {
        if (text.p[at - 1] == '\n' && at != text.n && ++seen == n_lines)
            break;
    }
    if (title)
        fprintf(to, "==> %s (%s)\n", service, path);
    if (text.n > at)
        fwrite(text.p + at, 1, text.n - at, to);
    if (title)
        fputc('\n', to);
    buf_clear(&text);
    free(path);
}

void log_reason(const char *service, buf *out)
{
    static const struct json_limits LIMITS = {
        .max_bytes = 65536, .max_depth = 8, .max_nodes = 1024};
    char *path = log_path(service);
    buf text = {0};
    read_end(path, &text);
    /* The last that says why: a start after it may have begun to write already. */
    slice rest = buf_slice(&text), line, last = {0};
    bool said = false;
    while (slice_split(&rest, '\n', &line)) {
        if (line.n == 0)
            continue;
        last = line;
        json_doc *d = NULL;
        slice why = {0};
        if (json_doc_parse(line, &LIMITS, &d, NULL) >= 0)
            why = json_str_or(json_get(json_doc_root(d), "why"), why);
        if (why.n > 0) {
            buf_reset(out);
            buf_put_slice(out, why);
            said = true;
        }
        json_doc_free(d);
    }
    if (!said)
        buf_put_slice(out, last.n > 0 ? last : SLICE_LIT("it left no word"));
    buf_clear(&text);
    free(path);
}

static int is_log(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 4 && n <= 64 && strcmp(e->d_name + n - 4, ".log") == 0;
}

/* The names of the services that have written a log, sorted; the caller frees each. */
static size_t log_names(char *names[LOG_FILES_MAX])
{
    char *folder = home_path("logs");
    struct dirent **found = NULL;
    int n = scandir(folder, &found, is_log, alphasort);
    size_t n_names = 0;
    for (int i = 0; i < n; i++) {
        if (n_names < LOG_FILES_MAX)
            names[n_names++] = slice_dup((slice){found[i]->d_name, strlen(found[i]->d_name) - 4});
        free(found[i]);
    }
    free(found);
    free(folder);
    return n_names;
}

/* tail(1) knows how to follow files that are not there yet or are made anew. */
static int follow_logs(char *const names[], size_t n, size_t n_lines)
{
    char *argv[LOG_FILES_MAX + 4], program[] = "tail", lines[32], follow[] = "-F";
    size_t k = 0;
    snprintf(lines, sizeof lines, "-n%zu", n_lines);
    argv[k++] = program;
    argv[k++] = lines;
    argv[k++] = follow;
    for (size_t i = 0; i < n; i++)
        argv[k++] = log_path(names[i]);
    argv[k] = NULL;
    fflush(stdout);
    execvp(program, argv);
    return cli_fail("cannot run tail: %s", strerror(errno));
}

static int no_such_log(const char *service, char *const names[], size_t n)
{
    buf list = {0};
    for (size_t i = 0; i < n; i++)
        buf_printf(&list, "%s%s", i ? ", " : "", names[i]);
    int code = n ? cli_fail("no log of '%.40s'; there are: %s", service, buf_cstr(&list))
                 : cli_fail("no cluster has run here yet; start one with: nunchi up");
    buf_clear(&list);
    return code;
}

int logs_show(const char *service, size_t n_lines, bool follow)
{
    char *names[LOG_FILES_MAX];
    size_t n = log_names(names), first = 0, end = n;
    for (size_t i = 0; service && i < n; i++) {
        if (strcmp(names[i], service) == 0)
            first = i, end = i + 1;
    }
    int code = CLI_OK;
    if (n == 0 || (service && strcmp(names[first], service) != 0))
        code = no_such_log(service, names, n);
    else if (follow)
        code = follow_logs(names + first, end - first, n_lines);
    else {
        for (size_t i = first; i < end; i++)
            log_tail(stdout, names[i], n_lines, !service);
    }
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    return code;
}
