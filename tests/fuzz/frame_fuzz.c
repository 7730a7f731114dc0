/* What a peer may send: the header, and every message of the protocol from the same bytes. What was
 * taken must survive being packed and read again, and must not have cost more than its budget. */
#include <stddef.h>
#include <stdint.h>

#include "common/wire/calls.h"
#include "common/wire/frame.h"
#include "common/wire/pb.h"
#include "tests/contract/messages.h"

#define BUDGET ((size_t)8 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_done(void *ctx, int err, const struct wire_msg *m, const struct why *why)
{
    CHECK(err < 0 && !m && why && strlen(why->text) < WHY_TEXT_MAX &&
          utf8_valid(slice_str(why->text)));
    *(bool *)ctx = true;
}

/* The body of an ERROR as the other side of a call reads it. */
static void read_as_error(slice in)
{
    calls *c = calls_new();
    bool done = false;
    struct call call = {.peer = 1, .done = on_done, .ctx = &done};
    struct wire_msg m = {.head = {.type = WIRE_ERROR, .request = calls_open(c, 0, &call)},
                         .body = in};
    CHECK(calls_msg(c, 0, 1, &m) && done);
    calls_free(c);
}

static void read_as(const ProtobufCMessageDescriptor *d, slice in)
{
    arena *a = arena_new(BUDGET);
    void *first, *second;
    struct why w = {0};
    if (pb_unpack(a, d, in, WIRE_BODY_MAX, &first, &w) == 0) {
        buf once = {0}, twice = {0};
        pb_pack(first, &once);
        arena *b = arena_new(0);
        CHECK(pb_unpack(b, d, buf_slice(&once), SIZE_MAX, &second, &w) == 0);
        pb_pack(second, &twice);
        CHECK(slice_eq(buf_slice(&once), buf_slice(&twice)));
        buf_clear(&once);
        buf_clear(&twice);
        arena_free(b);
    } else {
        CHECK(w.text[0]);
    }
    CHECK(arena_used(a) <= BUDGET);
    arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slice in = {(const char *)data, size};
    struct wire_head h;
    unsigned char again[WIRE_HEAD_BYTES];
    if (wire_head_get(in, &h) == 0) {
        struct wire_msg m = {.head = h};
        wire_head_put(&m, again);
        CHECK(memcmp(again, data, sizeof again) == 0 || !wire_sum_is_right(in, &m));
    }
    for (size_t i = 0; i < ARRAY_LEN(messages); i++)
        read_as(messages[i], in);
    read_as_error(in);
    return 0;
}
