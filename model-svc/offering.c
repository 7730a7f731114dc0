/* Out: blocks that are computed, one batch after another, asked about first: of many workers that
 * compute the same prefix, one sends it. A token never waits for this: the bytes are taken out and
 * sealed by a thread that runs when nobody else wants to. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "model-svc/transfer_int.h"

struct offering {
    transfer *t;
    uint32_t n;
    uint64_t missing; /* bit i: the caches do not have it */
    struct sched_offer blocks[TRANSFER_KEYS_MAX];
    shared *parts[TRANSFER_KEYS_MAX]; /* of those that are missing, in order */
    size_t n_parts;
};

static slice tenant_of(const struct sched_offer *o)
{
    return (slice){o->tenant, sizeof o->tenant};
}

/* ---- the end ---- */

static void let_go(struct offering *o, bool sent)
{
    transfer *t = o->t;
    for (size_t i = 0; i < o->n_parts; i++)
        shared_unref(o->parts[i]);
    for (uint32_t i = 0; i < o->n; i++)
        t->ops.offer_end(t->ops.ctx, &o->blocks[i], sent && o->missing >> i & 1);
    log_debug("offered", LOG_U64("blocks", o->n),
              LOG_U64("sent", sent ? o->n_parts / t->parts : 0));
    t->going = NULL;
    free(o);
}

static void on_put(void *ctx, int err, const struct wire_msg *m UNUSED, const struct why *w UNUSED)
{
    let_go(ctx, err >= 0);
}

/* ---- sending ---- */

static int send_parts(struct offering *o)
{
    transfer *t = o->t;
    arena *a = arena_new(0);
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    Nunchi__BlobPuts puts = NUNCHI__BLOB_PUTS__INIT;
    puts.puts = arena_get(a, o->n_parts * sizeof *puts.puts);
    for (uint32_t i = 0; i < o->n; i++)
        for (uint32_t p = 0; (o->missing >> i & 1) && p < t->parts; p++) {
            Nunchi__BlobPut *put = arena_get(a, sizeof *put);
            nunchi__blob_put__init(put);
            put->key = transfer_key(a, t, tenant_of(&o->blocks[i]), &o->blocks[i].hash,
                                    &o->blocks[i].group, p);
            puts.puts[puts.n_puts++] = put;
        }
    q.op_case = NUNCHI__CACHE_REQUEST__OP_PUTS;
    q.puts = &puts;
    int e = transfer_ask(t, &o->blocks[0].group, &q, o->parts, o->n_parts, on_put, o);
    arena_free(a);
    return e;
}

static void on_sealed(void *ctx)
{
    struct offering *o = ctx;
    bool all = o->n_parts > 0; /* none: there was no memory */
    o->t->sealing = false;
    if (o->t->closing || !all || send_parts(o) < 0)
        let_go(o, false);
}

/* ---- sealing, on the mover's thread ---- */

static bool seal_part(struct offering *o, const struct sched_offer *b, const char *whole,
                      uint32_t part)
{
    size_t n = kvbox_part_bytes(o->t->block_bytes, part);
    shared *s = shared_new(KVBOX_HEAD_BYTES + n);
    if (!s)
        return false;
    memcpy(shared_bytes(s) + KVBOX_HEAD_BYTES, whole + (size_t)part * KVBOX_PART_BYTES, n);
    kvbox_seal(shared_bytes(s), n, &b->hash, &o->t->detail, part);
    o->parts[o->n_parts++] = s;
    return true;
}

