#include "cache-svc/core_int.h"

#include <stdio.h>

/* An honest request is a few kilobytes; 64 keys are 10. */
#define REQUEST_ARENA_BYTES ((size_t)1 << 20)

/* ---- names
 * ----------------------------------------------------------------------------------------------------------------
 */

slice name_hex(arena *a, slice bytes)
{
    char *p = arena_get(a, bytes.n * 2 + 1);
    hex_encode(bytes.p, bytes.n, p);
    return (slice){p, bytes.n * 2};
}

static slice name_of(arena *a, const char *kind, slice x, slice y)
{
    size_t n = 16 + x.n + 1 + y.n;
    char *p = arena_get(a, n + 1);
    int len = snprintf(p, n, "nunchi:1:%s:%.*s%s%.*s", kind, (int)x.n, x.p, y.n ? ":" : "",
                       (int)y.n, y.p);
    CHECK(len > 0 && (size_t)len < n);
    return (slice){p, (size_t)len};
}

slice name_files(arena *a, slice tenant_hex)
{
    return name_of(a, "f", tenant_hex, slice_str(""));
}

slice name_contents(arena *a, slice tenant_hex)
{
    return name_of(a, "c", tenant_hex, slice_str(""));
}

slice name_owned(arena *a, slice tenant_hex, slice content_hex)
{
    return name_of(a, "o", tenant_hex, content_hex);
}

slice name_blob(arena *a, const Nunchi__BlobKey *k)
{
    char kind[8];
    snprintf(kind, sizeof kind, "b%d", (int)k->space);
    slice key = name_hex(a, pb_slice(k->key));
    if (k->detail.len)
        key = name_of(a, "", key, name_hex(a, pb_slice(k->detail)));
    if (k->part)
        key = name_of(a, "", key, name_number(a, k->part));
    return name_of(a, kind, name_hex(a, pb_slice(k->tenant)), key);
}

slice name_number(arena *a, uint64_t v)
{
    char *p = arena_get(a, 24);
    int n = snprintf(p, 24, "%llu", (unsigned long long)v);
    return (slice){p, (size_t)n};
}

/* ---- operations
 * ------------------------------------------------------------------------------------------------------------
 */

static void op_free(struct op *op)
{
    cache_core *c = op->c;
    for (size_t i = 0; i < op->n_slots; i++) {
        if (!op->slots[i].value)
            continue;
        c->held_bytes -= shared_slice(op->slots[i].value).n;
        shared_unref(op->slots[i].value);
    }
    list_remove(&op->link);
    c->n_ops--;
    arena_free(op->in);
    arena_free(op->a);
    free(op);
}

void op_done(struct op *op, const Nunchi__CacheReply *r, shared *const *values, size_t n_values)
{
    if (!op->silent)
        op->c->out.done(op->c->out.ctx, &op->asker, r, values, n_values);
    op_free(op);
}

void op_said(struct op *op, bool existed)
{
    Nunchi__Done done;
    Nunchi__CacheReply r;
    nunchi__done__init(&done);
    nunchi__cache_reply__init(&r);
    done.existed = existed;
    r.op_case = NUNCHI__CACHE_REPLY__OP_DONE;
    r.done = &done;
    op_done(op, &r, NULL, 0);
}

void op_failed(struct op *op, int err)
{
    if (!op->why.text[0])
        why_set(&op->why, err, "", "%s",
                err == ERR_UNAVAILABLE ? "the store of files is away; try again later"
                                       : err_text(err));
    if (!op->silent)
        op->c->out.failed(op->c->out.ctx, &op->asker, err, &op->why);
    op_free(op);
}

int op_send(struct op *op, enum store_line line, const slice *argv, size_t n, store_fn fn)
{
    int e = op->c->st.send(op->c->st.ctx, line, argv, n, fn, op);
    if (e < 0)
        op_failed(op, e == ERR_BUSY ? ERR_BUSY : ERR_UNAVAILABLE);
    return e;
}

