#include "tokenizer-svc/merges.h"

#include "common/base/clock.h"

/* Up to here a scan for the least rank beats the heap; nearly every word of a text is shorter. */
#define SMALL_MAX 32
/* Scratch for runs longer than this is given back after use: one odd text must not hold memory for
 * ever. */
#define SCRATCH_KEEP (1u << 16)

struct entry {
    int32_t left, right, merged;
    uint32_t rank; /* MERGE_NONE: empty */
};

struct merges {
    struct entry *at;
    size_t mask, n;
    unsigned shift;
    uint64_t mix; /* odd, random: a model file cannot choose pairs that collide */
};

static int table_new(merges *m, unsigned bits)
{
    size_t n = (size_t)1 << bits;
    m->at = try_calloc(n, sizeof *m->at);
    if (!m->at)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        m->at[i].rank = MERGE_NONE;
    m->mask = n - 1;
    m->shift = 64 - bits;
    return 0;
}

merges *merges_new(void)
{
    merges *m = xcalloc(1, sizeof *m);
    m->mix = random_u64() | 1;
    CHECK(table_new(m, 10) == 0);
    return m;
}

void merges_free(merges *m)
{
    if (!m)
        return;
    free(m->at);
    free(m);
}

static inline struct entry *slot(const merges *m, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key ^= key >> 29; /* both halves reach the high bits of the product */
    size_t i = (size_t)((key * m->mix) >> m->shift);
    for (;; i = (i + 1) & m->mask) {
        struct entry *e = &m->at[i];
        if (e->rank == MERGE_NONE || (e->left == left && e->right == right))
            return e;
    }
}

static int grow(merges *m)
{
    merges old = *m;
    if (table_new(m, 64 - old.shift + 1) < 0) {
        *m = old;
        return ERR_NOMEM;
    }
    for (size_t i = 0; i <= old.mask; i++)
        if (old.at[i].rank != MERGE_NONE)
            *slot(m, old.at[i].left, old.at[i].right) = old.at[i];
    free(old.at);
    return 0;
}

int merges_add(merges *m, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    if (m->n * 2 > m->mask && grow(m) < 0)
        return ERR_NOMEM;
    struct entry *e = slot(m, left, right);
    if (e->rank != MERGE_NONE)
        return 0;
    *e = (struct entry){.left = left, .right = right, .merged = merged, .rank = rank};
    m->n++;
    return 0;
}

size_t merges_len(const merges *m)
{
    return m->n;
}

uint32_t merges_rank(const merges *m, int32_t left, int32_t right, int32_t *merged)
{
    const struct entry *e = slot(m, left, right);
    *merged = e->merged;
    return e->rank;
}

static size_t apply_small(const merges *m, int32_t *sym, size_t n)
{
    uint32_t rank[SMALL_MAX] = {MERGE_NONE};
    int32_t merged[SMALL_MAX];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = merges_rank(m, sym[i], sym[i + 1], &merged[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == MERGE_NONE)
            break;
        sym[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++)
            sym[i] = sym[i + 1];
        for (size_t i = best + 1; i + 1 < n; i++) {
            rank[i] = rank[i + 1];
            merged[i] = merged[i + 1];
        }
        if (best > 0)
            rank[best - 1] = merges_rank(m, sym[best - 1], sym[best], &merged[best - 1]);
        if (best + 1 < n)
            rank[best] = merges_rank(m, sym[best], sym[best + 1], &merged[best]);
    }
    return n;
}

/* A heap of rank << 32 | position: the order of merging is the order of the numbers. */
static void sift_down(uint64_t *h, size_t n, size_t i)
{
    uint64_t v = h[i];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && h[c + 1] < h[c])
            c++;
        if (v <= h[c])
            break;
        h[i] = h[c];
    }
    h[i] = v;
}

static void heap_push(uint64_t *h, size_t *n, uint64_t v)
{
    size_t i = (*n)++;
    for (; i > 0 && v < h[(i - 1) / 2]; i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = v;
}

static uint64_t heap_pop(uint64_t *h, size_t *n)
{
    uint64_t top = h[0];
    h[0] = h[--*n];
    if (*n > 0)
        sift_down(h, *n, 0);
    return top;
}

static int scratch_fit(struct merge_scratch *s, size_t n)
{
    if (n <= s->cap)
        return 0;
    merge_scratch_clear(s);
    size_t cap = n < 1024 ? 1024 : n;
    /* A merge takes one pair off the heap and brings at most two: never more than two a symbol. */
    s->heap = try_calloc(cap, 2 * sizeof *s->heap);
    s->next = try_calloc(cap, sizeof *s->next);
    s->prev = try_calloc(cap, sizeof *s->prev);
    s->rank = try_calloc(cap, sizeof *s->rank);
    if (!s->heap || !s->next || !s->prev || !s->rank) {
        merge_scratch_clear(s);
        return ERR_NOMEM;
    }
    s->cap = cap;
    return 0;
}

void merge_scratch_clear(struct merge_scratch *s)
{
    free(s->heap);
    free(s->next);
    free(s->prev);
    free(s->rank);
    *s = (struct merge_scratch){0};
}

struct run {
    const merges *m;
    struct merge_scratch *s;
    int32_t *sym;
    size_t n, heap_n;
};

/* Looks at the pair that starts at i again and queues it if it merges. */
static void look(struct run *r, uint32_t i)
{
    int32_t merged;
    uint32_t j = r->s->next[i];
    r->s->rank[i] = j < r->n ? merges_rank(r->m, r->sym[i], r->sym[j], &merged) : MERGE_NONE;
    if (r->s->rank[i] != MERGE_NONE)
        heap_push(r->s->heap, &r->heap_n, (uint64_t)r->s->rank[i] << 32 | i);
}

static void merge_at(struct run *r, uint32_t i)
{
    struct merge_scratch *s = r->s;
    uint32_t j = s->next[i];
    int32_t merged;
    (void)merges_rank(r->m, r->sym[i], r->sym[j], &merged);
    r->sym[i] = merged;
    r->sym[j] = -1;
    s->rank[j] = MERGE_NONE;
    s->next[i] = s->next[j];
    if (s->next[i] < r->n)
        s->prev[s->next[i]] = i;
    look(r, i);
    if (i > 0)
        look(r, s->prev[i]);
}

static size_t apply_large(const merges *m, struct merge_scratch *s, int32_t *sym, size_t n)
{
    struct run r = {.m = m, .s = s, .sym = sym, .n = n};
    for (uint32_t i = 0; i < n; i++) {
        s->next[i] = i + 1;
        s->prev[i] = i - 1; /* of the first: never read */
    }
    for (uint32_t i = 0; i < n; i++)
        look(&r, i);
    while (r.heap_n > 0) {
        uint64_t top = heap_pop(s->heap, &r.heap_n);
        if (s->rank[(uint32_t)top] == (uint32_t)(top >> 32)) /* else a neighbour has merged since */
            merge_at(&r, (uint32_t)top);
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (sym[i] >= 0)
            sym[kept++] = sym[i];
    return kept;
}

int merges_apply(const merges *m, struct merge_scratch *s, int32_t *sym, size_t *n)
{
    if (*n <= SMALL_MAX) {
        *n = apply_small(m, sym, *n);
        return 0;
    }
    if (*n >= UINT32_MAX / 2 || scratch_fit(s, *n) < 0)
        return ERR_NOMEM;
    *n = apply_large(m, s, sym, *n);
    if (s->cap > SCRATCH_KEEP)
        merge_scratch_clear(s);
    return 0;
}
