/* A gateway's core without a world: what it sends is kept, what workers say is made here, the clock
 * is turned by hand. */
#ifndef NUNCHI_GATEWAY_FAKE_H
#define NUNCHI_GATEWAY_FAKE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "common/wire/pb.h"
#include "gateway/core.h"
#include "gateway/openai.h"
#include "proto/generate.pb-c.h"
#include "proto/result.pb-c.h"
#include "proto/token.pb-c.h"

enum { TOKENIZER = 1, MODEL = 2, MODEL_B = 3, CACHE = 4, VIDEO = 5 };

struct sent {
    uint64_t peer;
    struct wire_head head;
    buf body;
    buf frames[8];
    size_t n_frames;
};

struct world {
    gw *g;
    uint64_t now; /* us */
    struct sent sent[4096];
    size_t n_sent;
    int send_error[16]; /* by peer: what send answers */
    arena *a;
};

/* What the client's side heard. */
struct heard {
    buf text[CHOICES_MAX];
    int ended[CHOICES_MAX]; /* 0: no; 1 + enum gw_end */
    size_t n_logprobs, n_starts, n_done, n_failed, n_waiting;
    bool cached, busy;
    struct gw_usage usage;
    struct gw_fail fail;
    uint64_t id;
};

static void on_waiting(void *ctx, uint32_t permille)
{
    struct heard *h = ctx;
    assert_true(permille <= 1000);
    h->n_waiting++;
}

static void on_start(void *ctx, const struct gw_start *s)
{
    struct heard *h = ctx;
    h->n_starts++;
    h->cached = s->cached;
}

static void on_delta(void *ctx, const struct gw_delta *d)
{
    struct heard *h = ctx;
    assert_int_equal(h->n_starts, 1);
    assert_int_equal(h->n_done + h->n_failed, 0);
    if (d->text.n)
        buf_put_slice(&h->text[d->choice], d->text);
    h->n_logprobs += d->n_logprobs;
}

static void on_choice_end(void *ctx, uint32_t choice, enum gw_end why)
{
    struct heard *h = ctx;
    assert_int_equal(h->ended[choice], 0);
    h->ended[choice] = 1 + (int)why;
}

static void on_done(void *ctx, const struct gw_usage *u)
{
    struct heard *h = ctx;
    assert_int_equal(h->n_done + h->n_failed, 0);
    h->n_done++;
    h->usage = *u;
}

static void on_failed(void *ctx, const struct gw_fail *f)
{
    struct heard *h = ctx;
    assert_int_equal(h->n_done + h->n_failed, 0);
    h->n_failed++;
    h->fail = *f;
}

static bool on_ready(void *ctx)
{
    return !((struct heard *)ctx)->busy;
}

static const struct gw_client_ops CLIENT = {on_waiting, on_start,  on_delta, on_choice_end,
                                            on_done,    on_failed, on_ready};

static inline void heard_clear(struct heard *h)
{
    for (size_t i = 0; i < CHOICES_MAX; i++)
        buf_clear(&h->text[i]);
    *h = (struct heard){0};
}

static int fake_send(void *ctx, uint64_t peer, const struct wire_msg *m)
{
    struct world *w = ctx;
    if (w->send_error[peer] < 0)
        return w->send_error[peer];
    assert_true(w->n_sent < ARRAY_LEN(w->sent));
    struct sent *s = &w->sent[w->n_sent++];
    *s = (struct sent){.peer = peer, .head = m->head, .n_frames = m->n_frames};
    if (m->body.n)
        buf_put_slice(&s->body, m->body);
    assert_true(m->n_frames <= ARRAY_LEN(s->frames));
    for (size_t i = 0; i < m->n_frames; i++)
        if (m->frames[i].n)
            buf_put_slice(&s->frames[i], m->frames[i]);
    return 0;
}

/* The newest message of a type to a peer; NULL if there is none. */
static inline struct sent *last_to(struct world *w, uint64_t peer, int type)
{
    for (size_t i = w->n_sent; i > 0; i--)
        if (w->sent[i - 1].peer == peer && w->sent[i - 1].head.type == type)
            return &w->sent[i - 1];
    return NULL;
}

static inline size_t count_to(struct world *w, uint64_t peer, int type)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_sent; i++)
        n += w->sent[i].peer == peer && w->sent[i].head.type == type;
    return n;
}

static inline void *body_of(struct world *w, const struct sent *s,
                            const ProtobufCMessageDescriptor *d)
{
    void *v;
    assert_non_null(s);
    assert_int_equal(pb_unpack(w->a, d, buf_slice(&s->body), WIRE_BODY_MAX, &v, NULL), 0);
    return v;
}

/* ---- peers ---- */

static const uint8_t NUMERICS[32] = {1, 2, 3}, NUMERICS_B[32] = {9};

