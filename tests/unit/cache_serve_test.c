/* All of cache-svc over real sockets and a real Redis: what a gateway and a video worker ask of it,
 * and what happens while Redis is away. */
#include "tests/unit/cache_testing.h"

#include "cache-svc/core.h"
#include "cache-svc/serve.h"
#include "common/base/hash.h"
#include "common/wire/calls.h"
#include "common/wire/hub.h"
#include "common/wire/links.h"
#include "common/wire/pb.h"

#define TENANT SLICE_LIT("tttttttttttttttttttttttttttttttt")
#define OTHER_TENANT SLICE_LIT("oooooooooooooooooooooooooooooooo")
#define CONTENT_A SLICE_LIT("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
#define CONTENT_B SLICE_LIT("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")

struct bench {
    struct redis redis;
    loop *l;
    bus *b;
    cache_serve *serve;
    links *links; /* we, as a video worker */
    hub *gateway; /* we, as a gateway */
    hub_peer *cache_at_gateway;
    store *direct; /* past the service, to damage things */
    calls *calls;
    /* the last answer */
    int n, err;
    struct why why;
    arena *a;
    const Nunchi__CacheReply *reply;
    size_t n_frames;
    buf frames[CACHE_KEYS_MAX];
};

static void on_done(void *ctx, int err, const struct wire_msg *m, const struct why *why)
{
    struct bench *t = ctx;
    t->n++;
    t->err = err;
    t->reply = NULL;
    t->n_frames = 0;
    if (why)
        t->why = *why;
    if (err < 0)
        return;
    void *v;
    arena_reset(t->a);
    assert_int_equal(
        pb_unpack(t->a, &nunchi__cache_reply__descriptor, m->body, WIRE_BODY_MAX, &v, NULL), 0);
    t->reply = v;
    t->n_frames = m->n_frames;
    for (size_t i = 0; i < m->n_frames; i++) {
        buf_reset(&t->frames[i]);
        buf_put_slice(&t->frames[i], m->frames[i]);
    }
}

static void link_msg(void *ctx, peer_link *k, const struct wire_msg *m)
{
    calls_msg(((struct bench *)ctx)->calls, 0, link_id(k), m);
}
static void gateway_up(void *ctx, hub_peer *p)
{
    ((struct bench *)ctx)->cache_at_gateway = p;
}
static void gateway_msg(void *ctx, hub_peer *p, const struct wire_msg *m)
{
    calls_msg(((struct bench *)ctx)->calls, 0, hub_peer_id(p), m);
}

static void open_serve(struct bench *t, char *gateway)
{
    static char bind[] = "tcp://127.0.0.1:*", level[] = "error";
    struct cache_options o = {.redis = t->redis.address,
                              .redis_timeout_ms =
                                  2000, /* 160 MiB in one answer, under a sanitizer */
                              .ram_bytes = 8 << 20,
                              .result_ttl_s = 100,
                              .files_quota_bytes = 1000,
                              .files_quota_count = 10,
                              .files_silent_ms = 60000,
                              .slots = 64,
                              .bind = bind,
                              .gateways = gateway,
                              .log_level = level,
                              .drain_ms = 1000};
    struct why w = {0};
    if (cache_serve_new(t->l, &o, &t->serve, &w) < 0)
        fail_msg("%s: %s", w.field, w.text);
}

static void bench_make(struct bench *t)
{
    *t = (struct bench){.a = arena_new(0), .calls = calls_new(), .l = loop_new()};
    char service[] = "video", gateway[] = "gateway";
    Nunchi__Ready r;
    nunchi__ready__init(&r);
    redis_start(&t->redis, "", "0");
    t->b = make_bus(t->l);
    r.service = gateway;
    struct hub_config hc = {
        .endpoint = ANY_PORT, .ready = &r, .ctx = t, .up = gateway_up, .msg = gateway_msg};
    assert_int_equal(hub_new(t->b, t->l, &hc, &t->gateway, NULL), 0);
    char gateways[300];
    snprintf(gateways, sizeof gateways, "%s", hub_endpoint(t->gateway));
    open_serve(t, gateways);
    r.service = service;
    struct links_config lc = {
        .targets = cache_serve_endpoint(t->serve), .ready = &r, .ctx = t, .msg = link_msg};
    assert_int_equal(links_new(t->b, t->l, &lc, &t->links, NULL), 0);
    t->direct = make_store(t->l, t->redis.address, 2000);
    TURN_UNTIL(t->l, links_n_up(t->links) == 1 && t->cache_at_gateway && store_up(t->direct));
}

