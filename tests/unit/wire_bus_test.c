/* The measured traps of libzmq, each shown to be dealt with, over real sockets. */
#include "tests/unit/wire_testing.h"

#include <errno.h>
#include <fcntl.h>

struct seen {
    int n, bad;
    struct wire_head head;
    char body[64];
    size_t body_n, n_frames, frame_n;
    char route[256];
    size_t route_n;
    bool echo;       /* send it back */
    bus_sock *close; /* in the callback */
};

static void on_msg(void *ctx, bus_sock *s, slice peer, const struct wire_msg *m)
{
    struct seen *seen = ctx;
    if (!m) {
        seen->bad++;
        return;
    }
    seen->n++;
    seen->head = m->head;
    seen->body_n = m->body.n;
    memcpy(seen->body, m->body.p, m->body.n < sizeof seen->body ? m->body.n : sizeof seen->body);
    seen->n_frames = m->n_frames;
    seen->frame_n = m->n_frames ? m->frames[0].n : 0;
    assert_true(peer.n <= sizeof seen->route);
    memcpy(seen->route, peer.p, peer.n);
    seen->route_n = peer.n;
    if (seen->echo)
        assert_int_equal(bus_send(s, peer, m), 0);
    if (seen->close)
        bus_close(seen->close);
    seen->close = NULL;
}

static slice route_of(const struct seen *s)
{
    return (slice){s->route, s->route_n};
}

static struct wire_msg hello(void)
{
    return (struct wire_msg){.head = {.type = WIRE_REQUEST, .request = 5},
                             .body = SLICE_LIT("hello")};
}

static bus_sock *bound(bus *b, const char *endpoint, struct seen *seen)
{
    bus_sock *s;
    struct why w = {0};
    if (bus_bind(b, endpoint, on_msg, seen, &s, &w) < 0)
        fail_msg("%s", w.text);
    return s;
}

static bus_sock *connected(bus *b, const char *endpoint, struct seen *seen)
{
    bus_sock *s;
    struct why w = {0};
    if (bus_connect(b, endpoint, on_msg, seen, &s, &w) < 0)
        fail_msg("%s", w.text);
    return s;
}

#define SEND_UNTIL_TAKEN(l, s, m) TURN_UNTIL(l, bus_send((s), slice_str(""), (m)) == 0)

static void there_and_back(void **state UNUSED)
{
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen at_server = {.echo = true}, at_client = {0};
    bus_sock *server = bound(b, ANY_PORT, &at_server);
    assert_null(strchr(bus_endpoint(server), '*'));
    bus_sock *client = connected(b, bus_endpoint(server), &at_client);
    struct wire_msg m = hello();
    static char bulk[WIRE_FRAME_MAX];
    m.frames[0] = (slice){bulk, sizeof bulk};
    m.frames[1] = slice_str("");
    m.n_frames = 2;
    SEND_UNTIL_TAKEN(l, client, &m);
    TURN_UNTIL(l, at_client.n == 1);
    assert_int_equal(at_client.head.request, 5);
    assert_memory_equal(at_client.body, "hello", 5);
    assert_int_equal(at_client.n_frames, 2);
    assert_int_equal(at_client.frame_n, sizeof bulk);
    assert_int_equal(bus_counts(b).received, 2);
    assert_int_equal(bus_counts(b).sent, 2);
    bus_free(b);
    loop_free(l);
}

static void over_ipc(void **state UNUSED)
{
    char dir[200], endpoint[300];
    temp_dir(dir, sizeof dir);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/bus", dir);
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen at_server = {0}, at_client = {0};
    bound(b, endpoint, &at_server);
    bus_sock *client = connected(b, endpoint, &at_client);
    struct wire_msg m = hello();
    SEND_UNTIL_TAKEN(l, client, &m);
    TURN_UNTIL(l, at_server.n == 1);
    bus_free(b);
    loop_free(l);
    unlink(endpoint + 6);
    assert_int_equal(rmdir(dir), 0);
}

