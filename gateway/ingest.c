/* Bytes to a video worker, as fast as it grants credit. */
#include "gateway/core_impl.h"

#define INGEST_ARENA_BYTES (64u << 10)
/* Held here before the source is told to stop: one piece under way and one being filled. */
#define PENDING_HIGH_BYTES UPLOAD_CHUNK_BYTES
#define QUEUE_FULL_RETRY_US 5000
/* A slow source's bytes go on after this long, so that the worker sees it live. */
#define FLUSH_US 1000000

/* Whole pieces, and at the end whatever is left; the last one may be empty. */
static bool piece_due(const struct ingest *in)
{
    if (!in->ask.request || in->end_sent)
        return false;
    if (in->ended)
        return in->pending.n == 0 || in->credit > 0;
    return in->pending.n >= (in->flush ? 1 : UPLOAD_CHUNK_BYTES) && in->credit > 0;
}

static int send_piece(struct ingest *in)
{
    size_t n = in->pending.n < UPLOAD_CHUNK_BYTES ? in->pending.n : UPLOAD_CHUNK_BYTES;
    if (n > in->credit)
        n = (size_t)in->credit;
    bool last = in->ended && n == in->pending.n;
    slice piece = {n ? in->pending.p : "", n};
    int e = ask_more(&in->ask, WIRE_CHUNK, last ? WIRE_END : 0, NULL, &piece);
    if (e < 0)
        return e;
    buf_drop_front(&in->pending, n);
    in->credit -= n;
    in->end_sent = last;
    in->flush = false;
    return 0;
}

static void pump(struct ingest *in)
{
    gw *g = in->ask.g;
    while (piece_due(in)) {
        if (send_piece(in) == 0)
            continue;
        /* A full queue empties without a word; a lost worker is found out by its silence. */
        timers_set(&g->timers, &in->again, g->now_us + QUEUE_FULL_RETRY_US);
        return;
    }
    if (in->pending.n && in->credit && !in->again.heap_index)
        timers_set(&g->timers, &in->again, g->now_us + FLUSH_US);
}

static void on_again(void *ctx)
{
    struct ingest *in = ctx;
    in->flush = in->pending.n > 0;
    pump(in);
    if (in->starved && in->pending.n < PENDING_HIGH_BYTES && !in->ended) {
        in->starved = false;
        in->ops->more(in->ctx);
    }
}

static void on_chunk(struct ask *a, const struct wire_msg *m)
{
    struct ingest *in = CONTAINER_OF(a, struct ingest, ask);
    arena *mem = arena_new(INGEST_ARENA_BYTES);
    void *v;
    if (ask_unpack(mem, &nunchi__ingesting__descriptor, m, &v) == 0)
        in->ops->progress(in->ctx, v);
    arena_free(mem);
}

static void forget(struct ingest *in, uint64_t request)
{
    map_del_u64(in->ask.g->ingests, request);
    timers_cancel(&in->ask.g->timers, &in->again);
}

static void on_done(struct ask *a, int err, const struct wire_msg *m, const struct why *w)
{
    struct ingest *in = CONTAINER_OF(a, struct ingest, ask);
    arena *mem = arena_new(INGEST_ARENA_BYTES);
    void *v = NULL;
    if (err == 0)
        err = ask_unpack(mem, &nunchi__ingested__descriptor, m, &v);
    if (err == 0 && ((Nunchi__Ingested *)v)->content.len != DIGEST_BYTES)
        err = ERR_PROTO;
    if (err == 0)
        in->ops->done(in->ctx, v);
    else
        in->ops->failed(in->ctx, err, w);
    arena_free(mem);
}

/* The ask forgets its number before it calls back; ours is taken out of the map here. */
static void on_done_first(struct ask *a, int err, const struct wire_msg *m, const struct why *w)
{
    struct ingest *in = CONTAINER_OF(a, struct ingest, ask);
    forget(in, in->request);
    on_done(a, err, m, w);
}

int ingest_start(gw *g, struct ingest *in, struct worker *w, const Nunchi__Ingest *q,
                 const struct ingest_ops *ops, void *ctx)
{
    in->ask.g = g;
    in->ask.done = on_done_first;
    in->ask.chunk = on_chunk;
    in->ops = ops;
    in->ctx = ctx;
    in->again = (struct loop_timer){.fn = on_again, .ctx = in};
    int e = ask_send(&in->ask, w, &q->base, NULL, 0, 0);
    if (e == 0) {
        in->request = in->ask.request;
        map_put_u64(g->ingests, in->request, in);
    }
    return e;
}

bool ingest_bytes(struct ingest *in, slice bytes)
{
    if (bytes.n)
        buf_put_slice(&in->pending, bytes);
    pump(in);
    in->starved = in->pending.n >= PENDING_HIGH_BYTES;
    return !in->starved;
}

void ingest_end(struct ingest *in)
{
    in->ended = true;
    pump(in);
}

void ingest_clear(struct ingest *in, const char *reason)
{
    if (in->ask.g && in->request) {
        forget(in, in->request);
        ask_cancel(&in->ask, reason);
    }
    buf_clear(&in->pending);
    *in = (struct ingest){0};
}
