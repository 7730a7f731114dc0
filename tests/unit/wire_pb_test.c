/* The gate between protobuf bytes and structs: what it takes, what it refuses, what it costs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/wire/frame.h"
#include "common/wire/pb.h"
#include "proto/cache.pb-c.h"
#include "proto/generate.pb-c.h"
#include "proto/session.pb-c.h"
#include "proto/token.pb-c.h"

#define MIB ((size_t)1 << 20)

static slice bytes_of(const buf *b)
{
    return buf_slice(b);
}

/* One field: tag (one byte: number below 16), then the payload as given. */
static void put_tag(buf *b, unsigned number, unsigned wire)
{
    buf_put_byte(b, (unsigned char)(number << 3 | wire));
}

static void put_varint(buf *b, uint64_t v)
{
    for (; v > 127; v >>= 7)
        buf_put_byte(b, (unsigned char)(v | 128));
    buf_put_byte(b, (unsigned char)v);
}

static void put_bytes(buf *b, unsigned number, const void *p, size_t n)
{
    put_tag(b, number, 2);
    put_varint(b, n);
    buf_put(b, p, n);
}

static int try_in(const ProtobufCMessageDescriptor *d, slice in, size_t max, size_t budget,
                  size_t *used)
{
    arena *a = arena_new(budget);
    void *out;
    struct why w = {0};
    int e = pb_unpack(a, d, in, max, &out, &w);
    assert_true(e == 0 ? out != NULL : out == NULL && w.text[0]);
    if (used)
        *used = arena_used(a);
    arena_free(a);
    return e;
}

static int try_ready(slice in)
{
    return try_in(&nunchi__ready__descriptor, in, 16 * MIB, 64 * MIB, NULL);
}

static void packs_and_reads_back(void **state UNUSED)
{
    char service[] = "model", name[] = "smol", adapter[] = "a";
    char *adapters[] = {adapter};
    Nunchi__ModelInfo info, *models[] = {&info};
    Nunchi__Ready r;
    nunchi__model_info__init(&info);
    nunchi__ready__init(&r);
    info.name = name;
    info.weights = pb_bytes(SLICE_LIT("\0\1\2"));
    info.n_adapters = 1;
    info.adapters = adapters;
    r.service = service;
    r.n_models = 1;
    r.models = models;
    r.started_unix_ms = UINT64_MAX;
    buf b = {0};
    pb_pack(&r.base, &b);
    arena *a = arena_new(0);
    void *v;
    assert_int_equal(pb_unpack(a, &nunchi__ready__descriptor, bytes_of(&b), MIB, &v, NULL), 0);
    const Nunchi__Ready *got = v;
    assert_string_equal(got->service, "model");
    assert_int_equal(got->n_models, 1);
    assert_string_equal(got->models[0]->adapters[0], "a");
    assert_true(slice_eq(pb_slice(got->models[0]->weights), SLICE_LIT("\0\1\2")));
    assert_true(got->started_unix_ms == UINT64_MAX);
    arena_free(a);
    buf_clear(&b);
}

static void empty_is_a_message(void **state UNUSED)
{
    assert_int_equal(try_ready((slice){NULL, 0}), 0);
}

static void too_many_bytes(void **state UNUSED)
{
    buf b = {0};
    put_bytes(&b, 1, "model", 5);
    assert_int_equal(try_in(&nunchi__ready__descriptor, bytes_of(&b), b.n, 0, NULL), 0);
    assert_int_equal(try_in(&nunchi__ready__descriptor, bytes_of(&b), b.n - 1, 0, NULL),
                     ERR_TOO_BIG);
    buf_clear(&b);
}

static void every_cut_is_refused_or_whole(void **state UNUSED)
{
    buf b = {0};
    put_bytes(&b, 1, "model", 5);
    put_tag(&b, 8, 0);
    put_varint(&b, 300);
    size_t whole[] = {0, 7, b.n};
    for (size_t n = 0; n <= b.n; n++) {
        bool at_end = n == whole[0] || n == whole[1] || n == whole[2];
        assert_int_equal(try_ready((slice){b.p, n}), at_end ? 0 : ERR_PROTO);
    }
    buf_clear(&b);
}

