/* Many cache entries at once: what a worker that has computed a prompt puts, and first asks for. */
#include "cache-svc/core_int.h"

static int check_puts(const Nunchi__BlobPuts *q, const struct wire_msg *m, struct why *w)
{
    if (q->n_puts < 1 || q->n_puts > CACHE_KEYS_MAX)
        return why_set(w, ERR_INVALID, "puts", "%zu entries, 1 to %d are allowed", q->n_puts,
                       CACHE_KEYS_MAX);
    if (m->n_frames != q->n_puts)
        return why_set(w, ERR_INVALID, "puts", "each value travels in a bulk frame of its own");
    for (size_t i = 0; i < q->n_puts; i++) {
        int e = blob_check_key(q->puts[i]->key, w);
        if (e < 0)
            return e;
        if (blob_is_durable(q->puts[i]->key) || !m->frames[i].n)
            return why_set(w, ERR_INVALID, "puts", "these are for cache entries, and not empty");
    }
    return 0;
}

void blob_puts(struct op *op, const Nunchi__BlobPuts *q, const struct wire_msg *m)
{
    int e = check_puts(q, m, &op->why);
    if (e < 0) {
        op_failed(op, e);
        return;
    }
    for (size_t i = 0; i < q->n_puts; i++)
        blob_cache(op, q->puts[i], m->frames[i]);
    op_said(op, false);
}

/* ---- have ---- */

static void answer_present(struct op *op)
{
    Nunchi__BlobPresent present = NUNCHI__BLOB_PRESENT__INIT;
    Nunchi__CacheReply r = NUNCHI__CACHE_REPLY__INIT;
    present.mask = op->present;
    r.op_case = NUNCHI__CACHE_REPLY__OP_PRESENT;
    r.present = &present;
    op_done(op, &r, NULL, 0);
}

static void on_exists(void *ctx, const struct store_reply *r)
{
    struct blob_slot *s = ctx;
    struct op *op = s->op;
    if (r->err == 0 && r->number > 0)
        op->present |= (uint64_t)1 << (s - op->slots);
    if (--op->waiting == 0)
        answer_present(op);
}

static void look_for(struct op *op, struct blob_slot *s, const Nunchi__BlobKey *k)
{
    cache_core *c = op->c;
    const slice argv[] = {SLICE_LIT("EXISTS"), s->name};
    if (ram_tier_has(blob_is_kv(k) ? c->kv : c->ram, s->name, c->now_ms))
        op->present |= (uint64_t)1 << (s - op->slots);
    else if (blob_store_send(c, k, argv, ARRAY_LEN(argv), on_exists, s) == 0)
        op->waiting++;
}

void blob_have(struct op *op, const Nunchi__BlobHave *q)
{
    int e = 0;
    if (q->n_keys < 1 || q->n_keys > CACHE_KEYS_MAX)
        e = why_set(&op->why, ERR_INVALID, "keys", "%zu keys, 1 to %d are allowed", q->n_keys,
                    CACHE_KEYS_MAX);
    for (size_t i = 0; e == 0 && i < q->n_keys; i++)
        e = blob_check_key(q->keys[i], &op->why);
    if (e < 0) {
        op_failed(op, e);
        return;
    }
    op->slots = arena_get(op->a, q->n_keys * sizeof *op->slots);
    op->n_slots = q->n_keys;
    op->waiting = 1; /* our own hold */
    for (size_t i = 0; i < q->n_keys; i++) {
        op->slots[i] = (struct blob_slot){.op = op, .name = name_blob(op->a, q->keys[i])};
        look_for(op, &op->slots[i], q->keys[i]);
    }
    if (--op->waiting == 0)
        answer_present(op);
}
