/* Calls to cache-svc on behalf of the front: file records, notes, pictures. */
#include "gateway/core_impl.h"

#define FILES_ARENA_BYTES (16u << 20) /* a list of 1000 records */

struct cache_ask {
    struct ask ask;
    uint64_t id;
    gw_cache_fn fn;
    void *ctx;
};

void cache_ask_free(struct cache_ask *c)
{
    map_del_u64(c->ask.g->asks, c->id);
    ask_cancel(&c->ask, "client gone");
    free(c);
}

static void on_answer(struct ask *ask, int err, const struct wire_msg *m, const struct why *w)
{
    struct cache_ask *c = CONTAINER_OF(ask, struct cache_ask, ask);
    gw_cache_fn fn = c->fn;
    void *ctx = c->ctx;
    arena *a = arena_new(FILES_ARENA_BYTES);
    void *v = NULL;
    struct gw_fail f;
    cache_ask_free(c);
    if (err == 0)
        err = ask_unpack(a, &nunchi__cache_reply__descriptor, m, &v) < 0 ? ERR_PROTO : 0;
    if (err < 0) {
        gw_failed(&f, err, NULL, w ? w->field : "", "%s",
                  w && w->text[0] ? w->text : err_text(err));
        fn(ctx, &f, NULL, NULL);
    } else {
        fn(ctx, NULL, v, m);
    }
    arena_free(a);
}

int gw_cache(gw *g, uint64_t now_us, const Nunchi__CacheRequest *q, slice key, gw_cache_fn fn,
             void *ctx, uint64_t *id, struct gw_fail *f)
{
    core_enter(g, now_us);
    struct worker *w = route_cache(g->route, key);
    if (!w)
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "",
                         "the store of files is not there; try again later");
    struct cache_ask *c = xcalloc(1, sizeof *c);
    *c = (struct cache_ask){
        .ask = {.g = g, .done = on_answer}, .id = ++g->last_id, .fn = fn, .ctx = ctx};
    int e = ask_send(&c->ask, w, &q->base, NULL, 0, CACHE_CALL_MS);
    if (e < 0) {
        free(c);
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "",
                         "the store of files cannot be reached; try again later");
    }
    map_put_u64(g->asks, c->id, c);
    *id = c->id;
    return 0;
}

void gw_cache_cancel(gw *g, uint64_t id)
{
    struct cache_ask *c = map_get_u64(g->asks, id);
    if (c)
        cache_ask_free(c);
}
