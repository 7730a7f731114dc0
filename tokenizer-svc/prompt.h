/* A prompt while it is put together: text, control tokens, and the places where a video begins.
 * Text that stands side by side is encoded as one, as the reference does with the whole rendered
 * template; but a control token comes in through prompt_special alone, never out of text. Embedded;
 * zero is empty. */
#ifndef NUNCHI_TOKENIZER_PROMPT_H
#define NUNCHI_TOKENIZER_PROMPT_H

#include "tokenizer-svc/tokenizer.h"

struct prompt_part {
    enum { PROMPT_TEXT, PROMPT_SPECIAL, PROMPT_VIDEO, PROMPT_VIDEO_END } kind;
    size_t from, len; /* text: of prompt.text */
    int32_t id;       /* special */
};

struct prompt {
    buf text;
    struct prompt_part *parts;
    size_t n, cap;
    bool swallowing; /* the last special token takes the white space behind it */
};

void prompt_text(struct prompt *p, slice s);
void prompt_special(struct prompt *p, int32_t id);
/* The same of one that swallows white space beside it: strips as vocab_strips has it. */
void prompt_special_strips(struct prompt *p, int32_t id, int strips);
void prompt_video(struct prompt *p); /* what follows comes from the next video */
void prompt_video_end(struct prompt *p);
void prompt_clear(struct prompt *p);

/* Where each video's ids lie. */
struct prompt_span {
    size_t from, to;
};

/* Appends the prompt's ids; fills at most max_spans of the videos' spans. ERR_INVALID, ERR_NOMEM.
 */
int prompt_encode(const struct prompt *p, const tokenizer *t, tok_scratch *s, struct ids *out,
                  struct prompt_span *spans, size_t max_spans, struct why *w) MUST_USE;

#endif
