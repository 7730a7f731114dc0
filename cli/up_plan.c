#include "cli/up_plan.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/home.h"
#include "common/base/thread.h"

/* A free port, or the asked one if it is free. */
static int pick_port(uint64_t wanted, int *port, struct why *w)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wanted)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t n = sizeof at;
    int bad = bind(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
              getsockname(fd, (struct sockaddr *)&at, &n) < 0;
    int e = errno;
    close(fd);
    *port = ntohs(at.sin_port);
    if (bad)
        return why_set(w, ERR_BUSY, "port",
                       "port %llu on 127.0.0.1 cannot be used: %s; choose another with --port",
                       (unsigned long long)wanted, strerror(e));
    return 0;
}

static int need_program(const char *name, char **out, struct why *w)
{
    *out = home_program(name);
    if (*out)
        return 0;
    return why_set(w, ERR_NOT_FOUND, "", "%s is not here; %s", name,
                   strcmp(name, "redis-server") == 0 ? "apt-get install redis-server"
                                                     : "build it with: make");
}

static void add_redis(struct plan *p, const char *name, const char *program, const char *folder,
                      bool durable, const char *policy)
{
    struct plan_service *s = plan_add(p, name, program);
    plan_arg(s, "--port");
    plan_arg(s, "0");
    plan_arg(s, "--unixsocket");
    plan_arg(s, "%s/%s.sock", p->state.sockets, name);
    plan_arg(s, "--unixsocketperm");
    plan_arg(s, "700");
    plan_arg(s, "--dir");
    plan_arg(s, "%s", folder);
    plan_arg(s, "--appendonly");
    plan_arg(s, "%s", durable ? "yes" : "no");
    plan_arg(s, "--save");
    plan_arg(s, "%s", "");
    plan_arg(s, "--maxmemory");
    plan_arg(s, "1gb");
    plan_arg(s, "--maxmemory-policy");
    plan_arg(s, "%s", policy);
}

/* Two: hundreds of megabytes of KV that may be forgotten share neither the file nor the room of
 * what must last. */
static int plan_redis(struct plan *p, struct why *w)
{
    char *program, *data;
    int e = need_program("redis-server", &program, w);
    if (e < 0)
        return e;
    e = home_make("redis/", &data, w);
    if (e >= 0) {
        /* What carries no time to live (files) is never evicted. */
        add_redis(p, "redis", program, data, true, "volatile-lru");
        add_redis(p, "redis-kv", program, data, false, "allkeys-lfu");
        free(data);
    }
    free(program);
    return e;
}

/* "gateway", "gateway-2", "gateway-3" … */
static void name_of(char out[32], const char *kind, uint64_t i)
{
    if (i == 0)
        snprintf(out, 32, "%s", kind);
    else
        snprintf(out, 32, "%s-%llu", kind, (unsigned long long)i + 1);
}

static void add_targets(struct plan *p, struct plan_service *s, const char *option,
                        const char *kind, uint64_t n)
{
    buf list = {0};
    for (uint64_t i = 0; i < n; i++) {
        char name[32];
        name_of(name, kind, i);
        buf_printf(&list, "%sipc://%s/%s.sock", i ? "," : "", p->state.sockets, name);
    }
    plan_arg(s, "%s", option);
    plan_arg(s, "%s", buf_cstr(&list));
    buf_clear(&list);
}

static void add_bus(struct plan *p, const struct up_options *o, struct plan_service *s, bool caches)
{
    add_targets(p, s, "--gateways", "gateway", o->gateways);
    if (caches)
        add_targets(p, s, "--caches", "cache", o->caches);
}

static int plan_service(struct plan *p, const char *name, const char *program,
                        struct plan_service **out, struct why *w)
{
    char *path;
    int e = need_program(program, &path, w);
    if (e < 0)
        return e;
    *out = plan_add(p, name, path);
    free(path);
    return 0;
}

static int plan_cache(struct plan *p, const struct up_options *o, uint64_t i, struct why *w)
{
    struct plan_service *s;
    char name[32];
    name_of(name, "cache", i);
    int e = plan_service(p, name, "nunchi-cache", &s, w);
    if (e < 0)
        return e;
    add_bus(p, o, s, false);
    plan_arg(s, "--bind");
    plan_arg(s, "ipc://%s/%s.sock", p->state.sockets, name);
    plan_arg(s, "--redis");
    plan_arg(s, "unix:%s/redis.sock", p->state.sockets);
    plan_arg(s, "--kv-redis");
    plan_arg(s, "unix:%s/redis-kv.sock", p->state.sockets);
    return 0;
}

static int plan_caches(struct plan *p, const struct up_options *o, struct why *w)
{
    int e = 0;
    for (uint64_t i = 0; e >= 0 && i < o->caches; i++)
        e = plan_cache(p, o, i, w);
    return e;
}

