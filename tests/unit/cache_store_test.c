/* The store over a real Redis: away, slow, killed, started again, full, with a password. */
#include "tests/unit/cache_testing.h"

#include "cache-svc/kv_stores.h"

static void commands_and_answers(void **state UNUSED)
{
    struct redis r = {0};
    struct answer a = {0};
    redis_start(&r, "", "0");
    loop *l = loop_new();
    store *s = make_store(l, r.address, 2000);
    TURN_UNTIL(l, store_up(s));
    assert_int_equal(ASK(l, s, &a, "SET", "k", "v"), 0);
    assert_int_equal(ASK(l, s, &a, "GET", "k"), 0);
    assert_true(slice_eq_str(buf_slice(&a.bytes), "v"));
    assert_int_equal(ASK(l, s, &a, "GET", "none"), 0);
    assert_true(a.nil);
    assert_int_equal(ASK(l, s, &a, "SADD", "set", "x", "y"), 0);
    assert_int_equal(a.number, 2);
    assert_int_equal(ASK(l, s, &a, "SMEMBERS", "set"), 0);
    assert_int_equal(a.list_n, 2);
    assert_int_equal(ASK(l, s, &a, "GET", "set"),
                     ERR_INVALID); /* of another kind: this command's fault */
    assert_true(store_up(s));
    buf_clear(&a.bytes);
    store_free(s);
    loop_free(l);
    redis_end(&r);
}

static void a_megabyte_each_way(void **state UNUSED)
{
    struct redis r = {0};
    struct answer a = {0};
    redis_start(&r, "", "0");
    loop *l = loop_new();
    store *s = make_store(l, r.address, 5000);
    TURN_UNTIL(l, store_up(s));
    static char value[1 << 20];
    random_bytes(value, sizeof value);
    const slice set[] = {SLICE_LIT("SET"), SLICE_LIT("big"), {value, sizeof value}},
                get[] = {SLICE_LIT("GET"), SLICE_LIT("big")};
    assert_int_equal(store_send(s, STORE_BULK, set, 3, on_answer, &a), 0);
    assert_int_equal(store_send(s, STORE_BULK, get, 2, on_answer, &a),
                     0); /* in order, both under way */
    TURN_UNTIL(l, a.n == 2);
    assert_int_equal(a.bytes.n, sizeof value);
    assert_memory_equal(a.bytes.p, value, sizeof value);
    buf_clear(&a.bytes);
    store_free(s);
    loop_free(l);
    redis_end(&r);
}

/* A failover behind one name: whoever was the master follows another, which then answers there. */
static void a_master_that_becomes_a_replica(void **state UNUSED)
{
    struct redis r = {0}, other = {0};
    struct answer a = {0};
    redis_start(&r, "", "0");
    redis_start(&other, "", "0");
    loop *l = loop_new();
    store *s = make_store(l, r.address, 2000), *admin = make_store(l, other.address, 2000);
    TURN_UNTIL(l, store_up(s) && store_up(admin));
    assert_int_equal(ASK(l, s, &a, "REPLICAOF", "127.0.0.1", "1"), 0);
    assert_int_equal(ASK(l, s, &a, "SET", "k", "v"), ERR_UNAVAILABLE);
    assert_false(store_up(s));
    turn_for(l, 300000); /* it is there, and is asked again and again */
    assert_false(store_up(s));
    assert_int_equal(rename(other.socket, r.socket), 0); /* the name leads to another server now */
    TURN_UNTIL(l, store_up(s));
    assert_int_equal(ASK(l, s, &a, "SET", "k", "v"), 0);
    buf_clear(&a.bytes);
    store_free(s);
    store_free(admin);
    loop_free(l);
    redis_end(&r);
    redis_end(&other);
}

