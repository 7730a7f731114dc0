/* OpenAI's HTTP API in and out: bodies become a gw_request, answers become JSON or server-sent
 * events, byte for byte in the shapes that the official clients read. Pure functions; any thread.
 */
#ifndef NUNCHI_GATEWAY_OPENAI_H
#define NUNCHI_GATEWAY_OPENAI_H

#include "common/base/json_out.h"
#include "gateway/request.h"
#include "proto/cache.pb-c.h"
#include "proto/session.pb-c.h"
#include "proto/video.pb-c.h"

enum openai_api { OPENAI_CHAT = 1, OPENAI_COMPLETION = 2 };

/* The body of a request. *out belongs to the caller (gw_request_free); NULL on failure. w->field is
 * OpenAI's `param`. */
int openai_parse(enum openai_api api, slice body, struct gw_request **out, struct why *w) MUST_USE;

/* ---- objects: each appends one JSON value ---- */
struct openai_error {
    int err;
    const char *code; /* "model_not_found"; NULL: by err */
    const struct why *why;
};
void openai_put_error(buf *out, const struct openai_error *e);
void openai_put_model(struct json_out *j, const Nunchi__ModelInfo *m);
void openai_put_file(struct json_out *j, const Nunchi__FileRecord *f);
void openai_put_files(buf *out, const Nunchi__FileRecords *fs);
void openai_put_deleted(buf *out, slice id);
/* nunchi's own: the timeline of a video. */
void openai_put_notes(buf *out, slice file_id, const Nunchi__Notes *n);

#endif
