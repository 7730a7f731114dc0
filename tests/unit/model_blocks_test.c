/* The scheduler's parts: the block pool, the fair queue, the measured pace. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model-svc/blocks.h"
#include "model-svc/fair.h"

static struct digest name(uint8_t i)
{
    struct digest d = {{0}};
    d.b[0] = i;
    return d;
}

static void test_published_blocks_stay_until_needed(void **state)
{
    (void)state;
    kvpool *p = kvpool_new(4);
    uint32_t b[4];
    for (uint8_t i = 0; i < 4; i++) {
        struct digest d = name(i);
        b[i] = kvpool_take(p);
        assert_true(kvpool_writable(p, b[i]));
        assert_int_equal(kvpool_publish(p, b[i], &d), b[i]);
        assert_false(kvpool_writable(p, b[i]));
    }
    assert_int_equal(kvpool_take(p), KVPOOL_NONE);
    for (int i = 3; i >= 0; i--)
        kvpool_unref(p, b[i]);
    assert_int_equal(kvpool_available(p), 4);
    assert_int_equal(kvpool_cached(p), 4);
    struct digest d0 = name(0), d3 = name(3), d2 = name(2);
    assert_int_equal(kvpool_find(p, &d3), b[3]); /* used again: now the last to go */
    kvpool_unref(p, b[3]);
    assert_int_equal(kvpool_take(p), b[2]);
    assert_int_equal(kvpool_find(p, &d2), KVPOOL_NONE);
    assert_int_equal(kvpool_find(p, &d0), b[0]);
    kvpool_free(p);
}

static void test_same_content_is_one_block(void **state)
{
    (void)state;
    kvpool *p = kvpool_new(4);
    struct digest d = name(1);
    uint32_t x = kvpool_take(p), y = kvpool_take(p);
    assert_int_equal(kvpool_publish(p, x, &d), x);
    assert_int_equal(kvpool_publish(p, y, &d), x);
    assert_int_equal(kvpool_available(p), 3);
    kvpool_unref(p, x);
    assert_int_equal(kvpool_available(p), 3);
    kvpool_unref(p, x);
    assert_int_equal(kvpool_available(p), 4);
    kvpool_free(p);
}

static void test_blocks_without_memory_go_first(void **state)
{
    (void)state;
    kvpool *p = kvpool_new(2);
    struct digest d = name(1);
    uint32_t x = kvpool_take(p), y = kvpool_take(p);
    kvpool_publish(p, x, &d);
    kvpool_unref(p, x);
    kvpool_unref(p, y);
    assert_int_equal(kvpool_take(p), y);
    assert_int_equal(kvpool_cached(p), 1);
    kvpool_free(p);
}

struct waiting {
    struct fair_entry e;
    int tag;
};

static int next_tag(fairq *q)
{
    struct fair_entry *e = fairq_head(q);
    if (!e)
        return -1;
    int tag = CONTAINER_OF(e, struct waiting, e)->tag;
    fairq_remove(q, e);
    return tag;
}

static void test_flows_take_turns(void **state)
{
    (void)state;
    fairq *q = fairq_new();
    fair_flow *a = fairq_flow_ref(q, SLICE_LIT("a"), 1), *b = fairq_flow_ref(q, SLICE_LIT("b"), 1);
    struct waiting w[6] = {{.tag = 0}, {.tag = 1}, {.tag = 2}, {.tag = 3}, {.tag = 4}, {.tag = 5}};
    for (int i = 0; i < 4; i++)
        fairq_push(q, a, &w[i].e, false);
    fairq_push(q, b, &w[4].e, false);
    fairq_push(q, b, &w[5].e, false);
    int order[6];
    for (int i = 0; i < 6; i++) {
        order[i] = next_tag(q);
        fairq_charge(order[i] < 4 ? a : b, 10);
    }
    const int expect[6] = {0, 4, 1, 5, 2, 3};
    assert_memory_equal(order, expect, sizeof order);
    fairq_push(q, a, &w[0].e, false);
    fairq_push(q, a, &w[1].e, true); /* put back: before the others */
    assert_int_equal(next_tag(q), 1);
    assert_int_equal(next_tag(q), 0);
    assert_int_equal(fairq_len(q), 0);
    fairq_flow_unref(q, a);
    fairq_flow_unref(q, b);
    fairq_free(q);
}

static void test_weights_share(void **state)
{
    (void)state;
    fairq *q = fairq_new();
    fair_flow *batch = fairq_flow_ref(q, SLICE_LIT("b"), 1),
              *urgent = fairq_flow_ref(q, SLICE_LIT("u"), 16);
    struct waiting w[2] = {{.tag = 0}, {.tag = 1}};
    int served[2] = {0};
    fairq_push(q, batch, &w[0].e, false);
    fairq_push(q, urgent, &w[1].e, false);
    for (int i = 0; i < 1700; i++) {
        int t = next_tag(q);
        assert_in_range(t, 0, 1);
        served[t]++;
        fairq_charge(t ? urgent : batch, 7);
        fairq_push(q, t ? urgent : batch, &w[t].e, true);
    }
    assert_in_range(served[0], 99, 101);
    fairq_remove(q, &w[0].e);
    fairq_remove(q, &w[1].e);
    fairq_flow_unref(q, batch);
    fairq_flow_unref(q, urgent);
    fairq_free(q);
}

/* A newcomer begins beside the one that has had least, not with all the time of the past. */
static void test_newcomer_is_owed_nothing(void **state)
{
    (void)state;
    fairq *q = fairq_new();
    fair_flow *a = fairq_flow_ref(q, SLICE_LIT("a"), 4);
    fairq_charge(a, 1000000);
    fair_flow *b = fairq_flow_ref(q, SLICE_LIT("b"), 4);
    assert_true(fairq_flow_time(a) == fairq_flow_time(b));
    fairq_flow_unref(q, a);
    fairq_flow_unref(q, b);
    fairq_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_blocks_stay_until_needed),
        cmocka_unit_test(test_same_content_is_one_block),
        cmocka_unit_test(test_blocks_without_memory_go_first),
        cmocka_unit_test(test_flows_take_turns),
        cmocka_unit_test(test_weights_share),
        cmocka_unit_test(test_newcomer_is_owed_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
