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

static int check_key(const Nunchi__BlobKey *k, struct why *w)
{
    if (!k)
        return why_set(w, ERR_INVALID, "key", "a key is missing");
    switch (k->space) {
    case NUNCHI__SPACE__RESULT:
    case NUNCHI__SPACE__NOTES:
    case NUNCHI__SPACE__FRAME:
    case NUNCHI__SPACE__THUMB:
        break;
    case NUNCHI__SPACE__SPACE_NONE:
        return why_set(w, ERR_INVALID, "key.space", "which space?");
    default:
        return why_set(w, ERR_UNSUPPORTED, "key.space", "this space is not served yet");
    }
    if (k->tenant.len != 32 || k->key.len != 32 || (k->detail.len != 0 && k->detail.len != 32))
        return why_set(w, ERR_INVALID, "key", "tenant and key have 32 bytes each, detail 0 or 32");
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

static void answer_values(struct op *op)
{
    Nunchi__BlobValues values;
    Nunchi__CacheReply r;
    slice frames[CACHE_KEYS_MAX];
    uint32_t index[CACHE_KEYS_MAX] = {0}, n = 0;
    size_t bytes = 0;
    nunchi__blob_values__init(&values);
    nunchi__cache_reply__init(&r);
    for (size_t i = 0; i < op->n_slots; i++) {
        const struct blob_slot *s = &op->slots[i];
        if (!s->value || bytes + s->value_n > ANSWER_BYTES_MAX)
            continue;
        bytes += s->value_n;
        frames[n] = (slice){s->value, s->value_n};
        index[i] = ++n;
    }
    values.n_frame = op->n_slots;
    values.frame = index;
    values.degraded = op->degraded;
    r.op_case = NUNCHI__CACHE_REPLY__OP_VALUES;
    r.values = &values;
    op_done(op, &r, frames, n);
}

static void hold(struct op *op, struct blob_slot *s, slice value)
{
    cache_core *c = op->c;
    if (value.n > WIRE_FRAME_MAX || c->held_bytes + value.n > CACHE_HELD_MAX)
        return; /* a miss */
    s->value = malloc(value.n ? value.n : 1);
    if (!s->value)
        return;
    if (value.n)
        memcpy(s->value, value.p, value.n);
    s->value_n = value.n;
    c->held_bytes += value.n;
}

static void on_nothing(void *ctx UNUSED, const struct store_reply *r UNUSED)
{
}

/* A value that is not what it says it is does not stay. */
static void remove_damaged(cache_core *c, slice name)
{
    const slice argv[] = {SLICE_LIT("UNLINK"), name};
    c->counts.damaged++;
    log_warn("a damaged value in the store was removed", LOG_U64("damaged", c->counts.damaged));
    if (c->st.send(c->st.ctx, STORE_SMALL, argv, 2, on_nothing, NULL) < 0)
        log_debug("it will be found again");
}

static void on_value(void *ctx, const struct store_reply *r)
{
    struct blob_slot *s = ctx;
    struct op *op = s->op;
    cache_core *c = op->c;
    slice value;
    uint64_t expires;
    if (r->err == ERR_UNAVAILABLE)
        op->degraded = true;
    if (r->err == 0 && r->bytes.n) {
        int e = sealed_get(r->bytes, s->name, c->now_ms, &value, &expires);
        if (e == 0) {
            hold(op, s, value);
            ram_tier_put(c->ram, s->name, value,
                         ram_end(c, op->q->get->keys[s - op->slots]->space, expires));
        } else if (e == ERR_PROTO) {
            remove_damaged(c, s->name);
        }
    }
    if (s->value)
        c->counts.hits_store++;
    else
        c->counts.misses++;
    if (--op->waiting == 0)
        answer_values(op);
}

static void look_up(struct op *op, struct blob_slot *s)
{
    cache_core *c = op->c;
    slice value;
    if (ram_tier_get(c->ram, s->name, c->now_ms, &value)) {
        hold(op, s, value);
        c->counts.hits_ram++;
        return;
    }
    /* GETRANGE rather than GET: whatever lies there, no more than this comes back. One byte more
     * shows what is too long. */
    static const char last[] =
        "1049600"; /* WIRE_FRAME_MAX + SEALED_HEAD_BYTES + SEALED_KEY_MAX, rounded up */
    _Static_assert(WIRE_FRAME_MAX + SEALED_HEAD_BYTES + SEALED_KEY_MAX < 1049600,
                   "the range holds the largest value");
    const slice argv[] = {SLICE_LIT("GETRANGE"), s->name, SLICE_LIT("0"), slice_str(last)};
    int e = c->st.send(c->st.ctx, STORE_BULK, argv, ARRAY_LEN(argv), on_value, s);
    if (e < 0) {
        op->degraded = true;
        c->counts.misses++;
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
        int e = check_key(q->keys[i], &op->why);
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

/* An answer may be forgotten: it is not waited for. */
static void on_cached(void *ctx, const struct store_reply *r)
{
    cache_core *c = ctx;
    if (r->err < 0)
        c->counts.puts_dropped++;
    else
        c->counts.puts++;
}

static void put_cached(struct op *op, slice name, slice sealed, uint64_t ttl_s)
{
    cache_core *c = op->c;
    const slice argv[] = {SLICE_LIT("SET"), name, sealed, SLICE_LIT("EX"),
                          name_number(op->a, ttl_s)};
    if (c->st.send(c->st.ctx, STORE_BULK, argv, ARRAY_LEN(argv), on_cached, c) < 0)
        c->counts.puts_dropped++;
    op_said(op, false);
}

void blob_put(struct op *op, const Nunchi__BlobPut *q, const struct wire_msg *m)
{
    cache_core *c = op->c;
    int e = check_key(q->key, &op->why);
    if (e == 0 && (m->n_frames != 1 || !m->frames[0].n))
        e = why_set(&op->why, ERR_INVALID, "value", "the value travels in one bulk frame");
    if (e == 0 && durable(q->key->space) && q->owner.len != 32)
        e = why_set(&op->why, ERR_INVALID, "owner",
                    "what is kept belongs to a video: its digest has 32 bytes");
    if (e < 0) {
        op_failed(op, e);
        return;
    }
    bool keep = durable(q->key->space);
    uint64_t ttl_s = q->ttl_s && q->ttl_s < TTL_MAX_S ? q->ttl_s : c->lim.result_ttl_s;
    uint64_t expires = keep ? 0 : c->now_ms + ttl_s * 1000;
    slice name = name_blob(op->a, q->key);
    buf sealed = {0};
    sealed_put(&sealed, name, m->frames[0], expires);
    if (!keep) {
        ram_tier_put(c->ram, name, m->frames[0], ram_end(c, q->key->space, expires));
        put_cached(op, name, buf_slice(&sealed), ttl_s);
    } else if (put_durable(op, name, buf_slice(&sealed), pb_slice(q->owner)) == 0) {
        ram_tier_put(c->ram, name, m->frames[0], ram_end(c, q->key->space, 0));
    }
    buf_clear(&sealed);
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
    int e = check_key(q->key, &op->why);
    if (e < 0) {
        op_failed(op, e);
        return;
    }
    const slice argv[] = {SLICE_LIT("UNLINK"), name_blob(op->a, q->key)};
    ram_tier_del(op->c->ram, argv[1]);
    op_send(op, STORE_SMALL, argv, 2, on_deleted);
}
