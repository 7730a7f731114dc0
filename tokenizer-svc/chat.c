#include "tokenizer-svc/chat.h"

#include <stdio.h>

#include "tokenizer-svc/place.h"

/* Where bytes of the rendered chat come from. Videos count from FROM_VIDEO. */
enum { FROM_TEMPLATE, FROM_USER, FROM_VIDEO };

static const char NO_TEMPLATE[] = "this model has no chat template (a base model): use "
                                  "/v1/completions, or start nunchi-tokenizer "
                                  "with --chat-format chatml or --chat-format gemma";
static const char SWITCHED_OFF[] =
    "chat is switched off for this model (--chat-format none): use /v1/completions";

/* For base models. */
static const char CHATML[] =
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
/* The system's words stand before the first user's. */
static const char GEMMA[] =
    "{{ bos_token }}{%- set before = '' %}{%- set turns = messages %}"
    "{%- if messages[0].role == 'system' %}{%- set before = messages[0].content + '\n\n' %}"
    "{%- set turns = messages[1:] %}{%- endif %}"
    "{%- if not turns %}{{ raise_exception('a system message alone: the chat begins with the "
    "user') }}{%- endif %}"
    "{%- for m in turns %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant take turns, the user first') }}{%- endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ before if loop.first }}{{ m.content | trim }}{{ '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

static const struct {
    const char *name, *template, *open, *close;
} OURS[] = {{"chatml", CHATML, "<|im_start|>", "<|im_end|>"},
            {"gemma", GEMMA, "<start_of_turn>", "<end_of_turn>"}};

static void find_marks(struct chat_format *f)
{
    f->marks = literals_new();
    for (int32_t id = 0; id < vocab_size(f->v); id++) {
        enum token_kind k = vocab_token_kind(f->v, id);
        if ((k == TOKEN_CONTROL || k == TOKEN_UNKNOWN) && utf8_valid(vocab_bytes(f->v, id)))
            literals_add(f->marks, vocab_bytes(f->v, id), id);
    }
    literals_ready(f->marks);
}

/* The model's own. One that is not understood leaves a model that completes texts. */
static void take_own(struct chat_format *f)
{
    slice text = vocab_chat_template(f->v);
    struct why inner = {.text = ""};
    (void)snprintf(f->refusal, sizeof f->refusal, "%s", NO_TEMPLATE);
    if (text.n == 0)
        return;
    f->developer = memmem(text.p, text.n, "developer", 9) != NULL;
    if (jinja_new(text, &f->template, &inner) < 0)
        (void)snprintf(f->refusal, sizeof f->refusal,
                       "%.150s. Name another with --chat-format of nunchi-tokenizer, or use "
                       "/v1/completions",
                       inner.text);
}

int chat_format_init(struct chat_format *f, const tokenizer *t, slice choice, struct why *w)
{
    *f = (struct chat_format){.v = tokenizer_vocab(t)};
    (void)snprintf(f->refusal, sizeof f->refusal, "%s", SWITCHED_OFF);
    find_marks(f);
    if (slice_eq_str(choice, "none"))
        return 0;
    if (slice_eq_str(choice, "auto")) {
        take_own(f);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(OURS); i++) {
        if (!slice_eq_str(choice, OURS[i].name))
            continue;
        if (tokenizer_special(t, slice_str(OURS[i].open)) != TOKEN_NONE &&
            tokenizer_special(t, slice_str(OURS[i].close)) != TOKEN_NONE)
            return jinja_new(slice_str(OURS[i].template), &f->template, w);
        return why_set(w, ERR_INVALID, "chat-format", "the model's vocabulary has no %s and %s",
                       OURS[i].open, OURS[i].close);
    }
    return why_set(w, ERR_INVALID, "chat-format", "'%.*s' is none of auto, chatml, gemma, none",
                   (int)(choice.n < 40 ? choice.n : 40), choice.p);
}

void chat_format_clear(struct chat_format *f)
{
    jinja_free(f->template);
    literals_free(f->marks);
    *f = (struct chat_format){0};
}

/* ---- what the template is given ---- */

static int check_roles(const struct chat_turn *turns, size_t n, struct why *w)
{
    static const char *const ROLES[] = {"system", "developer", "user", "assistant"};
    if (n == 0)
        return why_set(w, ERR_INVALID, "messages", "no messages");
    for (size_t i = 0; i < n; i++) {
        char field[WHY_FIELD_MAX];
        bool known = false;
        for (size_t k = 0; k < ARRAY_LEN(ROLES); k++)
            known |= slice_eq_str(turns[i].role, ROLES[k]);
        (void)snprintf(field, sizeof field, "messages[%zu].role", i);
        if (!known)
            return why_set(w, ERR_UNSUPPORTED, field,
                           "this role is not supported here: system, developer, user or assistant");
    }
    return 0;
}

static bool blank(slice s)
{
    return slice_trim(s).n == 0;
}

/* A turn's content while its parts are joined: where each byte comes from is said part by part. */
struct joined {
    buf text, from;
};

static void join(struct joined *j, slice s, int from)
{
    buf_put_slice(&j->text, s);
    for (size_t i = 0; i < s.n; i++)
        buf_put_byte(&j->from, (unsigned char)from);
}

