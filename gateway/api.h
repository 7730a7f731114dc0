/* What the HTTP server answers: OpenAI's endpoints, nunchi's own, health and metrics. Glue between
 * http.h, openai*.h and core.h; no sockets of its own. Loop thread only. */
#ifndef NUNCHI_GATEWAY_API_H
#define NUNCHI_GATEWAY_API_H

#include "gateway/core.h"
#include "gateway/http.h"
#include "gateway/keys.h"
#include "gateway/proxies.h"

typedef struct api api;

struct api_config {
    const keys *keys;        /* NULL: everybody may ask */
    const proxies *proxies;  /* NULL: nobody stands between us and clients */
    bool metrics_public;     /* /metrics needs no key */
    uint64_t file_max_bytes; /* of one upload */
    uint32_t body_ms;        /* a JSON body is there by then */
    uint32_t request_ms;     /* as the core's; what a client may ask for at most */
    double trace_ratio; /* of requests whose client does not say */
    void *ctx;
    void (*collect)(void *ctx); /* brings others' metrics up to date; may be NULL */
};

api *api_new(loop *l, gw *g, const struct api_config *cfg);
void api_free(api *a);
/* Fills ctx and callbacks of an http_config. */
void api_attach(api *a, struct http_config *cfg);

#endif