static void malformed_bytes(void **state UNUSED)
{
    const slice bad[] = {
        SLICE_LIT("\x07"),                                             /* wire type 7 */
        SLICE_LIT("\x00\x00"),                                         /* field 0 */
        SLICE_LIT("\x0b\x0c"),                                         /* group */
        SLICE_LIT("\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),     /* beyond 64 bits */
        SLICE_LIT("\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), /* eleven bytes */
        SLICE_LIT("\xff\xff\xff\xff\x7f\x00"),                     /* field number beyond 32 bits */
        SLICE_LIT("\x0a\xff\xff\xff\xff\x0f"),                     /* 4 GiB of name */
        SLICE_LIT("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), /* a length of 64 bits */
        SLICE_LIT("\x08\x01"),                                     /* service as a number */
        SLICE_LIT("\x42\x01x"),                                    /* slots as text */
        SLICE_LIT("\x3a\x03\x0a\x05x"),  /* a field that leaves its message */
        SLICE_LIT("\x0a\x01x\x0a\x01y"), /* service twice */
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(try_ready(bad[i]), ERR_PROTO);
}

static void two_of_one_oneof(void **state UNUSED)
{
    buf b = {0};
    put_bytes(&b, 1, "", 0);
    assert_int_equal(try_in(&nunchi__cache_request__descriptor, bytes_of(&b), MIB, MIB, NULL), 0);
    put_bytes(&b, 3, "", 0);
    assert_int_equal(try_in(&nunchi__cache_request__descriptor, bytes_of(&b), MIB, MIB, NULL),
                     ERR_PROTO);
    buf_clear(&b);
}

static void text_is_utf8_without_nul(void **state UNUSED)
{
    const slice good[] = {SLICE_LIT(""), SLICE_LIT("\xeb\x88\x88\xec\xb9\x98")};
    const slice bad[] = {SLICE_LIT("a\0b"), SLICE_LIT("\xff\xfe"), SLICE_LIT("\xed\xa0\x80"),
                         SLICE_LIT("\xeb\x88")};
    buf b = {0};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        buf_reset(&b);
        put_bytes(&b, 1, good[i].p, good[i].n);
        assert_int_equal(try_ready(bytes_of(&b)), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        buf_reset(&b);
        put_bytes(&b, 1, bad[i].p, bad[i].n);
        assert_int_equal(try_ready(bytes_of(&b)), ERR_PROTO);
    }
    buf_clear(&b);
}

/* Unknown fields on two levels, of every wire type: gone from the result, and lengths still right.
 */
static void unknown_fields_are_stripped_and_counted(void **state UNUSED)
{
    buf inner = {0}, b = {0};
    put_bytes(&inner, 1, "smol", 4);
    char filler[300] = {0};
    buf_put(&inner, "\xfa\x06", 2); /* field 111, bytes: longer than one length byte */
    put_varint(&inner, sizeof filler);
    buf_put(&inner, filler, sizeof filler);
    put_tag(&inner, 3, 0);
    put_varint(&inner, 2048);
    put_tag(&b, 15, 0);
    put_varint(&b, UINT64_MAX);
    put_bytes(&b, 7, inner.p, inner.n);
    put_tag(&b, 14, 1);
    buf_put(&b, filler, 8);
    put_tag(&b, 13, 5);
    buf_put(&b, filler, 4);
    put_tag(&b, 8, 0);
    put_varint(&b, 3);
    uint64_t before = pb_unknown_fields();
    arena *a = arena_new(MIB);
    void *v;
    assert_int_equal(pb_unpack(a, &nunchi__ready__descriptor, bytes_of(&b), MIB, &v, NULL), 0);
    const Nunchi__Ready *r = v;
    assert_int_equal(pb_unknown_fields() - before, 4);
    assert_int_equal(r->base.n_unknown_fields, 0);
    assert_int_equal(r->models[0]->base.n_unknown_fields, 0);
    assert_string_equal(r->models[0]->name, "smol");
    assert_int_equal(r->models[0]->n_context, 2048);
    assert_int_equal(r->slots, 3);
    arena_free(a);
    buf_clear(&inner);
    buf_clear(&b);
}

/* protobuf-c alone makes 58 MB of this, in a million allocations. */
static void a_million_unknown_fields(void **state UNUSED)
{
    buf b = {0};
    for (int i = 0; i < 1000000; i++)
        buf_put(&b, "\x78\x01", 2); /* field 15, a number */
    size_t used;
    assert_int_equal(try_in(&nunchi__ready__descriptor, bytes_of(&b), 4 * MIB, 64 * MIB, &used),
                     ERR_TOO_BIG);
    assert_true(used < 4096);
    b.n = (size_t)PB_FIELDS_MAX * 2;
    assert_int_equal(try_in(&nunchi__ready__descriptor, bytes_of(&b), 4 * MIB, 64 * MIB, &used), 0);
    assert_true(used < 4096); /* they cost nothing */
    buf_clear(&b);
}

static void a_million_empty_messages(void **state UNUSED)
{
    buf b = {0};
    for (int i = 0; i < 1000000; i++)
        put_bytes(&b, 7, "", 0); /* models */
    size_t used;
    assert_int_equal(try_in(&nunchi__ready__descriptor, bytes_of(&b), 4 * MIB, 0, &used),
                     ERR_TOO_BIG);
    b.n = 100000 * 2; /* few enough: then the memory is what ends it */
    assert_int_equal(try_in(&nunchi__ready__descriptor, bytes_of(&b), 4 * MIB, MIB, &used),
                     ERR_NOMEM);
    assert_true(used <= MIB);
    buf_clear(&b);
}

/* No message of ours is recursive; a descriptor that is shows that depth has an end even so. */
static void depth_has_an_end(void **state UNUSED)
{
    ProtobufCMessageDescriptor d = nunchi__cancel__descriptor;
    ProtobufCFieldDescriptor f = nunchi__cancel__descriptor.fields[0];
    f.type = PROTOBUF_C_TYPE_MESSAGE;
    f.descriptor = &d;
    d.fields = &f;
    buf b = {0};
    for (int i = 0; i < 100000;
         i++) { /* from the inside out would be quadratic: lengths are the rest of the input */
        put_tag(&b, 1, 2);
        buf_put_byte(&b, 0xff), buf_put_byte(&b, 0xff), buf_put_byte(&b, 0xff),
            buf_put_byte(&b, 0x00);
    }
    assert_int_equal(try_in(&d, bytes_of(&b), MIB, MIB, NULL), ERR_PROTO);
    buf_clear(&b);
    buf nested = {0}, next = {0};
    for (int depth = 1; depth <= 20; depth++) {
        buf_reset(&next);
        put_bytes(&next, 1, nested.p, nested.n);
        buf_reset(&nested);
        buf_put_slice(&nested, buf_slice(&next));
        /* the fields of the fake message are of the Cancel struct's size: only the scan's verdict
         * matters */
        if (depth > 16)
            assert_int_equal(try_in(&d, bytes_of(&nested), MIB, MIB, NULL), ERR_PROTO);
    }
    buf_clear(&nested);
    buf_clear(&next);
}

static void packed_numbers(void **state UNUSED)
{
    int32_t ids[] = {0, -1, 1, INT32_MAX, INT32_MIN};
    Nunchi__Choice c;
    nunchi__choice__init(&c);
    c.n_ids = ARRAY_LEN(ids);
    c.ids = ids;
    buf b = {0};
    pb_pack(&c.base, &b);
    arena *a = arena_new(MIB);
    void *v;
    assert_int_equal(pb_unpack(a, &nunchi__choice__descriptor, bytes_of(&b), MIB, &v, NULL), 0);
    const Nunchi__Choice *got = v;
    assert_int_equal(got->n_ids, ARRAY_LEN(ids));
    assert_memory_equal(got->ids, ids, sizeof ids);
    arena_free(a);
    assert_int_equal(
        try_in(&nunchi__choice__descriptor, SLICE_LIT("\x12\x02\x01\xff"), MIB, MIB, NULL),
        ERR_PROTO);
    assert_int_equal(
        try_in(&nunchi__choice__descriptor, SLICE_LIT("\x10\x01\x10\x02"), MIB, MIB, NULL),
        0); /* one by one */
    buf_clear(&b);
}

/* The schema's rule: no message may contain itself, so the scan's depth is never an honest peer's
 * limit. */
static size_t depth_of(const ProtobufCMessageDescriptor *d, size_t level)
{
    assert_true(level < 16);
    assert_true(d->n_fields <= 64);
    size_t deepest = level;
    for (unsigned i = 0; i < d->n_fields; i++)
        if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
            size_t n = depth_of(d->fields[i].descriptor, level + 1);
            deepest = n > deepest ? n : deepest;
        }
    return deepest;
}

static void no_message_is_recursive(void **state UNUSED)
{
    assert_true(depth_of(&nunchi__generate__descriptor, 1) < 16);
    assert_true(depth_of(&nunchi__step_tokens__descriptor, 1) < 16);
    assert_true(depth_of(&nunchi__token_request__descriptor, 1) < 16);
    assert_true(depth_of(&nunchi__cache_request__descriptor, 1) < 16);
    assert_true(depth_of(&nunchi__cache_reply__descriptor, 1) < 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs_and_reads_back),
        cmocka_unit_test(empty_is_a_message),
        cmocka_unit_test(too_many_bytes),
        cmocka_unit_test(every_cut_is_refused_or_whole),
        cmocka_unit_test(malformed_bytes),
        cmocka_unit_test(two_of_one_oneof),
        cmocka_unit_test(text_is_utf8_without_nul),
        cmocka_unit_test(unknown_fields_are_stripped_and_counted),
        cmocka_unit_test(a_million_unknown_fields),
        cmocka_unit_test(a_million_empty_messages),
        cmocka_unit_test(depth_has_an_end),
        cmocka_unit_test(packed_numbers),
        cmocka_unit_test(no_message_is_recursive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
