#include "common/base/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 512
#define HOST_MAX 256
#define PORT_MAX 16

static int split(const char *endpoint, const char *field, char host[HOST_MAX], char port[PORT_MAX],
                 struct why *w)
{
    const char *colon = strrchr(endpoint, ':');
    if (!colon || colon - endpoint >= HOST_MAX || strlen(colon + 1) >= PORT_MAX || !colon[1])
        return why_set(w, ERR_INVALID, field, "'%s' is not an address like 127.0.0.1:8642",
                       endpoint);
    size_t n = (size_t)(colon - endpoint);
    const char *from = endpoint;
    if (n >= 2 && from[0] == '[' && from[n - 1] == ']') {
        from++;
        n -= 2;
    }
    memcpy(host, from, n);
    host[n] = 0;
    snprintf(port, PORT_MAX, "%s", colon + 1);
    return 0;
}

static int bind_one(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int keep = errno;
    close(fd);
    errno = keep;
    return -1;
}

int listen_tcp(const char *endpoint, const char *field, int *fd, struct why *w)
{
    char host[HOST_MAX] = "", port[PORT_MAX] = "";
    int e = split(endpoint, field, host, port, w);
    if (e < 0)
        return e;
    struct addrinfo hint = {.ai_family = AF_UNSPEC,
                            .ai_socktype = SOCK_STREAM,
                            .ai_flags = AI_PASSIVE},
                    *all = NULL;
    const char *name = host[0] && strcmp(host, "*") != 0 ? host : NULL;
    int rc = getaddrinfo(name, port, &hint, &all);
    if (rc != 0)
        return why_set(w, ERR_INVALID, field, "%s: %s", endpoint, gai_strerror(rc));
    *fd = -1;
    errno = 0;
    for (const struct addrinfo *a = all; a && *fd < 0; a = a->ai_next)
        *fd = bind_one(a);
    int err = errno;
    freeaddrinfo(all);
    return *fd < 0 ? why_set(w, ERR_IO, field, "%s: %s", endpoint, strerror(err)) : 0;
}

uint16_t listen_port(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = {.v6 = {.sin6_port = 0}};
    socklen_t n = sizeof a;
    if (getsockname(fd, &a.any, &n) < 0)
        return 0;
    if (a.any.sa_family == AF_INET6)
        return ntohs(a.v6.sin6_port);
    return a.any.sa_family == AF_INET ? ntohs(a.v4.sin_port) : 0;
}
