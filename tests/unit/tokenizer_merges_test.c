#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tokenizer-svc/cache.h"
#include "tokenizer-svc/literals.h"
#include "tokenizer-svc/merges.h"

static uint32_t seed = 12345;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

/* The rule itself: again and again the pair of lowest rank, the leftmost of equals. */
static size_t by_the_rule(const merges *m, int32_t *sym, size_t n)
{
    for (;;) {
        uint32_t best = MERGE_NONE;
        size_t at = 0;
        int32_t into = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            int32_t merged;
            uint32_t rank = merges_rank(m, sym[i], sym[i + 1], &merged);
            if (rank < best) {
                best = rank;
                at = i;
                into = merged;
            }
        }
        if (best == MERGE_NONE)
            return n;
        sym[at] = into;
        memmove(sym + at + 1, sym + at + 2, (n - at - 2) * sizeof *sym);
        n--;
    }
}

/* Ranks that are unique and grow with the length of the result, over an alphabet of three. */
static merges *some_merges(void)
{
    merges *m = merges_new();
    for (uint32_t i = 0; i < 3000; i++) {
        int32_t l = (int32_t)random_below(i < 60 ? 3 : 60 + i / 8),
                r = (int32_t)random_below(i < 60 ? 3 : 60 + i / 8);
        assert_int_equal(merges_add(m, l, r, i * 7 + 1, (int32_t)(60 + i)), 0);
    }
    return m;
}

static void merging_follows_the_rule_at_every_length(void **state)
{
    (void)state;
    merges *m = some_merges();
    struct merge_scratch s = {0};
    for (size_t round = 0; round < 400; round++) {
        int32_t a[600], b[600];
        size_t n = random_below(round % 2 ? 600 : 60);
        for (size_t i = 0; i < n; i++)
            a[i] = b[i] = (int32_t)random_below(3);
        size_t want = by_the_rule(m, b, n);
        assert_int_equal(merges_apply(m, &s, a, &n), 0);
        assert_int_equal(n, want);
        assert_memory_equal(a, b, n * sizeof *a);
    }
    merge_scratch_clear(&s);
    merges_free(m);
}

/* By the rule alone this would take hours. */
static void a_million_equal_symbols_are_no_trouble(void **state)
{
    (void)state;
    enum { N = 1000003 };
    merges *m = merges_new();
    struct merge_scratch s = {0};
    for (int32_t i = 0; i < 12; i++) /* 0 0 -> 1, 1 1 -> 2 … */
        assert_int_equal(merges_add(m, i, i, (uint32_t)i, i + 1), 0);
    int32_t *sym = try_calloc(N, sizeof *sym);
    assert_non_null(sym);
    size_t n = N;
    assert_int_equal(merges_apply(m, &s, sym, &n), 0);
    assert_int_equal(n, N / 4096 + 4); /* 1000003 = 244 * 4096 + 512 + 64 + 2 + 1 */
    for (size_t i = 0; i < n - 4; i++)
        assert_int_equal(sym[i], 12);
    assert_int_equal(sym[n - 4], 9);
    assert_int_equal(sym[n - 1], 0);
    assert_int_equal(s.cap, 0); /* such scratch is not kept */
    free(sym);
    merges_free(m);
}

static void the_first_rank_of_a_pair_stays(void **state)
{
    (void)state;
    merges *m = merges_new();
    int32_t merged;
    assert_int_equal(merges_rank(m, 1, 2, &merged), MERGE_NONE);
    assert_int_equal(merges_add(m, 1, 2, 7, 3), 0);
    assert_int_equal(merges_add(m, 1, 2, 5, 4), 0);
    assert_int_equal(merges_rank(m, 1, 2, &merged), 7);
    assert_int_equal(merged, 3);
    assert_int_equal(merges_rank(m, 2, 1, &merged), MERGE_NONE);
    assert_int_equal(merges_len(m), 1);
    merges_free(m);
}

static void literals_are_found_leftmost_and_longest(void **state)
{
    (void)state;
    literals *l = literals_new();
    size_t at, len;
    literals_add(l, SLICE_LIT("\n"), 1);
    literals_add(l, SLICE_LIT("\n\n\n"), 3);
    literals_add(l, SLICE_LIT("<a>"), 4);
    literals_add(l, SLICE_LIT(""), 5);
    literals_ready(l);
    assert_int_equal(literals_find(l, SLICE_LIT("x<a"), 0, &at, &len), -1);
    assert_int_equal(literals_find(l, SLICE_LIT("x\n\n<a>"), 0, &at, &len), 1);
    assert_int_equal(at, 1);
    assert_int_equal(len, 1);
    assert_int_equal(literals_find(l, SLICE_LIT("\n\n\n\n"), 0, &at, &len), 3);
    assert_int_equal(literals_find(l, SLICE_LIT("\n\n\n\n"), 3, &at, &len), 1);
    assert_int_equal(literals_find(l, SLICE_LIT("<<a>"), 0, &at, &len), 4);
    assert_int_equal(at, 1);
    literals_free(l);
}

static void the_cache_forgets_but_never_lies(void **state)
{
    (void)state;
    struct word_cache c;
    word_cache_init(&c);
    for (uint32_t i = 0; i < 100000; i++) {
        char text[16];
        int32_t id = (int32_t)i;
        size_t n = 1 + random_below(15);
        for (size_t k = 0; k < n; k++)
            text[k] = (char)('a' + random_below(4));
        slice s = {text, n};
        struct word *w = word_cache_slot(&c, s);
        assert_non_null(w);
        if (word_is(w, s))
            assert_true(w->n == 1);
        word_set(w, s, &id, 1);
        assert_true(word_is(w, s) && w->ids[0] == id);
    }
    char longest[WORD_BYTES_MAX + 1] = {0};
    assert_non_null(word_cache_slot(&c, (slice){longest, WORD_BYTES_MAX}));
    assert_null(word_cache_slot(&c, (slice){longest, WORD_BYTES_MAX + 1}));
    int32_t many[WORD_IDS_MAX + 1] = {0};
    struct word *w = word_cache_slot(&c, SLICE_LIT("zz"));
    word_set(w, SLICE_LIT("zz"), many, WORD_IDS_MAX + 1);
    assert_false(word_is(w, SLICE_LIT("zz")));
    word_cache_clear(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_follows_the_rule_at_every_length),
        cmocka_unit_test(a_million_equal_symbols_are_no_trouble),
        cmocka_unit_test(the_first_rank_of_a_pair_stays),
        cmocka_unit_test(literals_are_found_leftmost_and_longest),
        cmocka_unit_test(the_cache_forgets_but_never_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
