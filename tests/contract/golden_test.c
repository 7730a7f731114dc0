/* The bytes of every message of version 1, packed by Google's runtime (make_golden.py), read by
 * ours to the values they were made from, and packed by ours to the same bytes. A field whose
 * number or type changed fails here. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "common/base/map.h"
#include "common/wire/frame.h"
#include "common/wire/pb.h"
#include "tests/contract/messages.h"

#define DATA "tests/contract/data/v1/"

/* ---- fields.txt: what version 1 had
 * ---------------------------------------------------------------------------------- */

struct known_field {
    unsigned number;
    int enum_value;
    bool seen;
};

static map *known;

static buf read_all(const char *path)
{
    buf b = {0};
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing (tests run in the repository's root)", path);
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;)
        buf_put(&b, piece, n);
    fclose(f);
    return b;
}

static int read_fields(void **state UNUSED)
{
    buf text = read_all(DATA "fields.txt");
    slice rest = buf_slice(&text), line, name = {0}, number = {0}, value = {0};
    uint64_t n = 0, v = 0;
    known = map_new();
    while (slice_split(&rest, '\n', &line)) {
        if (!line.n)
            continue;
        assert_true(slice_split(&line, ' ', &name) && slice_split(&line, ' ', &number) &&
                    slice_split(&line, ' ', &value));
        assert_true(slice_u64(number, &n) == 0 && slice_u64(value, &v) == 0);
        struct known_field *k = xcalloc(1, sizeof *k);
        k->number = (unsigned)n;
        k->enum_value = (int)v;
        map_put(known, name, k);
    }
    buf_clear(&text);
    return 0;
}

static int free_fields(void **state UNUSED)
{
    void *k;
    for (size_t it = 0; map_next(known, &it, NULL, &k);)
        free(k);
    map_free(known);
    return 0;
}

/* ---- the rule of make_golden.py
 * -------------------------------------------------------------------------------------- */

static uint32_t hash_of(const char *message, const char *field, const char *salt)
{
    const char *const parts[] = {message, ".", field, salt};
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        for (const char *p = parts[i]; *p; p++)
            h = (h ^ (unsigned char)*p) * 16777619u;
    return h;
}

static void check_text(const char *got, uint32_t h)
{
    char want[64];
    snprintf(want, sizeof want, "\xeb\x88\x88\xec\xb9\x98 %08x", h);
    assert_string_equal(got, want);
}

static void check_bytes(slice got, uint32_t h)
{
    char want[] = {(char)(h & 255),
                   (char)(h >> 8 & 255),
                   (char)(h >> 16 & 255),
                   (char)(h >> 24),
                   0,
                   (char)0xff,
                   ' ',
                   'b',
                   'y',
                   't',
                   'e',
                   's'};
    assert_int_equal(got.n, sizeof want);
    assert_memory_equal(got.p, want, sizeof want);
}

static void check_message(const ProtobufCMessage *m, const char *chosen);

static void check_value(const ProtobufCFieldDescriptor *f, const void *at, uint32_t h,
                        const struct known_field *k)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        assert_int_equal(*(const uint32_t *)at, h);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        assert_true(*(const uint64_t *)at == ((uint64_t)h << 32 | (h ^ 0xffffffffu)));
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        assert_true(*(const float *)at == (float)(h % 8192) / 8 + 0.125f);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        assert_true(*(const protobuf_c_boolean *)at);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        assert_int_equal(*(const int *)at, k->enum_value);
        break;
    case PROTOBUF_C_TYPE_STRING:
        check_text(*(const char *const *)at, h);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        check_bytes(pb_slice(*(const ProtobufCBinaryData *)at), h);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        assert_non_null(*(const ProtobufCMessage *const *)at);
        check_message(*(const ProtobufCMessage *const *)at, NULL);
        break;
    default:
        fail_msg("no rule for the type of %s", f->name);
    }
}

static size_t width_of(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_UINT64:
        return 8;
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    default:
        return 4;
    }
}

static void check_repeated(const char *message, const ProtobufCFieldDescriptor *f, const char *m,
                           const struct known_field *k)
{
    const char *list = *(const char *const *)(const void *)(m + f->offset);
    assert_int_equal(*(const size_t *)(const void *)(m + f->quantifier_offset), 2);
    check_value(f, list, hash_of(message, f->name, ""), k);
    check_value(f, list + width_of(f->type), hash_of(message, f->name, "#1"), k);
}

/* Of a oneof the member that make_golden chose: by name, else the first. */
static bool is_set(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f,
                   const char *chosen)
{
    if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
        return true;
    if (chosen)
        return strcmp(f->name, chosen) == 0;
    for (unsigned i = 0; i < d->n_fields; i++)
        if (d->fields[i].quantifier_offset == f->quantifier_offset && d->fields[i].id < f->id)
            return false;
    return true;
}

static struct known_field *find_known(const char *message, const char *field)
{
    char name[200];
    snprintf(name, sizeof name, "%s.%s", message, field);
    return map_get(known, slice_str(name));
}

static void check_message(const ProtobufCMessage *msg, const char *chosen)
{
    const ProtobufCMessageDescriptor *d = msg->descriptor;
    const char *m = (const char *)msg;
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        struct known_field *k = find_known(d->name, f->name);
        if (!k)
            continue; /* newer than version 1 */
        k->seen = true;
        assert_int_equal(f->id, k->number);
        if (!is_set(d, f, chosen))
            continue;
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
            assert_int_equal(*(const uint32_t *)(const void *)(m + f->quantifier_offset), f->id);
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
            check_repeated(d->name, f, m, k);
        else
            check_value(f, m + f->offset, hash_of(d->name, f->name, ""), k);
    }
}

