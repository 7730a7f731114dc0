#include "gateway/http.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <strings.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/list.h"
#include "common/base/listen.h"
#include "common/base/log.h"
#include "gateway/limits.h"

#define HEADERS_MAX 24 /* of an answer */
/* For clients of HTTP/1.0 alone: to others, pieces go from the connection's own buffer. Every
 * stream costs it. */
#define STREAM_BLOCK_BYTES (1u << 10)
#define LOOK_US 1000000
/* A body that nobody wants is read before the error is sent, because most clients listen only then;
 * not more than this. */
#define UNWANTED_BYTES_MAX ((size_t)4 << 30)

struct header {
    char *name, *value;
};

/* Connections beyond connections_max for the moment that it takes to close the ones given up. */
#define SPARE_CONNECTIONS 64

/* A connection, for as long as it is open. The daemon's own timeout starts again with every byte;
 * one that never gets as far as a request is found out here. */
struct conn {
    struct list link;  /* in http.conns */
    struct list quiet; /* in http.quiet while the client is to send something; else self-linked */
    int fd;
    bool busy;        /* has an exchange */
    uint64_t idle_us; /* since when it has none */
};

struct http_ex {
    struct list link;
    http *h;
    struct conn *c;
    struct MHD_Connection *conn;
    void *user;
    const char *method;
    char *path;
    char client[16];
    size_t client_len;

    loop_fd *watch; /* the connection's socket, for its hang-up */
    bool suspended, paused, in_handler;
    bool gone, told_over; /* gone: the client left, or we gave it up */
    bool last;            /* no other request is read from this connection */

    struct header headers[HEADERS_MAX];
    size_t n_headers;
    int status; /* 0: not answered yet */
    bool streaming, ended, queued_response, complete;
    char type[64];
    buf out; /* what is to be sent; from `sent` on */
    size_t sent;
    bool was_full;
    size_t unwanted; /* bytes that came after an early answer */
};

struct http {
    loop *l;
    struct http_config cfg;
    struct MHD_Daemon *d;
    int fd, epoll_fd;
    loop_fd *watch;
    void *prepare;
    struct loop_timer timer;
    struct list open;
    size_t n_open;
    struct list conns;
    struct list quiet; /* struct conn.quiet: who sent something last stands last */
    size_t n_conns;
    struct loop_timer look;
    bool kick; /* the daemon has something to do */
};

/* ---- suspension: the daemon forgets a connection until it is resumed ---- */

static void suspend(http_ex *x)
{
    if (!x->suspended) {
        MHD_suspend_connection(x->conn);
        x->suspended = true;
    }
}

static void resume(http_ex *x)
{
    if (x->suspended) {
        x->suspended = false;
        MHD_resume_connection(x->conn);
        x->h->kick = true;
    }
}

static void tell_over(http_ex *x, bool gone)
{
    if (x->told_over)
        return;
    x->told_over = true;
    x->h->cfg.over(x->h->cfg.ctx, x, gone);
}

/* The daemon does not look at suspended connections: their end is seen here. The exchange is over
 * at once; the daemon hears of it when it is resumed. */
static void on_socket(void *ctx, uint32_t events)
{
    http_ex *x = ctx;
    if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) || x->gone)
        return;
    x->gone = true;
    tell_over(x, !x->complete);
    resume(x);
}

/* ---- who is given up when there are too many connections ---- */

/* Its client is to send something: from now on it is the youngest of these. */
static void conn_listens(http *h, struct conn *c)
{
    if (!c)
        return;
    list_remove(&c->quiet);
    list_append(&h->quiet, &c->quiet);
}

/* It is our turn: it is not given up. */
static void conn_works(struct conn *c)
{
    if (c)
        list_remove(&c->quiet);
}

/* Whoever opens connections and says nothing, or dribbles, must not keep out those who speak: the
 * one that has been silent longest gives way. */
static void make_room(http *h)
{
    if (h->n_conns <= h->cfg.connections_max || list_empty(&h->quiet))
        return;
    struct conn *c = CONTAINER_OF(list_pop(&h->quiet), struct conn, quiet);
    shutdown(c->fd, SHUT_RDWR);
    h->kick = true;
}

/* ---- an exchange ---- */

