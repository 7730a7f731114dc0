/* Turns of a chat to a prompt, as the model was trained to read them. The format is found by
 * recognising the model's own chat template, or is named by the operator; a template that is not
 * recognised is refused rather than guessed at.
 *
 * What users wrote goes in as text and nothing else: the marks around a turn are token ids put
 * there by the format. */
#ifndef NUNCHI_TOKENIZER_CHAT_H
#define NUNCHI_TOKENIZER_CHAT_H

#include "tokenizer-svc/prompt.h"

#define CHAT_TEMPLATE_MAX (256u << 10) /* bytes looked at; the longest known template has 20 kB */

enum chat_kind {
    CHAT_NONE,   /* refused: see refusal */
    CHAT_CHATML, /* <|im_start|>role\ncontent<|im_end|>\n */
    CHAT_GEMMA,  /* <start_of_turn>role\ncontent<end_of_turn>\n; the system's words stand before the
                    first user's */
};

struct chat_format {
    enum chat_kind kind;
    int32_t open, close, bos; /* bos: TOKEN_NONE where the format begins without */
    bool no_system;           /* the template refuses system messages */
    buf default_system;       /* ChatML: said where a chat begins without a system message */
    const char *refusal;      /* CHAT_NONE: a sentence that says what to do */
};

/* choice: "auto", "chatml", "gemma" or "none". A named format that the vocabulary has no tokens
 * for: ERR_INVALID. With "auto" a missing or unknown template is no error here: chat_render refuses
 * then. */
int chat_format_init(struct chat_format *f, const tokenizer *t, slice choice,
                     struct why *w) MUST_USE;
void chat_format_clear(struct chat_format *f);

struct chat_part {
    slice text; /* UTF-8; a video's notes where video is set */
    bool video;
};

struct chat_turn {
    slice role; /* "system", "developer" (means system), "user", "assistant" */
    const struct chat_part *parts;
    size_t n_parts;
};

/* Appends the rendered chat. Parts are joined by a new line, a
 * video's notes and what is asked about them by PLACE_QUESTION (place.h). ERR_INVALID: no turns, an
 * unknown role, an order that the format forbids; ERR_UNSUPPORTED: CHAT_NONE. */
int chat_render(const struct chat_format *f, const struct chat_turn *turns, size_t n,
                bool add_generation_prompt, struct prompt *out, struct why *w) MUST_USE;

#endif
