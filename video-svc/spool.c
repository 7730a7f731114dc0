#include "video-svc/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 64
#define ENTRY_MAGIC 0x314a564eu /* "NVJ1": a change of the layout is another magic */
#define ENTRY_BYTES_MAX 512

struct spool {
    int root, dir, lock; /* the shared folder, ours in it, the lock of ours */
};

/* ---- journal entries: magic, fields, checksum ---- */

static void put_le(buf *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        buf_put_byte(b, (unsigned char)(v >> (8 * i)));
}

static uint64_t get_le(slice *in, size_t n)
{
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;)
        v = v << 8 | (unsigned char)in->p[i];
    in->p += n;
    in->n -= n;
    return v;
}

#define ENTRY_FIXED (4 + VID_TENANT_BYTES + DIGEST_BYTES + 8 + 4 + 4 + 1)

static void pack_entry(const struct vid_saved *f, buf *out)
{
    size_t id = strlen(f->file_id);
    put_le(out, ENTRY_MAGIC, 4);
    buf_put(out, f->tenant, VID_TENANT_BYTES);
    buf_put(out, f->content.b, DIGEST_BYTES);
    put_le(out, f->size, 8);
    put_le(out, f->keyframes, 4);
    put_le(out, f->frames_max, 4);
    put_le(out, id, 1);
    buf_put(out, f->file_id, id);
    struct digest sum = digest_of((slice){0}, buf_slice(out));
    buf_put(out, sum.b, DIGEST_BYTES);
}

static bool unpack_entry(slice in, struct vid_saved *f)
{
    if (in.n < ENTRY_FIXED + DIGEST_BYTES)
        return false;
    struct digest sum = digest_of((slice){0}, (slice){in.p, in.n - DIGEST_BYTES});
    if (memcmp(sum.b, in.p + in.n - DIGEST_BYTES, DIGEST_BYTES) != 0)
        return false;
    in.n -= DIGEST_BYTES;
    if (get_le(&in, 4) != ENTRY_MAGIC)
        return false;
    memcpy(f->tenant, in.p, VID_TENANT_BYTES);
    memcpy(f->content.b, in.p + VID_TENANT_BYTES, DIGEST_BYTES);
    in.p += VID_TENANT_BYTES + DIGEST_BYTES;
    in.n -= VID_TENANT_BYTES + DIGEST_BYTES;
    f->size = get_le(&in, 8);
    f->keyframes = get_le(&in, 4) != 0;
    f->frames_max = (uint32_t)get_le(&in, 4);
    size_t id = (size_t)get_le(&in, 1);
    if (id != in.n || id > VID_FILE_ID_MAX || f->frames_max > REC_FRAMES_MAX)
        return false;
    memcpy(f->file_id, in.p, id);
    f->file_id[id] = 0;
    return true;
}

/* ---- names ---- */

static void file_name(const struct vid_saved *f, const char *suffix, char out[NAME_MAX_BYTES])
{
    snprintf(out, NAME_MAX_BYTES, "%s.%s", f->name, suffix);
}

/* "0123…ef.suffix" -> the hex part. */
static bool name_of(const char *file, const char *suffix, char name[VID_SPOOL_NAME])
{
    uint8_t raw[(VID_SPOOL_NAME - 1) / 2];
    size_t n = VID_SPOOL_NAME - 1;
    if (strlen(file) <= n + 1 || file[n] != '.' || strcmp(file + n + 1, suffix) != 0 ||
        hex_decode((slice){file, n}, raw, sizeof raw) < 0)
        return false;
    memcpy(name, file, n);
    name[n] = 0;
    return true;
}

/* ---- folders ---- */