static void take_client(http_ex *x)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(x->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (!i || !i->client_addr)
        return;
    if (i->client_addr->sa_family == AF_INET) {
        const struct sockaddr_in *a = (const void *)i->client_addr;
        x->client_len = sizeof a->sin_addr;
        memcpy(x->client, &a->sin_addr, x->client_len);
    } else if (i->client_addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const void *)i->client_addr;
        x->client_len = sizeof a->sin6_addr;
        memcpy(x->client, &a->sin6_addr, x->client_len);
    }
}

static http_ex *ex_new(http *h, struct MHD_Connection *c, const char *url, const char *method)
{
    http_ex *x = xcalloc(1, sizeof *x);
    x->h = h;
    x->conn = c;
    x->method = method;
    x->path = xstrdup(url);
    take_client(x);
    const union MHD_ConnectionInfo *own =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    x->c = own ? own->socket_context : NULL;
    if (x->c)
        x->c->busy = true;
    list_append(&h->open, &x->link);
    h->n_open++;
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (i)
        x->watch = loop_fd_add(h->l, i->connect_fd, EPOLLRDHUP | EPOLLET, on_socket, x);
    return x;
}

static void ex_free(http_ex *x)
{
    if (x->c) {
        x->c->busy = false;
        x->c->idle_us = loop_now_us(x->h->l);
        conn_listens(x->h, x->c);
    }
    loop_fd_del(x->h->l, x->watch);
    for (size_t i = 0; i < x->n_headers; i++) {
        free(x->headers[i].name);
        free(x->headers[i].value);
    }
    list_remove(&x->link);
    x->h->n_open--;
    free(x->path);
    buf_clear(&x->out);
    free(x);
}

/* ---- answering ---- */

static ssize_t read_stream(void *cls, uint64_t pos UNUSED, char *to, size_t max)
{
    http_ex *x = cls;
    size_t n = x->out.n - x->sent;
    if (x->gone)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (n == 0) {
        if (x->ended) {
            x->complete = true;
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        suspend(x);
        return 0;
    }
    if (n > max)
        n = max;
    memcpy(to, x->out.p + x->sent, n);
    x->sent += n;
    if (x->sent == x->out.n) {
        buf_reset(&x->out);
        x->sent = 0;
    } else if (x->sent >= HTTP_QUEUE_LOW_BYTES) {
        buf_drop_front(&x->out, x->sent);
        x->sent = 0;
    }
    if (x->was_full && http_queued(x) < HTTP_QUEUE_LOW_BYTES) {
        x->was_full = false;
        x->h->cfg.drained(x->h->cfg.ctx, x);
    }
    return (ssize_t)n;
}

static struct MHD_Response *make_response(http_ex *x)
{
    if (x->streaming)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream,
                                                 x, NULL);
    x->complete = true;
    return MHD_create_response_from_buffer(x->out.n, x->out.n ? x->out.p : x->type,
                                           MHD_RESPMEM_MUST_COPY);
}

static enum MHD_Result queue_response(http_ex *x)
{
    struct MHD_Response *r = make_response(x);
    if (!r)
        return MHD_NO;
    if (x->type[0])
        MHD_add_response_header(r, "Content-Type", x->type);
    for (size_t i = 0; i < x->n_headers; i++)
        MHD_add_response_header(r, x->headers[i].name, x->headers[i].value);
    if (x->last)
        MHD_add_response_header(r, "Connection", "close");
    enum MHD_Result ok = MHD_queue_response(x->conn, (unsigned)x->status, r);
    MHD_destroy_response(r);
    x->queued_response = ok == MHD_YES;
    return ok;
}

/* ---- the daemon's callbacks ---- */

static enum MHD_Result after_call(http_ex *x, bool may_wait)
{
    if (x->gone)
        return MHD_NO;
    if (x->status && !x->queued_response)
        return queue_response(x);
    if (!x->status && (x->paused || may_wait))
        suspend(x);
    return MHD_YES;
}

struct head {
    size_t bytes;
    unsigned n_framing; /* headers that say where the body ends */
    bool strange;       /* one of them says it in a way that is not ours */
};

static enum MHD_Result look_at_header(void *cls, enum MHD_ValueKind kind UNUSED, const char *name,
                                      const char *value)
{
    struct head *head = cls;
    head->bytes += strlen(name) + (value ? strlen(value) : 0) + 4;
    if (strcasecmp(name, "Content-Length") == 0)
        head->n_framing++;
    if (strcasecmp(name, "Transfer-Encoding") == 0) {
        head->n_framing++;
        head->strange |= !value || strcasecmp(value, "chunked") != 0;
    }
    return MHD_YES;
}

