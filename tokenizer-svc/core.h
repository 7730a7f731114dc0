/* What tokenizer-svc does with a request, without sockets, clocks or state: a message in, an answer
 * out. A `core` is immutable; any number of threads answer with it at once, each with a scratch of
 * its own. */
#ifndef NUNCHI_TOKENIZER_CORE_H
#define NUNCHI_TOKENIZER_CORE_H

#include "common/wire/frame.h"
#include "tokenizer-svc/chat.h"

/* Limits of one request. The text itself is bounded by the wire (4 MiB of messages, 1 MiB a video's
 * notes). */
#define CORE_TURNS_MAX 2048               /* a chat of a thousand questions */
#define CORE_PARTS_MAX 4096               /* of all turns together */
#define CORE_VIDEOS_MAX 16                /* their notes would have a few lines each beyond */
#define CORE_NAME_MAX 1024                /* bytes of a file's or an adapter's name */
#define CORE_IDS_MAX (WIRE_FRAME_MAX / 4) /* ids travel in one frame */
#define CORE_MEMORY_MAX (128u << 20)      /* parsed messages of one request */
#define CORE_NOTES_SHARE 3   /* of the context: video notes' part where the request names none */
#define CORE_ANSWER_ROOM 256 /* tokens that notes leave for an answer whose length is not given */

struct core_config {
    const vocab *vocab; /* borrowed */
    const char *model;  /* name; borrowed */
    struct digest weights;
    uint32_t n_context;
    const char *chat_format; /* "auto" … (chat.h) */
};

typedef struct core core;

int core_new(const struct core_config *cfg, core **out, struct why *w) MUST_USE;
void core_free(core *c); /* NULL is allowed */
bool core_can_chat(const core *c);
const tokenizer *core_tokenizer(const core *c);

/* A DONE message to be. Embedded; zero is empty. */
struct core_answer {
    buf body;      /* TokenReply */
    buf frames[2]; /* Tokenized: ids, block hashes */
    size_t n_frames;
};
void core_answer_clear(struct core_answer *a);

/* ERR_INVALID, ERR_UNSUPPORTED, ERR_NOT_FOUND (model), ERR_TOO_BIG, ERR_PROTO, ERR_NOMEM; *w says
 * why, with the numbers where something does not fit, and names the field as a client of the HTTP
 * API knows it. now_unix_s: for chat templates that tell the date. */
int core_answer_to(const core *c, tok_scratch *s, const struct wire_msg *m, int64_t now_unix_s,
                   struct core_answer *out, struct why *w) MUST_USE;

#endif
