#include "common/base/process.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/base/metrics.h"

static struct {
    metric *cpu, *rss, *fds, *fds_max, *started;
} all;

/* Seconds since 1970; 0: /proc does not say. proc(5): field 22 of stat, in clock ticks since boot;
 * the name before it is in parentheses and may hold anything. */
static double started_s(void)
{
    char line[1024];
    struct timespec boot, now;
    FILE *f = fopen("/proc/self/stat", "re");
    if (!f)
        return 0;
    char *got = fgets(line, sizeof line, f);
    fclose(f);
    const char *p = got ? strrchr(line, ')') : NULL;
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (!p || clock_gettime(CLOCK_BOOTTIME, &boot) < 0 || clock_gettime(CLOCK_REALTIME, &now) < 0)
        return 0;
    double since_boot = (double)strtoull(p + 1, NULL, 10) / (double)sysconf(_SC_CLK_TCK);
    double up = (double)boot.tv_sec + (double)boot.tv_nsec / 1e9;
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9 - up + since_boot;
}

static double rss_bytes(void)
{
    char line[256];
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    char *got = fgets(line, sizeof line, f);
    fclose(f);
    const char *second = got ? strchr(line, ' ') : NULL; /* the first is the size of its space */
    return second ? (double)strtoull(second, NULL, 10) * (double)sysconf(_SC_PAGESIZE) : 0;
}

static double open_fds(void)
{
    double n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n - 1; /* but the one that looks */
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void make(void)
{
    all.cpu = metric_counter("process_cpu_seconds_total", "", "User and system time spent");
    all.rss = metric_gauge("process_resident_memory_bytes", "", "Memory in RAM");
    all.fds = metric_gauge("process_open_fds", "", "File descriptors that are open");
    all.fds_max = metric_gauge("process_max_fds", "", "File descriptors that may be open");
    all.started = metric_gauge("process_start_time_seconds", "", "When it started, Unix time");
    metric_set(all.started, started_s());
}

void process_metrics(void)
{
    struct rusage used;
    struct rlimit files;
    if (!all.cpu)
        make();
    if (getrusage(RUSAGE_SELF, &used) == 0)
        metric_count_to(all.cpu, seconds(used.ru_utime) + seconds(used.ru_stime));
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        metric_set(all.fds_max, (double)files.rlim_cur);
    metric_set(all.rss, rss_bytes());
    metric_set(all.fds, open_fds());
}
