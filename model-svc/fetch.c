/* KV that others have computed: which blocks of a new request's prompt are worth asking the caches
 * for, and where they go when they come. The request waits meanwhile; what did not come is
 * computed. */
#include "model-svc/core_int.h"

#define B ENGINE_BLOCK_TOKENS
/* Blocks that all fetches together may hold: the rest stays for those that run. */
#define FETCH_SHARE 2
/* Weight of the newest fetch in what fetches are believed to cost. */
#define NEWEST 0.2
/* Caches that had nothing lately are still asked about long prompts: asking costs so little beside
 * them. */
#define ODDS_LEAST 0.05
/* Where it does not pay, it is tried this often all the same: caches come back, and fill. */
#define TRY_EVERY 32
/* After what another request fetched, a prompt may ask once more for what comes behind it. */
#define FETCHES_OF_ONE 2

struct fetch {
    struct list link;    /* in sched.fetches */
    struct list waiters; /* generations */
    uint64_t id;
    bool told;            /* handed out by sched_fetch_next */
    struct digest *chain; /* (first + n) of the prompt, from its beginning */
    uint32_t *blocks;     /* (first + n) the first ones were here already */
    uint32_t first, n, n_done;
    char tenant[GENERATE_TENANT_BYTES];
};

/* ---- whether ---- */

/* Whether n blocks behind the first ones are sooner fetched than computed, as far as is known.
 * Asking for what is not there costs the time of asking. */
static bool pays(struct sched *s, uint32_t first, uint32_t n)
{
    struct fetch_costs *f = &s->fetch_costs;
    double recompute = pace_prompt_us(&s->pace, n * B, first * B);
    if (recompute <= 0 || f->hit_us <= 0 || f->ask_us <= 0)
        return true; /* nothing is known yet */
    if (f->odds * (recompute - n * f->hit_us) > f->ask_us)
        return true;
    if (++f->n_refused % TRY_EVERY == 0)
        return true;
    s->counts.kv.recomputed += n;
    return false;
}

static void learn(struct sched *s, const struct fetch *f, uint64_t took_us)
{
    struct fetch_costs *c = &s->fetch_costs;
    double part = (double)f->n_done / f->n;
    if (took_us == 0)
        return; /* there was nobody to ask */
    c->odds += NEWEST * ((part > ODDS_LEAST ? part : ODDS_LEAST) - c->odds);
    if (f->n_done == 0) {
        c->ask_us += (c->ask_us > 0 ? NEWEST : 1) * ((double)took_us - c->ask_us);
        return;
    }
    double us = (double)took_us > c->ask_us ? (double)took_us - c->ask_us : (double)took_us;
    us /= f->n_done;
    c->hit_us += (c->hit_us > 0 ? NEWEST : 1) * (us - c->hit_us);
}

/* ---- beginning ---- */

static struct fetch *under_way(struct sched *s, const struct sequence *q, uint32_t at)
{
    LIST_EACH(it, &s->fetches)
    {
        struct fetch *f = CONTAINER_OF(it, struct fetch, link);
        if (at >= f->first && at < f->first + f->n && digest_eq(&f->chain[at], &q->hashes[at]))
            return f;
    }
    return NULL;
}

static void wait_for(struct fetch *f, struct generation *g)
{
    g->fetch = f;
    g->n_fetches++;
    list_append(&f->waiters, &g->fetch_link);
    for (size_t i = 0; i < g->r.n_choices; i++)
        if (g->seqs[i].state != SEQ_ENDED)
            g->seqs[i].state = SEQ_FETCHING;
}

/* Takes room for n blocks behind those found here; fewer, or none, where there is little. */
static struct fetch *begin(struct sched *s, const struct sequence *q, uint32_t *found,
                           uint32_t first, uint32_t n)
{
    struct fetch *f = xcalloc(1, sizeof *f);
    f->id = ++s->last_fetch;
    f->first = first;
    f->blocks = xcalloc(first + n, sizeof *f->blocks);
    memcpy(f->blocks, found, first * sizeof *found);
    for (; f->n < n; f->n++) {
        uint32_t b = kvpool_take(s->pool);
        if (b == KVPOOL_NONE)
            break;
        f->blocks[first + f->n] = b;
    }
    f->chain = xcalloc(first + n, sizeof *f->chain);
    memcpy(f->chain, q->hashes, (first + n) * sizeof *f->chain);
    memcpy(f->tenant, q->gen->r.tenant.p, sizeof f->tenant);
    list_init(&f->waiters);
    list_append(&s->fetches, &f->link);
    s->n_fetching += f->n;
    s->counts.kv.wanted += f->n;
    return f;
}