static void so_many_kv_stores(void **state UNUSED)
{
    loop *l = loop_new();
    kv_stores *k;
    struct why w = {0};
    struct store_config like = {.timeout_ms = 1000};
    buf list = {0};
    for (int i = 0; i < KV_STORES_MAX; i++)
        buf_printf(&list, "127.0.0.1:1, ");
    assert_int_equal(kv_stores_new(l, buf_cstr(&list), &like, &k, &w), 0);
    assert_int_equal(kv_stores_up(k), 0);
    assert_int_equal(
        kv_stores_send(k, SLICE_LIT("g"), (const slice[]){SLICE_LIT("PING")}, 1, on_answer, NULL),
        ERR_UNAVAILABLE);
    kv_stores_free(k);
    buf_put_str(&list, "127.0.0.1:1");
    assert_int_equal(kv_stores_new(l, buf_cstr(&list), &like, &k, &w), ERR_TOO_BIG);
    assert_string_equal(w.field, "kv-redis");
    assert_non_null(strstr(w.text, "64"));
    assert_null(k);
    buf_clear(&list);
    loop_free(l);
}

static void away_and_back(void **state UNUSED)
{
    struct redis r = {0};
    struct answer a = {0};
    redis_start(&r, "", "0");
    redis_kill(&r); /* makes the folder; nothing listens */
    loop *l = loop_new();
    store *s = make_store(l, r.address, 500);
    turn_for(l, 200000);
    assert_false(store_up(s));
    assert_int_equal(ASK(l, s, &a, "GET", "k"), ERR_UNAVAILABLE);
    assert_int_equal(a.n, 0); /* refused at once: no callback */
    for (int i = 0; i < 2; i++) {
        redis_start(&r, "", "0");
        TURN_UNTIL(l, store_up(s));
        assert_int_equal(ASK(l, s, &a, "SET", "k", "v"), 0);
        redis_kill(&r);
        TURN_UNTIL(l, !store_up(s));
        assert_int_equal(ASK(l, s, &a, "GET", "k"), ERR_UNAVAILABLE);
    }
    buf_clear(&a.bytes);
    store_free(s);
    loop_free(l);
    redis_end(&r);
}

/* Stopped, not closed: only the deadline notices. Everything that waited is told, once. */
static void slow(void **state UNUSED)
{
    struct redis r = {0};
    struct answer a = {0};
    redis_start(&r, "", "0");
    loop *l = loop_new();
    store *s = make_store(l, r.address, 300);
    TURN_UNTIL(l, store_up(s));
    kill(r.pid, SIGSTOP);
    const slice get[] = {SLICE_LIT("GET"), SLICE_LIT("k")};
    for (int i = 0; i < 10; i++)
        assert_int_equal(store_send(s, i % 2 ? STORE_BULK : STORE_SMALL, get, 2, on_answer, &a), 0);
    TURN_UNTIL(l, a.n == 10);
    assert_int_equal(a.err, ERR_UNAVAILABLE);
    assert_false(store_up(s));
    turn_for(l, 500000); /* tries to come back, in vain */
    assert_false(store_up(s));
    kill(r.pid, SIGCONT);
    TURN_UNTIL(l, store_up(s));
    assert_int_equal(ASK(l, s, &a, "SET", "k", "v"), 0);
    assert_int_equal(a.n, 11);
    buf_clear(&a.bytes);
    store_free(s);
    loop_free(l);
    redis_end(&r);
}

static void full(void **state UNUSED)
{
    struct redis r = {0};
    struct answer a = {0};
    redis_start(&r, "", "0");
    loop *l = loop_new();
    store *s = make_store(l, r.address, 2000);
    TURN_UNTIL(l, store_up(s));
    assert_int_equal(ASK(l, s, &a, "CONFIG", "SET", "maxmemory", "1000"), 0);
    assert_int_equal(ASK(l, s, &a, "SET", "k", "v"), ERR_UNAVAILABLE);
    assert_true(store_up(s)); /* it still answers questions */
    assert_int_equal(ASK(l, s, &a, "GET", "k"), 0);
    assert_int_equal(ASK(l, s, &a, "CONFIG", "SET", "maxmemory", "0"), 0);
    assert_int_equal(ASK(l, s, &a, "SET", "k", "v"), 0);
    buf_clear(&a.bytes);
    store_free(s);
    loop_free(l);
    redis_end(&r);
}

