/* nunchi-gateway on its sockets: HTTP for clients, the hub for workers, the core between them. Loop
 * thread only. */
#ifndef NUNCHI_GATEWAY_SERVE_H
#define NUNCHI_GATEWAY_SERVE_H

#include "common/base/loop.h"
#include "gateway/options.h"

typedef struct gateway_serve gateway_serve;

/* The options stay the caller's and must outlive it. */
int gateway_serve_new(loop *l, const struct gateway_options *o, gateway_serve **out,
                      struct why *w) MUST_USE;
void gateway_serve_free(gateway_serve *v); /* NULL is allowed */
/* No new connections and questions; the loop stops with 0 when the running ones have ended, or
 * after drain-ms. */
void gateway_serve_drain(gateway_serve *v);
void gateway_serve_reload(gateway_serve *v); /* the bus' allow-list, on SIGHUP */

#endif
