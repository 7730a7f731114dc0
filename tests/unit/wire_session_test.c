/* hub and links over real sockets: greeting, heartbeats, silence, restarts of either side, several
 * gateways, names with several addresses. */
#include "tests/unit/wire_testing.h"

#include <dlfcn.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>

#include "common/wire/backlog.h"
#include "common/wire/hub.h"
#include "common/wire/links.h"
#include "common/wire/pb.h"

#define BEAT_MS 20
#define SILENT_MS 400 /* twenty beats: a busy machine may not look dead */

struct side {
    int up, changed, down, msgs;
    char reason[32];
    struct wire_head head;
    hub_peer *peer;
    peer_link *link;
    uint32_t slots; /* said in heartbeats */
};

static void note_down(struct side *s, const char *reason)
{
    s->down++;
    snprintf(s->reason, sizeof s->reason, "%s", reason);
}

static void hub_up(void *ctx, hub_peer *p)
{
    struct side *s = ctx;
    s->up++;
    s->peer = p;
}
static void hub_changed(void *ctx, hub_peer *p UNUSED, bool ready UNUSED)
{
    ((struct side *)ctx)->changed++;
}
static void hub_down(void *ctx, hub_peer *p, const char *reason)
{
    struct side *s = ctx;
    note_down(s, reason);
    if (s->peer == p)
        s->peer = NULL;
}
static void hub_msg(void *ctx, hub_peer *p UNUSED, const struct wire_msg *m)
{
    struct side *s = ctx;
    s->msgs++;
    s->head = m->head;
}
static void hub_beat(void *ctx, hub_peer *p UNUSED, Nunchi__Heartbeat *out)
{
    out->slots = ((struct side *)ctx)->slots;
}
static void link_up(void *ctx, peer_link *k)
{
    struct side *s = ctx;
    s->up++;
    s->link = k;
}
static void link_changed(void *ctx, peer_link *k UNUSED)
{
    ((struct side *)ctx)->changed++;
}
static void link_down(void *ctx, peer_link *k UNUSED, const char *reason)
{
    note_down(ctx, reason);
    ((struct side *)ctx)->link = NULL;
}
static void link_msg(void *ctx, peer_link *k UNUSED, const struct wire_msg *m)
{
    struct side *s = ctx;
    s->msgs++;
    s->head = m->head;
}
static void link_beat(void *ctx, peer_link *k UNUSED, Nunchi__Heartbeat *out)
{
    out->slots = ((struct side *)ctx)->slots;
}

static Nunchi__Ready ready_of(char *service, uint32_t slots)
{
    Nunchi__Ready r;
    nunchi__ready__init(&r);
    r.service = service;
    r.slots = slots;
    return r;
}

static char gateway_name[] = "gateway", model_name[] = "model";

static hub *make_hub(bus *b, loop *l, const char *endpoint, struct side *s)
{
    Nunchi__Ready r = ready_of(gateway_name, 7);
    struct hub_config cfg = {.endpoint = endpoint,
                             .heartbeat_ms = BEAT_MS,
                             .silent_ms = SILENT_MS,
                             .ready = &r,
                             .ctx = s,
                             .up = hub_up,
                             .changed = hub_changed,
                             .down = hub_down,
                             .msg = hub_msg,
                             .heartbeat = hub_beat};
    struct why w = {0};
    hub *h;
    /* right after another process or hub let it go, the address may still be taken for a moment */
    for (uint64_t end = clock_mono_us() + PATIENCE_US; hub_new(b, l, &cfg, &h, &w) < 0;
         loop_turn(l, 5000))
        if (clock_mono_us() > end)
            fail_msg("%s", w.text);
    return h;
}

static links *make_links(bus *b, loop *l, const char *targets, struct side *s)
{
    Nunchi__Ready r = ready_of(model_name, 3);
    struct links_config cfg = {.targets = targets,
                               .resolve_ms = 30,
                               .heartbeat_ms = BEAT_MS,
                               .silent_ms = SILENT_MS,
                               .ready = &r,
                               .ctx = s,
                               .up = link_up,
                               .changed = link_changed,
                               .down = link_down,
                               .msg = link_msg,
                               .heartbeat = link_beat};
    struct why w = {0};
    links *ls;
    if (links_new(b, l, &cfg, &ls, &w) < 0)
        fail_msg("%s: %s", w.field, w.text);
    return ls;
}

