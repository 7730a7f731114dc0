#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/fetch.h"
#include "cli/home.h"
#include "cli/up_plan.h"
#include "cli/up_wait.h"
#include "common/base/log.h"
#include "engine/engine.h"
#include "engine/model/name.h"

#define DEFAULT_PORT 8642
#define DEFAULT_MODEL "smollm2"
#define READY_TIMEOUT_S 180
#define TIMEOUT_MAX_S 86400

static const char USAGE[] =
    "usage: nunchi up [OPTIONS]\n"
    "\n"
    "Starts Redis (one for records, one for KV), the five services and as many model workers as "
    "asked for, in the background on "
    "this machine, and\n"
    "returns when a request would be answered.\n"
    "\n"
    "  --model NAME|FILE   smollm2 (default), gemma3-270m, one that was added, or a GGUF\n"
    "                      several times: several models, each asked for by its name\n"
    "  --workers N         model workers of each model (default 1)\n"
    "  --gateways N        gateways (default 1): each has a port of its own, P, P+1 …\n"
    "  --caches N          cache services (default 1)\n"
    "  --port P            HTTP port on 127.0.0.1 (default 8642; 0: any free one)\n"
    "  --keys FILE         API keys, one a line; without it no key is asked for\n"
    "  --chat-format F     auto (default: by the model's own chat template), chatml, gemma, or "
    "none\n"
    "  --backend B         cpu (default) or reference\n"
    "  --threads N         of each model worker (default: this machine's, divided by the workers)\n"
    "  --timeout S         how long to wait for readiness (default 180)\n"
    "\n"
    "Every other option of a service is an environment variable, as its --help says: "
    "NUNCHI_KV_TYPE=int8 nunchi up\n"
    "State, logs and models are below NUNCHI_HOME (default: nunchi/ in your cache folder).\n";

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
                                            {"gateways", required_argument, NULL, 'g'},
                                            {"caches", required_argument, NULL, 'C'},
                                            {"port", required_argument, NULL, 'p'},
                                            {"keys", required_argument, NULL, 'k'},
                                            {"chat-format", required_argument, NULL, 'c'},
                                            {"backend", required_argument, NULL, 'b'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"timeout", required_argument, NULL, 'T'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int at = 0;
    *o = (struct up_options){.workers = 1,
                             .gateways = 1,
                             .caches = 1,
                             .port = DEFAULT_PORT,
                             .timeout_s = READY_TIMEOUT_S};
    for (int c; (c = getopt_long(argc, argv, "h", OPTIONS, &at)) != -1;) {
        uint64_t *number = c == 'w'   ? &o->workers
                           : c == 'g' ? &o->gateways
                           : c == 'C' ? &o->caches
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
        if (c == 'm' && o->n_models == CLUSTER_MODELS_MAX)
            return cli_usage(USAGE, "--model can be given %d times", CLUSTER_MODELS_MAX);
        if (c == 'm')
            o->models[o->n_models++] = optarg;
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
    if (o->n_models == 0)
        o->models[o->n_models++] = DEFAULT_MODEL;
    if (o->workers < 1 || o->workers > CLUSTER_WORKERS_MAX / o->n_models)
        return cli_usage(USAGE, "--workers takes 1 to %zu", CLUSTER_WORKERS_MAX / o->n_models);
    if (o->gateways < 1 || o->gateways > CLUSTER_GATEWAYS_MAX)
        return cli_usage(USAGE, "--gateways takes 1 to %d", CLUSTER_GATEWAYS_MAX);
    if (o->caches < 1 || o->caches > CLUSTER_CACHES_MAX)
        return cli_usage(USAGE, "--caches takes 1 to %d", CLUSTER_CACHES_MAX);
    if (o->port > 65535 - CLUSTER_GATEWAYS_MAX)
        return cli_usage(USAGE, "--port takes 0 to %d", 65535 - CLUSTER_GATEWAYS_MAX);
    if (o->threads > ENGINE_THREADS_MAX)
        return cli_usage(USAGE, "--threads takes 0 to %d", ENGINE_THREADS_MAX);
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

/* A name that can be fetched is fetched; anything else was added, or is a file. */
static int find_model(const char *given, char **out, struct why *w)
{
    const struct known_model *m = known_model_find(given);
    if (m) {
        *out = known_model_path(m);
        return known_model_fetch(m, w);
    }
    char real[PATH_MAX], *path = NULL;
    int e = model_path(given, &path, w);
    if (e < 0)
        return e;
    if (!realpath(path, real))
        e = why_set(w, err_from_errno(errno), "", "%.200s: %s", given, strerror(errno));
    free(path);
    if (e < 0)
        return e;
    *out = xstrdup(real);
    model_file *f = NULL;
    struct why bad;
    e = model_file_open(real, &f, &bad);
    model_file_close(f);
    return e < 0 ? why_set(w, e, "", "%.200s: %s", given, bad.text) : 0;
}

/* The files of all models. Two of one name could not be told apart by those who ask for it. */
static int find_models(const struct up_options *o, char **files, struct why *w)
{
    buf names[CLUSTER_MODELS_MAX] = {{0}};
    int e = 0;
    for (size_t i = 0; e >= 0 && i < o->n_models; i++) {
        if ((e = find_model(o->models[i], &files[i], w)) < 0)
            break;
        model_default_name(slice_str(files[i]), &names[i]);
        for (size_t k = 0; k < i; k++)
            if (slice_eq(buf_slice(&names[i]), buf_slice(&names[k])))
                e = why_set(
                    w, ERR_INVALID, "",
                    "two models are called '%.*s'; add one under another name: nunchi model add",
                    (int)names[i].n, names[i].p);
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        buf_clear(&names[i]);
    return e;
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

/* Forks the supervisor, which holds the lock from then on, and waits until its cluster can serve.
 */
static int launch(const struct up_options *o, struct plan *p, int lock)
{
    off_t log_from = up_log_size("logs/model-1.log");
    pid_t pid = fork();
    if (pid == 0)
        become_supervisor(p);
    close(lock);
    if (pid < 0)
        return cli_fail("cannot start a process: %s", strerror(errno));
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", p->state.port);
    int code = up_wait_ready(url, o, pid, log_from);
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
    char *files[CLUSTER_MODELS_MAX] = {NULL};
    struct plan *p = xcalloc(1, sizeof *p);
    if (take_lock(&lock, &w) < 0 || find_keys(&o, &w) < 0 || find_models(&o, files, &w) < 0 ||
        up_plan(&o, files, p, &w) < 0)
        code = cli_fail("%s", w.text); /* the lock, if taken, ends with this process */
    else
        code = launch(&o, p, lock);
    plan_clear(p);
    free(p);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        free(files[i]);
    free(o.keys);
    return code;
}
