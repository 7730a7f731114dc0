#include "cache-svc/core_int.h"

#include "cache-svc/sealed.h"
#include "common/base/log.h"

/* What one answer may carry: a message, less its header and body. */
#define ANSWER_BYTES_MAX (WIRE_MESSAGE_MAX - (64u << 10))
#define DAY_S 86400
#define TTL_MAX_S (30u * DAY_S)

static bool durable(Nunchi__Space s)
{
    return s == NUNCHI__SPACE__NOTES || s == NUNCHI__SPACE__FRAME || s == NUNCHI__SPACE__THUMB;
}

int blob_check_key(const Nunchi__BlobKey *k, struct why *w)
{
    if (!k)
        return why_set(w, ERR_INVALID, "key", "a key is missing");
    switch (k->space) {
    case NUNCHI__SPACE__RESULT:
    case NUNCHI__SPACE__NOTES:
    case NUNCHI__SPACE__FRAME:
    case NUNCHI__SPACE__THUMB:
    case NUNCHI__SPACE__KV:
        break;
    case NUNCHI__SPACE__SPACE_NONE:
        return why_set(w, ERR_INVALID, "key.space", "which space?");
    default:
        return why_set(w, ERR_UNSUPPORTED, "key.space", "this space is not served yet");
    }
    if (k->tenant.len != 32 || k->key.len != 32 || (k->detail.len != 0 && k->detail.len != 32))
        return why_set(w, ERR_INVALID, "key", "tenant and key have 32 bytes each, detail 0 or 32");
    if (k->space != NUNCHI__SPACE__KV && (k->part || k->group.len))
        return why_set(w, ERR_INVALID, "key", "only KV blocks have parts and groups");
    if (k->part > KV_PART_LAST || (k->group.len != 0 && k->group.len != 32))
        return why_set(w, ERR_INVALID, "key", "part is at most %d, group has 0 or 32 bytes",
                       KV_PART_LAST);
    return 0;
}

static uint64_t ram_end(const cache_core *c, Nunchi__Space space, uint64_t expires_ms)
{
    if (durable(space))
        return c->now_ms + RAM_DURABLE_MS;
    return expires_ms ? expires_ms : UINT64_MAX;
}

/* ---- get
 * --------------------------------------------------------------------------------------------------------------------
 */

bool blob_is_kv(const Nunchi__BlobKey *k)
{
    return k->space == NUNCHI__SPACE__KV;
}

int blob_store_send(cache_core *c, const Nunchi__BlobKey *k, const slice *argv, size_t n,
                    store_fn fn, void *ctx)
{
    if (!blob_is_kv(k))
        return c->st.send(c->st.ctx, STORE_BULK, argv, n, fn, ctx);
    if (!c->st.send_kv)
        return ERR_UNAVAILABLE;
    slice group = k->group.len ? pb_slice(k->group) : pb_slice(k->key);
    return c->st.send_kv(c->st.ctx, group, argv, n, fn, ctx);
}

/* Of a chain, what comes after a miss is of no use. */
static void answer_values(struct op *op)
{
    Nunchi__BlobValues values;
    Nunchi__CacheReply r;
    shared *list[CACHE_KEYS_MAX];
    uint32_t index[CACHE_KEYS_MAX] = {0}, n = 0;
    size_t bytes = 0;
    nunchi__blob_values__init(&values);
    nunchi__cache_reply__init(&r);
    for (size_t i = 0; i < op->n_slots; i++) {
        shared *v = op->slots[i].value;
        if (!v || bytes + shared_slice(v).n > ANSWER_BYTES_MAX) {
            if (op->q->get->prefix)
                break;
            continue;
        }
        bytes += shared_slice(v).n;
        list[n] = v;
        index[i] = ++n;
    }
    values.n_frame = op->n_slots;
    values.frame = index;
    values.degraded = op->degraded;
    r.op_case = NUNCHI__CACHE_REPLY__OP_VALUES;
    r.values = &values;
    op_done(op, &r, list, n);
}

