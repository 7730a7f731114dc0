#include "cli/add.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/fetch.h"
#include "cli/home.h"
#include "cli/term.h"
#include "engine/convert/convert.h"
#include "engine/convert/dry.h"
#include "engine/convert/join.h"
#include "engine/model/name.h"

#define COPY_BYTES (8u << 20)

static void on_progress(void *ctx, int permille)
{
    progress_show(ctx, "converting", permille);
}

/* ---- a GGUF: checked, then linked or copied ---- */

static int check_gguf(const char *path, struct why *w)
{
    model_file *f = NULL;
    int e = model_file_open(path, &f, w);
    if (e >= 0)
        e = dry_load(f, w);
    model_file_close(f);
    return e;
}

static int copy_all(int in, int out, uint64_t bytes, struct progress *show)
{
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, COPY_BYTES, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? err_from_errno(errno) : ERR_IO;
        done += (uint64_t)n;
        progress_show(show, "copying", (int)((double)done * 1000 / (double)bytes));
    }
    return fsync(out) < 0 ? err_from_errno(errno) : 0;
}

static int copy_to(const char *from, const char *part, struct progress *show, struct why *w)
{
    struct stat st;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = in < 0 ? -1 : open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    int e = out < 0 || fstat(in, &st) < 0 ? err_from_errno(errno)
                                          : copy_all(in, out, (uint64_t)st.st_size, show);
    if (e < 0)
        why_set(w, e, "", "cannot copy to %s: %s", part, strerror(errno));
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return e;
}

static void on_joining(void *ctx, int permille)
{
    progress_show(ctx, "joining", permille);
}

/* A copy of a file, whole or not at all; nothing is overwritten. */
static int copy_file(const char *from, const char *target, struct progress *show, struct why *w)
{
    char part[PATH_MAX];
    int e;
    if (access(target, F_OK) == 0)
        return why_set(w, ERR_EXISTS, "", "%s is there already", target);
    if (snprintf(part, sizeof part, "%s.%d.part", target, (int)getpid()) >= (int)sizeof part)
        return why_set(w, ERR_TOO_BIG, "", "the path is too long");
    e = copy_to(from, part, show, w);
    if (e >= 0 && link(part, target) < 0)
        e = why_set(w, err_from_errno(errno), "", "cannot make %s: %s", target, strerror(errno));
    unlink(part);
    return e;
}

static int add_gguf(const char *from, const char *target, struct progress *show, struct why *w)
{
    if (join_count(from) > 1)
        return join_files(from, target, on_joining, show, w);
    int e = check_gguf(from, w);
    if (e < 0 || link(from, target) == 0)
        return e;
    return copy_file(from, target, show, w);
}

/* ---- the name ---- */

/* The name given, or the last part of the path, in letters that a name may have. */
static int name_of(const char *from, const char *given, buf *out, struct why *w)
{
    char real[PATH_MAX];
    if (!given) {
        if (!realpath(from, real))
            return why_set(w, err_from_errno(errno), "", "%.200s: %s", from, strerror(errno));
        model_default_name(slice_str(real), out);
    } else
        buf_put_str(out, given);
    if (!model_name_fits(buf_cstr(out)))
        return why_set(w, ERR_INVALID, "name",
                       "a name has at most %d letters, digits, dots, dashes and underscores; give "
                       "one with --name",
                       MODEL_NAME_LEN_MAX);
    if (known_model_find(buf_cstr(out)))
        return why_set(w, ERR_EXISTS, "name",
                       "%s is the name of a model that can be fetched; give another with --name",
                       buf_cstr(out));
    return 0;
}

static bool is_gguf(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".gguf") == 0;
}

static int add_to(const char *from, const char *name, const char *quant, const char *target,
                  struct why *w)
{
    struct progress show = {.last = -1};
    struct convert_done done = {.family = ""};
    struct convert_job job = {.source = from,
                              .target = target,
                              .name = name,
                              .quant = quant,
                              .progress = on_progress,
                              .ctx = &show};
    bool ready = is_gguf(from);
    if (ready && quant)
        return why_set(
            w, ERR_UNSUPPORTED, "quant",
            "a GGUF is added as it is; convert from the model's own folder to choose a type");
    int e = ready ? add_gguf(from, target, &show, w) : convert(&job, &done, w);
    progress_end(&show);
    if (e < 0)
        return e;
    if (done.went_on_at)
        printf("went on after %.1f MB that an earlier run had written\n",
               (double)done.went_on_at / 1e6);
    if (!ready)
        printf("family %s, licence %s, %.1f MB became %.1f MB\n", done.family,
               done.licence[0] ? done.licence : "not said: look at where you have it from",
               (double)done.source_bytes / 1e6, (double)done.bytes / 1e6);
    printf("%s\n", target);
    return 0;
}

int add_model(const char *from, const char *name, const char *quant)
{
    struct why w = {.text = ""};
    buf own = {0};
    char *folder = NULL, *target = NULL;
    int e = name_of(from, name, &own, &w);
    if (e >= 0)
        e = home_make("models/", &folder, &w);
    if (e >= 0) {
        target = own_model_path(buf_cstr(&own));
        e = add_to(from, buf_cstr(&own), quant, target, &w);
    }
    if (e >= 0)
        fprintf(stderr, "serve it with: nunchi up --model %s\n", buf_cstr(&own));
    buf_clear(&own);
    free(folder);
    free(target);
    return e < 0 ? cli_fail("%.200s: %s", from, w.text) : CLI_OK;
}

int export_model(const char *name, const char *to)
{
    struct why w = {.text = ""};
    struct progress show = {.last = -1};
    char *path = NULL;
    int e = model_path(name, &path, &w);
    if (e >= 0)
        e = copy_file(path, to, &show, &w);
    progress_end(&show);
    free(path);
    if (e < 0)
        return cli_fail("%.200s: %s", name, w.text);
    printf("%s\n", to);
    return CLI_OK;
}
