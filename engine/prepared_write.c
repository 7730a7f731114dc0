/* Writing a prepared file: one writer at a time, whole or not at all. The file being written is
 * itself the lock: it is unlocked only after it was renamed or removed, and whoever gets the lock
 * looks whether it is still the one that the name stands for. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "engine/prepared.h"

#define POLL_MS 20

struct prepared_writer {
    int fd;
    char *path, *part;
    buf head; /* the seal so far */
    uint64_t bytes, added, written, seal_at;
    uint8_t *piece; /* (PREPARED_PIECE_BYTES) */
    size_t n;       /* in piece */
};

static int failed(struct why *w, const char *what)
{
    int e = errno;
    return why_set(w, err_from_errno(e), "", "%s: %s", what, strerror(e));
}

/* ---- the lock ---- */

/* True if fd is still what `part` names. */
static bool still_named(int fd, const char *part)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(part, &b) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

static int lock(int fd, uint64_t until_us, struct why *w)
{
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return failed(w, "no lock");
        if (clock_mono_us() > until_us)
            return why_set(w, ERR_TIMEOUT, "", "another process has been writing them for %d s",
                           PREPARED_WAIT_MS / 1000);
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000}, NULL);
    }
    return 0;
}

/* Somebody else's file could be changed after it was checked. */
static int open_part(const char *part, uint32_t mode, struct why *w)
{
    struct stat st;
    int fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode);
    if (fd < 0)
        return failed(w, "cannot write");
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && st.st_nlink <= 1)
        return fd;
    close(fd);
    return why_set(w, ERR_FORBIDDEN, "", "what is being written there belongs to somebody else");
}

/* A locked, empty file that `part` names. */
static int take(const char *part, uint32_t mode, struct why *w)
{
    uint64_t until = clock_mono_us() + (uint64_t)PREPARED_WAIT_MS * 1000;
    for (;;) {
        int fd = open_part(part, mode, w);
        if (fd < 0)
            return fd;
        int e = lock(fd, until, w);
        if (e == 0 && still_named(fd, part))
            e = ftruncate(fd, 0) == 0 && fchmod(fd, mode) == 0 ? fd : failed(w, "cannot write");
        if (e > 0)
            return e;
        close(fd);
        if (e < 0)
            return e;
    }
}

/* ---- writing ---- */

static char *part_of(const char *path)
{
    buf b = {0};
    buf_printf(&b, "%s.part", path);
    buf_put_byte(&b, 0);
    return b.p;
}

static void free_writer(prepared_writer *pw)
{
    if (pw->fd >= 0)
        close(pw->fd); /* and the lock with it */
    free(pw->path);
    free(pw->part);
    free(pw->piece);
    buf_clear(&pw->head);
    free(pw);
}

void prepared_abandon(prepared_writer *pw)
{
    if (pw->fd >= 0)
        unlink(pw->part);
    free_writer(pw);
}

/* A full disk is better known now than after minutes of work. Beyond the process's own limit a
 * write would be a signal. */
static int reserve(int fd, uint64_t n, struct why *w)
{
    struct rlimit most;
    if (getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur != RLIM_INFINITY && n > most.rlim_cur)
        errno = EFBIG;
    else if (fallocate(fd, 0, 0, (off_t)n) == 0 || errno == EOPNOTSUPP)
        return 0;
    return failed(w, "no room");
}

static bool is_there(const char *path, const struct prepared_want *want)
{
    prepared *p;
    int e = prepared_open(path, want, &p, NULL);
    prepared_close(p);
    return e >= 0;
}

int prepared_begin(const char *path, uint32_t mode, const struct prepared_want *want,
                   prepared_writer **out, struct why *w)
{
    prepared_writer *pw = xcalloc(1, sizeof *pw);
    pw->path = xstrdup(path);
    pw->part = part_of(path);
    pw->bytes = want->bytes;
    pw->seal_at = prepared_seal_at(want);
    pw->fd = take(pw->part, mode, w);
    int e = pw->fd;
    if (e >= 0 && is_there(path, want))
        e = why_set(w, ERR_EXISTS, "", "somebody else has written them");
    if (e >= 0)
        e = reserve(pw->fd, pw->seal_at, w);
    if (e >= 0 && !(pw->piece = try_calloc(PREPARED_PIECE_BYTES, 1)))
        e = why_set(w, ERR_NOMEM, "", "no memory");
    if (e < 0) {
        prepared_abandon(pw);
        pw = NULL;
    } else {
        prepared_head(want, &pw->head);
    }
    *out = pw;
    return e < 0 ? e : 0;
}

static int write_all(const prepared_writer *pw, const void *p, size_t n, uint64_t at, struct why *w)
{
    for (ssize_t got; n > 0; p = (const uint8_t *)p + got, n -= (size_t)got, at += (uint64_t)got)
        if ((got = pwrite(pw->fd, p, n, (off_t)at)) < 0)
            return failed(w, "cannot write");
    return 0;
}

/* Whole pieces at multiples of their size: file systems then keep them in large pages. */
static int flush(prepared_writer *pw, struct why *w)
{
    uint8_t sum[16];
    checksum128(pw->piece, pw->n, sum);
    buf_put(&pw->head, sum, sizeof sum);
    int e = write_all(pw, pw->piece, pw->n, pw->written, w);
    pw->written += pw->n;
    pw->n = 0;
    return e;
}

int prepared_add(prepared_writer *pw, const void *p, size_t n, struct why *w)
{
    CHECK(n <= pw->bytes - pw->added);
    pw->added += n;
    for (const uint8_t *from = p; n > 0;) {
        size_t some = PREPARED_PIECE_BYTES - pw->n;
        some = some < n ? some : n;
        memcpy(pw->piece + pw->n, from, some);
        pw->n += some;
        from += some;
        n -= some;
        int e = pw->n == PREPARED_PIECE_BYTES ? flush(pw, w) : 0;
        if (e < 0)
            return e;
    }
    return 0;
}

static int write_rest(prepared_writer *pw, struct why *w)
{
    size_t pad = (size_t)(pw->seal_at - pw->added);
    memset(pw->piece + pw->n, 0, pad); /* a piece is whole pages */
    pw->n += pad;
    int e = pw->n ? flush(pw, w) : 0;
    uint8_t sum[16];
    checksum128(pw->head.p, pw->head.n, sum);
    buf_put(&pw->head, sum, sizeof sum);
    return e < 0 ? e : write_all(pw, pw->head.p, pw->head.n, pw->seal_at, w);
}

int prepared_commit(prepared_writer *pw, struct why *w)
{
    CHECK(pw->added == pw->bytes);
    int e = write_rest(pw, w);
    if (e >= 0 && (fsync(pw->fd) < 0 || rename(pw->part, pw->path) < 0))
        e = failed(w, "cannot write");
    if (e < 0)
        prepared_abandon(pw);
    else
        free_writer(pw);
    return e;
}
