/* Text to ids by rule (words.h), with the block hashes that the protocol demands. */
#include "common/base/log.h"
#include "common/wire/blockhash.h"
#include "common/wire/pb.h"
#include "proto/token.pb-c.h"
#include "tests/load/lib/sim.h"
#include "tests/load/lib/words.h"

#define SLOTS 4096
#define REQUEST_BYTES_MAX (8u << 20)

struct sim_tokenizer {
    loop *l;
    bus *b;
    const struct sim_options *o;
    links *ls;
    struct why *w;
    buf text, ids, hashes, body;
    int err;
};

static void put_parts(buf *to, Nunchi__ChatPart *const *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (parts[i]->part_case == NUNCHI__CHAT_PART__PART_TEXT)
            buf_put_slice(to, pb_slice(parts[i]->text));
}

static void put_text(buf *to, const Nunchi__Tokenize *q)
{
    if (q->input_case == NUNCHI__TOKENIZE__INPUT_PROMPT)
        put_parts(to, q->prompt->parts, q->prompt->n_parts);
    else if (q->input_case == NUNCHI__TOKENIZE__INPUT_CHAT)
        for (size_t i = 0; i < q->chat->n_turns; i++)
            put_parts(to, q->chat->turns[i]->parts, q->chat->turns[i]->n_parts);
}

static struct digest hash_ids(sim_tokenizer *t, const Nunchi__Tokenize *q)
{
    struct digest one;
    struct digest weights = digest_of((slice){0}, SLICE_LIT("simulated weights"));
    blockhash *h =
        blockhash_new(pb_slice(q->tenant), (slice){(const char *)weights.b, sizeof weights.b},
                      slice_str(q->adapter));
    for (size_t at = 0; at < t->ids.n; at += 4) {
        int32_t id;
        memcpy(&id, t->ids.p + at, sizeof id);
        if (blockhash_token(h, id, &one))
            buf_put(&t->hashes, one.b, sizeof one.b);
    }
    one = blockhash_content(h);
    blockhash_free(h);
    return one;
}

static void answer(sim_tokenizer *t, peer_link *k, const struct wire_head *to,
                   const Nunchi__Tokenize *q)
{
    Nunchi__TokenReply reply;
    Nunchi__Tokenized d;
    buf_reset(&t->text);
    buf_reset(&t->ids);
    buf_reset(&t->hashes);
    buf_reset(&t->body);
    put_text(&t->text, q);
    words_ids(buf_slice(&t->text), &t->ids);
    uint32_t n = (uint32_t)(t->ids.n / 4);
    if (n == 0 || n + q->max_tokens > SIM_CONTEXT || t->ids.n > WIRE_FRAME_MAX ||
        t->hashes.n > WIRE_FRAME_MAX) {
        sim_error(k, to, ERR_TOO_BIG);
        return;
    }
    struct digest content = hash_ids(t, q);
    nunchi__token_reply__init(&reply);
    nunchi__tokenized__init(&d);
    d.n_tokens = n;
    d.content = pb_bytes((slice){(const char *)content.b, sizeof content.b});
    d.n_context = SIM_CONTEXT;
    d.max_tokens_left = SIM_CONTEXT - n;
    reply.op_case = NUNCHI__TOKEN_REPLY__OP_TOKENIZED;
    reply.tokenized = &d;
    pb_pack(&reply.base, &t->body);
    struct wire_msg m = {
        .head = {.type = WIRE_DONE, .request = to->request, .attempt = to->attempt},
        .body = buf_slice(&t->body),
        .frames = {buf_slice(&t->ids), buf_slice(&t->hashes)},
        .n_frames = 2};
    if (link_post(k, &m) < 0)
        log_debug("the gateway is gone", LOG_STR("endpoint", link_endpoint(k)));
}

static void on_msg(void *ctx, peer_link *k, const struct wire_msg *m)
{
    sim_tokenizer *t = ctx;
    void *v;
    if (m->head.type != WIRE_REQUEST)
        return;
    arena *a = arena_new(REQUEST_BYTES_MAX);
    const Nunchi__TokenRequest *q = NULL;
    if (pb_unpack(a, &nunchi__token_request__descriptor, m->body, WIRE_BODY_MAX, &v, NULL) == 0)
        q = v;
    if (q && q->op_case == NUNCHI__TOKEN_REQUEST__OP_TOKENIZE)
        answer(t, k, &m->head, q->tokenize);
    else
        sim_error(k, &m->head, ERR_UNSUPPORTED);
    arena_free(a);
}

static void on_heartbeat(void *ctx UNUSED, peer_link *k UNUSED, Nunchi__Heartbeat *out)
{
    out->slots = SLOTS;
}

static void connect_all(void *ctx, const Nunchi__Ready *r)
{
    sim_tokenizer *t = ctx;
    struct links_config cfg = {
        .targets = t->o->gateways, .ready = r, .ctx = t, .msg = on_msg, .heartbeat = on_heartbeat};
    t->err = links_new(t->b, t->l, &cfg, &t->ls, t->w);
}

int sim_tokenizer_new(loop *l, bus *b, const struct sim_options *o, sim_tokenizer **out,
                      struct why *w)
{
    sim_tokenizer *t = xcalloc(1, sizeof *t);
    *t = (sim_tokenizer){.l = l, .b = b, .o = o, .w = w};
    sim_ready("tokenizer", SLOTS, connect_all, t);
    int e = t->err;
    *out = e < 0 ? NULL : t;
    if (e < 0)
        sim_tokenizer_free(t);
    return e;
}

void sim_tokenizer_free(sim_tokenizer *t)
{
    if (!t)
        return;
    links_free(t->ls);
    buf_clear(&t->text);
    buf_clear(&t->ids);
    buf_clear(&t->hashes);
    buf_clear(&t->body);
    free(t);
}
