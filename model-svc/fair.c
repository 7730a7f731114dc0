#include "model-svc/fair.h"

#include "common/base/map.h"

/* Virtual time per token at weight 1; divides by all weights in use without remainder. */
#define TIME_PER_TOKEN 256

struct fair_flow {
    struct list link;    /* in `waiting` while it has entries */
    struct list entries; /* struct fair_entry */
    char *key;
    size_t key_len;
    uint32_t weight, refs;
    uint64_t time;
};

struct fairq {
    map *flows;
    struct list waiting;
    size_t n;
};

fairq *fairq_new(void)
{
    fairq *q = xcalloc(1, sizeof *q);
    q->flows = map_new();
    list_init(&q->waiting);
    return q;
}

void fairq_free(fairq *q)
{
    if (!q)
        return;
    CHECK(map_len(q->flows) == 0);
    map_free(q->flows);
    free(q);
}

/* Where a newcomer begins: beside the one that has had least. */
static uint64_t least_time(const fairq *q)
{
    uint64_t least = UINT64_MAX;
    size_t it = 0;
    slice key;
    void *value;
    while (map_next(q->flows, &it, &key, &value)) {
        const fair_flow *f = value;
        least = f->time < least ? f->time : least;
    }
    return least == UINT64_MAX ? 0 : least;
}

fair_flow *fairq_flow_ref(fairq *q, slice key, uint32_t weight)
{
    CHECK(weight > 0);
    fair_flow *f = map_get(q->flows, key);
    if (!f) {
        f = xcalloc(1, sizeof *f);
        list_init(&f->link);
        list_init(&f->entries);
        f->key = slice_dup(key);
        f->key_len = key.n;
        f->weight = weight;
        f->time = least_time(q);
        map_put(q->flows, key, f);
    }
    f->refs++;
    return f;
}

void fairq_flow_unref(fairq *q, fair_flow *f)
{
    CHECK(f->refs > 0);
    if (--f->refs > 0)
        return;
    CHECK(list_empty(&f->entries));
    map_del(q->flows, (slice){f->key, f->key_len});
    free(f->key);
    free(f);
}

uint64_t fairq_flow_time(const fair_flow *f)
{
    return f->time;
}

void fairq_charge(fair_flow *f, uint64_t tokens)
{
    f->time += tokens * TIME_PER_TOKEN / f->weight;
}

static fair_flow *least_served(const fairq *q)
{
    fair_flow *best = NULL;
    LIST_EACH(it, &q->waiting)
    {
        fair_flow *f = CONTAINER_OF(it, fair_flow, link);
        if (!best || f->time < best->time)
            best = f;
    }
    return best;
}

void fairq_push(fairq *q, fair_flow *f, struct fair_entry *e, bool front)
{
    CHECK(!e->flow);
    if (list_empty(&f->entries)) {
        const fair_flow *least = least_served(q);
        if (!front && least && f->time < least->time)
            f->time = least->time; /* what it did not ask for is not owed to it */
        list_append(&q->waiting, &f->link);
    }
    list_append(front ? f->entries.next : &f->entries, &e->link);
    e->flow = f;
    q->n++;
}

struct fair_entry *fairq_head(const fairq *q)
{
    fair_flow *f = least_served(q);
    return f ? CONTAINER_OF(list_first(&f->entries), struct fair_entry, link) : NULL;
}

void fairq_remove(fairq *q, struct fair_entry *e)
{
    fair_flow *f = e->flow;
    if (!f)
        return;
    list_remove(&e->link);
    if (list_empty(&f->entries))
        list_remove(&f->link);
    e->flow = NULL;
    q->n--;
}

size_t fairq_len(const fairq *q)
{
    return q->n;
}
