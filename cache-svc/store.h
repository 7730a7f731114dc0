/* Redis, asynchronously on the loop: the only file pair with hiredis. Two connections, so that a
 * value of a megabyte does not hold up a record. A command has a deadline; a connection that misses
 * one is closed, everything that waits on it ends with ERR_UNAVAILABLE, and it is made anew with
 * growing pauses, its name looked up again. A server that has become a
 * replica counts as away. Loop thread only. */
#ifndef NUNCHI_CACHE_STORE_H
#define NUNCHI_CACHE_STORE_H

#include "common/base/loop.h"
#include "common/base/shared.h"

typedef struct store store;

struct store_config {
    const char *address;       /* "host:port", "unix:/path" */
    const char *password_file; /* its first line; NULL: none */
    uint32_t timeout_ms;       /* of connecting and of each command */
    const char *loss;          /* what its being away means, for the log; NULL: nothing said */
};

/* What Redis answered; borrowed until the callback returns. */
struct store_reply {
    int err;  /* 0; ERR_UNAVAILABLE: away, slow or full; ERR_INVALID: it refused this command */
    bool nil; /* no such thing */
    int64_t number;
    slice bytes;
    shared *value;     /* where bytes lie; may be narrowed, and held on to; NULL: copy them */
    const slice *list; /* of strings; a nil in it has p == NULL */
    size_t n;
};
typedef void (*store_fn)(void *ctx, const struct store_reply *r);

enum store_line { STORE_SMALL, STORE_BULK, STORE_LINES };

int store_new(loop *l, const struct store_config *cfg, store **out, struct why *w) MUST_USE;
void store_free(store *s); /* ends what waits, with ERR_UNAVAILABLE */
bool store_up(const store *s);
/* fn is called once, later; not at all when this fails: ERR_UNAVAILABLE, ERR_BUSY when too much
 * waits already. */
int store_send(store *s, enum store_line line, const slice *argv, size_t n, store_fn fn,
               void *ctx) MUST_USE;

#endif
