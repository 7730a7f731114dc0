/* Attention: heads normed and rotated, K and V stored, then every row over what it sees.
 *
 * An item is a tile of rows, one KV head and the heads that read it; a tile that alone would keep a thread longer than the
 * others is cut by segments, and who finishes the last of them merges. If every tile holds a whole run, nobody else reads
 * what it stores, so an item does all of it and the operator is one call of the pool. Else a pass over the rows comes first. */
#include "engine/backend/cpu.h"

#include <stdatomic.h>

#define ITEMS_PER_THREAD 4         /* so that a thread that was held up costs a fraction of the operator */
#define ITEM_PRODUCTS_MIN (1 << 20) /* scores times head_dim below which rows stay together: 10 us */
#define ALONE_PRODUCTS 60000       /* … and below which waking the others costs more than it saves */

struct attention_job {
    cpu *c;
    const struct attention_op *op;
    const struct cpu_act *q, *k, *v, *out;
    const float *q_norm, *k_norm; /* NULL: none */
    const struct cpu_rope *rope;  /* NULL: none */
    uint32_t group;               /* heads per KV head */
    uint32_t heads_per_item;      /* of a group */
    uint32_t n_cuts;              /* ceil(group / heads_per_item) */
    uint32_t rows_per_item;
    bool whole;                   /* items store what they read */
    uint32_t n_tiles, n_items, per_part; /* 4096 rows of as many sequences are more items than a pool takes parts */
    float *pairs;                 /* of partials: (2) */
    float *o;                     /* of partials: (head_dim) */
};

/* ---- heads before they are used ----------------------------------------------------------------------------- */

static void place_head(const struct attention_job *j, uint32_t row, const float *in, const struct norm_op *norm,
                       const float *weight, float *out)
{
    const struct kernels *k = j->c->k;
    uint32_t head_dim = j->op->head_dim;
    if (!norm && in != out)
        memcpy(out, in, head_dim * sizeof *out);
    else if (norm && norm->kind == NORM_RMS)
        k->norm_rms(in, weight, norm->eps, out, head_dim);
    else if (norm)
        k->norm_layer(in, weight, NULL, norm->eps, out, head_dim);
    if (j->rope)
        k->rope(j->op->rope.kind, out, j->rope->cs + (size_t)row * j->op->rope.n_dims, j->op->rope.n_dims);
}

static void store_row(const struct attention_job *j, uint32_t r, uint32_t kv_head)
{
    cpu *c = j->c;
    const struct engine_row *row = &c->step->rows[r];
    uint32_t block = c->step->seqs[row->seq].blocks[row->position / ENGINE_BLOCK_TOKENS];
    float *k = j->k->data + r * j->k->stride + (size_t)kv_head * j->op->head_dim;
    const float *v = j->v->data + r * j->v->stride + (size_t)kv_head * j->op->head_dim;
    place_head(j, r, k, j->op->k_norm, j->k_norm, k);
    c->k->store_kv[c->cfg.kv_type](k, v, cpu_kv_at(c, block, j->op->layer, kv_head), row->position % ENGINE_BLOCK_TOKENS,
                                     j->op->head_dim);
}

static void place_rows(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct attention_job *j = ctx;
    for (uint32_t r = first; r < first + n; r++) {
        for (uint32_t h = 0; h < j->op->n_head; h++) {
            float *q = j->q->data + r * j->q->stride + (size_t)h * j->op->head_dim;
            place_head(j, r, q, j->op->q_norm, j->q_norm, q);
        }
        for (uint32_t h = 0; h < j->op->n_kv_head; h++)
            store_row(j, r, h);
    }
}

/* ---- an item ------------------------------------------------------------------------------------------------ */

static uint32_t first_seen(const struct attention_job *j, uint32_t r)
{
    uint32_t own = j->c->step->rows[r].position + 1, window = j->op->window;
    return window && own > window ? own - window : 0;
}

