/* The choice of a worker, what is known of prefixes, and who is let in: each by itself, the clock
 * turned by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "common/base/hash.h"
#include "gateway/admit.h"
#include "gateway/limits.h"
#include "gateway/prefix.h"
#include "gateway/route.h"
#include "gateway/suspects.h"

#define SECOND 1000000u

/* ---- prefix ---- */

static void holders_newest_first(void **state UNUSED)
{
    prefix *p = prefix_new(64);
    assert_null(prefix_find(p, 7));
    for (uint32_t w = 1; w <= PREFIX_HOLDERS + 1; w++)
        prefix_put(p, 7, (struct prefix_holder){w, 10 * w});
    const struct prefix_holder *h = prefix_find(p, 7);
    for (uint32_t i = 0; i < PREFIX_HOLDERS; i++) { /* the first one is forgotten */
        assert_int_equal(h[i].worker, PREFIX_HOLDERS + 1 - i);
        assert_int_equal(h[i].stamp, 10 * (PREFIX_HOLDERS + 1 - i));
    }
    prefix_put(p, 7, (struct prefix_holder){2, 99}); /* again: to the front, not twice */
    h = prefix_find(p, 7);
    assert_int_equal(h[0].worker, 2);
    assert_int_equal(h[0].stamp, 99);
    assert_int_equal(h[1].worker, PREFIX_HOLDERS + 1);
    assert_true(h[2].worker != 2);
    prefix_put(p, 0, (struct prefix_holder){5, 1}); /* a name like any other */
    assert_int_equal(prefix_find(p, 0)[0].worker, 5);
    prefix_free(p);
}

/* A million blocks from strangers: no more memory than promised, and what is used all the while
 * stays. */
static void bounded_and_what_is_used_stays(void **state UNUSED)
{
    enum { MAX = 1024 };
    prefix *p = prefix_new(MAX);
    for (uint64_t i = 0; i < 1000000; i++) {
        if (i % (MAX / 2) == 0)
            prefix_put(p, 3, (struct prefix_holder){1, 1});
        prefix_put(p, hash64(&i, sizeof i), (struct prefix_holder){2, 2});
        assert_non_null(prefix_find(p, 3));
    }
    assert_true(prefix_bytes(p) <= MAX * 128);
    for (uint64_t i = 1; i <= MAX / 2;
         i++) /* names that share their low bits are as well as any: no long looking */
        prefix_put(p, i << 40, (struct prefix_holder){4, 4});
    uint64_t first = 0;
    assert_null(prefix_find(p, hash64(&first, sizeof first)));
    prefix_free(p);
}

/* ---- route ---- */

#define BLOCKS 64
static uint8_t hashes[BLOCKS * DIGEST_BYTES];
static const uint8_t NUMERICS[32] = {1};

struct spec {
    const char *service, *model;
    char weights; /* 0: it does not say */
    uint32_t slots;
};

static struct worker *up_as(route *r, uint64_t peer, struct spec s)
{
    uint8_t weights[DIGEST_BYTES];
    Nunchi__Ready ready;
    Nunchi__ModelInfo m, *models[] = {&m};
    char service[16], instance[24], name[64];
    nunchi__ready__init(&ready);
    nunchi__model_info__init(&m);
    snprintf(instance, sizeof instance, "i%d", (int)peer);
    snprintf(name, sizeof name, "%s", s.model);
    snprintf(service, sizeof service, "%s", s.service);
    memset(weights, s.weights, sizeof weights);
    m.name = name;
    m.numerics = (ProtobufCBinaryData){sizeof NUMERICS, (uint8_t *)(uintptr_t)NUMERICS};
    if (s.weights)
        m.weights = (ProtobufCBinaryData){sizeof weights, weights};
    ready.service = service;
    ready.instance = instance;
    ready.slots = s.slots;
    ready.models = models;
    ready.n_models = 1;
    struct worker *w = route_up(r, peer, &ready);
    assert_non_null(w);
    return w;
}

static struct worker *up(route *r, uint64_t peer, const char *model, uint32_t slots)
{
    return up_as(r, peer, (struct spec){"model", model, 0, slots});
}

static void beat(route *r, struct worker *w, uint64_t now, uint32_t rate, uint64_t queued)
{
    Nunchi__Heartbeat h = NUNCHI__HEARTBEAT__INIT;
    h.slots = w->slots;
    h.running = w->open;
    h.prefill_tok_s = rate;
    h.decode_tok_s = 200;
    h.queued_tokens = queued;
    h.kv_blocks = 256;
    route_changed(r, w, now, NULL, &h);
}

