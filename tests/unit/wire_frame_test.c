/* The header and the limits of the wire; the block hashes that every service must agree on. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/wire/blockhash.h"
#include "common/wire/frame.h"

static const struct wire_head full = {
    .type = WIRE_CHUNK,
    .flags = WIRE_END | WIRE_MANY | 0x8000,
    .request = UINT64_C(0x0102030405060708),
    .attempt = 0x090a0b0c,
    .sequence = 0x0d0e0f10,
    .trace = {0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d,
              0x2e, 0x2f},
    .span = {0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37},
};

static void header_there_and_back(void **state UNUSED)
{
    unsigned char bytes[WIRE_HEAD_BYTES];
    struct wire_head got;
    wire_head_put(&(struct wire_msg){.head = full}, bytes);
    assert_int_equal(wire_head_get((slice){(char *)bytes, sizeof bytes}, &got), 0);
    assert_int_equal(got.type, full.type);
    assert_int_equal(got.flags, full.flags);
    assert_true(got.request == full.request);
    assert_int_equal(got.attempt, full.attempt);
    assert_int_equal(got.sequence, full.sequence);
    assert_memory_equal(got.trace, full.trace, sizeof got.trace);
    assert_memory_equal(got.span, full.span, sizeof got.span);
}

static void bad_headers(void **state UNUSED)
{
    unsigned char bytes[WIRE_HEAD_BYTES + 1] = {0}, good[WIRE_HEAD_BYTES];
    struct wire_head got;
    wire_head_put(&(struct wire_msg){.head = full}, good);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        memcpy(bytes, good, sizeof good);
        if (n != WIRE_HEAD_BYTES)
            assert_int_equal(wire_head_get((slice){(char *)bytes, n}, &got), ERR_PROTO);
    }
    static const struct {
        size_t at;
        unsigned char value;
    } damage[] = {{0, 'n'}, {1, 0}, {2, 0}, {3, 0}, {5, 0}, {5, 10}, {5, 255}};
    for (size_t i = 0; i < ARRAY_LEN(damage); i++) {
        memcpy(bytes, good, sizeof good);
        bytes[damage[i].at] = damage[i].value;
        assert_int_equal(wire_head_get((slice){(char *)bytes, WIRE_HEAD_BYTES}, &got), ERR_PROTO);
    }
    memcpy(bytes, good, sizeof good);
    for (unsigned version = 0; version < 256; version++) {
        bytes[4] = (unsigned char)version;
        for (size_t n = WIRE_HEAD_BYTES - 8; n <= WIRE_HEAD_BYTES; n += 8) /* 48: of version 1 */
            if (version != WIRE_VERSION)
                assert_int_equal(wire_head_get((slice){(char *)bytes, n}, &got), ERR_UNSUPPORTED);
    }
}

