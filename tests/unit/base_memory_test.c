/* arena, map, list */
#include "tests/unit/base_testing.h"

#include <stdio.h>

#include "common/base/shared.h"
#include "common/base/arena.h"
#include "common/base/list.h"
#include "common/base/map.h"

static void an_arena_gives_zeroed_aligned_memory(void **state UNUSED)
{
    arena *a = arena_new(0);
    for (int round = 0; round < 3; round++) {
        for (size_t n = 0; n < 20000; n += 1 + n / 3) {
            unsigned char *p = arena_get(a, n);
            assert_int_equal((uintptr_t)p % 16, 0);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(p[i], 0);
            memset(p, 0xAA, n);
        }
        assert_true(arena_used(a) > 20000);
        arena_reset(a);
        assert_int_equal(arena_used(a), 0);
    }
    slice s = arena_slice(a, SLICE_LIT("a\0b"));
    assert_slice(s, SLICE_LIT("a\0b"));
    assert_int_equal(s.p[3], 0);
    assert_text(arena_slice(a, (slice){NULL, 0}), "");
    arena_free(a);
    arena_free(NULL);
}

static void a_budget_is_kept(void **state UNUSED)
{
    arena *a = arena_new(1000);
    assert_null(arena_try(a, 1001));
    assert_null(arena_try(a, SIZE_MAX));
    assert_null(arena_try(a, SIZE_MAX - 15));
    size_t n = 0;
    while (arena_try(a, 1))
        n++;
    assert_int_equal(n, 1000 / 16);
    assert_true(arena_used(a) <= 1000);
    arena_reset(a);
    assert_non_null(arena_try(a, 900));
    assert_null(arena_try(a, 900));
    arena_free(a);
}

static void beyond_budget(void)
{
    arena_get(arena_new(10), 100);
}

static void arena_get_is_for_limited_sizes(void **state UNUSED)
{
    assert_true(dies(beyond_budget));
}

static slice numbered(char text[64], int i)
{
    /* both inline and long keys */
    int n =
        snprintf(text, 64, i % 2 ? "key-%d" : "a-much-longer-key-that-does-not-fit-inline-%d", i);
    return (slice){text, (size_t)n};
}

static void a_map_finds_what_was_put(void **state UNUSED)
{
    enum { N = 5000 };
    static int values[N];
    char text[64];
    map *m = map_new();
    for (int i = 0; i < N; i++)
        assert_null(map_put(m, numbered(text, i), &values[i]));
    assert_int_equal(map_len(m), N);
    for (int i = 0; i < N; i++)
        assert_ptr_equal(map_get(m, numbered(text, i)), &values[i]);
    assert_ptr_equal(map_put(m, numbered(text, 7), &values[8]), &values[7]);
    assert_int_equal(map_len(m), N);
    for (int i = 0; i < N; i += 2)
        assert_non_null(map_del(m, numbered(text, i)));
    assert_null(map_del(m, numbered(text, 0)));
    for (int i = 0; i < N; i++)
        assert_int_equal(map_get(m, numbered(text, i)) != NULL, i % 2);
    assert_int_equal(map_len(m), N / 2);
    map_free(m);
    map_free(NULL);
}

static void keys_are_bytes(void **state UNUSED)
{
    int a, b, c;
    map *m = map_new();
    map_put(m, SLICE_LIT(""), &a);
    map_put(m, SLICE_LIT("x\0y"), &b);
    map_put(m, SLICE_LIT("x\0z"), &c);
    assert_ptr_equal(map_get(m, (slice){NULL, 0}), &a);
    assert_ptr_equal(map_get(m, SLICE_LIT("x\0y")), &b);
    assert_null(map_get(m, SLICE_LIT("x")));
    map_put_u64(m, 0, &a);
    map_put_u64(m, UINT64_MAX, &b);
    assert_ptr_equal(map_get_u64(m, UINT64_MAX), &b);
    assert_ptr_equal(map_del_u64(m, 0), &a);
    assert_null(map_get_u64(m, 0));
    map_free(m);
}