static struct route_wish prompt(uint32_t n_tokens)
{
    return (struct route_wish){.kind.model = SLICE_LIT("m"),
                               .hashes = hashes,
                               .n_blocks = n_tokens / 16,
                               .n_tokens = n_tokens,
                               .max_tokens = 100};
}

static int setup(void **state UNUSED)
{
    for (size_t i = 0; i < sizeof hashes; i++)
        hashes[i] = (uint8_t)(i * 31 + i / 7);
    for (uint64_t i = 0; i < BLOCKS; i++)
        memcpy(hashes + i * DIGEST_BYTES, &(uint64_t){hash64(&i, sizeof i)}, 8);
    return 0;
}

static void a_prefix_draws_and_load_drives_away(void **state UNUSED)
{
    route *r = route_new(ROUTE_PREFIX);
    struct worker *a = up(r, 1, "m", 8), *b = up(r, 2, "m", 8);
    struct route_wish q = prompt(1024);
    beat(r, a, SECOND, 1000, 0);
    beat(r, b, SECOND, 1000, 0);
    route_placed(r, b, &q);
    beat(r, b, SECOND, 1000, 0);
    assert_ptr_equal(route_pick_model(r, SECOND, &q), b); /* it has it: 1 s sooner */
    beat(r, b, SECOND, 1000, 900);
    assert_ptr_equal(route_pick_model(r, SECOND, &q), b); /* 0.9 s to wait there */
    beat(r, b, SECOND, 1000, 1200);
    assert_ptr_equal(route_pick_model(r, SECOND, &q), a); /* 1.2 s: no more */
    assert_ptr_equal(route_pick_model(r, SECOND + 500000, &q),
                     b); /* half a second of that is over */
    route_free(r);
}

static void rates_decide(void **state UNUSED)
{
    route *r = route_new(ROUTE_PREFIX);
    struct worker *slow = up(r, 1, "m", 8), *fast = up(r, 2, "m", 8);
    struct route_wish q = prompt(1024);
    beat(r, slow, SECOND, 100, 0);
    beat(r, fast, SECOND, 2000, 0);
    for (int i = 0; i < 5; i++) { /* even behind some others */
        assert_ptr_equal(route_pick_model(r, SECOND, &q), fast);
        fast->sent_tokens += 1024;
        fast->open++;
    }
    route_free(r);
}

/* What another worker has can be had from the caches: then it does not matter much who. */
static void fetching_counts(void **state UNUSED)
{
    route *r = route_new(ROUTE_PREFIX);
    struct worker *a = up(r, 1, "m", 8), *b = up(r, 2, "m", 8);
    struct route_wish q = prompt(1024);
    beat(r, a, SECOND, 1000, 0);
    beat(r, b, SECOND, 1000, 0);
    route_placed(r, b, &q);
    beat(r, b, SECOND, 1000, 300);
    assert_ptr_equal(route_pick_model(r, SECOND, &q), b);
    a->fetch_rate = 20000; /* 0.05 s for all of it, and 0.3 s to wait at b */
    assert_ptr_equal(route_pick_model(r, SECOND, &q), a);
    route_free(r);
}

static void what_made_room_is_not_counted_on(void **state UNUSED)
{
    route *r = route_new(ROUTE_PREFIX);
    struct worker *a = up(r, 1, "m", 8), *b = up(r, 2, "m", 8);
    struct route_wish q = prompt(1024), other = prompt(1024);
    uint8_t more[BLOCKS * DIGEST_BYTES];
    beat(r, a, SECOND, 1000, 0);
    beat(r, b, SECOND, 1000, 0);
    route_placed(r, b, &q);
    other.hashes = more;
    for (uint64_t k = 0; k < 4; k++) { /* 256 blocks: all that b can hold */
        for (uint64_t i = 0; i < BLOCKS; i++)
            memcpy(more + i * DIGEST_BYTES, &(uint64_t){hash64(&i, sizeof i) + k + 1}, 8);
        beat(r, b, SECOND, 1000, 0);
        assert_ptr_equal(route_pick_model(r, SECOND, &q), b);
        route_placed(r, b, &other);
    }
    for (uint64_t i = 0; i < BLOCKS; i++)
        memcpy(more + i * DIGEST_BYTES, &(uint64_t){hash64(&i, sizeof i) + 9}, 8);
    route_placed(r, b, &other);
    beat(r, b, SECOND, 1000, 0);
    assert_ptr_equal(route_pick_model(r, SECOND, &q), a);
    route_free(r);
}

