#include "cli/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <dirent.h>
#include <unistd.h>

#include "cli/home.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/loop.h"

/* A service that lived this long is healthy: its backoff starts anew. */
#define HEALTHY_MS 10000
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 10000

struct child {
    struct supervisor *sup;
    const struct plan_service *plan;
    struct cluster_service *state;
    uint32_t backoff_ms;
    struct loop_timer timer; /* to start again, or to kill while stopping */
};

struct supervisor {
    loop *loop;
    struct plan *plan;
    struct child children[CLUSTER_SERVICES_MAX];
    size_t n;
    bool stopping;
    size_t stop_at; /* children from here on have been told to end */
};

void plan_arg(struct plan_service *s, const char *fmt, ...)
{
    CHECK(s->n_args < PLAN_ARGS_MAX);
    va_list ap;
    va_start(ap, fmt);
    char text[1024];
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    CHECK(n >= 0 && (size_t)n < sizeof text);
    s->argv[s->n_args++] = xstrdup(text);
}

struct plan_service *plan_add(struct plan *p, const char *name, const char *program)
{
    CHECK(p->n < CLUSTER_SERVICES_MAX);
    struct plan_service *s = &p->services[p->n++];
    snprintf(s->name, sizeof s->name, "%s", name);
    plan_arg(s, "%s", program);
    return s;
}

void plan_clear(struct plan *p)
{
    for (size_t i = 0; i < p->n; i++) {
        for (size_t k = 0; k < p->services[i].n_args; k++)
            free(p->services[i].argv[k]);
    }
    p->n = 0;
}

static void save(struct supervisor *s)
{
    struct why w;
    if (cluster_write(&s->plan->state, &w) < 0)
        log_warn("state not written", LOG_STR("why", w.text));
}

static int open_log(const char *name)
{
    char file[64], *path;
    snprintf(file, sizeof file, "logs/%s.log", name);
    if (home_make(file, &path, NULL) < 0)
        return -1;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    free(path);
    return fd;
}

/* In the new process, between fork and exec: only async-signal-safe calls. */
static void become(const struct plan_service *p, int log_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(log_fd >= 0 ? log_fd : null, 1);
    dup2(log_fd >= 0 ? log_fd : null, 2);
    execv(p->argv[0], p->argv);
    _exit(127);
}

static void start(struct child *c)
{
    int log_fd = open_log(c->plan->name);
    pid_t pid = fork();
    if (pid == 0)
        become(c->plan, log_fd);
    if (log_fd >= 0)
        close(log_fd);
    c->state->pid = pid > 0 ? pid : 0;
    c->state->started_unix_ms = clock_unix_ms();
    log_info("service started", LOG_STR("service", c->plan->name), LOG_I64("pid", pid));
}

static void on_restart(void *ctx)
{
    struct child *c = ctx;
    c->state->restarts++;
    start(c);
    save(c->sup);
}

static void on_kill(void *ctx)
{
    struct child *c = ctx;
    if (c->state->pid > 0) {
        log_warn("service did not end in time", LOG_STR("service", c->plan->name));
        kill(c->state->pid, SIGKILL);
    }
}

/* Stores end after those who use them: services in the reverse of the order they were started in,
 * one by one; model workers, which are many, side by side. */
static void stop_next(struct supervisor *s)
{
    for (size_t i = s->stop_at; i < s->n; i++) {
        if (s->children[i].state->pid > 0)
            return;
    }
    while (s->stop_at > 0) {
        struct child *c = &s->children[--s->stop_at];
        if (c->state->pid <= 0)
            continue;
        kill(c->state->pid, SIGTERM);
        loop_timer_in(s->loop, &c->timer, (uint64_t)s->plan->drain_ms * 1000);
        bool many = s->stop_at > 0 &&
                    strncmp(c->plan->name, s->children[s->stop_at - 1].plan->name, 5) == 0;
        if (!many)
            return;
    }
    bool left = false;
    for (size_t i = 0; i < s->n; i++)
        left = left || s->children[i].state->pid > 0;
    if (!left)
        loop_stop(s->loop, 0);
}

static void ended(struct child *c, int status)
{
    struct supervisor *s = c->sup;
    c->state->pid = 0;
    loop_timer_cancel(s->loop, &c->timer);
    if (s->stopping) {
        stop_next(s);
        return;
    }
    uint64_t lived = clock_unix_ms() - c->state->started_unix_ms;
    bool asked = WIFEXITED(status) && WEXITSTATUS(status) == 0; /* nunchi restart */
    if (asked || lived >= HEALTHY_MS)
        c->backoff_ms = BACKOFF_FIRST_MS;
    log_warn("service ended", LOG_STR("service", c->plan->name),
             LOG_I64("code", WIFEXITED(status) ? WEXITSTATUS(status) : -1),
             LOG_I64("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0),
             LOG_U64("again_in_ms", c->backoff_ms));
    c->timer.fn = on_restart;
    loop_timer_in(s->loop, &c->timer, (uint64_t)c->backoff_ms * 1000);
    c->backoff_ms = c->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : c->backoff_ms * 2;
}

static void on_child(void *ctx, int signo)
{
    (void)signo;
    struct supervisor *s = ctx;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        for (size_t i = 0; i < s->n; i++) {
            if (s->children[i].state->pid == pid) {
                ended(&s->children[i], status);
                break;
            }
        }
    }
    save(s);
}

static void on_term(void *ctx, int signo)
{
    (void)signo;
    struct supervisor *s = ctx;
    if (s->stopping)
        return;
    s->stopping = true;
    for (size_t i = 0; i < s->n; i++) {
        loop_timer_cancel(s->loop, &s->children[i].timer);
        s->children[i].timer.fn = on_kill;
    }
    s->stop_at = s->n;
    stop_next(s);
}

static void remove_sockets(const char *folder)
{
    DIR *d = folder[0] ? opendir(folder) : NULL;
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(folder);
}

int supervise(struct plan *p)
{
    struct supervisor *s = xcalloc(1, sizeof *s);
    s->plan = p;
    s->n = p->n;
    s->loop = loop_new();
    loop_signal(s->loop, SIGCHLD, on_child, s);
    loop_signal(s->loop, SIGTERM, on_term, s);
    loop_signal(s->loop, SIGINT, on_term, s);
    p->state.supervisor = getpid();
    p->state.n_services = p->n;
    for (size_t i = 0; i < p->n; i++) {
        struct child *c = &s->children[i];
        *c = (struct child){.sup = s,
                            .plan = &p->services[i],
                            .state = &p->state.services[i],
                            .backoff_ms = BACKOFF_FIRST_MS};
        c->timer = (struct loop_timer){.fn = on_kill, .ctx = c};
        snprintf(c->state->name, sizeof c->state->name, "%s", c->plan->name);
        start(c);
    }
    save(s);
    int code = loop_run(s->loop);
    cluster_forget();
    remove_sockets(p->state.sockets);
    loop_free(s->loop);
    free(s);
    return code;
}
