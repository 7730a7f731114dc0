#include "common/base/monitor.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/listen.h"
#include "common/base/log.h"
#include "common/base/metrics.h"
#include "common/base/process.h"

#define FULL_WAIT_MS 100 /* no descriptor left: the listener is asked again after so long */

struct watcher {
    monitor *m;
    int fd; /* -1: not in use */
    loop_fd *watch;
    struct loop_timer limit;
    char head[MONITOR_HEAD_MAX];
    size_t n;
    buf answer;
    size_t sent;
};

struct monitor {
    loop *l;
    struct monitor_config cfg;
    int fd;
    loop_fd *watch;
    struct loop_timer again;
    struct watcher *open[MONITOR_CONNECTIONS_MAX];
};

static void hang_up(struct watcher *c)
{
    monitor *m = c->m;
    for (size_t i = 0; i < MONITOR_CONNECTIONS_MAX; i++)
        if (m->open[i] == c)
            m->open[i] = NULL;
    loop_timer_cancel(m->l, &c->limit);
    loop_fd_del(m->l, c->watch);
    close(c->fd);
    buf_clear(&c->answer);
    free(c);
    loop_fd_set(m->l, m->watch, EPOLLIN);
}

static void on_limit(void *ctx)
{
    hang_up(ctx);
}

/* ---- the answer ---- */

static void respond(struct watcher *c, int status, const char *reason, const char *type, slice body)
{
    buf_printf(
        &c->answer,
        "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
        status, reason, type, body.n);
    buf_put_slice(&c->answer, body);
}

static void respond_text(struct watcher *c, int status, const char *reason, const char *text)
{
    respond(c, status, reason, "text/plain; charset=utf-8", slice_str(text));
}

static void respond_metrics(struct watcher *c)
{
    buf text = {0};
    process_metrics();
    if (c->m->cfg.collect)
        c->m->cfg.collect(c->m->cfg.ctx);
    metrics_render(&text);
    respond(c, 200, "OK", "text/plain; version=0.0.4; charset=utf-8", buf_slice(&text));
    buf_clear(&text);
}

/* The first word of a line up to a space; what follows is left in *line. */
static slice word(slice *line)
{
    const char *end = memchr(line->p, ' ', line->n);
    slice first = {line->p, end ? (size_t)(end - line->p) : line->n};
    size_t skip = first.n < line->n ? first.n + 1 : first.n;
    *line = (slice){line->p + skip, line->n - skip};
    return first;
}

static void answer(struct watcher *c, slice line)
{
    slice method = word(&line), target = word(&line);
    const char *query = memchr(target.p, '?', target.n);
    if (query)
        target.n = (size_t)(query - target.p);
    bool ready = slice_eq_str(target, "/readyz") && c->m->cfg.ready(c->m->cfg.ctx);
    if (!slice_eq_str(method, "GET"))
        respond_text(c, 405, "Method Not Allowed", "only GET\n");
    else if (slice_eq_str(target, "/metrics"))
        respond_metrics(c);
    else if (slice_eq_str(target, "/healthz") || ready)
        respond_text(c, 200, "OK", "ok\n");
    else if (slice_eq_str(target, "/readyz"))
        respond_text(c, 503, "Service Unavailable", "not ready\n");
    else
        respond_text(c, 404, "Not Found", "there are /metrics, /healthz and /readyz\n");
}

/* ---- a connection ---- */

static void on_writable(struct watcher *c)
{
    while (c->sent < c->answer.n) {
        ssize_t n = send(c->fd, c->answer.p + c->sent, c->answer.n - c->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            hang_up(c);
            return;
        }
        c->sent += (size_t)n;
    }
    shutdown(c->fd,
             SHUT_WR); /* the other side ends it: closing now could cut off what it has not read */
    loop_fd_set(c->m->l, c->watch, EPOLLIN);
}

/* True: the head is whole, and c->answer is what to say. */
static bool head_is_here(struct watcher *c)
{
    const char *line = memchr(c->head, '\n', c->n);
    if (memmem(c->head, c->n, "\r\n\r\n", 4) || memmem(c->head, c->n, "\n\n", 2))
        answer(c, slice_trim((slice){c->head, (size_t)(line - c->head)}));
    else if (c->n == sizeof c->head)
        respond_text(c, 431, "Request Header Fields Too Large", "the head is too long\n");
    return c->answer.n > 0;
}

static void on_readable(struct watcher *c)
{
    char rest[1024];
    bool answered = c->answer.n > 0; /* then its bytes are only waited out */
    ssize_t n = answered ? recv(c->fd, rest, sizeof rest, 0)
                         : recv(c->fd, c->head + c->n, sizeof c->head - c->n, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        hang_up(c);
        return;
    }
    if (answered)
        return;
    c->n += (size_t)n;
    if (head_is_here(c)) {
        loop_fd_set(c->m->l, c->watch, EPOLLOUT);
        on_writable(c);
    }
}

static void on_watcher(void *ctx, uint32_t events)
{
    struct watcher *c = ctx;
    if (events & EPOLLOUT)
        on_writable(c);
    else
        on_readable(c);
}

/* ---- listening ---- */

static struct watcher **free_place(monitor *m)
{
    for (size_t i = 0; i < MONITOR_CONNECTIONS_MAX; i++)
        if (!m->open[i])
            return &m->open[i];
    return NULL;
}

static void on_again(void *ctx)
{
    monitor *m = ctx;
    loop_fd_set(m->l, m->watch, EPOLLIN);
}

static void on_listener(void *ctx, uint32_t events UNUSED)
{
    monitor *m = ctx;
    struct watcher **place = free_place(m);
    if (!place) { /* the next one waits in the kernel until another has gone */
        loop_fd_set(m->l, m->watch, 0);
        return;
    }
    int fd = accept4(m->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) {
            loop_fd_set(m->l, m->watch, 0);
            loop_timer_in(m->l, &m->again, FULL_WAIT_MS * 1000);
        }
        return;
    }
    struct watcher *c = xcalloc(1, sizeof *c);
    *place = c;
    c->m = m;
    c->fd = fd;
    c->limit = (struct loop_timer){.fn = on_limit, .ctx = c};
    uint64_t limit_ms = m->cfg.limit_ms ? m->cfg.limit_ms : MONITOR_MS;
    loop_timer_in(m->l, &c->limit, limit_ms * 1000);
    c->watch = loop_fd_add(m->l, fd, EPOLLIN, on_watcher, c);
    if (!c->watch)
        hang_up(c);
}

int monitor_new(loop *l, const struct monitor_config *cfg, monitor **out, struct why *w)
{
    int fd;
    *out = NULL;
    if (!cfg->address || !*cfg->address)
        return 0;
    int e = listen_tcp(cfg->address, "metrics", &fd, w);
    if (e < 0)
        return e;
    monitor *m = xcalloc(1, sizeof *m);
    m->l = l;
    m->cfg = *cfg;
    m->fd = fd;
    m->again = (struct loop_timer){.fn = on_again, .ctx = m};
    m->watch = loop_fd_add(l, fd, EPOLLIN, on_listener, m);
    log_info("metrics", LOG_STR("address", cfg->address), LOG_U64("port", listen_port(fd)));
    *out = m;
    return 0;
}

uint16_t monitor_port(const monitor *m)
{
    return listen_port(m->fd);
}

void monitor_free(monitor *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < MONITOR_CONNECTIONS_MAX; i++)
        if (m->open[i])
            hang_up(m->open[i]);
    loop_timer_cancel(m->l, &m->again);
    loop_fd_del(m->l, m->watch);
    close(m->fd);
    free(m);
}
