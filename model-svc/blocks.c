#include "model-svc/blocks.h"

#include "common/base/list.h"
#include "common/base/map.h"

struct block {
    struct list link; /* in `spare` while unreferenced, else self-linked */
    uint32_t refs;
    bool published;
    struct digest hash;
};

struct kvpool {
    struct block *blocks;
    uint32_t n, n_spare, n_published;
    struct list spare; /* next to be taken first: never used ones, then the least recently used */
    map *by_hash;
};

static slice hash_key(const struct digest *d)
{
    return (slice){(const char *)d->b, DIGEST_BYTES};
}

kvpool *kvpool_new(uint32_t n_blocks)
{
    CHECK(n_blocks > 0);
    kvpool *p = xcalloc(1, sizeof *p);
    p->blocks = xcalloc(n_blocks, sizeof *p->blocks);
    p->n = p->n_spare = n_blocks;
    p->by_hash = map_new();
    list_init(&p->spare);
    for (uint32_t i = 0; i < n_blocks; i++)
        list_append(&p->spare, &p->blocks[i].link);
    return p;
}

void kvpool_free(kvpool *p)
{
    if (!p)
        return;
    map_free(p->by_hash);
    free(p->blocks);
    free(p);
}

static void forget(kvpool *p, struct block *b)
{
    if (!b->published)
        return;
    map_del(p->by_hash, hash_key(&b->hash));
    b->published = false;
    p->n_published--;
}

static struct block *block_at(const kvpool *p, uint32_t block)
{
    CHECK(block < p->n);
    return &p->blocks[block];
}

static void add_ref(kvpool *p, struct block *b)
{
    if (b->refs++ == 0) {
        list_remove(&b->link);
        p->n_spare--;
    }
}

uint32_t kvpool_take(kvpool *p)
{
    struct list *first = list_first(&p->spare);
    if (!first)
        return KVPOOL_NONE;
    struct block *b = CONTAINER_OF(first, struct block, link);
    forget(p, b);
    add_ref(p, b);
    return (uint32_t)(b - p->blocks);
}

void kvpool_ref(kvpool *p, uint32_t block)
{
    struct block *b = block_at(p, block);
    CHECK(b->refs > 0);
    add_ref(p, b);
}

/* At the front: blocks without a memory are to be taken before those that somebody may look for. */
static void put_first(struct list *head, struct list *node)
{
    list_append(head->next, node);
}

void kvpool_unref(kvpool *p, uint32_t block)
{
    struct block *b = block_at(p, block);
    CHECK(b->refs > 0);
    if (--b->refs > 0)
        return;
    p->n_spare++;
    if (b->published)
        list_append(&p->spare, &b->link);
    else
        put_first(&p->spare, &b->link);
}

uint32_t kvpool_find(kvpool *p, const struct digest *hash)
{
    struct block *b = map_get(p->by_hash, hash_key(hash));
    if (!b)
        return KVPOOL_NONE;
    add_ref(p, b);
    return (uint32_t)(b - p->blocks);
}

uint32_t kvpool_publish(kvpool *p, uint32_t block, const struct digest *hash)
{
    struct block *b = block_at(p, block);
    CHECK(b->refs > 0);
    uint32_t known = kvpool_find(p, hash);
    if (known != KVPOOL_NONE) {
        kvpool_unref(p, block);
        return known;
    }
    CHECK(!b->published);
    b->hash = *hash;
    b->published = true;
    p->n_published++;
    map_put(p->by_hash, hash_key(&b->hash), b);
    return block;
}

bool kvpool_writable(const kvpool *p, uint32_t block)
{
    const struct block *b = block_at(p, block);
    return b->refs == 1 && !b->published;
}

uint32_t kvpool_size(const kvpool *p)
{
    return p->n;
}

uint32_t kvpool_available(const kvpool *p)
{
    return p->n_spare;
}

uint32_t kvpool_cached(const kvpool *p)
{
    return p->n_published;
}