static void hold(struct op *op, struct blob_slot *s, shared *value)
{
    cache_core *c = op->c;
    size_t n = shared_slice(value).n;
    if (c->held_bytes + n > CACHE_HELD_MAX)
        return; /* a miss */
    s->value = shared_ref(value);
    c->held_bytes += n;
}

shared *blob_copy(slice bytes)
{
    shared *v = bytes.n <= WIRE_FRAME_MAX ? shared_new(bytes.n) : NULL;
    if (v && bytes.n)
        memcpy(shared_bytes(v), bytes.p, bytes.n);
    return v;
}

static void on_nothing(void *ctx UNUSED, const struct store_reply *r UNUSED)
{
}

/* A value that is not what it says it is does not stay. */
static void remove_damaged(cache_core *c, const Nunchi__BlobKey *k, slice name)
{
    const slice argv[] = {SLICE_LIT("UNLINK"), name};
    c->counts.damaged++;
    log_warn("a damaged value in the store was removed", LOG_U64("damaged", c->counts.damaged));
    if (blob_store_send(c, k, argv, 2, on_nothing, NULL) < 0)
        log_debug("it will be found again");
}

/* The value without its seal: the very bytes that were read. */
static shared *unsealed(const struct store_reply *r, slice bytes)
{
    if (!r->value)
        return blob_copy(bytes);
    if (bytes.n > WIRE_FRAME_MAX)
        return NULL;
    shared_narrow(r->value, bytes);
    return shared_ref(r->value);
}

static void take_value(struct op *op, struct blob_slot *s, const Nunchi__BlobKey *k,
                       const struct store_reply *r)
{
    cache_core *c = op->c;
    slice bytes;
    uint64_t expires;
    int e = sealed_get(r->bytes, s->name, c->now_ms, &bytes, &expires);
    if (e == ERR_PROTO)
        remove_damaged(c, k, s->name);
    shared *v = e == 0 ? unsealed(r, bytes) : NULL;
    if (!v)
        return;
    hold(op, s, v);
    ram_tier_put(blob_is_kv(k) ? c->kv : c->ram, pb_slice(k->tenant), s->name, v,
                 ram_end(c, k->space, expires));
    shared_unref(v);
}

static void on_value(void *ctx, const struct store_reply *r)
{
    struct blob_slot *s = ctx;
    struct op *op = s->op;
    cache_core *c = op->c;
    const Nunchi__BlobKey *k = op->q->get->keys[s - op->slots];
    if (r->err == ERR_UNAVAILABLE)
        op->degraded = true;
    if (r->err == 0 && r->bytes.n)
        take_value(op, s, k, r);
    uint64_t *hits = blob_is_kv(k) ? &c->counts.kv.hits_store : &c->counts.hits_store;
    uint64_t *misses = blob_is_kv(k) ? &c->counts.kv.misses : &c->counts.misses;
    ++*(s->value ? hits : misses);
    if (--op->waiting == 0)
        answer_values(op);
}

static void look_up(struct op *op, struct blob_slot *s)
{
    cache_core *c = op->c;
    const Nunchi__BlobKey *k = op->q->get->keys[s - op->slots];
    shared *v = ram_tier_get(blob_is_kv(k) ? c->kv : c->ram, s->name, c->now_ms);
    if (v) {
        hold(op, s, v);
        ++*(blob_is_kv(k) ? &c->counts.kv.hits_ram : &c->counts.hits_ram);
        return;
    }
    /* GETRANGE rather than GET: whatever lies there, no more than this comes back. One byte more
     * shows what is too long. */
    static const char last[] =
        "1049600"; /* WIRE_FRAME_MAX + SEALED_HEAD_BYTES + SEALED_KEY_MAX, rounded up */
    _Static_assert(WIRE_FRAME_MAX + SEALED_HEAD_BYTES + SEALED_KEY_MAX < 1049600,
                   "the range holds the largest value");
    const slice argv[] = {SLICE_LIT("GETRANGE"), s->name, SLICE_LIT("0"), slice_str(last)};
    int e = blob_store_send(c, k, argv, ARRAY_LEN(argv), on_value, s);
    if (e < 0) {
        op->degraded |= !blob_is_kv(k) || c->st.send_kv;
        ++*(blob_is_kv(k) ? &c->counts.kv.misses : &c->counts.misses);
    } else {
        op->waiting++;
    }
}

