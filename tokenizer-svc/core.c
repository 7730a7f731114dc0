#include "tokenizer-svc/core.h"

#include "common/wire/blockhash.h"
#include "common/wire/pb.h"
#include "tokenizer-svc/place.h"
#include "tokenizer-svc/request.h"

struct core {
    const vocab *v;
    tokenizer *t;
    struct chat_format chat;
    const char *model;
    struct digest weights;
    uint32_t n_context;
};

int core_new(const struct core_config *cfg, core **out, struct why *w)
{
    core *c = xcalloc(1, sizeof *c);
    *c = (core){
        .v = cfg->vocab, .model = cfg->model, .weights = cfg->weights, .n_context = cfg->n_context};
    *out = NULL;
    int e = tokenizer_new(cfg->vocab, &c->t, w);
    if (e == 0)
        e = chat_format_init(&c->chat, c->t,
                             slice_str(cfg->chat_format ? cfg->chat_format : "auto"), w);
    if (e < 0) {
        core_free(c);
        return e;
    }
    *out = c;
    return 0;
}

void core_free(core *c)
{
    if (!c)
        return;
    chat_format_clear(&c->chat);
    tokenizer_free(c->t);
    free(c);
}

bool core_can_chat(const core *c)
{
    return c->chat.template != NULL;
}

const tokenizer *core_tokenizer(const core *c)
{
    return c->t;
}

void core_answer_clear(struct core_answer *a)
{
    buf_clear(&a->body);
    buf_clear(&a->frames[0]);
    buf_clear(&a->frames[1]);
    *a = (struct core_answer){0};
}

static int check_model(const core *c, const char *model, struct why *w)
{
    if (slice_eq(slice_str(model), slice_str(c->model)))
        return 0;
    return why_set(w, ERR_NOT_FOUND, "model", "no such model here; this service has '%s'",
                   c->model);
}

/* ---- one Tokenize on its way: from here on everything lives in `work` ---- */

struct work {
    const core *c;
    tok_scratch *s;
    struct ask q;
    place *places[CORE_VIDEOS_MAX];
    struct placed placed[CORE_VIDEOS_MAX];
    buf notes[CORE_VIDEOS_MAX]; /* what stands in the prompt for each video */
    struct prompt prompt;
    struct prompt_span spans[CORE_VIDEOS_MAX];
    struct ids ids;
    int64_t now_unix_s;
    struct why *why;
};

static void work_clear(struct work *k)
{
    for (size_t i = 0; i < CORE_VIDEOS_MAX; i++) {
        place_free(k->places[i]);
        buf_clear(&k->notes[i]);
    }
    prompt_clear(&k->prompt);
    ids_clear(&k->ids);
}

static const char *field_of(const struct work *k)
{
    return k->q.chat ? "messages" : "prompt";
}

static void render_prompt(struct work *k)
{
    int32_t bos = vocab_bos(k->c->v);
    if (k->q.add_special && vocab_add_bos(k->c->v) && bos != TOKEN_NONE)
        prompt_special(&k->prompt, bos);
    for (size_t i = 0; i < k->q.turns[0].n_parts; i++) {
        const struct chat_part *p = &k->q.turns[0].parts[i];
        if (p->video)
            prompt_video(&k->prompt);
        prompt_text(&k->prompt, p->text);
        if (p->video)
            prompt_video_end(&k->prompt);
    }
}

/* Puts each video's notes, as they are now, in its place, renders and encodes. */
static int encode(struct work *k)
{
    size_t video = 0;
    for (size_t i = 0; i < k->q.n_turns; i++) {
        struct chat_part *parts = k->q.parts[i];
        for (size_t j = 0; j < k->q.turns[i].n_parts; j++)
            if (parts[j].video)
                parts[j].text = buf_slice(&k->notes[video++]);
    }
    prompt_clear(&k->prompt);
    k->ids.n = 0;
    if (!k->q.chat)
        render_prompt(k);
    else {
        int e = chat_render(&k->c->chat, k->q.turns, k->q.n_turns, k->q.add_generation_prompt,
                            k->now_unix_s, &k->prompt, k->why);
        if (e < 0)
            return e;
    }
    return prompt_encode(&k->prompt, k->c->t, k->s, &k->ids, k->spans, CORE_VIDEOS_MAX, k->why);
}

/* A text that cannot fit is refused before any work goes into it. */
static int check_bytes(const struct work *k)
{
    size_t least = k->q.text_bytes / tokenizer_piece_max(k->c->t);
    if (least <= k->c->n_context)
        return 0;
    return why_set(k->why, ERR_INVALID, field_of(k),
                   "the text has %zu bytes, at least %zu tokens; the model's context is %u tokens",
                   k->q.text_bytes, least, k->c->n_context);
}

