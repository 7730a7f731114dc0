#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/http.h"
#include "cli/logs.h"
#include "common/base/alive.h"
#include "common/base/clock.h"

static const char USAGE_STATUS[] =
    "usage: nunchi status              who is up here, since when, and how busy\n"
    "       nunchi status --url URL    whether that gateway would answer a request now\n";
static const char USAGE_DOWN[] =
    "usage: nunchi down        stop the cluster; running answers may end first\n";
static const char USAGE_LOGS[] = "usage: nunchi logs [-n LINES] [-f] [SERVICE]      the last lines "
                                 "of a service's log, or of all\n"
                                 "\n"
                                 "  -n LINES   how many (default 20)\n"
                                 "  -f         goes on as they are written, until Ctrl-C\n";
static const char USAGE_ALIVE[] = "usage: nunchi alive      exits 0 if the service behind "
                                  "NUNCHI_ALIVE_FILE runs, for health checks\n";

static void print_age(uint64_t since_ms)
{
    uint64_t s = (clock_unix_ms() - since_ms) / 1000;
    if (s < 120)
        printf("%5llus", (unsigned long long)s);
    else if (s < 7200)
        printf("%5llum", (unsigned long long)(s / 60));
    else
        printf("%5lluh", (unsigned long long)(s / 3600));
}

/* The gateway's gauges, those that tell load, as they are in /metrics. */
static void print_load(const char *url)
{
    struct http_reply r = {0};
    buf at = {0};
    buf_printf(&at, "%s/metrics", url);
    if (http_fetch(buf_cstr(&at), 2000, &r, NULL) >= 0 && r.status == 200) {
        slice rest = buf_slice(&r.body), line;
        puts("\nload (from /metrics):");
        while (slice_split(&rest, '\n', &line)) {
            bool wanted = slice_starts(line, SLICE_LIT("nunchi_gateway_requests_running")) ||
                          slice_starts(line, SLICE_LIT("nunchi_gateway_requests_queued")) ||
                          slice_starts(line, SLICE_LIT("nunchi_gateway_workers"));
            if (wanted)
                printf("  %.*s\n", (int)line.n, line.p);
        }
    }
    buf_clear(&at);
    http_reply_clear(&r);
}

static bool is_ready(const char *url, struct http_reply *reply, struct why *w)
{
    buf at = {0};
    buf_printf(&at, "%s/readyz", url);
    bool ready = http_fetch(buf_cstr(&at), 2000, reply, w) >= 0 && reply->status == 200;
    buf_clear(&at);
    return ready;
}

static int status_of_url(const char *url)
{
    struct http_reply r = {0};
    struct why w = {0};
    bool ready = is_ready(url, &r, &w);
    printf("%s  %s\n", url, ready ? "ready" : "NOT READY");
    if (!ready && r.body.n > 0)
        printf("%.*s\n", (int)r.body.n, r.body.p);
    else if (!ready && w.text[0])
        printf("%s\n", w.text);
    http_reply_clear(&r);
    return ready ? CLI_OK : CLI_FAILED;
}

static int status_of_given(const char *given)
{
    char *url = cluster_url(given);
    int code = status_of_url(url);
    free(url);
    return code;
}

static void print_services(const struct cluster *c)
{
    printf("%-14s %8s %6s %9s\n", "SERVICE", "PID", "UP", "RESTARTS");
    for (size_t i = 0; i < c->n_services; i++) {
        const struct cluster_service *s = &c->services[i];
        printf("%-14s %8d ", s->name, (int)s->pid);
        if (s->pid > 0)
            print_age(s->started_unix_ms);
        else
            printf("%6s", "down");
        printf(" %9u", s->restarts);
        if (s->port)
            printf("  http://127.0.0.1:%d", s->port);
        putchar('\n');
    }
}

int cmd_status(int argc, char **argv)
{
    if (cli_asks_help(argc, argv, USAGE_STATUS))
        return CLI_OK;
    if (argc == 3 && strcmp(argv[1], "--url") == 0)
        return status_of_given(argv[2]);
    if (argc != 1)
        return cli_usage(USAGE_STATUS, "'%.40s' is not understood", argv[1]);
    struct cluster c;
    struct why w;
    if (cluster_read(&c, &w) < 0)
        return cli_fail("%s", w.text);
    char *url = cluster_url(NULL);
    int code = status_of_url(url);
    for (size_t i = 0; i < c.n_models; i++)
        printf("model %s\n", c.models[i]);
    putchar('\n');
    print_services(&c);
    print_load(url);
    free(url);
    return code;
}

int cmd_down(int argc, char **argv)
{
    if (cli_asks_help(argc, argv, USAGE_DOWN))
        return CLI_OK;
    if (argc > 1)
        return cli_usage(USAGE_DOWN, "'%.40s' is one word too many", argv[1]);
    struct cluster c;
    struct why w;
    if (cluster_read(&c, &w) < 0) {
        printf("%s\n", "no cluster runs here");
        return CLI_OK;
    }
    if (cluster_stop(&c, &w) < 0)
        return cli_fail("%s", w.text);
    puts("stopped");
    return CLI_OK;
}

int cmd_logs(int argc, char **argv)
{
    if (cli_asks_help(argc, argv, USAGE_LOGS))
        return CLI_OK;
    uint64_t lines = 20;
    bool follow = false;
    for (int c; (c = getopt(argc, argv, "n:f")) != -1;) {
        if (c == 'f')
            follow = true;
        else if (c != 'n')
            return cli_bad_option(USAGE_LOGS);
        else if (slice_u64(slice_str(optarg), &lines) < 0 || lines == 0 || lines > LOG_LINES_MAX)
            return cli_usage(USAGE_LOGS, "-n takes 1 to %d lines, not '%.40s'", LOG_LINES_MAX,
                             optarg);
    }
    if (optind + 1 < argc)
        return cli_usage(USAGE_LOGS, "one service, please, or none for all");
    return logs_show(argv[optind], (size_t)lines, follow);
}

/* For health checks of containers whose service has no HTTP. */
int cmd_alive(int argc, char **argv)
{
    if (cli_asks_help(argc, argv, USAGE_ALIVE))
        return CLI_OK;
    if (argc > 1)
        return cli_usage(USAGE_ALIVE, "'%.40s' is one word too many", argv[1]);
    return alive_check() >= 0 ? CLI_OK : cli_fail("the service's loop has not turned lately");
}
