#include "cache-svc/ram_tier.h"

#include "common/base/list.h"
#include "common/base/map.h"

#define ENTRY_OVERHEAD 256 /* the entry, its place in the map, the allocator */
/* One value may not sweep out everything else. */
#define LARGEST_SHARE 4

struct entry {
    struct list link;
    uint64_t ends_ms;
    size_t key_n, value_n;
    char bytes[]; /* key, value */
};

struct ram_tier {
    map *by_key;
    struct list used; /* the most recently used at the end */
    size_t bytes, budget;
};

ram_tier *ram_tier_new(size_t budget_bytes)
{
    ram_tier *t = xcalloc(1, sizeof *t);
    t->by_key = map_new();
    t->budget = budget_bytes;
    list_init(&t->used);
    return t;
}

static size_t cost(const struct entry *e)
{
    return ENTRY_OVERHEAD + e->key_n + e->value_n;
}

static void drop(ram_tier *t, struct entry *e)
{
    map_del(t->by_key, (slice){e->bytes, e->key_n});
    list_remove(&e->link);
    t->bytes -= cost(e);
    free(e);
}

void ram_tier_free(ram_tier *t)
{
    if (!t)
        return;
    for (struct list *it; (it = list_pop(&t->used));)
        drop(t, CONTAINER_OF(it, struct entry, link));
    map_free(t->by_key);
    free(t);
}

bool ram_tier_get(ram_tier *t, slice key, uint64_t now_ms, slice *value)
{
    struct entry *e = map_get(t->by_key, key);
    if (!e)
        return false;
    if (e->ends_ms <= now_ms) {
        drop(t, e);
        return false;
    }
    list_remove(&e->link);
    list_append(&t->used, &e->link);
    *value = (slice){e->bytes + e->key_n, e->value_n};
    return true;
}

void ram_tier_put(ram_tier *t, slice key, slice value, uint64_t ends_ms)
{
    ram_tier_del(t, key);
    if (value.n > t->budget / LARGEST_SHARE)
        return;
    size_t n = ENTRY_OVERHEAD + key.n + value.n;
    for (struct list *it; t->bytes + n > t->budget && (it = list_pop(&t->used));)
        drop(t, CONTAINER_OF(it, struct entry, link));
    struct entry *e = n <= t->budget ? malloc(sizeof *e + key.n + value.n) : NULL;
    if (!e)
        return; /* a cache may forget */
    *e = (struct entry){.ends_ms = ends_ms, .key_n = key.n, .value_n = value.n};
    memcpy(e->bytes, key.p, key.n);
    if (value.n)
        memcpy(e->bytes + key.n, value.p, value.n);
    list_append(&t->used, &e->link);
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
