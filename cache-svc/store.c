#include "cache-svc/store.h"

#include <errno.h>
#include <fcntl.h>
#include <hiredis/async.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cache-svc/store_objects.h"
#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/wire/resolve.h"

#define WAITING_MAX 4096                     /* commands on one connection */
#define WAITING_BYTES_MAX ((size_t)64 << 20) /* of their arguments */
#define ARGS_MAX 128
#define LIST_MAX 100000 /* a longer answer is not one of ours */
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 2000
#define RESOLVE_POLL_US 10000
#define PASSWORD_MAX 512
#define READ_BYTES (1u << 20) /* at once: a value or several */
#define PATIENCE 10           /* times the timeout, for one command whose answer keeps coming */

struct waiting {
    struct list link;  /* in the order of sending, which is the order of deadlines and of answers */
    struct conn *conn; /* NULL: its connection is gone, the callback was made */
    uint64_t sent_us;
    size_t bytes;
    store_fn fn;
    void *ctx;
};

struct conn {
    store *s;
    redisAsyncContext *ac;
    loop_fd *fd;
    uint32_t events;
    bool up, closing;
    struct list waiting;
    size_t n_waiting, waiting_bytes;
    uint64_t heard_us; /* when bytes last came */
    uint32_t backoff_ms;
    struct loop_timer deadline, retry;
};

struct store {
    loop *l;
    bool free_me;
    char *address, *loss; /* as configured, for the log */
    char *unix_path;      /* NULL: tcp */
    struct target target;
    resolve *looking;
    char password[PASSWORD_MAX + 1];
    uint64_t timeout_us;
    bool said_down, was_up;
    struct loop_timer resolve_timer;
    char host[64];
    int port;
    struct conn conns[STORE_LINES];
};

static void conn_open(struct conn *c);
static void conn_close(struct conn *c, const char *why);

/* ---- one warning, one recovery
 * -------------------------------------------------------------------------------------- */

bool store_up(const store *s)
{
    for (int i = 0; i < STORE_LINES; i++)
        if (!s->conns[i].up)
            return false;
    return true;
}

static void note_state(store *s, const char *why)
{
    if (store_up(s)) {
        if (s->said_down || !s->was_up)
            log_info(s->said_down ? "the store is back" : "the store is there",
                     LOG_STR("store", s->address));
        s->said_down = false;
        s->was_up = true;
    } else if (why && !s->said_down) {
        log_warn("the store is away", LOG_STR("store", s->address), LOG_STR("why", why),
                 LOG_STR("loss", s->loss));
        s->said_down = true;
    }
}

/* ---- hiredis on the loop: five hooks
 * ---------------------------------------------------------------------------------- */

static void set_events(struct conn *c, uint32_t events)
{
    c->events = events;
    if (c->fd)
        loop_fd_set(c->s->l, c->fd, events);
}

static void add_read(void *p)
{
    struct conn *c = p;
    set_events(c, c->events | EPOLLIN);
}
static void del_read(void *p)
{
    struct conn *c = p;
    set_events(c, c->events & ~(uint32_t)EPOLLIN);
}
static void add_write(void *p)
{
    struct conn *c = p;
    set_events(c, c->events | EPOLLOUT);
}
static void del_write(void *p)
{
    struct conn *c = p;
    set_events(c, c->events & ~(uint32_t)EPOLLOUT);
}
static void cleanup(void *p)
{
    struct conn *c = p;
    loop_fd_del(c->s->l, c->fd);
    c->fd = NULL;
}

static void read_some(struct conn *c)
{
    c->heard_us = clock_mono_us();
    if (c->ac->c.flags & REDIS_CONNECTED)
        store_objects_read(c->ac->c.reader, c->ac->c.fd, READ_BYTES);
    redisAsyncHandleRead(c->ac); /* takes what is left, and says what is whole */
}

static void on_fd(void *ctx, uint32_t events)
{
    struct conn *c = ctx;
    bool failed = (events & (EPOLLERR | EPOLLHUP)) != 0;
    if (c->ac && ((events & EPOLLIN) || (failed && (c->events & EPOLLIN))))
        read_some(c);
    if (c->ac && ((events & EPOLLOUT) || (failed && (c->events & EPOLLOUT))))
        redisAsyncHandleWrite(c->ac);
}

/* ---- commands that wait
 * --------------------------------------------------------------------------------------------------
 */

/* Silence ends it, not slowness: while a megabyte is coming, time is given. Not for ever, though.
 */
