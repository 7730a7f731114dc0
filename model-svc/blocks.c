#include "model-svc/blocks.h"

#include "common/base/list.h"
#include "common/base/map.h"

/* A quarter of the pool at least is for blocks that nobody has looked for yet: a new prefix must
 * get the time to be found. */
#define OTHERS_SHARE 4

struct block {
    struct list link; /* in `spare` or `useful` while unreferenced, else self-linked */
    uint32_t refs;
    bool published;
    bool useful; /* found again since it was published */
    struct digest hash;
};

struct kvpool {
    struct block *blocks;
    uint32_t n, n_spare, n_published, n_useful;
    /* next to be taken first: never used ones, then the least recently used */
    struct list spare;
    struct list useful; /* taken when `spare` is empty; the least recently used first */
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
    list_init(&p->useful);
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
    b->published = b->useful = false;
    p->n_published--;
}

static struct block *block_at(const kvpool *p, uint32_t block)
{
    CHECK(block < p->n);
    return &p->blocks[block];
}

static void add_ref(kvpool *p, struct block *b)
{
    if (b->refs++ > 0)
        return;
    list_remove(&b->link);
    p->n_spare--;
    p->n_useful -= b->useful;
}

uint32_t kvpool_take(kvpool *p)
{
    struct list *first = list_first(&p->spare);
    if (!first)
        first = list_first(&p->useful);
    if (!first)
        return KVPOOL_NONE;
    struct block *b = CONTAINER_OF(first, struct block, link);
    add_ref(p, b);
    forget(p, b);
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

/* What was useful long ago makes way when useful blocks become too many: it is one of the others
 * again. A prefix is used as often as what goes on from it, and put back after it, so that it is
 * always the last to go. */
static void keep_useful(kvpool *p, struct block *b)
{
    list_append(&p->useful, &b->link);
    if (++p->n_useful <= p->n - p->n / OTHERS_SHARE)
        return;
    struct block *oldest = CONTAINER_OF(list_pop(&p->useful), struct block, link);
    oldest->useful = false;
    p->n_useful--;
    list_append(&p->spare, &oldest->link);
}

void kvpool_unref(kvpool *p, uint32_t block)
{
    struct block *b = block_at(p, block);
    CHECK(b->refs > 0);
    if (--b->refs > 0)
        return;
    p->n_spare++;
    if (!b->published)
        put_first(&p->spare, &b->link);
    else if (!b->useful)
        list_append(&p->spare, &b->link);
    else
        keep_useful(p, b);
}

uint32_t kvpool_find(kvpool *p, const struct digest *hash)
{
    struct block *b = map_get(p->by_hash, hash_key(hash));
    if (!b)
        return KVPOOL_NONE;
    add_ref(p, b);
    b->useful = true;
    return (uint32_t)(b - p->blocks);
}

uint32_t kvpool_peek(kvpool *p, const struct digest *hash)
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
