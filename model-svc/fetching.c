/* In: the blocks of one prompt, asked for in batches, several at once, so that the cache reads the
 * next while this one is taken in. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "model-svc/transfer_int.h"

/* Asked for and not answered yet, of one fetch. */
#define WINDOW 3
/* The first batch is small: what is not there is known soon, and what is begins to be taken in
 * soon. */
#define FIRST_BLOCKS 8
/* Fetches of different requests at once; the others wait their turn. */
#define FETCHING_MAX 4

struct fetching;

struct batch {
    struct list link; /* in fetching.batches, in the order of the prompt */
    struct fetching *f;
    uint32_t first, n; /* counted from the fetch's first */
    uint32_t n_good;
    bool answered;
};

struct fetching {
    struct list link; /* in transfer.fetches */
    transfer *t;
    struct sched_fetch what;
    struct list batches;
    uint32_t n_asked, n_sent, n_open, n_done, damaged;
    bool over; /* nothing more is asked for */
    uint64_t began_us;
};

static const struct digest *group_of(const struct fetching *f, uint32_t i)
{
    uint32_t at = f->what.first + i;
    return &f->what.chain[at - at % KV_GROUP_BLOCKS];
}

/* ---- what came ---- */

static slice frame_of(const Nunchi__BlobValues *v, const struct wire_msg *m, size_t key)
{
    uint32_t i = key < v->n_frame ? v->frame[key] : 0;
    return i > 0 && i <= m->n_frames ? m->frames[i - 1] : (slice){0};
}

/* One block of the answer, into its pages. 0: not there. 1: taken. Negative: it was not what was
 * asked for. */
static int take_block(struct fetching *f, uint32_t i, const Nunchi__BlobValues *v,
                      const struct wire_msg *m, size_t key)
{
    transfer *t = f->t;
    const uint32_t at = f->what.first + i;
    slice bytes = {0};
    for (uint32_t p = 0; p < t->parts; p++) {
        slice frame = frame_of(v, m, key + p);
        if (!frame.p)
            return 0;
        int e = kvbox_open(frame, &f->what.chain[at], &t->detail, p, &bytes);
        if (e < 0 || bytes.n != kvbox_part_bytes(t->block_bytes, p))
            return ERR_PROTO;
        if (t->parts > 1)
            memcpy(t->whole + (size_t)p * KVBOX_PART_BYTES, bytes.p, bytes.n);
    }
    if (t->parts > 1)
        bytes = (slice){t->whole, t->block_bytes};
    return engine_block_import(t->e, f->what.blocks[at], bytes.p, bytes.n) < 0 ? ERR_PROTO : 1;
}

static void take_batch(struct batch *b, const struct wire_msg *m)
{
    struct fetching *f = b->f;
    arena *a = arena_new(REPLY_ARENA_BYTES);
    Nunchi__CacheReply *r;
    if (transfer_unpack(a, m, &r) == 0 && r->op_case == NUNCHI__CACHE_REPLY__OP_VALUES)
        for (int took = 1; took > 0 && b->n_good < b->n;) {
            took =
                take_block(f, b->first + b->n_good, r->values, m, (size_t)b->n_good * f->t->parts);
            b->n_good += took > 0;
            f->damaged += took < 0;
        }
    arena_free(a);
}

/* Blocks count in the order of the prompt: what lies behind one that did not come is of no use. */
static void count(struct fetching *f)
{
    uint32_t done = 0;
    bool whole = true;
    LIST_EACH(it, &f->batches)
    {
        const struct batch *b = CONTAINER_OF(it, struct batch, link);
        if (!whole || !b->answered)
            break;
        done += b->n_good;
        whole = b->n_good == b->n;
    }
    if (!whole)
        f->over = true;
    if (done > f->n_done) {
        f->n_done = done;
        f->t->ops.fetched(f->t->ops.ctx, f->what.id, done);
    }
}

static void fetching_free(struct fetching *f)
{
    for (struct list *it; (it = list_pop(&f->batches));)
        free(CONTAINER_OF(it, struct batch, link));
    list_remove(&f->link);
    free(f);
}

