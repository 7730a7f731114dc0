#include "gateway/route.h"

#include "common/base/hash.h"
#include "common/base/map.h"
#include "common/wire/pb.h"
#include "gateway/limits.h"

#define READY_ARENA_BYTES (256u << 10) /* a READY has at most 64 KiB */
/* A prompt wholly known weighs as much as so large a part of a worker's slots. */
#define AFFINITY_WEIGHT 0.5

struct seen { /* who had a block last */
    uint64_t block, peer;
};

struct route {
    struct list workers;
    map *by_peer;
    map *blocks; /* block -> struct seen, of the ring */
    struct seen *ring;
    size_t next;
};

route *route_new(void)
{
    route *r = xcalloc(1, sizeof *r);
    list_init(&r->workers);
    r->by_peer = map_new();
    r->blocks = map_new();
    r->ring = xcalloc(AFFINITY_BLOCKS, sizeof *r->ring);
    return r;
}

static void worker_free(route *r, struct worker *w)
{
    map_del_u64(r->by_peer, w->peer);
    list_remove(&w->link);
    arena_free(w->a);
    free(w);
}

void route_free(route *r)
{
    if (!r)
        return;
    LIST_EACH(it, &r->workers)
    worker_free(r, CONTAINER_OF(it, struct worker, link));
    map_free(r->by_peer);
    map_free(r->blocks);
    free(r->ring);
    free(r);
}

static int service_of(const char *name)
{
    static const char *const NAMES[SERVICES] = {"tokenizer", "video", "model", "cache"};
    for (int i = 0; i < SERVICES; i++)
        if (strcmp(name, NAMES[i]) == 0)
            return i;
    return -1;
}

/* Packed and unpacked again: the one way to copy a message that needs no code of its own. */
static bool keep_ready(struct worker *w, const Nunchi__Ready *ready)
{
    if (ready->n_models > WORKER_MODELS_MAX)
        return false;
    buf packed = {0};
    void *copy;
    arena *a = arena_new(READY_ARENA_BYTES);
    pb_pack(&ready->base, &packed);
    int e = pb_unpack(a, &nunchi__ready__descriptor, buf_slice(&packed), READY_ARENA_BYTES, &copy,
                      NULL);
    buf_clear(&packed);
    if (e < 0) {
        arena_free(a);
        return false;
    }
    arena_free(w->a);
    w->a = a;
    w->ready = copy;
    w->slots = ready->slots;
    return true;
}

struct worker *route_up(route *r, uint64_t peer, const Nunchi__Ready *ready)
{
    int service = service_of(ready->service);
    if (service < 0 || route_find(r, peer))
        return NULL;
    struct worker *w = xcalloc(1, sizeof *w);
    w->peer = peer;
    w->service = (enum service)service;
    list_init(&w->link);
    if (!keep_ready(w, ready)) {
        free(w);
        return NULL;
    }
    list_append(&r->workers, &w->link);
    map_put_u64(r->by_peer, peer, w);
    return w;
}

static bool same_ready(const Nunchi__Ready *a, const Nunchi__Ready *b)
{
    buf x = {0}, y = {0};
    pb_pack(&a->base, &x);
    pb_pack(&b->base, &y);
    bool same = slice_eq(buf_slice(&x), buf_slice(&y));
    buf_clear(&x);
    buf_clear(&y);
    return same;
}

void route_changed(struct worker *w, uint64_t now_us, const Nunchi__Ready *ready,
                   const Nunchi__Heartbeat *h)
{
    if (ready && !same_ready(ready, w->ready))
        (void)keep_ready(w, ready);
    if (!h)
        return;
    w->slots = h->slots;
    w->load = h->running + h->queued;
    w->draining = h->draining;
    w->running = h->running;
    bool agrees = !h->open_known || (h->open >= w->open && h->parked <= w->parked);
    if (agrees)
        w->short_us = 0;
    else if (w->short_us == 0)
        w->short_us = now_us;
    if (h->steps != w->steps || h->running == 0) {
        w->steps = h->steps;
        w->moved_us = now_us;
        w->stuck = false;
    }
}

struct worker *route_find(route *r, uint64_t peer)
{
    return map_get_u64(r->by_peer, peer);
}

void route_down(route *r, uint64_t peer)
{
    struct worker *w = route_find(r, peer);
    if (w)
        worker_free(r, w);
}

