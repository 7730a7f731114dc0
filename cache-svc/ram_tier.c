#include "cache-svc/ram_tier.h"

#include "common/base/list.h"
#include "common/base/map.h"

#define ENTRY_OVERHEAD 256 /* the entry, its place in the map, the allocator */
/* One value may not sweep out everything else. */
#define LARGEST_SHARE 4
/* At least one part in so many is for what nobody has asked for yet: what is new needs time to be
 * found. */
#define NEW_SHARE 4

/* Entries of one class, the most recently used at the end: of everybody, or of one tenant. */
struct classes {
    struct list fresh, useful;
};

struct owner {
    struct classes own; /* by entry.own_link */
    size_t bytes;
    slice tenant; /* its key in ram_tier.owners */
    char name[];
};

struct entry {
    struct list link, own_link; /* in ram_tier.all, and in its owner's own */
    struct owner *owner;
    uint64_t ends_ms;
    shared *value;
    bool useful;
    size_t bytes, key_n;
    char key[];
};

struct ram_tier {
    map *by_key, *owners;
    struct classes all; /* by entry.link */
    size_t bytes, useful_bytes, budget, share;
    uint64_t evicted;
};

static void classes_init(struct classes *c)
{
    list_init(&c->fresh);
    list_init(&c->useful);
}

ram_tier *ram_tier_new(size_t budget_bytes, size_t tenant_bytes)
{
    ram_tier *t = xcalloc(1, sizeof *t);
    t->by_key = map_new();
    t->owners = map_new();
    t->budget = budget_bytes;
    t->share = tenant_bytes;
    classes_init(&t->all);
    return t;
}

/* ---- owners ---- */

static struct owner *owner_of(ram_tier *t, slice tenant)
{
    struct owner *o = map_get(t->owners, tenant);
    if (o)
        return o;
    o = xcalloc(1, sizeof *o + tenant.n);
    classes_init(&o->own);
    if (tenant.n)
        memcpy(o->name, tenant.p, tenant.n);
    o->tenant = (slice){o->name, tenant.n};
    map_put(t->owners, o->tenant, o);
    return o;
}

static void leave_owner(ram_tier *t, struct entry *e)
{
    struct owner *o = e->owner;
    list_remove(&e->own_link);
    o->bytes -= e->bytes;
    if (o->bytes > 0)
        return;
    map_del(t->owners, o->tenant);
    free(o);
}

/* To the end of its class. */
static void stand_last(ram_tier *t, struct entry *e)
{
    list_remove(&e->link);
    list_remove(&e->own_link);
    list_append(e->useful ? &t->all.useful : &t->all.fresh, &e->link);
    list_append(e->useful ? &e->owner->own.useful : &e->owner->own.fresh, &e->own_link);
}

/* ---- entries ---- */

static void drop(ram_tier *t, struct entry *e)
{
    map_del(t->by_key, (slice){e->key, e->key_n});
    list_remove(&e->link);
    leave_owner(t, e);
    t->bytes -= e->bytes;
    t->useful_bytes -= e->useful ? e->bytes : 0;
    shared_unref(e->value);
    free(e);
}

void ram_tier_free(ram_tier *t)
{
    if (!t)
        return;
    LIST_EACH(it, &t->all.fresh)
    drop(t, CONTAINER_OF(it, struct entry, link));
    LIST_EACH(it, &t->all.useful)
    drop(t, CONTAINER_OF(it, struct entry, link));
    map_free(t->by_key);
    map_free(t->owners);
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
    t->useful_bytes += e->useful ? 0 : e->bytes;
    e->useful = true;
    stand_last(t, e);
    while (t->useful_bytes > t->budget - t->budget / NEW_SHARE) {
        struct entry *oldest = CONTAINER_OF(list_first(&t->all.useful), struct entry, link);
        oldest->useful = false;
        t->useful_bytes -= oldest->bytes;
        stand_last(t, oldest);
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

static struct entry *oldest_of(struct owner *o)
{
    struct list *it = list_first(&o->own.fresh);
    it = it ? it : list_first(&o->own.useful);
    return it ? CONTAINER_OF(it, struct entry, own_link) : NULL;
}

static struct entry *oldest_of_all(ram_tier *t)
{
    struct list *it = list_first(&t->all.fresh);
    it = it ? it : list_first(&t->all.useful);
    return it ? CONTAINER_OF(it, struct entry, link) : NULL;
}

/* For n bytes of a tenant. */
static void make_room(ram_tier *t, slice tenant, size_t n)
{
    while (t->bytes + n > t->budget) {
        struct owner *o = map_get(t->owners, tenant);
        struct entry *e = o && o->bytes + n > t->share ? oldest_of(o) : oldest_of_all(t);
        if (!e)
            return;
        drop(t, e);
        t->evicted++;
    }
}

void ram_tier_put(ram_tier *t, slice tenant, slice key, shared *value, uint64_t ends_ms)
{
    size_t n = shared_slice(value).n;
    ram_tier_del(t, key);
    if (n > t->budget / LARGEST_SHARE)
        return;
    n += ENTRY_OVERHEAD + key.n;
    make_room(t, tenant, n);
    struct entry *e = n <= t->budget ? malloc(sizeof *e + key.n) : NULL;
    if (!e)
        return; /* a cache may forget */
    *e = (struct entry){.owner = owner_of(t, tenant),
                        .ends_ms = ends_ms,
                        .value = shared_ref(value),
                        .bytes = n,
                        .key_n = key.n};
    memcpy(e->key, key.p, key.n);
    list_init(&e->link);
    list_init(&e->own_link);
    stand_last(t, e);
    e->owner->bytes += n;
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