static void end(struct fetching *f)
{
    transfer *t = f->t;
    uint64_t id = f->what.id, took = f->n_sent ? clock_mono_us() - f->began_us + 1 : 0;
    uint32_t damaged = f->damaged;
    if (damaged)
        log_warn("KV blocks from a cache were damaged; they are computed",
                 LOG_U64("blocks", damaged));
    log_debug("fetched", LOG_U64("wanted", f->what.n), LOG_U64("blocks", f->n_done),
              LOG_U64("took_us", took));
    fetching_free(f);
    t->ops.fetch_end(t->ops.ctx, id, took, damaged);
}

/* ---- asking ---- */

static void ask_more(struct fetching *f);

static void on_batch(void *ctx, int err, const struct wire_msg *m, const struct why *w UNUSED)
{
    struct batch *b = ctx;
    struct fetching *f = b->f;
    b->answered = true;
    f->n_open--;
    if (err >= 0 && m)
        take_batch(b, m);
    count(f);
    if (f->t->closing)
        f->over = true;
    ask_more(f);
    if (f->n_open == 0)
        end(f);
}

static int ask_batch(struct batch *b)
{
    struct fetching *f = b->f;
    transfer *t = f->t;
    arena *a = arena_new(0);
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    Nunchi__BlobGet get = NUNCHI__BLOB_GET__INIT;
    get.keys = arena_get(a, (size_t)b->n * t->parts * sizeof *get.keys);
    get.prefix = true;
    for (uint32_t i = 0; i < b->n; i++)
        for (uint32_t p = 0; p < t->parts; p++)
            get.keys[get.n_keys++] =
                transfer_key(a, t, f->what.tenant, &f->what.chain[f->what.first + b->first + i],
                             group_of(f, b->first + i), p);
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &get;
    int e = transfer_ask(t, group_of(f, b->first), &q, NULL, 0, on_batch, b);
    arena_free(a);
    return e;
}

/* A batch stays within its group: groups may lie in different places. */
static uint32_t batch_size(const struct fetching *f)
{
    uint32_t most = f->n_asked == 0 && f->t->blocks_per_ask > FIRST_BLOCKS ? FIRST_BLOCKS
                                                                           : f->t->blocks_per_ask;
    uint32_t left = f->what.n - f->n_asked;
    uint32_t in_group = KV_GROUP_BLOCKS - (f->what.first + f->n_asked) % KV_GROUP_BLOCKS;
    most = most < left ? most : left;
    return most < in_group ? most : in_group;
}

static void ask_more(struct fetching *f)
{
    while (!f->over && f->n_open < WINDOW && f->n_asked < f->what.n) {
        struct batch *b = xcalloc(1, sizeof *b);
        *b = (struct batch){.f = f, .first = f->n_asked, .n = batch_size(f)};
        list_append(&f->batches, &b->link);
        f->n_asked += b->n;
        if (ask_batch(b) < 0) {
            b->answered = true; /* nobody is there: a miss */
            f->over = true;
        } else {
            f->n_open++;
            f->n_sent++;
        }
    }
}

static size_t n_fetching(const transfer *t)
{
    size_t n = 0;
    LIST_EACH(it, &t->fetches)
    n++;
    return n;
}

void fetching_start(transfer *t)
{
    struct sched_fetch what;
    while (n_fetching(t) < FETCHING_MAX && t->ops.fetch_next(t->ops.ctx, &what)) {
        struct fetching *f = xcalloc(1, sizeof *f);
        *f = (struct fetching){.t = t, .what = what, .began_us = clock_mono_us()};
        list_init(&f->batches);
        list_append(&t->fetches, &f->link);
        ask_more(f);
        if (f->n_open == 0)
            end(f);
    }
}

void fetching_clear(transfer *t)
{
    LIST_EACH(it, &t->fetches)
    fetching_free(CONTAINER_OF(it, struct fetching, link));
}