struct pair {
    loop *l;
    bus *b;
    struct side at_hub, at_links;
    hub *h;
    links *ls;
    char endpoint[300];
};

static void pair_open(struct pair *p)
{
    *p = (struct pair){0};
    p->l = loop_new();
    p->b = make_bus(p->l);
    p->h = make_hub(p->b, p->l, ANY_PORT, &p->at_hub);
    snprintf(p->endpoint, sizeof p->endpoint, "%s", hub_endpoint(p->h));
    p->ls = make_links(p->b, p->l, p->endpoint, &p->at_links);
    TURN_UNTIL(p->l, p->at_hub.up == 1 && p->at_links.up == 1);
}

static void pair_close(struct pair *p)
{
    links_free(p->ls);
    hub_free(p->h);
    bus_free(p->b);
    loop_free(p->l);
}

static void both_come_up(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    const Nunchi__Ready *of_link = link_ready(p.at_links.link),
                        *of_peer = hub_peer_ready(p.at_hub.peer);
    assert_string_equal(of_link->service, "gateway");
    assert_string_equal(of_peer->service, "model");
    assert_int_equal(of_peer->wire_min, 2);
    assert_int_equal(of_peer->wire_max, 2);
    assert_int_equal(strlen(of_peer->instance), 32);
    assert_int_equal(hub_peer_heartbeat(p.at_hub.peer)->slots,
                     3); /* as READY says, until a heartbeat says otherwise */
    assert_int_equal(hub_n_peers(p.h), 1);
    assert_int_equal(links_n_up(p.ls), 1);
    assert_ptr_equal(hub_find(p.h, hub_peer_id(p.at_hub.peer)), p.at_hub.peer);
    assert_ptr_equal(links_find(p.ls, link_id(p.at_links.link)), p.at_links.link);
    assert_ptr_equal(hub_next(p.h, NULL), p.at_hub.peer);
    assert_null(hub_next(p.h, p.at_hub.peer));
    p.at_hub.slots = 11;
    p.at_links.slots = 12;
    TURN_UNTIL(p.l, link_heartbeat(p.at_links.link)->slots == 11 &&
                        hub_peer_heartbeat(p.at_hub.peer)->slots == 12);
    pair_close(&p);
}

static void requests_go_both_ways(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    struct wire_msg m = {.head = {.type = WIRE_REQUEST, .request = 9, .attempt = 2}};
    assert_int_equal(hub_send(p.h, p.at_hub.peer, &m), 0);
    TURN_UNTIL(p.l, p.at_links.msgs == 1);
    assert_int_equal(p.at_links.head.request, 9);
    m.head.type = WIRE_CHUNK;
    assert_int_equal(link_send(p.at_links.link, &m), 0);
    TURN_UNTIL(p.l, p.at_hub.msgs == 1);
    assert_int_equal(p.at_hub.head.type, WIRE_CHUNK);
    pair_close(&p);
}

static void ready_again_is_a_change(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    Nunchi__Ready r = ready_of(model_name, 99);
    links_set_ready(p.ls, &r);
    TURN_UNTIL(p.l, hub_peer_ready(p.at_hub.peer)->slots == 99);
    r = ready_of(gateway_name, 98);
    hub_set_ready(p.h, &r);
    TURN_UNTIL(p.l, link_ready(p.at_links.link)->slots == 98);
    assert_int_equal(p.at_hub.up + p.at_links.up, 2);
    pair_close(&p);
}

static void a_peer_that_leaves_is_noticed(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    uint64_t id = hub_peer_id(p.at_hub.peer);
    hub_peer *gone = p.at_hub.peer;
    links_free(p.ls);
    p.ls = NULL;
    TURN_UNTIL(p.l, p.at_hub.down == 1);
    assert_string_equal(p.at_hub.reason, "drain");
    assert_null(hub_find(p.h, id));
    assert_int_equal(hub_n_peers(p.h), 0);
    (void)gone;
    pair_close(&p);
}

static void a_hub_that_comes_back_is_greeted_again(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    uint64_t id = link_id(p.at_links.link);
    struct side again = {0};
    hub_free(p.h);
    p.h = make_hub(p.b, p.l, p.endpoint, &again);
    TURN_UNTIL(p.l, p.at_links.up == 2 && again.up == 1);
    assert_int_equal(p.at_links.down, 1);
    assert_true(link_id(p.at_links.link) != id);
    assert_null(links_find(p.ls, id));
    pair_close(&p);
}

