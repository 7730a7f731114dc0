/* One question, as the gateway thinks of it: no HTTP API's names or shapes in here. Made by
 * openai_*.c (or by another API's front later), carried out by the core. Everything it points to
 * lives in its arena or its document. */
#ifndef NUNCHI_GATEWAY_REQUEST_H
#define NUNCHI_GATEWAY_REQUEST_H

#include "common/base/arena.h"
#include "common/base/hash.h"
#include "common/json/json.h"
#include "common/trace/trace.h"
#include "gateway/limits.h"

#define FILE_ID_CHARS 37 /* "file-" and 32 hex digits */

enum gw_part_kind { GW_TEXT, GW_VIDEO_FILE, GW_VIDEO_DATA };

struct gw_part {
    enum gw_part_kind kind;
    slice text;                /* GW_TEXT; the file's id; base64 text of GW_VIDEO_DATA */
    size_t bytes;              /* that the base64 text stands for */
    slice name;                /* of a video, as its user calls it; may be empty */
    char where[WHY_FIELD_MAX]; /* of a video: "messages[0].content[1]", for errors */
};

struct gw_turn {
    slice role;
    slice name;
    struct gw_part *parts;
    size_t n_parts;
};

struct gw_bias {
    int32_t id;
    float add;
};

struct gw_sampling {
    double temperature, top_p, min_p;
    double presence_penalty, frequency_penalty, repetition_penalty;
    uint32_t top_k; /* 0: all */
    uint64_t seed;  /* always set before the core sees it */
    bool seed_given;
    bool logprobs;
    uint32_t top_logprobs;
    struct gw_bias *bias;
    size_t n_bias;
};

struct gw_request {
    arena *a;
    json_doc *doc; /* what the slices point into; NULL if not JSON */
    slice model;
    bool chat;
    struct gw_turn *turns; /* chat */
    size_t n_turns;
    slice prompt; /* not chat */
    struct gw_sampling sampling;
    uint32_t n;          /* choices, at least 1 */
    uint32_t max_tokens; /* 0: whatever fits */
    slice stop[STOPS_MAX];
    size_t n_stop;
    bool echo;      /* the prompt is said first; not chat */
    bool echo_alone; /* … and nothing else */
    bool ignore_eos;
    bool no_store; /* neither read from nor write to the result cache */
    bool stream,
        include_usage; /* how the answer is to be written; the core does not look at them */

    /* Set by the front after parsing. */
    uint8_t tenant[DIGEST_BYTES];
    uint8_t client[16]; /* for fairness among clients */
    struct trace_at trace;
    uint32_t deadline_ms; /* from now; 0: the default */
};

struct gw_request *gw_request_new(void);
void gw_request_free(struct gw_request *r); /* NULL is allowed */
bool gw_file_id_ok(slice id);

#endif
