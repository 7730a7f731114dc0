/* Where a prompt's first token is to be expected soonest: what waits there already, what is missing
 * of the prompt, and what those who run beside each other take from one another. */
#include "common/base/hash.h"
#include "common/wire/blockhash.h"
#include "gateway/route_int.h"

/* Holders of a prompt's front that are compared whatever their number in the pool. */
#define KNOWN_MAX 8
#define BLOCKS_LOOKED_AT 8192 /* of one prompt: 131,072 tokens */

struct known {
    struct worker *w;
    size_t blocks;
};

struct weighing {
    const struct route_wish *q;
    uint64_t now_us;
    struct known known[KNOWN_MAX]; /* the longest first */
    size_t n_known;
};

static uint64_t block_at(const struct route_wish *q, size_t i)
{
    uint64_t v;
    memcpy(&v, q->hashes + i * DIGEST_BYTES, sizeof v); /* a digest's bytes are as good as random */
    return v;
}

/* Who is there, and has not been sent so much since that the block must have made room. */
static struct worker *holder(route *r, const struct prefix_holder *h)
{
    struct worker *w = h->worker ? route_find(r, h->worker) : NULL;
    bool gone = w && w->kv_blocks && w->placed_blocks - h->stamp > w->kv_blocks;
    return gone ? NULL : w;
}

static bool noted(const struct weighing *g, const struct worker *w)
{
    for (size_t i = 0; i < g->n_known; i++)
        if (g->known[i].w == w)
            return true;
    return false;
}

/* Blocks are chained: whoever has one has all before it, as far as is known here. */
static void find_known(route *r, struct weighing *g)
{
    size_t n = g->q->n_blocks < BLOCKS_LOOKED_AT ? g->q->n_blocks : BLOCKS_LOOKED_AT;
    for (size_t i = n; i > 0 && g->n_known < KNOWN_MAX; i--) {
        const struct prefix_holder *h = prefix_find(r->blocks, block_at(g->q, i - 1));
        for (size_t k = 0; h && k < PREFIX_HOLDERS && g->n_known < KNOWN_MAX; k++) {
            struct worker *w = holder(r, &h[k]);
            if (w && !noted(g, w))
                g->known[g->n_known++] = (struct known){w, i};
        }
    }
}

static size_t known_blocks(const struct weighing *g, const struct worker *w)
{
    for (size_t i = 0; i < g->n_known; i++)
        if (g->known[i].w == w)
            return g->known[i].blocks;
    return 0;
}

/* Tokens of an answer over which a place's slowness is counted: what is asked for is mostly far
 * more than what comes. */
#define ANSWER_TOKENS 32
/* Of workers that have not said yet. */
#define PREFILL_RATE 500
#define DECODE_RATE 50

static double rate_or(uint32_t rate, uint32_t otherwise)
{
    return rate ? rate : otherwise;
}

/* Seconds to compute what is missing of the prompt, or to fetch what others have of it and compute
 * the rest. */
static double prompt_s(const struct worker *w, const struct weighing *g)
{
    double prefill = rate_or(w->prefill_rate, PREFILL_RATE);
    double here = (double)(known_blocks(g, w) * BLOCK_TOKENS);
    double anywhere = g->n_known ? (double)(g->known[0].blocks * BLOCK_TOKENS) : 0;
    double n = g->q->n_tokens, missing = n > here + 1 ? n - here : 1;
    double compute = missing / prefill;
    if (!w->fetch_rate || anywhere <= here)
        return compute;
    double fetched = anywhere < n ? anywhere - here : n - here;
    double fetch = fetched / w->fetch_rate + (missing - fetched) / prefill;
    return fetch < compute ? fetch : compute;
}

/* Seconds: until the first token, and those that the answer and its neighbours there lose to each
 * other. */
static double expected_s(const struct worker *w, const void *ctx)
{
    const struct weighing *g = ctx;
    double prefill = rate_or(w->prefill_rate, PREFILL_RATE),
           decode = rate_or(w->decode_rate, DECODE_RATE);
    double since = g->now_us > w->said_us ? (double)(g->now_us - w->said_us) / 1e6 : 0;
    double before = (double)(w->queued_tokens + w->sent_tokens) / prefill - since;
    double beside = (double)w->open + w->others;
    double tokens = g->q->max_tokens < ANSWER_TOKENS ? g->q->max_tokens : ANSWER_TOKENS;
    return (before > 0 ? before : 0) + prompt_s(w, g) + beside * tokens / decode;
}

static double by_fullness(const struct worker *w, const void *ctx UNUSED)
{
    return worker_fullness(w);
}

static struct worker *next_in_turn(struct pool *p, const struct look *k)
{
    for (size_t i = 0; p && i < p->n; i++) {
        struct look one = *k;
        size_t at = (p->turn + i) % p->n;
        look_at(&one, p->list[at]);
        if (one.best) {
            p->turn = at + 1;
            return one.best;
        }
    }
    return NULL;
}

struct worker *route_pick_model(route *r, uint64_t now_us, const struct route_wish *q)
{
    struct pool *p = pool_find(r, SERVICE_MODEL, q->kind.model);
    struct weighing g = {.q = q, .now_us = now_us};
    struct look k = {.now_us = now_us,
                     .kind = q->kind,
                     .cost = r->policy == ROUTE_PREFIX ? expected_s : by_fullness,
                     .ctx = &g};
    if (r->policy == ROUTE_ROUND_ROBIN)
        return next_in_turn(p, &k);
    if (r->policy == ROUTE_PREFIX)
        find_known(r, &g);
    for (size_t i = 0; i < g.n_known; i++)
        if (worker_model(g.known[i].w, q->kind.model))
            look_at(&k, g.known[i].w);
    /* Compared with holders even when one of those was found: a busy favourite shall not starve the
     * idle. */
    return look_in(p, &k);
}

void route_placed(route *r, struct worker *w, const struct route_wish *q)
{
    size_t n = q->n_blocks < BLOCKS_LOOKED_AT ? q->n_blocks : BLOCKS_LOOKED_AT, known = 0;
    for (size_t i = n; i > 0 && known == 0; i--) {
        const struct prefix_holder *h = prefix_find(r->blocks, block_at(q, i - 1));
        for (size_t k = 0; h && k < PREFIX_HOLDERS; k++)
            if (holder(r, &h[k]) == w)
                known = i;
    }
    w->placed_blocks += (uint32_t)(n - known);
    size_t here = known * BLOCK_TOKENS;
    r->counts.placed++;
    r->counts.warm += known > 0;
    r->counts.tokens += q->n_tokens;
    r->counts.warm_tokens += here < q->n_tokens ? here : q->n_tokens;
    w->sent_tokens += q->n_tokens > here ? q->n_tokens - here : 1;
    struct prefix_holder h = {(uint32_t)w->peer, w->placed_blocks};
    for (size_t i = 0; i < n; i++)
        prefix_put(r->blocks, block_at(q, i), h);
}
