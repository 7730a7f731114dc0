#include "common/base/cpus.h"

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
static int cpus_from(slice quota, slice period)
{
    uint64_t q, p;
    if (slice_u64(quota, &q) < 0 || slice_u64(period, &p) < 0 || q == 0 || p == 0)
        return 0;
    uint64_t n = q / p + (q % p != 0);
    return n > CPUS_MAX ? 0 : (int)n;
}

static int smaller_quota(int a, int b)
{
    return a == 0 ? b : b == 0 ? a : a < b ? a : b;
}

static int quota_v2(const char *dir)
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

static int quota_v1(const char *dir)
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

/* The tightest quota on the way from the group up to the root. Inside a container the group's path
 * may be the host's and not be there; then the root alone speaks, which is the container's own
 * group. */
static int quota_up(const char *root, slice group, int (*quota)(const char *dir))
{
    int least = 0;
    for (;;) {
        char dir[PATH_MAX];
        if (snprintf(dir, sizeof dir, "%s%.*s", root, (int)group.n, group.p) < (int)sizeof dir)
            least = smaller_quota(least, quota(dir));
        if (group.n == 0)
            return least;
        do
            group.n--;
        while (group.n && group.p[group.n] != '/');
    }
}

static bool names_cpu(slice controllers)
{
    slice one;
    while (slice_split(&controllers, ',', &one))
        if (slice_eq_str(one, "cpu"))
            return true;
    return false;
}

/* A line is "number:controllers:/path"; version 2 has no controllers. */
static int quota_of_line(slice line, const char *root)
{
    slice number, controllers;
    if (!slice_split(&line, ':', &number) || !slice_split(&line, ':', &controllers) || !line.p)
        return 0;
    if (line.n > PATH_MAX / 2 || (line.n && line.p[0] != '/'))
        return 0;
    if (controllers.n == 0)
        return quota_up(root, line, quota_v2);
    if (!names_cpu(controllers))
        return 0;
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s/%.*s", root, (int)controllers.n, controllers.p);
    return n < 0 || n >= (int)sizeof dir ? 0 : quota_up(dir, line, quota_v1);
}

int cpus_of_quota(const char *self, const char *root)
{
    char text[4096];
    slice all, line;
    int least = 0;
    if (!read_text(self, text, sizeof text, &all))
        return 0;
    while (slice_split(&all, '\n', &line))
        least = smaller_quota(least, quota_of_line(line, root));
    return least;
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
    return smaller_quota(cpus_of_affinity(), cpus_of_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
}
