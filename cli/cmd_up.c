#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/fetch.h"
#include "cli/home.h"
#include "cli/http.h"
#include "cli/logs.h"
#include "cli/supervise.h"
#include "cli/term.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/thread.h"
#include "common/json/json.h"
#include "engine/engine.h"

#define DEFAULT_PORT 8642
#define DEFAULT_MODEL "smollm2"
#define READY_TIMEOUT_S 180
#define TIMEOUT_MAX_S 86400
#define THREADS_MAX 1024

static const char USAGE[] =
    "usage: nunchi up [OPTIONS]\n"
    "\n"
    "Starts Redis, the five services and as many model workers as asked for, in the background on "
    "this machine, and\n"
    "returns when a request would be answered.\n"
    "\n"
    "  --model NAME|FILE   smollm2 (default), gemma3-270m, or a GGUF file\n"
    "  --workers N         model workers (default 1)\n"
    "  --port P            HTTP port on 127.0.0.1 (default 8642; 0: any free one)\n"
    "  --keys FILE         API keys, one a line; without it no key is asked for\n"
    "  --chat-format F     auto (default: by the model's own chat template), chatml, gemma, or "
    "none\n"
    "  --backend B         cpu (default) or reference\n"
    "  --threads N         of each model worker (default: this machine's, divided by the workers)\n"
    "  --timeout S         how long to wait for readiness (default 180)\n"
    "\n"
    "State, logs and models are below NUNCHI_HOME (default: nunchi/ in your cache folder).\n";

struct up_options {
    const char *model, *chat_format, *backend;
    char *keys; /* absolute: the services do not run in this folder */
    uint64_t workers, port, threads, timeout_s;
};

static bool one_of(const char *given, const char *const words[])
{
    while (*words && strcmp(*words, given) != 0)
        words++;
    return *words != NULL;
}

