/* Text of subtitles and on the screen, what a file is by its first bytes, pictures. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "video-svc/decode/jpeg.h"
#include "video-svc/decode/keep.h"
#include "video-svc/decode/screentext.h"
#include "video-svc/decode/sniff.h"
#include "video-svc/decode/subtext.h"

static void is_ass(const char *event, const char *want)
{
    buf b = {0};
    subtext_from_ass(slice_str(event), &b);
    assert_string_equal(buf_cstr(&b), want);
    buf_clear(&b);
}

static void markup_is_taken_out(void **state UNUSED)
{
    is_ass("0,0,Default,,0,0,0,,{\\an8}Hello,\\Nworld", "Hello,\nworld");
    is_ass("0,0,Default,,0,0,0,,{\\p1}m 0 0 l 10 10{\\p0}seen", "seen");
    is_ass("0,0,Default,,0,0,0,,a\\hb <i>c</i> <3 x<y", "a b c <3 x<y");
    is_ass("0,0,Default,,0,0,0,,{unclosed", "{unclosed");
    is_ass("no commas", "");
    is_ass("", "");
    is_ass("0,0,Default,,0,0,0,,bell\x07 bad\xff", "bell bad\xef\xbf\xbd");
}

static struct ocr_line line(const char *text, uint32_t confidence)
{
    struct ocr_line l = {.confidence = confidence};
    strncpy(l.text, text, sizeof l.text - 1);
    return l;
}

static void the_same_line_is_one_span(void **state UNUSED)
{
    screentext *s = screentext_new();
    struct ocr_line l = line("Welcome to Busan", 80);
    screentext_seen(s, 0, NULL, 0);
    screentext_seen(s, 1000, &l, 1);
    l = line("VVelcome to Busan", 70); /* misread */
    screentext_seen(s, 2000, &l, 1);
    screentext_seen(s, 3000, NULL, 0); /* missed once */
    l = line("Welcome to Busan.", 95);
    screentext_seen(s, 4000, &l, 1);
    screentext_same(s, 5000);
    screentext_seen(s, 6000, NULL, 0);
    screentext_seen(s, 7000, NULL, 0);
    const uint32_t cuts[] = {0, 700, 5600};
    assert_int_equal(screentext_end(s, cuts, 3, 8000), 1);
    const struct screentext_span *span = screentext_at(s, 0);
    assert_string_equal(span->text, "Welcome to Busan.");
    assert_int_equal(span->confidence, 95);
    assert_int_equal(span->start_ms, 700);
    assert_int_equal(span->end_ms, 5600);
    screentext_free(s);
}

static void different_lines_are_different_spans(void **state UNUSED)
{
    screentext *s = screentext_new();
    struct ocr_line l[2] = {line("Gate 4", 90), line("안내 방송", 90)};
    screentext_seen(s, 0, l, 2);
    l[0] = line("Departures", 90);
    screentext_seen(s, 1000, l, 2);
    screentext_seen(s, 2000, l, 2);
    assert_int_equal(screentext_end(s, NULL, 0, 3000), 3);
    assert_string_equal(screentext_at(s, 0)->text, "Gate 4");
    assert_int_equal(screentext_at(s, 0)->end_ms, 500);
    assert_string_equal(screentext_at(s, 1)->text, "안내 방송");
    assert_int_equal(screentext_at(s, 1)->end_ms, 3000);
    assert_string_equal(screentext_at(s, 2)->text, "Departures");
    screentext_free(s);
}

static void kinds_of_files(void **state UNUSED)
{
    const struct {
        slice head;
        const char *demuxer, *says;
    } CASE[] = {
        {SLICE_LIT("\0\0\0\x18"
                   "ftypisom"),
         "mov", NULL},
        {SLICE_LIT("\x1a\x45\xdf\xa3...."), "matroska", NULL},
        {SLICE_LIT("RIFF\0\0\0\0AVI LIST"), "avi", NULL},
        {SLICE_LIT("RIFF\0\0\0\0WAVEfmt "), NULL, "WAV"},
        {SLICE_LIT("#EXTM3U\n#EXT-X-VERSION:3\n"), NULL, "HLS"},
        {SLICE_LIT("\xef\xbb\xbf  \n#EXTM3U\n"), NULL, "HLS"},
        {SLICE_LIT("ffconcat version 1.0"), NULL, "concat"},
        {SLICE_LIT("<?xml version=\"1.0\"?><MPD/>"), NULL, "XML"},
        {SLICE_LIT("v=0\r\no=- 0 0 IN IP4 127.0.0.1"), NULL, "SDP"},
        {SLICE_LIT("\x89PNG\r\n\x1a\n"), NULL, "picture"},
        {SLICE_LIT("GIF89a"), NULL, "picture"},
        {SLICE_LIT("ID3\x03"), NULL, "MP3"},
        {SLICE_LIT("\xff\xfb\x90\x44"), NULL, "MP3"},
        {SLICE_LIT("file 'a.mp4'\n"), NULL, "text"},
        {SLICE_LIT("\x01\x02\x03\x04\x05\x06\x07"), NULL, "no video"},
    };
    for (size_t i = 0; i < ARRAY_LEN(CASE); i++) {
        const char *demuxer = NULL;
        struct why w = {0};
        int e = sniff(CASE[i].head, CASE[i].head.n, &demuxer, &w);
        if (CASE[i].demuxer) {
            assert_int_equal(e, 0);
            assert_string_equal(demuxer, CASE[i].demuxer);
        } else {
            assert_int_equal(e, ERR_UNREADABLE);
            assert_non_null(strstr(w.text, CASE[i].says));
        }
    }
}

