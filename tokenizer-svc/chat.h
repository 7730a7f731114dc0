/* Turns of a chat to a prompt, as the model was trained to read them: by the model's own chat
 * template (jinja.h), or by one of ours that the operator names for a base model.
 *
 * What users wrote goes in as text and nothing else: control tokens are read out of what the
 * template itself wrote, never out of a value that came in. */
#ifndef NUNCHI_TOKENIZER_CHAT_H
#define NUNCHI_TOKENIZER_CHAT_H

#include "tokenizer-svc/jinja.h"
#include "tokenizer-svc/literals.h"
#include "tokenizer-svc/prompt.h"

struct chat_format {
    jinja *template;            /* NULL: refused, see refusal */
    literals *marks;            /* control tokens as they are written */
    const vocab *v;             /* borrowed */
    bool developer;             /* the template knows this role itself; else it means system */
    char refusal[WHY_TEXT_MAX]; /* a sentence that says what to do */
};

/* choice: "auto", "chatml", "gemma" or "none". A named format that the vocabulary has no tokens
 * for: ERR_INVALID. With "auto" a missing or unknown template is no error here: chat_render refuses
 * then, and says the line that is not understood. */
int chat_format_init(struct chat_format *f, const tokenizer *t, slice choice,
                     struct why *w) MUST_USE;
void chat_format_clear(struct chat_format *f);

#define CHAT_VIDEOS_MAX 200 /* of one chat: a byte tells them apart */

struct chat_part {
    slice text; /* UTF-8; a video's notes where video is set */
    bool video;
};

struct chat_turn {
    slice role; /* "system", "developer" (means system), "user", "assistant" */
    const struct chat_part *parts;
    size_t n_parts;
};

/* Appends the rendered chat. Parts are joined by a new line, a video's notes and what is asked
 * about them by PLACE_QUESTION (place.h). now_unix_s: for templates that tell the date.
 * ERR_INVALID: no turns, an unknown role, an order or a role that the template refuses, a template
 * that leaves a video out; ERR_TOO_BIG: a limit of jinja.h; ERR_UNSUPPORTED: no template. */
int chat_render(const struct chat_format *f, const struct chat_turn *turns, size_t n,
                bool add_generation_prompt, int64_t now_unix_s, struct prompt *out,
                struct why *w) MUST_USE;

#endif