/* Every bit of a message, and every place where one of its parts could end instead. */
static void the_sum_sees_everything(void **state UNUSED)
{
    char body[] = "what was asked", first[] = "bulk", second[] = "more";
    unsigned char head[WIRE_HEAD_BYTES];
    slice frame = {(char *)head, sizeof head};
    struct wire_msg m = {.head = full,
                         .body = {body, sizeof body - 1},
                         .frames = {{first, 4}, {second, 4}},
                         .n_frames = 2};
    wire_head_put(&m, head);
    assert_true(wire_sum_is_right(frame, &m));
    const struct {
        char *at;
        size_t n;
    } parts[] = {{(char *)head, sizeof head}, {body, m.body.n}, {first, 4}, {second, 4}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        for (size_t bit = 0; bit < 8 * parts[i].n; bit++) {
            parts[i].at[bit / 8] ^= (char)(1 << bit % 8);
            assert_false(wire_sum_is_right(frame, &m));
            parts[i].at[bit / 8] ^= (char)(1 << bit % 8);
        }
    char joined[] = "bulkmore";
    for (size_t n = 0; n <= 8; n++) {
        m.frames[0] = (slice){joined, n};
        m.frames[1] = (slice){joined + n, 8 - n};
        assert_int_equal(wire_sum_is_right(frame, &m), n == 4);
    }
    m.frames[0] = (slice){joined, 8};
    m.n_frames = 1;
    assert_false(wire_sum_is_right(frame, &m));
    m.frames[0] = (slice){first, 4};
    m.frames[1] = (slice){second, 4};
    m.frames[2] = (slice){joined, 0};
    m.n_frames = 3;
    assert_false(wire_sum_is_right(frame, &m));
}

static void limits_of_a_message(void **state UNUSED)
{
    static char space[WIRE_BODY_MAX + 1];
    struct wire_msg m = {.head = {.type = WIRE_REQUEST}, .body = {space, WIRE_BODY_MAX}};
    assert_int_equal(wire_msg_check(&m), 0);
    m.body.n++;
    assert_int_equal(wire_msg_check(&m), ERR_TOO_BIG);
    m.head.type = WIRE_ERROR;
    m.body.n = WIRE_CONTROL_MAX;
    assert_int_equal(wire_msg_check(&m), 0);
    m.body.n++;
    assert_int_equal(wire_msg_check(&m), ERR_TOO_BIG);
    m.head.type = WIRE_DONE;
    m.body.n = 0;
    for (size_t i = 0; i < WIRE_FRAMES_MAX; i++)
        m.frames[i] = (slice){space, 1};
    m.n_frames = WIRE_FRAMES_MAX;
    assert_int_equal(wire_msg_check(&m), 0);
    m.frames[0].n = WIRE_FRAME_MAX + 1;
    assert_int_equal(wire_msg_check(&m), ERR_TOO_BIG);
    for (size_t i = 0; i < 16; i++)
        m.frames[i].n = WIRE_FRAME_MAX;
    assert_int_equal(wire_msg_check(&m), ERR_TOO_BIG); /* 16 MiB and a header */
    m.n_frames = 15;
    assert_int_equal(wire_msg_check(&m), 0);
    m.head.type = 0;
    assert_int_equal(wire_msg_check(&m), ERR_PROTO);
}

static void types_have_names(void **state UNUSED)
{
    assert_string_equal(wire_type_name(WIRE_READY), "READY");
    assert_string_equal(wire_type_name(WIRE_BYE), "BYE");
    assert_string_equal(wire_type_name(0), "?");
    assert_string_equal(wire_type_name(10), "?");
}

/* ---- block hashes
 * ---------------------------------------------------------------------------------------------------
 */

#define N 40
static const char tenant_a[33] = "tenant a tenant a tenant a tenan",
                  tenant_b[33] = "tenant b tenant b tenant b tenan";

struct hashes {
    struct digest block[N / BLOCK_TOKENS], content;
};

/* salt_at: before which token the salt is said; -1: never. */
static struct hashes hash_ids(const char *tenant, const char *model, const char *adapter,
                              int salt_at)
{
    struct hashes out;
    blockhash *h = blockhash_new((slice){tenant, 32}, slice_str(model), slice_str(adapter));
    size_t n = 0;
    for (int i = 0; i < N; i++) {
        if (i == salt_at)
            blockhash_salt(h, SLICE_LIT("0123456789abcdef"));
        if (blockhash_token(h, i * 7 - 3, &out.block[n]))
            n++;
    }
    assert_int_equal(n, N / BLOCK_TOKENS);
    out.content = blockhash_content(h);
    blockhash_free(h);
    return out;
}

static void same_input_same_hashes(void **state UNUSED)
{
    struct hashes a = hash_ids(tenant_a, "m", "", -1), b = hash_ids(tenant_a, "m", "", -1);
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_not_equal(&a.block[0], &a.block[1], sizeof a.block[0]);
    assert_memory_not_equal(&a.block[1], &a.content, sizeof a.content);
}

static void everything_changes_them(void **state UNUSED)
{
    struct hashes a = hash_ids(tenant_a, "m", "x", -1);
    struct hashes other[] = {hash_ids(tenant_b, "m", "x", -1), hash_ids(tenant_a, "n", "x", -1),
                             hash_ids(tenant_a, "m", "", -1), hash_ids(tenant_a, "mx", "", -1),
                             hash_ids(tenant_a, "m", "x", 0)};
    for (size_t i = 0; i < ARRAY_LEN(other); i++) {
        assert_memory_not_equal(&a.block[0], &other[i].block[0], sizeof a.block[0]);
        assert_memory_not_equal(&a.content, &other[i].content, sizeof a.content);
    }
}

static void a_salt_counts_from_its_block_on(void **state UNUSED)
{
    struct hashes plain = hash_ids(tenant_a, "m", "", -1), late = hash_ids(tenant_a, "m", "", 16),
                  mid = hash_ids(tenant_a, "m", "", 20), tail = hash_ids(tenant_a, "m", "", 33);
    assert_memory_equal(&plain.block[0], &late.block[0], sizeof plain.block[0]);
    assert_memory_not_equal(&plain.block[1], &late.block[1], sizeof plain.block[1]);
    assert_memory_equal(&late.block[1], &mid.block[1], sizeof late.block[1]);
    assert_memory_equal(&plain.block[1], &tail.block[1], sizeof plain.block[1]);
    assert_memory_not_equal(&plain.content, &tail.content, sizeof plain.content);
}

/* The formula of PROTOCOL.md, put together by hand. */
static void as_the_protocol_says(void **state UNUSED)
{
    slice key = {tenant_a, 32};
    digest_stream *s = digest_begin(key);
    digest_add(s, "nunchi block 1", 14);
    digest_add_slice(s, SLICE_LIT("m"));
    digest_add_slice(s, SLICE_LIT(""));
    struct digest root = digest_end(s);
    s = digest_begin(key);
    digest_add(s, root.b, 32);
    digest_add_u64(s, 16);
    digest_add(s, "0123456789abcdef", 16);
    for (int i = 0; i < BLOCK_TOKENS; i++)
        digest_add_u32(s, (uint32_t)(i * 7 - 3));
    struct digest first = digest_end(s);
    struct hashes got = hash_ids(tenant_a, "m", "", 5);
    assert_memory_equal(&got.block[0], &first, sizeof first);
    s = digest_begin(key);
    digest_add(s, "nunchi prompt 1", 15);
    digest_add(s, got.block[1].b, 32);
    digest_add_u64(s, 0);
    for (int i = 32; i < N; i++)
        digest_add_u32(s, (uint32_t)(i * 7 - 3));
    struct digest content = digest_end(s);
    assert_memory_equal(&got.content, &content, sizeof content);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_there_and_back),
        cmocka_unit_test(bad_headers),
        cmocka_unit_test(the_sum_sees_everything),
        cmocka_unit_test(limits_of_a_message),
        cmocka_unit_test(types_have_names),
        cmocka_unit_test(same_input_same_hashes),
        cmocka_unit_test(everything_changes_them),
        cmocka_unit_test(a_salt_counts_from_its_block_on),
        cmocka_unit_test(as_the_protocol_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
