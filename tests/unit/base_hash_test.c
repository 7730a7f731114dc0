#include "tests/unit/base_testing.h"

#include <stdio.h>

#include "common/base/hash.h"

static void is_digest(struct digest d, const char *hex)
{
    char text[2 * DIGEST_BYTES + 1];
    hex_encode(d.b, DIGEST_BYTES, text);
    assert_string_equal(text, hex);
}

/* Made with another implementation: Python's hashlib.blake2b(data, digest_size=32, key=key), which
 * passes the vectors of RFC 7693. Key: the bytes 0..63; data: the bytes 0..n-1. Lengths around the
 * block of 128 bytes. */
static const struct {
    size_t n;
    const char *hex;
} KEYED[] = {
    {0, "2fa9fbd9be36437de204e139e97d402bce68c828f43391608c891b5faed8a98a"},
    {1, "34758b647135628297fb09c7930cd04e9528e5669112f5b1318493e14de77e55"},
    {3, "3e57c5ab79418defd6e252719a380096d9abf1901db38e0be7d404eb7206c0dc"},
    {64, "28c89a7c58f807ae33bc5aae78340e9c565290597436632f4613dbe33192c5db"},
    {127, "7c0bfe069b3ba04e2c88bac200999e2b1c9ef2f96f9ffa69b665efca9230c9ab"},
    {128, "6a591b356f19ca93ae2bcc7406653ff34aea53cea58bec62803e571d94944165"},
    {129, "20f607da31ed9652deecf4ef78905d4916ba6f5df37bfc4b610d50ba5447623a"},
    {255, "fe7b76a61787c089141f9e10fca1e5092488d89c62ea793fb2c5b1f849b4f2cb"},
};

static char counting[256]; /* 0, 1, 2 … */

static int fill_counting(void **state UNUSED)
{
    for (int i = 0; i < 256; i++)
        counting[i] = (char)i;
    return 0;
}

