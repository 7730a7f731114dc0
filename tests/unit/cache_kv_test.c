/* KV blocks in the cache's core: many at once, chains that end at the first miss, parts and groups,
 * and what is beyond the limits. No sockets, and a store that the test plays. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cache-svc/core.h"
#include "common/wire/pb.h"

#define KEYS (CACHE_KEYS_MAX + 1)

struct bench {
    cache_core *c;
    int err; /* of the last answer */
    struct why why;
    uint32_t frame[KEYS];
    size_t n_frame, n_values, store_gets, store_sets;
    uint64_t present;
    struct {
        store_fn fn;
        void *ctx;
    } waiting[2 * KEYS]; /* for the store */
    size_t n_waiting;
    buf first; /* its first value */
};

static uint8_t tenant[32], names[KEYS][32], detail[32], group[33];
static Nunchi__BlobKey keys[KEYS], *key_list[KEYS];

static void done(void *ctx, const struct cache_asker *to, const Nunchi__CacheReply *r,
                 shared *const *values, size_t n_values)
{
    struct bench *t = ctx;
    (void)to;
    t->n_values = n_values;
    buf_reset(&t->first);
    if (n_values)
        buf_put_slice(&t->first, shared_slice(values[0]));
    if (r->op_case == NUNCHI__CACHE_REPLY__OP_VALUES) {
        t->n_frame = r->values->n_frame;
        memcpy(t->frame, r->values->frame, t->n_frame * sizeof *t->frame);
    } else if (r->op_case == NUNCHI__CACHE_REPLY__OP_PRESENT) {
        t->present = r->present->mask;
    }
}

static void failed(void *ctx, const struct cache_asker *to, int err, const struct why *w)
{
    struct bench *t = ctx;
    (void)to;
    t->err = err;
    t->why = *w;
}

static int send_nowhere(void *ctx, enum store_line line, const slice *argv, size_t n, store_fn fn,
                        void *fn_ctx)
{
    (void)ctx, (void)line, (void)argv, (void)n, (void)fn, (void)fn_ctx;
    return ERR_UNAVAILABLE;
}

/* A store that has nothing, and says so later, as stores do. */
static int send_kv(void *ctx, slice g, const slice *argv, size_t n, store_fn fn, void *fn_ctx)
{
    struct bench *t = ctx;
    (void)n;
    assert_int_equal(g.n, 32);
    t->store_gets += slice_eq_str(argv[0], "GETRANGE");
    t->store_sets += slice_eq_str(argv[0], "SET");
    t->waiting[t->n_waiting].fn = fn;
    t->waiting[t->n_waiting++].ctx = fn_ctx;
    return 0;
}

static void bench_open(struct bench *t)
{
    *t = (struct bench){0};
    struct cache_limits lim = {
        .kv_ram_bytes = 1 << 20, .tenant_percent = 50, .kv_ttl_s = 10, .result_ttl_s = 10};
    struct cache_store st = {.ctx = t, .send = send_nowhere, .send_kv = send_kv};
    struct cache_out out = {.ctx = t, .done = done, .failed = failed};
    t->c = cache_core_new(&lim, &st, &out);
    for (size_t i = 0; i < KEYS; i++) {
        names[i][0] = (uint8_t)i;
        nunchi__blob_key__init(&keys[i]);
        keys[i].space = NUNCHI__SPACE__KV;
        keys[i].tenant = pb_bytes((slice){(char *)tenant, 32});
        keys[i].key = pb_bytes((slice){(char *)names[i], 32});
        keys[i].detail = pb_bytes((slice){(char *)detail, 32});
        keys[i].group = pb_bytes((slice){(char *)group, 32});
        key_list[i] = &keys[i];
    }
}

static void bench_close(struct bench *t)
{
    buf_clear(&t->first);
    cache_core_free(t->c);
}

static int ask(struct bench *t, const Nunchi__CacheRequest *q, const slice *frames, size_t n)
{
    buf body = {0};
    pb_pack(&q->base, &body);
    struct wire_msg m = {
        .head = {.type = WIRE_REQUEST, .request = 1}, .body = buf_slice(&body), .n_frames = n};
    for (size_t i = 0; i < n; i++)
        m.frames[i] = frames[i];
    t->err = 0;
    t->n_waiting = 0;
    cache_core_request(t->c, 1, &m, 1000, 0);
    for (size_t i = 0; i < t->n_waiting; i++)
        t->waiting[i].fn(t->waiting[i].ctx, &(struct store_reply){.nil = true});
    buf_clear(&body);
    return t->err;
}