static void bench_close(struct bench *t)
{
    store_free(t->direct);
    cache_serve_free(t->serve);
    links_free(t->links);
    hub_free(t->gateway);
    bus_free(t->b);
    calls_free(t->calls);
    loop_free(t->l);
    arena_free(t->a);
    for (size_t i = 0; i < ARRAY_LEN(t->frames); i++)
        buf_clear(&t->frames[i]);
    redis_end(&t->redis);
}

/* Asks over the link of a worker; waits for the answer. */
static int request(struct bench *t, const Nunchi__CacheRequest *q, slice frame)
{
    peer_link *k = links_next(t->links, NULL);
    buf body = {0};
    pb_pack(&q->base, &body);
    struct call call = {.peer = link_id(k), .done = on_done, .ctx = t};
    struct wire_msg m = {.head = {.type = WIRE_REQUEST, .request = calls_open(t->calls, 0, &call)},
                         .body = buf_slice(&body)};
    if (frame.p)
        m.frames[m.n_frames++] = frame;
    int before = t->n;
    assert_int_equal(link_send(k, &m), 0);
    TURN_UNTIL(t->l, t->n > before);
    buf_clear(&body);
    return t->err;
}

static Nunchi__BlobKey key_of(Nunchi__Space space, slice tenant, const struct digest *d)
{
    Nunchi__BlobKey k;
    nunchi__blob_key__init(&k);
    k.space = space;
    k.tenant = pb_bytes(tenant);
    k.key = pb_bytes((slice){(const char *)d->b, sizeof d->b});
    return k;
}

static struct digest digest_named(const char *name)
{
    return digest_of(slice_str(""), slice_str(name));
}

static int put(struct bench *t, Nunchi__Space space, slice tenant, const char *name, slice value,
               slice owner)
{
    struct digest d = digest_named(name);
    Nunchi__BlobKey k = key_of(space, tenant, &d);
    Nunchi__BlobPut p;
    Nunchi__CacheRequest q;
    nunchi__blob_put__init(&p);
    nunchi__cache_request__init(&q);
    p.key = &k;
    p.owner = pb_bytes(owner);
    q.op_case = NUNCHI__CACHE_REQUEST__OP_PUT;
    q.put = &p;
    return request(t, &q, value);
}

/* 1: found, and in frames[0]; 0: a miss; negative: an error. */
static int get(struct bench *t, Nunchi__Space space, slice tenant, const char *name)
{
    struct digest d = digest_named(name);
    Nunchi__BlobKey k = key_of(space, tenant, &d), *keys[] = {&k};
    Nunchi__BlobGet g;
    Nunchi__CacheRequest q;
    nunchi__blob_get__init(&g);
    nunchi__cache_request__init(&q);
    g.n_keys = 1;
    g.keys = keys;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &g;
    if (request(t, &q, (slice){0}) < 0)
        return t->err;
    assert_int_equal(t->reply->op_case, NUNCHI__CACHE_REPLY__OP_VALUES);
    assert_int_equal(t->reply->values->n_frame, 1);
    assert_int_equal(t->reply->values->frame[0], t->n_frames);
    return (int)t->reply->values->frame[0];
}

static void wait_for_store(struct bench *t)
{
    TURN_UNTIL(t->l,
               get(t, NUNCHI__SPACE__RESULT, TENANT, "there?") >= 0 && !t->reply->values->degraded);
}

/* A second service on the same Redis has none of the first one's memory. */
static void forget_memory(struct bench *t)
{
    cache_serve_free(t->serve);
    char gateways[300];
    snprintf(gateways, sizeof gateways, "%s", hub_endpoint(t->gateway));
    open_serve(t, gateways);
    links_free(t->links);
    char service[] = "video";
    Nunchi__Ready r;
    nunchi__ready__init(&r);
    r.service = service;
    struct links_config lc = {
        .targets = cache_serve_endpoint(t->serve), .ready = &r, .ctx = t, .msg = link_msg};
    assert_int_equal(links_new(t->b, t->l, &lc, &t->links, NULL), 0);
    TURN_UNTIL(t->l, links_n_up(t->links) == 1);
    wait_for_store(t);
}

static void bench_open(struct bench *t)
{
    bench_make(t);
    wait_for_store(t);
}

static char file_id[] = "file-0123456789abcdef0123456789abcdef",
            second_id[] = "file-1123456789abcdef0123456789abcdef";

