/* What a decoder that was taken over could say. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "video-svc/notes.h"
#include "video-svc/records_read.h"

#define JPEG SLICE_LIT("\xff\xd8picture\xff\xd9")

static size_t n_seen;
static struct record last;

static void on_record(void *ctx, const struct record *r)
{
    n_seen++;
    last = *r;
    if (ctx)
        notes_record(ctx, r);
}

static const struct record HELLO = {.type = REC_HELLO,
                                    .hello = {REC_VERSION, SANDBOX_ALL, SANDBOX_ALL}};
static const struct record CONTAINER = {.type = REC_CONTAINER, .container = {.duration_ms = 9000}};

static struct record span(enum rec_type type, uint32_t start, uint32_t end, slice text)
{
    return (struct record){.type = type, .span = {.start_ms = start, .end_ms = end, .text = text}};
}

static struct record scene(uint32_t start, uint32_t end)
{
    return (struct record){.type = REC_SCENE, .scene = {start, end}};
}

static struct record frame(uint32_t at_scene)
{
    return (struct record){
        .type = REC_FRAME,
        .frame = {.scene = at_scene, .time_ms = 5, .width = 4, .height = 3, .jpeg = JPEG}};
}

/* Feeds all records in pieces of `step` bytes. */
static int feed(const struct record *r, size_t n, size_t step, void *ctx)
{
    buf b = {0};
    for (size_t i = 0; i < n; i++)
        record_pack(&r[i], &b);
    records_reader *reader = records_reader_new();
    struct why w;
    n_seen = 0;
    int e = 0;
    for (size_t at = 0; at < b.n && e == 0; at += step)
        e = records_feed(reader, (slice){b.p + at, b.n - at < step ? b.n - at : step}, on_record,
                         ctx, &w);
    records_reader_free(reader);
    buf_clear(&b);
    return e;
}

static void a_whole_video(void **state UNUSED)
{
    const struct record r[] = {HELLO,
                               CONTAINER,
                               {.type = REC_TRACK,
                                .track = {.kind = REC_KIND_VIDEO,
                                          .codec = SLICE_LIT("h264"),
                                          .width = 640,
                                          .selected = 1}},
                               span(REC_SUBTITLE, 700, 900, SLICE_LIT("later")),
                               span(REC_SUBTITLE, 100, 200, SLICE_LIT("first")),
                               scene(0, 500),
                               scene(500, 9000),
                               frame(1),
                               {.type = REC_THUMB, .thumb = JPEG},
                               span(REC_SCREEN_TEXT, 0, 500, SLICE_LIT("EXIT")),
                               {.type = REC_REMARK, .remark = SLICE_LIT("so it is")},
                               {.type = REC_DONE, .done_duration_ms = 9000}};
    for (size_t step = 1; step < 200; step += 13) {
        notes *n = notes_new();
        assert_int_equal(feed(r, ARRAY_LEN(r), step, n), 0);
        assert_int_equal(n_seen, ARRAY_LEN(r));
        buf packed = {0};
        struct digest content = digest_of((slice){0}, SLICE_LIT("x"));
        notes_pack(n, &content, SLICE_LIT("0123456789abcdef"), 123, &packed);
        uint64_t duration;
        uint32_t scenes;
        assert_int_equal(notes_peek(buf_slice(&packed), &duration, &scenes), 0);
        assert_int_equal(duration, 9000);
        assert_int_equal(scenes, 2);
        assert_int_equal(notes_n_pictures(n), 1);
        assert_true(digest_eq(&notes_picture_at(n, 0)->digest, &(struct digest){0}) == false);
        buf_clear(&packed);
        notes_free(n);
    }
}

#define REFUSED(...)                                                                               \
    do {                                                                                           \
        const struct record r_[] = {__VA_ARGS__};                                                  \
        assert_int_equal(feed(r_, ARRAY_LEN(r_), SIZE_MAX / 2, NULL), ERR_PROTO);                  \
    } while (0)

static void order_is_kept(void **state UNUSED)
{
    REFUSED(CONTAINER);
    REFUSED(HELLO, HELLO);
    REFUSED(HELLO, CONTAINER, CONTAINER);
    REFUSED(HELLO, scene(0, 1));
    REFUSED(HELLO, CONTAINER, scene(5, 4));
    REFUSED(HELLO, CONTAINER, scene(0, 50), scene(49, 60));
    REFUSED(HELLO, CONTAINER, frame(0));
    REFUSED(HELLO, CONTAINER, scene(0, 50), frame(1));
    REFUSED(HELLO, CONTAINER, scene(0, 50), {.type = REC_THUMB, .thumb = JPEG});
    REFUSED(HELLO, CONTAINER, {.type = REC_DONE});
    REFUSED(HELLO, CONTAINER, scene(0, 50), {.type = REC_DONE}, scene(50, 60));
    REFUSED(HELLO, {.type = REC_FAIL, .fail = {7, SLICE_LIT("no")}},
            {.type = REC_FAIL, .fail = {7, SLICE_LIT("no")}});
    REFUSED({.type = REC_HELLO, .hello = {REC_VERSION + 1, 0, 0}});
}