static int parse(int argc, char **argv, struct up_options *o)
{
    static const struct option OPTIONS[] = {{"model", required_argument, NULL, 'm'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"port", required_argument, NULL, 'p'},
                                            {"keys", required_argument, NULL, 'k'},
                                            {"chat-format", required_argument, NULL, 'c'},
                                            {"backend", required_argument, NULL, 'b'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"timeout", required_argument, NULL, 'T'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int at = 0;
    *o = (struct up_options){
        .model = DEFAULT_MODEL, .workers = 1, .port = DEFAULT_PORT, .timeout_s = READY_TIMEOUT_S};
    for (int c; (c = getopt_long(argc, argv, "h", OPTIONS, &at)) != -1;) {
        uint64_t *number = c == 'w'   ? &o->workers
                           : c == 'p' ? &o->port
                           : c == 't' ? &o->threads
                           : c == 'T' ? &o->timeout_s
                                      : NULL;
        if (c == 'h') {
            fputs(USAGE, stdout);
            return 1;
        }
        if (number && slice_u64(slice_str(optarg), number) < 0)
            return cli_usage(USAGE, "--%s takes a number, not '%.40s'", OPTIONS[at].name, optarg);
        if (c == 'm')
            o->model = optarg;
        else if (c == 'k')
            o->keys = slice_dup(slice_str(optarg));
        else if (c == 'c')
            o->chat_format = optarg;
        else if (c == 'b')
            o->backend = optarg;
        else if (!number)
            return cli_bad_option(USAGE);
    }
    if (optind < argc)
        return cli_usage(USAGE, "'%.40s' is one word too many", argv[optind]);
    if (o->workers < 1 || o->workers > CLUSTER_WORKERS_MAX)
        return cli_usage(USAGE, "--workers takes 1 to %d", CLUSTER_WORKERS_MAX);
    if (o->port > 65535)
        return cli_usage(USAGE, "--port takes 0 to 65535");
    if (o->threads > THREADS_MAX)
        return cli_usage(USAGE, "--threads takes 0 to %d", THREADS_MAX);
    if (o->timeout_s < 1 || o->timeout_s > TIMEOUT_MAX_S)
        return cli_usage(USAGE, "--timeout takes 1 to %d", TIMEOUT_MAX_S);
    if (o->backend && !one_of(o->backend, (const char *const[]){"cpu", "reference", NULL}))
        return cli_usage(USAGE, "--backend takes cpu or reference, not '%.40s'", o->backend);
    if (o->chat_format &&
        !one_of(o->chat_format, (const char *const[]){"auto", "chatml", "gemma", "none", NULL}))
        return cli_usage(USAGE, "--chat-format takes auto, chatml, gemma or none, not '%.40s'",
                         o->chat_format);
    return 0;
}

/* A name that can be fetched is fetched; anything else is a file. */
static int find_model(const char *given, char **out, struct why *w)
{
    const struct known_model *m = known_model_find(given);
    if (m) {
        *out = known_model_path(m);
        return known_model_fetch(m, w);
    }
    char real[PATH_MAX];
    if (!realpath(given, real))
        return why_set(w, ERR_NOT_FOUND, "",
                       "no model '%s': %s. It is neither a file nor a name (nunchi model list)",
                       given, strerror(errno));
    *out = xstrdup(real);
    model_file *f = NULL;
    struct why bad;
    int e = model_file_open(real, &f, &bad);
    model_file_close(f);
    return e < 0 ? why_set(w, e, "", "%.200s: %s", given, bad.text) : 0;
}

/* A mistake in a file's name is better found here than in a service's log. */
static int find_keys(struct up_options *o, struct why *w)
{
    char real[PATH_MAX];
    if (!o->keys)
        return 0;
    if (!realpath(o->keys, real) || access(real, R_OK) < 0)
        return why_set(w, err_from_errno(errno), "", "cannot read the keys in %.200s: %s", o->keys,
                       strerror(errno));
    free(o->keys);
    o->keys = xstrdup(real);
    return 0;
}

/* A free port, or the asked one if it is free. */
static int pick_port(uint64_t wanted, int *port, struct why *w)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wanted)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t n = sizeof at;
    int bad = bind(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
              getsockname(fd, (struct sockaddr *)&at, &n) < 0;
    int e = errno;
    close(fd);
    *port = ntohs(at.sin_port);
    if (bad)
        return why_set(w, ERR_BUSY, "port",
                       "port %llu on 127.0.0.1 cannot be used: %s; choose another with --port",
                       (unsigned long long)wanted, strerror(e));
    return 0;
}

static int need_program(const char *name, char **out, struct why *w)
{
    *out = home_program(name);
    if (*out)
        return 0;
    return why_set(w, ERR_NOT_FOUND, "", "%s is not here; %s", name,
                   strcmp(name, "redis-server") == 0 ? "apt-get install redis-server"
                                                     : "build it with: make");
}

static int plan_redis(struct plan *p, struct why *w)
{
    char *program, *data;
    int e = need_program("redis-server", &program, w);
    if (e < 0)
        return e;
    e = home_make("redis/", &data, w);
    if (e >= 0) {
        struct plan_service *s = plan_add(p, "redis", program);
        plan_arg(s, "--port");
        plan_arg(s, "0");
        plan_arg(s, "--unixsocket");
        plan_arg(s, "%s/redis.sock", p->state.sockets);
        plan_arg(s, "--unixsocketperm");
        plan_arg(s, "700");
        plan_arg(s, "--dir");
        plan_arg(s, "%s", data);
        plan_arg(s, "--appendonly");
        plan_arg(s, "yes");
        plan_arg(s, "--save");
        plan_arg(s, "%s", "");
        plan_arg(s, "--maxmemory");
        plan_arg(s, "1gb");
        /* What carries no time to live (files) is never evicted. */
        plan_arg(s, "--maxmemory-policy");
        plan_arg(s, "volatile-lru");
        free(data);
    }
    free(program);
    return e;
}

static void add_bus(struct plan *p, struct plan_service *s, bool caches)
{
    plan_arg(s, "--gateways");
    plan_arg(s, "ipc://%s/gateway.sock", p->state.sockets);
    if (caches) {
        plan_arg(s, "--caches");
        plan_arg(s, "ipc://%s/cache.sock", p->state.sockets);
    }
}

static int plan_service(struct plan *p, const char *name, const char *program,
                        struct plan_service **out, struct why *w)
{
    char *path;
    int e = need_program(program, &path, w);
    if (e < 0)
        return e;
    *out = plan_add(p, name, path);
    free(path);
    return 0;
}

static int plan_cache(struct plan *p, struct why *w)
{
    struct plan_service *s;
    int e = plan_service(p, "cache", "nunchi-cache", &s, w);
    if (e < 0)
        return e;
    add_bus(p, s, false);
    plan_arg(s, "--bind");
    plan_arg(s, "ipc://%s/cache.sock", p->state.sockets);
    plan_arg(s, "--redis");
    plan_arg(s, "unix:%s/redis.sock", p->state.sockets);
    return 0;
}

static int plan_tokenizer(struct plan *p, const struct up_options *o, struct why *w)
{
    struct plan_service *s;
    int e = plan_service(p, "tokenizer", "nunchi-tokenizer", &s, w);
    if (e < 0)
        return e;
    add_bus(p, s, false);
    plan_arg(s, "--model");
    plan_arg(s, "%s", p->state.model);
    if (o->chat_format) {
        plan_arg(s, "--chat-format");
        plan_arg(s, "%s", o->chat_format);
    }
    return 0;
}

static int plan_video(struct plan *p, struct why *w)
{
    struct plan_service *s;
    char *spool;
    int e = home_make("spool/", &spool, w);
    if (e < 0)
        return e;
    e = plan_service(p, "video", "nunchi-video", &s, w);
    if (e >= 0) {
        add_bus(p, s, true);
        plan_arg(s, "--spool-dir");
        plan_arg(s, "%s", spool);
    }
    free(spool);
    return e;
}

static int plan_models(struct plan *p, const struct up_options *o, struct why *w)
{
    uint64_t threads = o->threads;
    if (threads == 0 && o->workers > 1)
        threads = (uint64_t)thread_cpus() > o->workers ? (uint64_t)thread_cpus() / o->workers : 1;
    for (uint64_t i = 0; i < o->workers; i++) {
        struct plan_service *s;
        char name[32];
        snprintf(name, sizeof name, "model-%llu", (unsigned long long)i + 1);
        int e = plan_service(p, name, "nunchi-model", &s, w);
        if (e < 0)
            return e;
        add_bus(p, s, true);
        plan_arg(s, "--model");
        plan_arg(s, "%s", p->state.model);
        plan_arg(s, "--threads");
        plan_arg(s, "%llu", (unsigned long long)threads);
        if (o->backend) {
            plan_arg(s, "--backend");
            plan_arg(s, "%s", o->backend);
        }
        if (o->chat_format) {
            plan_arg(s, "--chat-format");
            plan_arg(s, "%s", o->chat_format);
        }
    }
    return 0;
}

/* Last, so that it is the first to stop: it lets running answers end while the others still work.
 */
static int plan_gateway(struct plan *p, const struct up_options *o, struct why *w)
{
    struct plan_service *s;
    int e = plan_service(p, "gateway", "nunchi-gateway", &s, w);
    if (e < 0)
        return e;
    plan_arg(s, "--bind");
    plan_arg(s, "ipc://%s/gateway.sock", p->state.sockets);
    plan_arg(s, "--http");
    plan_arg(s, "127.0.0.1:%d", p->state.port);
    if (o->keys) {
        plan_arg(s, "--keys");
        plan_arg(s, "%s", o->keys);
    }
    return 0;
}

static int plan_all(const struct up_options *o, struct plan *p, struct why *w)
{
    int e = pick_port(o->port, &p->state.port, w);
    if (e >= 0)
        e = plan_redis(p, w);
    if (e >= 0)
        e = plan_cache(p, w);
    if (e >= 0)
        e = plan_tokenizer(p, o, w);
    if (e >= 0)
        e = plan_video(p, w);
    if (e >= 0)
        e = plan_models(p, o, w);
    if (e >= 0)
        e = plan_gateway(p, o, w);
    return e;
}

static int make_plan(const struct up_options *o, const char *model, struct plan *p, struct why *w)
{
    snprintf(p->state.model, sizeof p->state.model, "%s", model);
    snprintf(p->state.sockets, sizeof p->state.sockets, "/tmp/nunchi-XXXXXX");
    p->drain_ms = 35000;
    if (!mkdtemp(p->state.sockets))
        return why_set(w, ERR_IO, "", "cannot make a folder in /tmp: %s", strerror(errno));
    int e = plan_all(o, p, w);
    if (e < 0)
        rmdir(p->state.sockets);
    return e;
}

/* Held by the supervisor as long as it lives. */
static int take_lock(int *fd, struct why *w)
{
    char *path;
    int e = home_make("run/lock", &path, w);
    if (e < 0)
        return e;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    free(path);
    if (*fd < 0)
        return why_set(w, err_from_errno(errno), "", "cannot write below NUNCHI_HOME: %s",
                       strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    close(*fd);
    return why_set(w, ERR_EXISTS, "",
                   "a cluster runs here already (nunchi status); stop it with: nunchi down");
}

static _Noreturn void become_supervisor(struct plan *p)
{
    setsid();
    char *path;
    int fd = -1;
    if (home_make("logs/supervisor.log", &path, NULL) >= 0) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        free(path);
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(fd >= 0 ? fd : null, 1);
    dup2(fd >= 0 ? fd : null, 2);
    if (chdir("/") < 0)
        _exit(1);
    log_init("supervisor", LOG_INFO, 2);
    _exit(supervise(p));
}

/* The newest "loading" line that the first model worker wrote, as progress: first its hash is
 * taken, then it is read. */
static void show_loading(struct progress *show, off_t from)
{
    static const struct json_limits LIMITS = {
        .max_bytes = LOG_LINE_MAX, .max_depth = 4, .max_nodes = 64};
    char *path = home_path("logs/model-1.log");
    buf text = {0};
    int64_t permille = -1;
    bool hash = false;
    if (file_read(path, 16u << 20, &text, NULL) >= 0 && text.n > (size_t)from) {
        slice rest = {text.p + from, text.n - (size_t)from}, line;
        while (slice_split(&rest, '\n', &line)) {
            json_doc *d = NULL;
            if (json_doc_parse(line, &LIMITS, &d, NULL) >= 0 &&
                slice_eq_str(json_str_or(json_get(json_doc_root(d), "msg"), (slice){0}),
                             "loading") &&
                json_opt_i64(json_doc_root(d), "permille", 0, 1000, &permille, NULL) >= 0)
                hash = slice_eq_str(json_str_or(json_get(json_doc_root(d), "what"), (slice){0}),
                                    "hash");
            json_doc_free(d);
        }
    }
    progress_show(show,
                  permille < 0 ? "starting"
                  : hash       ? "checking the model"
                               : "loading the model",
                  (int)permille);
    buf_clear(&text);
    free(path);
}

static off_t log_size(const char *name)
{
    char *path = home_path(name);
    struct stat st;
    off_t n = stat(path, &st) == 0 ? st.st_size : 0;
    free(path);
    return n;
}

/* A service that keeps dying will not become ready. */
static const struct cluster_service *who_fails(const struct cluster *c)
{
    for (size_t i = 0; i < c->n_services; i++) {
        if (c->services[i].restarts >= 3)
            return &c->services[i];
    }
    return NULL;
}

static int report_failure(const struct cluster_service *s)
{
    buf text = {0};
    log_reason(s->name, &text);
    cli_fail("%s keeps ending: %s\nnunchi logs %s tells more", s->name, buf_cstr(&text), s->name);
    buf_clear(&text);
    return CLI_FAILED;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
    (void)signo;
    interrupted = 1;
}

static int wait_ready(const char *url, const struct up_options *o, pid_t supervisor, off_t log_from)
{
    struct progress show = {.last = -1};
    buf at = {0};
    buf_printf(&at, "%s/readyz", url);
    uint64_t until = clock_mono_us() + o->timeout_s * 1000000;
    int code = -1;
    struct cluster c;
    while (code < 0 && clock_mono_us() < until) {
        struct http_reply r = {0};
        if (http_get(buf_cstr(&at), 2000, &r, NULL) >= 0 && r.status == 200)
            code = CLI_OK;
        http_reply_clear(&r);
        bool known = cluster_read(&c, NULL) >= 0;
        const struct cluster_service *bad = known ? who_fails(&c) : NULL;
        if (code < 0 && bad) {
            progress_end(&show);
            code = report_failure(bad);
        } else if (code < 0 && interrupted) {
            progress_end(&show);
            code = cli_fail("interrupted; stopping what was started");
        } else if (code < 0 && waitpid(supervisor, NULL, WNOHANG) != 0) {
            code = cli_fail("the supervisor ended; see: nunchi logs supervisor");
        } else if (code < 0) {
            show_loading(&show, log_from);
            nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        }
    }
    progress_end(&show);
    buf_clear(&at);
    return code >= 0 ? code
                     : cli_fail("not ready after %llu s, stopping it again; see: nunchi logs",
                                (unsigned long long)o->timeout_s);
}

/* The supervisor may not have written down yet that it runs. */
static int give_up(struct cluster *c, pid_t supervisor)
{
    struct why w;
    c->supervisor = supervisor;
    if (cluster_stop(c, &w) < 0)
        cli_fail("%s", w.text);
    rmdir(c->sockets); /* there still if it was told before it could make use of it */
    return CLI_FAILED;
}

/* Forks the supervisor, which holds the lock from then on, and waits until its cluster can serve. */
static int launch(const struct up_options *o, struct plan *p, int lock)
{
    off_t log_from = log_size("logs/model-1.log");
    pid_t pid = fork();
    if (pid == 0)
        become_supervisor(p);
    close(lock);
    if (pid < 0)
        return cli_fail("cannot start a process: %s", strerror(errno));
    /* The supervisor is out of the terminal's reach: whoever gives up here has to stop it. */
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", p->state.port);
    int code = wait_ready(url, o, pid, log_from);
    if (code == CLI_OK)
        printf("ready: %s  (try: nunchi ask \"Hello\"; OpenAI clients: base_url=%s/v1)\n", url,
               url);
    else if (waitpid(pid, NULL, WNOHANG) == 0)
        code = give_up(&p->state, pid);
    return code;
}

int cmd_up(int argc, char **argv)
{
    struct up_options o;
    int code = parse(argc, argv, &o);
    if (code != 0)
        return code == 1 ? CLI_OK : code;
    struct why w;
    int lock = -1;
    char *model = NULL;
    struct plan *p = xcalloc(1, sizeof *p);
    if (take_lock(&lock, &w) < 0 || find_keys(&o, &w) < 0 || find_model(o.model, &model, &w) < 0 ||
        make_plan(&o, model, p, &w) < 0)
        code = cli_fail("%s", w.text); /* the lock, if taken, ends with this process */
    else
        code = launch(&o, p, lock);
    plan_clear(p);
    free(p);
    free(model);
    free(o.keys);
    return code;
}