static void holders_that_left_are_forgotten(void **state UNUSED)
{
    route *r = route_new(ROUTE_PREFIX);
    struct route_wish q = prompt(512);
    up(r, 1, "m", 8);
    route_placed(r, up(r, 2, "m", 8), &q);
    route_down(r, 2);
    assert_int_equal(route_pick_model(r, SECOND, &q)->peer, 1);
    route_down(r, 1);
    assert_null(route_pick_model(r, SECOND, &q));
    assert_null(route_any(r, SERVICE_MODEL, q.kind));
    route_free(r);
}

/* A holder of the prefix is found among a thousand, and only its own model's workers are looked at.
 */
static void among_a_thousand(void **state UNUSED)
{
    route *r = route_new(ROUTE_PREFIX);
    struct route_wish q = prompt(1024);
    struct worker *holder = NULL;
    for (uint64_t i = 1; i <= 1000; i++) {
        struct worker *w = up(r, i, i % 2 ? "m" : "other", 1);
        beat(r, w, SECOND, 1000, 0);
        holder = i == 777 ? w : holder;
    }
    route_placed(r, holder, &q);
    beat(r, holder, SECOND, 1000, 0);
    assert_ptr_equal(route_pick_model(r, SECOND, &q), holder);
    up_as(r, 2000, (struct spec){"tokenizer", "m", 0, 8});
    for (uint64_t i = 1; i < 1000; i += 2) /* one free slot is found wherever it is */
        route_find(r, i)->open = 1;
    assert_null(route_pick_model(r, SECOND, &q));
    assert_false(route_answers(r, SECOND, q.kind.model, false));
    assert_true(route_answers(r, SECOND, q.kind.model, true));
    route_find(r, 501)->open = 0;
    assert_int_equal(route_pick_model(r, SECOND, &q)->peer, 501);
    assert_true(route_answers(r, SECOND, q.kind.model, false));
    route_free(r);
}

static void other_policies(void **state UNUSED)
{
    assert_int_equal(route_policy_of("prefix"), ROUTE_PREFIX);
    assert_true(route_policy_of("random") < 0);
    route *r = route_new((enum route_policy)route_policy_of("round-robin"));
    struct route_wish q = prompt(1024);
    for (uint64_t i = 1; i <= 3; i++)
        up(r, i, "m", 2);
    for (uint64_t i = 0; i < 6; i++) {
        struct worker *w = route_pick_model(r, SECOND, &q);
        assert_int_equal(w->peer, i % 3 + 1);
        w->open++;
    }
    assert_null(route_pick_model(r, SECOND, &q));
    route_free(r);
    r = route_new((enum route_policy)route_policy_of("least-loaded"));
    up(r, 1, "m", 8)->open = 2;
    up(r, 2, "m", 8)->open = 1;
    route_placed(r, route_find(r, 1), &q);
    assert_int_equal(route_pick_model(r, SECOND, &q)->peer, 2);
    route_free(r);
}

/* A worker that fails everything at once is the least loaded of all: it must not draw everything.
 */
static void a_worker_that_fails_again_and_again(void **state UNUSED)
{
    route *r = route_new(ROUTE_PREFIX);
    struct worker *a = up(r, 1, "m", 8);
    up_as(r, 2, (struct spec){"tokenizer", "m", 0, 8});
    struct route_wish q = prompt(32);
    uint64_t now = SECOND, pause = SHUN_MS * 1000;
    for (uint64_t i = 1; i < FAILURES_MAX; i++)
        route_failed(r, a, now, i);
    for (int i = 0; i < 100; i++) /* one request alone does not close a worker */
        route_failed(r, a, now, FAILURES_MAX - 1);
    assert_ptr_equal(route_pick_model(r, now, &q), a);
    for (uint64_t i = 0; i < 10; i++) {
        route_failed(r, a, now, 100 + i);
        assert_null(route_pick_model(r, now + pause - 1, &q));
        assert_false(route_answers(r, now + pause - 1, q.kind.model, true)); /* it would fail */
        now += pause;
        assert_true(route_answers(r, now, q.kind.model, true));
        assert_ptr_equal(route_pick_model(r, now, &q), a); /* to see whether it works again */
        a->open = 1;
        assert_null(route_pick_model(r, now, &q)); /* with one */
        a->open = 0;
        pause = 2 * pause < SHUN_MAX_MS * 1000 ? 2 * pause : SHUN_MAX_MS * 1000;
    }
    route_failed(r, a, now,
                 109); /* the try is the one that failed last: closed again all the same */
    assert_null(route_pick_model(r, now + pause - 1, &q));
    now += pause;
    route_worked(a);
    a->open = 1;
    assert_ptr_equal(route_pick_model(r, now, &q), a);
    assert_int_equal(route_counts(r).shunned, 11);
    route_free(r);
}

