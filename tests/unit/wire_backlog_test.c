/* What waits for a full socket: in order, copied or held, and not without end. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/wire/backlog.h"

struct socket {
    int room;      /* messages that it takes before it is full */
    int broken_at; /* this request's message cannot be sent at all; 0: none */
    uint64_t sent[16];
    size_t n;
    char last[8];
};

static int send_msg(void *ctx, const struct wire_msg *m)
{
    struct socket *s = ctx;
    if (s->broken_at && m->head.request == (uint64_t)s->broken_at)
        return ERR_TOO_BIG;
    if (s->room == 0)
        return ERR_AGAIN;
    s->room--;
    s->sent[s->n++] = m->head.request;
    memcpy(s->last, m->frames[0].p, sizeof s->last);
    return 0;
}

static struct wire_msg message(uint64_t request, char *bytes, size_t n)
{
    return (struct wire_msg){.head = {.type = WIRE_CHUNK, .request = request},
                             .body = SLICE_LIT("body"),
                             .frames = {{bytes, n}},
                             .n_frames = 1};
}

static void in_order(void **state UNUSED)
{
    struct backlog b;
    struct socket s = {.room = 2, .broken_at = 4};
    char bytes[8] = "1111111";
    backlog_init(&b);
    for (uint64_t i = 1; i <= 5; i++) {
        struct wire_msg m = message(i, bytes, sizeof bytes);
        memset(bytes, '0' + (int)i, sizeof bytes);
        assert_int_equal(backlog_keep(&b, &m), 0);
    }
    memset(bytes, 'x', sizeof bytes); /* it was copied */
    assert_int_equal(b.bytes, 5 * (sizeof bytes + 4));
    backlog_flush(&b, send_msg, &s);
    assert_int_equal(s.n, 2);
    assert_memory_equal(s.last, "22222222", 8);
    s.room = 10;
    backlog_flush(&b, send_msg, &s);
    assert_int_equal(s.n, 4); /* all but the one that cannot be sent */
    assert_memory_equal(s.last, "55555555", 8);
    assert_true(backlog_empty(&b));
    assert_int_equal(b.bytes, 0);
    backlog_clear(&b);
}

static void held_frames_are_not_copied(void **state UNUSED)
{
    struct backlog b;
    struct socket s = {.room = 1};
    shared *value = shared_new(9);
    memcpy(shared_bytes(value), "the value", 9);
    struct wire_msg m = message(1, NULL, 0);
    m.frames[0] = shared_slice(value);
    m.held[0] = value;
    backlog_init(&b);
    assert_int_equal(backlog_keep(&b, &m), 0);
    shared_unref(value); /* ours */
    backlog_flush(&b, send_msg, &s);
    assert_memory_equal(s.last, "the valu", 8);
    assert_int_equal(backlog_keep(&b, &(struct wire_msg){.head = {.type = WIRE_DONE}}), 0);
    backlog_clear(&b);
}

static void not_without_end(void **state UNUSED)
{
    struct backlog b;
    size_t n = 1u << 20, kept = 0;
    char *bytes = xcalloc(1, n);
    backlog_init(&b);
    struct wire_msg m = message(1, bytes, n);
    while (backlog_keep(&b, &m) == 0)
        kept++;
    assert_int_equal(kept, BACKLOG_BYTES_MAX / (n + 4));
    assert_true(b.bytes <= BACKLOG_BYTES_MAX);
    struct wire_msg small = message(2, bytes, 8);
    assert_int_equal(backlog_keep(&b, &small), 0); /* what fits is still kept */
    backlog_clear(&b);
    assert_int_equal(b.bytes, 0);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order),
        cmocka_unit_test(held_frames_are_not_copied),
        cmocka_unit_test(not_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