/* This process did not run for longer than the others may be silent: they are not to blame. */
static void own_sleep_is_forgiven(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    turn_for(p.l, 100000);
    usleep(SILENT_MS * 1000 * 2);
    turn_for(p.l, 200000);
    assert_int_equal(p.at_hub.down + p.at_links.down, 0);
    pair_close(&p);
}

static void several_gateways(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    struct side second = {0}, both = {0};
    hub *h = make_hub(p.b, p.l, ANY_PORT, &second);
    char targets[700];
    snprintf(targets, sizeof targets, " %s ,%s,%s", p.endpoint, hub_endpoint(h), p.endpoint);
    links *ls = make_links(p.b, p.l, targets, &both);
    TURN_UNTIL(p.l, both.up == 2 && second.up == 1 && p.at_hub.up == 2);
    turn_for(p.l, 100000);
    assert_int_equal(both.up, 2); /* the address named twice has one link */
    assert_int_equal(links_n_up(ls), 2);
    hub_free(h); /* one goes: the other stays */
    TURN_UNTIL(p.l, both.down == 1);
    assert_int_equal(links_n_up(ls), 1);
    assert_string_equal(link_endpoint(links_next(ls, NULL)), p.endpoint);
    links_free(ls);
    pair_close(&p);
}

/* ---- damage
 * ------------------------------------------------------------------------------------------------
 */

/* Between a link and a hub: passes bytes on, one connection at a time, and flips the last bit of
 * what comes next where it is told to. */
struct relay {
    int listener, hub_port;
    _Atomic int flip; /* 1: to the hub; 2: to the link; 0: nothing (again) */
    pthread_t thread;
};

static void relay_bytes(struct relay *r, int link, int to_hub)
{
    struct pollfd fds[] = {{.fd = link, .events = POLLIN}, {.fd = to_hub, .events = POLLIN}};
    char bytes[4096];
    for (;;) {
        assert_true(poll(fds, 2, -1) > 0);
        for (int i = 0; i < 2; i++) {
            if (!fds[i].revents)
                continue;
            ssize_t n = recv(fds[i].fd, bytes, sizeof bytes, 0);
            if (n <= 0)
                return;
            if (r->flip == i + 1) {
                bytes[n - 1] ^= 1;
                r->flip = 0;
            }
            raw_write(fds[1 - i].fd, bytes, (size_t)n);
        }
    }
}

static void *relay_run(void *ctx)
{
    struct relay *r = ctx;
    for (int link; (link = accept(r->listener, NULL, NULL)) >= 0;) {
        int to_hub = tcp_to(r->hub_port);
        relay_bytes(r, link, to_hub);
        close(link);
        close(to_hub);
    }
    return NULL;
}

static void relay_start(struct relay *r, const char *hub_endpoint, char endpoint[64])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    assert_int_equal(sscanf(hub_endpoint, "tcp://127.0.0.1:%d", &r->hub_port), 1);
    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(r->listener, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(r->listener, 4), 0);
    assert_int_equal(getsockname(r->listener, (struct sockaddr *)&at, &n), 0);
    snprintf(endpoint, 64, "tcp://127.0.0.1:%d", ntohs(at.sin_port));
    assert_int_equal(pthread_create(&r->thread, NULL, relay_run, r), 0);
}

/* Both sides give the connection up, knowing why, and make a new one. */
static void damage_ends_the_connection(void **state UNUSED)
{
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct side at_hub = {.slots = 11}, at_links = {.slots = 12};
    struct relay r = {0};
    char endpoint[64];
    hub *h = make_hub(b, l, ANY_PORT, &at_hub);
    relay_start(&r, hub_endpoint(h), endpoint);
    links *ls = make_links(b, l, endpoint, &at_links);
    for (int side = 1; side <= 2; side++) {
        TURN_UNTIL(l, at_hub.up == side && at_links.up == side);
        TURN_UNTIL(l, hub_peer_heartbeat(at_hub.peer)->slots == 12 &&
                          link_heartbeat(at_links.link)->slots == 11);
        r.flip = side;
        TURN_UNTIL(l, at_hub.down == side && at_links.down == side);
        assert_string_equal(at_hub.reason, "damaged");
        assert_string_equal(at_links.reason, "damaged");
        assert_int_equal(bus_counts(b).malformed, side);
    }
    TURN_UNTIL(l, at_hub.up == 3 && at_links.up == 3);
    links_free(ls);
    hub_free(h);
    bus_free(b);
    shutdown(r.listener, SHUT_RDWR);
    pthread_join(r.thread, NULL);
    close(r.listener);
    loop_free(l);
}