static int file_put(struct bench *t, char *id, uint64_t bytes)
{
    static char purpose[] = "user_data";
    Nunchi__FileRecord r;
    Nunchi__FilePut p;
    Nunchi__CacheRequest q;
    nunchi__file_record__init(&r);
    nunchi__file_put__init(&p);
    nunchi__cache_request__init(&q);
    r.id = id;
    r.tenant = pb_bytes(TENANT);
    r.bytes = bytes;
    r.purpose = purpose;
    r.filename = pb_bytes(SLICE_LIT("film\xff.mp4"));
    p.file = &r;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_PUT;
    q.file_put = &p;
    return request(t, &q, (slice){0});
}

static int file_get(struct bench *t, slice tenant, char *id)
{
    Nunchi__FileGet g;
    Nunchi__CacheRequest q;
    nunchi__file_get__init(&g);
    nunchi__cache_request__init(&q);
    g.tenant = pb_bytes(tenant);
    g.id = id;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_GET;
    q.file_get = &g;
    return request(t, &q, (slice){0});
}

static int file_delete(struct bench *t, char *id)
{
    Nunchi__FileDelete d;
    Nunchi__CacheRequest q;
    nunchi__file_delete__init(&d);
    nunchi__cache_request__init(&q);
    d.tenant = pb_bytes(TENANT);
    d.id = id;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_DELETE;
    q.file_delete = &d;
    return request(t, &q, (slice){0});
}

static int file_progress(struct bench *t, char *id, Nunchi__FileRecord__Status status,
                         slice content)
{
    Nunchi__FileProgress p;
    Nunchi__CacheRequest q;
    nunchi__file_progress__init(&p);
    nunchi__cache_request__init(&q);
    p.tenant = pb_bytes(TENANT);
    p.id = id;
    p.status = status;
    p.content = pb_bytes(content);
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_PROGRESS;
    q.file_progress = &p;
    return request(t, &q, (slice){0});
}

static size_t file_count(struct bench *t)
{
    Nunchi__FileList f;
    Nunchi__CacheRequest q;
    nunchi__file_list__init(&f);
    nunchi__cache_request__init(&q);
    f.tenant = pb_bytes(TENANT);
    f.limit = 1000;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_LIST;
    q.file_list = &f;
    assert_int_equal(request(t, &q, (slice){0}), 0);
    return t->reply->files->n_files;
}

/* ---- values
 * ------------------------------------------------------------------------------------------------------------
 */

static void answers_are_remembered(void **state UNUSED)
{
    struct bench t;
    bench_open(&t);
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "q"), 0);
    assert_int_equal(
        put(&t, NUNCHI__SPACE__RESULT, TENANT, "q", SLICE_LIT("answer"), slice_str("")), 0);
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "q"), 1);
    assert_true(slice_eq_str(buf_slice(&t.frames[0]), "answer"));
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, OTHER_TENANT, "q"), 0);
    forget_memory(&t);
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "q"), 1); /* from the store */
    assert_true(slice_eq_str(buf_slice(&t.frames[0]), "answer"));
    struct answer a = {0};
    assert_int_equal(ASK(t.l, t.direct, &a, "DBSIZE"), 0);
    assert_int_equal(a.number, 1);
    struct digest d = digest_named("q");
    Nunchi__BlobKey k = key_of(NUNCHI__SPACE__RESULT, TENANT, &d);
    Nunchi__BlobDelete del;
    Nunchi__CacheRequest q;
    nunchi__blob_delete__init(&del);
    nunchi__cache_request__init(&q);
    del.key = &k;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_DELETE;
    q.delete_ = &del;
    assert_int_equal(request(&t, &q, (slice){0}), 0);
    assert_true(t.reply->done->existed);
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "q"), 0);
    buf_clear(&a.bytes);
    bench_close(&t);
}

