/* Guesses from what was said before: the finder against a plain search, and the odds. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "model-svc/draft.h"

static uint32_t rnd(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*s >> 33);
}

static struct draft_text whole(const int32_t *ids, uint32_t n, uint32_t prompt)
{
    prompt = prompt < n ? prompt : n;
    return (struct draft_text){ids, ids + prompt, prompt, n - prompt};
}

static void test_goes_on_as_before(void **state)
{
    (void)state;
    static const int32_t ids[] = {1, 2, 3, 4, 5, 9, 2, 3, 7, 8, 1, 2, 3};
    int32_t out[DRAFT_MAX];
    struct draft_source from;
    struct drafter d = {0};
    struct draft_text t = whole(ids, ARRAY_LEN(ids), 6);
    /* "1 2 3" at the beginning is a longer match than the later "2 3" */
    assert_int_equal(drafter_guess(&d, &t, out, 3, &from), 3);
    assert_int_equal(from.match, 3);
    assert_true(from.agreed);
    assert_memory_equal(out, ((int32_t[]){4, 5, 9}), 3 * sizeof out[0]);
    drafter_clear(&d);
}

static void test_round_and_round(void **state)
{
    (void)state;
    static const int32_t ids[] = {7, 5, 6, 5, 6};
    int32_t out[DRAFT_MAX];
    struct draft_source from;
    struct drafter d = {0};
    struct draft_text t = whole(ids, ARRAY_LEN(ids), 2);
    assert_int_equal(drafter_guess(&d, &t, out, 5, &from), 5);
    assert_memory_equal(out, ((int32_t[]){5, 6, 5, 6, 5}), 5 * sizeof out[0]);
    drafter_clear(&d);
}

static void test_nothing_to_go_by(void **state)
{
    (void)state;
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7};
    int32_t out[DRAFT_MAX];
    struct draft_source from;
    struct drafter d = {0};
    for (uint32_t n = 0; n <= ARRAY_LEN(ids); n++) {
        struct draft_text t = whole(ids, n, 4);
        assert_int_equal(drafter_guess(&d, &t, out, 5, &from), 0);
        assert_int_equal(from.match, 0);
    }
    drafter_clear(&d);
}

/* The longest match of all earlier places, by looking at every one. */
static uint32_t longest(const int32_t *ids, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t end = 0; end + 1 < n; end++) {
        uint32_t m = 0;
        while (m <= end && m < 16 && ids[end - m] == ids[n - 1 - m])
            m++;
        best = m > best ? m : best;
    }
    return best;
}

/* Text that grows id by id: as good as searching all of it as long as pairs are rare, never a match
 * that is none, and the same whether it was seen growing or at once. */
static void test_against_a_plain_search(void **state)
{
    (void)state;
    static int32_t ids[3000];
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t s = seed;
        for (uint32_t i = 0; i < 3000; i++)
            ids[i] = i > 50 && rnd(&s) % 20 ? ids[rnd(&s) % 8 ? i - 50 : rnd(&s) % i]
                                            : (int32_t)(rnd(&s) % 5000);
        struct drafter d = {0};
        uint32_t found = 0, best = 0;
        for (uint32_t n = 1; n < 3000; n += 1 + rnd(&s) % 9) {
            int32_t out[8], again[8];
            struct draft_source from, from_again;
            struct draft_text t = whole(ids, n, (uint32_t)seed * 100);
            uint32_t got = drafter_guess(&d, &t, out, 8, &from), match = from.match,
                     most = longest(ids, n);
            assert_true(match <= most);
            assert_int_equal(got, match ? 8 : 0);
            found += most > 0;
            best += most > 0 && match == most;
            if (n % 7)
                continue;
            struct drafter fresh = {0};
            assert_int_equal(drafter_guess(&fresh, &t, again, 8, &from_again), got);
            assert_int_equal(match, from_again.match);
            assert_int_equal(from.agreed, from_again.agreed);
            assert_memory_equal(out, again, got * sizeof out[0]);
            drafter_clear(&fresh);
        }
        assert_true(found > 200 && best * 100 >= found * 95);
        drafter_clear(&d);
    }
}

/* One pair everywhere: looking back ends after a few places, so that each id costs the same. */
static void test_monotonous_text_is_no_trap(void **state)
{
    (void)state;
    enum { N = 400000 };
    int32_t *ids = xcalloc(N, sizeof *ids), out[8];
    for (uint32_t i = 0; i < N; i++)
        ids[i] = i % 3 == 2 ? (int32_t)i : 1; /* 1 1 x 1 1 y */
    struct drafter d = {0};
    struct draft_source from;
    for (uint32_t n = 3; n < N; n++) { /* minutes if every place were looked at */
        struct draft_text t = whole(ids, n, 10);
        (void)drafter_guess(&d, &t, out, 8, &from);
        assert_true(from.match <= 2);
    }
    drafter_clear(&d);
    free(ids);
}

/* What most say, by how long they agree with what was said before; else what the newest says. */
static void test_places_are_asked(void **state)
{
    (void)state;
    static const int32_t most[] = {1, 2, 7, 1, 2, 7, 1, 2, 8, 1, 2};
    static const int32_t one[] = {5, 9, 6, 9, 4, 8, 9};
    int32_t out[DRAFT_MAX];
    struct draft_source from;
    struct drafter d = {0};
    struct draft_text t = whole(most, 6 + 5, 3);
    assert_int_equal(drafter_guess(&d, &t, out, 2, &from), 2);
    assert_int_equal(out[0], 7);
    drafter_clear(&d);
    t = whole(one, ARRAY_LEN(one), 3);
    assert_int_equal(drafter_guess(&d, &t, out, 1, &from), 1);
    assert_int_equal(out[0], 4);
    assert_int_equal(from.match, 1);
    drafter_clear(&d);
}

static void test_odds(void **state)
{
    (void)state;
    struct draft_odds own = {0}, all = {0};
    const struct draft_source two = {2, true}, nine = {9, true}, split = {2, false};
    float first = draft_chance(&own, &all, &two, 0);
    assert_true(first > 0.3f && first < 0.7f);
    for (int i = 0; i < 200; i++)
        draft_seen(&all, &two, 0, false);
    assert_true(draft_chance(&own, &all, &two, 0) < 0.1f);
    /* longer matches, places that do not agree, and ids behind one that came true are others */
    assert_true(draft_chance(&own, &all, &nine, 0) == first);
    assert_true(draft_chance(&own, &all, &split, 0) == first);
    assert_true(draft_chance(&own, &all, &two, 1) == first);
    for (int i = 0; i < 40; i++)
        draft_seen(&own, &two, 0, true);
    assert_true(draft_chance(&own, &all, &two, 0) > 0.7f); /* this answer is not like the others */
    for (int i = 0; i < 100; i++)
        draft_seen(&own, &two, 0, i % 2);
    float half = draft_chance(&own, &all, &two, 0);
    assert_true(half > 0.4f && half < 0.6f);      /* what was long ago is forgotten */
    for (uint32_t match = 1; match < 40; match++) /* every class has a place */
        for (uint32_t nth = 0; nth < DRAFT_MAX; nth++)
            draft_seen(&own, &(struct draft_source){match, nth % 2}, nth, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on_as_before),
        cmocka_unit_test(test_round_and_round),
        cmocka_unit_test(test_nothing_to_go_by),
        cmocka_unit_test(test_against_a_plain_search),
        cmocka_unit_test(test_monotonous_text_is_no_trap),
        cmocka_unit_test(test_places_are_asked),
        cmocka_unit_test(test_odds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
