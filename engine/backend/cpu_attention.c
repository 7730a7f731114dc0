#include "engine/backend/cpu.h"

#define ITEMS_PER_THREAD 4 /* of attention: fewer rows to an item until there are this many */

static uint16_t *kv_at(const cpu *c, uint32_t block, uint32_t layer, uint32_t head)
{
    const struct kv_shape *s = &c->kv_shape;
    size_t index = (size_t)layer * s->n_kv_head + head;
    return c->kv + block * c->kv_block_halves + index * kv_head_halves(s->head_dim);
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

struct store_job {
    cpu *c;
    uint32_t layer;
    const struct cpu_act *k, *v;
};

static void store_rows(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct store_job *j = ctx;
    const struct kv_shape *s = &j->c->kv_shape;
    for (uint32_t r = first; r < first + n; r++) {
        const struct engine_row *row = &j->c->step->rows[r];
        uint32_t block = j->c->step->seqs[row->seq].blocks[row->position / ENGINE_BLOCK_TOKENS];
        for (uint32_t h = 0; h < s->n_kv_head; h++)
            j->c->k->store_kv(j->k->data + r * j->k->stride + (size_t)h * s->head_dim,
                              j->v->data + r * j->v->stride + (size_t)h * s->head_dim,
                              kv_at(j->c, block, j->layer, h), row->position % ENGINE_BLOCK_TOKENS, s->head_dim);
    }
}

void cpu_store_kv(backend *b, uint32_t layer, act_id k, act_id v)
{
    cpu *c = cpu_of(b);
    struct store_job j = {c, layer, cpu_act_of(c, k), cpu_act_of(c, v)};
    cpu_rows(c, store_rows, &j, (uint32_t)c->step->n_rows, (size_t)j.k->width * 4);
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

/* An item is some rows of one run, one KV head, some of the heads that read it, and, where these are too few for the
 * threads, one segment: then the partials are merged afterwards, a query at a time. */
struct attention_job {
    cpu *c;
    const struct attention_op *op;
    const struct cpu_act *q, *out;
    uint32_t group;           /* heads per KV head */
    uint32_t rows_per_item;
    uint32_t heads_per_item;  /* of a group */
    uint32_t n_cuts;          /* ceil(group / heads_per_item) */
    uint32_t n_tiles;         /* pieces of runs */
    uint32_t n_items, per_part; /* 4096 rows of as many sequences are more items than a pool takes parts */
    uint32_t n_segments;      /* 1: items go through all of theirs */
    float *pairs;             /* (rows, n_head, n_segments, 2) */
    float *o;                 /* (rows, n_head, n_segments, head_dim) */
};

static uint32_t pieces(const cpu *c, uint32_t rows_per_item)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_runs; i++)
        n += (c->runs[i].n + rows_per_item - 1) / rows_per_item;
    return n;
}

/* The i-th piece: its first row and how many. */
static struct cpu_run piece(const cpu *c, uint32_t rows_per_item, uint32_t i)
{
    const struct cpu_run *run = c->runs;
    for (uint32_t n; i >= (n = (run->n + rows_per_item - 1) / rows_per_item); run++)
        i -= n;
    uint32_t skip = i * rows_per_item, left = run->n - skip;
    return (struct cpu_run){run->first + skip, left < rows_per_item ? left : rows_per_item};
}

static void add_query(const struct attention_job *j, struct attention_tile *t, uint32_t r, uint32_t head)
{
    const struct engine_row *row = &j->c->step->rows[r];
    size_t at = (size_t)head * j->op->head_dim;
    uint32_t own = row->position + 1, window = j->op->window;
    t->q[t->n] = j->q->data + r * j->q->stride + at;
    t->out[t->n] = j->out->data + r * j->out->stride + at;
    t->from[t->n] = window && own > window ? own - window : 0;
    t->to[t->n] = row->attend_until;
    t->n++;
}