static bool seal_block(struct offering *o, const struct sched_offer *b)
{
    transfer *t = o->t;
    if (t->parts == 1) { /* straight into what is sent */
        shared *s = shared_new(KVBOX_HEAD_BYTES + t->block_bytes);
        if (!s || engine_block_export(t->e, b->block, shared_bytes(s) + KVBOX_HEAD_BYTES,
                                      t->block_bytes) < 0) {
            shared_unref(s);
            return false;
        }
        kvbox_seal(shared_bytes(s), t->block_bytes, &b->hash, &t->detail, 0);
        o->parts[o->n_parts++] = s;
        return true;
    }
    char *whole = malloc(t->block_bytes);
    bool ok = whole && engine_block_export(t->e, b->block, whole, t->block_bytes) == 0;
    for (uint32_t p = 0; ok && p < t->parts; p++)
        ok = seal_part(o, b, whole, p);
    free(whole);
    return ok;
}

static void seal(void *ctx)
{
    struct offering *o = ctx;
    transfer_step_aside();
    bool ok = true;
    for (uint32_t i = 0; ok && i < o->n; i++)
        if (o->missing >> i & 1)
            ok = seal_block(o, &o->blocks[i]);
    if (ok)
        return;
    while (o->n_parts > 0)
        shared_unref(o->parts[--o->n_parts]);
}

/* ---- asking what is there ---- */

static void on_present(void *ctx, int err, const struct wire_msg *m, const struct why *w UNUSED)
{
    struct offering *o = ctx;
    transfer *t = o->t;
    arena *a = arena_new(REPLY_ARENA_BYTES);
    Nunchi__CacheReply *r = NULL;
    const uint64_t all = o->n == 64 ? UINT64_MAX : ((uint64_t)1 << o->n) - 1;
    if (err >= 0 && m && transfer_unpack(a, m, &r) == 0 &&
        r->op_case == NUNCHI__CACHE_REPLY__OP_PRESENT)
        o->missing = ~r->present->mask & all;
    arena_free(a);
    t->sealing = !t->closing && o->missing && workq_add(t->mover, 1, seal, on_sealed, o) == 0;
    if (!t->sealing)
        let_go(o, false);
}

/* Whether a block is there is asked of its first part. */
static int ask_present(struct offering *o)
{
    transfer *t = o->t;
    arena *a = arena_new(0);
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    Nunchi__BlobHave have = NUNCHI__BLOB_HAVE__INIT;
    have.keys = arena_get(a, o->n * sizeof *have.keys);
    for (uint32_t i = 0; i < o->n; i++)
        have.keys[have.n_keys++] = transfer_key(a, t, tenant_of(&o->blocks[i]), &o->blocks[i].hash,
                                                &o->blocks[i].group, 0);
    q.op_case = NUNCHI__CACHE_REQUEST__OP_HAVE;
    q.have = &have;
    int e = transfer_ask(t, &o->blocks[0].group, &q, NULL, 0, on_present, o);
    arena_free(a);
    return e;
}

static bool next_offer(transfer *t, struct sched_offer *out)
{
    if (t->has_next) {
        *out = t->next;
        t->has_next = false;
        return true;
    }
    return t->ops.offer_next(t->ops.ctx, out);
}

/* Blocks of one group, as many as a message carries. */
static struct offering *gather(transfer *t)
{
    struct sched_offer one;
    if (!next_offer(t, &one))
        return NULL;
    struct offering *o = xcalloc(1, sizeof *o);
    o->t = t;
    o->blocks[o->n++] = one;
    while (o->n < t->blocks_per_ask && next_offer(t, &one)) {
        if (!digest_eq(&one.group, &o->blocks[0].group)) {
            t->next = one;
            t->has_next = true;
            break;
        }
        o->blocks[o->n++] = one;
    }
    return o;
}

void offering_start(transfer *t)
{
    if (t->going || links_n_up(t->ls) == 0)
        return;
    struct offering *o = gather(t);
    if (!o)
        return;
    t->going = o;
    if (ask_present(o) < 0)
        let_go(o, false);
}

void offering_clear(transfer *t)
{
    if (t->going)
        let_go(t->going, false);
    if (t->has_next)
        t->ops.offer_end(t->ops.ctx, &t->next, false);
    t->has_next = false;
}