void blob_get(struct op *op, const Nunchi__BlobGet *q)
{
    if (q->n_keys < 1 || q->n_keys > CACHE_KEYS_MAX) {
        why_set(&op->why, ERR_TOO_BIG, "keys", "%zu keys, 1 to %d are allowed", q->n_keys,
                CACHE_KEYS_MAX);
        op_failed(op, q->n_keys ? ERR_TOO_BIG : ERR_INVALID);
        return;
    }
    for (size_t i = 0; i < q->n_keys; i++) {
        int e = blob_check_key(q->keys[i], &op->why);
        if (e < 0) {
            op_failed(op, e);
            return;
        }
    }
    op->slots = arena_get(op->a, q->n_keys * sizeof *op->slots);
    op->n_slots = q->n_keys;
    op->waiting = 1; /* our own hold, so that the first answer cannot be the last */
    for (size_t i = 0; i < q->n_keys; i++) {
        op->slots[i] = (struct blob_slot){.op = op, .name = name_blob(op->a, q->keys[i])};
        look_up(op, &op->slots[i]);
    }
    if (--op->waiting == 0)
        answer_values(op);
}

/* ---- put
 * --------------------------------------------------------------------------------------------------------------------
 */

/* KEYS: blob, its owners, what the owner has, the tenant's contents, all tenants. A blob, a black
 * frame say, may belong to several videos: it goes with the last of them. */
static const char PUT_SCRIPT[] = "redis.call('SET',KEYS[1],ARGV[1]) "
                                 "redis.call('SADD',KEYS[2],ARGV[2]) "
                                 "redis.call('SADD',KEYS[3],KEYS[1]) "
                                 "redis.call('ZADD',KEYS[4],ARGV[3],ARGV[2]) "
                                 "redis.call('SADD',KEYS[5],ARGV[4]) "
                                 "return 1";

static void on_put(void *ctx, const struct store_reply *r)
{
    struct op *op = ctx;
    cache_core *c = op->c;
    if (r->err < 0) {
        ram_tier_del(c->ram, name_blob(op->a, op->q->put->key));
        op_failed(op, ERR_UNAVAILABLE);
        return;
    }
    c->counts.puts++;
    op_said(op, false);
}

static int put_durable(struct op *op, slice name, slice sealed, slice owner)
{
    arena *a = op->a;
    slice tenant = name_hex(a, pb_slice(op->q->put->key->tenant)), content = name_hex(a, owner);
    char *owners = arena_get(a, name.n + 3);
    memcpy(owners, name.p, name.n);
    memcpy(owners + name.n, ":o", sizeof ":o");
    const slice argv[] = {SLICE_LIT("EVAL"),
                          slice_str(PUT_SCRIPT),
                          SLICE_LIT("5"),
                          name,
                          {owners, name.n + 2},
                          name_owned(a, tenant, content),
                          name_contents(a, tenant),
                          SLICE_LIT(NAME_TENANTS),
                          sealed,
                          content,
                          name_number(a, op->c->now_ms),
                          tenant};
    return op_send(op, STORE_BULK, argv, ARRAY_LEN(argv), on_put);
}

/* A cache entry may be forgotten: it is not waited for. */
static void on_cached(void *ctx, const struct store_reply *r)
{
    cache_core *c = ctx;
    ++*(r->err < 0 ? &c->counts.puts_dropped : &c->counts.puts);
}

static void on_kv_cached(void *ctx, const struct store_reply *r)
{
    cache_core *c = ctx;
    ++*(r->err < 0 ? &c->counts.kv.puts_dropped : &c->counts.kv.puts);
}