static void requests_that_are_refused(void **state UNUSED)
{
    struct bench t;
    bench_open(&t);
    Nunchi__CacheRequest q;
    nunchi__cache_request__init(&q);
    assert_int_equal(request(&t, &q, (slice){0}), ERR_UNSUPPORTED); /* no operation */
    assert_int_equal(get(&t, NUNCHI__SPACE__FEATURE, TENANT, "k"), ERR_UNSUPPORTED);
    assert_int_equal(get(&t, (Nunchi__Space)77, TENANT, "k"), ERR_UNSUPPORTED);
    assert_int_equal(get(&t, NUNCHI__SPACE__SPACE_NONE, TENANT, "k"), ERR_INVALID);
    assert_int_equal(get(&t, NUNCHI__SPACE__NOTES, SLICE_LIT("short"), "k"), ERR_INVALID);
    assert_int_equal(put(&t, NUNCHI__SPACE__RESULT, TENANT, "k", (slice){0}, slice_str("")),
                     ERR_INVALID); /* no value */
    assert_int_equal(put(&t, NUNCHI__SPACE__NOTES, TENANT, "k", SLICE_LIT("v"), slice_str("")),
                     ERR_INVALID); /* no owner */
    assert_string_equal(t.why.field, "owner");
    Nunchi__BlobGet g;
    nunchi__blob_get__init(&g);
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &g;
    assert_int_equal(request(&t, &q, (slice){0}), ERR_INVALID); /* no keys */
    struct digest d = digest_named("x");
    Nunchi__BlobKey k = key_of(NUNCHI__SPACE__RESULT, TENANT, &d), *keys[CACHE_KEYS_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        keys[i] = &k;
    g.keys = keys;
    g.n_keys = ARRAY_LEN(keys);
    assert_int_equal(request(&t, &q, (slice){0}), ERR_TOO_BIG);
    g.n_keys--;
    assert_int_equal(request(&t, &q, (slice){0}), 0);
    assert_int_equal(t.reply->values->n_frame, CACHE_KEYS_MAX);
    assert_int_equal(file_get(&t, TENANT, (char[]){"../x"}), ERR_NOT_FOUND);
    assert_int_equal(file_put(&t, (char[]){"file-x"}, 1), ERR_INVALID);
    bench_close(&t);
}

/* More than a message holds: the rest are misses, not a breach of the wire's limits. */
static void many_large_values(void **state UNUSED)
{
    struct bench t;
    bench_open(&t);
    static char value[WIRE_FRAME_MAX];
    Nunchi__BlobKey keys[20], *list[20];
    struct digest d[20];
    char name[16];
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "%d", i);
        value[0] = (char)i;
        assert_int_equal(put(&t, NUNCHI__SPACE__RESULT, TENANT, name, (slice){value, sizeof value},
                             slice_str("")),
                         0);
        d[i] = digest_named(name);
        keys[i] = key_of(NUNCHI__SPACE__RESULT, TENANT, &d[i]);
        list[i] = &keys[i];
    }
    Nunchi__BlobGet g;
    Nunchi__CacheRequest q;
    nunchi__blob_get__init(&g);
    nunchi__cache_request__init(&q);
    g.keys = list;
    g.n_keys = 20;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &g;
    assert_int_equal(request(&t, &q, (slice){0}), 0);
    assert_int_equal(t.n_frames, 15);
    for (int i = 0; i < 20; i++) {
        uint32_t f = t.reply->values->frame[i];
        assert_true(f <= 15);
        if (f)
            assert_int_equal(t.frames[f - 1].p[0], i);
    }
    bench_close(&t);
}

/* Whatever is done to the store, what comes out is what was put in or nothing. */
static void a_poisoned_store(void **state UNUSED)
{
    struct bench t;
    struct answer a = {0};
    bench_open(&t);
    assert_int_equal(
        put(&t, NUNCHI__SPACE__RESULT, TENANT, "a", SLICE_LIT("answer a"), slice_str("")), 0);
    assert_int_equal(
        put(&t, NUNCHI__SPACE__RESULT, TENANT, "b", SLICE_LIT("answer b"), slice_str("")), 0);
    struct digest d = digest_named("a"), e = digest_named("b");
    char hex_a[65], hex_b[65], tenant[65], name_a[200], name_b[200];
    hex_encode(d.b, 32, hex_a);
    hex_encode(e.b, 32, hex_b);
    hex_encode(TENANT.p, 32, tenant);
    snprintf(name_a, sizeof name_a, "nunchi:1:b1:%s:%s", tenant, hex_a);
    snprintf(name_b, sizeof name_b, "nunchi:1:b1:%s:%s", tenant, hex_b);
    do /* what may be forgotten is put without waiting for it */
        assert_int_equal(ASK(t.l, t.direct, &a, "EXISTS", name_a, name_b), 0);
    while (a.number < 2);
    forget_memory(&t);
    assert_int_equal(ASK(t.l, t.direct, &a, "SETRANGE", name_a, "200", "X"),
                     0); /* longer, another byte */
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "a"), 0);
    assert_int_equal(ASK(t.l, t.direct, &a, "EXISTS", name_a), 0);
    assert_int_equal(a.number, 0);                                         /* and it is gone */
    assert_int_equal(ASK(t.l, t.direct, &a, "RENAME", name_b, name_a), 0); /* swapped */
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "a"), 0);
    assert_int_equal(ASK(t.l, t.direct, &a, "SADD", name_b, "of another kind"), 0);
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "b"), 0);
    assert_int_equal(ASK(t.l, t.direct, &a, "SET", name_a, ""), 0);
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "a"), 0);
    assert_int_equal(ASK(t.l, t.direct, &a, "SETRANGE", name_a, "5000000", "X"),
                     0); /* larger than any value */
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "a"), 0);
    buf_clear(&a.bytes);
    bench_close(&t);
}