static void a_walk_sees_all_and_may_delete(void **state UNUSED)
{
    enum { N = 1000 };
    static bool seen[N];
    static int values[N];
    map *m = map_new();
    for (uint64_t i = 0; i < N; i++)
        map_put_u64(m, i, &values[i]);
    size_t it = 0, n = 0;
    slice key;
    void *value;
    while (map_next(m, &it, &key, &value)) {
        uint64_t k;
        memcpy(&k, key.p, sizeof k);
        assert_false(seen[k]);
        assert_ptr_equal(value, &values[k]);
        seen[k] = true;
        n++;
        assert_ptr_equal(map_del_u64(m, k), value);
    }
    assert_int_equal(n, N);
    assert_int_equal(map_len(m), 0);
    map_free(m);
}

/* Graves of a million entries that came and went must neither fill the table nor make it endless.
 */
static void coming_and_going_does_not_grow_it(void **state UNUSED)
{
    int v;
    map *m = map_new();
    for (uint64_t i = 0; i < 200000; i++) {
        map_put_u64(m, i, &v);
        if (i >= 10)
            assert_ptr_equal(map_del_u64(m, i - 10), &v);
    }
    assert_int_equal(map_len(m), 10);
    assert_null(map_get_u64(m, 1u << 30));
    size_t it = 0;
    while (map_next(m, &it, NULL, NULL))
        ;
    assert_in_range(it, 16, 64); /* slots */
    map_free(m);
}

struct item {
    int v;
    struct list link;
};

static void a_list_keeps_order(void **state UNUSED)
{
    struct list head;
    struct item items[4] = {{0}};
    list_init(&head);
    assert_true(list_empty(&head));
    assert_null(list_first(&head));
    for (int i = 0; i < 4; i++) {
        items[i].v = i;
        list_append(&head, &items[i].link);
    }
    list_remove(&items[2].link);
    list_remove(&items[2].link);
    int sum = 0;
    LIST_EACH(it, &head)
    {
        sum = sum * 10 + CONTAINER_OF(it, struct item, link)->v;
        list_remove(it);
    }
    assert_int_equal(sum, 13);
    assert_true(list_empty(&head));
}

static void a_list_is_popped_from_its_front(void **state UNUSED)
{
    struct list head;
    struct item items[3] = {{0}};
    list_init(&head);
    assert_null(list_pop(&head));
    for (int i = 0; i < 3; i++)
        list_append(&head, &items[i].link);
    for (int i = 0; i < 3; i++) {
        struct list *it = list_pop(&head);
        assert_ptr_equal(it, &items[i].link);
        assert_true(list_empty(it)); /* linked to itself: removing it again is harmless */
        list_remove(it);
        assert_true(i == 2 ? list_empty(&head) : list_first(&head) == &items[i + 1].link);
    }
    assert_null(list_pop(&head));
}

static void shared_bytes_become_fewer(void **state UNUSED)
{
    shared *s = shared_new(10);
    memcpy(shared_bytes(s), "0123456789", 10);
    shared_narrow(s, (slice){shared_bytes(s) + 3, 5});
    assert_int_equal(shared_slice(s).n, 5);
    assert_memory_equal(shared_bytes(s), "34567", 5);
    shared_narrow(s, (slice){shared_bytes(s) + 4, 1}); /* counted from what is left */
    assert_memory_equal(shared_slice(s).p, "7", 1);
    shared_narrow(s, (slice){shared_bytes(s) + 1, 0});
    assert_int_equal(shared_slice(s).n, 0);
    shared_unref(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_bytes_become_fewer),
        cmocka_unit_test(an_arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(a_budget_is_kept),
        cmocka_unit_test(arena_get_is_for_limited_sizes),
        cmocka_unit_test(a_map_finds_what_was_put),
        cmocka_unit_test(keys_are_bytes),
        cmocka_unit_test(a_walk_sees_all_and_may_delete),
        cmocka_unit_test(coming_and_going_does_not_grow_it),
        cmocka_unit_test(a_list_keeps_order),
        cmocka_unit_test(a_list_is_popped_from_its_front),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