/* A ROUTER says "sent" for peers it does not have, unless told otherwise. */
static void nobody_there(void **state UNUSED)
{
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen at_server = {0}, at_client = {0};
    bus_sock *server = bound(b, ANY_PORT, &at_server);
    struct wire_msg m = hello();
    assert_int_equal(bus_send(server, SLICE_LIT("nobody"), &m), ERR_UNAVAILABLE);
    assert_int_equal(bus_send(server, slice_str(""), &m), ERR_UNAVAILABLE);
    bus_sock *client = connected(b, bus_endpoint(server), &at_client);
    SEND_UNTIL_TAKEN(l, client, &m);
    TURN_UNTIL(l, at_server.n == 1);
    assert_int_equal(bus_send(server, route_of(&at_server), &m), 0);
    bus_close(client);
    TURN_UNTIL(l, bus_send(server, route_of(&at_server), &m) == ERR_UNAVAILABLE);
    bus_free(b);
    loop_free(l);
}

/* A DEALER queues for an address where nobody listens, unless told otherwise. */
static void nobody_listens(void **state UNUSED)
{
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen seen = {0};
    bus_sock *server = bound(b, ANY_PORT, &seen);
    char endpoint[300];
    snprintf(endpoint, sizeof endpoint, "%s", bus_endpoint(server));
    bus_close(server);
    bus_sock *client = connected(b, endpoint, &seen);
    struct wire_msg m = hello();
    turn_for(l, 100000);
    assert_int_equal(bus_send(client, slice_str(""), &m), ERR_AGAIN);
    bus_free(b);
    loop_free(l);
}

/* A full queue is said, and what was taken is delivered. */
static void full_queue(void **state UNUSED)
{
    loop *l = loop_new(), *slow = loop_new();
    bus *b = make_bus(l), *slow_bus = make_bus(slow);
    struct seen at_server = {0}, at_client = {0};
    bus_sock *server = bound(b, ANY_PORT, &at_server);
    bus_sock *client = connected(slow_bus, bus_endpoint(server), &at_client);
    struct wire_msg m = hello();
    SEND_UNTIL_TAKEN(slow, client, &m);
    TURN_UNTIL(l, at_server.n == 1);
    static char bulk[512 << 10];
    m.frames[0] = (slice){bulk, sizeof bulk};
    m.n_frames = 1;
    int taken = 0, e;
    while ((e = bus_send(server, route_of(&at_server), &m)) == 0)
        assert_true(++taken < 2000);
    assert_int_equal(e, ERR_AGAIN);
    TURN_UNTIL(slow, at_client.n == taken);
    assert_int_equal(at_client.frame_n, sizeof bulk);
    TURN_UNTIL(l, bus_send(server, route_of(&at_server), &m) == 0); /* there is room again */
    bus_free(slow_bus);
    bus_free(b);
    loop_free(slow);
    loop_free(l);
}

/* In the child: a client that says hello, and ends well when an answer has come and some rounds
 * have passed. */
static _Noreturn void client_process(int endpoint_fd)
{
    char endpoint[300] = {0};
    if (read(endpoint_fd, endpoint, sizeof endpoint - 1) <= 0)
        _exit(1);
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen seen = {0};
    bus_sock *s = connected(b, endpoint, &seen);
    struct wire_msg m = hello();
    for (bool said = false; seen.n == 0;) {
        loop_turn(l, 20000);
        said = said || bus_send(s, slice_str(""), &m) == 0;
    }
    turn_for(l, 300000);
    _exit(0);
}

static pid_t fork_client(int *endpoint_fd)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid =
        fork_child(); /* before this process has a context: libzmq does not survive a fork */
    if (pid == 0)
        client_process(fds[0]);
    close(fds[0]);
    *endpoint_fd = fds[1];
    return pid;
}

/* The kernel goes on taking bytes for a stopped process, so sends succeed up to the queue's end and
 * no further (that it is gone is what the protocol's heartbeats say: wire_session_test). Resumed,
 * with more waiting than its own high-water mark and the connection lost, it lives: libzmq's
 * heartbeats would abort it here. */