static int check_fit(const struct work *k)
{
    size_t n = k->ids.n, have = k->c->n_context, want = k->q.max_tokens;
    if (n == 0)
        return why_set(k->why, ERR_INVALID, field_of(k), "the prompt is empty");
    if (n > CORE_IDS_MAX)
        return why_set(k->why, ERR_INVALID, field_of(k),
                       "the prompt has %zu tokens; at most %u fit one message", n, CORE_IDS_MAX);
    if (n >= have)
        return why_set(k->why, ERR_INVALID, field_of(k),
                       "the prompt has %zu tokens; the model's context is %zu, the answer "
                       "included: shorten it by at least %zu",
                       n, have, n - have + 1);
    if (want > have - n)
        return why_set(k->why, ERR_INVALID, "max_tokens",
                       "the prompt has %zu tokens and max_tokens is %zu, together %zu; the model's "
                       "context is %zu: ask for at most %zu",
                       n, want, n + want, have, have - n);
    return 0;
}

/* ---- videos ---- */

/* Tokens that all notes together may take: what was asked for or a share of the context, and never
 * so much that the rest of the prompt and the answer have no room. */
static size_t notes_budget(const struct work *k, size_t n_other)
{
    size_t context = k->c->n_context;
    size_t room = k->q.max_tokens                  ? k->q.max_tokens
                  : context / 8 < CORE_ANSWER_ROOM ? context / 8
                                                   : CORE_ANSWER_ROOM;
    size_t wish = k->q.notes_tokens_max ? k->q.notes_tokens_max : context / CORE_NOTES_SHARE;
    size_t left = context > n_other + room ? context - n_other - room : 0;
    return wish < left ? wish : left;
}

/* Equal shares; what a short video leaves over goes to the others. */
static void share(const struct work *k, size_t budget, size_t out[CORE_VIDEOS_MAX])
{
    size_t open = k->q.n_videos;
    bool done[CORE_VIDEOS_MAX] = {false}, again = true;
    while (again && open > 0) {
        size_t each = budget / open;
        again = false;
        for (size_t i = 0; i < k->q.n_videos; i++)
            if (!done[i] && place_cost(k->places[i]) <= each) {
                out[i] = place_cost(k->places[i]);
                budget -= out[i];
                open--;
                done[i] = again = true;
            }
    }
    for (size_t i = 0; i < k->q.n_videos; i++)
        if (!done[i])
            out[i] = budget / open;
}

static int place_videos(struct work *k)
{
    size_t n = k->q.n_videos, budget[CORE_VIDEOS_MAX] = {0};
    int e = encode(k); /* without notes: what is left for them? */
    for (size_t i = 0; e == 0 && i < n; i++)
        e = place_new(k->q.videos[i].notes, k->q.videos[i].name, k->c->t, k->s, &k->places[i],
                      k->why);
    if (e < 0)
        return e;
    share(k, notes_budget(k, k->ids.n), budget);
    for (size_t i = 0; i < n; i++)
        k->placed[i] = place_write(k->places[i], budget[i], &k->notes[i]);
    return 0;
}

/* ---- the answer ---- */

static void put_le32(buf *out, uint32_t v)
{
    unsigned char b[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                          (unsigned char)(v >> 24)};
    buf_put(out, b, sizeof b);
}

static struct digest hash_blocks(const struct work *k, struct core_answer *out)
{
    const struct core *c = k->c;
    slice weights = {(const char *)c->weights.b, sizeof c->weights.b};
    blockhash *h = blockhash_new(k->q.tenant, weights, k->q.adapter);
    size_t video = 0;
    for (size_t i = 0; i < k->ids.n; i++) {
        struct digest d;
        while (video < k->q.n_videos && k->spans[video].from == i)
            blockhash_salt(h, k->q.videos[video++].salt);
        put_le32(&out->frames[0], (uint32_t)k->ids.p[i]);
        if (blockhash_token(h, k->ids.p[i], &d))
            buf_put(&out->frames[1], d.b, sizeof d.b);
    }
    while (video < k->q.n_videos) /* one at the very end: it counts all the same */
        blockhash_salt(h, k->q.videos[video++].salt);
    struct digest content = blockhash_content(h);
    blockhash_free(h);
    return content;
}