static void dispatch(struct op *op, const struct wire_msg *m)
{
    switch (op->q->op_case) {
    case NUNCHI__CACHE_REQUEST__OP_GET:
        blob_get(op, op->q->get);
        break;
    case NUNCHI__CACHE_REQUEST__OP_PUT:
        blob_put(op, op->q->put, m);
        break;
    case NUNCHI__CACHE_REQUEST__OP_DELETE:
        blob_delete(op, op->q->delete_);
        break;
    case NUNCHI__CACHE_REQUEST__OP_PUTS:
        blob_puts(op, op->q->puts, m);
        break;
    case NUNCHI__CACHE_REQUEST__OP_HAVE:
        blob_have(op, op->q->have);
        break;
    case NUNCHI__CACHE_REQUEST__OP_FILE_PUT:
    case NUNCHI__CACHE_REQUEST__OP_FILE_GET:
    case NUNCHI__CACHE_REQUEST__OP_FILE_LIST:
    case NUNCHI__CACHE_REQUEST__OP_FILE_DELETE:
    case NUNCHI__CACHE_REQUEST__OP_FILE_PROGRESS:
        file_op(op);
        break;
    default:
        why_set(&op->why, ERR_UNSUPPORTED, "op", "an operation that this version does not know");
        op_failed(op, ERR_UNSUPPORTED);
    }
}

void cache_core_request(cache_core *c, uint64_t from, const struct wire_msg *m,
                        uint64_t now_unix_ms, uint64_t now_us)
{
    struct op *op = xcalloc(1, sizeof *op);
    void *v;
    c->now_ms = now_unix_ms;
    op->c = c;
    op->asker = (struct cache_asker){.from = from, .head = m->head, .began_us = now_us};
    op->in = arena_new(REQUEST_ARENA_BYTES);
    op->a = arena_new(0);
    list_append(&c->ops, &op->link);
    if (++c->n_ops > CACHE_OPS_MAX) {
        why_set(&op->why, ERR_BUSY, "", "more than %d requests at once", CACHE_OPS_MAX);
        op_failed(op, ERR_BUSY);
        return;
    }
    int e =
        pb_unpack(op->in, &nunchi__cache_request__descriptor, m->body, WIRE_BODY_MAX, &v, &op->why);
    if (e < 0) {
        op_failed(op, e);
        return;
    }
    op->q = v;
    dispatch(op, m);
}

void cache_core_cancel(cache_core *c, uint64_t from, const struct wire_head *h)
{
    LIST_EACH(it, &c->ops)
    {
        struct op *op = CONTAINER_OF(it, struct op, link);
        if (op->asker.from == from && op->asker.head.request == h->request &&
            op->asker.head.attempt == h->attempt)
            op->silent = true;
    }
}

void cache_core_gone(cache_core *c, uint64_t from)
{
    LIST_EACH(it, &c->ops)
    {
        struct op *op = CONTAINER_OF(it, struct op, link);
        if (op->asker.from == from)
            op->silent = true;
    }
}

/* ---- life
 * --------------------------------------------------------------------------------------------------------------------
 */

static size_t share_of(const struct cache_limits *lim, uint64_t budget)
{
    return (size_t)(budget / 100 * lim->tenant_percent);
}

cache_core *cache_core_new(const struct cache_limits *lim, const struct cache_store *st,
                           const struct cache_out *out)
{
    cache_core *c = xcalloc(1, sizeof *c);
    c->lim = *lim;
    c->st = *st;
    c->out = *out;
    c->ram = ram_tier_new((size_t)lim->ram_bytes, share_of(lim, lim->ram_bytes));
    c->kv = ram_tier_new((size_t)lim->kv_ram_bytes, share_of(lim, lim->kv_ram_bytes));
    list_init(&c->ops);
    return c;
}

void cache_core_free(cache_core *c)
{
    if (!c)
        return;
    CHECK(list_empty(&c->ops) && !c->sweep);
    ram_tier_free(c->ram);
    ram_tier_free(c->kv);
    free(c);
}

size_t cache_core_running(const cache_core *c)
{
    return c->n_ops;
}

bool cache_core_idle(const cache_core *c)
{
    return c->n_ops == 0 && !c->sweep;
}

struct cache_counts cache_core_counts(const cache_core *c)
{
    struct cache_counts n = c->counts;
    n.kv.evicted = ram_tier_evicted(c->kv);
    return n;
}

size_t cache_core_ram_bytes(const cache_core *c)
{
    return ram_tier_bytes(c->ram);
}

size_t cache_core_kv_bytes(const cache_core *c)
{
    return ram_tier_bytes(c->kv);
}