static void frozen_peer(void **state UNUSED)
{
    int endpoint_fd, status = -1;
    pid_t pid = fork_client(&endpoint_fd);
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen seen = {0};
    bus_sock *server = bound(b, ANY_PORT, &seen);
    const char *endpoint = bus_endpoint(server);
    assert_int_equal(write(endpoint_fd, endpoint, strlen(endpoint)), strlen(endpoint));
    close(endpoint_fd);
    TURN_UNTIL(l, seen.n == 1);
    kill(pid, SIGSTOP);
    struct wire_msg m = hello();
    static char bulk[64 << 10];
    m.frames[0] = (slice){bulk, sizeof bulk};
    m.n_frames = 1;
    int e, taken = 0;
    TURN_UNTIL(l, (e = bus_send(server, route_of(&seen), &m)) == ERR_AGAIN || ++taken > 20000);
    assert_int_equal(e, ERR_AGAIN);
    bus_close(server);
    turn_for(l, 700000); /* longer than a heartbeat's interval would be */
    kill(pid, SIGCONT);
    turn_for(l, 700000);
    /* It may have ended well, or be connecting again: libzmq drops what the client has not read
     * when its connection is lost. It has not been aborted. */
    kill(pid, SIGTERM);
    TURN_UNTIL(l, waitpid(pid, &status, WNOHANG) == pid);
    assert_true(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGTERM);
    bus_free(b);
    loop_free(l);
}

static void oversized(void **state UNUSED)
{
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen at_server = {0}, at_client = {0};
    bus_sock *server = bound(b, ANY_PORT, &at_server);
    bus_sock *client = connected(b, bus_endpoint(server), &at_client);
    struct wire_msg m = hello();
    static char bulk[WIRE_FRAME_MAX + 1];
    m.frames[0] = (slice){bulk, sizeof bulk};
    m.n_frames = 1;
    assert_int_equal(bus_send(client, slice_str(""), &m),
                     ERR_TOO_BIG); /* before anything is sent */
    int raw = raw_connect(bus_endpoint(server));
    static char large[WIRE_BODY_MAX + 1]; /* one byte beyond what any part may have */
    raw_frame(raw, large, sizeof large, false);
    assert_true(raw_closed(l, raw));
    close(raw);
    m = hello();
    SEND_UNTIL_TAKEN(l, client, &m); /* nobody else notices */
    TURN_UNTIL(l, at_server.n == 1);
    bus_free(b);
    loop_free(l);
}

/* Whatever it is, its sum is right. */
static void raw_message(int fd, const struct wire_msg *m)
{
    unsigned char head[WIRE_HEAD_BYTES];
    wire_head_put(m, head);
    raw_frame(fd, head, sizeof head, true);
    raw_frame(fd, m->body.p, m->body.n, m->n_frames > 0);
    for (size_t i = 0; i < m->n_frames; i++)
        raw_frame(fd, m->frames[i].p, m->frames[i].n, i + 1 < m->n_frames);
}

static void raw_head(int fd, int type, bool more)
{
    unsigned char head[WIRE_HEAD_BYTES];
    wire_head_put(&(struct wire_msg){.head = {.type = (uint8_t)type}}, head);
    raw_frame(fd, head, sizeof head, more);
}

static void malformed(void **state UNUSED)
{
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen seen = {0};
    bus_sock *server = bound(b, ANY_PORT, &seen);
    int raw = raw_connect(bus_endpoint(server));
    static char space[WIRE_BODY_MAX];
    raw_frame(raw, "", 0, false);                 /* one empty part */
    raw_head(raw, WIRE_READY, false);             /* no body */
    raw_frame(raw, space, WIRE_HEAD_BYTES, true); /* no magic */
    raw_frame(raw, "", 0, false);
    struct wire_msg m = {.head = {.type = WIRE_READY}, .body = {space, WIRE_CONTROL_MAX + 1}};
    raw_message(raw, &m); /* a control message with a large body */
    m = (struct wire_msg){
        .head = {.type = WIRE_CHUNK}, .frames = {{space, sizeof space}}, .n_frames = 1};
    raw_message(raw, &m);            /* a bulk frame as large as a body */
    raw_head(raw, WIRE_CHUNK, true); /* a thousand frames */
    for (int i = 0; i < 1000; i++)
        raw_frame(raw, "", 0, i < 999);
    raw_head(raw, WIRE_CHUNK, true); /* sixty-seven */
    for (int i = 0; i < WIRE_FRAMES_MAX + 2; i++)
        raw_frame(raw, "", 0, i < WIRE_FRAMES_MAX + 1);
    raw_head(raw, WIRE_CHUNK, true); /* the sum is of another body */
    raw_frame(raw, "what was not sent", 17, false);
    assert_int_equal(seen.n, 0);
    m.n_frames = WIRE_FRAMES_MAX; /* a good one, with as many frames as there may be */
    for (size_t i = 0; i < WIRE_FRAMES_MAX; i++)
        m.frames[i] = slice_str("");
    raw_message(raw, &m);
    TURN_UNTIL(l, seen.n == 1);
    assert_int_equal(seen.n_frames, WIRE_FRAMES_MAX);
    assert_int_equal(bus_counts(b).malformed, 8);
    assert_int_equal(seen.bad, 8); /* for whoever the connection belongs to */
    close(raw);
    bus_free(b);
    loop_free(l);
}

