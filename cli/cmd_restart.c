#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/http.h"
#include "common/base/clock.h"

static const char USAGE[] = "usage: nunchi restart [SERVICE…]\n"
                            "\n"
                            "Restarts services of the cluster that runs here, one after another: "
                            "each is told to end, which it does when what it works on is\n"
                            "done or has moved, is started again, and serves before the next one "
                            "is told. Without names: all but Redis, gateways last. No\n"
                            "request is lost; with a single gateway, new connections are refused "
                            "for the moment in which it starts.\n";

/* A worker may let answers end for half a minute, and its model has to be loaded. */
#define RESTART_MAX_MS 180000
#define LOOK_US 50000

static const struct cluster_service *find(const struct cluster *c, const char *name)
{
    for (size_t i = 0; i < c->n_services; i++)
        if (strcmp(c->services[i].name, name) == 0)
            return &c->services[i];
    return NULL;
}

/* How many workers the gateway at this port knows, of all kinds; -1: it does not answer, or would
 * answer nobody. */
static long workers_of(int port)
{
    struct http_reply r = {0};
    char url[64];
    long n = -1;
    snprintf(url, sizeof url, "http://127.0.0.1:%d/readyz", port);
    bool ready = http_fetch(url, 2000, &r, NULL) >= 0 && r.status == 200;
    http_reply_clear(&r);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/metrics", port);
    r = (struct http_reply){0};
    if (ready && http_fetch(url, 2000, &r, NULL) >= 0 && r.status == 200) {
        slice rest = buf_slice(&r.body), line, word;
        n = 0;
        while (slice_split(&rest, '\n', &line))
            if (slice_starts(line, SLICE_LIT("nunchi_gateway_workers{"))) {
                uint64_t v = 0;
                while (slice_split(&line, ' ', &word))
                    ;
                n += slice_u64(word, &v) == 0 ? (long)v : 0;
            }
    }
    http_reply_clear(&r);
    return n;
}

/* Every gateway is ready, and knows as many workers as before. */
static bool all_there(const struct cluster *c, const long *before)
{
    for (size_t i = 0; i < c->n_services; i++)
        if (c->services[i].port && workers_of(c->services[i].port) < before[i])
            return false;
    return true;
}

static bool started_again(const char *name, pid_t old, struct cluster *now)
{
    const struct cluster_service *s = cluster_read(now, NULL) >= 0 ? find(now, name) : NULL;
    return s && s->pid > 0 && s->pid != old;
}

/* Late in coming back, or gone for good: it is said, and the others stay as they are. */
static int restart_one(struct cluster *c, const char *name, const long *before)
{
    const struct cluster_service *s = find(c, name);
    pid_t old = s->pid;
    uint64_t until = clock_mono_us() + (uint64_t)RESTART_MAX_MS * 1000, begun = clock_mono_us();
    printf("%-14s ", name);
    fflush(stdout);
    if (old <= 0 || kill(old, SIGTERM) < 0) {
        printf("\n");
        return cli_fail("%s does not run now: %s; see: nunchi logs %s", name, strerror(errno),
                        name);
    }
    while (!started_again(name, old, c) || !all_there(c, before)) {
        if (clock_mono_us() > until) {
            printf("\n");
            return cli_fail("%s is not back after %d s; see: nunchi logs %s", name,
                            RESTART_MAX_MS / 1000, name);
        }
        nanosleep(&(struct timespec){.tv_nsec = LOOK_US * 1000}, NULL);
    }
    printf("restarted in %.1f s\n", (double)(clock_mono_us() - begun) / 1e6);
    return CLI_OK;
}

static bool by_default(const struct cluster_service *s)
{
    return strncmp(s->name, "redis", 5) != 0;
}

int cmd_restart(int argc, char **argv)
{
    if (cli_asks_help(argc, argv, USAGE))
        return CLI_OK;
    struct cluster c;
    struct why w;
    if (cluster_read(&c, &w) < 0)
        return cli_fail("%s", w.text);
    for (int i = 1; i < argc; i++)
        if (!find(&c, argv[i]))
            return cli_usage(USAGE, "no service '%.40s' runs here; nunchi status names them",
                             argv[i]);
    long before[CLUSTER_SERVICES_MAX];
    for (size_t i = 0; i < c.n_services; i++)
        if (c.services[i].port && (before[i] = workers_of(c.services[i].port)) < 0)
            return cli_fail(
                "the cluster is not ready (nunchi status); restarting it could lose requests");
    char names[CLUSTER_SERVICES_MAX][32];
    size_t n = 0;
    for (size_t i = 0; argc == 1 && i < c.n_services; i++)
        if (by_default(&c.services[i]))
            memcpy(names[n++], c.services[i].name, sizeof names[0]);
    for (int i = 1; i < argc && n < CLUSTER_SERVICES_MAX; i++)
        snprintf(names[n++], sizeof names[0], "%s", argv[i]);
    int code = CLI_OK;
    for (size_t i = 0; code == CLI_OK && i < n; i++)
        code = restart_one(&c, names[i], before);
    return code;
}