/* Where the partials of a query lie; its segments follow one another. */
static size_t partial_at(const struct attention_job *j, uint32_t row, uint32_t head)
{
    return ((size_t)row * j->op->n_head + head) * j->n_segments;
}

static void run_partial(const struct attention_job *j, struct attention_tile *t, struct cpu_run rows, uint32_t head, uint32_t end)
{
    float pairs[2 * QUERIES_MAX];
    size_t at[QUERIES_MAX];
    uint32_t i = 0;
    for (uint32_t r = rows.first; r < rows.first + rows.n; r++)
        for (uint32_t h = head; h < end; h++, i++) {
            at[i] = partial_at(j, r, h) + t->segment;
            t->out[i] = j->o + at[i] * t->head_dim;
        }
    t->partials = pairs;
    j->c->k->attention(t);
    for (uint32_t k = 0; k < i; k++)
        memcpy(j->pairs + 2 * at[k], pairs + (size_t)2 * k, 2 * sizeof *pairs);
}

static void attention_item(const struct attention_job *j, uint32_t i, int thread)
{
    cpu *c = j->c;
    uint32_t segment = i % j->n_segments;
    i /= j->n_segments;
    uint32_t cut = i % j->n_cuts, kv_head = i / j->n_cuts % j->op->n_kv_head;
    struct cpu_run rows = piece(c, j->rows_per_item, i / j->n_cuts / j->op->n_kv_head);
    const struct engine_seq *seq = &c->step->seqs[c->step->rows[rows.first].seq];
    struct attention_tile t = {
        .kv = kv_at(c, 0, j->op->layer, kv_head), .block_stride = c->kv_block_halves, .blocks = seq->blocks,
        .head_dim = j->op->head_dim, .scale = j->op->scale, .soft_cap = j->op->soft_cap, .segment = segment,
        .scratch = c->scratch + (size_t)thread * c->scratch_floats,
    };
    uint32_t first = cut * j->heads_per_item, end = first + j->heads_per_item;
    end = end < j->group ? end : j->group;
    for (uint32_t r = rows.first; r < rows.first + rows.n; r++)
        for (uint32_t h = first; h < end; h++)
            add_query(j, &t, r, kv_head * j->group + h);
    if (j->n_segments > 1)
        run_partial(j, &t, rows, kv_head * j->group + first, kv_head * j->group + end);
    else
        c->k->attention(&t);
}

static void attention_part(void *ctx, size_t part, int thread)
{
    const struct attention_job *j = ctx;
    uint32_t first = (uint32_t)part * j->per_part, end = first + j->per_part;
    for (uint32_t i = first; i < end && i < j->n_items; i++)
        attention_item(j, i, thread);
}

static void merge_row(void *ctx, uint32_t first, uint32_t n, int thread UNUSED)
{
    const struct attention_job *j = ctx;
    uint32_t head_dim = j->op->head_dim;
    for (uint32_t r = first; r < first + n; r++)
        for (uint32_t h = 0; h < j->op->n_head; h++) {
            size_t at = partial_at(j, r, h);
            j->c->k->attention_merge(j->pairs + 2 * at, 2, j->o + at * head_dim, head_dim, j->n_segments, head_dim,
                                     j->out->data + r * j->out->stride + (size_t)h * head_dim);
        }
}

static uint32_t n_items(const struct attention_job *j)
{
    return j->n_tiles * j->n_cuts * j->op->n_kv_head * j->n_segments;
}

/* By segments, if there are several and their partials fit. */
static void cut_segments(struct attention_job *j)
{
    uint32_t longest = 0;
    size_t queries = j->c->step->n_rows * j->op->n_head;
    for (size_t r = 0; r < j->c->step->n_rows; r++)
        longest = j->c->step->rows[r].attend_until > longest ? j->c->step->rows[r].attend_until : longest;
    uint32_t n = (longest + ENGINE_SEGMENT_TOKENS - 1) / ENGINE_SEGMENT_TOKENS;
    if (n < 2 || queries * n * (j->op->head_dim + 2) > PARTIAL_FLOATS)
        return;
    j->n_segments = n;
    j->pairs = j->c->partials;
    j->o = j->pairs + queries * n * 2;
}