/* ---- files
 * --------------------------------------------------------------------------------------------------------------
 */

static void the_life_of_a_file(void **state UNUSED)
{
    struct bench t;
    bench_open(&t);
    assert_int_equal(file_get(&t, TENANT, file_id), ERR_NOT_FOUND);
    assert_int_equal(file_put(&t, file_id, 600), 0);
    assert_int_equal(t.reply->op_case, NUNCHI__CACHE_REPLY__OP_FILE);
    assert_int_equal(file_put(&t, file_id, 1), ERR_EXISTS);
    assert_int_equal(file_put(&t, second_id, 401), ERR_TOO_BIG);
    assert_int_equal(file_put(&t, second_id, 400), 0);
    assert_int_equal(file_count(&t), 2);
    assert_int_equal(file_progress(&t, file_id, NUNCHI__FILE_RECORD__STATUS__UPLOADED, CONTENT_A),
                     0);
    assert_int_equal(put(&t, NUNCHI__SPACE__NOTES, TENANT, "notes", SLICE_LIT("n"), CONTENT_A), 0);
    assert_int_equal(put(&t, NUNCHI__SPACE__FRAME, TENANT, "frame", SLICE_LIT("jpeg"), CONTENT_A),
                     0);
    assert_int_equal(file_progress(&t, file_id, NUNCHI__FILE_RECORD__STATUS__PROCESSED, CONTENT_A),
                     0);
    forget_memory(&t); /* durable */
    assert_int_equal(file_get(&t, TENANT, file_id), 0);
    assert_int_equal(t.reply->file->status, NUNCHI__FILE_RECORD__STATUS__PROCESSED);
    assert_true(slice_eq(pb_slice(t.reply->file->content), CONTENT_A));
    assert_true(slice_eq(pb_slice(t.reply->file->filename), SLICE_LIT("film\xff.mp4")));
    assert_int_equal(file_get(&t, OTHER_TENANT, file_id), ERR_NOT_FOUND);
    assert_int_equal(get(&t, NUNCHI__SPACE__NOTES, TENANT, "notes"), 1);
    assert_int_equal(file_delete(&t, file_id), 0);
    assert_true(t.reply->done->existed);
    assert_int_equal(get(&t, NUNCHI__SPACE__NOTES, TENANT, "notes"), 0);
    assert_int_equal(get(&t, NUNCHI__SPACE__FRAME, TENANT, "frame"), 0);
    assert_int_equal(file_delete(&t, file_id), 0);
    assert_false(t.reply->done->existed);
    assert_int_equal(file_progress(&t, file_id, NUNCHI__FILE_RECORD__STATUS__PROCESSED, CONTENT_A),
                     ERR_NOT_FOUND);
    assert_int_equal(file_count(&t), 1);
    bench_close(&t);
}

/* Two files of one video, and a frame that two videos share: each stays until the last that needs
 * it is gone. */