static void known_answers_without_key(void **state UNUSED)
{
    slice none = {NULL, 0};
    is_digest(digest_of(none, none),
              "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    is_digest(digest_of(none, SLICE_LIT("abc")),
              "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    char *big = xcalloc(1000003, 1);
    for (size_t i = 0; i < 1000003; i++)
        big[i] = (char)(i * 7);
    is_digest(digest_of(none, (slice){big, 1000003}),
              "dca33784c2b4ada1b2c5d42b94dd8eaf5cd563a8496dc04bc71d64a49542f5ed");
    free(big);
}

static void known_answers_with_key(void **state UNUSED)
{
    slice key = {counting, 64};
    for (size_t i = 0; i < ARRAY_LEN(KEYED); i++)
        is_digest(digest_of(key, (slice){counting, KEYED[i].n}), KEYED[i].hex);
    is_digest(digest_of((slice){counting, 16}, (slice){counting, 255}),
              "5dd6242b6a1533ae8905f49649480e26bd91787af98125bb67d2c154882732b9");
}

static void pieces_hash_like_the_whole(void **state UNUSED)
{
    for (size_t cut = 0; cut <= 255; cut += 17) {
        digest_stream *s = digest_begin((slice){counting, 64});
        digest_add(s, counting, cut);
        digest_add(s, counting + cut, 255 - cut);
        is_digest(digest_end(s), KEYED[7].hex);
    }
}

static void numbers_and_slices_have_one_encoding(void **state UNUSED)
{
    digest_stream *s = digest_begin((slice){NULL, 0});
    digest_add_u32(s, 0x04030201);
    digest_add_u64(s, 0x0807060504030201);
    digest_add_slice(s, SLICE_LIT("ab"));
    struct digest got = digest_end(s);
    slice bytes = SLICE_LIT("\1\2\3\4\1\2\3\4\5\6\7\x08\2\0\0\0\0\0\0\0ab");
    struct digest want = digest_of((slice){NULL, 0}, bytes);
    assert_true(digest_eq(&got, &want));

    digest_stream *a = digest_begin((slice){NULL, 0}), *b = digest_begin((slice){NULL, 0});
    digest_add_slice(a, SLICE_LIT("ab"));
    digest_add_slice(a, SLICE_LIT("c"));
    digest_add_slice(b, SLICE_LIT("a"));
    digest_add_slice(b, SLICE_LIT("bc"));
    struct digest da = digest_end(a), db = digest_end(b);
    assert_false(digest_eq(&da, &db));
}

static void zero_is_told_apart(void **state UNUSED)
{
    struct digest d = {{0}};
    assert_true(digest_is_zero(&d));
    d.b[31] = 1;
    assert_false(digest_is_zero(&d));
}

static void short_key(void)
{
    digest_of(SLICE_LIT("short"), SLICE_LIT("x"));
}

static void long_key(void)
{
    digest_of((slice){counting, 65}, SLICE_LIT("x"));
}

static void a_weak_key_is_our_mistake(void **state UNUSED)
{
    assert_true(dies(short_key));
    assert_true(dies(long_key));
}

static void a_checksum_is_the_published_one(void **state UNUSED)
{
    uint8_t sum[16];
    char text[33];
    checksum128("abc", 3, sum);
    hex_encode(sum, 16, text);
    assert_string_equal(text, "06b05ab6733a618578af5f94892f3950");
    uint8_t other[16];
    checksum128("abd", 3, other);
    assert_memory_not_equal(sum, other, 16);
}

static void a_table_hash_is_seeded_per_process(void **state UNUSED)
{
    assert_true(hash64("abc", 3) == hash64("abc", 3));
    assert_true(hash64("abc", 3) != hash64("abd", 3));
    /* A child made by fork shares the secret; only a fresh one differs, so that is what is asked.
     */
    uint64_t unseeded = 0x78af5f94892f3950; /* XXH3_64bits("abc") */
    assert_true(hash64("abc", 3) != unseeded);
}

static const char *const NODES[] = {"cache-a", "cache-b", "cache-c"};

/* These numbers decide where blocks lie: a change moves every cluster's cache. */
static void rendezvous_is_the_same_everywhere(void **state UNUSED)
{
    static const uint64_t WANT[] = {0xc7962a452067e4cd, 0x5f16b974142591bb, 0xd08656c3049573ea};
    for (size_t i = 0; i < ARRAY_LEN(NODES); i++)
        assert_true(hash_rendezvous(SLICE_LIT("block-0001"), slice_str(NODES[i])) == WANT[i]);
}

static size_t holder(slice key, size_t n_nodes)
{
    size_t best = 0;
    for (size_t i = 1; i < n_nodes; i++)
        if (hash_rendezvous(key, slice_str(NODES[i])) >
            hash_rendezvous(key, slice_str(NODES[best])))
            best = i;
    return best;
}

static void rendezvous_spreads_and_moves_little(void **state UNUSED)
{
    size_t held[3] = {0};
    for (int i = 0; i < 30000; i++) {
        char key[32];
        slice k = {key, (size_t)snprintf(key, sizeof key, "block-%d", i)};
        size_t three = holder(k, 3), two = holder(k, 2);
        held[three]++;
        if (three != 2) /* a node that goes away moves its own keys alone */
            assert_int_equal(two, three);
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(held[i], 9500, 10500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers_without_key),
        cmocka_unit_test(known_answers_with_key),
        cmocka_unit_test(pieces_hash_like_the_whole),
        cmocka_unit_test(numbers_and_slices_have_one_encoding),
        cmocka_unit_test(zero_is_told_apart),
        cmocka_unit_test(a_weak_key_is_our_mistake),
        cmocka_unit_test(a_checksum_is_the_published_one),
        cmocka_unit_test(a_table_hash_is_seeded_per_process),
        cmocka_unit_test(rendezvous_is_the_same_everywhere),
        cmocka_unit_test(rendezvous_spreads_and_moves_little),
    };
    return cmocka_run_group_tests(tests, fill_counting, NULL);
}