/* Sends swallow the edge of what came in, and one reading of the events clears the descriptor. A
 * lost wake-up leaves this test asleep until the alarm. */
static void no_wakeup_is_lost(void **state UNUSED)
{
    enum { ROUNDS = 400, BURST = 40 };
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen at_server = {.echo = true}, at_client = {0};
    bus_sock *server = bound(b, ANY_PORT, &at_server);
    bus_sock *client = connected(b, bus_endpoint(server), &at_client);
    struct wire_msg m = hello();
    SEND_UNTIL_TAKEN(l, client, &m);
    TURN_UNTIL(l, at_client.n == 1);
    alarm(60);
    for (int round = 0; round < ROUNDS; round++) {
        int want = at_client.n + (round % BURST) + 1;
        for (int i = 0; i <= round % BURST; i++)
            assert_int_equal(bus_send(client, slice_str(""), &m), 0);
        while (at_client.n < want)
            loop_turn(l, (uint64_t)300 * 1000000);
    }
    alarm(0);
    bus_free(b);
    loop_free(l);
}

/* A message has come in, and its wake-up was swallowed by a send: the loop must look before it
 * sleeps. */
static void a_send_swallows_a_wakeup(void **state UNUSED)
{
    loop *at_home = loop_new(), *away = loop_new();
    bus *b = make_bus(at_home), *far = make_bus(away);
    struct seen at_server = {.echo = true}, at_client = {0};
    bus_sock *server = bound(far, ANY_PORT, &at_server);
    bus_sock *client = connected(b, bus_endpoint(server), &at_client);
    struct wire_msg m = hello();
    SEND_UNTIL_TAKEN(at_home, client, &m);
    TURN_UNTIL(away, at_server.n == 1);
    alarm(60);
    for (int round = 1; round <= 20; round++) {
        TURN_UNTIL(away, at_server.n == round);
        usleep(5000); /* the answer reaches our side, where nobody looks yet */
        assert_int_equal(bus_send(client, slice_str(""), &m), 0);
        while (at_client.n < round)
            loop_turn(at_home, (uint64_t)300 * 1000000);
    }
    alarm(0);
    bus_free(b);
    bus_free(far);
    loop_free(at_home);
    loop_free(away);
}

static void closing_inside_a_callback(void **state UNUSED)
{
    loop *l = loop_new();
    bus *b = make_bus(l);
    struct seen at_server = {0}, at_client = {0}, other = {0};
    bus_sock *server = bound(b, ANY_PORT, &at_server), *second = bound(b, ANY_PORT, &other);
    bus_sock *client = connected(b, bus_endpoint(server), &at_client);
    struct wire_msg m = hello();
    at_server.close = second; /* a neighbour */
    SEND_UNTIL_TAKEN(l, client, &m);
    TURN_UNTIL(l, at_server.n == 1);
    at_server.close = server; /* itself, with more waiting */
    for (int i = 0; i < 10; i++)
        assert_int_equal(bus_send(client, slice_str(""), &m), 0);
    TURN_UNTIL(l, at_server.n == 2);
    turn_for(l, 20000);
    assert_int_equal(at_server.n, 2);
    bus_free(b);
    loop_free(l);
}

/* ---- leaving loopback, keys
 * ------------------------------------------------------------------------------------------- */

