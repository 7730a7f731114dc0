#include "tokenizer-svc/chat.h"

#include <stdio.h>

#include "tokenizer-svc/place.h"
#include "tokenizer-svc/template.h"

static const char NO_TEMPLATE[] = "this model has no chat template (a base model): use "
                                  "/v1/completions, or start nunchi-tokenizer "
                                  "with --chat-format chatml or --chat-format gemma";
static const char UNKNOWN_TEMPLATE[] =
    "this model's chat template is not known here: start nunchi-tokenizer with --chat-format "
    "chatml "
    "or --chat-format gemma if one of them fits, or use /v1/completions";
static const char SWITCHED_OFF[] =
    "chat is switched off for this model (--chat-format none): use /v1/completions";

static int take_tokens(struct chat_format *f, const tokenizer *t, enum chat_kind kind,
                       struct why *w)
{
    bool gemma = kind == CHAT_GEMMA;
    const char *open = gemma ? "<start_of_turn>" : "<|im_start|>",
               *close = gemma ? "<end_of_turn>" : "<|im_end|>";
    f->open = tokenizer_special(t, slice_str(open));
    f->close = tokenizer_special(t, slice_str(close));
    f->bos = gemma ? vocab_bos(tokenizer_vocab(t)) : TOKEN_NONE;
    if (f->open == TOKEN_NONE || f->close == TOKEN_NONE)
        return why_set(w, ERR_INVALID, "chat-format", "the model's vocabulary has no %s and %s",
                       open, close);
    f->kind = kind;
    return 0;
}

static int recognise(struct chat_format *f, const tokenizer *t, struct why *w)
{
    slice text = vocab_chat_template(tokenizer_vocab(t));
    f->refusal = text.n == 0 ? NO_TEMPLATE : UNKNOWN_TEMPLATE;
    if (text.n == 0 || text.n > CHAT_TEMPLATE_MAX)
        return 0;
    if (template_is_chatml(text, &f->default_system))
        return take_tokens(f, t, CHAT_CHATML, w);
    if (template_is_gemma(text, &f->no_system))
        return take_tokens(f, t, CHAT_GEMMA, w);
    return 0;
}

int chat_format_init(struct chat_format *f, const tokenizer *t, slice choice, struct why *w)
{
    *f = (struct chat_format){
        .kind = CHAT_NONE, .open = TOKEN_NONE, .close = TOKEN_NONE, .bos = TOKEN_NONE};
    if (slice_eq_str(choice, "auto"))
        return recognise(f, t, w);
    if (slice_eq_str(choice, "chatml"))
        return take_tokens(f, t, CHAT_CHATML, w);
    if (slice_eq_str(choice, "gemma"))
        return take_tokens(f, t, CHAT_GEMMA, w);
    f->refusal = SWITCHED_OFF;
    if (slice_eq_str(choice, "none"))
        return 0;
    return why_set(w, ERR_INVALID, "chat-format", "'%.*s' is none of auto, chatml, gemma, none",
                   (int)(choice.n < 40 ? choice.n : 40), choice.p);
}

void chat_format_clear(struct chat_format *f)
{
    buf_clear(&f->default_system);
}

/* ---- rendering ---- */

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_OTHER };

static enum role role_of(slice s)
{
    if (slice_eq_str(s, "system") || slice_eq_str(s, "developer"))
        return ROLE_SYSTEM;
    return slice_eq_str(s, "user")        ? ROLE_USER
           : slice_eq_str(s, "assistant") ? ROLE_ASSISTANT
                                          : ROLE_OTHER;
}

static int check_roles(const struct chat_turn *turns, size_t n, struct why *w)
{
    if (n == 0)
        return why_set(w, ERR_INVALID, "messages", "no messages");
    for (size_t i = 0; i < n; i++) {
        char field[WHY_FIELD_MAX];
        (void)snprintf(field, sizeof field, "messages[%zu].role", i);
        if (role_of(turns[i].role) == ROLE_OTHER)
            return why_set(w, ERR_UNSUPPORTED, field,
                           "this role is not supported here: system, developer, user or assistant");
    }
    return 0;
}

/* Bytes of white space at the start (or the end) of s, as Python's str.strip counts it. */
static size_t space_run(slice s, bool at_end)
{
    size_t done = 0;
    while (done < s.n) {
        uint32_t cp;
        size_t n = 1;
        if (at_end)
            while (n < 4 && n < s.n - done && ((unsigned char)s.p[s.n - done - n] & 0xc0) == 0x80)
                n++;
        const char *p = at_end ? s.p + s.n - done - n : s.p + done;
        n = utf8_decode(p, at_end ? n : s.n - done, &cp);
        bool space = (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x20) || cp == 0x85 ||
                     cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 ||
                     cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
        if (n == 0 || !space)
            break;
        done += n;
    }
    return done;
}

/* The parts of a turn, joined; `trim` takes white space off the whole's two ends, a video's notes
 * excepted. */