static uint64_t due_us(const struct conn *c, const struct waiting *first)
{
    uint64_t timeout = c->s->timeout_us;
    uint64_t soft = (c->heard_us > first->sent_us ? c->heard_us : first->sent_us) + timeout;
    uint64_t hard = first->sent_us + timeout * PATIENCE;
    return soft < hard ? soft : hard;
}

static void set_deadline(struct conn *c)
{
    struct list *first = list_first(&c->waiting);
    if (first)
        loop_timer_set(c->s->l, &c->deadline, due_us(c, CONTAINER_OF(first, struct waiting, link)));
    else
        loop_timer_cancel(c->s->l, &c->deadline);
}

static void settle(struct waiting *w, const struct store_reply *r)
{
    struct conn *c = w->conn;
    list_remove(&w->link);
    c->n_waiting--;
    c->waiting_bytes -= w->bytes;
    store_fn fn = w->fn;
    void *ctx = w->ctx;
    free(w);
    fn(ctx, r);
}

/* Errors that speak of the server's state rather than of this command. */
static int error_of(const char *text)
{
    static const char *const away[] = {"OOM",  "LOADING", "READONLY", "MISCONF",
                                       "BUSY", "NOAUTH",  "NOPERM",   "MASTERDOWN"};
    for (size_t i = 0; i < ARRAY_LEN(away); i++)
        if (strncmp(text, away[i], strlen(away[i])) == 0)
            return ERR_UNAVAILABLE;
    return ERR_INVALID;
}

static int read_list(const redisReply *from, slice **out)
{
    if (from->elements > LIST_MAX)
        return ERR_TOO_BIG;
    *out = xcalloc(from->elements + 1, sizeof **out);
    for (size_t i = 0; i < from->elements; i++) {
        const redisReply *e = from->element[i];
        if (e->type == REDIS_REPLY_STRING || e->type == REDIS_REPLY_STATUS)
            (*out)[i] = (slice){e->str, e->len};
        else if (e->type != REDIS_REPLY_NIL)
            return ERR_INVALID;
    }
    return 0;
}

static void on_reply(redisAsyncContext *ac UNUSED, void *reply, void *privdata)
{
    struct waiting *w = privdata;
    redisReply *from = reply;
    struct store_reply r = {.err = from ? 0 : ERR_UNAVAILABLE};
    slice *list = NULL;
    if (from)
        switch (from->type) {
        case REDIS_REPLY_NIL:
            r.nil = true;
            break;
        case REDIS_REPLY_INTEGER:
            r.number = from->integer;
            break;
        case REDIS_REPLY_STATUS:
            r.bytes = (slice){from->str, from->len};
            break;
        case REDIS_REPLY_STRING:
            r.bytes = (slice){from->str, from->len};
            r.value = CONTAINER_OF(from, struct store_object, r)->value;
            break;
        case REDIS_REPLY_ARRAY:
            r.err = read_list(from, &list);
            r.list = list;
            r.n = from->elements;
            break;
        default:
            r.err = error_of(from->str ? from->str : "");
            log_debug("the store refused a command", LOG_STR("why", from->str));
        }
    struct conn *c = w->conn;
    bool replica = from && from->type == REDIS_REPLY_ERROR && from->str &&
                   strncmp(from->str, "READONLY", 8) == 0;
    settle(w, &r);
    set_deadline(c);
    free(list);
    if (replica &&
        c->up) /* another one is the master now: perhaps at another address of its name */
        conn_close(c, "it has become a replica");
}

static int enqueue(struct conn *c, const slice *argv, size_t n, store_fn fn, void *ctx)
{
    const char *args[ARGS_MAX];
    size_t lens[ARGS_MAX], bytes = 0;
    CHECK(n > 0 && n <= ARGS_MAX);
    for (size_t i = 0; i < n; i++) {
        args[i] = argv[i].n ? argv[i].p : "";
        lens[i] = argv[i].n;
        bytes += argv[i].n;
    }
    if (c->n_waiting >= WAITING_MAX || c->waiting_bytes + bytes > WAITING_BYTES_MAX)
        return ERR_BUSY;
    struct waiting *w = xcalloc(1, sizeof *w);
    *w = (struct waiting){
        .conn = c, .sent_us = clock_mono_us(), .bytes = bytes, .fn = fn, .ctx = ctx};
    if (redisAsyncCommandArgv(c->ac, on_reply, w, (int)n, args, lens) != REDIS_OK) {
        free(w);
        return ERR_UNAVAILABLE;
    }
    list_append(&c->waiting, &w->link);
    c->n_waiting++;
    c->waiting_bytes += bytes;
    set_deadline(c);
    return 0;
}

