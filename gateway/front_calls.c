/* Calls to cache-svc and tokenizer-svc on behalf of the front, beside questions: file records,
 * notes, pictures; texts to ids and back. */
#include "gateway/core_impl.h"
#include "proto/token.pb-c.h"

#define CALL_ARENA_BYTES (16u << 20) /* a list of 1000 records */

struct front_call {
    struct ask ask;
    uint64_t id;
    gw_cache_fn cached; /* one of the two */
    gw_words_fn words;
    void *ctx;
};

void front_call_free(struct front_call *c)
{
    map_del_u64(c->ask.g->asks, c->id);
    ask_cancel(&c->ask, "client gone");
    free(c);
}

static void on_answer(struct ask *ask, int err, const struct wire_msg *m, const struct why *w)
{
    struct front_call *c = CONTAINER_OF(ask, struct front_call, ask), it = *c;
    const ProtobufCMessageDescriptor *of =
        it.cached ? &nunchi__cache_reply__descriptor : &nunchi__token_reply__descriptor;
    arena *a = arena_new(CALL_ARENA_BYTES);
    void *v = NULL;
    struct gw_fail f;
    front_call_free(c);
    if (err == 0)
        err = ask_unpack(a, of, m, &v) < 0 ? ERR_PROTO : 0;
    if (err < 0)
        gw_failed(&f, err, NULL, w ? w->field : "", "%s",
                  w && w->text[0] ? w->text : err_text(err));
    if (it.cached)
        it.cached(it.ctx, err < 0 ? &f : NULL, v, m);
    else
        it.words(it.ctx, err < 0 ? &f : NULL, v, m);
    arena_free(a);
}

/* What is to be called back stands in `call`. */
static int send(gw *g, struct worker *w, const ProtobufCMessage *q, const slice *frames, size_t n,
                uint32_t timeout_ms, const struct front_call *call, uint64_t *id)
{
    struct front_call *c = xcalloc(1, sizeof *c);
    *c = *call;
    c->ask = (struct ask){.g = g, .done = on_answer};
    c->id = ++g->last_id;
    int e = ask_send(&c->ask, w, q, frames, n, timeout_ms);
    if (e < 0) {
        free(c);
        return e;
    }
    map_put_u64(g->asks, c->id, c);
    *id = c->id;
    return 0;
}

int gw_cache(gw *g, uint64_t now_us, const Nunchi__CacheRequest *q, slice key, gw_cache_fn fn,
             void *ctx, uint64_t *id, struct gw_fail *f)
{
    core_enter(g, now_us);
    struct worker *w = route_cache(g->route, key);
    struct front_call call = {.cached = fn, .ctx = ctx};
    if (!w)
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "",
                         "the store of files is not there; try again later");
    if (send(g, w, &q->base, NULL, 0, CACHE_CALL_MS, &call, id) < 0)
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "",
                         "the store of files cannot be reached; try again later");
    return 0;
}

int gw_words(gw *g, uint64_t now_us, const Nunchi__TokenRequest *q, slice model, slice ids,
             gw_words_fn fn, void *ctx, uint64_t *id, struct gw_fail *f)
{
    core_enter(g, now_us);
    struct route_kind k = {.model = model};
    struct front_call call = {.words = fn, .ctx = ctx};
    struct worker *w = route_pick(g->route, now_us, SERVICE_TOKENIZER, k);
    if (!w && !route_any(g->route, SERVICE_TOKENIZER, k) && !route_any(g->route, SERVICE_MODEL, k))
        return gw_failed(f, ERR_NOT_FOUND, "model_not_found", "model",
                         "the model '%.*s' is not served here; see /v1/models",
                         (int)(model.n < 100 ? model.n : 100), model.p);
    if (!w || send(g, w, &q->base, &ids, ids.n > 0, TOKENIZE_MS, &call, id) < 0)
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "", "no tokenizer is free now; try again later");
    return 0;
}

void gw_call_cancel(gw *g, uint64_t id)
{
    struct front_call *c = map_get_u64(g->asks, id);
    if (c)
        front_call_free(c);
}