static int put(struct bench *t, size_t from, size_t n, size_t n_frames)
{
    Nunchi__BlobPut puts[KEYS], *list[KEYS];
    slice frames[KEYS] = {{0}};
    Nunchi__BlobPuts p = NUNCHI__BLOB_PUTS__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    for (size_t i = 0; i < n; i++) {
        nunchi__blob_put__init(&puts[i]);
        puts[i].key = &keys[from + i];
        list[i] = &puts[i];
        frames[i] = (slice){(char *)names[from + i], 32};
    }
    p.puts = list;
    p.n_puts = n;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_PUTS;
    q.puts = &p;
    return ask(t, &q, frames, n_frames);
}

static int get(struct bench *t, size_t n, bool prefix)
{
    Nunchi__BlobGet g = NUNCHI__BLOB_GET__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    g.keys = key_list;
    g.n_keys = n;
    g.prefix = prefix;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &g;
    return ask(t, &q, NULL, 0);
}

static int have(struct bench *t, size_t n)
{
    Nunchi__BlobHave h = NUNCHI__BLOB_HAVE__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    h.keys = key_list;
    h.n_keys = n;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_HAVE;
    q.have = &h;
    return ask(t, &q, NULL, 0);
}

static void a_chain_ends_at_the_first_miss(void **state UNUSED)
{
    struct bench t;
    bench_open(&t);
    assert_int_equal(put(&t, 0, 3, 3), 0);
    assert_int_equal(put(&t, 4, 2, 2), 0); /* 3 is not there */
    assert_int_equal(t.store_sets, 5);
    assert_int_equal(have(&t, 6), 0);
    assert_true(t.present == 0x37);
    assert_int_equal(get(&t, 6, true), 0);
    assert_int_equal(t.n_values, 3);
    assert_int_equal(t.frame[2], 3);
    assert_int_equal(t.frame[3] | t.frame[4] | t.frame[5], 0);
    assert_int_equal(t.store_gets, 1); /* what is in memory is not asked of the store */
    assert_int_equal(get(&t, 6, false), 0);
    assert_int_equal(t.n_values, 5);
    bench_close(&t);
}

static void each_part_of_each_arithmetic_is_its_own(void **state UNUSED)
{
    struct bench t;
    bench_open(&t);
    assert_int_equal(put(&t, 0, 1, 1), 0);
    keys[0].part = 1;
    assert_int_equal(get(&t, 1, false), 0);
    assert_int_equal(t.n_values, 0);
    keys[0].part = 0;
    detail[0] = 9;
    assert_int_equal(get(&t, 1, false), 0);
    assert_int_equal(t.n_values, 0);
    detail[0] = 0;
    tenant[0] = 9;
    assert_int_equal(get(&t, 1, false), 0);
    assert_int_equal(t.n_values, 0);
    tenant[0] = 0;
    group[0] = 9; /* no part of the name */
    assert_int_equal(get(&t, 1, false), 0);
    assert_int_equal(t.n_values, 1);
    assert_memory_equal(t.first.p, names[0], 32);
    group[0] = 0;
    bench_close(&t);
}

static void beyond_the_limits(void **state UNUSED)
{
    struct bench t;
    bench_open(&t);
    assert_int_equal(put(&t, 0, CACHE_KEYS_MAX, CACHE_KEYS_MAX), 0);
    assert_int_equal(have(&t, CACHE_KEYS_MAX), 0);
    assert_true(t.present == UINT64_MAX);
    assert_int_equal(have(&t, KEYS), ERR_INVALID);
    assert_string_equal(t.why.field, "keys");
    assert_int_equal(have(&t, 0), ERR_INVALID);
    assert_int_equal(put(&t, 0, KEYS, KEYS), ERR_INVALID);
    assert_string_equal(t.why.field, "puts");
    assert_int_equal(put(&t, 0, 0, 0), ERR_INVALID);
    assert_int_equal(put(&t, 0, 2, 1), ERR_INVALID); /* a value is missing */
    assert_int_equal(get(&t, KEYS, true), ERR_TOO_BIG);
    keys[0].part = 255;
    assert_int_equal(get(&t, 1, true), 0);
    keys[0].part = 256;
    assert_int_equal(get(&t, 1, true), ERR_INVALID);
    assert_string_equal(t.why.field, "key");
    keys[0].part = 0;
    keys[0].group.len = 33;
    assert_int_equal(get(&t, 1, true), ERR_INVALID);
    keys[0].group.len = 32;
    keys[0].space = NUNCHI__SPACE__RESULT; /* has neither parts nor groups */
    assert_int_equal(get(&t, 1, true), ERR_INVALID);
    keys[0].group.len = 0;
    keys[0].space = NUNCHI__SPACE__NOTES; /* what must last is not put so */
    assert_int_equal(put(&t, 0, 1, 1), ERR_INVALID);
    bench_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_ends_at_the_first_miss),
        cmocka_unit_test(each_part_of_each_arithmetic_is_its_own),
        cmocka_unit_test(beyond_the_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