static void local_endpoints(void **state UNUSED)
{
    static const char *const local[] = {"tcp://127.0.0.1:1", "tcp://127.8.9.1:*",
                                        "tcp://localhost:5", "tcp://[::1]:5",
                                        "ipc:///run/x",      "inproc://x"};
    static const char *const far[] = {
        "tcp://0.0.0.0:1",        "tcp://*:1",       "tcp://10.0.0.1:1",  "tcp://[::]:1",
        "tcp://127.0.0.1.evil:1", "tcp://eth0:1",    "tcp://128.0.0.1:1", "udp://127.0.0.1:1",
        "tcp://127.0.0.1",        "tcp://gateway:1", "tcp://:1",          ""};
    for (size_t i = 0; i < ARRAY_LEN(local); i++)
        assert_true(bus_endpoint_is_local(local[i]));
    for (size_t i = 0; i < ARRAY_LEN(far); i++)
        assert_false(bus_endpoint_is_local(far[i]));
}

static void leaving_loopback_needs_keys(void **state UNUSED)
{
    loop *l = loop_new();
    bus *b = make_bus(l), *open;
    struct seen seen = {0};
    bus_sock *s;
    struct why w = {0};
    assert_int_equal(bus_bind(b, "tcp://0.0.0.0:*", on_msg, &seen, &s, &w), ERR_FORBIDDEN);
    assert_string_equal(w.field, "curve-key-file");
    assert_int_equal(bus_connect(b, "tcp://192.0.2.1:1", on_msg, &seen, &s, &w), ERR_FORBIDDEN);
    assert_int_equal(bus_may_connect(b, "tcp://gateway:1", &w), ERR_FORBIDDEN);
    struct bus_config cfg = {.insecure_network = true};
    assert_int_equal(bus_new(l, &cfg, &open, &w), 0);
    assert_int_equal(bus_bind(open, "tcp://0.0.0.0:*", on_msg, &seen, &s, &w), 0);
    bus_free(open);
    bus_free(b);
    loop_free(l);
}

struct keys {
    char dir[200], server_file[300], client_file[300], allow_file[300];
    char server_public[41], client_public[41], secret[41];
};

static void write_file(const char *path, const char *a, const char *b)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "# keys\n%s\n%s\n", a, b);
    assert_int_equal(fclose(f), 0);
}

static struct keys make_keys(void)
{
    struct keys k = {0};
    char scrap[41];
    temp_dir(k.dir, sizeof k.dir);
    snprintf(k.server_file, sizeof k.server_file, "%s/server", k.dir);
    snprintf(k.client_file, sizeof k.client_file, "%s/client", k.dir);
    snprintf(k.allow_file, sizeof k.allow_file, "%s/allow", k.dir);
    assert_int_equal(bus_new_keys(k.server_public, k.secret), 0);
    write_file(k.server_file, k.server_public, k.secret);
    assert_int_equal(bus_new_keys(k.client_public, k.secret), 0);
    write_file(k.client_file, k.client_public, k.secret);
    assert_int_equal(bus_new_keys(scrap, k.secret), 0);
    write_file(k.allow_file, scrap, ""); /* somebody else */
    return k;
}

static void remove_keys(const struct keys *k)
{
    unlink(k->server_file);
    unlink(k->client_file);
    unlink(k->allow_file);
    assert_int_equal(rmdir(k->dir), 0);
}

static bus *curve_bus(loop *l, const char *pair, const char *allow, const char *server_key)
{
    bus *b;
    struct why w = {0};
    struct bus_config cfg = {
        .secret_key_file = pair, .allow_file = allow, .server_key = server_key};
    if (bus_new(l, &cfg, &b, &w) < 0)
        fail_msg("%s: %s", w.field, w.text);
    return b;
}

/* CURVE without a ZAP handler lets every key in. */
static void only_listed_keys_get_in(void **state UNUSED)
{
    struct keys k = make_keys();
    loop *l = loop_new();
    bus *server_bus = curve_bus(l, k.server_file, k.allow_file, NULL);
    bus *client_bus = curve_bus(l, k.client_file, NULL, k.server_public);
    struct seen at_server = {.echo = true}, at_client = {0};
    struct why w = {0};
    bus_sock *server = bound(server_bus, "tcp://0.0.0.0:*", &at_server); /* with keys it may */
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1%s", strrchr(bus_endpoint(server), ':'));
    bus_sock *client = connected(client_bus, endpoint, &at_client);
    struct wire_msg m = hello();
    TURN_UNTIL(l, bus_counts(server_bus).refused_auth > 0);
    assert_int_equal(bus_send(client, slice_str(""), &m), ERR_AGAIN);
    write_file(k.allow_file, k.client_public, "");
    assert_int_equal(bus_reload_keys(server_bus, &w), 0);
    bus_close(client);
    client = connected(client_bus, endpoint, &at_client);
    SEND_UNTIL_TAKEN(l, client, &m);
    TURN_UNTIL(l, at_client.n == 1);
    write_file(k.allow_file, "not a key", "");
    assert_int_equal(bus_reload_keys(server_bus, &w), ERR_INVALID); /* and the old list stays */
    bus_close(client);
    client = connected(client_bus, endpoint, &at_client);
    SEND_UNTIL_TAKEN(l, client, &m);
    bus_free(client_bus);
    bus_free(server_bus);
    loop_free(l);
    remove_keys(&k);
}