static void pictures_turn_and_shrink(void **state UNUSED)
{
    struct picture p, q;
    assert_int_equal(picture_init(&p, 3, 2, 1), 0);
    memcpy(p.p, "abcdef", 6); /* abc / def */
    assert_int_equal(picture_rotate(&p, 90), 0);
    assert_memory_equal(p.p, "daebfc", 6);
    assert_int_equal(p.w, 2);
    assert_int_equal(picture_rotate(&p, 270), 0);
    assert_memory_equal(p.p, "abcdef", 6);
    assert_int_equal(picture_rotate(&p, 180), 0);
    assert_memory_equal(p.p, "fedcba", 6);
    assert_int_equal(picture_shrink(&p, 1, 1, &q), 0);
    assert_int_equal(q.p[0], 'd'); /* 99.5 */
    picture_clear(&p);
    picture_clear(&q);
    assert_int_equal(picture_init(&p, PICTURE_EDGE_MAX + 1, 1, 1), ERR_TOO_BIG);
    assert_int_equal(picture_init(&p, 0, 1, 1), ERR_TOO_BIG);
    uint32_t w, h;
    picture_fit(1920, 1080, 512, false, &w, &h);
    assert_int_equal(w, 512);
    assert_int_equal(h, 288);
    picture_fit(65535, 1, 512, false, &w, &h);
    assert_int_equal(h, 1);
    picture_fit(100, 50, 512, false, &w, &h);
    assert_int_equal(w, 100);
    picture_fit(100, 50, 200, true, &w, &h);
    assert_int_equal(w, 200);
}

static struct picture noise(uint32_t w, uint32_t h, uint32_t seed)
{
    struct picture p;
    CHECK(picture_init(&p, w, h, 3) == 0);
    for (size_t i = 0; i < (size_t)w * h * 3; i++) {
        seed = seed * 1664525u + 1013904223u;
        p.p[i] = (uint8_t)(seed >> 24);
    }
    return p;
}

static void a_jpeg_fits_its_limit(void **state UNUSED)
{
    struct picture p = noise(512, 512, 1);
    buf b = {0};
    assert_int_equal(jpeg_encode(&p, 100000, &b), 0);
    assert_true(b.n <= 100000 && b.n > 1000);
    buf_reset(&b);
    assert_int_equal(jpeg_encode(&p, 100, &b), ERR_TOO_BIG);
    assert_int_equal(b.n, 0);
    buf_clear(&b);
    picture_clear(&p);
}

/* A gradient with a bright square. */
static struct picture scenery(uint32_t w, uint32_t h, double square_x, double square_y)
{
    struct picture p;
    CHECK(picture_init(&p, w, h, 1) == 0);
    for (uint32_t y = 0; y < h; y++)
        for (uint32_t x = 0; x < w; x++) {
            bool in = x > square_x * w && x < (square_x + 0.3) * w && y > square_y * h &&
                      y < (square_y + 0.3) * h;
            p.p[(size_t)y * w + x] = (uint8_t)(in ? 250 : x * 160 / w);
        }
    return p;
}

static void near_pictures_have_near_hashes(void **state UNUSED)
{
    struct picture a = scenery(320, 240, 0.2, 0.2), b = scenery(640, 480, 0.2, 0.2),
                   c = scenery(320, 240, 0.6, 0.6);
    assert_true(__builtin_popcountll(picture_hash(&a) ^ picture_hash(&b)) <= 4);
    assert_true(__builtin_popcountll(picture_hash(&a) ^ picture_hash(&c)) >= 12);
    picture_clear(&a);
    picture_clear(&b);
    picture_clear(&c);
}

static void kept_frames_are_spread(void **state UNUSED)
{
    keep *k = keep_new(10, 32);
    for (uint32_t t = 0; t < 100000; t += 40) { /* a scene of 64 s, one of 36 s */
        if (!keep_due(k, t, false))
            continue;
        struct picture p = noise(32, 24, t);
        keep_take(k, t, &p);
        if (t >= 64700 && keep_n(k) == 0)
            assert_int_equal(keep_scene(k, 0, 0, 64000), 0);
    }
    assert_int_equal(keep_n(k), KEEP_SCENE_FRAMES_MAX);
    for (size_t i = 0; i < keep_n(k); i++) {
        uint32_t want = 4000 + 8000 * (uint32_t)i, is = keep_at(k, i)->time_ms;
        assert_true(is + 3000 > want && is < want + 3000);
    }
    assert_int_equal(keep_scene(k, 1, 64000, 100000), 0);
    assert_int_equal(keep_n(k), 10); /* fewer than both scenes wanted */
    size_t first = 0;
    for (size_t i = 0; i < 10; i++)
        first += keep_at(k, i)->scene == 0;
    assert_true(first >= 3 && first <= 7);
    keep_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(markup_is_taken_out),
        cmocka_unit_test(the_same_line_is_one_span),
        cmocka_unit_test(different_lines_are_different_spans),
        cmocka_unit_test(kinds_of_files),
        cmocka_unit_test(pictures_turn_and_shrink),
        cmocka_unit_test(a_jpeg_fits_its_limit),
        cmocka_unit_test(near_pictures_have_near_hashes),
        cmocka_unit_test(kept_frames_are_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