static size_t partial_at(const struct attention_job *j, const struct cpu_tile *tile, uint32_t row, uint32_t head)
{
    return tile->partial + ((size_t)(row - tile->first) * j->op->n_head + head) * tile->n_segments;
}

static void add_query(const struct attention_job *j, struct attention_tile *t, uint32_t r, uint32_t head, float *room)
{
    const struct engine_row *row = &j->c->step->rows[r];
    size_t at = (size_t)head * j->op->head_dim;
    const float *q = j->q->data + r * j->q->stride + at;
    t->q[t->n] = q;
    if (j->whole) {
        place_head(j, r, q, j->op->q_norm, j->q_norm, room + (size_t)t->n * t->head_dim);
        t->q[t->n] = room + (size_t)t->n * t->head_dim;
    }
    t->out[t->n] = j->out->data + r * j->out->stride + at;
    t->from[t->n] = first_seen(j, r);
    t->to[t->n] = row->attend_until;
    t->n++;
}

static void merge_tile(const struct attention_job *j, const struct cpu_tile *tile, uint32_t kv_head)
{
    uint32_t head_dim = j->op->head_dim, first = kv_head * j->group;
    for (uint32_t r = tile->first; r < tile->first + tile->n; r++)
        for (uint32_t h = first; h < first + j->group; h++) {
            size_t at = partial_at(j, tile, r, h);
            j->c->k->attention_merge(j->pairs + 2 * at, 2, j->o + at * head_dim, head_dim, tile->n_segments, head_dim,
                                     j->out->data + r * j->out->stride + (size_t)h * head_dim);
        }
}

static void run_partial(const struct attention_job *j, const struct cpu_tile *tile, struct attention_tile *t, uint32_t kv_head,
                        uint32_t first, uint32_t end)
{
    float pairs[2 * QUERIES_MAX];
    size_t at[QUERIES_MAX];
    uint32_t i = 0;
    for (uint32_t r = tile->first; r < tile->first + tile->n; r++)
        for (uint32_t h = first; h < end; h++, i++) {
            at[i] = partial_at(j, tile, r, kv_head * j->group + h) + t->segment - tile->segment;
            t->out[i] = j->o + at[i] * t->head_dim;
        }
    t->partials = pairs;
    j->c->k->attention(t);
    for (uint32_t k = 0; k < i; k++)
        memcpy(j->pairs + 2 * at[k], pairs + (size_t)2 * k, 2 * sizeof *pairs);
    _Atomic uint32_t *pending = &j->c->pending[(size_t)(tile - j->c->tiles) * j->op->n_kv_head + kv_head];
    if (atomic_fetch_sub(pending, 1) == 1)
        merge_tile(j, tile, kv_head);
}

/* The tile's rows into KV; of a cut tile, those that lie in this segment. */
static void store_rows(const struct attention_job *j, const struct cpu_tile *tile, uint32_t kv_head, uint32_t segment)
{
    for (uint32_t r = tile->first; r < tile->first + tile->n; r++)
        if (!tile->n_segments || j->c->step->rows[r].position / ENGINE_SEGMENT_TOKENS == segment)
            store_row(j, r, kv_head);
}

