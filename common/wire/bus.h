/* ZeroMQ on our loop: the only file pair with zmq.h. A `bus` holds the context and the keys; a
 * `bus_sock` is one ROUTER (bound) or DEALER (connected). Loop thread only. What callbacks receive
 * is borrowed until they return.
 *
 * The measured traps of libzmq are dealt with here: ROUTER_MANDATORY, never blocking, small
 * high-water marks, MAXMSGSIZE, TCP keepalive, IMMEDIATE, LINGER, the edge-triggered fd (read again
 * before every sleep), CURVE only with ZAP. */
#ifndef NUNCHI_BUS_H
#define NUNCHI_BUS_H

#include "common/base/loop.h"
#include "common/wire/frame.h"

typedef struct bus bus;
typedef struct bus_sock bus_sock;

struct bus_config {
    const char *
        secret_key_file; /* our CURVE key pair: two Z85 lines, public then secret; NULL: no CURVE */
    const char *allow_file; /* public keys that may connect to us, one Z85 line each; required with
                               CURVE and a bind */
    const char
        *server_key; /* Z85 public key of what we connect to; required with CURVE and a connect */
    bool insecure_network; /* allows leaving loopback without keys: for private container networks;
                              logged */
};

/* m NULL: what came from this peer is not what a peer sends (damaged on the way, beyond the
 * limits): its connection is to be given up, for what else was lost on it cannot be known. */
typedef void (*bus_msg_fn)(void *ctx, bus_sock *s, slice peer, const struct wire_msg *m);

int bus_new(loop *l, const struct bus_config *cfg, bus **out, struct why *w) MUST_USE;
void bus_free(bus *b);                               /* closes its sockets */
int bus_reload_keys(bus *b, struct why *w) MUST_USE; /* the allow-list, on SIGHUP */

/* endpoint: "tcp://127.0.0.1:5570" (port 0 or *: any free one), "ipc:///path". ERR_FORBIDDEN for an
 * address beyond loopback without keys, unless insecure_network. */
int bus_bind(bus *b, const char *endpoint, bus_msg_fn fn, void *ctx, bus_sock **out,
             struct why *w) MUST_USE;
int bus_connect(bus *b, const char *endpoint, bus_msg_fn fn, void *ctx, bus_sock **out,
                struct why *w) MUST_USE;
/* Whether bus_connect would refuse this endpoint for want of keys: for names that are looked up
 * later. */
int bus_may_connect(bus *b, const char *endpoint, struct why *w) MUST_USE;
void bus_close(bus_sock *s);           /* allowed inside its callback; NULL is allowed */
const char *bus_endpoint(bus_sock *s); /* the real one, with the port that was chosen */

/* Copies all but frames that are held (wire/frame.h). peer: the routing id from the callback
 * (ROUTER), ignored for a DEALER. 0; ERR_UNAVAILABLE: no such peer any more; ERR_AGAIN: its queue
 * is full (nothing sent); ERR_TOO_BIG: beyond the wire's limits. */
int bus_send(bus_sock *s, slice peer, const struct wire_msg *m) MUST_USE;

struct bus_counts {
    uint64_t sent, received, malformed, refused_auth;
};
struct bus_counts bus_counts(const bus *b);

/* `nunchi keys`: a new CURVE pair as Z85 text. */
int bus_new_keys(char public_key[41], char secret_key[41]) MUST_USE;
/* True for tcp endpoints on 127.0.0.0/8, ::1, localhost, and for ipc and inproc. */
bool bus_endpoint_is_local(const char *endpoint);

#endif