static void pack_tokenized(const struct work *k, struct core_answer *out)
{
    Nunchi__TokenReply reply;
    nunchi__token_reply__init(&reply);
    Nunchi__Tokenized t;
    nunchi__tokenized__init(&t);
    Nunchi__PlacedVideo videos[CORE_VIDEOS_MAX], *list[CORE_VIDEOS_MAX];
    struct digest content = hash_blocks(k, out);
    for (size_t i = 0; i < k->q.n_videos; i++) {
        nunchi__placed_video__init(&videos[i]);
        list[i] = &videos[i];
        videos[i].content = pb_bytes(k->q.videos[i].content);
        videos[i].n_tokens = (uint32_t)(k->spans[i].to - k->spans[i].from);
        videos[i].lines = (uint32_t)k->placed[i].lines;
        videos[i].lines_kept = (uint32_t)k->placed[i].kept;
        videos[i].shortened = k->placed[i].kept < k->placed[i].lines;
    }
    t.n_tokens = (uint32_t)k->ids.n;
    t.content = pb_bytes((slice){(const char *)content.b, sizeof content.b});
    t.n_context = k->c->n_context;
    if (vocab_token_kind(k->c->v, k->ids.p[0]) != TOKEN_CONTROL)
        t.first = pb_bytes(vocab_bytes(k->c->v, k->ids.p[0]));
    t.max_tokens_left = k->c->n_context - t.n_tokens;
    t.n_videos = k->q.n_videos;
    t.videos = list;
    reply.op_case = NUNCHI__TOKEN_REPLY__OP_TOKENIZED;
    reply.tokenized = &t;
    pb_pack(&reply.base, &out->body);
    out->n_frames = 2;
}

static int tokenize(const core *c, tok_scratch *s, const Nunchi__Tokenize *t,
                    const struct wire_msg *m, int64_t now_unix_s, arena *a, struct core_answer *out,
                    struct why *w)
{
    struct work *k = try_calloc(1, sizeof *k);
    if (!k)
        return why_set(w, ERR_NOMEM, "", "no memory for the request");
    k->c = c;
    k->s = s;
    k->why = w;
    k->now_unix_s = now_unix_s;
    int e = check_model(c, t->model, w);
    if (e == 0)
        e = ask_read(&k->q, t, m, a, w);
    if (e == 0)
        e = check_bytes(k);
    if (e == 0 && k->q.n_videos > 0)
        e = place_videos(k);
    if (e == 0)
        e = encode(k);
    if (e == 0)
        e = check_fit(k);
    if (e == 0)
        pack_tokenized(k, out);
    work_clear(k);
    free(k);
    return e;
}

static int detokenize(const core *c, const Nunchi__Detokenize *d, const struct wire_msg *m,
                      struct core_answer *out, struct why *w)
{
    int e = check_model(c, d->model, w);
    if (e < 0)
        return e;
    if (m->n_frames != 1 || m->frames[0].n % 4 != 0)
        return why_set(w, ERR_PROTO, "ids", "ids come in one frame of 4 bytes each");
    struct tok_decoder dec = {.v = c->v, .skip_special = d->skip_special};
    buf text = {0};
    for (size_t i = 0; i + 4 <= m->frames[0].n; i += 4) {
        const unsigned char *p = (const unsigned char *)m->frames[0].p + i;
        uint32_t id = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        if (id >= (uint32_t)vocab_size(c->v)) {
            buf_clear(&text);
            return why_set(w, ERR_INVALID, "ids", "id %u at %zu is not in the vocabulary of %d", id,
                           i / 4, vocab_size(c->v));
        }
        tok_decode(&dec, (int32_t)id, &text);
    }
    tok_decode_end(&dec, &text);
    Nunchi__TokenReply reply;
    nunchi__token_reply__init(&reply);
    Nunchi__Detokenized t;
    nunchi__detokenized__init(&t);
    if (text.n > WIRE_BODY_MAX - 1024)
        e = why_set(w, ERR_TOO_BIG, "ids",
                    "the text of these ids has %zu bytes; at most %u fit one message", text.n,
                    WIRE_BODY_MAX - 1024);
    t.text = pb_bytes(buf_slice(&text));
    reply.op_case = NUNCHI__TOKEN_REPLY__OP_DETOKENIZED;
    reply.detokenized = &t;
    if (e == 0)
        pb_pack(&reply.base, &out->body);
    buf_clear(&text);
    return e;
}

int core_answer_to(const core *c, tok_scratch *s, const struct wire_msg *m, int64_t now_unix_s,
                   struct core_answer *out, struct why *w)
{
    arena *a = arena_new(CORE_MEMORY_MAX);
    void *parsed;
    int e = pb_unpack(a, &nunchi__token_request__descriptor, m->body, WIRE_BODY_MAX, &parsed, w);
    if (e == 0) {
        const Nunchi__TokenRequest *r = parsed;
        if (r->op_case == NUNCHI__TOKEN_REQUEST__OP_TOKENIZE)
            e = tokenize(c, s, r->tokenize, m, now_unix_s, a, out, w);
        else if (r->op_case == NUNCHI__TOKEN_REQUEST__OP_DETOKENIZE)
            e = detokenize(c, r->detokenize, m, out, w);
        else
            e = why_set(w, ERR_UNSUPPORTED, "", "a request of a kind this version does not know");
    }
    arena_free(a);
    return e;
}
