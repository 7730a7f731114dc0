#include "cache-svc/ram_tier.h"

#include "common/base/list.h"
#include "common/base/map.h"

#define ENTRY_OVERHEAD 256 /* the entry, its place in the map, the allocator */
/* One value may not sweep out everything else. */
#define LARGEST_SHARE 4
/* At least one part in so many is for what nobody has asked for yet: what is new needs time to be
 * found. */
#define NEW_SHARE 4

struct entry {
    struct list link; /* in `fresh` or `useful` */
    uint64_t ends_ms;
    shared *value;
    bool useful;
    size_t bytes, key_n;
    char key[];
};

struct ram_tier {
    map *by_key;
    struct list fresh, useful; /* the most recently used at the end */
    size_t bytes, useful_bytes, budget;
    uint64_t evicted;
};

ram_tier *ram_tier_new(size_t budget_bytes)
{
    ram_tier *t = xcalloc(1, sizeof *t);
    t->by_key = map_new();
    t->budget = budget_bytes;
    list_init(&t->fresh);
    list_init(&t->useful);
    return t;
}

static void drop(ram_tier *t, struct entry *e)
{
    map_del(t->by_key, (slice){e->key, e->key_n});
    list_remove(&e->link);
    t->bytes -= e->bytes;
    t->useful_bytes -= e->useful ? e->bytes : 0;
    shared_unref(e->value);
    free(e);
}

void ram_tier_free(ram_tier *t)
{
    if (!t)
        return;
    LIST_EACH(it, &t->fresh)
    drop(t, CONTAINER_OF(it, struct entry, link));
    LIST_EACH(it, &t->useful)
    drop(t, CONTAINER_OF(it, struct entry, link));
    map_free(t->by_key);
    free(t);
}

static struct entry *find(ram_tier *t, slice key, uint64_t now_ms)
{
    struct entry *e = map_get(t->by_key, key);
    if (e && e->ends_ms <= now_ms) {
        drop(t, e);
        return NULL;
    }
    return e;
}

/* What was useful long ago makes way when there is too much of it: it is one of the others again.
 */
static void mark_useful(ram_tier *t, struct entry *e)
{
    list_remove(&e->link);
    list_append(&t->useful, &e->link);
    if (e->useful)
        return;
    e->useful = true;
    t->useful_bytes += e->bytes;
    while (t->useful_bytes > t->budget - t->budget / NEW_SHARE) {
        struct entry *oldest = CONTAINER_OF(list_pop(&t->useful), struct entry, link);
        oldest->useful = false;
        t->useful_bytes -= oldest->bytes;
        list_append(&t->fresh, &oldest->link);
    }
}

shared *ram_tier_get(ram_tier *t, slice key, uint64_t now_ms)
{
    struct entry *e = find(t, key, now_ms);
    if (!e)
        return NULL;
    mark_useful(t, e);
    return e->value;
}

bool ram_tier_has(ram_tier *t, slice key, uint64_t now_ms)
{
    return find(t, key, now_ms) != NULL;
}

static void make_room(ram_tier *t, size_t n)
{
    while (t->bytes + n > t->budget) {
        struct list *it = list_first(&t->fresh);
        if (!it)
            it = list_first(&t->useful);
        if (!it)
            return;
        drop(t, CONTAINER_OF(it, struct entry, link));
        t->evicted++;
    }
}

void ram_tier_put(ram_tier *t, slice key, shared *value, uint64_t ends_ms)
{
    size_t n = shared_slice(value).n;
    ram_tier_del(t, key);
    if (n > t->budget / LARGEST_SHARE)
        return;
    n += ENTRY_OVERHEAD + key.n;
    make_room(t, n);
    struct entry *e = n <= t->budget ? malloc(sizeof *e + key.n) : NULL;
    if (!e)
        return; /* a cache may forget */
    *e = (struct entry){.ends_ms = ends_ms, .value = shared_ref(value), .bytes = n, .key_n = key.n};
    memcpy(e->key, key.p, key.n);
    list_append(&t->fresh, &e->link);
    map_put(t->by_key, key, e);
    t->bytes += n;
}

void ram_tier_del(ram_tier *t, slice key)
{
    struct entry *e = map_get(t->by_key, key);
    if (e)
        drop(t, e);
}

size_t ram_tier_bytes(const ram_tier *t)
{
    return t->bytes;
}

uint64_t ram_tier_evicted(const ram_tier *t)
{
    return t->evicted;
}