static void values_are_bounded(void **state UNUSED)
{
    char *much = xcalloc(1, REC_PAYLOAD_MAX + 1);
    memset(much, 'a', REC_PAYLOAD_MAX + 1);
    REFUSED(HELLO, CONTAINER, span(REC_SUBTITLE, 0, 1, (slice){much, REC_TEXT_MAX + 1}));
    REFUSED(HELLO, CONTAINER, span(REC_SUBTITLE, 2, 1, SLICE_LIT("x")));
    REFUSED(HELLO, CONTAINER, span(REC_SUBTITLE, 0, REC_TIME_MAX_MS + 1, SLICE_LIT("x")));
    REFUSED(HELLO, CONTAINER, span(REC_SUBTITLE, 0, 1, SLICE_LIT("\xff\xfe")));
    REFUSED(HELLO, CONTAINER, span(REC_SUBTITLE, 0, 1, SLICE_LIT("a\0b")));
    REFUSED(HELLO, {.type = REC_REMARK, .remark = {much, REC_TEXT_MAX + 1}});
    REFUSED(HELLO, {.type = REC_REMARK, .remark = {much, REC_PAYLOAD_MAX + 1}});
    REFUSED(HELLO, CONTAINER, scene(0, 9), {.type = REC_FRAME, .frame = {.jpeg = {much, 1000}}});
    REFUSED(HELLO, CONTAINER, {.type = REC_TRACK, .track = {.rotation = 45}});
    REFUSED(HELLO, CONTAINER, {.type = REC_TRACK, .track = {.index = REC_TRACKS_MAX}});
    REFUSED(HELLO, {.type = REC_PROGRESS, .progress = {3, 1001}});
    free(much);
}

static void counts_are_bounded(void **state UNUSED)
{
    static const struct {
        enum rec_type type;
        size_t most;
    } COUNT[] = {{REC_REMARK, REC_REMARKS_MAX},
                 {REC_CHAPTER, REC_CHAPTERS_MAX},
                 {REC_TRACK, REC_TRACKS_MAX},
                 {REC_PROGRESS, REC_PROGRESS_MAX}};
    for (size_t i = 0; i < ARRAY_LEN(COUNT); i++) {
        struct record *r = xcalloc(COUNT[i].most + 3, sizeof *r);
        r[0] = HELLO;
        r[1] = CONTAINER;
        for (size_t k = 0; k <= COUNT[i].most; k++)
            r[2 + k].type = COUNT[i].type;
        assert_int_equal(feed(r, COUNT[i].most + 2, SIZE_MAX / 2, NULL), 0);
        assert_int_equal(feed(r, COUNT[i].most + 3, SIZE_MAX / 2, NULL), ERR_PROTO);
        free(r);
    }
}

static void noise_never_gets_through(void **state UNUSED)
{
    uint32_t x = 7;
    for (int round = 0; round < 2000; round++) {
        buf b = {0};
        record_pack(&HELLO, &b);
        record_pack(&CONTAINER, &b);
        struct record s = span(REC_SUBTITLE, 1, 2, SLICE_LIT("words"));
        record_pack(&s, &b);
        for (int k = 0; k < 3; k++) {
            x = x * 1664525u + 1013904223u;
            b.p[(x >> 8) % b.n] = (char)(x >> 24);
        }
        records_reader *reader = records_reader_new();
        struct why w;
        n_seen = 0;
        (void)!records_feed(reader, buf_slice(&b), on_record, NULL, &w);
        assert_true(n_seen <= 3);
        records_reader_free(reader);
        buf_clear(&b);
    }
}

static void notes_fit_their_limit(void **state UNUSED)
{
    notes *n = notes_new();
    char text[3000];
    memset(text, 'x', sizeof text);
    notes_record(n, &CONTAINER);
    struct record s = scene(0, 10);
    notes_record(n, &s);
    for (uint32_t i = 0; i < 1000; i++) {
        struct record r = span(REC_SUBTITLE, i, i + 1, (slice){text, sizeof text});
        notes_record(n, &r);
        r.type = REC_SCREEN_TEXT;
        notes_record(n, &r);
    }
    buf packed = {0};
    struct digest content = {{1}};
    notes_pack(n, &content, SLICE_LIT("0123456789abcdef"), 1, &packed);
    assert_true(packed.n <= NOTES_BYTES_MAX && packed.n > NOTES_BYTES_MAX / 2);
    uint64_t duration;
    uint32_t scenes;
    assert_int_equal(notes_peek(buf_slice(&packed), &duration, &scenes), 0);
    assert_int_equal(scenes, 1);
    packed.p[0] ^= 0x55;
    assert_true(notes_peek(buf_slice(&packed), &duration, &scenes) < 0);
    buf_clear(&packed);
    notes_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_video),
        cmocka_unit_test(order_is_kept),
        cmocka_unit_test(values_are_bounded),
        cmocka_unit_test(counts_are_bounded),
        cmocka_unit_test(noise_never_gets_through),
        cmocka_unit_test(notes_fit_their_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