static int open_dir(int at, const char *name)
{
    if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
        return -1;
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* The lock of a numbered folder, or -1 when somebody has it. */
static int lock_slot(int root, int slot)
{
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%d.lock", slot);
    int fd = openat(root, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int slot_dir(int root, int slot, bool make)
{
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%d", slot);
    return make ? open_dir(root, name) : openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Moves a dead process's files to ours: names are random, so they do not meet. */
static void take_over(int from, int to)
{
    int fd = dup(from);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    char name[VID_SPOOL_NAME];
    for (struct dirent *e; (e = readdir(d));)
        if (name_of(e->d_name, "video", name) || name_of(e->d_name, "job", name))
            (void)renameat(from, e->d_name, to, e->d_name);
    closedir(d);
}

static void take_over_all(const spool *s, int own)
{
    for (int slot = 0; slot < SPOOL_SLOTS; slot++) {
        int from = slot == own ? -1 : slot_dir(s->root, slot, false);
        if (from < 0)
            continue;
        int lock = lock_slot(s->root, slot);
        if (lock >= 0) {
            take_over(from, s->dir);
            close(lock);
        }
        close(from);
    }
}

int spool_open(const char *folder, spool **out, struct why *w)
{
    spool *s = xcalloc(1, sizeof *s);
    s->dir = s->lock = -1;
    s->root = open_dir(AT_FDCWD, folder);
    if (s->root < 0) {
        int e = why_set(w, ERR_IO, "spool-dir", "the folder cannot be opened or made: %s",
                        strerror(errno));
        spool_close(s);
        return e;
    }
    int slot = 0;
    while (slot < SPOOL_SLOTS && (s->lock = lock_slot(s->root, slot)) < 0)
        slot++;
    s->dir = s->lock >= 0 ? slot_dir(s->root, slot, true) : -1;
    if (s->dir < 0) {
        int e = why_set(w, s->lock < 0 ? ERR_BUSY : ERR_IO, "spool-dir",
                        "the folder cannot be written to, or %d processes use it", SPOOL_SLOTS);
        spool_close(s);
        return e;
    }
    take_over_all(s, slot);
    *out = s;
    return 0;
}

void spool_close(spool *s)
{
    if (!s)
        return;
    const int fds[] = {s->dir, s->lock, s->root};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(s);
}

/* ---- files ---- */

/* A full disk is nobody's fault, and passes: another worker, or a later time, has room. */
static int disk_error(void)
{
    return errno == ENOSPC || errno == EDQUOT ? ERR_UNAVAILABLE : ERR_IO;
}

static int write_all(int fd, slice bytes)
{
    while (bytes.n > 0) {
        ssize_t n = write(fd, bytes.p, bytes.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return disk_error();
        bytes.p += n;
        bytes.n -= (size_t)n;
    }
    return 0;
}

int spool_write(spool *s, const struct vid_saved *f, slice bytes)
{
    char name[NAME_MAX_BYTES];
    file_name(f, "video", name);
    int fd = openat(s->dir, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return disk_error();
    int e = write_all(fd, bytes);
    close(fd);
    return e;
}

static int sync_file(const spool *s, const char *name)
{
    int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return disk_error();
    int e = fsync(fd) < 0 ? disk_error() : 0;
    close(fd);
    return e;
}

static int write_entry(spool *s, const struct vid_saved *f)
{
    char name[NAME_MAX_BYTES], fresh[NAME_MAX_BYTES];
    file_name(f, "job", name);
    file_name(f, "new", fresh);
    buf b = {0};
    pack_entry(f, &b);
    int fd = openat(s->dir, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int e = fd < 0 ? disk_error() : write_all(fd, buf_slice(&b));
    if (e >= 0 && fsync(fd) < 0)
        e = disk_error();
    if (fd >= 0)
        close(fd);
    buf_clear(&b);
    if (e >= 0 && (renameat(s->dir, fresh, s->dir, name) < 0 || fsync(s->dir) < 0))
        e = disk_error();
    return e;
}

int spool_seal(spool *s, const struct vid_saved *f)
{
    char name[NAME_MAX_BYTES];
    file_name(f, "video", name);
    int e =
        f->size == 0 ? spool_write(s, f, (slice){0}) : 0; /* an empty file was never written to */
    if (e >= 0)
        e = sync_file(s, name);
    return e >= 0 ? write_entry(s, f) : e;
}

void spool_remove(spool *s, const struct vid_saved *f)
{
    /* The entry first: a file without one is rubbish, an entry without its file would be damage. */
    static const char *const SUFFIX[] = {"job", "new", "video"};
    char name[NAME_MAX_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(SUFFIX); i++) {
        file_name(f, SUFFIX[i], name);
        (void)unlinkat(s->dir, name, 0);
    }
}

int spool_read_fd(spool *s, const struct vid_saved *f)
{
    char name[NAME_MAX_BYTES];
    file_name(f, "video", name);
    int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? ERR_IO : fd;
}

/* ---- what was left ---- */

static bool read_entry(spool *s, struct vid_saved *f)
{
    char name[NAME_MAX_BYTES], bytes[ENTRY_BYTES_MAX];
    file_name(f, "job", name);
    int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (fd >= 0)
        close(fd);
    struct stat st;
    file_name(f, "video", name);
    return n > 0 && unpack_entry((slice){bytes, (size_t)n}, f) &&
           fstatat(s->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_size == f->size;
}

static bool has_entry(const spool *s, const struct vid_saved *f)
{
    char name[NAME_MAX_BYTES];
    file_name(f, "job", name);
    return faccessat(s->dir, name, F_OK, 0) == 0;
}

size_t spool_found(spool *s, struct vid_saved **out)
{
    size_t n = 0, cap = 0;
    *out = NULL;
    int fd = dup(s->dir);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    rewinddir(d);
    for (struct dirent *e; n < SPOOL_FOUND_MAX && (e = readdir(d));) {
        struct vid_saved f = {0};
        bool job = name_of(e->d_name, "job", f.name);
        bool video = !job && name_of(e->d_name, "video", f.name);
        if (job && read_entry(s, &f)) {
            if (n == cap) {
                cap = cap ? cap * 2 : 16;
                *out = xrealloc(*out, cap, sizeof **out);
            }
            (*out)[n++] = f;
        } else if (job || (video && !has_entry(s, &f))) {
            spool_remove(s, &f);
        }
    }
    closedir(d);
    return n;
}
