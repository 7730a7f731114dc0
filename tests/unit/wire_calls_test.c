/* Calls that are open: answered once, fenced by peer and attempt, ended by deadlines and lost
 * peers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/wire/calls.h"
#include "common/wire/pb.h"
#include "proto/session.pb-c.h"

#define MS 1000

struct seen {
    calls *c;
    int done, chunks, err;
    struct why why;
    uint64_t cancel; /* done cancels this one too */
};

static void on_done(void *ctx, int err, const struct wire_msg *m, const struct why *why)
{
    struct seen *s = ctx;
    s->done++;
    s->err = err;
    assert_true((err < 0) == (m == NULL));
    if (why)
        s->why = *why;
    if (s->cancel)
        calls_cancel(s->c, s->cancel);
}

static void on_chunk(void *ctx, const struct wire_msg *m UNUSED)
{
    ((struct seen *)ctx)->chunks++;
}

static bool answer(calls *c, uint64_t now, uint64_t peer, uint64_t request, int type, slice body)
{
    struct wire_msg m = {.head = {.type = (uint8_t)type, .request = request}, .body = body};
    return calls_msg(c, now, peer, &m);
}

static void done_once(void **state UNUSED)
{
    calls *c = calls_new();
    struct seen s = {.c = c};
    uint64_t id =
        calls_open(c, 0, &(struct call){.peer = 7, .done = on_done, .chunk = on_chunk, .ctx = &s});
    uint64_t other = calls_open(c, 0, &(struct call){.peer = 7, .done = on_done, .ctx = &s});
    assert_true(id != 0 && id != other);
    assert_int_equal(calls_open_count(c), 2);
    assert_true(answer(c, 1, 7, id, WIRE_CHUNK, slice_str("")));
    assert_false(answer(c, 1, 8, id, WIRE_DONE, slice_str(""))); /* somebody else */
    assert_false(answer(c, 1, 7, id, WIRE_CREDIT, slice_str("")));
    struct wire_msg late = {.head = {.type = WIRE_DONE, .request = id, .attempt = 1}};
    assert_false(calls_msg(c, 1, 7, &late));
    assert_int_equal(s.done, 0);
    assert_true(answer(c, 2, 7, id, WIRE_DONE, slice_str("")));
    assert_false(answer(c, 2, 7, id, WIRE_DONE, slice_str("")));
    assert_int_equal(s.done, 1);
    assert_int_equal(s.chunks, 1);
    assert_int_equal(s.err, 0);
    assert_int_equal(calls_open_count(c), 1);
    calls_free(c);
}

static void an_error_is_read(void **state UNUSED)
{
    calls *c = calls_new();
    struct seen s = {.c = c};
    char param[] = "messages[0]";
    Nunchi__Error e;
    nunchi__error__init(&e);
    e.code = err_to_wire(ERR_BUSY);
    e.message = pb_bytes(SLICE_LIT("come back \xff later"));
    e.param = param;
    buf body = {0};
    pb_pack(&e.base, &body);
    uint64_t id = calls_open(c, 0, &(struct call){.peer = 1, .done = on_done, .ctx = &s});
    assert_true(answer(c, 1, 1, id, WIRE_ERROR, buf_slice(&body)));
    assert_int_equal(s.err, ERR_BUSY);
    assert_string_equal(s.why.text, "come back \xef\xbf\xbd later");
    assert_string_equal(s.why.field, "messages[0]");
    id = calls_open(c, 0, &(struct call){.peer = 1, .done = on_done, .ctx = &s});
    assert_true(answer(c, 1, 1, id, WIRE_ERROR, SLICE_LIT("\xff\xff")));
    assert_int_equal(s.err, ERR_PROTO);
    buf_clear(&body);
    calls_free(c);
}