/* The parts of a turn, joined. White space beside a video asks nothing and is left out. */
static void join_parts(const struct chat_turn *t, size_t *n_videos, struct joined *out)
{
    const struct chat_part *before = NULL;
    bool any_video = false;
    for (size_t i = 0; i < t->n_parts; i++)
        any_video |= t->parts[i].video;
    for (size_t i = 0; i < t->n_parts; i++) {
        const struct chat_part *p = &t->parts[i];
        if (any_video && !p->video && blank(p->text))
            continue;
        if (before)
            join(out, before->video && !p->video ? SLICE_LIT(PLACE_QUESTION) : SLICE_LIT("\n"),
                 FROM_USER);
        join(out, p->text, p->video ? FROM_VIDEO + (int)(*n_videos)++ : FROM_USER);
        before = p;
    }
}

static struct jinja_val content_of(jinja_run *r, const struct chat_turn *t, size_t *n_videos)
{
    struct joined j = {{0}, {0}};
    join_parts(t, n_videos, &j);
    struct jinja_val v = jinja_text_from(r, buf_slice(&j.text), (const uint8_t *)j.from.p);
    buf_clear(&j.text);
    buf_clear(&j.from);
    return v;
}

/* The text of a token, as templates write it out. */
static void set_token(const struct chat_format *f, jinja_run *r, struct jinja_val names,
                      const char *name, int32_t id)
{
    if (id != TOKEN_NONE)
        jinja_dict_set(r, names, slice_str(name), jinja_text(r, vocab_bytes(f->v, id), 0));
}

static struct jinja_val names_of(const struct chat_format *f, jinja_run *r,
                                 const struct chat_turn *turns, size_t n, bool generate,
                                 size_t *n_videos)
{
    struct jinja_val names = jinja_dict_new(r), messages = jinja_list_new(r);
    for (size_t i = 0; i < n; i++) {
        struct jinja_val m = jinja_dict_new(r);
        bool system = !f->developer && slice_eq_str(turns[i].role, "developer");
        slice role = system ? SLICE_LIT("system") : turns[i].role;
        jinja_dict_set(r, m, SLICE_LIT("role"), jinja_text(r, role, FROM_TEMPLATE));
        jinja_dict_set(r, m, SLICE_LIT("content"), content_of(r, &turns[i], n_videos));
        jinja_list_add(r, messages, m);
    }
    jinja_dict_set(r, names, SLICE_LIT("messages"), messages);
    jinja_dict_set(r, names, SLICE_LIT("add_generation_prompt"), jinja_bool(generate));
    set_token(f, r, names, "bos_token", vocab_bos(f->v));
    set_token(f, r, names, "eos_token", vocab_eos(f->v));
    return names;
}

/* ---- what it wrote ---- */

/* The template's own words: control tokens are read out of them. */
static void put_marked(const struct chat_format *f, slice s, struct prompt *out)
{
    for (size_t from = 0; from < s.n;) {
        size_t at = s.n, len = 0;
        int32_t id = literals_find(f->marks, s, from, &at, &len);
        prompt_text(out, (slice){s.p + from, at - from});
        if (id >= 0)
            prompt_special_strips(out, id, vocab_strips(f->v, id));
        from = at + len;
    }
}

/* A video that the template writes twice is one where it stands first. */
static size_t put_rendered(const struct chat_format *f, struct jinja_str s, struct prompt *out)
{
    size_t videos = 0;
    for (size_t i = 0, n; i < s.n; i += n) {
        uint8_t from = s.from ? s.from[i] : FROM_TEMPLATE;
        for (n = 1; i + n < s.n && (s.from ? s.from[i + n] : FROM_TEMPLATE) == from;)
            n++;
        slice part = {s.p + i, n};
        if (from == FROM_TEMPLATE) {
            put_marked(f, part, out);
        } else if (from == FROM_VIDEO + videos) {
            videos++;
            prompt_video(out);
            prompt_text(out, part);
            prompt_video_end(out);
        } else {
            prompt_text(out, part);
        }
    }
    return videos;
}

/* Videos whose notes are here: before they are placed, there is nothing to be found again. */
static size_t videos_to_find(const struct chat_turn *turns, size_t n)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < turns[i].n_parts; k++)
            found += turns[i].parts[k].video && !blank(turns[i].parts[k].text);
    return found;
}

int chat_render(const struct chat_format *f, const struct chat_turn *turns, size_t n,
                bool add_generation_prompt, int64_t now_unix_s, struct prompt *out, struct why *w)
{
    if (!f->template)
        return why_set(w, ERR_UNSUPPORTED, "messages", "%s", f->refusal);
    int e = check_roles(turns, n, w);
    if (e < 0)
        return e;
    jinja_run *r = jinja_run_new(f->template, now_unix_s);
    struct jinja_str text;
    size_t n_videos = 0;
    e = jinja_render(r, names_of(f, r, turns, n, add_generation_prompt, &n_videos), &text, w);
    CHECK(n_videos <= CHAT_VIDEOS_MAX);
    if (e == 0 && put_rendered(f, text, out) != videos_to_find(turns, n))
        e = why_set(w, ERR_INVALID, "messages",
                    "the model's chat template leaves out a message that has a video in it");
    jinja_run_free(r);
    return e;
}
