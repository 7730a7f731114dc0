/* Between the files of the API. */
#ifndef NUNCHI_GATEWAY_API_IMPL_H
#define NUNCHI_GATEWAY_API_IMPL_H

#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/loop.h"
#include "common/base/thread.h"
#include "gateway/api.h"
#include "gateway/multipart.h"
#include "gateway/openai_answer.h"

struct api {
    loop *l;
    gw *g;
    struct api_config cfg;
    struct list open;  /* exchanges */
    size_t body_bytes; /* held for all of them */
    workq *parsers;
    struct loop_timer tick;
};

struct ex;

struct endpoint {
    const char *method, *path;               /* "{id}" stands for one segment */
    bool open;                               /* no key needed */
    void (*begin)(struct ex *x);             /* NULL: nothing before the body */
    void (*body)(struct ex *x, slice bytes); /* NULL: a body is not wanted, and dropped */
    void (*end)(struct ex *x);
    void (*over)(struct ex *x); /* before x goes: let go of what was asked of the core */
};

struct parse_job;

struct ex {
    struct list link;
    api *a;
    http_ex *h; /* NULL: over */
    const struct endpoint *at;
    slice id; /* what stood for {id}, {rest} in the path */
    slice rest;
    struct tenant tenant;
    char request_id[REQUEST_ID_BYTES_MAX + 1];
    struct trace_at trace;   /* the client's span; the trace is in the log, too */
    struct trace_span *span; /* of this exchange; NULL: it is not traced */
    uint64_t began_us, wrote_us;
    int status; /* answered with; 0: not yet */
    bool counted_first;

    /* questions */
    enum openai_api api;
    buf body;
    size_t counted; /* of a->body_bytes */
    struct parse_job *parsing;
    struct openai_answer answer;
    bool has_answer, head_sent, body_done;
    uint64_t job;
    struct gw_usage usage;

    /* files */
    struct multipart form;
    bool has_form, in_file, file_ended, finished;
    char field[64]; /* name of the form's field that is being read */
    buf value;
    char purpose[PURPOSE_BYTES_MAX + 1];
    uint64_t expires_s;
    char file_id[FILE_ID_CHARS + 1];
    uint64_t file_bytes;
    uint64_t upload, call; /* of the core; 0: none */
    uint64_t frame_ms;
};

void api_fail(struct ex *x, const struct gw_fail *f);
void api_fail_err(struct ex *x, int err, const struct why *w);
void api_json(struct ex *x, int status, slice body);
void api_count(struct ex *x, int status); /* every answer, once */
slice api_tenant(const struct ex *x);

/* api_answer.c */
void answer_begin(struct ex *x);
void answer_body(struct ex *x, slice bytes);
void answer_chat(struct ex *x);
void answer_completion(struct ex *x);
void answer_over(struct ex *x);
void answer_drained(struct ex *x);
void answer_tick(struct ex *x, uint64_t now_us);
/* api_words.c */
void words_body(struct ex *x, slice bytes);
void words_tokenize(struct ex *x);
void words_detokenize(struct ex *x);
void words_over(struct ex *x);
/* api_upload.c */
void upload_begin(struct ex *x);
void upload_body(struct ex *x, slice bytes);
void upload_end(struct ex *x);
void upload_over(struct ex *x);
/* api_files.c */
void files_list(struct ex *x);
void files_get(struct ex *x);
void files_delete(struct ex *x);
void files_content(struct ex *x);
void files_notes(struct ex *x);
void files_frame(struct ex *x);
void files_over(struct ex *x);
/* api_status.c */
void status_models(struct ex *x);
void status_model(struct ex *x);
void status_health(struct ex *x);
void status_ready(struct ex *x);
void status_metrics(struct ex *x);
/* What is counted as it happens. */
void metrics_init(void);
void metrics_response(int status);
void metrics_first_token(double seconds);
void metrics_answer(double seconds);

#endif
