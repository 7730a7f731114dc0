#include "tokenizer-svc/request.h"

#include <stdio.h>

#include "common/wire/pb.h"

#define TENANT_BYTES 32
#define SALT_BYTES 16
#define NOTES_FORMAT 1

static const char *field(char out[WHY_FIELD_MAX], const struct ask *q, size_t turn,
                         const char *what)
{
    if (!q->chat)
        return "prompt";
    (void)snprintf(out, WHY_FIELD_MAX, "messages[%zu].%s", turn, what);
    return out;
}

static int read_text(struct ask *q, slice text, const char *where, struct chat_part *out,
                     struct why *w)
{
    if (!utf8_valid(text))
        return why_set(w, ERR_INVALID, where, "the text is not valid UTF-8");
    q->text_bytes += text.n;
    *out = (struct chat_part){.text = text};
    return 0;
}

static int read_notes(struct ask_video *v, const Nunchi__VideoRef *ref, const struct wire_msg *m,
                      arena *a, const char *where, struct why *w)
{
    void *notes;
    if (ref->notes_frame >= m->n_frames)
        return why_set(w, ERR_PROTO, where, "a video's notes are not in the message");
    int e = pb_unpack(a, &nunchi__notes__descriptor, m->frames[ref->notes_frame], WIRE_FRAME_MAX,
                      &notes, w);
    if (e < 0)
        return e;
    v->notes = notes;
    if (v->notes->format != NOTES_FORMAT)
        return why_set(w, ERR_UNSUPPORTED, where,
                       "the video's notes have format %u; this version reads %d", v->notes->format,
                       NOTES_FORMAT);
    v->name = pb_slice(ref->name);
    v->content = pb_slice(ref->content);
    v->salt = pb_slice(ref->salt);
    if (v->content.n != DIGEST_BYTES || v->salt.n != SALT_BYTES || v->name.n > CORE_NAME_MAX)
        return why_set(w, ERR_PROTO, where, "a video's content, salt or name has a wrong length");
    if (v->notes->salt.len > 0 && !slice_eq(pb_slice(v->notes->salt), v->salt))
        return why_set(w, ERR_PROTO, where, "a video's salt is not that of its notes");
    return 0;
}

static int read_video(struct ask *q, const Nunchi__VideoRef *ref, const struct wire_msg *m,
                      arena *a, const char *where, struct chat_part *out, struct why *w)
{
    if (q->n_videos == CORE_VIDEOS_MAX)
        return why_set(w, ERR_TOO_BIG, where, "more than %d videos in one request",
                       CORE_VIDEOS_MAX);
    int e = read_notes(&q->videos[q->n_videos], ref, m, a, where, w);
    if (e < 0)
        return e;
    q->n_videos++;
    *out = (struct chat_part){.video = true};
    return 0;
}

static int read_parts(struct ask *q, size_t turn, Nunchi__ChatPart **parts, size_t n,
                      const struct wire_msg *m, arena *a, struct why *w)
{
    char name[WHY_FIELD_MAX];
    const char *where = field(name, q, turn, "content");
    struct chat_part *out = arena_try(a, (n ? n : 1) * sizeof *out);
    if (!out)
        return why_set(w, ERR_NOMEM, where, "no memory for the request");
    for (size_t i = 0; i < n; i++) {
        int e;
        if (parts[i]->part_case == NUNCHI__CHAT_PART__PART_TEXT)
            e = read_text(q, pb_slice(parts[i]->text), where, &out[i], w);
        else if (parts[i]->part_case == NUNCHI__CHAT_PART__PART_VIDEO)
            e = read_video(q, parts[i]->video, m, a, where, &out[i], w);
        else
            e = why_set(w, ERR_UNSUPPORTED, where,
                        "a content part of a kind this version does not know");
        if (e < 0)
            return e;
    }
    q->turns[turn].parts = q->parts[turn] = out;
    q->turns[turn].n_parts = n;
    return 0;
}

static int take_turns(struct ask *q, size_t n, arena *a)
{
    q->n_turns = n;
    q->turns = arena_try(a, (n + 1) * sizeof *q->turns);
    q->parts = arena_try(a, (n + 1) * sizeof *q->parts);
    return q->turns && q->parts ? 0 : ERR_NOMEM;
}

static int read_chat(struct ask *q, const Nunchi__Chat *c, const struct wire_msg *m, arena *a,
                     struct why *w)
{
    size_t parts = 0;
    for (size_t i = 0; i < c->n_turns; i++)
        parts += c->turns[i]->n_parts;
    if (c->n_turns > CORE_TURNS_MAX)
        return why_set(w, ERR_TOO_BIG, "messages", "%zu messages; at most %d", c->n_turns,
                       CORE_TURNS_MAX);
    if (parts > CORE_PARTS_MAX)
        return why_set(w, ERR_TOO_BIG, "messages", "%zu content parts in all messages; at most %d",
                       parts, CORE_PARTS_MAX);
    q->add_generation_prompt = c->add_generation_prompt;
    if (take_turns(q, c->n_turns, a) < 0)
        return why_set(w, ERR_NOMEM, "messages", "no memory for the request");
    for (size_t i = 0; i < c->n_turns; i++) {
        q->turns[i].role = pb_slice(c->turns[i]->role);
        int e = read_parts(q, i, c->turns[i]->parts, c->turns[i]->n_parts, m, a, w);
        if (e < 0)
            return e;
    }
    return 0;
}

static int read_prompt(struct ask *q, const Nunchi__Prompt *p, const struct wire_msg *m, arena *a,
                       struct why *w)
{
    if (p->n_parts > CORE_PARTS_MAX)
        return why_set(w, ERR_TOO_BIG, "prompt", "%zu parts; at most %d", p->n_parts,
                       CORE_PARTS_MAX);
    q->add_special = p->add_special;
    if (take_turns(q, 1, a) < 0)
        return why_set(w, ERR_NOMEM, "prompt", "no memory for the request");
    return read_parts(q, 0, p->parts, p->n_parts, m, a, w);
}

int ask_read(struct ask *q, const Nunchi__Tokenize *t, const struct wire_msg *m, arena *a,
             struct why *w)
{
    *q = (struct ask){.chat = t->input_case == NUNCHI__TOKENIZE__INPUT_CHAT,
                      .tenant = pb_slice(t->tenant),
                      .adapter = slice_str(t->adapter),
                      .max_tokens = t->max_tokens,
                      .notes_tokens_max = t->notes_tokens_max};
    if (q->tenant.n != TENANT_BYTES)
        return why_set(w, ERR_PROTO, "tenant", "a tenant key has %d bytes", TENANT_BYTES);
    if (q->adapter.n > 0)
        return why_set(w, ERR_NOT_FOUND, "model", "the model has no adapter of this name");
    if (t->n_stop > 0)
        return why_set(w, ERR_UNSUPPORTED, "stop",
                       "stop sequences as ids are not supported in this version");
    if (q->chat)
        return read_chat(q, t->chat, m, a, w);
    if (t->input_case == NUNCHI__TOKENIZE__INPUT_PROMPT)
        return read_prompt(q, t->prompt, m, a, w);
    return why_set(w, ERR_UNSUPPORTED, "", "neither a chat nor a prompt");
}
