/* What the tests of sockets share: turning a loop until something is so, free endpoints, and a peer
 * that speaks ZMTP by hand, for what libzmq would never send. */
#ifndef NUNCHI_WIRE_TESTING_H
#define NUNCHI_WIRE_TESTING_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/bus.h"

#define ANY_PORT "tcp://127.0.0.1:*"
#define PATIENCE_US ((uint64_t)20 * 1000000) /* for a machine that is busy with other things */

/* Turns the loop until cond holds; fails the test when it never does. */
#define TURN_UNTIL(l, cond)                                                                        \
    do {                                                                                           \
        uint64_t until_ = clock_mono_us() + PATIENCE_US;                                           \
        bool met_;                                                                                 \
        while (!(met_ = (cond)) && clock_mono_us() < until_)                                       \
            loop_turn((l), 20000);                                                                 \
        if (!met_)                                                                                 \
            fail_msg("never came: %s", #cond);                                                     \
    } while (0)

/* Lets everything that is under way arrive: for showing that something does not happen. */
static inline void turn_for(loop *l, uint64_t us)
{
    for (uint64_t end = clock_mono_us() + us; clock_mono_us() < end;)
        loop_turn(l, 5000);
}

static inline bus *make_bus(loop *l)
{
    bus *b;
    struct bus_config cfg = {0};
    struct why w = {0};
    if (bus_new(l, &cfg, &b, &w) < 0)
        fail_msg("%s", w.text);
    return b;
}

static inline void temp_dir(char *out, size_t n)
{
    const char *base = getenv("TMPDIR");
    snprintf(out, n, "%s/nunchi-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(out));
}

/* fork, for children that must not outlive a test that fails. */
static inline pid_t fork_child(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static inline void reap_child(pid_t pid)
{
    int status;
    kill(pid, SIGCONT);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

/* ---- a peer without libzmq
 * ------------------------------------------------------------------------------------------ */

static inline void raw_write(int fd, const void *p, size_t n)
{
    const char *at = p;
    while (n) {
        ssize_t k = send(fd, at, n, MSG_NOSIGNAL);
        if (k <= 0)
            return; /* the other side closed: what the test is about */
        at += k;
        n -= (size_t)k;
    }
}

static inline void raw_frame(int fd, const void *p, size_t n, bool more)
{
    unsigned char head[9] = {(unsigned char)(more ? 3 : 2)}; /* long frame */
    for (int i = 0; i < 8; i++)
        head[1 + i] = (unsigned char)((uint64_t)n >> (56 - 8 * i));
    raw_write(fd, head, sizeof head);
    raw_write(fd, p, n);
}

static inline int tcp_to(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Connects as a DEALER with the NULL mechanism. */
static inline int raw_connect(const char *endpoint)
{
    int port = 0;
    assert_int_equal(sscanf(endpoint, "tcp://127.0.0.1:%d", &port), 1);
    int fd = tcp_to(port);
    unsigned char greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    raw_write(fd, greeting, sizeof greeting);
    static const char ready[] = "\x05READY\x0bSocket-Type\0\0\0\x06"
                                "DEALER\x08Identity\0\0\0\0";
    unsigned char head[2] = {4, sizeof ready - 1};
    raw_write(fd, head, sizeof head);
    raw_write(fd, ready, sizeof ready - 1);
    char theirs[64 + 43]; /* greeting and READY: what is sent before them would be lost */
    recv(fd, theirs, sizeof theirs, MSG_WAITALL);
    return fd;
}

/* Turns the loop until the other side has closed this connection. */
static inline bool raw_closed(loop *l, int fd)
{
    char sink[4096];
    for (uint64_t end = clock_mono_us() + PATIENCE_US; clock_mono_us() < end;) {
        loop_turn(l, 5000);
        ssize_t n = recv(fd, sink, sizeof sink, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return true;
    }
    return false;
}

#endif
