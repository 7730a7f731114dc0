#include "tests/unit/tokenizer_testing.h"

#include "common/wire/pb.h"
#include "tokenizer-svc/place.h"

#define SPANS_MAX 4096

struct fixture {
    struct small_model m;
    tokenizer *t;
    tok_scratch *s;
    Nunchi__Notes notes;
    Nunchi__Container container;
    Nunchi__Span spans[3][SPANS_MAX], *lists[3][SPANS_MAX];
    Nunchi__Scene scenes[SPANS_MAX], *scene_list[SPANS_MAX];
    char texts[SPANS_MAX][48];
    buf out;
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct why w = {0};
    if (tokenizer_new(small_bpe(&f->m, "smollm", NULL), &f->t, &w) < 0)
        fail_msg("%s", w.text);
    f->s = tok_scratch_new(f->t);
    nunchi__notes__init(&f->notes);
    nunchi__container__init(&f->container);
    f->notes.container = &f->container;
    f->notes.subtitles = f->lists[0];
    f->notes.screen_text = f->lists[1];
    f->notes.chapters = f->lists[2];
    f->notes.scenes = f->scene_list;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    tok_scratch_free(f->s);
    tokenizer_free(f->t);
    small_close(&f->m);
    buf_clear(&f->out);
    free(f);
    return 0;
}

static void span(struct fixture *f, int kind, uint32_t start_ms, uint32_t end_ms, const char *text)
{
    size_t *n = kind == 0   ? &f->notes.n_subtitles
                : kind == 1 ? &f->notes.n_screen_text
                            : &f->notes.n_chapters;
    Nunchi__Span *s = &f->spans[kind][*n];
    nunchi__span__init(s);
    s->start_ms = start_ms;
    s->end_ms = end_ms;
    s->text = pb_bytes(slice_str(text));
    f->lists[kind][(*n)++] = s;
}

static void scene(struct fixture *f, uint32_t start_ms, uint32_t end_ms)
{
    Nunchi__Scene *s = &f->scenes[f->notes.n_scenes];
    nunchi__scene__init(s);
    s->start_ms = start_ms;
    s->end_ms = end_ms;
    f->scene_list[f->notes.n_scenes++] = s;
}

static struct placed put(struct fixture *f, const char *name, size_t budget)
{
    place *p;
    struct why w = {0};
    if (place_new(&f->notes, slice_str(name), f->t, f->s, &p, &w) < 0)
        fail_msg("%s", w.text);
    buf_reset(&f->out);
    struct placed r = place_write(p, budget, &f->out);
    place_free(p);
    (void)buf_cstr(&f->out);
    return r;
}

static size_t tokens(struct fixture *f)
{
    struct ids ids = {0};
    assert_int_equal(tokenizer_encode(f->t, f->s, buf_slice(&f->out), false, &ids, NULL), 0);
    size_t n = ids.n;
    ids_clear(&ids);
    return n;
}

static void notes_read_as_plain_lines(void **state)
{
    struct fixture *f = *state;
    f->container.duration_ms = 42000;
    span(f, 0, 5000, 9500, "Serve it\nwith  syrup.");
    span(f, 0, 1000, 4000, "Hello.");
    span(f, 1, 0, 4000, "PANCAKES");
    span(f, 2, 0, 42000, "Cooking");
    scene(f, 0, 10000);
    scene(f, 10000, 42000);
    struct placed r = put(f, "a\tb.mp4", 100000);
    assert_string_equal(f->out.p, "Video: a b.mp4\nLength: 00:42\n"
                                  "Chapters:\n[00:00-00:42] Cooking\n"
                                  "Scenes:\n[00:00-00:10] Scene 1\n[00:10-00:42] Scene 2\n"
                                  "Text on the screen:\n[00:00-00:04] PANCAKES\n"
                                  "What is said (with times):\n[00:01-00:04] Hello.\n"
                                  "[00:05-00:09] Serve it with syrup.\n");
    assert_int_equal(r.lines, 6);
    assert_int_equal(r.kept, 6);
}

static void a_long_video_has_hours(void **state)
{
    struct fixture *f = *state;
    f->container.duration_ms = 2 * 3600000 + 5000;
    span(f, 0, 3600000, 3661000, "x");
    put(f, "", 100000);
    assert_non_null(strstr(f->out.p, "Video: (no name)\nLength: 2:00:05\n"));
    assert_non_null(strstr(f->out.p, "[1:00:00-1:01:01] x\n"));
}

static void what_is_missing_is_said(void **state)
{
    struct fixture *f = *state;
    scene(f, 0, 9000);
    put(f, "v", 1000);
    assert_string_equal(f->out.p, "Video: v\nLength: 00:00\nThere is no transcript of what is "
                                  "said.\nNo text was seen on the screen.\n");
}

