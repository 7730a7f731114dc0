#include "common/base/map.h"

#include "common/base/hash.h"

/* Linear probing over a power-of-two table, at most three quarters full (graves included). A
 * removed entry leaves a grave, so that a walk may delete as it goes; the next growth sweeps them
 * away. */
#define MAP_FIRST_SLOTS 16
#define MAP_INLINE_KEY 16

struct slot {
    uint64_t hash;
    void *value; /* NULL: free or grave */
    uint32_t key_len;
    bool grave;
    union {
        char small[MAP_INLINE_KEY];
        char *big;
    } key;
};

struct map {
    struct slot *slots;
    size_t n_slots, n_live, n_graves;
};

map *map_new(void)
{
    map *m = xcalloc(1, sizeof *m);
    m->n_slots = MAP_FIRST_SLOTS;
    m->slots = xcalloc(m->n_slots, sizeof *m->slots);
    return m;
}

static void key_free(struct slot *s)
{
    if (s->key_len > MAP_INLINE_KEY)
        free(s->key.big);
}

void map_free(map *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_slots; i++)
        if (m->slots[i].value)
            key_free(&m->slots[i]);
    free(m->slots);
    free(m);
}

static slice key_of(const struct slot *s)
{
    return (slice){s->key_len > MAP_INLINE_KEY ? s->key.big : s->key.small, s->key_len};
}

static struct slot *find(const map *m, slice key, uint64_t hash)
{
    size_t mask = m->n_slots - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct slot *s = &m->slots[i];
        if (!s->value && !s->grave)
            return NULL;
        if (s->value && s->hash == hash && slice_eq(key_of(s), key))
            return s;
    }
}

static struct slot *first_free(struct slot *slots, size_t n_slots, uint64_t hash)
{
    size_t i = hash & (n_slots - 1);
    while (slots[i].value)
        i = (i + 1) & (n_slots - 1);
    return &slots[i];
}

static void make_room(map *m)
{
    if ((m->n_live + m->n_graves + 1) * 4 <= m->n_slots * 3)
        return;
    size_t n = m->n_slots;
    if ((m->n_live + 1) * 2 > n) /* else sweeping the graves is enough */
        CHECK(size_mul(n, 2, &n) == 0);
    struct slot *slots = xcalloc(n, sizeof *slots);
    for (size_t i = 0; i < m->n_slots; i++)
        if (m->slots[i].value)
            *first_free(slots, n, m->slots[i].hash) = m->slots[i];
    free(m->slots);
    m->slots = slots;
    m->n_slots = n;
    m->n_graves = 0;
}

void *map_get(const map *m, slice key)
{
    struct slot *s = find(m, key, hash64(key.p, key.n));
    return s ? s->value : NULL;
}

void *map_put(map *m, slice key, void *value)
{
    CHECK(value != NULL);
    CHECK(key.n <= UINT32_MAX);
    uint64_t hash = hash64(key.p, key.n);
    struct slot *s = find(m, key, hash);
    if (s) {
        void *old = s->value;
        s->value = value;
        return old;
    }
    make_room(m);
    s = first_free(m->slots, m->n_slots, hash);
    m->n_graves -= s->grave;
    m->n_live++;
    *s = (struct slot){.hash = hash, .value = value, .key_len = (uint32_t)key.n};
    if (key.n > MAP_INLINE_KEY)
        s->key.big = slice_dup(key);
    else if (key.n)
        memcpy(s->key.small, key.p, key.n);
    return NULL;
}

void *map_del(map *m, slice key)
{
    struct slot *s = find(m, key, hash64(key.p, key.n));
    if (!s)
        return NULL;
    void *old = s->value;
    key_free(s);
    *s = (struct slot){.grave = true};
    m->n_live--;
    m->n_graves++;
    return old;
}

size_t map_len(const map *m)
{
    return m->n_live;
}

bool map_next(const map *m, size_t *it, slice *key, void **value)
{
    for (; *it < m->n_slots; ++*it) {
        const struct slot *s = &m->slots[*it];
        if (!s->value)
            continue;
        if (key)
            *key = key_of(s);
        if (value)
            *value = s->value;
        ++*it;
        return true;
    }
    return false;
}

static slice u64_key(const uint64_t *key)
{
    return (slice){(const char *)key, sizeof *key};
}

void *map_get_u64(const map *m, uint64_t key)
{
    return map_get(m, u64_key(&key));
}

void *map_put_u64(map *m, uint64_t key, void *value)
{
    return map_put(m, u64_key(&key), value);
}

void *map_del_u64(map *m, uint64_t key)
{
    return map_del(m, u64_key(&key));
}
