/* The server under load: its address, and connections to it. */
#ifndef NUNCHI_LOAD_TARGET_H
#define NUNCHI_LOAD_TARGET_H

#include <sys/socket.h>

#include "tests/load/lib/options.h"

struct target {
    struct sockaddr_storage address;
    socklen_t address_len;
    char host[300]; /* host:port, for the Host header */
    buf headers;    /* those of every request, each with its line end */
};

/* ERR_FORBIDDEN for an address that is not loopback, unless any-host is set. */
int target_open(struct target *t, const struct load_options *o, struct why *w) MUST_USE;
void target_close(struct target *t);
/* A non-blocking socket, connected or on its way there; or an error. */
int target_connect(const struct target *t, bool slow_reader) MUST_USE;
/* Appends the head of a request; length: of the body, 0 for a GET. */
void target_head(const struct target *t, const char *method, const char *path, size_t length,
                 buf *out);
/* The first model that the server names; waits for it. */
int target_model(const struct target *t, buf *name, struct why *w) MUST_USE;

#endif