/* ---- strangers
 * -----------------------------------------------------------------------------------------------------------
 */

struct stranger {
    int n, type;
    char reason[32];
};

static void stranger_msg(void *ctx, bus_sock *s UNUSED, slice peer UNUSED, const struct wire_msg *m)
{
    struct stranger *st = ctx;
    void *v;
    st->n++;
    st->type = m->head.type;
    if (m->head.type != WIRE_BYE)
        return;
    arena *a = arena_new(0);
    assert_int_equal(pb_unpack(a, &nunchi__bye__descriptor, m->body, 1000, &v, NULL), 0);
    snprintf(st->reason, sizeof st->reason, "%s", ((Nunchi__Bye *)v)->reason);
    arena_free(a);
}

static void strangers_are_told_so(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    struct stranger st = {0};
    bus_sock *s;
    assert_int_equal(bus_connect(p.b, p.endpoint, stranger_msg, &st, &s, NULL), 0);
    struct wire_msg m = {.head = {.type = WIRE_HEARTBEAT}};
    TURN_UNTIL(p.l, bus_send(s, slice_str(""), &m) == 0);
    TURN_UNTIL(p.l, st.n == 1);
    assert_string_equal(st.reason, "who");
    m.head.type = WIRE_REQUEST;
    assert_int_equal(bus_send(s, slice_str(""), &m), 0);
    TURN_UNTIL(p.l, st.n == 2);
    assert_int_equal(p.at_hub.msgs, 0);
    m.head.type = WIRE_BYE; /* not answered: two strangers would never end */
    assert_int_equal(bus_send(s, slice_str(""), &m), 0);
    Nunchi__Ready r = ready_of(model_name, 1);
    r.wire_min = 3;
    r.wire_max = 5;
    buf body = {0};
    pb_pack(&r.base, &body);
    m = (struct wire_msg){.head = {.type = WIRE_READY}, .body = buf_slice(&body)};
    assert_int_equal(bus_send(s, slice_str(""), &m), 0);
    TURN_UNTIL(p.l, st.n == 3);
    assert_string_equal(st.reason, "version");
    m.body = SLICE_LIT("\xff\xff\xff");
    assert_int_equal(bus_send(s, slice_str(""), &m), 0);
    TURN_UNTIL(p.l, st.n == 4);
    assert_string_equal(st.reason, "bye");
    assert_int_equal(p.at_hub.up, 1);
    r.wire_min = 0; /* a side that speaks more versions than we do */
    buf_reset(&body);
    pb_pack(&r.base, &body);
    m.body = buf_slice(&body);
    assert_int_equal(bus_send(s, slice_str(""), &m), 0);
    TURN_UNTIL(p.l, p.at_hub.up == 2);
    TURN_UNTIL(p.l, st.type == WIRE_READY);
    buf_clear(&body);
    pair_close(&p);
}

/* BYE "drain": nothing new, and what is open goes on until the connection closes. */
static void a_leaving_peer_stays_until_it_closes(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    struct stranger st = {0};
    bus_sock *s;
    assert_int_equal(bus_connect(p.b, p.endpoint, stranger_msg, &st, &s, NULL), 0);
    Nunchi__Ready r = ready_of(model_name, 5);
    r.wire_min = r.wire_max = 2;
    buf body = {0};
    pb_pack(&r.base, &body);
    struct wire_msg m = {.head = {.type = WIRE_READY}, .body = buf_slice(&body)};
    TURN_UNTIL(p.l, bus_send(s, slice_str(""), &m) == 0);
    TURN_UNTIL(p.l, p.at_hub.up == 2);
    hub_peer *peer = p.at_hub.peer;
    m = (struct wire_msg){.head = {.type = WIRE_BYE},
                          .body = SLICE_LIT("\x0a\x05"
                                            "drain")};
    assert_int_equal(bus_send(s, slice_str(""), &m), 0);
    TURN_UNTIL(p.l, hub_peer_heartbeat(peer)->draining);
    assert_int_equal(hub_peer_heartbeat(peer)->slots, 0);
    m = (struct wire_msg){.head = {.type = WIRE_DONE, .request = 4}};
    assert_int_equal(bus_send(s, slice_str(""), &m), 0);
    TURN_UNTIL(p.l, p.at_hub.msgs == 1);
    assert_int_equal(p.at_hub.down, 0);
    bus_close(s);
    TURN_UNTIL(p.l, p.at_hub.down == 1);
    assert_string_equal(p.at_hub.reason, "drain");
    buf_clear(&body);
    pair_close(&p);
}

