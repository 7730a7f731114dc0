#include "common/wire/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>

#include "common/base/slice.h"

struct resolve {
    pthread_mutex_t lock;
    bool finished, abandoned; /* under lock; whoever comes second frees */
    size_t n;
    struct target targets[TARGETS_MAX];
    struct addresses found;
};

/* ---- targets
 * --------------------------------------------------------------------------------------------------------
 */

static int bad_target(struct why *w, slice t)
{
    return why_set(w, ERR_INVALID, "targets", "\"%.*s\" is not host:port or ipc:///path",
                   (int)(t.n < 80 ? t.n : 80), t.p);
}

static bool is_numeric(const char *host)
{
    struct in_addr v4;
    return host[0] == '[' || inet_pton(AF_INET, host, &v4) == 1;
}

static int parse_tcp(slice t, struct target *out, struct why *w)
{
    slice host = t;
    if (slice_starts(host, SLICE_LIT("tcp://")))
        host = (slice){host.p + 6, host.n - 6};
    size_t colon = host.n;
    while (colon && host.p[colon - 1] != ':')
        colon--;
    if (colon < 2)
        return bad_target(w, t);
    slice port = {host.p + colon, host.n - colon};
    host.n = colon - 1;
    uint64_t number;
    if (slice_u64(port, &number) < 0 || number == 0 || number > 65535 ||
        host.n >= sizeof out->host || memchr(host.p, '/', host.n) ||
        (memchr(host.p, ':', host.n) && host.p[0] != '['))
        return bad_target(w, t);
    memcpy(out->host, host.p, host.n);
    snprintf(out->port, sizeof out->port, "%u", (unsigned)(uint16_t)number);
    snprintf(out->endpoint, sizeof out->endpoint, "tcp://%s:%s", out->host, out->port);
    if (is_numeric(out->host))
        out->host[0] = '\0';
    return 0;
}

static int parse_target(slice t, struct target *out, struct why *w)
{
    *out = (struct target){0};
    bool as_is = slice_starts(t, SLICE_LIT("ipc://")) || slice_starts(t, SLICE_LIT("inproc://"));
    if (!as_is)
        return parse_tcp(t, out, w);
    if (t.n >= sizeof out->endpoint)
        return bad_target(w, t);
    memcpy(out->endpoint, t.p, t.n);
    return 0;
}

int targets_parse(const char *text, struct target out[TARGETS_MAX], struct why *w)
{
    slice rest = slice_str(text), piece;
    int n = 0;
    while (slice_split(&rest, ',', &piece)) {
        piece = slice_trim(piece);
        if (!piece.n)
            continue;
        if (n == TARGETS_MAX)
            return why_set(w, ERR_TOO_BIG, "targets", "more than %d targets", TARGETS_MAX);
        int e = parse_target(piece, &out[n], w);
        if (e < 0)
            return e;
        n++;
    }
    return n;
}

/* ---- looking up, on the thread
 * ---------------------------------------------------------------------------------------- */

static void add(struct addresses *a, const char *endpoint)
{
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->list[i].endpoint, endpoint) == 0)
            return;
    if (a->n < ADDRESSES_MAX)
        snprintf(a->list[a->n++].endpoint, ADDRESS_TEXT, "%s", endpoint);
}

static size_t add_family(struct addresses *a, const struct addrinfo *list, int family,
                         const char *port)
{
    size_t n = 0;
    for (const struct addrinfo *i = list; i; i = i->ai_next) {
        char host[64], endpoint[ADDRESS_TEXT];
        if (i->ai_family != family ||
            getnameinfo(i->ai_addr, i->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0)
            continue;
        snprintf(endpoint, sizeof endpoint, family == AF_INET6 ? "tcp://[%s]:%s" : "tcp://%s:%s",
                 host, port);
        add(a, endpoint);
        n++;
    }
    return n;
}

static void look_up(const struct target *t, struct addresses *a)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    int rc = getaddrinfo(t->host, t->port, &hints, &list);
    if (rc != 0) {
        a->failed = true;
        snprintf(a->why, sizeof a->why, "%s", gai_strerror(rc));
        return;
    }
    /* Not both families of a name: they lead to the same processes, and each would get two links
     * from us. */
    if (add_family(a, list, AF_INET, t->port) == 0)
        add_family(a, list, AF_INET6, t->port);
    freeaddrinfo(list);
}

static void destroy(resolve *r)
{
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void *run(void *ctx)
{
    resolve *r = ctx;
    for (size_t i = 0; i < r->n; i++) {
        if (r->targets[i].host[0])
            look_up(&r->targets[i], &r->found);
        else
            add(&r->found, r->targets[i].endpoint);
    }
    pthread_mutex_lock(&r->lock);
    r->finished = true;
    bool mine = r->abandoned;
    pthread_mutex_unlock(&r->lock);
    if (mine)
        destroy(r);
    return NULL;
}

resolve *resolve_start(const struct target *targets, size_t n)
{
    CHECK(n <= TARGETS_MAX);
    resolve *r = xcalloc(1, sizeof *r);
    CHECK(pthread_mutex_init(&r->lock, NULL) == 0);
    r->n = n;
    memcpy(r->targets, targets, n * sizeof *targets);
    pthread_attr_t attr;
    pthread_t thread;
    CHECK(pthread_attr_init(&attr) == 0);
    CHECK(pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED) == 0);
    int rc = pthread_create(&thread, &attr, run, r);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        destroy(r);
        return NULL;
    }
    return r;
}

const struct addresses *resolve_result(resolve *r)
{
    pthread_mutex_lock(&r->lock);
    bool finished = r->finished;
    pthread_mutex_unlock(&r->lock);
    return finished ? &r->found : NULL;
}

void resolve_free(resolve *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->abandoned = true;
    bool mine = r->finished;
    pthread_mutex_unlock(&r->lock);
    if (mine)
        destroy(r);
}