static void put_content(const struct chat_turn *t, bool trim, struct prompt *out)
{
    size_t first = 0, last = t->n_parts;
    size_t cut_first = 0, cut_last = 0;
    if (trim) {
        while (first < last && !t->parts[first].video &&
               (cut_first = space_run(t->parts[first].text, false)) == t->parts[first].text.n)
            first++;
        while (last > first && !t->parts[last - 1].video &&
               (cut_last = space_run(t->parts[last - 1].text, true)) == t->parts[last - 1].text.n)
            last--;
    }
    for (size_t i = first; i < last; i++) {
        const struct chat_part *p = &t->parts[i];
        slice s = p->text;
        if (trim && i + 1 == last && !p->video)
            s.n -= cut_last;
        if (trim && i == first && !p->video)
            s = (slice){s.p + cut_first, s.n - cut_first};
        if (i > first && t->parts[i - 1].video && !p->video)
            prompt_text(out, SLICE_LIT(PLACE_QUESTION));
        else if (i > first)
            prompt_text(out, SLICE_LIT("\n"));
        if (p->video)
            prompt_video(out);
        prompt_text(out, s);
        if (p->video)
            prompt_video_end(out);
    }
}

static slice chatml_role(enum role r)
{
    if (r == ROLE_SYSTEM)
        return SLICE_LIT("system\n");
    return r == ROLE_USER ? SLICE_LIT("user\n") : SLICE_LIT("assistant\n");
}

static int render_chatml(const struct chat_format *f, const struct chat_turn *turns, size_t n,
                         bool add_generation_prompt, struct prompt *out)
{
    if (f->default_system.n > 0 && role_of(turns[0].role) != ROLE_SYSTEM) {
        prompt_special(out, f->open);
        prompt_text(out, chatml_role(ROLE_SYSTEM));
        prompt_text(out, buf_slice(&f->default_system));
        prompt_special(out, f->close);
        prompt_text(out, SLICE_LIT("\n"));
    }
    for (size_t i = 0; i < n; i++) {
        prompt_special(out, f->open);
        prompt_text(out, chatml_role(role_of(turns[i].role)));
        put_content(&turns[i], false, out);
        prompt_special(out, f->close);
        prompt_text(out, SLICE_LIT("\n"));
    }
    if (add_generation_prompt) {
        prompt_special(out, f->open);
        prompt_text(out, chatml_role(ROLE_ASSISTANT));
    }
    return 0;
}

static int check_gemma(const struct chat_format *f, const struct chat_turn *turns, size_t n,
                       struct why *w)
{
    size_t first = role_of(turns[0].role) == ROLE_SYSTEM;
    if (first && f->no_system)
        return why_set(w, ERR_INVALID, "messages[0].role",
                       "this model's chat template takes no system message");
    if (first == n)
        return why_set(w, ERR_INVALID, "messages",
                       "a system message alone: this model's chat begins with the user");
    for (size_t i = first; i < n; i++) {
        char field[WHY_FIELD_MAX];
        (void)snprintf(field, sizeof field, "messages[%zu].role", i);
        if (role_of(turns[i].role) == ROLE_SYSTEM)
            return why_set(w, ERR_INVALID, field,
                           "this model takes a system message only as the first");
        if ((role_of(turns[i].role) == ROLE_USER) != ((i - first) % 2 == 0))
            return why_set(w, ERR_INVALID, field,
                           "this model wants user and assistant to take turns, the user first");
    }
    return 0;
}

static int render_gemma(const struct chat_format *f, const struct chat_turn *turns, size_t n,
                        bool add_generation_prompt, struct prompt *out, struct why *w)
{
    int e = check_gemma(f, turns, n, w);
    if (e < 0)
        return e;
    size_t first = role_of(turns[0].role) == ROLE_SYSTEM;
    if (f->bos != TOKEN_NONE)
        prompt_special(out, f->bos);
    for (size_t i = first; i < n; i++) {
        prompt_special(out, f->open);
        prompt_text(out, slice_str(role_of(turns[i].role) == ROLE_USER ? "user\n" : "model\n"));
        if (i == first && first) {
            put_content(&turns[0], false, out);
            prompt_text(out, SLICE_LIT("\n\n"));
        }
        put_content(&turns[i], true, out);
        prompt_special(out, f->close);
        prompt_text(out, SLICE_LIT("\n"));
    }
    if (add_generation_prompt) {
        prompt_special(out, f->open);
        prompt_text(out, SLICE_LIT("model\n"));
    }
    return 0;
}

int chat_render(const struct chat_format *f, const struct chat_turn *turns, size_t n,
                bool add_generation_prompt, struct prompt *out, struct why *w)
{
    if (f->kind == CHAT_NONE)
        return why_set(w, ERR_UNSUPPORTED, "messages", "%s", f->refusal);
    int e = check_roles(turns, n, w);
    if (e < 0)
        return e;
    if (f->kind == CHAT_GEMMA)
        return render_gemma(f, turns, n, add_generation_prompt, out, w);
    return render_chatml(f, turns, n, add_generation_prompt, out);
}