/* ---- other processes: stopped, killed, started again
 * ------------------------------------------------------------------------ */

static _Noreturn void hub_process(const char *endpoint)
{
    struct side s = {0};
    loop *l = loop_new();
    make_hub(make_bus(l), l, endpoint, &s);
    for (;;)
        loop_turn(l, 100000);
}

static _Noreturn void links_process(const char *endpoint)
{
    struct side s = {0};
    loop *l = loop_new();
    make_links(make_bus(l), l, endpoint, &s);
    for (;;)
        loop_turn(l, 100000);
}

/* A child that waits for *go to be closed, so that it can be forked while this process has no
 * context. */
static pid_t spawn(void (*fn)(const char *), const char *endpoint, int *go)
{
    int fds[2];
    char none;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork_child();
    if (pid == 0) {
        close(fds[1]);
        if (read(fds[0], &none, 1) == 0)
            fn(endpoint);
        _exit(1);
    }
    close(fds[0]);
    *go = fds[1];
    return pid;
}

static void ipc_endpoint(char *dir, size_t dir_n, char *endpoint, size_t n)
{
    temp_dir(dir, dir_n);
    snprintf(endpoint, n, "ipc://%s/bus", dir);
}

static void remove_ipc(const char *dir, const char *endpoint)
{
    unlink(endpoint + 6);
    assert_int_equal(rmdir(dir), 0);
}

/* What a gateway that stands still does not read waits here up to a limit, then it is given up. */
static void post_until_given_up(links *ls)
{
    static char bulk[WIRE_FRAME_MAX];
    struct wire_msg m = {.head = {.type = WIRE_DONE, .request = 3}, .n_frames = 15};
    for (size_t i = 0; i < m.n_frames; i++)
        m.frames[i] = (slice){bulk, sizeof bulk};
    peer_link *k = links_next(ls, NULL);
    int sent = 0, err = 0;
    while ((err = link_post(k, &m)) == 0)
        sent++;
    assert_int_equal(err, ERR_UNAVAILABLE);
    assert_true(sent >= (int)(BACKLOG_BYTES_MAX / (15 * sizeof bulk)) && sent < 1000);
    assert_int_equal(link_post(k, &m), ERR_UNAVAILABLE); /* none after one that was lost */
}

static void a_stopped_or_killed_gateway(void **state UNUSED)
{
    char dir[200], endpoint[300];
    ipc_endpoint(dir, sizeof dir, endpoint, sizeof endpoint);
    int go_first, go_second;
    pid_t second = spawn(hub_process, endpoint, &go_second),
          first = spawn(hub_process, endpoint, &go_first);
    close(go_first);
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct side s = {0};
    links *ls = make_links(b, l, endpoint, &s);
    TURN_UNTIL(l, s.up == 1);
    kill(first, SIGSTOP);
    TURN_UNTIL(l, s.down == 1);
    assert_string_equal(s.reason, "silent");
    kill(first, SIGCONT);
    TURN_UNTIL(l, s.up == 2);
    kill(first, SIGSTOP);
    post_until_given_up(ls);
    TURN_UNTIL(l, s.down == 2);
    kill(first, SIGCONT);
    TURN_UNTIL(l, s.up == 3);
    reap_child(first);
    close(go_second);
    TURN_UNTIL(l, s.down == 3 && s.up == 4); /* restarted: found out by BYE "who" or by silence */
    links_free(ls);
    reap_child(second);
    bus_free(b);
    loop_free(l);
    remove_ipc(dir, endpoint);
}

