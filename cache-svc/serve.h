/* cache-svc on the bus: bound for those who store and fetch, connected to every gateway. */
#ifndef NUNCHI_CACHE_SERVE_H
#define NUNCHI_CACHE_SERVE_H

#include "cache-svc/options.h"
#include "common/base/loop.h"

typedef struct cache_serve cache_serve;

int cache_serve_new(loop *l, const struct cache_options *o, cache_serve **out,
                    struct why *w) MUST_USE;
void cache_serve_free(cache_serve *s);
const char *cache_serve_endpoint(cache_serve *s);
/* No new requests; stops the loop with 0 when the last has ended, with 1 after drain-ms. */
void cache_serve_drain(cache_serve *s);
void cache_serve_reload(cache_serve *s); /* the keys that may connect */
/* For those who watch (base/monitor.h): brings the metrics up to date; whether it is there for gateways. */
void cache_serve_collect(void *cache_serve);
bool cache_serve_ready(void *cache_serve);

#endif