static void a_queue_with_an_end(void **state UNUSED)
{
    struct redis r = {0};
    struct answer a = {0};
    redis_start(&r, "", "0");
    loop *l = loop_new();
    store *s = make_store(l, r.address, 10000);
    TURN_UNTIL(l, store_up(s));
    const slice get[] = {SLICE_LIT("GET"), SLICE_LIT("k")};
    int sent = 0, e;
    while ((e = store_send(s, STORE_SMALL, get, 2, on_answer, &a)) == 0)
        assert_true(++sent < 100000);
    assert_int_equal(e, ERR_BUSY);
    TURN_UNTIL(l, a.n == sent);
    assert_int_equal(a.err, 0);
    for (int i = 0; i < 50; i++)
        assert_int_equal(store_send(s, STORE_SMALL, get, 2, on_answer, &a), 0);
    store_free(s); /* what waits is told even so */
    assert_int_equal(a.n, sent + 50);
    assert_int_equal(a.err, ERR_UNAVAILABLE);
    buf_clear(&a.bytes);
    loop_free(l);
    redis_end(&r);
}

static void free_port(char out[8])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    close(fd);
    snprintf(out, 8, "%u", (unsigned)ntohs(at.sin_port));
}

/* By name over TCP, with a password that is wrong first. */
static void a_password_over_tcp(void **state UNUSED)
{
    struct redis r = {0};
    struct answer a = {0};
    char port[8], address[64], file[300];
    free_port(port);
    redis_start(&r, "secret", port);
    snprintf(address, sizeof address, "localhost:%s", port);
    snprintf(file, sizeof file, "%s/password", r.dir);
    loop *l = loop_new();
    store *s = make_store(l, address, 1000);
    turn_for(l, 400000);
    assert_false(store_up(s)); /* without one */
    store_free(s);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs("secret\n", f);
    fclose(f);
    struct store_config cfg = {.address = address, .password_file = file, .timeout_ms = 1000};
    struct why w;
    assert_int_equal(store_new(l, &cfg, &s, &w), 0);
    TURN_UNTIL(l, store_up(s));
    assert_int_equal(ASK(l, s, &a, "SET", "k", "v"), 0);
    store_free(s);
    unlink(file);
    assert_int_equal(store_new(l, &cfg, &s, &w), ERR_IO);
    assert_null(strstr(w.text, r.dir));
    buf_clear(&a.bytes);
    loop_free(l);
    redis_end(&r);
}

static void addresses(void **state UNUSED)
{
    static const char *const bad[] = {"redis", "unix:", "", "a:1,b:2", "ipc:///x", "redis:port"};
    loop *l = loop_new();
    store *s;
    struct why w;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct store_config cfg = {.address = bad[i], .timeout_ms = 100};
        assert_int_equal(store_new(l, &cfg, &s, &w), ERR_INVALID);
    }
    loop_free(l);
}

int main(void)
{
    log_init("test", LOG_ERROR, 2);
    const struct CMUnitTest without[] = {cmocka_unit_test(addresses),
                                         cmocka_unit_test(so_many_kv_stores)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_and_answers),
        cmocka_unit_test(a_megabyte_each_way),
        cmocka_unit_test(a_master_that_becomes_a_replica),
        cmocka_unit_test(away_and_back),
        cmocka_unit_test(slow),
        cmocka_unit_test(full),
        cmocka_unit_test(a_queue_with_an_end),
        cmocka_unit_test(a_password_over_tcp),
        cmocka_unit_test(addresses),
        cmocka_unit_test(so_many_kv_stores),
    };
    if (!redis_installed()) {
        fprintf(stderr, "SKIPPED: redis-server is not installed\n");
        return cmocka_run_group_tests(without, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