static void attention_item(const struct attention_job *j, const struct cpu_tile *tile, uint32_t i, int thread)
{
    cpu *c = j->c;
    uint32_t n_segments = tile->n_segments ? tile->n_segments : 1;
    uint32_t segment = tile->segment + i % n_segments;
    uint32_t cut = i / n_segments % j->n_cuts, kv_head = i / n_segments / j->n_cuts;
    float *room = c->scratch + (size_t)thread * c->scratch_floats;
    struct attention_tile t = {
        .type = c->cfg.kv_type, .kv = cpu_kv_at(c, 0, j->op->layer, kv_head), .block_stride = c->kv_layer_bytes,
        .blocks = c->step->seqs[c->step->rows[tile->first].seq].blocks, .head_dim = j->op->head_dim,
        .scale = j->op->scale, .soft_cap = j->op->soft_cap, .segment = segment,
        .scratch = room + (size_t)QUERIES_MAX * j->op->head_dim,
    };
    uint32_t first = cut * j->heads_per_item, end = first + j->heads_per_item;
    end = end < j->group ? end : j->group;
    if (j->whole)
        store_rows(j, tile, kv_head, segment);
    for (uint32_t r = tile->first; r < tile->first + tile->n; r++)
        for (uint32_t h = first; h < end; h++)
            add_query(j, &t, r, kv_head * j->group + h, room);
    if (tile->n_segments)
        run_partial(j, tile, &t, kv_head, first, end);
    else
        c->k->attention(&t);
}

/* The last tile whose first item is not after i. */
static const struct cpu_tile *tile_of(const struct attention_job *j, uint32_t i)
{
    uint32_t low = 0, high = j->n_tiles;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (j->c->tiles[mid].item <= i)
            low = mid;
        else
            high = mid;
    }
    return &j->c->tiles[low];
}

static void attention_part(void *ctx, size_t part, int thread)
{
    const struct attention_job *j = ctx;
    uint32_t first = (uint32_t)part * j->per_part, end = first + j->per_part;
    for (uint32_t i = first; i < end && i < j->n_items; i++) {
        const struct cpu_tile *tile = tile_of(j, i);
        attention_item(j, tile, i - tile->item, thread);
    }
}

/* ---- cutting ------------------------------------------------------------------------------------------------ */

/* What the tile's rows see, as segments. */
static void tile_segments(const struct attention_job *j, struct cpu_tile *tile, uint32_t *n)
{
    uint32_t from = UINT32_MAX, to = 0;
    for (uint32_t r = tile->first; r < tile->first + tile->n; r++) {
        uint32_t own = first_seen(j, r), until = j->c->step->rows[r].attend_until;
        from = own < from ? own : from;
        to = until > to ? until : to;
    }
    tile->segment = from / ENGINE_SEGMENT_TOKENS;
    *n = (to - 1) / ENGINE_SEGMENT_TOKENS + 1 - tile->segment;
}

static uint32_t count_tiles(const struct attention_job *j, uint32_t rows)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < j->c->n_runs; i++)
        n += (j->c->runs[i].n + rows - 1) / rows;
    return n;
}

static void make_tiles(struct attention_job *j)
{
    j->n_tiles = 0;
    j->whole = j->c->one_run_each && j->n_cuts == 1;
    for (uint32_t i = 0; i < j->c->n_runs; i++) {
        struct cpu_run run = j->c->runs[i];
        j->whole &= run.n <= j->rows_per_item;
        for (uint32_t at = 0; at < run.n; at += j->rows_per_item) {
            uint32_t left = run.n - at;
            j->c->tiles[j->n_tiles++] =
                (struct cpu_tile){.first = run.first + at, .n = left < j->rows_per_item ? left : j->rows_per_item};
        }
    }
}

/* How many rows go together: as many as a tile holds, fewer while a short prompt would leave threads without any. */
static void choose_rows(struct attention_job *j)
{
    uint32_t threads = (uint32_t)pool_size(j->c->pool), longest = 0;
    j->rows_per_item = QUERIES_MAX / j->heads_per_item;
    while (j->rows_per_item > 8 && j->rows_per_item * j->heads_per_item % 8)
        j->rows_per_item--; /* groups of 8 queries without idle ones */
    for (uint32_t i = 0; i < j->c->n_runs; i++) {
        const struct cpu_run *run = &j->c->runs[i];
        uint32_t until = j->c->step->rows[run->first + run->n - 1].attend_until;
        longest = until > longest ? until : longest;
    }
    longest = longest < ENGINE_SEGMENT_TOKENS ? longest : ENGINE_SEGMENT_TOKENS;
    size_t row = (size_t)j->heads_per_item * j->op->head_dim * longest;
    while (threads > 1 && j->rows_per_item > 1 && row * j->rows_per_item > ITEM_PRODUCTS_MIN &&
           count_tiles(j, j->rows_per_item) * j->n_cuts * j->op->n_kv_head < threads * 2)
        j->rows_per_item = (j->rows_per_item + 1) / 2;
}