static void without_keys_or_with_a_wrong_server_key(void **state UNUSED)
{
    struct keys k = make_keys();
    write_file(k.allow_file, k.client_public, "");
    loop *l = loop_new();
    bus *server_bus = curve_bus(l, k.server_file, k.allow_file, NULL), *plain = make_bus(l);
    bus *misled = curve_bus(l, k.client_file, NULL, k.client_public); /* expects another server */
    struct seen at_server = {0}, at_client = {0};
    bus_sock *server = bound(server_bus, ANY_PORT, &at_server);
    bus_sock *no_key = connected(plain, bus_endpoint(server), &at_client);
    bus_sock *wrong = connected(misled, bus_endpoint(server), &at_client);
    struct wire_msg m = hello();
    for (int i = 0; i < 20; i++) {
        turn_for(l, 20000);
        assert_int_equal(bus_send(no_key, slice_str(""), &m), ERR_AGAIN);
        assert_int_equal(bus_send(wrong, slice_str(""), &m), ERR_AGAIN);
    }
    int raw = raw_connect(bus_endpoint(server));
    raw_head(raw, WIRE_READY, true);
    raw_frame(raw, "", 0, false);
    assert_true(raw_closed(l, raw));
    close(raw);
    assert_int_equal(at_server.n, 0);
    bus_free(misled);
    bus_free(plain);
    bus_free(server_bus);
    loop_free(l);
    remove_keys(&k);
}

static void key_settings_are_checked(void **state UNUSED)
{
    struct keys k = make_keys();
    loop *l = loop_new();
    bus *b;
    bus_sock *s;
    struct seen seen = {0};
    struct why w;
    char missing[300];
    snprintf(missing, sizeof missing, "%s/none", k.dir);
    struct bus_config no_file = {.secret_key_file = missing},
                      no_pair = {.allow_file = k.allow_file},
                      bad_pair = {.secret_key_file = k.allow_file},
                      bad_key = {.secret_key_file = k.server_file, .server_key = "short"};
    assert_int_equal(bus_new(l, &no_file, &b, &w), ERR_IO);
    assert_null(strstr(w.text, k.dir));
    assert_int_equal(bus_new(l, &no_pair, &b, &w), ERR_INVALID);
    assert_int_equal(bus_new(l, &bad_pair, &b, &w), ERR_INVALID);
    assert_int_equal(bus_new(l, &bad_key, &b, &w), ERR_INVALID);
    b = curve_bus(l, k.server_file, NULL, NULL);
    assert_int_equal(bus_bind(b, ANY_PORT, on_msg, &seen, &s, &w), ERR_INVALID);
    assert_string_equal(w.field, "curve-allow-file");
    assert_int_equal(bus_connect(b, "tcp://127.0.0.1:1", on_msg, &seen, &s, &w), ERR_INVALID);
    assert_string_equal(w.field, "curve-server-key");
    bus_free(b);
    loop_free(l);
    remove_keys(&k);
}

int main(void)
{
    log_init("test", LOG_ERROR, 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frozen_peer), /* forks: first */
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(over_ipc),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(full_queue),
        cmocka_unit_test(oversized),
        cmocka_unit_test(malformed),
        cmocka_unit_test(no_wakeup_is_lost),
        cmocka_unit_test(a_send_swallows_a_wakeup),
        cmocka_unit_test(closing_inside_a_callback),
        cmocka_unit_test(local_endpoints),
        cmocka_unit_test(leaving_loopback_needs_keys),
        cmocka_unit_test(only_listed_keys_get_in),
        cmocka_unit_test(without_keys_or_with_a_wrong_server_key),
        cmocka_unit_test(key_settings_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
