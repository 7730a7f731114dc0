/* tokenizer-svc on the wire: links to every gateway, requests onto a few threads, answers back. The
 * only file of this service with sockets. Loop thread only. */
#ifndef NUNCHI_TOKENIZER_SERVE_H
#define NUNCHI_TOKENIZER_SERVE_H

#include "common/wire/bus.h"
#include "tokenizer-svc/core.h"
#include "tokenizer-svc/model.h"

struct serve_config {
    const char *gateways;   /* targets (links.h) */
    int threads;            /* 0: as many as CPUs, at most SERVE_THREADS_DEFAULT */
    uint32_t slots;         /* requests at once, of each gateway */
    uint64_t waiting_bytes; /* of all requests that are not answered yet; more are refused */
    uint64_t drain_ms;
};

#define SERVE_THREADS_DEFAULT 4 /* one thread encodes 10 MB a second: four feed any model */
#define SERVE_THREADS_MAX 64

typedef struct serve serve;

/* Borrows all but the configuration's numbers. */
int serve_new(loop *l, bus *b, const core *c, const struct tok_model *m,
              const struct serve_config *cfg, serve **out, struct why *w) MUST_USE;
/* No new requests; running ones end; then loop_stop(l, 0), after drain_ms at the latest. */
void serve_drain(serve *s);
void serve_free(serve *s); /* NULL is allowed; says BYE, waits for running jobs */
/* For those who watch (base/monitor.h): brings the metrics up to date; whether it is there for gateways. */
void serve_collect(void *s);
bool serve_ready(void *s);

#endif
