/* Opening, checking and finding prepared files. */
#include "engine/prepared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/model/cache.h"

#define SUM_BYTES 16
#define HEAD_BYTES 112 /* and then the table */
#define ROW_BYTES 32

struct prepared {
    uint8_t *p;
    size_t n;       /* all of the file */
    size_t seal_at; /* what is before it is in pieces */
    const uint8_t *sums;
    uint8_t *seal; /* a copy: the file may change under us */
    char *path;
    dev_t dev;
    ino_t ino;
};

/* ---- the seal ---- */

static void put_le(buf *out, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        buf_put_byte(out, (unsigned char)(v >> (8 * i)));
}

uint64_t prepared_seal_at(const struct prepared_want *want)
{
    return (want->bytes + PREPARED_PAGE_BYTES - 1) / PREPARED_PAGE_BYTES * PREPARED_PAGE_BYTES;
}

static size_t pieces_before(uint64_t seal_at)
{
    return (size_t)((seal_at + PREPARED_PIECE_BYTES - 1) / PREPARED_PIECE_BYTES);
}

void prepared_head(const struct prepared_want *want, buf *out)
{
    buf_put_str(out, "nunchi prepared\n");
    put_le(out, PREPARED_VERSION, 4);
    put_le(out, want->n_tensors, 4);
    put_le(out, want->bytes, 8);
    put_le(out, prepared_seal_at(want), 8);
    put_le(out, PREPARED_PIECE_BYTES, 8);
    buf_put(out, want->source.b, DIGEST_BYTES);
    buf_put(out, want->layout.b, DIGEST_BYTES);
    for (size_t i = 0; i < want->n_tensors; i++) {
        const struct prepared_tensor *t = &want->tensors[i];
        put_le(out, t->type, 4);
        put_le(out, t->n_out, 4);
        put_le(out, t->n_in, 4);
        put_le(out, 0, 4);
        put_le(out, t->at, 8);
        put_le(out, t->bytes, 8);
    }
}

static int stale(struct why *w, const char *what)
{
    return why_set(w, ERR_INVALID, "", "the prepared weights are %s", what);
}

/* The seal that `want` asks for, with any checksums that hold together. */
static int read_seal(int fd, const struct prepared_want *want, size_t n_sums, uint8_t **out,
                     struct why *w)
{
    buf head = {0};
    prepared_head(want, &head);
    size_t n = head.n + (n_sums + 1) * SUM_BYTES, sums_at = head.n;
    uint8_t *seal = try_calloc(n, 1), sum[SUM_BYTES];
    int e = seal ? 0 : ERR_NOMEM;
    if (e == 0 && pread(fd, seal, n, (off_t)prepared_seal_at(want)) != (ssize_t)n)
        e = stale(w, "cut short");
    else if (e == 0 && memcmp(seal, head.p, sums_at) != 0)
        e = stale(w, "of another file, version or layout");
    buf_clear(&head);
    if (e == 0) {
        checksum128(seal, n - SUM_BYTES, sum);
        if (memcmp(sum, seal + n - SUM_BYTES, SUM_BYTES) != 0)
            e = stale(w, "damaged");
    }
    if (e < 0) {
        free(seal);
        seal = NULL;
    }
    *out = seal;
    return e;
}

/* ---- opening ---- */

static int map_fd(prepared *p, int fd, const struct prepared_want *want, struct why *w)
{
    struct stat st;
    uint64_t at = prepared_seal_at(want), head = HEAD_BYTES + ROW_BYTES * (uint64_t)want->n_tensors;
    size_t n_sums = pieces_before(at);
    if (want->bytes == 0 || want->bytes > INT64_MAX / 2)
        return why_set(w, ERR_TOO_BIG, "", "%llu bytes of weights",
                       (unsigned long long)want->bytes);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return stale(w, "no regular file");
    if (st.st_uid != geteuid() && st.st_uid != 0 && st.st_uid != want->owner)
        return stale(w, "somebody else's"); /* who could not change the model could write them */
    if ((uint64_t)st.st_size != at + head + (n_sums + 1) * SUM_BYTES)
        return stale(w, "of another size");
    int e = read_seal(fd, want, n_sums, &p->seal, w);
    if (e < 0)
        return e;
    p->sums = p->seal + head;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return why_set(w, err_from_errno(errno), "", "the prepared weights cannot be mapped: %s",
                       strerror(errno));
    p->p = map;
    p->n = (size_t)st.st_size;
    p->seal_at = (size_t)at;
    p->dev = st.st_dev;
    p->ino = st.st_ino;
    /* Where the file system keeps files in large pages (ext4, XFS), streams of weights cost fewer
     * page walks. */
    madvise(map, p->n, MADV_HUGEPAGE);
    return 0;
}