/* Cuts tiles that are more than their share, if their partials fit. */
static void cut_tiles(struct attention_job *j)
{
    cpu *c = j->c;
    uint64_t total = 0, share;
    size_t room = PARTIAL_FLOATS / (j->op->head_dim + 2), used = 0;
    uint32_t n, heads = j->n_cuts * j->op->n_kv_head;
    for (uint32_t i = 0; i < j->n_tiles; i++) {
        tile_segments(j, &c->tiles[i], &n);
        total += (uint64_t)c->tiles[i].n * n * heads;
    }
    share = total / (uint64_t)(pool_size(c->pool) * ITEMS_PER_THREAD);
    for (uint32_t i = 0; i < j->n_tiles; i++) {
        struct cpu_tile *tile = &c->tiles[i];
        tile_segments(j, tile, &n);
        size_t partials = (size_t)tile->n * j->op->n_head * n;
        if (pool_size(c->pool) > 1 && n > 1 && (uint64_t)tile->n * n > share && used + partials <= room) {
            tile->n_segments = n;
            tile->partial = used;
            used += partials;
            for (uint32_t h = 0; h < j->op->n_kv_head; h++)
                atomic_store_explicit(&c->pending[(size_t)i * j->op->n_kv_head + h], n * j->n_cuts, memory_order_relaxed);
        }
        tile->item = j->n_items;
        j->n_items += heads * (tile->n_segments ? n : 1);
    }
    j->pairs = c->partials;
    j->o = c->partials + 2 * room;
}

static bool not_worth_waking(const struct attention_job *j)
{
    size_t products = 0;
    for (size_t r = 0; r < j->c->step->n_rows; r++)
        products += j->c->step->rows[r].attend_until - first_seen(j, (uint32_t)r);
    return products * j->op->n_head * j->op->head_dim < ALONE_PRODUCTS;
}

void cpu_attention(backend *b, const struct attention_op *op, act_id q, act_id k, act_id v, act_id out)
{
    cpu *c = cpu_of(b);
    struct attention_job j = {.c = c, .op = op, .q = cpu_act_of(c, q), .k = cpu_act_of(c, k), .v = cpu_act_of(c, v),
                              .out = cpu_act_of(c, out), .rope = cpu_rope_of(c, &op->rope)};
    CHECK(op->head_dim == c->kv_shape.head_dim && op->n_kv_head == c->kv_shape.n_kv_head);
    j.q_norm = op->q_norm ? cpu_vector(c, op->q_norm->weight) : NULL;
    j.k_norm = op->k_norm ? cpu_vector(c, op->k_norm->weight) : NULL;
    j.group = op->n_head / op->n_kv_head;
    j.heads_per_item = j.group < QUERIES_MAX ? j.group : QUERIES_MAX;
    j.n_cuts = (j.group + j.heads_per_item - 1) / j.heads_per_item;
    choose_rows(&j);
    make_tiles(&j);
    cut_tiles(&j);
    CHECK(j.n_items > 0); /* a step has rows */
    if (!j.whole)
        cpu_rows(c, place_rows, &j, (uint32_t)c->step->n_rows, (size_t)(op->n_head + 2 * op->n_kv_head) * op->head_dim * 2);
    j.per_part = not_worth_waking(&j) ? j.n_items : j.n_items / POOL_PARTS_MAX + 1;
    pool_run(c->pool, attention_part, &j, (j.n_items + j.per_part - 1) / j.per_part);
}
