/* Turning a question into token ids. */
#include "gateway/core_impl.h"
#include "proto/token.pb-c.h"

#define REPLY_ARENA_BYTES (256u << 10)
#define TOKENISE_ATTEMPTS 4

static void put_video(arena *a, const struct job_video *v, uint32_t frame, Nunchi__ChatPart *out)
{
    Nunchi__VideoRef *ref = arena_get(a, sizeof *ref);
    nunchi__video_ref__init(ref);
    ref->content = pb_bytes((slice){(const char *)v->content, sizeof v->content});
    ref->salt = pb_bytes((slice){(const char *)v->salt, sizeof v->salt});
    ref->notes_frame = frame;
    ref->name = pb_bytes(v->part->name);
    out->part_case = NUNCHI__CHAT_PART__PART_VIDEO;
    out->video = ref;
}

static Nunchi__ChatPart *text_part(arena *a, slice text)
{
    Nunchi__ChatPart *p = arena_get(a, sizeof *p);
    nunchi__chat_part__init(p);
    p->part_case = NUNCHI__CHAT_PART__PART_TEXT;
    p->text = pb_bytes(text);
    return p;
}

static Nunchi__ChatTurn *make_turn(struct job *j, arena *a, const struct gw_turn *t,
                                   uint32_t *frame)
{
    Nunchi__ChatTurn *out = arena_get(a, sizeof *out);
    nunchi__chat_turn__init(out);
    out->role = pb_bytes(t->role);
    out->name = pb_bytes(t->name);
    out->parts = arena_get(a, (t->n_parts ? t->n_parts : 1) * sizeof *out->parts);
    for (size_t i = 0; i < t->n_parts; i++) {
        Nunchi__ChatPart *p = text_part(a, t->parts[i].text);
        if (t->parts[i].kind !=
            GW_TEXT) { /* in the order in which they were taken: video[k] is the k-th */
            put_video(a, &j->video[*frame], *frame, p);
            ++*frame;
        }
        out->parts[out->n_parts++] = p;
    }
    return out;
}

static void set_chat(struct job *j, arena *a, Nunchi__Tokenize *t)
{
    uint32_t frame = 0;
    Nunchi__Chat *c = arena_get(a, sizeof *c);
    nunchi__chat__init(c);
    c->add_generation_prompt = true;
    c->turns = arena_get(a, j->r->n_turns * sizeof *c->turns);
    for (size_t i = 0; i < j->r->n_turns; i++)
        c->turns[c->n_turns++] = make_turn(j, a, &j->r->turns[i], &frame);
    t->input_case = NUNCHI__TOKENIZE__INPUT_CHAT;
    t->chat = c;
}

static void set_prompt(struct job *j, arena *a, Nunchi__Tokenize *t)
{
    Nunchi__Prompt *p = arena_get(a, sizeof *p);
    nunchi__prompt__init(p);
    p->parts = arena_get(a, sizeof *p->parts);
    p->parts[p->n_parts++] = text_part(a, j->r->prompt);
    p->add_special = true;
    t->input_case = NUNCHI__TOKENIZE__INPUT_PROMPT;
    t->prompt = p;
}

static int send_tokenize(struct job *j, struct worker *w)
{
    arena *a = arena_new(0);
    Nunchi__TokenRequest q = NUNCHI__TOKEN_REQUEST__INIT;
    Nunchi__Tokenize t;
    slice frames[VIDEOS_MAX];
    nunchi__tokenize__init(&t);
    t.model = slice_dup(j->r->model);
    t.tenant = pb_bytes((slice){(const char *)j->r->tenant, sizeof j->r->tenant});
    t.max_tokens = j->r->echo_alone ? 1 : j->r->max_tokens;
    t.notes_tokens_max = j->g->cfg.notes_tokens;
    if (j->r->chat)
        set_chat(j, a, &t);
    else
        set_prompt(j, a, &t);
    q.op_case = NUNCHI__TOKEN_REQUEST__OP_TOKENIZE;
    q.tokenize = &t;
    for (size_t i = 0; i < j->n_videos; i++)
        frames[i] = buf_slice(&j->video[i].notes);
    int e = ask_send(&j->ask, w, &q.base, frames, j->n_videos, TOKENIZE_MS);
    free(t.model);
    arena_free(a);
    return e;
}

