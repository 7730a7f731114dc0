/* The hash of a model file, and where it is remembered: a line of text in FILE.digest, or, where
 * that folder cannot be written, in the cache folder. It holds as long as size, time, inode and
 * device are the same; anything unexpected in it means hashing again. It is believed when it
 * belongs to us, to root or to the model's owner: others could at most put it there. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/model/cache.h"
#include "engine/model/gguf.h"

#define CHUNK_BYTES (8u << 20)
#define LINE_MAX_BYTES 256

/* What the remembered line must start with. */
static bool stamp(const model_file *f, char out[LINE_MAX_BYTES])
{
    struct stat st;
    if (f->fd < 0 || fstat(f->fd, &st) < 0)
        return false;
    snprintf(out, LINE_MAX_BYTES, "nunchi-digest 1 %llu %lld.%09ld %llu %llu ",
             (unsigned long long)st.st_size, (long long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec,
             (unsigned long long)st.st_ino, (unsigned long long)st.st_dev);
    return true;
}

static bool beside(const model_file *f, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s.digest", f->path);
    return n > 0 && n < PATH_MAX;
}

/* By the stamp, so that a file that was replaced is another entry. */
static bool in_cache(const char *line, bool make, char out[PATH_MAX])
{
    struct digest d = digest_of((slice){"", 0}, slice_str(line));
    char name[48];
    hex_encode(d.b, 16, name);
    memcpy(name + 32, ".digest", sizeof ".digest");
    return model_cache_path(name, make, out);
}

static bool trusted(const model_file *f, int fd)
{
    struct stat it, model;
    return fstat(fd, &it) == 0 && fstat(f->fd, &model) == 0 &&
           (it.st_uid == geteuid() || it.st_uid == 0 || it.st_uid == model.st_uid);
}

static bool recall(const model_file *f, const char *path, const char *want, struct digest *out)
{
    char line[LINE_MAX_BYTES + 2 * DIGEST_BYTES + 2];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return false;
    ssize_t got = trusted(f, fd) ? read(fd, line, sizeof line) : -1;
    close(fd);
    size_t n = strlen(want);
    if (got != (ssize_t)(n + 2 * DIGEST_BYTES + 1) || memcmp(line, want, n) != 0 ||
        line[got - 1] != '\n')
        return false;
    return hex_decode((slice){line + n, 2 * DIGEST_BYTES}, out->b, DIGEST_BYTES) == 0;
}

/* Whole or not at all: written aside and renamed. */
static bool remember(const char *path, const char *line, const struct digest *d)
{
    char tmp[PATH_MAX], text[LINE_MAX_BYTES + 2 * DIGEST_BYTES + 2], hex[2 * DIGEST_BYTES + 1];
    if (snprintf(tmp, sizeof tmp, "%s.XXXXXX", path) >= (int)sizeof tmp)
        return false;
    int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0)
        return false;
    hex_encode(d->b, DIGEST_BYTES, hex);
    int n = snprintf(text, sizeof text, "%s%s\n", line, hex);
    bool ok = write(fd, text, (size_t)n) == n && fchmod(fd, 0644) == 0;
    ok = close(fd) == 0 && ok && rename(tmp, path) == 0;
    if (!ok)
        (void)!unlink(tmp);
    return ok;
}

static struct digest hash_all(const model_file *f, void (*progress)(void *, int), void *ctx)
{
    digest_stream *s = digest_begin((slice){"", 0});
    for (size_t at = 0; at < f->n; at += CHUNK_BYTES) {
        digest_add(s, f->p + at, f->n - at < CHUNK_BYTES ? f->n - at : CHUNK_BYTES);
        if (progress)
            progress(ctx, (int)((double)at * 1000 / (double)f->n));
    }
    if (progress)
        progress(ctx, 1000);
    return digest_end(s);
}

int model_file_digest(model_file *f, struct digest *out, void (*progress)(void *, int), void *ctx)
{
    char line[LINE_MAX_BYTES], after[LINE_MAX_BYTES], near[PATH_MAX], cached[PATH_MAX];
    if (f->digest_known) {
        *out = f->digest;
        return 0;
    }
    bool named = f->path && stamp(f, line);
    bool has_near = named && beside(f, near);
    if ((has_near && recall(f, near, line, &f->digest)) ||
        (named && in_cache(line, false, cached) && recall(f, cached, line, &f->digest))) {
        f->digest_known = true;
        *out = f->digest;
        return 0;
    }
    f->digest = hash_all(f, progress, ctx);
    f->digest_known = true;
    /* A file written to while it was read has no digest worth keeping. */
    if (named && stamp(f, after) && strcmp(line, after) == 0 &&
        !(has_near && remember(near, line, &f->digest)) && in_cache(line, true, cached))
        (void)!remember(cached, line, &f->digest);
    *out = f->digest;
    return 0;
}