static void shape_items(struct attention_job *j)
{
    uint32_t enough = (uint32_t)pool_size(j->c->pool) * ITEMS_PER_THREAD;
    j->heads_per_item = j->group < QUERIES_MAX ? j->group : QUERIES_MAX;
    j->rows_per_item = QUERIES_MAX / j->heads_per_item;
    j->n_segments = 1;
    for (;;) {
        j->n_cuts = (j->group + j->heads_per_item - 1) / j->heads_per_item;
        j->n_tiles = pieces(j->c, j->rows_per_item);
        if (n_items(j) >= enough || pool_size(j->c->pool) == 1)
            return;
        if (j->rows_per_item > 1) {
            j->rows_per_item = (j->rows_per_item + 1) / 2;
            continue;
        }
        cut_segments(j); /* before heads, which would read the same K and V again */
        if (j->n_segments > 1 || j->heads_per_item == 1)
            return;
        j->heads_per_item = (j->heads_per_item + 1) / 2;
    }
}

void cpu_attention(backend *b, const struct attention_op *op, act_id q, act_id out)
{
    cpu *c = cpu_of(b);
    struct attention_job j = {.c = c, .op = op, .q = cpu_act_of(c, q), .out = cpu_act_of(c, out)};
    CHECK(op->head_dim == c->kv_shape.head_dim && op->n_kv_head == c->kv_shape.n_kv_head);
    j.group = op->n_head / op->n_kv_head;
    shape_items(&j);
    j.n_items = n_items(&j);
    j.per_part = j.n_items / POOL_PARTS_MAX + 1;
    pool_run(c->pool, attention_part, &j, (j.n_items + j.per_part - 1) / j.per_part);
    if (j.n_segments > 1)
        cpu_rows(c, merge_row, &j, (uint32_t)c->step->n_rows, (size_t)op->n_head * op->head_dim * j.n_segments);
}

/* ---- whole blocks ------------------------------------------------------------------------------------------- */

void cpu_block_copy(backend *b, uint32_t from, uint32_t to, uint32_t n_tokens)
{
    cpu *c = cpu_of(b);
    const struct kv_shape *s = &c->kv_shape;
    CHECK(from < s->n_blocks && to < s->n_blocks && n_tokens <= ENGINE_BLOCK_TOKENS);
    uint16_t *out = kv_at(c, to, 0, 0);
    const uint16_t *in = kv_at(c, from, 0, 0);
    memset(out, 0, c->kv_block_halves * sizeof *out); /* what lies behind n_tokens is another's */
    for (uint32_t i = 0; i < s->n_layer * s->n_kv_head; i++) {
        for (uint32_t d = 0; d < s->head_dim; d++)
            memcpy(out + d * ENGINE_BLOCK_TOKENS, in + d * ENGINE_BLOCK_TOKENS, n_tokens * sizeof *out);
        size_t v = (size_t)s->head_dim * ENGINE_BLOCK_TOKENS;
        memcpy(out + v, in + v, (size_t)n_tokens * s->head_dim * sizeof *out);
        out += kv_head_halves(s->head_dim);
        in += kv_head_halves(s->head_dim);
    }
}

void cpu_block_export(const backend *b, uint32_t block, void *out)
{
    const cpu *c = (const cpu *)(const void *)b;
    CHECK(block < c->kv_shape.n_blocks);
    memcpy(out, kv_at(c, block, 0, 0), c->kv_block_halves * sizeof(uint16_t));
}

void cpu_block_import(backend *b, uint32_t block, const void *p)
{
    cpu *c = cpu_of(b);
    CHECK(block < c->kv_shape.n_blocks);
    memcpy(kv_at(c, block, 0, 0), p, c->kv_block_halves * sizeof(uint16_t));
}