#define HEAD_ERROR(text)                                                                           \
    SLICE_LIT("{\"error\":{\"message\":\"" text                                                    \
              "\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}")

static void refuse_headers(http_ex *x)
{
    http_respond(x, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, "application/json",
                 HEAD_ERROR("the headers are too large"));
}

/* A proxy in front might see another end of this body, and take what follows for another client's
 * request: nothing more is read here. */
static enum MHD_Result refuse_framing(http_ex *x)
{
    x->last = true;
    if (!x->status)
        http_respond(x, MHD_HTTP_BAD_REQUEST, "application/json",
                     HEAD_ERROR("one Content-Length or 'Transfer-Encoding: chunked', not more"));
    return after_call(x, false);
}

/* An answer before the body costs the connection. It is given to clients that ask before they send,
 * and where the body is beyond all measure; the others hear of it when they have sent everything.
 */
static bool answer_at_once(const http_ex *x)
{
    uint64_t n = 0;
    return http_header(x, "Expect").n || (http_length(x, &n) && n > UNWANTED_BYTES_MAX);
}

static enum MHD_Result begin(http_ex *x)
{
    struct head head = {.bytes = strlen(x->path)};
    MHD_get_connection_values(x->conn, MHD_HEADER_KIND, look_at_header, &head);
    x->h->cfg.begin(x->h->cfg.ctx, x);
    if (head.n_framing > 1 || head.strange)
        return refuse_framing(x);
    if (head.bytes > HEADERS_BYTES_MAX && !x->status)
        refuse_headers(x);
    if (x->status && !answer_at_once(x))
        return MHD_YES;
    return after_call(x, false);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version UNUSED, const char *data,
                                  size_t *size, void **con_cls)
{
    http *h = cls;
    http_ex *x = *con_cls;
    if (!x) {
        *con_cls = x = ex_new(h, c, url, method);
        return begin(x);
    }
    if (x->gone)
        return MHD_NO;
    if (*size) {
        if (x->paused) {
            suspend(x);
            return MHD_YES;
        }
        size_t n = *size;
        *size = 0;
        conn_listens(h, x->c);
        if (!x->status) /* what comes after an early answer is not wanted */
            h->cfg.body(h->cfg.ctx, x, (slice){data, n});
        if (x->status) { /* answered when the body has been read; one that does not end is cut off
                          */
            x->unwanted += n;
            return x->unwanted > UNWANTED_BYTES_MAX ? MHD_NO : MHD_YES;
        }
        return after_call(x, false);
    }
    conn_works(x->c);
    if (!x->status && !x->in_handler) {
        x->in_handler = true; /* once */
        h->cfg.end(h->cfg.ctx, x);
    }
    return after_call(x, true);
}

static void on_completed(void *cls UNUSED, struct MHD_Connection *c UNUSED, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    http_ex *x = *con_cls;
    if (!x)
        return;
    *con_cls = NULL;
    tell_over(x, code != MHD_REQUEST_TERMINATED_COMPLETED_OK || !x->complete);
    ex_free(x);
}

static void on_connection(void *cls, struct MHD_Connection *mc, void **ctx,
                          enum MHD_ConnectionNotificationCode code)
{
    http *h = cls;
    struct conn *c = *ctx;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *i =
            MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD);
        *ctx = c = xcalloc(1, sizeof *c);
        c->fd = i ? i->connect_fd : -1;
        c->idle_us = loop_now_us(h->l);
        list_append(&h->conns, &c->link);
        list_init(&c->quiet);
        conn_listens(h, c);
        h->n_conns++;
        make_room(h);
    } else if (c) {
        *ctx = NULL;
        list_remove(&c->link);
        list_remove(&c->quiet);
        h->n_conns--;
        free(c);
    }
}

/* Who sends a request's head byte by byte would otherwise hold a connection for ever. */
static void on_look(void *ctx)
{
    http *h = ctx;
    uint64_t now = loop_now_us(h->l), most = (uint64_t)h->cfg.idle_ms * 1000;
    loop_timer_in(h->l, &h->look, LOOK_US);
    LIST_EACH(it, &h->conns)
    {
        struct conn *c = CONTAINER_OF(it, struct conn, link);
        if (!c->busy && c->fd >= 0 && now - c->idle_us > most)
            shutdown(c->fd, SHUT_RDWR);
    }
}