static void what_is_shared_stays(void **state UNUSED)
{
    struct bench t;
    struct answer a = {0};
    bench_open(&t);
    assert_int_equal(file_put(&t, file_id, 1), 0);
    assert_int_equal(file_put(&t, second_id, 1), 0);
    assert_int_equal(file_progress(&t, file_id, NUNCHI__FILE_RECORD__STATUS__PROCESSED, CONTENT_A),
                     0);
    assert_int_equal(
        file_progress(&t, second_id, NUNCHI__FILE_RECORD__STATUS__PROCESSED, CONTENT_A), 0);
    assert_int_equal(put(&t, NUNCHI__SPACE__NOTES, TENANT, "notes", SLICE_LIT("n"), CONTENT_A), 0);
    assert_int_equal(put(&t, NUNCHI__SPACE__FRAME, TENANT, "black", SLICE_LIT("jpeg"), CONTENT_A),
                     0);
    assert_int_equal(put(&t, NUNCHI__SPACE__FRAME, TENANT, "black", SLICE_LIT("jpeg"), CONTENT_B),
                     0);
    assert_int_equal(file_delete(&t, file_id), 0);
    assert_int_equal(get(&t, NUNCHI__SPACE__NOTES, TENANT, "notes"), 1);
    assert_int_equal(file_delete(&t, second_id), 0);
    assert_int_equal(get(&t, NUNCHI__SPACE__NOTES, TENANT, "notes"), 0);
    assert_int_equal(get(&t, NUNCHI__SPACE__FRAME, TENANT, "black"),
                     1); /* the other video has it too */
    assert_int_equal(file_put(&t, file_id, 1), 0);
    assert_int_equal(file_progress(&t, file_id, NUNCHI__FILE_RECORD__STATUS__PROCESSED, CONTENT_B),
                     0);
    assert_int_equal(file_delete(&t, file_id), 0);
    assert_int_equal(get(&t, NUNCHI__SPACE__FRAME, TENANT, "black"), 0);
    forget_memory(&t);
    assert_int_equal(get(&t, NUNCHI__SPACE__FRAME, TENANT, "black"), 0);
    assert_int_equal(ASK(t.l, t.direct, &a, "DBSIZE"), 0);
    assert_true(
        a.number <=
        2); /* the list of tenants and the empty shelf with its version: nothing else stays */
    buf_clear(&a.bytes);
    bench_close(&t);
}

/* Two services work on one store: no change is lost, no id is given twice, the quota holds. */
static void two_at_once(void **state UNUSED)
{
    struct bench t;
    bench_open(&t);
    peer_link *k = links_next(t.links, NULL);
    char ids[12][FILE_ID_BYTES + 1];
    int before = t.n;
    static char purpose[] = "user_data";
    for (int i = 0; i < 12; i++) { /* all under way together: versions collide */
        snprintf(ids[i], sizeof ids[i], "file-%032d", i);
        Nunchi__FileRecord r;
        Nunchi__FilePut p;
        Nunchi__CacheRequest q;
        nunchi__file_record__init(&r);
        nunchi__file_put__init(&p);
        nunchi__cache_request__init(&q);
        r.id = ids[i];
        r.tenant = pb_bytes(TENANT);
        r.bytes = 1;
        r.purpose = purpose;
        p.file = &r;
        q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_PUT;
        q.file_put = &p;
        buf body = {0};
        pb_pack(&q.base, &body);
        bool by_gateway = i % 2;
        struct call call = {.peer = by_gateway ? hub_peer_id(t.cache_at_gateway) : link_id(k),
                            .done = on_done,
                            .ctx = &t};
        struct wire_msg m = {
            .head = {.type = WIRE_REQUEST, .request = calls_open(t.calls, 0, &call)},
            .body = buf_slice(&body)};
        assert_int_equal(
            by_gateway ? hub_send(t.gateway, t.cache_at_gateway, &m) : link_send(k, &m), 0);
        buf_clear(&body);
    }
    TURN_UNTIL(t.l, t.n == before + 12);
    assert_int_equal(file_count(&t), 10); /* files_quota_count */
    bench_close(&t);
}

/* ---- Redis away
 * -----------------------------------------------------------------------------------------------------------
 */

static void while_redis_is_away(void **state UNUSED)
{
    struct bench t;
    bench_open(&t);
    assert_int_equal(put(&t, NUNCHI__SPACE__RESULT, TENANT, "a", SLICE_LIT("x"), slice_str("")), 0);
    assert_int_equal(file_put(&t, file_id, 1), 0);
    redis_kill(&t.redis);
    TURN_UNTIL(t.l, !store_up(t.direct));
    turn_for(t.l, 50000);
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "a"), 1); /* memory */
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "b"), 0);
    assert_true(t.reply->values->degraded);
    assert_int_equal(put(&t, NUNCHI__SPACE__RESULT, TENANT, "b", SLICE_LIT("y"), slice_str("")),
                     0); /* dropped below memory */
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "b"), 1);
    assert_int_equal(put(&t, NUNCHI__SPACE__NOTES, TENANT, "n", SLICE_LIT("y"), CONTENT_A),
                     ERR_UNAVAILABLE); /* a promise that cannot be kept */
    assert_int_equal(get(&t, NUNCHI__SPACE__NOTES, TENANT, "n"), 0);
    assert_int_equal(file_get(&t, TENANT, file_id), ERR_UNAVAILABLE);
    assert_int_equal(file_put(&t, second_id, 1), ERR_UNAVAILABLE);
    assert_int_equal(file_delete(&t, file_id), ERR_UNAVAILABLE);
    redis_start(&t.redis, "", "0"); /* empty: it kept nothing on disk */
    TURN_UNTIL(t.l, file_put(&t, second_id, 1) == 0);
    assert_int_equal(file_get(&t, TENANT, second_id), 0);
    assert_int_equal(file_get(&t, TENANT, file_id), ERR_NOT_FOUND);
    kill(t.redis.pid, SIGSTOP); /* slow: the deadline of a command ends the wait */
    assert_int_equal(file_get(&t, TENANT, second_id), ERR_UNAVAILABLE);
    assert_int_equal(get(&t, NUNCHI__SPACE__RESULT, TENANT, "c"), 0);
    assert_true(t.reply->values->degraded);
    kill(t.redis.pid, SIGCONT);
    TURN_UNTIL(t.l, file_get(&t, TENANT, second_id) == 0);
    bench_close(&t);
}

