#include "video-svc/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/log.h"

#define READ_BYTES 65536

#define CHILD_IN 3 /* numbers in the child */
#define CHILD_OUT 4
#define ARGS_MAX 64

struct child {
    loop *l;
    struct child_config cfg;
    pid_t pid;
    int pidfd, sock;
    loop_fd *on_exit, *on_data;
    records_reader *reader;
    bool killed, gone;
    int err; /* breach of the protocol */
    struct why why;
};

/* Nothing of our environment, which may hold secrets. OMP_THREAD_LIMIT: the sandbox has no threads.
 */
static char *const *child_environment(char *tessdata, size_t n)
{
    static char threads[] = "OMP_THREAD_LIMIT=1", locale[] = "LC_ALL=C.UTF-8";
    static char *env[4];
    const char *folder = getenv("TESSDATA_PREFIX");
    env[0] = threads;
    env[1] = locale;
    env[2] = NULL;
    if (folder && (size_t)snprintf(tessdata, n, "TESSDATA_PREFIX=%s", folder) < n)
        env[2] = tessdata;
    return env;
}

static char *as_arg(const char *s)
{
    union {
        const char *in;
        char *out;
    } cast = {.in = s}; /* exec does not write through it */
    return cast.out;
}

/* A descriptor above those that the child gets, so that dup2 to these numbers cannot hit it. */
static int above(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 10);
}

static int spawn(const struct child_config *cfg, int in, int out, pid_t *pid)
{
    char tessdata[4096];
    char *argv[ARGS_MAX + 6];
    size_t n = 0;
    argv[n++] = as_arg("nunchi-decode");
    for (size_t i = 0; cfg->args[i] && n < ARGS_MAX; i++)
        argv[n++] = as_arg(cfg->args[i]);
    argv[n++] = as_arg("--input-fd=3");
    argv[n++] = as_arg("--output-fd=4");
    argv[n] = NULL;
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&at);
    posix_spawn_file_actions_adddup2(&fa, in, CHILD_IN);
    posix_spawn_file_actions_adddup2(&fa, out, CHILD_OUT);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&fa, CHILD_OUT + 1);
    /* The loop blocks the signals it reads; the child is to have them as they come. */
    posix_spawnattr_setsigmask(&at, &none);
    posix_spawnattr_setsigdefault(&at, &all);
    posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int e = posix_spawn(pid, cfg->program, &fa, &at, argv,
                        child_environment(tessdata, sizeof tessdata));
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&at);
    return e == 0 ? 0 : ERR_IO;
}

/* ---- listening ---- */

/* false: nothing more will come. */
static bool read_some(child *c)
{
    char bytes[READ_BYTES];
    ssize_t n = recv(c->sock, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    if (c->err < 0 || c->killed)
        return true; /* said too much already */
    c->err = records_feed(c->reader, (slice){bytes, (size_t)n}, c->cfg.record, c->cfg.ctx, &c->why);
    if (c->err < 0)
        child_kill(c);
    return true;
}

static void stop_listening(child *c)
{
    loop_fd_del(c->l, c->on_data);
    c->on_data = NULL;
}

static void on_data(void *ctx, uint32_t events UNUSED)
{
    child *c = ctx;
    if (!read_some(c))
        stop_listening(c);
}

/* ---- the end ---- */

static int judge(child *c, int status)
{
    bool ended = records_ended(c->reader);
    if (c->err < 0)
        return c->err;
    if (ended && WIFEXITED(status))
        return 0;
    if (c->killed)
        return why_set(&c->why, ERR_CANCELLED, "file", "reading the video was stopped");
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) {
        log_error("a decoder tried to leave its sandbox and was killed");
        return why_set(&c->why, ERR_UNREADABLE, "file",
                       "the file is damaged or hostile: its decoder was stopped");
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
        return why_set(&c->why, ERR_TIMEOUT, "file",
                       "reading the video took more time of the processor than is allowed");
    if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM)) {
        log_warn("a decoder was killed by somebody else: is there memory enough?");
        return why_set(&c->why, ERR_NOMEM, "file",
                       "its decoder was killed, perhaps for lack of memory");
    }
    if (WIFSIGNALED(status)) {
        log_warn("a decoder crashed", LOG_I64("signal", WTERMSIG(status)));
        return why_set(&c->why, ERR_UNREADABLE, "file",
                       "the file is damaged: its decoder crashed (signal %d)", WTERMSIG(status));
    }
    log_warn("a decoder ended early", LOG_I64("status", WEXITSTATUS(status)));
    return why_set(&c->why, ERR_INTERNAL, "file", "the decoder ended without a result");
}

static void release(child *c)
{
    stop_listening(c);
    loop_fd_del(c->l, c->on_exit);
    close(c->sock);
    if (c->pidfd >= 0)
        close(c->pidfd);
    records_reader_free(c->reader);
    free(c);
}

static void on_exit_event(void *ctx, uint32_t events UNUSED)
{
    child *c = ctx;
    int status = 0;
    if (waitpid(c->pid, &status, WNOHANG) != c->pid)
        return;
    c->gone = true;
    /* What it said before it ended still lies in the socket; a child's child could not exist. */
    char probe;
    while (recv(c->sock, &probe, 1, MSG_DONTWAIT | MSG_PEEK) > 0 && read_some(c))
        ;
    int e = judge(c, status);
    struct child_config cfg = c->cfg;
    struct why w = c->why;
    release(c);
    cfg.end(cfg.ctx, e, &w);
}

void child_kill(child *c)
{
    c->killed = true;
    if (!c->gone)
        kill(c->pid, SIGKILL);
}

void child_free(child *c)
{
    if (!c)
        return;
    child_kill(c);
    waitpid(c->pid, NULL, 0);
    release(c);
}

int child_start(loop *l, const struct child_config *cfg, child **out, struct why *w)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return why_set(w, ERR_IO, "decoder", "no socket for the decoder: %s", strerror(errno));
    child *c = xcalloc(1, sizeof *c);
    *c = (child){.l = l, .cfg = *cfg, .sock = pair[0], .pidfd = -1, .reader = records_reader_new()};
    int in = above(cfg->input_fd), far = above(pair[1]);
    int e = in < 0 || far < 0 ? ERR_IO : spawn(cfg, in, far, &c->pid);
    if (in >= 0)
        close(in);
    if (far >= 0)
        close(far);
    close(pair[1]);
    if (e >= 0) {
        c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
        c->on_exit = c->pidfd >= 0 ? loop_fd_add(l, c->pidfd, EPOLLIN, on_exit_event, c) : NULL;
        c->on_data = loop_fd_add(l, c->sock, EPOLLIN, on_data, c);
        if (!c->on_exit || !c->on_data) {
            child_free(c);
            return why_set(w, ERR_IO, "decoder", "the decoder cannot be watched");
        }
        *out = c;
        return 0;
    }
    release(c);
    return why_set(w, ERR_INTERNAL, "decoder", "the decoder cannot be started");
}