struct worker *route_next(route *r, struct worker *after)
{
    struct list *it = after ? after->link.next : r->workers.next;
    return it == &r->workers ? NULL : CONTAINER_OF(it, struct worker, link);
}

const Nunchi__ModelInfo *worker_model(const struct worker *w, slice name)
{
    for (size_t i = 0; i < w->ready->n_models; i++)
        if (name.n == 0 || slice_eq_str(name, w->ready->models[i]->name))
            return w->ready->models[i];
    return NULL;
}

static bool serves(const struct worker *w, enum service s, slice model)
{
    return w->service == s && !w->draining && !w->stuck && (model.n == 0 || worker_model(w, model));
}

bool route_any(route *r, enum service s, slice model)
{
    for (struct worker *w = NULL; (w = route_next(r, w));)
        if (serves(w, s, model))
            return true;
    return false;
}

static bool has_room(const struct worker *w, uint64_t now_us)
{
    return w->open < w->slots && w->busy_until_us <= now_us && !w->alone;
}

/* 0: idle; 1: full. What others have sent there counts as well. */
static double fullness(const struct worker *w)
{
    uint32_t n = w->open > w->load ? w->open : w->load;
    return (double)n / (double)(w->slots ? w->slots : 1);
}

struct worker *route_pick(route *r, uint64_t now_us, enum service s, slice model)
{
    struct worker *best = NULL;
    for (struct worker *w = NULL; (w = route_next(r, w));)
        if (serves(w, s, model) && has_room(w, now_us) && (!best || fullness(w) < fullness(best)))
            best = w;
    return best;
}

/* ---- prefixes ---- */

static uint64_t block_at(const struct route_wish *q, size_t i)
{
    uint64_t v;
    memcpy(&v, q->hashes + i * DIGEST_BYTES, sizeof v); /* a digest's bytes are as good as random */
    return v;
}

/* Blocks from the front that w had last. They are chained: the last one known answers for all
 * before it. */
static size_t known_blocks(route *r, const struct worker *w, const struct route_wish *q)
{
    for (size_t i = q->n_blocks; i > 0; i--) {
        const struct seen *s = map_get_u64(r->blocks, block_at(q, i - 1));
        if (s && s->peer == w->peer)
            return i;
    }
    return 0;
}

static bool same_arithmetic(const struct worker *w, const struct route_wish *q)
{
    const Nunchi__ModelInfo *m = worker_model(w, q->model);
    return q->numerics.n == 0 || (m && slice_eq(pb_slice(m->numerics), q->numerics));
}

struct worker *route_pick_model(route *r, uint64_t now_us, const struct route_wish *q)
{
    struct worker *best = NULL;
    double least = 0;
    for (struct worker *w = NULL; (w = route_next(r, w));) {
        if (!serves(w, SERVICE_MODEL, q->model) || !has_room(w, now_us) || !same_arithmetic(w, q))
            continue;
        double known = q->n_blocks ? (double)known_blocks(r, w, q) / (double)q->n_blocks : 0;
        double cost = fullness(w) - AFFINITY_WEIGHT * known;
        if (!best || cost < least) {
            best = w;
            least = cost;
        }
    }
    return best;
}

static void remember(route *r, uint64_t block, uint64_t peer)
{
    struct seen *s = map_get_u64(r->blocks, block);
    if (!s) {
        s = &r->ring[r->next++ % AFFINITY_BLOCKS];
        if (s->peer)
            map_del_u64(r->blocks, s->block);
        s->block = block;
        map_put_u64(r->blocks, block, s);
    }
    s->peer = peer;
}

void route_placed(route *r, const struct worker *w, const struct route_wish *q)
{
    for (size_t i = 0; i < q->n_blocks; i++)
        remember(r, block_at(q, i), w->peer);
}

struct worker *route_cache(route *r, slice key)
{
    struct worker *best = NULL;
    uint64_t most = 0;
    for (struct worker *w = NULL; (w = route_next(r, w));) {
        if (!serves(w, SERVICE_CACHE, (slice){0}) || w->open >= w->slots)
            continue;
        uint64_t weight = hash_rendezvous(key, slice_str(w->ready->instance));
        if (!best || weight > most) {
            best = w;
            most = weight;
        }
    }
    return best;
}
