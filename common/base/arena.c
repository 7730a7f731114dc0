#include "common/base/arena.h"

#include <stdalign.h>

#define ARENA_ALIGN 16
/* Blocks double from the one to the other: a gateway holds thousands of requests that need little.
 * A larger piece gets a block of its own. */
#define ARENA_FIRST_BYTES ((size_t)1024)
#define ARENA_BLOCK_BYTES ((size_t)16 * 1024)
#define ARENA_LARGE_BYTES (ARENA_BLOCK_BYTES / 4)

struct block {
    struct block *next;
    size_t used, cap; /* of the bytes behind the header */
    alignas(ARENA_ALIGN) char bytes[];
};

struct arena {
    struct block *current; /* where small pieces go */
    struct block *full;    /* the rest */
    size_t used, budget;
    size_t next; /* bytes of the next block for small pieces */
};

arena *arena_new(size_t budget_bytes)
{
    arena *a = xcalloc(1, sizeof *a);
    a->budget = budget_bytes;
    a->next = ARENA_FIRST_BYTES;
    return a;
}

static void blocks_free(struct block *b)
{
    while (b) {
        struct block *next = b->next;
        free(b);
        b = next;
    }
}

void arena_free(arena *a)
{
    if (!a)
        return;
    blocks_free(a->full);
    free(a->current);
    free(a);
}

void arena_reset(arena *a)
{
    blocks_free(a->full);
    a->full = NULL;
    a->used = 0;
    if (a->current)
        a->current->used = 0;
}

static struct block *block_try(size_t cap)
{
    size_t bytes;
    if (size_add(sizeof(struct block), cap, &bytes) < 0)
        return NULL;
    struct block *b = malloc(bytes);
    if (b)
        *b = (struct block){.cap = cap};
    return b;
}

static struct block *block_for(arena *a, size_t n)
{
    if (n > ARENA_LARGE_BYTES) {
        struct block *b = block_try(n);
        if (b) {
            b->next = a->full;
            a->full = b;
        }
        return b;
    }
    if (a->current && a->current->cap - a->current->used >= n)
        return a->current;
    while (a->next < n)
        a->next *= 2;
    struct block *b = block_try(a->next);
    a->next = a->next < ARENA_BLOCK_BYTES ? 2 * a->next : ARENA_BLOCK_BYTES;
    if (b && a->current) {
        a->current->next = a->full;
        a->full = a->current;
    }
    return b ? a->current = b : NULL;
}

void *arena_try(arena *a, size_t n)
{
    size_t want;
    if (size_add(n ? n : 1, ARENA_ALIGN - 1, &want) < 0)
        return NULL;
    want &= ~(size_t)(ARENA_ALIGN - 1);
    if (a->budget && (want > a->budget || a->used > a->budget - want))
        return NULL;
    struct block *b = block_for(a, want);
    if (!b)
        return NULL;
    void *p = b->bytes + b->used;
    b->used += want;
    a->used += want;
    return memset(p, 0, want);
}

void *arena_get(arena *a, size_t n)
{
    void *p = arena_try(a, n);
    CHECK(p != NULL);
    return p;
}

slice arena_slice(arena *a, slice s)
{
    char *p = arena_get(a, s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    return (slice){p, s.n};
}

size_t arena_used(const arena *a)
{
    return a->used;
}