static void a_stopped_or_killed_worker(void **state UNUSED)
{
    char dir[200], endpoint[300];
    ipc_endpoint(dir, sizeof dir, endpoint, sizeof endpoint);
    int go;
    pid_t pid = spawn(links_process, endpoint, &go);
    close(go);
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct side s = {0};
    hub *h = make_hub(b, l, endpoint, &s);
    TURN_UNTIL(l, s.up == 1);
    kill(pid, SIGSTOP);
    TURN_UNTIL(l, s.down == 1);
    assert_string_equal(s.reason, "silent");
    kill(pid, SIGCONT); /* it is told "who" and says READY again, or has connected anew */
    TURN_UNTIL(l, s.up == 2);
    hub_peer *p = s.peer;
    reap_child(pid);
    struct wire_msg m = {.head = {.type = WIRE_REQUEST, .request = 1}};
    TURN_UNTIL(l, s.down == 2 || hub_send(h, p, &m) == ERR_UNAVAILABLE || s.down == 2);
    TURN_UNTIL(l, s.down == 2);
    assert_string_equal(s.reason, "disconnected"); /* without waiting for silence */
    hub_free(h);
    bus_free(b);
    loop_free(l);
    remove_ipc(dir, endpoint);
}

/* ---- names
 * --------------------------------------------------------------------------------------------------------------------
 */

static int fake_first = 2, fake_n = 2; /* 127.0.0.<first> ...; 0 addresses: the lookup fails */
static bool fake_hangs;

static struct addrinfo *fake_address(int last, const char *port, struct addrinfo *next)
{
    struct addrinfo *i = xcalloc(1, sizeof *i);
    struct sockaddr_in *a = xcalloc(1, sizeof *a);
    *a = (struct sockaddr_in){.sin_family = AF_INET,
                              .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
    a->sin_addr.s_addr = htonl(0x7f000000u + (uint32_t)last);
    *i = (struct addrinfo){.ai_family = AF_INET,
                           .ai_addr = (struct sockaddr *)(void *)a,
                           .ai_addrlen = sizeof *a,
                           .ai_next = next};
    return i;
}

/* Stands before libc's: the name "nunchi.test" has the addresses above; all others are looked up as
 * ever. */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **out)
{
    if (!host || strcmp(host, "nunchi.test") != 0) {
        union {
            void *p;
            int (*fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
        } real = {.p = dlsym(RTLD_NEXT, "getaddrinfo")};
        return real.fn(host, port, hints, out);
    }
    int n = __atomic_load_n(&fake_n, __ATOMIC_ACQUIRE),
        first = __atomic_load_n(&fake_first, __ATOMIC_ACQUIRE);
    while (__atomic_load_n(&fake_hangs, __ATOMIC_ACQUIRE))
        usleep(1000);
    if (n == 0)
        return EAI_AGAIN;
    *out = NULL;
    for (int i = n - 1; i >= 0; i--)
        *out = fake_address(first + i, port, *out);
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    bool ours = list && !list->ai_canonname && list->ai_protocol == 0 && list->ai_socktype == 0;
    if (!ours) {
        union {
            void *p;
            void (*fn)(struct addrinfo *);
        } real = {.p = dlsym(RTLD_NEXT, "freeaddrinfo")};
        real.fn(list);
        return;
    }
    while (list) {
        struct addrinfo *next = list->ai_next;
        free(list->ai_addr);
        free(list);
        list = next;
    }
}

static void set_fake(int first, int n)
{
    __atomic_store_n(&fake_first, first, __ATOMIC_RELEASE);
    __atomic_store_n(&fake_n, n, __ATOMIC_RELEASE);
}

static hub *hub_at(bus *b, loop *l, int last, unsigned port, struct side *s)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.%d:%u", last, port);
    return make_hub(b, l, endpoint, s);
}

