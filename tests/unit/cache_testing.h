/* A real redis-server of our own, on a unix socket in a temp folder; started, stopped, killed by
 * the test. */
#ifndef NUNCHI_CACHE_TESTING_H
#define NUNCHI_CACHE_TESTING_H

#include "tests/unit/wire_testing.h"

#include <fcntl.h>
#include <sys/un.h>

#include "cache-svc/store.h"

struct redis {
    char dir[200], socket[260], address[300];
    pid_t pid;
};

/* password: "" none. port: 0 none. */
static inline void redis_start(struct redis *r, const char *password, const char *port)
{
    if (!r->dir[0]) {
        temp_dir(r->dir, sizeof r->dir);
        snprintf(r->socket, sizeof r->socket, "%s/redis.sock", r->dir);
        snprintf(r->address, sizeof r->address, "unix:%s", r->socket);
    }
    r->pid = fork_child();
    if (r->pid > 0)
        return;
    int null = open("/dev/null", O_RDWR);
    dup2(null, 1);
    dup2(null, 2);
    execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--unixsocket",
           r->socket, "--save", "", "--dir", r->dir, "--requirepass", password, (char *)NULL);
    _exit(127);
}

static inline void redis_kill(struct redis *r)
{
    if (r->pid > 0)
        reap_child(r->pid);
    r->pid = 0;
}

static inline void redis_end(struct redis *r)
{
    redis_kill(r);
    unlink(r->socket);
    assert_int_equal(rmdir(r->dir), 0);
}

static inline bool redis_installed(void)
{
    return system("redis-server --version >/dev/null 2>&1") == 0;
}

/* One answer, kept. */
struct answer {
    int n, err;
    bool nil;
    int64_t number;
    buf bytes;
    size_t list_n;
};

static inline void on_answer(void *ctx, const struct store_reply *r)
{
    struct answer *a = ctx;
    a->n++;
    a->err = r->err;
    a->nil = r->nil;
    a->number = r->number;
    a->list_n = r->n;
    buf_reset(&a->bytes);
    buf_put_slice(&a->bytes, r->bytes);
}

/* Up to four words, the last NULL; returns what the store said. */
static inline int ask(loop *l, store *s, struct answer *a, const char *const *words)
{
    slice argv[8];
    size_t n = 0;
    for (; words[n]; n++)
        argv[n] = slice_str(words[n]);
    int before = a->n, e = store_send(s, STORE_SMALL, argv, n, on_answer, a);
    if (e < 0)
        return e;
    TURN_UNTIL(l, a->n > before);
    return a->err;
}
#define ASK(l, s, a, ...) ask((l), (s), (a), (const char *const[]){__VA_ARGS__, NULL})

static inline store *make_store(loop *l, const char *address, uint32_t timeout_ms)
{
    store *s;
    struct why w = {0};
    struct store_config cfg = {.address = address, .timeout_ms = timeout_ms};
    if (store_new(l, &cfg, &s, &w) < 0)
        fail_msg("%s: %s", w.field, w.text);
    return s;
}

#endif