int prepared_open_fd(int fd, const struct prepared_want *want, prepared **out, struct why *w)
{
    prepared *p = xcalloc(1, sizeof *p);
    int e = map_fd(p, fd, want, w);
    if (e < 0) {
        prepared_close(p);
        p = NULL;
    }
    *out = p;
    return e;
}

int prepared_open(const char *path, const struct prepared_want *want, prepared **out, struct why *w)
{
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return why_set(w, err_from_errno(errno), "", "no prepared weights: %s", strerror(errno));
    int e = prepared_open_fd(fd, want, out, w);
    close(fd);
    if (e >= 0)
        (*out)->path = xstrdup(path);
    return e;
}

void prepared_close(prepared *p)
{
    if (!p)
        return;
    if (p->p)
        munmap(p->p, p->n);
    free(p->seal);
    free(p->path);
    free(p);
}

const uint8_t *prepared_data(const prepared *p)
{
    return p->p;
}

uint64_t prepared_file_bytes(const prepared *p)
{
    return p->n;
}

const char *prepared_path(const prepared *p)
{
    return p->path ? p->path : "";
}

/* ---- the data ---- */

size_t prepared_n_pieces(const prepared *p)
{
    return pieces_before(p->seal_at);
}

static slice piece(const prepared *p, size_t i)
{
    CHECK(i < prepared_n_pieces(p));
    size_t at = i * PREPARED_PIECE_BYTES, left = p->seal_at - at;
    return (slice){(const char *)p->p + at,
                   left < PREPARED_PIECE_BYTES ? left : PREPARED_PIECE_BYTES};
}

bool prepared_piece_ok(const prepared *p, size_t i)
{
    slice s = piece(p, i);
    uint8_t sum[SUM_BYTES];
    checksum128(s.p, s.n, sum);
    return memcmp(sum, p->sums + i * SUM_BYTES, SUM_BYTES) == 0;
}

#ifndef MADV_POPULATE_READ /* Linux 5.14; older C libraries do not name it */
#define MADV_POPULATE_READ 22
#endif

void prepared_touch(const prepared *p, size_t i)
{
    slice s = piece(p, i);
    if (madvise((void *)(uintptr_t)s.p, s.n, MADV_POPULATE_READ) < 0)
        madvise((void *)(uintptr_t)s.p, s.n, MADV_WILLNEED);
}

int prepared_discard(const prepared *p)
{
    struct stat st;
    if (!p->path || lstat(p->path, &st) < 0 || st.st_ino != p->ino || st.st_dev != p->dev)
        return 0; /* another one took its place */
    return unlink(p->path) < 0 ? err_from_errno(errno) : 0;
}

/* ---- places ---- */

/* In the cache folder by the model's path, so that a model that was replaced does not leave its old
 * weights behind. */
static bool cached_place(const char *model, bool make, char out[PATH_MAX])
{
    char whole[PATH_MAX], name[128], hex[17];
    if (!realpath(model, whole))
        return false;
    struct digest d = digest_of((slice){"", 0}, slice_str(whole));
    hex_encode(d.b, 8, hex);
    const char *base = strrchr(whole, '/') + 1;
    snprintf(name, sizeof name, "%.64s-%s.prepared", base, hex);
    return model_cache_path(name, make, out);
}

bool prepared_place(const char *model, int place, bool make, char out[PATH_MAX])
{
    if (place == 1)
        return cached_place(model, make, out);
    int n = snprintf(out, PATH_MAX, "%s.prepared", model);
    return n > 0 && n < PATH_MAX;
}

static int write_it(const char *path, const struct prepared_want *want,
                    const struct prepared_how *how, prepared **out, struct why *w)
{
    prepared_writer *pw;
    int e = prepared_begin(path, how->mode, want, &pw, w);
    if (e >= 0) {
        e = how->fill(how->ctx, pw, w);
        if (e >= 0)
            e = prepared_commit(pw, w);
        else
            prepared_abandon(pw);
    }
    return e >= 0 || e == ERR_EXISTS ? prepared_open(path, want, out, w) : e;
}

int prepared_get(const struct prepared_want *want, const struct prepared_how *how, prepared **out,
                 struct why *w)
{
    static const char *const PLACES[] = {"beside the model", "in the cache folder"};
    char path[PATH_MAX];
    struct why each = {.text = "there is no such folder"};
    buf all = {0};
    int e = ERR_NOT_FOUND;
    for (int i = 0; i < 2; i++)
        if (prepared_place(how->model, i, false, path) &&
            (e = prepared_open(path, want, out, &each)) >= 0)
            return e;
    for (int i = 0; i < 2; i++) {
        if (prepared_place(how->model, i, true, path) &&
            (e = write_it(path, want, how, out, &each)) >= 0)
            break;
        buf_printf(&all, "%s%s: %s", i ? "; " : "", PLACES[i], each.text);
    }
    if (e < 0)
        why_set(w, e, "prepared", "%s", buf_cstr(&all));
    buf_clear(&all);
    return e;
}
