/* One HTTP/1.1 answer from a byte stream cut anywhere, and what a chat stream in it says. Sans-I/O:
 * bytes and the time they came at go in, counts come out. */
#ifndef NUNCHI_LOAD_ANSWER_H
#define NUNCHI_LOAD_ANSWER_H

#include "cli/sse.h"
#include "tests/load/lib/words.h"

#define ANSWER_HEAD_MAX 65536  /* status line and headers */
#define ANSWER_KEPT_MAX 262144 /* of a body that is not a stream: an error, a list of models */

enum answer_state { ANSWER_HEAD, ANSWER_BODY, ANSWER_DONE };
enum answer_body { BODY_LENGTH, BODY_CHUNKED, BODY_UNTIL_CLOSE };

struct answer {
    enum answer_state state;
    enum answer_body body;
    int status;
    bool closes; /* the server will close the connection */
    bool stream; /* text/event-stream */
    buf line;    /* of the head, or of a chunk's size */
    size_t head_bytes;
    uint64_t left; /* of the body, or of the chunk */
    enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER } chunk;

    struct sse sse;
    uint64_t stamp_us; /* the last one in the text; 0: none */
    uint64_t text_sum; /* of all text, as it stands in JSON (words.h) */
    uint64_t n_pieces; /* events with text, so far; the caller compares before and after */
    bool done, failed; /* data: [DONE]; data: {"error" … */
    bool has_usage;
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    buf kept; /* another body, or the error event */
};

void answer_init(struct answer *a); /* a zeroed or used one: memory is kept for the next answer */
void answer_clear(struct answer *a);
/* Takes the bytes up to the answer's end; returns how many, or ERR_PROTO with a sentence. */
int answer_feed(struct answer *a, slice bytes, struct why *w) MUST_USE;
/* The connection has ended: 0 if that is the answer's proper end. */
int answer_eof(struct answer *a) MUST_USE;

#endif