int store_send(store *s, enum store_line line, const slice *argv, size_t n, store_fn fn, void *ctx)
{
    struct conn *c = &s->conns[line];
    return c->up && c->ac ? enqueue(c, argv, n, fn, ctx) : ERR_UNAVAILABLE;
}

/* ---- connections
 * ------------------------------------------------------------------------------------------------------------
 */

static void retry_later(struct conn *c)
{
    if (c->s->free_me)
        return;
    loop_timer_in(c->s->l, &c->retry, (uint64_t)c->backoff_ms * 1000);
    c->backoff_ms = c->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : c->backoff_ms * 2;
}

static void lost(struct conn *c, const char *why)
{
    c->ac = NULL;
    c->up = false;
    loop_timer_cancel(c->s->l, &c->deadline);
    if (!c->s->free_me)
        note_state(c->s, why);
    retry_later(c);
}

/* hiredis ends every waiting command with a NULL reply, then forgets the context. */
static void conn_close(struct conn *c, const char *why)
{
    redisAsyncContext *ac = c->ac;
    if (!ac || c->closing)
        return;
    c->closing = true;
    c->up = false;
    redisAsyncSetDisconnectCallback(ac, NULL);
    redisAsyncFree(ac); /* inside one of its callbacks: when that returns */
    c->closing = false;
    lost(c, why);
}

static void on_deadline(void *ctx)
{
    struct conn *c = ctx;
    struct list *first = list_first(&c->waiting);
    if (first && due_us(c, CONTAINER_OF(first, struct waiting, link)) > clock_mono_us())
        set_deadline(c);
    else
        conn_close(c, "it did not answer in time");
}

static void on_connect(const redisAsyncContext *ac, int status)
{
    struct conn *c = ac->data;
    if (status != REDIS_OK)
        lost(c, "it cannot be connected to"); /* hiredis frees the context itself */
}

static void on_disconnect(const redisAsyncContext *ac, int status UNUSED)
{
    lost(ac->data, "the connection broke");
}

static void on_auth(void *ctx, const struct store_reply *r)
{
    struct conn *c = ctx;
    if (r->err == ERR_INVALID)
        log_warn("the store refuses our password");
    (void)c; /* what follows from it, PING finds out */
}

/* Up only when it really answers, and takes what is to be stored: a server that is loading its
 * data, wants a password, or follows another one is not. */
static void on_info(void *ctx, const struct store_reply *r)
{
    struct conn *c = ctx;
    if (r->err < 0) {
        conn_close(c, "it does not serve yet, or wants another password");
        return;
    }
    if (r->bytes.n && memmem(r->bytes.p, r->bytes.n, "role:slave", 10)) {
        conn_close(c, "it is a replica");
        return;
    }
    c->up = true;
    c->backoff_ms = BACKOFF_FIRST_MS;
    note_state(c->s, NULL);
}

static int say_hello(struct conn *c)
{
    const slice auth[] = {SLICE_LIT("AUTH"), slice_str(c->s->password)},
                info[] = {SLICE_LIT("INFO"), SLICE_LIT("replication")};
    if (c->s->password[0] && enqueue(c, auth, 2, on_auth, c) < 0)
        return ERR_UNAVAILABLE;
    return enqueue(c, info, 2, on_info, c);
}

static void conn_open(struct conn *c)
{
    store *s = c->s;
    redisAsyncContext *ac =
        s->unix_path ? redisAsyncConnectUnix(s->unix_path) : redisAsyncConnect(s->host, s->port);
    if (!ac || ac->err) {
        if (ac)
            redisAsyncFree(ac);
        lost(c, "it cannot be connected to");
        return;
    }
    ac->c.reader->fn = &STORE_OBJECTS;
    ac->c.reader->maxbuf = 0; /* its buffer stays: values come one after another */
    c->ac = ac;
    c->events = 0;
    ac->data = c;
    ac->ev.data = c;
    ac->ev.addRead = add_read;
    ac->ev.delRead = del_read;
    ac->ev.addWrite = add_write;
    ac->ev.delWrite = del_write;
    ac->ev.cleanup = cleanup;
    c->fd = loop_fd_add(s->l, ac->c.fd, 0, on_fd, c);
    redisAsyncSetConnectCallback(ac, on_connect);
    redisAsyncSetDisconnectCallback(ac, on_disconnect);
    if (!c->fd || say_hello(c) < 0)
        conn_close(c, "it cannot be connected to");
}

