#include "tests/load/lib/cputime.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static double ticks_s(double ticks)
{
    return ticks / (double)sysconf(_SC_CLK_TCK);
}

/* The name is in parentheses and may hold anything, also parentheses. */
static bool read_process(struct cputime_process *p, double *used_s)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", p->pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *open = strchr(text, '('), *shut = strrchr(text, ')');
    unsigned long user, kernel;
    /* The kernel's own numbers: they fit. */
    // NOLINTBEGIN(cert-err34-c)
    if (!open || !shut ||
        sscanf(shut + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) !=
            2)
        return false;
    // NOLINTEND(cert-err34-c)
    snprintf(p->name, sizeof p->name, "%.*s", (int)(shut - open - 1), open + 1);
    *used_s = ticks_s((double)user + (double)kernel);
    return true;
}

static double machine_s(void)
{
    unsigned long long user = 0, nice = 0, kernel = 0, idle = 0, wait = 0, irq = 0, soft = 0;
    FILE *f = fopen("/proc/stat", "r");
    if (!f)
        return 0;
    // NOLINTNEXTLINE(cert-err34-c): likewise
    int n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &kernel, &idle, &wait,
                   &irq, &soft);
    fclose(f);
    return n == 7 ? ticks_s((double)(user + nice + kernel + irq + soft)) : 0;
}

static double own_s(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

int cputime_begin(struct cputime *c, const char *pids, struct why *w)
{
    *c = (struct cputime){.machine_begun_s = machine_s(), .own_begun_s = own_s()};
    slice rest = slice_str(pids), one;
    while (pids && slice_split(&rest, ',', &one)) {
        uint64_t pid;
        if (c->n == CPUTIME_PIDS_MAX)
            return why_set(w, ERR_TOO_BIG, "cpu-of", "at most %d processes", CPUTIME_PIDS_MAX);
        if (slice_u64(slice_trim(one), &pid) < 0 || pid == 0 || pid > INT32_MAX)
            return why_set(w, ERR_INVALID, "cpu-of", "process ids, separated by commas");
        struct cputime_process *p = &c->of[c->n++];
        p->pid = (int)pid;
        if (!read_process(p, &p->begun_s))
            return why_set(w, ERR_NOT_FOUND, "cpu-of", "there is no process %d", p->pid);
    }
    return 0;
}

void cputime_end(struct cputime *c)
{
    for (size_t i = 0; i < c->n; i++) {
        double now_s = 0;
        if (read_process(&c->of[i], &now_s))
            c->of[i].used_s = now_s - c->of[i].begun_s;
    }
    c->machine_s = machine_s() - c->machine_begun_s;
    c->own_s = own_s() - c->own_begun_s;
}