/* ---- sweeping, on the core itself with the clock in our hand
 * ---------------------------------------------------------------- */

static int send_direct(void *ctx, enum store_line line, const slice *argv, size_t n, store_fn fn,
                       void *fn_ctx)
{
    return store_send(ctx, line, argv, n, fn, fn_ctx);
}
static void core_done(void *ctx, const struct cache_asker *to UNUSED, const Nunchi__CacheReply *r,
                      shared *const *values UNUSED, size_t n)
{
    *(int *)ctx = r->op_case == NUNCHI__CACHE_REPLY__OP_VALUES ? 100 + (int)n : 1;
}
static void core_failed(void *ctx, const struct cache_asker *to UNUSED, int err,
                        const struct why *w UNUSED)
{
    *(int *)ctx = err;
}

static int core_ask(loop *l, cache_core *c, int *result, const Nunchi__CacheRequest *q, slice frame,
                    uint64_t now_ms)
{
    buf body = {0};
    pb_pack(&q->base, &body);
    struct wire_msg m = {.head = {.type = WIRE_REQUEST, .request = 1},
                         .body = buf_slice(&body),
                         .frames = {frame},
                         .n_frames = frame.p ? 1 : 0};
    *result = 0;
    cache_core_request(c, 1, &m, now_ms, 0);
    TURN_UNTIL(l, *result != 0);
    buf_clear(&body);
    return *result;
}

static void what_has_expired_is_swept(void **state UNUSED)
{
    struct redis redis = {0};
    int result;
    const uint64_t now = UINT64_C(1800000000000), hour = 3600000;
    redis_start(&redis, "", "0");
    loop *l = loop_new();
    store *s = make_store(l, redis.address, 2000);
    struct cache_limits lim = {.files = {.quota_bytes = 100, .quota_count = 10, .silent_ms = 1000},
                               .result_ttl_s = 10};
    struct cache_store st = {.ctx = s, .send = send_direct};
    struct cache_out out = {.ctx = &result, .done = core_done, .failed = core_failed};
    cache_core *c = cache_core_new(&lim, &st, &out);
    TURN_UNTIL(l, store_up(s));

    Nunchi__FileRecord r;
    Nunchi__FilePut p;
    Nunchi__CacheRequest q;
    nunchi__file_record__init(&r);
    nunchi__file_put__init(&p);
    nunchi__cache_request__init(&q);
    r.id = file_id;
    r.tenant = pb_bytes(TENANT);
    r.content = pb_bytes(CONTENT_A);
    r.expires_unix_s = (now + 10 * hour) / 1000;
    p.file = &r;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_PUT;
    q.file_put = &p;
    assert_int_equal(core_ask(l, c, &result, &q, (slice){0}, now), 1);
    struct digest notes = digest_named("notes"), orphan = digest_named("orphan");
    Nunchi__BlobKey k = key_of(NUNCHI__SPACE__NOTES, TENANT, &notes), *keys[] = {&k};
    Nunchi__BlobPut bp;
    nunchi__blob_put__init(&bp);
    bp.key = &k;
    bp.owner = pb_bytes(CONTENT_A);
    q.op_case = NUNCHI__CACHE_REQUEST__OP_PUT;
    q.put = &bp;
    assert_int_equal(core_ask(l, c, &result, &q, SLICE_LIT("notes"), now), 1);
    k.key = pb_bytes((slice){(const char *)orphan.b, 32});
    bp.owner = pb_bytes(CONTENT_B); /* no file will name it */
    assert_int_equal(core_ask(l, c, &result, &q, SLICE_LIT("orphan"), now), 1);

    cache_core_sweep(c, now + 5 * hour);
    TURN_UNTIL(l, cache_core_idle(c));
    assert_int_equal(cache_core_counts(c).files_expired + cache_core_counts(c).orphans, 0);
    cache_core_sweep(c, now + 7 * hour); /* the orphan has had its time; the file has not */
    TURN_UNTIL(l, cache_core_idle(c));
    assert_int_equal(cache_core_counts(c).orphans, 1);
    assert_int_equal(cache_core_counts(c).files_expired, 0);
    Nunchi__BlobGet g;
    nunchi__blob_get__init(&g);
    g.keys = keys;
    g.n_keys = 1;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &g;
    assert_int_equal(core_ask(l, c, &result, &q, (slice){0}, now + 7 * hour), 100);
    k.key = pb_bytes((slice){(const char *)notes.b, 32});
    assert_int_equal(core_ask(l, c, &result, &q, (slice){0}, now + 7 * hour), 101);
    cache_core_sweep(c, now + 10 * hour);
    TURN_UNTIL(l, cache_core_idle(c));
    assert_int_equal(cache_core_counts(c).files_expired, 1);
    assert_int_equal(core_ask(l, c, &result, &q, (slice){0}, now + 10 * hour), 100);

    cache_core_sweep(
        c,
        now + 11 * hour); /* a sweep that Redis leaves in the lurch ends, and the next one works */
    redis_kill(&redis);
    TURN_UNTIL(l, cache_core_idle(c));
    store_free(s);
    cache_core_free(c);
    loop_free(l);
    redis_end(&redis);
}