/* While a model's file is being replaced: ids of one file mean nothing to a worker that has the
 * other. */
static void only_the_same_file(void **state UNUSED)
{
    route *r = route_new(ROUTE_PREFIX);
    struct route_wish q = prompt(32);
    char old[DIGEST_BYTES], new[DIGEST_BYTES];
    memset(old, 1, sizeof old);
    memset(new, 2, sizeof new);
    up_as(r, 1, (struct spec){"tokenizer", "m", 1, 8});
    struct worker *w = up_as(r, 2, (struct spec){"model", "m", 2, 8});
    q.kind.weights = (slice){old, sizeof old};
    assert_null(route_pick_model(r, SECOND, &q));
    assert_null(route_any(r, SERVICE_MODEL, q.kind));
    assert_false(route_answers(r, SECOND, q.kind.model, true));
    q.kind.weights = (slice){new, sizeof new};
    assert_ptr_equal(route_pick_model(r, SECOND, &q), w);
    up_as(r, 3, (struct spec){"tokenizer", "m", 2, 8});
    assert_true(route_answers(r, SECOND, q.kind.model, true));
    assert_int_equal(route_pick(r, SECOND, SERVICE_TOKENIZER, q.kind)->peer, 3);
    up_as(r, 4, (struct spec){"model", "silent", 0, 8}); /* of before weights were said */
    q.kind.model = SLICE_LIT("silent");
    assert_int_equal(route_pick_model(r, SECOND, &q)->peer, 4);
    route_free(r);
}

/* The oldest is forgotten, nothing grows. */
static void so_many_are_remembered(void **state UNUSED)
{
    suspects *s = suspects_new();
    struct digest d = {{0}};
    assert_false(suspects_any(s, SECOND));
    for (uint32_t i = 0; i <= SUSPECTS_MAX; i++) {
        memcpy(d.b, &i, sizeof i);
        suspects_condemn(s, &d, 2 * SECOND);
    }
    assert_true(suspects_condemned(s, &d, SECOND));
    assert_false(suspects_condemned(s, &d, 2 * SECOND)); /* for a while only */
    memset(d.b, 0, sizeof d.b);
    assert_false(suspects_condemned(s, &d, SECOND));
    d.b[0] = 1;
    assert_true(suspects_condemned(s, &d, SECOND));
    assert_true(suspects_any(s, SECOND));
    assert_false(suspects_any(s, 2 * SECOND));
    suspects_free(s);
}

static void count_model(void *ctx, const Nunchi__ModelInfo *m)
{
    buf_put_str(ctx, m->name);
}

static void models_once_and_in_order(void **state UNUSED)
{
    route *r = route_new(ROUTE_PREFIX);
    buf names = {0};
    up(r, 1, "b", 1);
    up(r, 2, "a", 1);
    up(r, 3, "b", 1);
    route_models(r, count_model, &names);
    assert_true(slice_eq_str(buf_slice(&names), "ba"));
    buf_reset(&names);
    route_down(r, 2);
    route_find(r, 1)->draining = true;
    route_models(r, count_model, &names);
    assert_true(slice_eq_str(buf_slice(&names), "b"));
    buf_clear(&names);
    route_free(r);
}

/* ---- admission ---- */

static struct ticket ticket(uint8_t tenant, uint8_t client, uint64_t tokens)
{
    return (struct ticket){.tenant = {tenant}, .client = {client}, .tokens = tokens};
}

static void tokens_are_bounded(void **state UNUSED)
{
    struct admit_limits l = {
        .requests_max = 100, .queue_max = 100, .queue_tokens_max = 1000, .tenant_tokens_max = 600};
    admit *a = admit_new(&l);
    struct gw_fail f;
    struct ticket big = ticket(1, 1, 5000), small = ticket(1, 1, 100), other = ticket(2, 2, 500);
    assert_int_equal(admit_check(a, SECOND, &big, 0, &f), 0); /* alone it may: it would never fit */
    admit_enter(a, &small);
    assert_int_equal(admit_check(a, SECOND, &big, 0, &f), ERR_BUSY);
    assert_non_null(strstr(f.why.text, "queue-tokens-max: 1000"));
    admit_tokens(a, &small, 550); /* more than was guessed */
    struct ticket second = ticket(1, 1, 100);
    assert_int_equal(admit_check(a, SECOND, &second, 0, &f), ERR_BUSY);
    assert_non_null(strstr(f.why.text, "key-tokens-max: 600"));
    assert_int_equal(admit_check(a, SECOND, &other, 0, &f), ERR_BUSY); /* 1050 in all */
    other.tokens = 450;
    assert_int_equal(admit_check(a, SECOND, &other, 0, &f), 0); /* of another key */
    admit_placed(a, &small, SECOND);
    admit_placed(a, &small, SECOND);
    assert_int_equal(admit_waiting_tokens(a), 0);
    assert_int_equal(admit_check(a, SECOND, &second, 0, &f), 0);
    admit_leave(a, &small, SECOND);
    admit_leave(a, &small, SECOND);
    admit_free(a);
}

