/* Who asks, where load balancers stand before the gateway: X-Forwarded-For is believed from those
 * that are named, and from nobody else. Pure. */
#ifndef NUNCHI_GATEWAY_PROXIES_H
#define NUNCHI_GATEWAY_PROXIES_H

#include "common/base/err.h"
#include "common/base/slice.h"

#define PROXIES_MAX 64
#define PROXIES_HOPS_MAX 16 /* of X-Forwarded-For that are looked at, from the end */

typedef struct proxies proxies;

/* "10.0.0.0/8, fd00::/8, 192.0.2.7"; NULL or "": none, and *out is NULL. ERR_INVALID names the
 * option trusted-proxies. */
int proxies_new(const char *list, proxies **out, struct why *w) MUST_USE;
void proxies_free(proxies *p); /* NULL is allowed */

#define CLIENT_BYTES_MAX 8

/* The client that fairness and limits are about: 4 bytes of IPv4, or the first 8 of IPv6, since a
 * house has all the addresses behind those. peer: the connection's address, 4 or 16 bytes. Behind
 * proxies of ours, the last in X-Forwarded-For that is none of them; p NULL: always the peer. */
size_t proxies_client(const proxies *p, slice peer, slice forwarded, uint8_t out[CLIENT_BYTES_MAX]);

#endif