static uint32_t room_for(const struct sched *s, uint32_t n)
{
    uint32_t all = s->cfg.n_blocks / FETCH_SHARE, free = kvpool_available(s->pool);
    uint32_t room = all > s->n_fetching ? all - s->n_fetching : 0;
    room = room < free ? room : free;
    return room < n ? room : n;
}

static struct sequence *first_open(struct generation *g)
{
    for (size_t i = 0; i < g->r.n_choices; i++)
        if (g->seqs[i].state != SEQ_ENDED)
            return &g->seqs[i];
    return NULL;
}

bool sched_fetch_begin(struct sched *s, struct generation *g)
{
    struct sequence *q = first_open(g);
    if (!s->cfg.fetch || !q || g->n_fetches >= FETCHES_OF_ONE || q->gen->r.tenant.n == 0)
        return false;
    uint32_t wanted = sequence_hashes(q), last = (sequence_total(q) - 1) / B, found = 0;
    wanted = wanted < last ? wanted : last; /* the last token is computed in any case */
    if (wanted == 0)
        return false;
    uint32_t *here = xcalloc(wanted, sizeof *here);
    while (found < wanted && (here[found] = kvpool_find(s->pool, &q->hashes[found])) != KVPOOL_NONE)
        found++;
    struct fetch *f = found < wanted ? under_way(s, q, found) : NULL;
    uint32_t n = f || found == wanted ? 0 : room_for(s, wanted - found);
    bool mine = n > 0 && pays(s, found, n);
    if (mine)
        f = begin(s, q, here, found, n);
    else
        while (found > 0)
            kvpool_unref(s->pool, here[--found]);
    free(here);
    if (f)
        wait_for(f, g);
    return f != NULL;
}

bool sched_fetch_next(struct sched *s, struct sched_fetch *out)
{
    LIST_EACH(it, &s->fetches)
    {
        struct fetch *f = CONTAINER_OF(it, struct fetch, link);
        if (f->told)
            continue;
        f->told = true;
        *out = (struct sched_fetch){.id = f->id,
                                    .chain = f->chain,
                                    .blocks = f->blocks,
                                    .first = f->first,
                                    .n = f->n,
                                    .tenant = {f->tenant, sizeof f->tenant}};
        return true;
    }
    return false;
}

/* ---- what comes ---- */

static struct fetch *find(struct sched *s, uint64_t id)
{
    LIST_EACH(it, &s->fetches)
    {
        struct fetch *f = CONTAINER_OF(it, struct fetch, link);
        if (f->id == id)
            return f;
    }
    return NULL;
}

void sched_fetched(struct sched *s, uint64_t id, uint32_t n)
{
    struct fetch *f = find(s, id);
    CHECK(f && n <= f->n);
    for (; f->n_done < n; f->n_done++) {
        uint32_t i = f->first + f->n_done;
        f->blocks[i] = kvpool_publish(s->pool, f->blocks[i], &f->chain[i]);
    }
}

static void go_on(struct sched *s, struct generation *g, const struct fetch *f)
{
    list_remove(&g->fetch_link);
    g->fetch = NULL;
    g->fetched_tokens += f->n_done * B;
    if (f->n_done < f->n)
        g->n_fetches = FETCHES_OF_ONE; /* nobody has more */
    sched_enqueue(s, g);
}

void sched_fetch_end(struct sched *s, uint64_t id, uint64_t took_us, uint32_t damaged)
{
    struct fetch *f = find(s, id);
    CHECK(f);
    learn(s, f, took_us);
    s->counts.kv.fetched += f->n_done;
    s->counts.kv.missed += f->n - f->n_done;
    s->counts.kv.damaged += damaged;
    list_remove(&f->link);
    s->n_fetching -= f->n;
    /* first, so that they find room; what was published stays findable */
    for (uint32_t i = f->first + f->n; i > 0; i--)
        kvpool_unref(s->pool, f->blocks[i - 1]);
    LIST_EACH(it, &f->waiters)
    go_on(s, CONTAINER_OF(it, struct generation, fetch_link), f);
    free(f->blocks);
    free(f->chain);
    free(f);
}

void sched_fetch_forget(struct generation *g)
{
    if (!g->fetch)
        return;
    list_remove(&g->fetch_link); /* the fetch goes on: others may want what it brings */
    g->fetch = NULL;
}

void sched_fetch_clear(struct sched *s)
{
    for (struct list *it; (it = list_pop(&s->fetches));) {
        struct fetch *f = CONTAINER_OF(it, struct fetch, link);
        free(f->blocks);
        free(f->chain);
        free(f);
    }
}

uint32_t sched_fetch_rate(const struct sched *s)
{
    double us = s->fetch_costs.hit_us;
    return us > 0 ? (uint32_t)(B * 1e6 / us) : 0;
}
