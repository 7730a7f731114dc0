/* A Tokenize request, checked: what core.c works on. Everything is borrowed from the message or its
 * arena. */
#ifndef NUNCHI_TOKENIZER_REQUEST_H
#define NUNCHI_TOKENIZER_REQUEST_H

#include "common/base/arena.h"
#include "proto/token.pb-c.h"
#include "proto/video.pb-c.h"
#include "tokenizer-svc/core.h"

struct ask_video {
    const Nunchi__Notes *notes;
    slice name, content, salt;
};

struct ask {
    bool chat, add_generation_prompt, add_special;
    struct chat_turn *turns;  /* a prompt is one turn without a role */
    struct chat_part **parts; /* of each turn, to put the notes into */
    size_t n_turns;
    struct ask_video videos[CORE_VIDEOS_MAX]; /* in the order of the parts with `video` set */
    size_t n_videos;
    slice tenant, adapter;
    uint32_t max_tokens, notes_tokens_max;
    size_t text_bytes;
};

int ask_read(struct ask *q, const Nunchi__Tokenize *t, const struct wire_msg *m, arena *a,
             struct why *w) MUST_USE;

#endif