static void a_long_error_is_cut_at_a_character(void **state UNUSED)
{
    calls *c = calls_new();
    struct seen s = {.c = c};
    buf text = {0}, body = {0};
    for (int i = 0; i < 1000; i++)
        buf_put_str(&text, "\xeb\x88\x88");
    Nunchi__Error e;
    nunchi__error__init(&e);
    e.code = 999;
    e.message = pb_bytes(buf_slice(&text));
    pb_pack(&e.base, &body);
    uint64_t id = calls_open(c, 0, &(struct call){.peer = 1, .done = on_done, .ctx = &s});
    assert_true(answer(c, 1, 1, id, WIRE_ERROR, buf_slice(&body)));
    assert_int_equal(s.err, ERR_PROTO); /* an unknown number */
    assert_true(strlen(s.why.text) > 200 && utf8_valid(slice_str(s.why.text)));
    buf_clear(&text);
    buf_clear(&body);
    calls_free(c);
}

static void chunks_where_none_are_due(void **state UNUSED)
{
    calls *c = calls_new();
    struct seen s = {.c = c};
    uint64_t id = calls_open(c, 0, &(struct call){.peer = 1, .done = on_done, .ctx = &s});
    assert_true(answer(c, 1, 1, id, WIRE_CHUNK, slice_str("")));
    assert_int_equal(s.err, ERR_PROTO);
    calls_free(c);
}

static void deadlines(void **state UNUSED)
{
    calls *c = calls_new();
    struct seen s = {.c = c}, quiet = {.c = c};
    assert_true(calls_tick(c, 0) == UINT64_MAX);
    calls_open(c, 1000, &(struct call){.peer = 1, .timeout_ms = 50, .done = on_done, .ctx = &s});
    uint64_t id = calls_open(c, 1000,
                             &(struct call){.peer = 1,
                                            .silence_ms = 20,
                                            .timeout_ms = 100,
                                            .done = on_done,
                                            .chunk = on_chunk,
                                            .ctx = &quiet});
    assert_true(calls_tick(c, 1000) == 1000 + 20 * MS);
    assert_true(answer(c, 1000 + 15 * MS, 1, id, WIRE_CHUNK, slice_str("")));
    calls_tick(c, 1000 + 30 * MS);
    assert_int_equal(quiet.done, 0); /* a chunk came in between */
    calls_tick(c, 1000 + 36 * MS);
    assert_int_equal(quiet.done, 1);
    assert_int_equal(quiet.err, ERR_TIMEOUT);
    assert_int_equal(s.done, 0);
    assert_true(calls_tick(c, 1000 + 50 * MS) == UINT64_MAX);
    assert_int_equal(s.err, ERR_TIMEOUT);
    assert_int_equal(calls_open_count(c), 0);
    calls_free(c);
}

static void a_lost_peer_ends_its_calls(void **state UNUSED)
{
    calls *c = calls_new();
    struct seen mine = {.c = c}, others = {.c = c};
    calls_open(c, 0, &(struct call){.peer = 1, .done = on_done, .ctx = &mine});
    uint64_t second = calls_open(c, 0, &(struct call){.peer = 1, .done = on_done, .ctx = &mine});
    uint64_t third = calls_open(c, 0, &(struct call){.peer = 2, .done = on_done, .ctx = &others});
    mine.cancel = second; /* the first callback takes the second away, or the other way round */
    calls_peer_down(c, 1);
    assert_true(mine.done == 1 || mine.done == 2);
    assert_int_equal(mine.err, ERR_UNAVAILABLE);
    assert_int_equal(others.done, 0);
    assert_int_equal(calls_open_count(c), 1);
    assert_true(calls_cancel(c, third));
    assert_false(calls_cancel(c, third));
    assert_int_equal(others.done, 0);
    calls_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(done_once),
        cmocka_unit_test(an_error_is_read),
        cmocka_unit_test(a_long_error_is_cut_at_a_character),
        cmocka_unit_test(chunks_where_none_are_due),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(a_lost_peer_ends_its_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
