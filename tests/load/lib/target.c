#include "tests/load/lib/target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/json/json.h"
#include "tests/load/lib/answer.h"

#define MODELS_WAIT_MS 10000
#define SLOW_BUFFER_BYTES 4096

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24) == 127;
    return a->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

static int split_url(const char *url, char host[256], char port[8], struct why *w)
{
    slice rest = slice_str(url);
    if (!slice_starts(rest, SLICE_LIT("http://")))
        return why_set(w, ERR_INVALID, "url", "http://host:port; there is no TLS here");
    rest = (slice){rest.p + 7, rest.n - 7};
    while (rest.n && rest.p[rest.n - 1] == '/')
        rest.n--;
    const char *colon = memrchr(rest.p, ':', rest.n);
    size_t n = colon ? (size_t)(colon - rest.p) : rest.n;
    bool bracketed = n >= 2 && rest.p[0] == '[' && rest.p[n - 1] == ']';
    if (n == 0 || n >= 256 || (colon && rest.n - n - 1 >= 8) || memchr(rest.p, '/', rest.n))
        return why_set(w, ERR_INVALID, "url", "http://host:port, without a path");
    snprintf(host, 256, "%.*s", (int)(bracketed ? n - 2 : n), rest.p + bracketed);
    snprintf(port, 8, "%.*s", colon ? (int)(rest.n - n - 1) : 2, colon ? colon + 1 : "80");
    return 0;
}

static int resolve(struct target *t, const char *host, const char *port, bool any, struct why *w)
{
    struct addrinfo hint = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *all = NULL;
    int rc = getaddrinfo(host, port, &hint, &all);
    if (rc != 0)
        return why_set(w, ERR_INVALID, "url", "%s: %s", host, gai_strerror(rc));
    int err = 0;
    if (!any && !is_loopback(all->ai_addr))
        err = why_set(w, ERR_FORBIDDEN, "url",
                      "%s is not this machine; --any-host if it is yours to load", host);
    memcpy(&t->address, all->ai_addr, all->ai_addrlen);
    t->address_len = all->ai_addrlen;
    freeaddrinfo(all);
    return err;
}

int target_open(struct target *t, const struct load_options *o, struct why *w)
{
    char host[256], port[8];
    *t = (struct target){.address_len = 0};
    int err = split_url(o->url, host, port, w);
    if (err < 0 || (err = resolve(t, host, port, o->any_host, w)) < 0)
        return err;
    snprintf(t->host, sizeof t->host, "%s", o->url + 7);
    t->host[strcspn(t->host, "/")] = 0;
    if (o->key)
        buf_printf(&t->headers, "Authorization: Bearer %s\r\n", o->key);
    if (o->header)
        buf_printf(&t->headers, "%s\r\n", o->header);
    return 0;
}

void target_close(struct target *t)
{
    buf_clear(&t->headers);
}

int target_connect(const struct target *t, bool slow_reader)
{
    int on = 1, small = SLOW_BUFFER_BYTES;
    int fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_from_errno(errno);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (slow_reader)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (connect(fd, (const struct sockaddr *)&t->address, t->address_len) == 0 ||
        errno == EINPROGRESS)
        return fd;
    close(fd);
    return ERR_IO;
}

void target_head(const struct target *t, const char *method, const char *path, size_t length,
                 buf *out)
{
    buf_printf(out, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, t->host);
    buf_put_slice(out, buf_slice(&t->headers));
    if (length)
        buf_printf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n", length);
    buf_put_str(out, "\r\n");
}

/* ---- which model ---- */

static int nobody(const struct target *t, struct why *w)
{
    return why_set(w, ERR_UNAVAILABLE, "url", "nobody listens at %.200s", t->host);
}

/* All of it has one time to be done in: a server may also go on saying something forever. */
static bool ready(int fd, short events, uint64_t until_us)
{
    struct pollfd p = {.fd = fd, .events = events};
    uint64_t now = clock_mono_us();
    return now < until_us && poll(&p, 1, (int)((until_us - now) / 1000) + 1) == 1;
}

static int feed(struct answer *a, slice piece, struct why *w)
{
    struct why bad = {.text = "the connection ended before the answer"};
    int err = piece.n ? answer_feed(a, piece, &bad) : answer_eof(a);
    return err < 0 ? why_set(w, err, "url", "GET /v1/models: %s", bad.text) : 0;
}

static int exchange(const struct target *t, int fd, slice request, struct answer *a, struct why *w)
{
    char piece[16384];
    uint64_t until_us = clock_mono_us() + (uint64_t)MODELS_WAIT_MS * 1000;
    if (!ready(fd, POLLOUT, until_us) ||
        send(fd, request.p, request.n, MSG_NOSIGNAL) != (ssize_t)request.n)
        return nobody(t, w);
    while (a->state != ANSWER_DONE) {
        if (!ready(fd, POLLIN, until_us))
            return why_set(w, ERR_TIMEOUT, "url", "GET /v1/models has no answer in %d ms",
                           MODELS_WAIT_MS);
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0)
            return why_set(w, ERR_UNAVAILABLE, "url", "%s", strerror(errno));
        int err = feed(a, (slice){piece, (size_t)n}, w);
        if (err < 0)
            return err;
    }
    return 0;
}

static int first_model(slice body, buf *name, struct why *w)
{
    static const struct json_limits LIMITS = {ANSWER_KEPT_MAX, 32, 100000, true};
    json_doc *d;
    int err = json_doc_parse(body, &LIMITS, &d, w);
    if (err < 0)
        return why_set(w, err, "url", "GET /v1/models is not answered with JSON");
    slice id =
        json_str_or(json_get(json_at(json_get(json_doc_root(d), "data"), 0), "id"), (slice){0});
    buf_put_slice(name, id);
    json_doc_free(d);
    return id.n ? 0 : why_set(w, ERR_NOT_FOUND, "model-name", "the server names no model");
}

int target_model(const struct target *t, buf *name, struct why *w)
{
    struct answer a = {0};
    buf request = {0};
    answer_init(&a);
    target_head(t, "GET", "/v1/models", 0, &request);
    int fd = target_connect(t, false), err = fd;
    if (fd < 0)
        nobody(t, w);
    else
        err = exchange(t, fd, buf_slice(&request), &a, w);
    if (err == 0 && a.status != 200)
        err = why_set(w, ERR_UNAVAILABLE, "url", "GET /v1/models is answered with %d", a.status);
    if (err == 0)
        err = first_model(buf_slice(&a.kept), name, w);
    if (fd >= 0)
        close(fd);
    buf_clear(&request);
    answer_clear(&a);
    return err;
}
