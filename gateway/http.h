/* An HTTP/1.1 server on our loop: exchanges of one request and one answer. The only file pair that
 * includes microhttpd.h. Loop thread only.
 *
 * An exchange lives from `begin` to `over`, which comes exactly once and last. A client that leaves
 * is noticed also while nothing is sent or received. Answers are queued and sent as the client
 * reads. */
#ifndef NUNCHI_GATEWAY_HTTP_H
#define NUNCHI_GATEWAY_HTTP_H

#include "common/base/loop.h"
#include "common/base/slice.h"

typedef struct http http;
typedef struct http_ex http_ex;

struct http_config {
    const char *endpoint; /* "127.0.0.1:8642", "[::1]:0", "0.0.0.0:80" */
    uint32_t connections_max;
    uint32_t idle_ms; /* a connection on which nothing moves, nothing is being answered */
    void *ctx;
    void (*begin)(void *ctx, http_ex *x); /* the head is there: http_set, http_respond allowed */
    /* A piece of the body. http_pause keeps the next one away. */
    void (*body)(void *ctx, http_ex *x, slice bytes);
    void (*end)(void *ctx, http_ex *x);     /* the request is whole */
    void (*drained)(void *ctx, http_ex *x); /* its queue fell below HTTP_QUEUE_LOW_BYTES after
                                               having been above the mark */
    void (*over)(void *ctx, http_ex *x,
                 bool gone); /* gone: before the answer was complete. x is freed after the call */
};

int http_new(loop *l, const struct http_config *cfg, http **out, struct why *w) MUST_USE;
void http_quiesce(http *h); /* accepts no connection any more; open exchanges go on */
void http_free(http *h);    /* ends all exchanges */
unsigned http_port(const http *h);
size_t http_n_open(const http *h); /* exchanges */

/* ---- the request; slices live as long as the exchange ---- */
slice http_method(const http_ex *x);
slice http_path(const http_ex *x);                     /* percent-decoded, without the query */
slice http_header(const http_ex *x, const char *name); /* empty if absent */
/* Of a header that may come on several lines: all of it, with commas between. */
void http_header_lines(const http_ex *x, const char *name, buf *out);
slice http_query(const http_ex *x, const char *name);
bool http_length(const http_ex *x, uint64_t *out); /* of the body, if it was announced */
slice http_client(const http_ex *x);               /* its address, as bytes */
void http_set(http_ex *x, void *user);
void *http_get(const http_ex *x);
void http_pause(http_ex *x);
void http_unpause(http_ex *x); /* harmless if it is not paused */

/* ---- the answer: respond once, or begin and write and finish ---- */
void http_add_header(http_ex *x, const char *name,
                     slice value); /* before the answer; control characters are dropped */
void http_respond(http_ex *x, int status, const char *content_type, slice body);
void http_stream_begin(http_ex *x, int status, const char *content_type);
void http_stream_write(http_ex *x, slice bytes);
void http_stream_end(http_ex *x);
void http_abort(http_ex *x);          /* closes the connection without a proper end */
bool http_answered(const http_ex *x); /* respond or stream_begin was called */
size_t http_queued(const http_ex *x); /* bytes not given to the kernel yet */
bool http_full(http_ex *x);           /* queue above HTTP_QUEUE_HIGH_BYTES: `drained` will come */

#endif