/* A peer's numbers are checked against its own frames before anything is believed. */
static int take_reply(struct job *j, const Nunchi__TokenReply *r, const struct wire_msg *m)
{
    if (r->op_case != NUNCHI__TOKEN_REPLY__OP_TOKENIZED)
        return ERR_PROTO;
    const Nunchi__Tokenized *t = r->tokenized;
    size_t hashes = t->n_tokens / 16 * (size_t)DIGEST_BYTES;
    if (t->n_tokens == 0 || t->max_tokens_left == 0 || m->n_frames < 1 ||
        m->frames[0].n != (size_t)t->n_tokens * 4)
        return ERR_PROTO;
    if (t->content.len != DIGEST_BYTES || (m->n_frames > 1 && m->frames[1].n != hashes))
        return ERR_PROTO;
    buf_put_slice(&j->ids, m->frames[0]);
    if (m->n_frames > 1 && hashes)
        buf_put_slice(&j->hashes, m->frames[1]);
    memcpy(j->content.b, t->content.data, DIGEST_BYTES);
    j->n_tokens = t->n_tokens;
    admit_tokens(j->g->admit, &j->ticket, j->n_tokens);
    j->max_tokens = j->r->max_tokens && j->r->max_tokens < t->max_tokens_left ? j->r->max_tokens
                                                                              : t->max_tokens_left;
    if (!j->r->echo)
        return 0;
    buf_reset(&j->first);
    buf_put_slice(&j->first, pb_slice(t->first));
    j->n_echoed = t->n_tokens - 1;
    j->max_tokens = (j->r->echo_alone ? 0 : j->max_tokens) + j->n_echoed;
    if (j->max_tokens == 0) /* one token has nothing before it that could tell how likely it is */
        j->max_tokens = 1;
    return 0;
}

static int read_reply(struct job *j, const struct wire_msg *m)
{
    arena *a = arena_new(REPLY_ARENA_BYTES);
    void *v;
    int e = ask_unpack(a, &nunchi__token_reply__descriptor, m, &v);
    if (e == 0)
        e = take_reply(j, v, m);
    arena_free(a);
    return e < 0 ? ERR_PROTO : 0;
}

static void refused(struct job *j, int err, const struct why *w)
{
    struct gw_fail f;
    const char *code = NULL;
    if (err == ERR_TOO_BIG) { /* clients know a prompt that does not fit as a 400 */
        err = ERR_INVALID;
        code = "context_length_exceeded";
    } else if (err == ERR_NOT_FOUND) {
        code = "model_not_found";
    }
    gw_failed(&f, err, code, w ? w->field : "", "%s", w && w->text[0] ? w->text : err_text(err));
    job_fail(j, &f);
}

static void on_tokenized(struct ask *ask, int err, const struct wire_msg *m, const struct why *w)
{
    struct job *j = CONTAINER_OF(ask, struct job, ask);
    if (err == 0)
        err = read_reply(j, m);
    if (err == 0) {
        job_lookup(j);
    } else if (err_retryable(err) && ++j->attempts < TOKENISE_ATTEMPTS) {
        j->g->counts.retries++;
        job_wait(j, STAGE_TOKENISE);
    } else {
        refused(j, err, w);
    }
}

/* Those that have the file that the model's workers have: both may be being replaced one by one. */
static struct route_kind tokenizers(const struct job *j)
{
    struct route_kind k = {.model = j->r->model};
    const struct worker *w = route_any(j->g->route, SERVICE_MODEL, k);
    const Nunchi__ModelInfo *m = w ? worker_model(w, k.model) : NULL;
    if (m)
        k.weights = pb_slice(m->weights);
    return k;
}

static struct worker *choose(struct job *j)
{
    struct route_kind k = tokenizers(j);
    if (!route_any(j->g->route, SERVICE_TOKENIZER, k))
        k.weights = (slice){0};
    return route_pick(j->g->route, j->g->now_us, SERVICE_TOKENIZER, k);
}

static void note_weights(struct job *j, const struct worker *w)
{
    const Nunchi__ModelInfo *m = worker_model(w, j->r->model);
    j->has_weights = m && m->weights.len == DIGEST_BYTES;
    if (j->has_weights)
        memcpy(j->weights, m->weights.data, DIGEST_BYTES);
}

struct route_kind job_kind(const struct job *j)
{
    slice weights = {(const char *)j->weights, DIGEST_BYTES};
    return (struct route_kind){.model = j->r->model,
                               .weights = j->has_weights ? weights : (slice){0}};
}

bool job_outdated(struct job *j)
{
    struct route_kind any = {.model = j->r->model};
    return !j->started && !route_any(j->g->route, SERVICE_MODEL, job_kind(j)) &&
           route_any(j->g->route, SERVICE_MODEL, any) &&
           route_any(j->g->route, SERVICE_TOKENIZER, tokenizers(j));
}

void job_retokenise(struct job *j)
{
    buf_clear(&j->ids);
    buf_clear(&j->hashes);
    j->has_weights = false;
    j->has_numerics = false;
    j->g->counts.retries++;
    job_wait(j, STAGE_TOKENISE);
}

void job_tokenise(struct job *j)
{
    struct worker *w;
    j->ask.done = on_tokenized;
    j->ask.chunk = NULL;
    do { /* one that cannot be sent to is not chosen again soon */
        w = choose(j);
        if (!w) {
            job_alone(j, SERVICE_TOKENIZER, "tokenizer");
            return;
        }
    } while (send_tokenize(j, w) < 0);
    note_weights(j, w);
    job_unwait(j);
}
