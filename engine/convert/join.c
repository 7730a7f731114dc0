#include "engine/convert/join.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/convert/dry.h"
#include "engine/convert/gguf_out.h"
#include "engine/model/gguf.h"

#define TAIL_BYTES 20 /* "-00001-of-00003.gguf" */
#define COPY_BYTES (8u << 20)

struct joining {
    model_file **parts;
    uint32_t n;
    struct gguf_out out;
    buf head;
    uint64_t bytes, written;
    int fd;
    struct why *w;
    void (*progress)(void *ctx, int permille);
    void *ctx;
};

uint32_t join_count(const char *path)
{
    size_t len = strlen(path);
    const char *tail = len > TAIL_BYTES ? path + len - TAIL_BYTES : "";
    uint64_t i, n;
    if (len <= TAIL_BYTES || tail[0] != '-' || memcmp(tail + 6, "-of-", 4) != 0 ||
        strcmp(tail + 15, ".gguf") != 0 || slice_u64((slice){tail + 1, 5}, &i) < 0 ||
        slice_u64((slice){tail + 10, 5}, &n) < 0)
        return 0;
    return i >= 1 && i <= n && n <= JOIN_FILES_MAX ? (uint32_t)n : 0;
}

static int open_parts(struct joining *j, const char *first)
{
    int stem = (int)(strlen(first) - TAIL_BYTES);
    for (uint32_t i = 0; i < j->n; i++) {
        char path[PATH_MAX];
        struct why inner = {.text = ""};
        if (snprintf(path, sizeof path, "%.*s-%05u-of-%05u.gguf", stem, first, i + 1, j->n) >=
            (int)sizeof path)
            return why_set(j->w, ERR_TOO_BIG, "", "the path is too long");
        int e = model_file_open(path, &j->parts[i], &inner);
        const char *slash = strrchr(path, '/');
        if (e < 0)
            return why_set(j->w, e, "", "%.100s: %.120s", slash ? slash + 1 : path, inner.text);
    }
    return 0;
}

static bool of_parts(slice key)
{
    return key.n > 6 && memcmp(key.p, "split.", 6) == 0;
}

static int make_head(struct joining *j)
{
    const model_file *first = j->parts[0];
    for (size_t i = 0; i < first->n_meta; i++) {
        const struct gguf_meta *m = &first->meta[i];
        if (!of_parts(m->key) && !slice_eq_str(m->key, "general.alignment"))
            gguf_out_raw(&j->out, m->key, m->type, m->type == GGUF_ARRAY ? (int)m->elem : -1, m->n,
                         m->data, m->bytes);
    }
    gguf_out_u32(&j->out, "general.alignment", GGUF_OUT_ALIGNMENT);
    for (uint32_t k = 0; k < j->n; k++)
        for (size_t i = 0; i < j->parts[k]->n_tensors; i++) {
            const struct gguf_tensor *t = &j->parts[k]->tensors[i];
            char name[GGUF_NAME_MAX + 1];
            snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.p);
            gguf_out_copy(&j->out, name, t->type, t->n_dims, t->dims, t->bytes);
        }
    j->bytes = gguf_out_seal(&j->out, &j->head);
    return 0;
}

static int put(struct joining *j, const void *p, uint64_t n)
{
    for (const uint8_t *at = p; n > 0;) {
        ssize_t got = write(j->fd, at, n < COPY_BYTES ? (size_t)n : COPY_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return why_set(j->w, err_from_errno(errno), "", "cannot write: %s", strerror(errno));
        at += got;
        n -= (uint64_t)got;
        j->written += (uint64_t)got;
        if (j->progress)
            j->progress(j->ctx, (int)((double)j->written * 1000 / (double)j->bytes));
    }
    return 0;
}

static int put_tensors(struct joining *j)
{
    static const uint8_t ZEROS[GGUF_OUT_ALIGNMENT];
    int e = put(j, j->head.p, j->head.n);
    for (uint32_t k = 0; k < j->n; k++)
        for (size_t i = 0; i < j->parts[k]->n_tensors && e == 0; i++) {
            const struct gguf_tensor *t = &j->parts[k]->tensors[i];
            e = put(j, t->data, t->bytes);
            if (e == 0 && j->written % GGUF_OUT_ALIGNMENT)
                e = put(j, ZEROS, GGUF_OUT_ALIGNMENT - j->written % GGUF_OUT_ALIGNMENT);
        }
    return e;
}

static int check(const char *path, struct why *w)
{
    model_file *f = NULL;
    int e = model_file_open(path, &f, w);
    if (e >= 0)
        e = dry_load(f, w);
    model_file_close(f);
    return e;
}

static int write_file(struct joining *j, const char *part, const char *target)
{
    j->fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (j->fd < 0)
        return why_set(j->w, err_from_errno(errno), "", "cannot make %s: %s", part,
                       strerror(errno));
    int e = put_tensors(j);
    if (e == 0 && fsync(j->fd) < 0)
        e = why_set(j->w, err_from_errno(errno), "", "cannot write %s: %s", part, strerror(errno));
    close(j->fd);
    if (e == 0)
        e = check(part, j->w);
    if (e >= 0 && link(part, target) < 0)
        e = errno == EEXIST ? why_set(j->w, ERR_EXISTS, "", "%s is there already", target)
                            : why_set(j->w, err_from_errno(errno), "", "cannot make %s: %s", target,
                                      strerror(errno));
    unlink(part);
    return e;
}

int join_files(const char *first, const char *target, void (*progress)(void *ctx, int permille),
               void *ctx, struct why *w)
{
    struct joining j = {.n = join_count(first), .w = w, .progress = progress, .ctx = ctx};
    char part[PATH_MAX];
    struct stat st;
    if (lstat(target, &st) == 0)
        return why_set(w, ERR_EXISTS, "", "%s is there already", target);
    if (snprintf(part, sizeof part, "%s.%d.part", target, (int)getpid()) >= (int)sizeof part)
        return why_set(w, ERR_TOO_BIG, "", "the path is too long");
    CHECK(j.n > 0);
    j.parts = xcalloc(j.n, sizeof(void *));
    int e = open_parts(&j, first);
    if (e >= 0)
        e = make_head(&j);
    if (e >= 0)
        e = write_file(&j, part, target);
    for (uint32_t i = 0; i < j.n; i++)
        model_file_close(j.parts[i]);
    free(j.parts);
    buf_clear(&j.head);
    gguf_out_clear(&j.out);
    return e;
}
