#include "gateway/prefix.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/hash.h"

#define CAPACITY_MIN 1024u

struct entry {
    uint64_t block; /* 0: empty */
    struct prefix_holder holders[PREFIX_HOLDERS];
};

struct table {
    struct entry *at;
    uint32_t n, capacity; /* capacity: a power of two, at least 2n */
};

struct prefix {
    struct table young, old;
    uint32_t blocks_max;
};

static struct table table_new(uint32_t capacity)
{
    return (struct table){.at = xcalloc(capacity, sizeof(struct entry)), .capacity = capacity};
}

/* Where the block is or would be. Hashed once more, with this process's seed: who can choose names
 * cannot choose places. */
static struct entry *place(const struct table *t, uint64_t block)
{
    uint32_t mask = t->capacity - 1, i = (uint32_t)hash64(&block, sizeof block) & mask;
    while (t->at[i].block && t->at[i].block != block)
        i = (i + 1) & mask;
    return &t->at[i];
}

static void grow(struct table *t)
{
    struct table larger = table_new(2 * t->capacity);
    for (uint32_t i = 0; i < t->capacity; i++)
        if (t->at[i].block)
            *place(&larger, t->at[i].block) = t->at[i];
    larger.n = t->n;
    free(t->at);
    *t = larger;
}

prefix *prefix_new(uint32_t blocks_max)
{
    prefix *p = xcalloc(1, sizeof *p);
    p->blocks_max = blocks_max;
    p->young = table_new(CAPACITY_MIN);
    p->old = table_new(CAPACITY_MIN);
    return p;
}

void prefix_free(prefix *p)
{
    if (!p)
        return;
    free(p->young.at);
    free(p->old.at);
    free(p);
}

static uint64_t name_of(uint64_t block)
{
    return block ? block : 1;
}

const struct prefix_holder *prefix_find(const prefix *p, uint64_t block)
{
    block = name_of(block);
    const struct entry *e = place(&p->young, block);
    if (!e->block)
        e = place(&p->old, block);
    return e->block ? e->holders : NULL;
}

static void make_room(prefix *p)
{
    if (p->young.n >= p->blocks_max) {
        free(p->old.at);
        p->old = p->young;
        p->young = table_new(CAPACITY_MIN);
    } else if (2 * (p->young.n + 1) > p->young.capacity) {
        grow(&p->young);
    }
}

void prefix_put(prefix *p, uint64_t block, struct prefix_holder h)
{
    block = name_of(block);
    struct entry *e = place(&p->young, block);
    if (!e->block) {
        make_room(p);
        e = place(&p->young, block);
        *e = *place(&p->old, block); /* all zero if it is not there either */
        e->block = block;
        p->young.n++;
    }
    size_t i = 0;
    while (i < PREFIX_HOLDERS - 1 && e->holders[i].worker && e->holders[i].worker != h.worker)
        i++;
    memmove(&e->holders[1], &e->holders[0], i * sizeof h);
    e->holders[0] = h;
}

size_t prefix_bytes(const prefix *p)
{
    return ((size_t)p->young.capacity + p->old.capacity) * sizeof(struct entry);
}
