#include "common/wire/bus.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/epoll.h>
#include <zmq.h>

#include "common/base/list.h"
#include "common/base/log.h"
#include "common/wire/keys.h"

/* High-water marks are a wall, not the flow control (that is credit): messages per peer, each
 * WIRE_MESSAGE_MAX at most. */
#define SEND_HWM 128
#define RECEIVE_HWM 64
/* Last words (BYE, an ERROR) may take so long after a close; the default would wait for ever. */
#define LINGER_MS 200
/* No ZMTP heartbeats: in libzmq 4.3.4 their timer aborts the process (assertion !_io_error) when a
 * connection breaks while its reader is at the high-water mark, as after being stopped and resumed.
 * The protocol has heartbeats of its own; a dead host's connection is ended by the kernel, after 10
 * s idle and 3 probes, or unacknowledged for 10 s. */
#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_EVERY_S 5
#define KEEPALIVE_PROBES 3
#define UNACKNOWLEDGED_MS 10000
#define RECONNECT_MS 100
#define RECONNECT_MAX_MS 2000
#define HANDSHAKE_MS 3000
/* One socket's share of a wake: the loop's other work waits behind it. */
#define DRAIN_MESSAGES 256
#define DRAIN_BYTES ((size_t)8 << 20)
#define PARTS_MAX (3 + WIRE_FRAMES_MAX) /* routing id, header, body, bulk frames */
#define ENDPOINT_MAX 300
#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_PARTS 7
#define SOCKETS_MAX 4096

struct bus {
    loop *l;
    void *zctx;
    void *prepare;
    struct list socks; /* closed ones stay while a drain runs */
    int depth;         /* of running drains */
    bool have_pair, insecure, said_insecure;
    struct key_pair pair;
    char server_key[KEY_TEXT + 1];
    char *allow_file;
    map *allowed; /* 32-byte public keys; NULL without CURVE on bound sockets */
    void *zap;
    loop_fd *zap_fd;
    struct bus_counts counts;
};

struct bus_sock {
    struct list link;
    bus *b;
    void *z; /* NULL: closed */
    loop_fd *fd;
    bool router, said_version;
    bus_msg_fn fn;
    void *ctx;
    char endpoint[ENDPOINT_MAX];
};

/* ---- small things around libzmq
 * --------------------------------------------------------------------------------- */

static void set_int(void *z, int option, int value)
{
    CHECK(zmq_setsockopt(z, option, &value, sizeof value) == 0);
}

static void set_str(void *z, int option, const char *value)
{
    CHECK(zmq_setsockopt(z, option, value, strlen(value)) == 0);
}

static int get_int(void *z, int option)
{
    int value = 0;
    size_t n = sizeof value;
    CHECK(zmq_getsockopt(z, option, &value, &n) == 0);
    return value;
}

static bool readable(void *z)
{
    return (get_int(z, ZMQ_EVENTS) & ZMQ_POLLIN) != 0;
}

static slice part_slice(zmq_msg_t *m)
{
    return (slice){zmq_msg_data(m), zmq_msg_size(m)};
}

/* A whole multipart message, or 0 when there is none. Parts beyond `max` are read and thrown away,
 * so that the next message begins at its beginning; then *n_all > max. */