static void odd_text_cannot_break_a_line(void **state)
{
    struct fixture *f = *state;
    char big[3000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    span(f, 0, 9000, 1000,
         "a\r\n[00:00-00:09] b\xe2\x80\xa8"
         "c\x1b[0m\xff");
    span(f, 0, 20000, 21000, " \n\t ");
    span(f, 0, 30000, 31000, big);
    struct placed r = put(f, "v", 100000);
    assert_int_equal(r.lines, 2);
    assert_non_null(strstr(f->out.p, "[00:09-00:09] a [00:00-00:09] b c [0m\xef\xbf\xbd\n"));
    assert_true(f->out.n < 300 + PLACE_LINE_BYTES_MAX);
    assert_non_null(strstr(f->out.p, "xxx\xe2\x80\xa6\n"));
}

static void rolling_captions_become_one_line(void **state)
{
    struct fixture *f = *state;
    span(f, 0, 0, 1000, "same");
    span(f, 0, 1000, 2000, "same");
    span(f, 0, 2500, 3000, "same");
    span(f, 0, 9000, 9500, "same");
    struct placed r = put(f, "v", 1000);
    assert_int_equal(r.lines, 2);
    assert_non_null(strstr(f->out.p, "[00:00-00:03] same\n[00:09-00:09] same\n"));
}

static void many(struct fixture *f, size_t said, size_t shown, size_t scenes)
{
    f->container.duration_ms = 3000000;
    for (size_t i = 0; i < said; i++) {
        (void)snprintf(f->texts[i], sizeof f->texts[i], "sentence number %zu", i);
        span(f, 0, (uint32_t)(i * 3000000 / said), (uint32_t)((i + 1) * 3000000 / said),
             f->texts[i]);
    }
    for (size_t i = 0; i < shown; i++)
        span(f, 1, (uint32_t)(i * 3000000 / shown), (uint32_t)((i + 1) * 3000000 / shown),
             i % 2 ? "SIGN" : "POSTER");
    for (size_t i = 0; i < scenes; i++)
        scene(f, (uint32_t)(i * 3000000 / scenes), (uint32_t)((i + 1) * 3000000 / scenes));
}

static void shortened_notes_fit_and_say_so(void **state)
{
    struct fixture *f = *state;
    many(f, 1000, 300, 200);
    for (size_t budget = 200; budget < 60000; budget = budget * 3 / 2) {
        struct placed r = put(f, "long.mp4", budget);
        assert_int_equal(r.lines, 1500);
        assert_true(tokens(f) <= budget);
        assert_true(r.kept == r.lines || strstr(f->out.p, "These notes are shortened: "));
        assert_true(budget < 1000 || r.kept > 10);
    }
    assert_null(strstr(f->out.p, "shortened"));
}

static void shortening_keeps_the_whole_length_in_sight(void **state)
{
    struct fixture *f = *state;
    many(f, 1000, 0, 0);
    struct placed r = put(f, "long.mp4", 4000);
    assert_true(r.kept > 50 && r.kept < 200);
    unsigned at = 0, seen = 0;
    for (const char *p = f->out.p; (p = strstr(p, "sentence number ")); p++) {
        unsigned i = (unsigned)strtoul(p + 16, NULL, 10);
        assert_true(i < at + 2 * 1000 / r.kept + 1); /* no gap twice as long as the average */
        at = i;
        seen++;
    }
    assert_int_equal(seen, r.kept);
    assert_true(at > 1000 - 2 * 1000 / r.kept);
}

static void scenes_go_before_words(void **state)
{
    struct fixture *f = *state;
    many(f, 40, 40, 1000);
    struct placed r = put(f, "v", 4500);
    assert_true(r.kept >= 80 && r.kept < r.lines);
    size_t said = 0, shown = 0;
    for (const char *p = f->out.p; (p = strstr(p, "sentence")); p++)
        said++;
    for (const char *p = f->out.p; (p = strpbrk(p, "GO")); p++)
        shown += strncmp(p - 2, "SIGN", 4) == 0 || strncmp(p - 1, "POSTER", 6) == 0;
    assert_int_equal(said, 40);
    assert_int_equal(shown, 40);
}

static void no_room_leaves_the_heading(void **state)
{
    struct fixture *f = *state;
    many(f, 10, 10, 0);
    struct placed r = put(f, "v", 0);
    assert_int_equal(r.kept, 0);
    assert_string_equal(f->out.p,
                        "Video: v\nLength: 50:00\nThese notes are shortened: 0 of 20 lines.\n");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(notes_read_as_plain_lines),
        TEST(a_long_video_has_hours),
        TEST(what_is_missing_is_said),
        TEST(odd_text_cannot_break_a_line),
        TEST(rolling_captions_become_one_line),
        TEST(shortened_notes_fit_and_say_so),
        TEST(shortening_keeps_the_whole_length_in_sight),
        TEST(scenes_go_before_words),
        TEST(no_room_leaves_the_heading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
