#include "common/base/hash.h"
#include "common/wire/pb.h"
#include "gateway/limits.h"
#include "gateway/route_int.h"

#define READY_ARENA_BYTES (256u << 10) /* a READY has at most 64 KiB */

int route_policy_of(const char *name)
{
    static const char *const names[] = {
        [ROUTE_PREFIX] = "prefix",
        [ROUTE_LEAST_LOADED] = "least-loaded",
        [ROUTE_ROUND_ROBIN] = "round-robin",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return (int)i;
    return ERR_INVALID;
}

route *route_new(enum route_policy policy)
{
    route *r = xcalloc(1, sizeof *r);
    r->policy = policy;
    list_init(&r->workers);
    list_init(&r->pools);
    r->by_peer = map_new();
    r->by_name = map_new();
    r->blocks = prefix_new(AFFINITY_BLOCKS);
    return r;
}

/* ---- pools ---- */

static slice pool_key(enum service s, slice model, char key[NAME_BYTES_MAX + 1])
{
    size_t n = model.n < NAME_BYTES_MAX ? model.n : NAME_BYTES_MAX;
    key[0] = (char)('0' + s);
    if (n)
        memcpy(key + 1, model.p, n);
    return (slice){key, n + 1};
}

struct pool *pool_find(route *r, enum service s, slice model)
{
    char key[NAME_BYTES_MAX + 1];
    return map_get(r->by_name, pool_key(s, model, key));
}

static struct pool *pool_get(route *r, enum service s, slice model)
{
    char key[NAME_BYTES_MAX + 1];
    struct pool *p = pool_find(r, s, model);
    if (p)
        return p;
    p = xcalloc(1, sizeof *p);
    p->service = s;
    p->model = slice_dup(model);
    list_append(&r->pools, &p->link);
    map_put(r->by_name, pool_key(s, model, key), p);
    return p;
}

static void pool_add(struct pool *p, struct worker *w)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i] == w)
            return; /* a model named twice */
    if (p->n == p->cap) {
        p->cap = 2 * p->cap + 4;
        p->list = xrealloc(p->list, p->cap, sizeof *p->list);
    }
    p->list[p->n++] = w;
}

static void join_pools(route *r, struct worker *w)
{
    pool_add(pool_get(r, w->service, (slice){0}), w);
    for (size_t i = 0; i < w->ready->n_models; i++)
        if (w->ready->models[i]->name[0])
            pool_add(pool_get(r, w->service, slice_str(w->ready->models[i]->name)), w);
}

static void pool_free(route *r, struct pool *p)
{
    char key[NAME_BYTES_MAX + 1];
    map_del(r->by_name, pool_key(p->service, slice_str(p->model), key));
    list_remove(&p->link);
    free(p->model);
    free(p->list);
    free(p);
}

/* In order: who came first is found first. */
static void leave_pools(route *r, const struct worker *w)
{
    LIST_EACH(it, &r->pools)
    {
        struct pool *p = CONTAINER_OF(it, struct pool, link);
        size_t kept = 0;
        for (size_t i = 0; i < p->n; i++)
            if (p->list[i] != w)
                p->list[kept++] = p->list[i];
        p->n = kept;
        if (kept == 0)
            pool_free(r, p);
    }
}

/* ---- workers ---- */

