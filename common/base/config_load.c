#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/base/config_args.h"
#include "common/base/config_help.h"
#include "common/base/config_value.h"

#define CONFIG_FILE_MAX_BYTES ((size_t)256 * 1024) /* far beyond any hand-written file */

static void show(const buf *text)
{
    if (text->n)
        fwrite(text->p, 1, text->n, stdout);
    fflush(stdout);
}

static int complain(const struct config_spec *spec, const char *path, const struct why *w)
{
    fprintf(stderr, "%s: %s%s%s\n", spec->program, path ? path : "", path ? ": " : "", w->text);
    return CONFIG_EXIT_BAD;
}

static int read_file(const char *path, buf *out, struct why *w)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return why_set(w, err_from_errno(errno), "config", "%s", strerror(errno));
    char piece[8192];
    ssize_t n;
    while ((n = read(fd, piece, sizeof piece)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || out->n + (size_t)n > CONFIG_FILE_MAX_BYTES)
            break;
        buf_put(out, piece, (size_t)n);
    }
    int rc =
        n == 0  ? 0
        : n < 0 ? why_set(w, ERR_IO, "config", "%s", strerror(errno))
                : why_set(w, ERR_TOO_BIG, "config", "larger than %zu bytes", CONFIG_FILE_MAX_BYTES);
    close(fd);
    return rc;
}

static unsigned columns(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        return HELP_COLUMNS;
    return size.ws_col;
}

static void print_help(const struct config_spec *spec)
{
    buf text = {0};
    config_help(spec, columns(), &text);
    show(&text);
    buf_clear(&text);
}

static void print_effective(const struct config_spec *spec, const void *cfg)
{
    buf text = {0};
    buf_printf(&text, "# %s: the configuration is fine. In effect:\n", spec->program);
    for (size_t i = 0; i < spec->n_opts; i++) {
        const struct opt *o = &spec->opts[i];
        if (!o->name || !opt_is_set(o, cfg))
            continue;
        buf_printf(&text, "%s = ", o->name);
        opt_print(o, cfg, &text);
        buf_put_byte(&text, '\n');
    }
    show(&text);
    buf_clear(&text);
}

/* What the built-in options ask for. */
struct request {
    bool check;
    char *path; /* of the file; NULL without */
};

/* CONFIG_RUN: go on. */
static enum config_verdict scan(const struct config_spec *spec, int argc, char **argv,
                                struct request *r)
{
    struct arg a;
    struct why w;
    int rc;
    for (int i = 0; (rc = arg_next(spec, argc, argv, &i, &a, &w)) > 0;) {
        if (a.kind == ARG_HELP) {
            print_help(spec);
            return CONFIG_EXIT_OK;
        }
        if (a.kind == ARG_VERSION) {
            printf("%s %s\n", spec->program, NUNCHI_VERSION);
            fflush(stdout);
            return CONFIG_EXIT_OK;
        }
        if (a.kind == ARG_CHECK)
            r->check = true;
        if (a.kind == ARG_CONFIG) {
            free(r->path);
            r->path = slice_dup(a.value);
        }
    }
    return rc < 0 ? complain(spec, NULL, &w) : CONFIG_RUN;
}

static enum config_verdict load(const struct config_spec *spec, int argc, char **argv,
                                struct request *r, void *cfg)
{
    enum config_verdict verdict = scan(spec, argc, argv, r);
    if (verdict != CONFIG_RUN)
        return verdict;
    const char *from_env = config_env_get(environ, "NUNCHI_CONFIG");
    if (!r->path && from_env && *from_env)
        r->path = xstrdup(from_env);
    struct why w = {.text = ""};
    buf file = {0};
    int rc = r->path ? read_file(r->path, &file, &w) : 0;
    if (rc < 0) {
        verdict = complain(spec, r->path, &w);
    } else if (config_parse(spec, argc, argv, environ, buf_slice(&file), cfg, &w) < 0) {
        /* Only errors of the file begin with a line number. */
        verdict = complain(
            spec, slice_starts(slice_str(w.text), SLICE_LIT("line ")) ? r->path : NULL, &w);
    } else if (r->check) {
        print_effective(spec, cfg);
        config_free(spec, cfg);
        verdict = CONFIG_EXIT_OK;
    }
    buf_clear(&file);
    return verdict;
}

enum config_verdict config_load(const struct config_spec *spec, int argc, char **argv, void *cfg)
{
    struct request r = {0};
    enum config_verdict verdict = load(spec, argc > 0 ? argc - 1 : 0, argv + (argc > 0), &r, cfg);
    free(r.path);
    return verdict;
}