/* ---- tests
 * --------------------------------------------------------------------------------------------------------------
 */

static void check_file(const ProtobufCMessageDescriptor *d, const char *chosen)
{
    char path[300];
    void *v;
    snprintf(path, sizeof path, DATA "%s%s%s.bin", d->name, chosen ? "." : "",
             chosen ? chosen : "");
    buf golden = read_all(path), ours = {0};
    arena *a = arena_new(0);
    struct why w = {0};
    uint64_t unknown = pb_unknown_fields();
    if (pb_unpack(a, d, buf_slice(&golden), golden.n, &v, &w) < 0)
        fail_msg("%s: %s", path, w.text);
    assert_true(pb_unknown_fields() == unknown);
    check_message(v, chosen);
    pb_pack(v, &ours);
    assert_int_equal(ours.n, golden.n);
    assert_memory_equal(ours.p, golden.p, golden.n);
    buf_clear(&ours);
    buf_clear(&golden);
    arena_free(a);
}

static void every_message(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        const ProtobufCMessageDescriptor *d = messages[i];
        bool oneof = false;
        for (unsigned f = 0; f < d->n_fields; f++)
            if ((d->fields[f].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                find_known(d->name, d->fields[f].name)) {
                check_file(d, d->fields[f].name);
                oneof = true;
            }
        if (!oneof)
            check_file(d, NULL);
    }
}

static void nothing_of_version_1_is_gone(void **state UNUSED)
{
    slice name;
    void *v;
    for (size_t it = 0; map_next(known, &it, &name, &v);)
        if (!((struct known_field *)v)->seen)
            fail_msg("%.*s is not there any more, or not in this test's table", (int)name.n,
                     name.p);
}

static void header(void **state UNUSED)
{
    buf golden = read_all("tests/contract/data/v2/message.bin");
    struct wire_msg m = {.body = {golden.p + WIRE_HEAD_BYTES, 4},
                         .frames = {{golden.p + WIRE_HEAD_BYTES + 4, 5}, {golden.p, 0}},
                         .n_frames = 2};
    slice first = {golden.p, WIRE_HEAD_BYTES};
    unsigned char ours[WIRE_HEAD_BYTES];
    assert_int_equal(golden.n, WIRE_HEAD_BYTES + 9);
    assert_int_equal(wire_head_get(first, &m.head), 0);
    const struct wire_head h = m.head;
    assert_int_equal(h.type, WIRE_CHUNK);
    assert_int_equal(h.flags, 0x8003);
    assert_true(h.request == UINT64_C(0x0102030405060708));
    assert_int_equal(h.attempt, 0x090a0b0c);
    assert_int_equal(h.sequence, 0x0d0e0f10);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(h.trace[i], 0x20 + i);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(h.span[i], 0x30 + i);
    assert_true(wire_sum_is_right(first, &m));
    wire_head_put(&m, ours);
    assert_memory_equal(ours, golden.p, WIRE_HEAD_BYTES);
    buf_clear(&golden);
}

/* Numbers that are law: a peer in another language has them as literals. */
static void numbers_of_the_protocol(void **state UNUSED)
{
    static const struct {
        int err;
        uint32_t number;
    } errors[] = {{ERR_INVALID, 1},    {ERR_UNSUPPORTED, 2}, {ERR_AUTH, 3},
                  {ERR_FORBIDDEN, 4},  {ERR_NOT_FOUND, 5},   {ERR_TOO_BIG, 6},
                  {ERR_UNREADABLE, 7}, {ERR_BUSY, 8},        {ERR_CANCELLED, 9},
                  {ERR_INTERNAL, 10},  {ERR_PROTO, 11},      {ERR_UNAVAILABLE, 12},
                  {ERR_TIMEOUT, 13},   {ERR_NOMEM, 14},      {ERR_AGAIN, 15},
                  {ERR_IO, 16},        {ERR_EXISTS, 17}};
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        assert_int_equal(err_to_wire(errors[i].err), errors[i].number);
        assert_int_equal(err_from_wire(errors[i].number), errors[i].err);
    }
    assert_int_equal(WIRE_READY, 1);
    assert_int_equal(WIRE_HEARTBEAT, 2);
    assert_int_equal(WIRE_REQUEST, 3);
    assert_int_equal(WIRE_CHUNK, 4);
    assert_int_equal(WIRE_DONE, 5);
    assert_int_equal(WIRE_ERROR, 6);
    assert_int_equal(WIRE_CANCEL, 7);
    assert_int_equal(WIRE_CREDIT, 8);
    assert_int_equal(WIRE_BYE, 9);
    assert_int_equal(WIRE_BODY_MAX, 4 << 20);
    assert_int_equal(WIRE_CONTROL_MAX, 64 << 10);
    assert_int_equal(WIRE_FRAME_MAX, 1 << 20);
    assert_int_equal(WIRE_FRAMES_MAX, 66);
    assert_int_equal(WIRE_MESSAGE_MAX, 16 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message),
        cmocka_unit_test(nothing_of_version_1_is_gone),
        cmocka_unit_test(header),
        cmocka_unit_test(numbers_of_the_protocol),
    };
    return cmocka_run_group_tests(tests, read_fields, free_fields);
}