static void worker_free(route *r, struct worker *w)
{
    leave_pools(r, w);
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
    map_free(r->by_name);
    prefix_free(r->blocks);
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
    join_pools(r, w);
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

static void take_rates(struct worker *w, uint64_t now_us, const Nunchi__Heartbeat *h)
{
    w->prefill_rate = h->prefill_tok_s;
    w->decode_rate = h->decode_tok_s;
    w->fetch_rate = h->fetch_tok_s;
    w->kv_blocks = h->kv_blocks;
    w->queued_tokens = h->queued_tokens;
    w->said_us = now_us;
    w->sent_tokens = 0; /* what is under way is not counted for a moment: it is little */
}

void route_changed(route *r, struct worker *w, uint64_t now_us, const Nunchi__Ready *ready,
                   const Nunchi__Heartbeat *h)
{
    if (ready && !same_ready(ready, w->ready) && keep_ready(w, ready)) {
        leave_pools(r, w);
        join_pools(r, w);
    }
    if (!h)
        return;
    take_rates(w, now_us, h);
    w->slots = h->slots;
    uint32_t there = h->running + h->queued;
    w->others = there > w->open ? there - w->open : 0;
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

/* ---- who is there ---- */

static bool serves(const struct worker *w)
{
    return !w->draining && !w->stuck;
}

static bool is_kind(const struct worker *w, const struct route_kind *k)
{
    if (k->weights.n == 0 && k->numerics.n == 0)
        return true;
    const Nunchi__ModelInfo *m = worker_model(w, k->model);
    bool arithmetic = k->numerics.n == 0 || (m && slice_eq(pb_slice(m->numerics), k->numerics));
    bool weights = k->weights.n == 0 || !m || m->weights.len == 0 ||
                   slice_eq(pb_slice(m->weights), k->weights);
    return arithmetic && weights;
}

struct worker *route_any(route *r, enum service s, struct route_kind k)
{
    const struct pool *p = pool_find(r, s, k.model);
    for (size_t i = 0; p && i < p->n; i++)
        if (serves(p->list[i]) && is_kind(p->list[i], &k))
            return p->list[i];
    return NULL;
}

void route_models(route *r, void (*fn)(void *ctx, const Nunchi__ModelInfo *m), void *ctx)
{
    LIST_EACH(it, &r->pools)
    {
        const struct pool *p = CONTAINER_OF(it, struct pool, link);
        const struct worker *w = NULL;
        for (size_t i = 0; i < p->n && !w; i++)
            w = p->list[i]->draining ? NULL : p->list[i];
        if (p->service == SERVICE_MODEL && p->model[0] && w)
            fn(ctx, worker_model(w, slice_str(p->model)));
    }
}

/* ---- whether one can take more ---- */

/* After a pause one request shows whether it works again. */
static bool has_room(const struct worker *w, uint64_t now_us)
{
    return w->open < w->slots && w->busy_until_us <= now_us && !w->alone &&
           w->shunned_until_us <= now_us && (w->failures < FAILURES_MAX || w->open == 0);
}

bool route_answers(route *r, uint64_t now_us, slice model, bool may_wait)
{
    const struct pool *p = pool_find(r, SERVICE_MODEL, model);
    for (size_t i = 0; p && i < p->n; i++) {
        const struct worker *w = p->list[i];
        bool sound = w->shunned_until_us <= now_us;
        if (!serves(w) || !(has_room(w, now_us) || (may_wait && sound)))
            continue;
        const Nunchi__ModelInfo *m = worker_model(w, model);
        struct route_kind k = {.model = model, .weights = m ? pb_slice(m->weights) : (slice){0}};
        if (route_any(r, SERVICE_TOKENIZER, k))
            return true;
    }
    return false;
}

void route_failed(route *r, struct worker *w, uint64_t now_us, uint64_t request)
{
    if (request == w->failed && w->failures < FAILURES_MAX)
        return;
    w->failed = request;
    if (++w->failures < FAILURES_MAX)
        return;
    r->counts.shunned++;
    uint32_t doublings = w->failures - FAILURES_MAX;
    uint64_t ms = doublings < 16 ? (uint64_t)SHUN_MS << doublings : SHUN_MAX_MS;
    w->shunned_until_us = now_us + (ms < SHUN_MAX_MS ? ms : SHUN_MAX_MS) * 1000;
}

void route_worked(struct worker *w)
{
    w->failures = 0;
    w->failed = 0;
}

/* ---- the choice ---- */

double worker_fullness(const struct worker *w)
{
    return (double)(w->open + w->others) / (double)(w->slots ? w->slots : 1);
}

/* Of a large pool so many are compared, from another place each time: nearly as good as the best of
 * all of them, and gateways that see the same heartbeats do not all send to the same one. */
#define SAMPLE 32

void look_at(struct look *k, struct worker *w)
{
    if (!serves(w) || !has_room(w, k->now_us) || !is_kind(w, &k->kind))
        return;
    double cost = k->cost(w, k->ctx);
    if (!k->best || cost < k->least) {
        k->best = w;
        k->least = cost;
    }
}

struct worker *look_in(struct pool *p, struct look *k)
{
    if (!p || p->n == 0)
        return k->best;
    size_t few = p->n < SAMPLE ? p->n : SAMPLE;
    size_t from = p->n > SAMPLE ? p->turn : 0;
    for (size_t i = 0; i < p->n && (i < few || !k->best); i++)
        look_at(k, p->list[(from + i) % p->n]);
    p->turn = (p->turn + few) % p->n;
    return k->best;
}

static double by_fullness(const struct worker *w, const void *ctx UNUSED)
{
    return worker_fullness(w);
}

struct worker *route_pick(route *r, uint64_t now_us, enum service s, struct route_kind kind)
{
    struct look k = {.now_us = now_us, .kind = kind, .cost = by_fullness};
    return look_in(pool_find(r, s, kind.model), &k);
}

struct route_counts route_counts(const route *r)
{
    return r->counts;
}

/* ---- caches ---- */

struct worker *route_cache(route *r, slice key)
{
    const struct pool *p = pool_find(r, SERVICE_CACHE, (slice){0});
    struct worker *best = NULL;
    uint64_t most = 0;
    for (size_t i = 0; p && i < p->n; i++) {
        struct worker *w = p->list[i];
        if (!serves(w) || w->open >= w->slots)
            continue;
        uint64_t weight = hash_rendezvous(key, slice_str(w->ready->instance));
        if (!best || weight > most) {
            best = w;
            most = weight;
        }
    }
    return best;
}