struct spec {
    const char *service, *model; /* model NULL: none */
    const uint8_t *numerics;     /* 32 */
    uint8_t weights; /* every byte of the digest of the model's file; 0: it does not say */
    uint32_t slots;
};

static inline void up_as(struct world *w, uint64_t peer, const struct spec *s)
{
    Nunchi__Ready r;
    Nunchi__ModelInfo m, *models[] = {&m};
    uint8_t digest[32];
    char instance[16], name[64], service_text[16];
    nunchi__ready__init(&r);
    nunchi__model_info__init(&m);
    snprintf(instance, sizeof instance, "i%d", (int)peer);
    snprintf(service_text, sizeof service_text, "%s", s->service);
    r.service = service_text;
    r.instance = instance;
    r.slots = s->slots;
    if (s->model) {
        snprintf(name, sizeof name, "%s", s->model);
        memset(digest, s->weights, sizeof digest);
        m.name = name;
        m.n_context = 2048;
        m.numerics = pb_bytes((slice){(const char *)s->numerics, 32});
        m.weights = pb_bytes((slice){(const char *)digest, s->weights ? 32 : 0});
        r.models = models;
        r.n_models = 1;
    }
    gw_peer_up(w->g, w->now, peer, &r);
}

static inline void up(struct world *w, uint64_t peer, const char *service, const char *model,
                      const uint8_t numerics[32], uint32_t slots)
{
    up_as(w, peer, &(struct spec){service, model, numerics, 0, slots});
}

static inline void up_all(struct world *w)
{
    up(w, TOKENIZER, "tokenizer", "m", NUMERICS, 8);
    up(w, MODEL, "model", "m", NUMERICS, 8);
    up(w, CACHE, "cache", NULL, NULL, 64);
    up(w, VIDEO, "video", NULL, NULL, 4);
}

static inline void world_new(struct world *w, const struct gw_config *cfg)
{
    static const struct gw_config DEFAULT = {
        .requests_max = 64, .queue_max = 16, .request_ms = 60000, .worker_wait_ms = 5000};
    struct gw_out out = {.ctx = w, .send = fake_send};
    *w = (struct world){.now = 1000000, .a = arena_new(0)};
    w->g = gw_new(cfg ? cfg : &DEFAULT, &out);
}

static inline void world_free(struct world *w)
{
    gw_free(w->g);
    for (size_t i = 0; i < w->n_sent; i++) {
        buf_clear(&w->sent[i].body);
        for (size_t k = 0; k < w->sent[i].n_frames; k++)
            buf_clear(&w->sent[i].frames[k]);
    }
    arena_free(w->a);
}

static inline void turn(struct world *w, uint64_t ms)
{
    for (uint64_t end = w->now + ms * 1000; w->now < end;) {
        uint64_t next = gw_tick(w->g, w->now);
        w->now = next > w->now && next < end ? next : end;
    }
    gw_tick(w->g, w->now);
}

static inline void say(struct world *w, uint64_t peer, int type, uint16_t flags, uint64_t request,
                       const ProtobufCMessage *body, const slice *frames, size_t n)
{
    buf packed = {0};
    if (body)
        pb_pack(body, &packed);
    struct wire_msg m = {.head = {.type = (uint8_t)type, .flags = flags, .request = request},
                         .body = buf_slice(&packed),
                         .n_frames = n};
    for (size_t i = 0; i < n; i++)
        m.frames[i] = frames[i];
    gw_peer_msg(w->g, w->now, peer, &m);
    buf_clear(&packed);
}

static inline void say_error(struct world *w, const struct sent *to, int err)
{
    Nunchi__Error e;
    nunchi__error__init(&e);
    e.code = err_to_wire(err);
    e.message = pb_bytes(SLICE_LIT("a sentence"));
    say(w, to->peer, WIRE_ERROR, 0, to->head.request, &e.base, NULL, 0);
}

/* ---- a question, step by step ---- */

static inline int ask_json(struct world *w, const char *json, struct heard *h, struct gw_fail *f)
{
    struct gw_request *r;
    struct why why;
    assert_int_equal(openai_parse(OPENAI_CHAT, slice_str(json), &r, &why), 0);
    if (!r->sampling.seed_given)
        r->sampling.seed = 42;
    return gw_ask(w->g, w->now, r, &CLIENT, h, &h->id, f);
}

#define ASK "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static inline void ask_with(struct world *w, const char *more, struct heard *h)
{
    struct gw_fail f;
    buf json = {0};
    buf_printf(&json, ASK "%s}", more);
    assert_int_equal(ask_json(w, buf_cstr(&json), h, &f), 0);
    buf_clear(&json);
}

#define PROMPT_TOKENS 20