/* The daemon keeps every argument of a query in the connection's pool, and when that is full, its
 * answer is lost and the connection hangs. It asks here before it takes them apart; the answer goes
 * out by hand, as all earlier ones on this connection are gone by now. */
static void *on_uri(void *cls UNUSED, const char *uri, struct MHD_Connection *c)
{
    static const char TEXT[] = "HTTP/1.1 414 URI Too Long\r\nConnection: close\r\n"
                               "Content-Length: 0\r\n\r\n";
    size_t n = 0;
    for (const char *p = strchr(uri, '?'); p; p = strchr(p + 1, '&'))
        n++;
    const union MHD_ConnectionInfo *i =
        n > QUERY_ARGS_MAX ? MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD) : NULL;
    if (i) {
        if (send(i->connect_fd, TEXT, sizeof TEXT - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            log_debug("a refusal was not sent");
        shutdown(i->connect_fd, SHUT_RDWR);
    }
    return NULL;
}

static PRINTF_LIKE(2, 0) void on_log(void *cls UNUSED, const char *fmt, va_list args)
{
    char line[256];
    vsnprintf(line, sizeof line, fmt, args);
    line[strcspn(line, "\r\n")] = 0;
    log_debug("http", LOG_STR("text", line));
}

/* ---- the loop's side ---- */

static void run(http *h)
{
    h->kick = false;
    MHD_run(h->d);
}

static void on_epoll(void *ctx, uint32_t events UNUSED)
{
    run(ctx);
}

static void on_timer(void *ctx)
{
    run(ctx);
}

/* The daemon is edge-triggered inside: when it says "now", bytes wait that no event will announce.
 */
static bool prepare(void *ctx)
{
    http *h = ctx;
    MHD_UNSIGNED_LONG_LONG ms;
    if (h->kick)
        run(h);
    if (MHD_get_timeout(h->d, &ms) != MHD_YES) {
        loop_timer_cancel(h->l, &h->timer);
        return h->kick;
    }
    if (ms == 0)
        h->kick = true;
    else
        loop_timer_in(h->l, &h->timer, (uint64_t)ms * 1000);
    return h->kick;
}

/* ---- listening ---- */

static struct MHD_Daemon *start(http *h)
{
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, h,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, /* first, so that it hears of all others */
        MHD_OPTION_LISTEN_SOCKET, h->fd, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HTTP_POOL_BYTES, MHD_OPTION_CONNECTION_LIMIT,
        h->cfg.connections_max + SPARE_CONNECTIONS, MHD_OPTION_URI_LOG_CALLBACK, on_uri, h,
        MHD_OPTION_CONNECTION_TIMEOUT, (h->cfg.idle_ms + 999) / 1000, MHD_OPTION_END);
}

int http_new(loop *l, const struct http_config *cfg, http **out, struct why *w)
{
    http *h = xcalloc(1, sizeof *h);
    h->l = l;
    h->cfg = *cfg;
    list_init(&h->open);
    list_init(&h->conns);
    list_init(&h->quiet);
    *out = NULL;
    int e = listen_tcp(cfg->endpoint, "http", &h->fd, w);
    if (e < 0) {
        free(h);
        return e;
    }
    h->d = start(h);
    const union MHD_DaemonInfo *i =
        h->d ? MHD_get_daemon_info(h->d, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!i) {
        close(h->fd);
        free(h);
        return why_set(w, ERR_IO, "http", "the HTTP server does not start");
    }
    h->epoll_fd = i->epoll_fd;
    h->watch = loop_fd_add(l, h->epoll_fd, EPOLLIN, on_epoll, h);
    h->timer = (struct loop_timer){.fn = on_timer, .ctx = h};
    h->look = (struct loop_timer){.fn = on_look, .ctx = h};
    loop_timer_in(l, &h->look, LOOK_US);
    h->prepare = loop_prepare_add(l, prepare, h);
    *out = h;
    return 0;
}

void http_quiesce(http *h)
{
    int fd = MHD_quiesce_daemon(h->d);
    if (fd >= 0)
        close(fd);
    h->fd = -1;
}