static int plan_tokenizer(struct plan *p, const struct up_options *o, uint64_t i, struct why *w)
{
    struct plan_service *s;
    char name[32];
    name_of(name, "tokenizer", i);
    int e = plan_service(p, name, "nunchi-tokenizer", &s, w);
    if (e < 0)
        return e;
    add_bus(p, o, s, false);
    plan_arg(s, "--model");
    plan_arg(s, "%s", p->state.models[i]);
    if (o->chat_format) {
        plan_arg(s, "--chat-format");
        plan_arg(s, "%s", o->chat_format);
    }
    return 0;
}

static int plan_video(struct plan *p, const struct up_options *o, struct why *w)
{
    struct plan_service *s;
    char *spool;
    int e = home_make("spool/", &spool, w);
    if (e < 0)
        return e;
    e = plan_service(p, "video", "nunchi-video", &s, w);
    if (e >= 0) {
        add_bus(p, o, s, true);
        plan_arg(s, "--spool-dir");
        plan_arg(s, "%s", spool);
    }
    free(spool);
    return e;
}

/* Worker i of all models: those of one model stand side by side. */
static int plan_worker(struct plan *p, const struct up_options *o, uint64_t i, uint64_t threads,
                       struct why *w)
{
    struct plan_service *s;
    char name[32];
    snprintf(name, sizeof name, "model-%llu", (unsigned long long)i + 1);
    int e = plan_service(p, name, "nunchi-model", &s, w);
    if (e < 0)
        return e;
    add_bus(p, o, s, true);
    plan_arg(s, "--model");
    plan_arg(s, "%s", p->state.models[i / o->workers]);
    plan_arg(s, "--threads");
    plan_arg(s, "%llu", (unsigned long long)threads);
    if (o->backend) {
        plan_arg(s, "--backend");
        plan_arg(s, "%s", o->backend);
    }
    if (o->chat_format) {
        plan_arg(s, "--chat-format");
        plan_arg(s, "%s", o->chat_format);
    }
    return 0;
}

static int plan_models(struct plan *p, const struct up_options *o, struct why *w)
{
    uint64_t threads = o->threads, all = o->workers * o->n_models, cpus = (uint64_t)thread_cpus();
    int e = 0;
    if (threads == 0 && all > 1)
        threads = cpus > all ? cpus / all : 1;
    for (uint64_t i = 0; e >= 0 && i < o->n_models; i++)
        e = plan_tokenizer(p, o, i, w);
    for (uint64_t i = 0; e >= 0 && i < all; i++)
        e = plan_worker(p, o, i, threads, w);
    return e;
}

/* Last, so that it is the first to stop: it lets running answers end while the others still work.
 */
static int plan_gateway(struct plan *p, const struct up_options *o, uint64_t i, struct why *w)
{
    struct plan_service *s;
    char name[32];
    int port = p->state.port;
    name_of(name, "gateway", i);
    int e = i == 0 ? 0 : pick_port(o->port ? o->port + i : 0, &port, w);
    if (e >= 0)
        e = plan_service(p, name, "nunchi-gateway", &s, w);
    if (e < 0)
        return e;
    p->state.services[p->n - 1].port = port;
    plan_arg(s, "--bind");
    plan_arg(s, "ipc://%s/%s.sock", p->state.sockets, name);
    plan_arg(s, "--http");
    plan_arg(s, "127.0.0.1:%d", port);
    if (o->keys) {
        plan_arg(s, "--keys");
        plan_arg(s, "%s", o->keys);
    }
    return 0;
}

static int plan_gateways(struct plan *p, const struct up_options *o, struct why *w)
{
    int e = 0;
    for (uint64_t i = 0; e >= 0 && i < o->gateways; i++)
        e = plan_gateway(p, o, i, w);
    return e;
}

static int plan_all(const struct up_options *o, struct plan *p, struct why *w)
{
    int e = pick_port(o->port, &p->state.port, w);
    if (e >= 0)
        e = plan_redis(p, w);
    if (e >= 0)
        e = plan_caches(p, o, w);
    if (e >= 0)
        e = plan_video(p, o, w);
    if (e >= 0)
        e = plan_models(p, o, w);
    if (e >= 0)
        e = plan_gateways(p, o, w);
    return e;
}

int up_plan(const struct up_options *o, char *const *files, struct plan *p, struct why *w)
{
    for (size_t i = 0; i < o->n_models; i++)
        snprintf(p->state.models[i], sizeof p->state.models[i], "%s", files[i]);
    p->state.n_models = o->n_models;
    snprintf(p->state.sockets, sizeof p->state.sockets, "/tmp/nunchi-XXXXXX");
    p->drain_ms = 35000;
    if (!mkdtemp(p->state.sockets))
        return why_set(w, ERR_IO, "", "cannot make a folder in /tmp: %s", strerror(errno));
    int e = plan_all(o, p, w);
    if (e < 0)
        rmdir(p->state.sockets);
    return e;
}