static size_t receive_parts(void *z, zmq_msg_t *parts, size_t max, size_t *n_all)
{
    size_t n = 0;
    *n_all = 0;
    for (bool more = true; more;) {
        zmq_msg_t extra, *p = n < max ? &parts[n] : &extra;
        zmq_msg_init(p);
        if (zmq_msg_recv(p, z, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(p);
            break;
        }
        more = zmq_msg_more(p) != 0;
        ++*n_all;
        if (p == &extra)
            zmq_msg_close(p);
        else
            n++;
    }
    return n;
}

static void close_parts(zmq_msg_t *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        zmq_msg_close(&parts[i]);
}

/* ---- who may connect: ZAP
 * ----------------------------------------------------------------------------------------- */

/* Request: version, request id, domain, address, routing id, mechanism, credentials. */
static bool zap_allows(const bus *b, zmq_msg_t *parts, size_t n_all)
{
    if (n_all != ZAP_PARTS || !slice_eq_str(part_slice(&parts[5]), "CURVE"))
        return false;
    slice key = part_slice(&parts[6]);
    return key.n == KEY_BYTES && b->allowed && map_get(b->allowed, key) != NULL;
}

static void zap_answer(bus *b, zmq_msg_t *parts, size_t n, size_t n_all)
{
    bool ok = zap_allows(b, parts, n_all);
    if (!ok) {
        b->counts.refused_auth++;
        log_warn("connection refused: its key is not in the allow-list",
                 LOG_U64("refused", b->counts.refused_auth));
    }
    slice id = n > 1 ? part_slice(&parts[1]) : slice_str("");
    zmq_send(b->zap, "1.0", 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(b->zap, id.p, id.n, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(b->zap, ok ? "200" : "400", 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(b->zap, ok ? "OK" : "no", 2, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(b->zap, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(b->zap, "", 0, ZMQ_DONTWAIT);
}

static void zap_drain(bus *b)
{
    zmq_msg_t parts[ZAP_PARTS];
    size_t n, n_all;
    while (readable(b->zap) && (n = receive_parts(b->zap, parts, ZAP_PARTS, &n_all)) > 0) {
        zap_answer(b, parts, n, n_all);
        close_parts(parts, n);
    }
}

static void on_zap_fd(void *ctx, uint32_t events UNUSED)
{
    zap_drain(ctx);
}

static int watch(bus *b, void *z, loop_fd_fn fn, void *ctx, loop_fd **out)
{
    *out = loop_fd_add(b->l, get_int(z, ZMQ_FD), EPOLLIN, fn, ctx);
    return *out ? 0 : ERR_IO;
}

/* Before any server socket binds: libzmq lets everybody in who connects while there is no handler.
 */
static int zap_open(bus *b, struct why *w)
{
    b->zap = zmq_socket(b->zctx, ZMQ_REP);
    if (!b->zap)
        return why_set(w, ERR_IO, "", "the authentication socket cannot be made: %s",
                       zmq_strerror(errno));
    set_int(b->zap, ZMQ_LINGER, 0);
    if (zmq_bind(b->zap, ZAP_ENDPOINT) < 0 || watch(b, b->zap, on_zap_fd, b, &b->zap_fd) < 0)
        return why_set(w, ERR_IO, "", "the authentication socket cannot be bound");
    return 0;
}

/* ---- receiving
 * ------------------------------------------------------------------------------------------------------
 */

static int parse(bus_sock *s, zmq_msg_t *parts, size_t n_all, slice *peer, struct wire_msg *m)
{
    size_t at = s->router ? 1 : 0;
    *peer = s->router ? part_slice(&parts[0]) : slice_str("");
    if (n_all > PARTS_MAX || n_all < at + 2 || n_all - at - 2 > WIRE_FRAMES_MAX)
        return ERR_PROTO;
    slice head = part_slice(&parts[at]);
    int e = wire_head_get(head, &m->head);
    if (e < 0)
        return e;
    m->body = part_slice(&parts[at + 1]);
    m->n_frames = n_all - at - 2;
    for (size_t i = 0; i < m->n_frames; i++)
        m->frames[i] = part_slice(&parts[at + 2 + i]);
    e = wire_msg_check(m); /* first: it bounds what the sum is taken over */
    return e < 0 || wire_sum_is_right(head, m) ? e : ERR_PROTO;
}

/* An old build, or the wrong port: worth a line, not one for each message. */
static void say_version(bus_sock *s)
{
    if (!s->said_version)
        log_warn("somebody speaks another version of the protocol",
                 LOG_STR("endpoint", s->endpoint), LOG_U64("ours", WIRE_VERSION));
    s->said_version = true;
}

static size_t parts_bytes(zmq_msg_t *parts, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += zmq_msg_size(&parts[i]);
    return bytes;
}

/* Bytes taken, 0 when there was no message. */
static size_t receive_one(bus_sock *s)
{
    zmq_msg_t parts[PARTS_MAX];
    struct wire_msg m = {0};
    slice peer;
    size_t n_all, n = receive_parts(s->z, parts, PARTS_MAX, &n_all);
    if (n == 0)
        return 0;
    size_t bytes = 1 + parts_bytes(parts, n);
    int e = parse(s, parts, n_all, &peer, &m);
    if (e == ERR_UNSUPPORTED)
        say_version(s);
    if (e < 0)
        s->b->counts.malformed++;
    else
        s->b->counts.received++;
    s->fn(s->ctx, s, peer, e < 0 ? NULL : &m);
    close_parts(parts, n);
    return bytes;
}

/* True if there was anything: then the loop makes another round before it sleeps, in which more may
 * be found, and in which whoever was waiting for a message sees it. */
static bool drain(bus_sock *s)
{
    size_t bytes = 0, got;
    for (int i = 0; i < DRAIN_MESSAGES && bytes < DRAIN_BYTES; i++) {
        if (!s->z || !readable(s->z) || (got = receive_one(s)) == 0)
            break;
        bytes += got;
    }
    return bytes > 0;
}

static void free_closed(bus *b)
{
    if (b->depth > 0)
        return;
    LIST_EACH(it, &b->socks)
    {
        bus_sock *s = CONTAINER_OF(it, bus_sock, link);
        if (s->z)
            continue;
        list_remove(it);
        free(s);
    }
}

static void on_fd(void *ctx, uint32_t events UNUSED)
{
    bus_sock *s = ctx;
    bus *b = s->b;
    b->depth++;
    drain(s); /* what is left is found again before the loop sleeps */
    b->depth--;
    free_closed(b);
}

/* The descriptor is edge-triggered whatever epoll is told, and sends swallow edges too: only
 * ZMQ_EVENTS is true. */
static bool before_sleep(void *ctx)
{
    bus *b = ctx;
    bool more = false;
    b->depth++;
    LIST_EACH(it, &b->socks)
    {
        bus_sock *s = CONTAINER_OF(it, bus_sock, link);
        if (s->z && drain(s))
            more = true;
        it_next = it->next; /* a callback may have added others */
    }
    if (b->zap)
        zap_drain(b);
    b->depth--;
    free_closed(b);
    return more;
}

/* ---- sending
 * --------------------------------------------------------------------------------------------------------
 */

static int send_part(void *z, slice part, int more)
{
    int rc;
    do
        rc = zmq_send(z, part.p, part.n, ZMQ_DONTWAIT | more);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? errno : 0;
}

/* On libzmq's thread. */
static void let_go(void *bytes UNUSED, void *held)
{
    shared_unref(held);
}

static int send_held(void *z, slice part, shared *held, int more)
{
    zmq_msg_t msg;
    /* libzmq only reads what it is given */
    if (zmq_msg_init_data(&msg, (void *)(uintptr_t)part.p, part.n, let_go, shared_ref(held)) < 0) {
        shared_unref(held);
        return ENOMEM;
    }
    int rc;
    do
        rc = zmq_msg_send(&msg, z, ZMQ_DONTWAIT | more);
    while (rc < 0 && errno == EINTR);
    int errnum = rc < 0 ? errno : 0;
    if (rc < 0)
        zmq_msg_close(&msg);
    return errnum;
}

int bus_send(bus_sock *s, slice peer, const struct wire_msg *m)
{
    if (!s->z)
        return ERR_UNAVAILABLE;
    int e = wire_msg_check(m);
    if (e < 0)
        return e;
    unsigned char head[WIRE_HEAD_BYTES];
    wire_head_put(m, head);
    slice parts[PARTS_MAX];
    size_t n = 0;
    if (s->router)
        parts[n++] = peer;
    parts[n++] = (slice){(const char *)head, sizeof head};
    parts[n++] = m->body;
    const size_t first_frame = n;
    for (size_t i = 0; i < m->n_frames; i++)
        parts[n++] = m->frames[i];
    for (size_t i = 0; i < n; i++) {
        int more = i + 1 < n ? ZMQ_SNDMORE : 0;
        shared *held = i < first_frame ? NULL : m->held[i - first_frame];
        int errnum = held ? send_held(s->z, parts[i], held, more) : send_part(s->z, parts[i], more);
        if (errnum && i == 0)
            return errnum == EAGAIN ? ERR_AGAIN : ERR_UNAVAILABLE;
        /* A later part fails only when the connection breaks at this very moment. libzmq then
         * swallows parts up to the end of the message; stopping short would make it swallow the
         * next message instead. */
        if (errnum)
            e = ERR_UNAVAILABLE;
    }
    if (e == 0)
        s->b->counts.sent++;
    return e;
}

/* ---- sockets
 * --------------------------------------------------------------------------------------------------------
 */

bool bus_endpoint_is_local(const char *endpoint)
{
    slice e = slice_str(endpoint);
    if (slice_starts(e, SLICE_LIT("ipc://")) || slice_starts(e, SLICE_LIT("inproc://")))
        return true;
    if (!slice_starts(e, SLICE_LIT("tcp://")))
        return false;
    slice host = {e.p + 6, e.n - 6};
    while (host.n && host.p[host.n - 1] != ':')
        host.n--;
    if (host.n < 2)
        return false;
    host.n--; /* the colon before the port */
    char text[64];
    if (host.n >= sizeof text)
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    struct in_addr v4;
    if (inet_pton(AF_INET, text, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return slice_eq_str(host, "localhost") || slice_eq_str(host, "[::1]");
}

/* Leaving the host needs keys, or a word that the network is private. */
static int allowed_to_leave(bus *b, const char *endpoint, struct why *w)
{
    if (bus_endpoint_is_local(endpoint) || b->have_pair)
        return 0;
    if (!b->insecure)
        return why_set(
            w, ERR_FORBIDDEN, "curve-key-file",
            "%s is beyond loopback: give CURVE keys, or --insecure-network on a private network",
            endpoint);
    if (!b->said_insecure)
        log_warn("the bus leaves this host without encryption or authentication",
                 LOG_STR("endpoint", endpoint));
    b->said_insecure = true;
    return 0;
}

int bus_may_connect(bus *b, const char *endpoint, struct why *w)
{
    int e = allowed_to_leave(b, endpoint, w);
    if (e == 0 && b->have_pair && !b->server_key[0])
        e = why_set(w, ERR_INVALID, "curve-server-key",
                    "CURVE needs the public key of the side to connect to");
    return e;
}

static int set_keys(bus *b, void *z, bool router, const char *endpoint, struct why *w)
{
    if (!b->have_pair)
        return 0;
    if (router) {
        if (!b->allowed)
            return why_set(w, ERR_INVALID, "curve-allow-file",
                           "CURVE on a bound socket needs the keys that may connect");
        set_int(z, ZMQ_CURVE_SERVER, 1);
        set_str(z, ZMQ_ZAP_DOMAIN, "nunchi");
    } else {
        int e = bus_may_connect(b, endpoint, w);
        if (e < 0)
            return e;
        set_str(z, ZMQ_CURVE_SERVERKEY, b->server_key);
        set_str(z, ZMQ_CURVE_PUBLICKEY, b->pair.public_key);
    }
    set_str(z, ZMQ_CURVE_SECRETKEY, b->pair.secret_key);
    return 0;
}

static void set_options(void *z, bool router, const char *endpoint)
{
    int64_t message_max = WIRE_BODY_MAX; /* of one part: the largest there is */
    CHECK(zmq_setsockopt(z, ZMQ_MAXMSGSIZE, &message_max, sizeof message_max) == 0);
    set_int(z, ZMQ_LINGER, LINGER_MS);
    set_int(z, ZMQ_SNDHWM, SEND_HWM);
    set_int(z, ZMQ_RCVHWM, RECEIVE_HWM);
    set_int(z, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set_int(z, ZMQ_TCP_KEEPALIVE, 1);
    set_int(z, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S);
    set_int(z, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_EVERY_S);
    set_int(z, ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES);
    set_int(z, ZMQ_TCP_MAXRT, UNACKNOWLEDGED_MS);
    if (strncmp(endpoint, "tcp://[", 7) == 0)
        set_int(z, ZMQ_IPV6, 1);
    if (router) {
        set_int(z, ZMQ_ROUTER_MANDATORY,
                1); /* else what cannot be delivered is dropped without a word */
        return;
    }
    set_int(z, ZMQ_IMMEDIATE, 1); /* nothing is queued for who is not there */
    set_int(z, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(z, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
}

static int attach(bus_sock *s, const char *endpoint, struct why *w)
{
    int rc = s->router ? zmq_bind(s->z, endpoint) : zmq_connect(s->z, endpoint);
    if (rc < 0)
        return why_set(w, errno == EADDRINUSE ? ERR_EXISTS : ERR_IO, "", "cannot %s %s: %s",
                       s->router ? "bind" : "connect to", endpoint, zmq_strerror(errno));
    size_t n = sizeof s->endpoint;
    if (zmq_getsockopt(s->z, ZMQ_LAST_ENDPOINT, s->endpoint, &n) < 0)
        return why_set(w, ERR_IO, "", "%s has no address", endpoint);
    if (watch(s->b, s->z, on_fd, s, &s->fd) < 0)
        return why_set(w, ERR_IO, "", "cannot wait for %s", endpoint);
    return 0;
}

static int sock_open(bus *b, bool router, const char *endpoint, bus_sock **out, struct why *w)
{
    *out = NULL;
    int e = allowed_to_leave(b, endpoint, w);
    if (e < 0)
        return e;
    bus_sock *s = xcalloc(1, sizeof *s);
    *s = (bus_sock){.b = b, .router = router};
    list_append(&b->socks, &s->link);
    s->z = zmq_socket(b->zctx, router ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!s->z)
        e = why_set(w, ERR_IO, "", "no more sockets: %s", zmq_strerror(errno));
    if (e == 0) {
        set_options(s->z, router, endpoint);
        e = set_keys(b, s->z, router, endpoint, w);
    }
    if (e == 0)
        e = attach(s, endpoint, w);
    if (e < 0)
        bus_close(s);
    else
        *out = s;
    return e;
}

int bus_bind(bus *b, const char *endpoint, bus_msg_fn fn, void *ctx, bus_sock **out, struct why *w)
{
    int e = sock_open(b, true, endpoint, out, w);
    if (e == 0) {
        (*out)->fn = fn;
        (*out)->ctx = ctx;
    }
    return e;
}

int bus_connect(bus *b, const char *endpoint, bus_msg_fn fn, void *ctx, bus_sock **out,
                struct why *w)
{
    int e = sock_open(b, false, endpoint, out, w);
    if (e == 0) {
        (*out)->fn = fn;
        (*out)->ctx = ctx;
    }
    return e;
}

void bus_close(bus_sock *s)
{
    if (!s)
        return;
    loop_fd_del(s->b->l, s->fd);
    s->fd = NULL;
    if (s->z)
        zmq_close(s->z);
    s->z = NULL;
    free_closed(s->b);
}

const char *bus_endpoint(bus_sock *s)
{
    return s->endpoint;
}

/* ---- the bus
 * --------------------------------------------------------------------------------------------------------
 */

static int take_keys(bus *b, const struct bus_config *cfg, struct why *w)
{
    if (!cfg->secret_key_file) {
        if (cfg->allow_file || cfg->server_key)
            return why_set(w, ERR_INVALID, "curve-key-file", "CURVE needs a key pair of our own");
        return 0;
    }
    int e = keys_read_pair(cfg->secret_key_file, &b->pair, w);
    if (e < 0)
        return e;
    b->have_pair = true;
    if (cfg->server_key) {
        unsigned char key[KEY_BYTES];
        if (keys_decode(slice_str(cfg->server_key), key) < 0)
            return why_set(w, ERR_INVALID, "curve-server-key", "a key has 40 characters of Z85");
        memcpy(b->server_key, cfg->server_key, KEY_TEXT);
    }
    if (!cfg->allow_file)
        return 0;
    b->allow_file = xstrdup(cfg->allow_file);
    e = bus_reload_keys(b, w);
    return e < 0 ? e : zap_open(b, w);
}

int bus_new(loop *l, const struct bus_config *cfg, bus **out, struct why *w)
{
    bus *b = xcalloc(1, sizeof *b);
    *out = NULL;
    b->l = l;
    b->insecure = cfg->insecure_network;
    list_init(&b->socks);
    b->zctx = zmq_ctx_new();
    CHECK(b->zctx != NULL);
    CHECK(zmq_ctx_set(b->zctx, ZMQ_MAX_SOCKETS, SOCKETS_MAX) == 0);
    b->prepare = loop_prepare_add(l, before_sleep, b);
    int e = take_keys(b, cfg, w);
    if (e < 0)
        bus_free(b);
    else
        *out = b;
    return e;
}

int bus_reload_keys(bus *b, struct why *w)
{
    map *allowed;
    if (!b->allow_file)
        return 0;
    int e = keys_read_allowed(b->allow_file, &allowed, w);
    if (e < 0)
        return e; /* the old list stays */
    map_free(b->allowed);
    b->allowed = allowed;
    return 0;
}

void bus_free(bus *b)
{
    if (!b)
        return;
    CHECK(b->depth == 0);
    LIST_EACH(it, &b->socks)
    bus_close(CONTAINER_OF(it, bus_sock, link));
    loop_fd_del(b->l, b->zap_fd);
    if (b->zap)
        zmq_close(b->zap);
    loop_prepare_del(b->l, b->prepare);
    zmq_ctx_term(b->zctx); /* waits at most LINGER_MS */
    map_free(b->allowed);
    free(b->allow_file);
    explicit_bzero(&b->pair, sizeof b->pair);
    free(b);
}

struct bus_counts bus_counts(const bus *b)
{
    return b->counts;
}

int bus_new_keys(char public_key[41], char secret_key[41])
{
    return zmq_curve_keypair(public_key, secret_key) == 0 ? 0 : ERR_UNSUPPORTED;
}