static inline void tokenised_by(struct world *w, uint64_t from)
{
    static const int32_t IDS[PROMPT_TOKENS] = {1, 2, 3};
    static const uint8_t HASHES[32] = {7}, CONTENT[32] = {8};
    Nunchi__Tokenized t = NUNCHI__TOKENIZED__INIT;
    Nunchi__TokenReply r = NUNCHI__TOKEN_REPLY__INIT;
    slice frames[] = {{(const char *)IDS, sizeof IDS}, {(const char *)HASHES, sizeof HASHES}};
    t.n_tokens = PROMPT_TOKENS;
    t.content = pb_bytes((slice){(const char *)CONTENT, 32});
    t.n_context = 2048;
    t.max_tokens_left = 100;
    r.op_case = NUNCHI__TOKEN_REPLY__OP_TOKENIZED;
    r.tokenized = &t;
    const struct sent *q = last_to(w, from, WIRE_REQUEST);
    assert_non_null(q);
    say(w, from, WIRE_DONE, 0, q->head.request, &r.base, frames, 2);
}

static inline void tokenised(struct world *w)
{
    tokenised_by(w, TOKENIZER);
}

struct piece {
    uint32_t choice, position, n_ids;
    const char *text;
    size_t n_logprobs;
};

static inline void delta(struct world *w, const struct sent *run, const struct piece *p)
{
    static int32_t ids[64];
    Nunchi__TokenLogprob lp = NUNCHI__TOKEN_LOGPROB__INIT, *lps[64];
    Nunchi__Delta d = NUNCHI__DELTA__INIT, *ds[] = {&d};
    Nunchi__StepTokens s = NUNCHI__STEP_TOKENS__INIT;
    for (size_t i = 0; i < 64; i++) {
        ids[i] = (int32_t)(100 + p->position + i);
        lps[i] = &lp;
    }
    lp.logprob = -1;
    lp.text = pb_bytes(SLICE_LIT("t"));
    d.request = run->head.request;
    d.choice = p->choice;
    d.position = p->position;
    d.ids = ids;
    d.n_ids = p->n_ids;
    d.text = pb_bytes(slice_str(p->text));
    d.logprobs = lps;
    d.n_logprobs = p->n_logprobs;
    s.deltas = ds;
    s.n_deltas = 1;
    say(w, run->peer, WIRE_CHUNK, WIRE_MANY, 0, &s.base, NULL, 0);
}

static inline void words(struct world *w, const struct sent *run, uint32_t choice,
                         uint32_t position, uint32_t n_ids, const char *text)
{
    delta(w, run, &(struct piece){choice, position, n_ids, text, 0});
}

static inline void generated(struct world *w, const struct sent *run, uint32_t n,
                             const uint32_t *n_ids, const char *text,
                             Nunchi__ChoiceEnd__Reason reason)
{
    Nunchi__ChoiceEnd ends[CHOICES_MAX], *list[CHOICES_MAX];
    Nunchi__Generated g = NUNCHI__GENERATED__INIT;
    for (uint32_t i = 0; i < n; i++) {
        nunchi__choice_end__init(&ends[i]);
        ends[i].choice = i;
        ends[i].reason = reason;
        ends[i].n_ids = n_ids[i];
        ends[i].text = pb_bytes(slice_str(text));
        list[i] = &ends[i];
    }
    g.ends = list;
    g.n_ends = n;
    g.prompt_tokens = PROMPT_TOKENS;
    say(w, run->peer, WIRE_DONE, 0, run->head.request, &g.base, NULL, 0);
}

static inline void miss(struct world *w)
{
    uint32_t none[] = {0};
    Nunchi__BlobValues v = NUNCHI__BLOB_VALUES__INIT;
    Nunchi__CacheReply r = NUNCHI__CACHE_REPLY__INIT;
    v.frame = none;
    v.n_frame = 1;
    r.op_case = NUNCHI__CACHE_REPLY__OP_VALUES;
    r.values = &v;
    say(w, CACHE, WIRE_DONE, 0, last_to(w, CACHE, WIRE_REQUEST)->head.request, &r.base, NULL, 0);
}

static inline void hit(struct world *w, slice value)
{
    uint32_t first[] = {1};
    Nunchi__BlobValues v = NUNCHI__BLOB_VALUES__INIT;
    Nunchi__CacheReply r = NUNCHI__CACHE_REPLY__INIT;
    v.frame = first;
    v.n_frame = 1;
    r.op_case = NUNCHI__CACHE_REPLY__OP_VALUES;
    r.values = &v;
    say(w, CACHE, WIRE_DONE, 0, last_to(w, CACHE, WIRE_REQUEST)->head.request, &r.base, &value, 1);
}

static inline void assert_text(const struct heard *h, uint32_t choice, const char *text)
{
    buf copy = {0};
    if (h->text[choice].n)
        buf_put_slice(&copy, buf_slice(&h->text[choice]));
    assert_string_equal(buf_cstr(&copy), text);
    buf_clear(&copy);
}

#endif