static void a_name_with_several_addresses(void **state UNUSED)
{
    loop *l = loop_new();
    struct bus_config cfg = {.insecure_network =
                                 true}; /* a name is not loopback, whatever it leads to */
    struct side at[4] = {{0}}, s = {0};
    bus *b;
    struct why w = {0};
    assert_int_equal(bus_new(l, &cfg, &b, &w), 0);
    hub *hubs[4] = {make_hub(b, l, "tcp://127.0.0.2:*", &at[0])};
    unsigned port = (unsigned)strtoul(strrchr(hub_endpoint(hubs[0]), ':') + 1, NULL, 10);
    hubs[1] = hub_at(b, l, 3, port, &at[1]);
    hubs[2] = hub_at(b, l, 4, port, &at[2]);
    set_fake(2, 2);
    char target[64];
    snprintf(target, sizeof target, "nunchi.test:%u", port);
    links *ls = make_links(b, l, target, &s);
    TURN_UNTIL(l, links_n_up(ls) == 2);
    assert_true(at[0].up == 1 && at[1].up == 1 && at[2].up == 0);
    set_fake(2, 3); /* scaled up: found without a restart */
    TURN_UNTIL(l, links_n_up(ls) == 3);
    set_fake(0, 0); /* the name server is away: nobody is dropped */
    turn_for(l, 200000);
    assert_int_equal(links_n_up(ls), 3);
    set_fake(3, 2); /* 127.0.0.2 is off the list, and stays while it lives */
    turn_for(l, 200000);
    assert_int_equal(links_n_up(ls), 3);
    hub_free(hubs[0]);
    TURN_UNTIL(l, links_n_up(ls) == 2);
    turn_for(l, 200000);
    hubs[0] = hub_at(b, l, 2, port, &at[3]); /* not listed any more: nobody comes */
    turn_for(l, 300000);
    assert_int_equal(at[3].up, 0);
    assert_int_equal(s.down, 1);
    links_free(ls);
    for (int i = 0; i < 3; i++)
        hub_free(hubs[i]);
    bus_free(b);
    loop_free(l);
}

/* A name server that does not answer holds up nothing, the end included. */
static void a_lookup_that_hangs(void **state UNUSED)
{
    struct pair p;
    pair_open(&p);
    struct bus_config cfg = {.insecure_network = true};
    struct side s = {0};
    bus *b;
    assert_int_equal(bus_new(p.l, &cfg, &b, NULL), 0);
    set_fake(2, 1);
    __atomic_store_n(&fake_hangs, true, __ATOMIC_RELEASE);
    links *ls = make_links(b, p.l, "nunchi.test:1", &s);
    int beats = p.at_hub.changed;
    TURN_UNTIL(p.l, p.at_hub.changed > beats + 5);
    links_free(ls);
    bus_free(b);
    __atomic_store_n(&fake_hangs, false, __ATOMIC_RELEASE);
    usleep(20000); /* the thread ends by itself; for leak checkers it should do so before the
                      program */
    pair_close(&p);
}

static void targets_are_checked(void **state UNUSED)
{
    static const char *const bad[] = {"gateway",       "gateway:",     ":5",     "gateway:0",
                                      "gateway:65536", "gateway:http", "tcp://", "a/b:5",
                                      "::1:5",         "http://x:1"};
    struct pair p;
    pair_open(&p);
    Nunchi__Ready r = ready_of(model_name, 1);
    struct why w;
    links *ls;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct links_config cfg = {.targets = bad[i], .ready = &r};
        assert_int_equal(links_new(p.b, p.l, &cfg, &ls, &w), ERR_INVALID);
    }
    struct links_config far = {.targets = "gateway:5570", .ready = &r};
    assert_int_equal(links_new(p.b, p.l, &far, &ls, &w),
                     ERR_FORBIDDEN); /* no keys, no word that the network is private */
    buf many = {0};
    for (int i = 0; i < 65; i++)
        buf_printf(&many, "127.0.0.1:%d,", 1000 + i);
    struct links_config cfg = {.targets = buf_cstr(&many), .ready = &r};
    assert_int_equal(links_new(p.b, p.l, &cfg, &ls, &w), ERR_TOO_BIG);
    buf_clear(&many);
    cfg.targets = "";
    assert_int_equal(links_new(p.b, p.l, &cfg, &ls, &w), 0);
    links_free(ls);
    pair_close(&p);
}

int main(void)
{
    log_init("test", LOG_ERROR, 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_or_killed_gateway), /* these fork: first */
        cmocka_unit_test(a_stopped_or_killed_worker),
        cmocka_unit_test(both_come_up),
        cmocka_unit_test(damage_ends_the_connection),
        cmocka_unit_test(requests_go_both_ways),
        cmocka_unit_test(ready_again_is_a_change),
        cmocka_unit_test(a_peer_that_leaves_is_noticed),
        cmocka_unit_test(a_hub_that_comes_back_is_greeted_again),
        cmocka_unit_test(own_sleep_is_forgiven),
        cmocka_unit_test(several_gateways),
        cmocka_unit_test(strangers_are_told_so),
        cmocka_unit_test(a_leaving_peer_stays_until_it_closes),
        cmocka_unit_test(a_name_with_several_addresses),
        cmocka_unit_test(a_lookup_that_hangs),
        cmocka_unit_test(targets_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