/* 500 tokens a second went to workers; 3,000 too many want in. */
static void retry_after_is_measured(void **state UNUSED)
{
    struct admit_limits l = {.requests_max = 10, .queue_max = 100, .queue_tokens_max = 1000};
    admit *a = admit_new(&l);
    struct gw_fail f;
    struct ticket stays = ticket(1, 1, 100), many = ticket(1, 1, 3000);
    uint64_t now = SECOND;
    admit_enter(a, &stays);
    assert_int_equal(admit_check(a, now, &many, 0, &f), ERR_BUSY);
    assert_int_equal(f.retry_after_ms, 1000); /* nothing known yet */
    for (int i = 0; i < 20; i++, now += SECOND / 2) {
        struct ticket t = ticket(2, 2, 250);
        admit_enter(a, &t);
        admit_placed(a, &t, now);
        admit_leave(a, &t, now);
    }
    assert_int_equal(admit_check(a, now, &many, 0, &f), ERR_BUSY);
    assert_in_range(f.retry_after_ms, 5000, 7000);
    many.tokens = 10000000;
    assert_int_equal(admit_check(a, now, &many, 0, &f), ERR_BUSY);
    assert_int_equal(f.retry_after_ms, 60000);
    many.tokens = 3000; /* an hour's idleness is not slowness */
    assert_int_equal(admit_check(a, now + 3600u * (uint64_t)SECOND, &many, 0, &f), ERR_BUSY);
    assert_in_range(f.retry_after_ms, 5000, 7000);
    assert_int_equal(admit_check(a, now, &(struct ticket){.tenant = {1}}, 100, &f), ERR_BUSY);
    assert_non_null(strstr(f.why.text, "queue-max"));
    assert_int_equal(f.retry_after_ms, 1000); /* two a second are placed */
    admit_leave(a, &stays, now);
    admit_free(a);
}

/* A hundred requests of one client, then one of another: it is the second one in line. */
static void turns_are_fair(void **state UNUSED)
{
    struct admit_limits l = {.requests_max = 1000, .queue_max = 1000};
    admit *a = admit_new(&l);
    struct ticket flood[100], one = ticket(2, 2, 1000);
    for (int i = 0; i < 100; i++) {
        flood[i] = ticket(1, 1, 1000);
        admit_enter(a, &flood[i]);
    }
    admit_placed(a, &flood[0], SECOND);
    admit_placed(a, &flood[1], SECOND);
    admit_enter(a, &one);
    assert_true(one.turn < flood[2].turn);
    assert_true(one.turn >= flood[1].turn);
    struct ticket next = ticket(2, 2, 1000);
    admit_enter(a, &next); /* then they take turns */
    assert_true(next.turn > flood[2].turn - 1000 && next.turn < flood[4].turn);
    for (int i = 0; i < 100; i++)
        admit_leave(a, &flood[i], SECOND);
    admit_leave(a, &one, SECOND);
    admit_leave(a, &next, SECOND);
    admit_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holders_newest_first),
        cmocka_unit_test(bounded_and_what_is_used_stays),
        cmocka_unit_test(a_prefix_draws_and_load_drives_away),
        cmocka_unit_test(rates_decide),
        cmocka_unit_test(fetching_counts),
        cmocka_unit_test(what_made_room_is_not_counted_on),
        cmocka_unit_test(holders_that_left_are_forgotten),
        cmocka_unit_test(among_a_thousand),
        cmocka_unit_test(other_policies),
        cmocka_unit_test(a_worker_that_fails_again_and_again),
        cmocka_unit_test(only_the_same_file),
        cmocka_unit_test(so_many_are_remembered),
        cmocka_unit_test(models_once_and_in_order),
        cmocka_unit_test(tokens_are_bounded),
        cmocka_unit_test(retry_after_is_measured),
        cmocka_unit_test(turns_are_fair),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
