/* KV that others may want: blocks computed here, to be put into the caches when there is time. */
#include "model-svc/core_int.h"

#define B ENGINE_BLOCK_TOKENS
/* More than a minute's prompts on a fast machine; beyond it, what is new is not offered. */
#define OFFERS_MAX 4096

struct offer {
    struct list link;
    struct digest hash, group;
    char tenant[GENERATE_TENANT_BYTES];
};

void sched_offer(struct sched *s, struct sequence *q, uint32_t until)
{
    const struct gen_request *r = &q->gen->r;
    uint32_t n = until / B < q->n_hashes ? until / B : q->n_hashes;
    if (!s->cfg.fetch || r->no_store || r->tenant.n != GENERATE_TENANT_BYTES)
        return;
    for (; q->n_offered < n; q->n_offered++) {
        uint32_t i = q->n_offered;
        if (s->n_offers == OFFERS_MAX) {
            s->counts.kv.dropped += n - i;
            q->n_offered = n;
            return;
        }
        struct offer *o = xcalloc(1, sizeof *o);
        o->hash = q->hashes[i];
        o->group = q->hashes[i - i % KV_GROUP_BLOCKS];
        memcpy(o->tenant, r->tenant.p, sizeof o->tenant);
        list_append(&s->offers, &o->link);
        s->n_offers++;
    }
}

bool sched_offer_next(struct sched *s, struct sched_offer *out)
{
    for (struct list *it; (it = list_pop(&s->offers));) {
        struct offer *o = CONTAINER_OF(it, struct offer, link);
        s->n_offers--;
        out->block = kvpool_peek(s->pool, &o->hash);
        out->hash = o->hash;
        out->group = o->group;
        memcpy(out->tenant, o->tenant, sizeof out->tenant);
        free(o);
        if (out->block != KVPOOL_NONE)
            return true;
        s->counts.kv.dropped++; /* its room was needed meanwhile */
    }
    return false;
}

void sched_offer_end(struct sched *s, const struct sched_offer *o, bool exported)
{
    kvpool_unref(s->pool, o->block);
    if (exported)
        s->counts.kv.exported++;
}

void sched_offer_clear(struct sched *s)
{
    for (struct list *it; (it = list_pop(&s->offers));)
        free(CONTAINER_OF(it, struct offer, link));
}
