#include "cli/home.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char *join(const char *a, const char *b)
{
    buf out = {0};
    buf_put_str(&out, a);
    if (b[0])
        buf_printf(&out, "/%s", b);
    buf_put_byte(&out, 0);
    return out.p;
}

char *home_path(const char *name)
{
    const char *home = getenv("NUNCHI_HOME");
    if (home && home[0])
        return join(home, name);
    const char *cache = getenv("XDG_CACHE_HOME"), *user = getenv("HOME");
    char base[PATH_MAX];
    if (cache && cache[0] == '/')
        snprintf(base, sizeof base, "%s/nunchi", cache);
    else
        snprintf(base, sizeof base, "%s/.cache/nunchi", user && user[0] ? user : "/root");
    return join(base, name);
}

int home_absolute(void)
{
    const char *home = getenv("NUNCHI_HOME");
    char here[PATH_MAX];
    if (!home || !home[0] || home[0] == '/')
        return 0;
    if (!getcwd(here, sizeof here))
        return -1;
    char *path = join(here, home);
    int e = setenv("NUNCHI_HOME", path, 1);
    free(path);
    return e;
}

/* Makes every folder named before a '/' in path. */
static int make_folders(char *path, struct why *w)
{
    for (char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        int bad = mkdir(path, 0700) < 0 && errno != EEXIST;
        int e = errno;
        *p = '/';
        if (bad)
            return why_set(w, err_from_errno(e), "", "cannot make a folder for %s: %s", path,
                           strerror(e));
    }
    return 0;
}

int home_make(const char *name, char **out, struct why *w)
{
    *out = home_path(name);
    int e = make_folders(*out, w);
    if (e < 0) {
        free(*out);
        *out = NULL;
    }
    return e;
}

static char *beside_us(const char *name)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return NULL;
    self[n] = 0;
    char *slash = strrchr(self, '/');
    if (!slash)
        return NULL;
    *slash = 0;
    char *path = join(self, name);
    if (access(path, X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

char *home_program(const char *name)
{
    char *path = beside_us(name);
    if (path)
        return path;
    slice rest = slice_str(getenv("PATH")), dir;
    while (slice_split(&rest, ':', &dir)) {
        char *folder = slice_dup(dir);
        path = join(folder, name);
        free(folder);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

int file_read(const char *path, size_t max_bytes, buf *out, struct why *w)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return why_set(w, err_from_errno(errno), "", "cannot open %s: %s", path, strerror(errno));
    char chunk[65536];
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) > 0) {
        if (out->n + (size_t)n > max_bytes) {
            close(fd);
            return why_set(w, ERR_TOO_BIG, "", "%s is larger than %zu bytes", path, max_bytes);
        }
        buf_put(out, chunk, (size_t)n);
    }
    close(fd);
    return n < 0 ? why_set(w, ERR_IO, "", "cannot read %s: %s", path, strerror(errno)) : 0;
}

static int write_all(int fd, slice text)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0)
            return err_from_errno(errno);
        text.p += n;
        text.n -= (size_t)n;
    }
    return 0;
}

int file_write(const char *path, slice text, struct why *w)
{
    buf tmp = {0};
    buf_printf(&tmp, "%s.%d.new", path, (int)getpid());
    int fd = open(buf_cstr(&tmp), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int e = fd < 0 ? err_from_errno(errno) : write_all(fd, text);
    if (fd >= 0)
        close(fd);
    if (e >= 0 && rename(buf_cstr(&tmp), path) < 0)
        e = err_from_errno(errno);
    if (e < 0)
        why_set(w, e, "", "cannot write %s: %s", path, strerror(errno));
    buf_clear(&tmp);
    return e;
}