static void on_retry(void *ctx)
{
    struct conn *c = ctx;
    store *s = c->s;
    if (!s->unix_path && s->target.host[0]) { /* a name: its address may have changed */
        if (!s->looking)
            s->looking = resolve_start(&s->target, 1);
        loop_timer_in(s->l, &s->resolve_timer, RESOLVE_POLL_US);
        return;
    }
    conn_open(c);
}

static int take_endpoint(store *s, const char *endpoint)
{
    const char *host = endpoint + strlen("tcp://"), *colon = strrchr(host, ':');
    size_t n = colon ? (size_t)(colon - host) : 0;
    uint64_t port;
    if (n > 2 && host[0] == '[') {
        host++;
        n -= 2;
    }
    if (!colon || n >= sizeof s->host || slice_u64(slice_str(colon + 1), &port) < 0)
        return ERR_INVALID;
    memcpy(s->host, host, n);
    s->host[n] = '\0';
    s->port = (int)port;
    return 0;
}

static void on_resolve(void *ctx)
{
    store *s = ctx;
    const struct addresses *a = s->looking ? resolve_result(s->looking) : NULL;
    if (s->looking && !a) {
        loop_timer_in(s->l, &s->resolve_timer, RESOLVE_POLL_US);
        return;
    }
    bool ok = a && a->n > 0 && take_endpoint(s, a->list[0].endpoint) == 0;
    resolve_free(s->looking);
    s->looking = NULL;
    for (int i = 0; i < STORE_LINES; i++) {
        struct conn *c = &s->conns[i];
        if (c->ac || c->retry.heap_index)
            continue;
        if (ok)
            conn_open(c);
        else
            lost(c, "its name cannot be looked up");
    }
}

/* ---- the store
 * ---------------------------------------------------------------------------------------------------------------
 */

static int read_password(const char *path, char out[PASSWORD_MAX + 1], struct why *w)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, PASSWORD_MAX);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return why_set(w, ERR_IO, "redis-password-file",
                       "the password file cannot be read, or is empty");
    out[n] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    return 0;
}

static int read_address(store *s, const char *address, struct why *w)
{
    if (strncmp(address, "unix:", 5) == 0) {
        s->unix_path = xstrdup(address + 5);
        return s->unix_path[0] ? 0 : why_set(w, ERR_INVALID, "redis", "unix: needs a path");
    }
    struct target *list = xcalloc(TARGETS_MAX, sizeof *list);
    int n = targets_parse(address, list, w);
    if (n == 1 && strncmp(list[0].endpoint, "tcp://", 6) == 0) {
        s->target = list[0];
        n = s->target.host[0] ? 0 : take_endpoint(s, s->target.endpoint);
    } else {
        n = why_set(w, ERR_INVALID, "redis", "redis must be host:port or unix:/path");
    }
    free(list);
    return n;
}

int store_new(loop *l, const struct store_config *cfg, store **out, struct why *w)
{
    store *s = xcalloc(1, sizeof *s);
    *out = NULL;
    s->l = l;
    signal(SIGPIPE, SIG_IGN); /* hiredis writes to connections that may be gone */
    s->address = xstrdup(cfg->address);
    s->loss = xstrdup(cfg->loss ? cfg->loss : "");
    s->timeout_us = (uint64_t)cfg->timeout_ms * 1000;
    s->resolve_timer = (struct loop_timer){.fn = on_resolve, .ctx = s};
    for (int i = 0; i < STORE_LINES; i++) {
        struct conn *c = &s->conns[i];
        c->s = s;
        c->backoff_ms = BACKOFF_FIRST_MS;
        list_init(&c->waiting);
        c->deadline = (struct loop_timer){.fn = on_deadline, .ctx = c};
        c->retry = (struct loop_timer){.fn = on_retry, .ctx = c};
    }
    int e = read_address(s, cfg->address, w);
    if (e == 0 && cfg->password_file)
        e = read_password(cfg->password_file, s->password, w);
    if (e < 0) {
        store_free(s);
        return e;
    }
    for (int i = 0; i < STORE_LINES; i++)
        on_retry(&s->conns[i]);
    *out = s;
    return 0;
}

void store_free(store *s)
{
    if (!s)
        return;
    s->free_me = true;
    for (int i = 0; i < STORE_LINES; i++) {
        conn_close(&s->conns[i], NULL);
        loop_timer_cancel(s->l, &s->conns[i].retry);
        loop_timer_cancel(s->l, &s->conns[i].deadline);
    }
    loop_timer_cancel(s->l, &s->resolve_timer);
    resolve_free(s->looking);
    explicit_bzero(s->password, sizeof s->password);
    free(s->unix_path);
    free(s->address);
    free(s->loss);
    free(s);
}
