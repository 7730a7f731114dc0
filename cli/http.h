/* The HTTP client of the command line. This pair is the one place with curl.h. One request at a
 * time. */
#ifndef NUNCHI_CLI_HTTP_H
#define NUNCHI_CLI_HTTP_H

#include "common/base/slice.h"

struct http_reply {
    long status; /* 0: no answer */
    buf body;
};

/* url is whole. Sends NUNCHI_API_KEY as bearer if set. 0 when any HTTP answer came; ERR_UNAVAILABLE
 * with a sentence when none did. timeout_ms 0: none. */
int http_fetch(const char *url, int timeout_ms, struct http_reply *out, struct why *w) MUST_USE;

/* Return false to stop. */
typedef bool (*http_data_fn)(void *ctx, slice data);
/* Posts JSON; a 200 goes to fn piece by piece as it comes, anything else into out->body. */
int http_post_stream(const char *url, slice json, http_data_fn fn, void *ctx,
                     struct http_reply *out, struct why *w) MUST_USE;

typedef void (*http_sent_fn)(void *ctx, uint64_t sent, uint64_t all);
/* multipart/form-data: purpose, then the file. */
int http_upload(const char *url, const char *path, const char *purpose, http_sent_fn fn, void *ctx,
                struct http_reply *out, struct why *w) MUST_USE;

void http_reply_clear(struct http_reply *r);

#endif
