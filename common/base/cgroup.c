#include "common/base/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/slice.h"
#include "common/base/thread.h"

#define CPUS_MAX 65536 /* more than any kernel counts */

/* Small files of the kernel only. Returns false if there is none. */
static bool read_text(const char *path, char *text, size_t room, slice *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t n = 0;
    ssize_t got;
    while (n < room && ((got = read(fd, text + n, room - n)) > 0 || (got < 0 && errno == EINTR)))
        n += got > 0 ? (size_t)got : 0;
    close(fd);
    *out = slice_trim((slice){text, n});
    return true;
}

/* "max", "-1" and anything unreadable are no quota. */
static uint64_t cpus_from(slice quota, slice period)
{
    uint64_t q, p;
    if (slice_u64(quota, &q) < 0 || slice_u64(period, &p) < 0 || q == 0 || p == 0)
        return 0;
    uint64_t n = q / p + (q % p != 0);
    return n > CPUS_MAX ? 0 : n;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a == 0 ? b : b == 0 ? a : a < b ? a : b;
}

static uint64_t cpus_v2(const char *dir)
{
    char path[PATH_MAX], text[128];
    slice s, quota, period;
    if (snprintf(path, sizeof path, "%s/cpu.max", dir) >= (int)sizeof path ||
        !read_text(path, text, sizeof text, &s))
        return 0;
    if (!slice_split(&s, ' ', &quota) || !slice_split(&s, ' ', &period))
        return 0;
    return cpus_from(quota, period);
}

static uint64_t cpus_v1(const char *dir)
{
    char path[PATH_MAX], text_q[64], text_p[64];
    slice quota, period;
    if (snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir) >= (int)sizeof path ||
        !read_text(path, text_q, sizeof text_q, &quota))
        return 0;
    if (snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir) >= (int)sizeof path ||
        !read_text(path, text_p, sizeof text_p, &period))
        return 0;
    return cpus_from(quota, period);
}

/* A file with one number of bytes; version 1 has one near 2^63 for "no limit". */
static uint64_t bytes_in(const char *dir, const char *file)
{
    char path[PATH_MAX], text[64];
    slice s;
    uint64_t n;
    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path ||
        !read_text(path, text, sizeof text, &s) || slice_u64(s, &n) < 0)
        return 0;
    return n > (uint64_t)INT64_MAX / 2 ? 0 : n;
}

static uint64_t memory_v2(const char *dir)
{
    return bytes_in(dir, "memory.max");
}

static uint64_t memory_v1(const char *dir)
{
    return bytes_in(dir, "memory.limit_in_bytes");
}

/* What is limited, and where each version of control groups says so. */
struct limit {
    const char *controller;
    uint64_t (*v2)(const char *dir), (*v1)(const char *dir);
};

static const struct limit CPUS = {"cpu", cpus_v2, cpus_v1},
                          MEMORY = {"memory", memory_v2, memory_v1};

/* The tightest limit on the way from the group up to the root. Inside a container the group's path
 * may be the host's and not be there; then the root alone speaks, which is the container's own
 * group. */
static uint64_t limit_up(const char *root, slice group, uint64_t (*limit)(const char *dir))
{
    uint64_t least = 0;
    for (;;) {
        char dir[PATH_MAX];
        if (snprintf(dir, sizeof dir, "%s%.*s", root, (int)group.n, group.p) < (int)sizeof dir)
            least = smaller(least, limit(dir));
        if (group.n == 0)
            return least;
        do
            group.n--;
        while (group.n && group.p[group.n] != '/');
    }
}

static bool names(slice controllers, const char *controller)
{
    slice one;
    while (slice_split(&controllers, ',', &one))
        if (slice_eq_str(one, controller))
            return true;
    return false;
}

/* A line is "number:controllers:/path"; version 2 has no controllers. */
static uint64_t limit_of_line(slice line, const char *root, const struct limit *what)
{
    slice number, controllers;
    if (!slice_split(&line, ':', &number) || !slice_split(&line, ':', &controllers) || !line.p)
        return 0;
    if (line.n > PATH_MAX / 2 || (line.n && line.p[0] != '/'))
        return 0;
    if (controllers.n == 0)
        return limit_up(root, line, what->v2);
    if (!names(controllers, what->controller))
        return 0;
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s/%.*s", root, (int)controllers.n, controllers.p);
    return n < 0 || n >= (int)sizeof dir ? 0 : limit_up(dir, line, what->v1);
}

static uint64_t limit_of(const char *self, const char *root, const struct limit *what)
{
    char text[4096];
    slice all, line;
    uint64_t least = 0;
    if (!read_text(self, text, sizeof text, &all))
        return 0;
    while (slice_split(&all, '\n', &line))
        least = smaller(least, limit_of_line(line, root, what));
    return least;
}

int cgroup_cpus(const char *self, const char *root)
{
    return (int)limit_of(self, root, &CPUS);
}

uint64_t cgroup_memory(const char *self, const char *root)
{
    return limit_of(self, root, &MEMORY);
}

/* The kernel refuses a mask smaller than its own: grow until it fits. */
static int cpus_of_affinity(void)
{
    for (size_t room = 1024; room <= CPUS_MAX; room *= 2) {
        cpu_set_t *set = CPU_ALLOC(room);
        CHECK(set != NULL);
        size_t bytes = CPU_ALLOC_SIZE(room);
        int rc = sched_getaffinity(0, bytes, set);
        int n = rc == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (n > 0)
            return n;
    }
    return 1;
}

int thread_cpus(void)
{
    return (int)smaller((uint64_t)cpus_of_affinity(),
                        (uint64_t)cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup"));
}

uint64_t memory_total(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t all = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    return smaller(all, cgroup_memory("/proc/self/cgroup", "/sys/fs/cgroup"));
}