/* Cancelled, or the asker gone: worked on to its end, and answered to nobody. */
static void nobody_waits(void **state UNUSED)
{
    struct redis redis = {0};
    int result = 0;
    redis_start(&redis, "", "0");
    loop *l = loop_new();
    store *s = make_store(l, redis.address, 2000);
    struct cache_limits lim = {.files = {.quota_bytes = 100, .quota_count = 10, .silent_ms = 1000},
                               .result_ttl_s = 10};
    struct cache_store st = {.ctx = s, .send = send_direct};
    struct cache_out out = {.ctx = &result, .done = core_done, .failed = core_failed};
    cache_core *c = cache_core_new(&lim, &st, &out);
    TURN_UNTIL(l, store_up(s));
    Nunchi__FileList f;
    Nunchi__CacheRequest q;
    nunchi__file_list__init(&f);
    nunchi__cache_request__init(&q);
    f.tenant = pb_bytes(TENANT);
    f.limit = 1;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_LIST;
    q.file_list = &f;
    buf body = {0};
    pb_pack(&q.base, &body);
    struct wire_msg m = {.head = {.type = WIRE_REQUEST, .request = 1}, .body = buf_slice(&body)};
    cache_core_request(c, 1, &m, 1, 0);
    cache_core_cancel(c, 1, &m.head);
    cache_core_request(c, 2, &m, 1, 0);
    cache_core_gone(c, 2);
    TURN_UNTIL(l, cache_core_idle(c));
    assert_int_equal(result, 0);
    for (int i = 0; i < CACHE_OPS_MAX; i++)
        cache_core_request(c, 3, &m, 1, 0);
    assert_int_equal(result, 0);
    cache_core_request(c, 3, &m, 1, 0); /* one too many */
    assert_int_equal(result, ERR_BUSY);
    TURN_UNTIL(l, cache_core_idle(c));
    assert_int_equal(result, 1);
    buf_clear(&body);
    store_free(s);
    cache_core_free(c);
    loop_free(l);
    redis_end(&redis);
}

int main(void)
{
    log_init("test", LOG_ERROR, 2);
    if (!redis_installed()) {
        fprintf(stderr, "SKIPPED: redis-server is not installed\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_remembered),
        cmocka_unit_test(requests_that_are_refused),
        cmocka_unit_test(many_large_values),
        cmocka_unit_test(a_poisoned_store),
        cmocka_unit_test(the_life_of_a_file),
        cmocka_unit_test(what_is_shared_stays),
        cmocka_unit_test(two_at_once),
        cmocka_unit_test(while_redis_is_away),
        cmocka_unit_test(what_has_expired_is_swept),
        cmocka_unit_test(nobody_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