void http_free(http *h)
{
    if (!h)
        return;
    LIST_EACH(it, &h->open)
    { /* the daemon may not be stopped while connections are suspended */
        http_ex *x = CONTAINER_OF(it, http_ex, link);
        x->gone = true;
        tell_over(x, true);
        resume(x);
    }
    MHD_run(h->d);
    loop_prepare_del(h->l, h->prepare);
    loop_timer_cancel(h->l, &h->timer);
    loop_timer_cancel(h->l, &h->look);
    loop_fd_del(h->l, h->watch);
    MHD_stop_daemon(h->d); /* closes the listening socket */
    free(h);
}

unsigned http_port(const http *h)
{
    return listen_port(h->fd);
}

size_t http_n_open(const http *h)
{
    return h->n_open;
}

/* ---- reading the request ---- */

slice http_method(const http_ex *x)
{
    return slice_str(x->method);
}

slice http_path(const http_ex *x)
{
    return slice_str(x->path);
}

struct lines {
    const char *name;
    buf *out;
};

static enum MHD_Result add_line(void *ctx, enum MHD_ValueKind kind UNUSED, const char *name,
                                const char *value)
{
    struct lines *l = ctx;
    if (strcasecmp(name, l->name) == 0 && value) {
        buf_put_str(l->out, l->out->n ? "," : "");
        buf_put_str(l->out, value);
    }
    return MHD_YES;
}

void http_header_lines(const http_ex *x, const char *name, buf *out)
{
    struct lines l = {name, out};
    MHD_get_connection_values(x->conn, MHD_HEADER_KIND, add_line, &l);
}

slice http_header(const http_ex *x, const char *name)
{
    return slice_str(MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, name));
}

slice http_query(const http_ex *x, const char *name)
{
    return slice_str(MHD_lookup_connection_value(x->conn, MHD_GET_ARGUMENT_KIND, name));
}

bool http_length(const http_ex *x, uint64_t *out)
{
    return slice_u64(http_header(x, "Content-Length"), out) == 0;
}

slice http_client(const http_ex *x)
{
    return (slice){x->client, x->client_len};
}

void http_set(http_ex *x, void *user)
{
    x->user = user;
}

void *http_get(const http_ex *x)
{
    return x->user;
}

void http_pause(http_ex *x)
{
    x->paused = true;
    conn_works(x->c);
}

void http_unpause(http_ex *x)
{
    if (!x->paused)
        return;
    x->paused = false;
    if (!x->in_handler)
        conn_listens(x->h, x->c);
    resume(x);
}

/* ---- writing the answer ---- */

static char *printable(slice v)
{
    char *s = slice_dup(v);
    size_t n = 0;
    for (size_t i = 0; i < v.n; i++)
        if ((unsigned char)v.p[i] >= 0x20 && v.p[i] != 0x7f)
            s[n++] = v.p[i];
    s[n] = 0;
    return s;
}

void http_add_header(http_ex *x, const char *name, slice value)
{
    CHECK(x->status == 0 && x->n_headers < HEADERS_MAX);
    x->headers[x->n_headers++] = (struct header){xstrdup(name), printable(value)};
}

static void answer(http_ex *x, int status, const char *type)
{
    CHECK(x->status == 0);
    x->status = status;
    x->paused = false;
    snprintf(x->type, sizeof x->type, "%s", type);
    resume(x);
}

void http_respond(http_ex *x, int status, const char *content_type, slice body)
{
    if (x->told_over)
        return;
    if (body.n)
        buf_put_slice(&x->out, body);
    answer(x, status, content_type);
}

void http_stream_begin(http_ex *x, int status, const char *content_type)
{
    x->streaming = true;
    answer(x, status, content_type);
}

void http_stream_write(http_ex *x, slice bytes)
{
    if (x->told_over || bytes.n == 0)
        return;
    buf_put_slice(&x->out, bytes);
    resume(x);
}

void http_stream_end(http_ex *x)
{
    x->ended = true;
    resume(x);
}

void http_abort(http_ex *x)
{
    x->gone = true;
    resume(x);
}

bool http_answered(const http_ex *x)
{
    return x->status != 0;
}

size_t http_queued(const http_ex *x)
{
    return x->out.n - x->sent;
}

bool http_full(http_ex *x)
{
    if (http_queued(x) < HTTP_QUEUE_HIGH_BYTES)
        return false;
    x->was_full = true;
    return true;
}