void blob_cache(struct op *op, const Nunchi__BlobPut *q, slice value)
{
    cache_core *c = op->c;
    bool kv = blob_is_kv(q->key);
    uint64_t ttl_s = q->ttl_s && q->ttl_s < TTL_MAX_S ? q->ttl_s
                     : kv                             ? c->lim.kv_ttl_s
                                                      : c->lim.result_ttl_s;
    uint64_t expires = c->now_ms + ttl_s * 1000;
    slice name = name_blob(op->a, q->key);
    shared *v = blob_copy(value);
    if (v)
        ram_tier_put(kv ? c->kv : c->ram, pb_slice(q->key->tenant), name, v,
                     ram_end(c, q->key->space, expires));
    shared_unref(v);
    if (kv && !c->st.send_kv)
        return;
    buf sealed = {0};
    sealed_put(&sealed, name, value, expires);
    const slice argv[] = {SLICE_LIT("SET"), name, buf_slice(&sealed), SLICE_LIT("EX"),
                          name_number(op->a, ttl_s)};
    if (blob_store_send(c, q->key, argv, ARRAY_LEN(argv), kv ? on_kv_cached : on_cached, c) < 0)
        ++*(kv ? &c->counts.kv.puts_dropped : &c->counts.puts_dropped);
    buf_clear(&sealed);
}

static int keep_durable(struct op *op, const Nunchi__BlobPut *q, slice value)
{
    slice name = name_blob(op->a, q->key);
    buf sealed = {0};
    sealed_put(&sealed, name, value, 0);
    int e = put_durable(op, name, buf_slice(&sealed), pb_slice(q->owner));
    shared *v = e == 0 ? blob_copy(value) : NULL;
    if (v)
        ram_tier_put(op->c->ram, pb_slice(q->key->tenant), name, v,
                     ram_end(op->c, q->key->space, 0));
    shared_unref(v);
    buf_clear(&sealed);
    return e;
}

bool blob_is_durable(const Nunchi__BlobKey *k)
{
    return durable(k->space);
}

void blob_put(struct op *op, const Nunchi__BlobPut *q, const struct wire_msg *m)
{
    int e = blob_check_key(q->key, &op->why);
    if (e == 0 && (m->n_frames != 1 || !m->frames[0].n))
        e = why_set(&op->why, ERR_INVALID, "value", "the value travels in one bulk frame");
    if (e == 0 && durable(q->key->space) && q->owner.len != 32)
        e = why_set(&op->why, ERR_INVALID, "owner",
                    "what is kept belongs to a video: its digest has 32 bytes");
    if (e < 0) {
        op_failed(op, e);
        return;
    }
    if (durable(q->key->space)) {
        (void)keep_durable(op, q, m->frames[0]); /* answers when it is kept, or has answered */
        return;
    }
    blob_cache(op, q, m->frames[0]);
    op_said(op, false);
}

/* ---- delete
 * ------------------------------------------------------------------------------------------------------------------
 */

static void on_deleted(void *ctx, const struct store_reply *r)
{
    struct op *op = ctx;
    if (r->err < 0)
        op_failed(op, ERR_UNAVAILABLE);
    else
        op_said(op, r->number > 0);
}

void blob_delete(struct op *op, const Nunchi__BlobDelete *q)
{
    int e = blob_check_key(q->key, &op->why);
    if (e < 0) {
        op_failed(op, e);
        return;
    }
    const slice argv[] = {SLICE_LIT("UNLINK"), name_blob(op->a, q->key)};
    ram_tier_del(blob_is_kv(q->key) ? op->c->kv : op->c->ram, argv[1]);
    if (!blob_is_kv(q->key))
        op_send(op, STORE_SMALL, argv, 2, on_deleted);
    else if (blob_store_send(op->c, q->key, argv, 2, on_deleted, op) < 0)
        op_said(op, false); /* it was nowhere else */
}
