/* Reading real videos, made by ffmpeg, in this process: what is found, and when. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>

#include "common/base/clock.h"
#include "tests/unit/video_testing.h"
#include "video-svc/decode/pass.h"
#include "video-svc/decode/records.h"

#define MAX 400
#define TEXT 300

struct span {
    uint32_t start_ms, end_ms, track;
    char text[TEXT], language[16];
};

struct found {
    struct span subtitles[MAX], chapters[MAX], screen[MAX];
    size_t n_subtitles, n_chapters, n_screen;
    uint32_t scene_start[MAX], scene_end[MAX];
    size_t n_scenes;
    struct {
        uint32_t scene, time_ms, width, height;
        uint64_t phash;
        size_t bytes;
    } frames[MAX];
    size_t n_frames, n_thumbs;
    struct rec_track video;
    size_t n_tracks;
    char remarks[4000];
    char title[100];
    uint64_t duration_ms;
    int err;
    char why[300];
    buf packed; /* all records, as they would go to the parent */
};

static void copy(char *to, size_t n, slice s)
{
    snprintf(to, n, "%.*s", (int)s.n, s.p ? s.p : "");
}

static void take_span(struct span *to, size_t *n, const struct rec_span *s)
{
    assert_true(*n < MAX);
    to += (*n)++;
    to->start_ms = s->start_ms;
    to->end_ms = s->end_ms;
    to->track = s->track;
    copy(to->text, TEXT, s->text);
    copy(to->language, sizeof to->language, s->language);
}

static void on_record(void *ctx, const struct record *r)
{
    struct found *f = ctx;
    size_t at;
    record_pack(r, &f->packed);
    switch (r->type) {
    case REC_CONTAINER:
        copy(f->title, sizeof f->title, r->container.title);
        break;
    case REC_TRACK:
        f->n_tracks++;
        if (r->track.selected)
            f->video = r->track;
        break;
    case REC_SUBTITLE:
        take_span(f->subtitles, &f->n_subtitles, &r->span);
        break;
    case REC_CHAPTER:
        take_span(f->chapters, &f->n_chapters, &r->span);
        break;
    case REC_SCREEN_TEXT:
        take_span(f->screen, &f->n_screen, &r->span);
        break;
    case REC_SCENE:
        assert_true(f->n_scenes < MAX);
        f->scene_start[f->n_scenes] = r->scene.start_ms;
        f->scene_end[f->n_scenes++] = r->scene.end_ms;
        break;
    case REC_FRAME:
        assert_true(f->n_frames < MAX);
        at = f->n_frames++;
        f->frames[at].scene = r->frame.scene;
        f->frames[at].time_ms = r->frame.time_ms;
        f->frames[at].width = r->frame.width;
        f->frames[at].height = r->frame.height;
        f->frames[at].phash = r->frame.phash;
        f->frames[at].bytes = r->frame.jpeg.n;
        assert_memory_equal(r->frame.jpeg.p, "\xff\xd8", 2);
        break;
    case REC_THUMB:
        f->n_thumbs++;
        break;
    case REC_REMARK:
        at = strlen(f->remarks);
        copy(f->remarks + at, sizeof f->remarks - at, r->remark);
        break;
    case REC_DONE:
        f->duration_ms = r->done_duration_ms;
        break;
    case REC_FAIL:
        f->err = err_from_wire(r->fail.code);
        copy(f->why, sizeof f->why, r->fail.text);
        break;
    default:
        break;
    }
}

static ocr *reader;

static struct pass_config config(struct found *f)
{
    return (struct pass_config){.media = {.pixels_max = 8192 * 4320,
                                          .packets_max = 1000000,
                                          .frames_max = 100000,
                                          .duration_max_ms = 7200000,
                                          .deadline_us = clock_mono_us() + 120000000,
                                          .exact_pixels_max = 60000000000},
                                .frames_max = 64,
                                .edge = 512,
                                .thumb_edge = 160,
                                .ocr_max = 100,
                                .emit = on_record,
                                .ctx = f};
}

static struct found found;

static const struct found *read_with(const char *file, const struct pass_config *c)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    struct stat st = {0};
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    buf_clear(&found.packed);
    found = (struct found){0};
    int e = pass_run(c, fd, (uint64_t)st.st_size);
    close(fd);
    assert_int_equal(e, found.err);
    return &found;
}

static const struct found *read_file(const char *file)
{
    struct pass_config c = config(&found);
    return read_with(file, &c);
}

static bool near_to(uint32_t a, uint32_t b, uint32_t by)
{
    return a > b ? a - b <= by : b - a <= by;
}

static void need_ffmpeg(void)
{
    if (!video_have_ffmpeg()) {
        print_message("SKIPPED: the ffmpeg program is not installed\n");
        skip();
    }
}

/* Three scenes of two seconds, hard cuts at 2 and 4 s. */
#define SCENES(text1, text2, text3)                                                                \
    "-f lavfi -i \"color=c=0x204080:s=640x360:d=2:r=25" text1                                      \
    "\" -f lavfi -i \"color=c=0x803020:s=640x360:d=2:r=25" text2                                   \
    "\" -f lavfi -i \"color=c=0x206040:s=640x360:d=2:r=25" text3 "\" "
#define DRAW(t) ",drawtext=text='" t "':fontsize=44:fontcolor=white:x=(w-tw)/2:y=(h-th)/2"
#define JOIN "-filter_complex \"[0][1][2]concat=n=3:v=1[v]\" -map \"[v]\" "

static void assert_three_scenes(const struct found *f)
{
    assert_int_equal(f->err, 0);
    assert_int_equal(f->n_scenes, 3);
    assert_int_equal(f->scene_start[0], 0);
    assert_int_equal(f->scene_start[1], 2000);
    assert_int_equal(f->scene_start[2], 4000);
    assert_int_equal(f->scene_end[2], 6000);
    assert_int_equal(f->duration_ms, 6000);
}

static void cuts_are_found_to_the_frame(void **state UNUSED)
{
    need_ffmpeg();
    assert_int_equal(video_shell(FFMPEG SCENES("", "", "") JOIN
                                 "-c:v libx264 -bf 3 -g 250 -pix_fmt yuv420p cuts.mp4"),
                     0);
    const struct found *f = read_file("cuts.mp4");
    assert_three_scenes(f);
    assert_string_equal(f->remarks, "");
    assert_int_equal(f->video.width, 640);
    assert_int_equal(f->video.height, 360);
    assert_int_equal(f->video.fps_milli, 25000);
    assert_int_equal(f->n_frames, f->n_thumbs);
    for (size_t i = 0; i < f->n_frames; i++) {
        uint32_t s = f->frames[i].scene, t = f->frames[i].time_ms;
        assert_true(t >= f->scene_start[s] && t < f->scene_end[s]);
        assert_int_equal(t % 40, 0); /* times of real pictures */
        assert_int_equal(f->frames[i].width, 512);
        assert_int_equal(f->frames[i].height, 288);
    }
    for (uint32_t s = 0; s < 3; s++) {
        size_t n = 0;
        for (size_t i = 0; i < f->n_frames; i++)
            n += f->frames[i].scene == s;
        assert_true(n >= 1);
    }
}

static void every_container_and_codec(void **state UNUSED)
{
    need_ffmpeg();
    static const char *const MAKE[] = {
        FFMPEG "-i cuts.mp4 -c:v libx265 -x265-params log-level=none -pix_fmt yuv420p10le c1.mkv",
        FFMPEG "-i cuts.mp4 -c:v libvpx -b:v 1M c2.webm",
        FFMPEG "-i cuts.mp4 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 c3.webm",
        FFMPEG "-i cuts.mp4 -c:v mpeg4 c4.avi",
        FFMPEG "-i cuts.mp4 -c:v mjpeg -pix_fmt yuvj420p c5.avi",
        FFMPEG "-i cuts.mp4 -c:v mpeg2video c6.ts",
        FFMPEG "-i cuts.mp4 -c copy -f mpegts c7.m2ts",
        FFMPEG "-i cuts.mp4 -c copy c8.mov",
    };
    static const char *const FILES[] = {"c1.mkv", "c2.webm", "c3.webm", "c4.avi",
                                        "c5.avi", "c6.ts",   "c7.m2ts", "c8.mov"};
    for (size_t i = 0; i < ARRAY_LEN(FILES); i++) {
        assert_int_equal(video_shell(MAKE[i]), 0);
        const struct found *f = read_file(FILES[i]);
        if (f->err < 0)
            print_message("%s: %s\n", FILES[i], f->why);
        assert_int_equal(f->err, 0);
        assert_int_equal(f->n_scenes, 3);
        assert_true(near_to(f->scene_start[1], 2000, 40));
        assert_true(near_to(f->scene_start[2], 4000, 40));
    }
}

static void flashes_are_not_cuts(void **state UNUSED)
{
    need_ffmpeg();
    /* White for two pictures at 1 s, black for two at 2 s, in a picture that moves. */
    assert_int_equal(video_shell(FFMPEG "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -vf "
                                        "\"drawbox=c=white:t=fill:enable='between(t,1,1.05)',"
                                        "drawbox=c=black:t=fill:enable='between(t,2,2.05)'\" "
                                        "-c:v libx264 -pix_fmt yuv420p flash.mp4"),
                     0);
    const struct found *f = read_file("flash.mp4");
    assert_int_equal(f->err, 0);
    assert_int_equal(f->n_scenes, 1);
}

static void fades_and_dissolves_are_one_cut(void **state UNUSED)
{
    need_ffmpeg();
    assert_int_equal(
        video_shell(
            FFMPEG
            "-f lavfi -i mandelbrot=s=320x240:r=25 -f lavfi -i \"color=c=0xc08030:s=320x240:r=25\" "
            "-t 7 -filter_complex "
            "\"[0]trim=0:4[a];[1]trim=0:4[b];[a][b]xfade=transition=fade:duration=1:offset=3[v]\" "
            "-map \"[v]\" -c:v libx264 -pix_fmt yuv420p dissolve.mp4"),
        0);
    const struct found *f = read_file("dissolve.mp4");
    assert_int_equal(f->err, 0);
    assert_int_equal(f->n_scenes, 2);
    assert_true(near_to(f->scene_start[1], 3500, 400));
    assert_int_equal(
        video_shell(
            FFMPEG
            "-f lavfi -i \"color=c=0x20a040:s=320x240:r=25:d=3,fade=t=out:st=2.5:d=0.5\" -f lavfi "
            "-i "
            "\"color=c=0xa02040:s=320x240:r=25:d=3,fade=t=in:st=0:d=0.5\" -filter_complex "
            "\"[0][1]concat=n=2:v=1[v]\" -map \"[v]\" -c:v libx264 -pix_fmt yuv420p fade.mp4"),
        0);
    f = read_file("fade.mp4");
    assert_int_equal(f->n_scenes, 2);
    assert_true(near_to(f->scene_start[1], 3000, 400));
}

static void movement_is_not_a_cut(void **state UNUSED)
{
    need_ffmpeg();
    assert_int_equal(video_shell(FFMPEG "-f lavfi -i \"testsrc2=s=1280x240:r=25:d=4\" -vf "
                                        "\"crop=320:240:x='min(t*60,960)':y=0\" "
                                        "-c:v libx264 -pix_fmt yuv420p pan.mp4"),
                     0);
    const struct found *f = read_file("pan.mp4");
    assert_int_equal(f->err, 0);
    assert_int_equal(f->n_scenes, 1);
}

static const char SRT[] = "1\n00:00:00,500 --> 00:00:01,500\nGood <i>morning</i> "
                          "&\nfriends\n\n2\n00:00:02,500 --> 00:00:03,500\n안녕하세요\n\n";

static void subtitles_of_all_kinds(void **state UNUSED)
{
    need_ffmpeg();
    video_write("s.srt", SRT);
    static const char *const KIND[][2] = {
        {"mov_text", "s1.mp4"}, {"srt", "s2.mkv"}, {"ass", "s3.mkv"}, {"webvtt", "s4.mkv"}};
    for (size_t i = 0; i < ARRAY_LEN(KIND); i++) {
        char line[400];
        snprintf(line, sizeof line,
                 FFMPEG "-i cuts.mp4 -i s.srt -map 0:v -map 1:s -c:v copy -c:s %s -metadata:s:s:0 "
                        "language=kor %s",
                 KIND[i][0], KIND[i][1]);
        assert_int_equal(video_shell(line), 0);
        const struct found *f = read_file(KIND[i][1]);
        assert_three_scenes(f);
        assert_int_equal(f->n_subtitles, 2);
        assert_string_equal(f->subtitles[0].text, "Good morning &\nfriends");
        assert_int_equal(f->subtitles[0].start_ms, 500);
        assert_int_equal(f->subtitles[0].end_ms, 1500);
        assert_string_equal(f->subtitles[1].text, "안녕하세요");
        assert_int_equal(f->subtitles[1].start_ms, 2500);
        assert_string_equal(f->subtitles[1].language, "kor");
        assert_int_equal(f->subtitles[1].track, 1);
    }
}

static void chapters_and_titles(void **state UNUSED)
{
    need_ffmpeg();
    video_write("meta.txt",
                ";FFMETADATA1\ntitle=A day at "
                "sea\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=2500\ntitle=Leaving\n"
                "[CHAPTER]\nTIMEBASE=1/1000\nSTART=2500\nEND=6000\ntitle=Coming home\n");
    static const char *const OUT[] = {"ch.mp4", "ch.mkv"};
    for (size_t i = 0; i < 2; i++) {
        char line[300];
        snprintf(line, sizeof line,
                 FFMPEG "-i cuts.mp4 -i meta.txt -map_metadata 1 -map_chapters 1 -c copy %s",
                 OUT[i]);
        assert_int_equal(video_shell(line), 0);
        const struct found *f = read_file(OUT[i]);
        assert_int_equal(f->n_chapters, 2);
        assert_string_equal(f->chapters[1].text, "Coming home");
        assert_int_equal(f->chapters[1].start_ms, 2500);
        assert_int_equal(f->chapters[1].end_ms, 6000);
        assert_string_equal(f->title, "A day at sea");
    }
}

/* As ffmpeg turns it: the same pictures as in a file that was turned for good. */
static void rotation_is_honoured(void **state UNUSED)
{
    need_ffmpeg();
    static const int ANGLE[] = {90, 180, 270};
    assert_int_equal(
        video_shell(
            FFMPEG
            "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -c:v libx264 -pix_fmt yuv420p corner.mp4"),
        0);
    for (size_t i = 0; i < 3; i++) {
        char line[300];
        snprintf(line, sizeof line,
                 FFMPEG "-i corner.mp4 -c copy -metadata:s:v:0 rotate=%d rot.mp4 && " FFMPEG
                        "-i rot.mp4 -c:v libx264 turned.mp4",
                 ANGLE[i]);
        assert_int_equal(video_shell(line), 0);
        const struct found *f = read_file("rot.mp4");
        uint64_t hash = f->frames[0].phash;
        uint32_t w = f->frames[0].width, h = f->frames[0].height;
        assert_int_equal(f->video.width, w);
        assert_int_equal(f->video.rotation % 180, ANGLE[i] % 180);
        assert_int_not_equal(f->video.rotation, 0);
        assert_int_equal(w, ANGLE[i] == 180 ? 320 : 240);
        f = read_file("turned.mp4");
        assert_int_equal(f->video.rotation, 0);
        assert_int_equal(f->frames[0].width, w);
        assert_int_equal(f->frames[0].height, h);
        assert_true(__builtin_popcountll(f->frames[0].phash ^ hash) <= 8);
    }
}

static void a_late_start_is_time_zero(void **state UNUSED)
{
    need_ffmpeg();
    assert_int_equal(video_shell(FFMPEG "-i cuts.mp4 -i s.srt -map 0:v -map 1:s -c:v copy -c:s srt "
                                        "-output_ts_offset 100 late.mkv"),
                     0);
    const struct found *f = read_file("late.mkv");
    assert_three_scenes(f);
    assert_int_equal(f->subtitles[0].start_ms, 500);
    assert_int_equal(video_shell(FFMPEG "-i cuts.mp4 -c copy -f mpegts late.ts"),
                     0); /* starts at 1.4 s */
    f = read_file("late.ts");
    assert_int_equal(f->n_scenes, 3);
    assert_int_equal(f->scene_start[0], 0);
    assert_int_equal(f->scene_start[1], 2000);
}

static void text_on_the_screen(void **state UNUSED)
{
    need_ffmpeg();
    if (!reader) {
        print_message("SKIPPED: tesseract's data is not installed\n");
        skip();
    }
    assert_int_equal(video_shell(FFMPEG SCENES(DRAW("HARBOUR KITCHEN"), "", DRAW("FERRY 1742")) JOIN
                                 "-c:v libx264 -pix_fmt yuv420p text.mp4"),
                     0);
    struct pass_config c = config(&found);
    c.ocr = reader;
    const struct found *f = read_with("text.mp4", &c);
    assert_three_scenes(f);
    assert_int_equal(f->n_screen, 2);
    assert_string_equal(f->screen[0].text, "HARBOUR KITCHEN");
    assert_int_equal(f->screen[0].start_ms, 0);
    assert_int_equal(f->screen[0].end_ms, 2000);
    assert_string_equal(f->screen[1].text, "FERRY 1742");
    assert_int_equal(f->screen[1].start_ms, 4000);
    assert_int_equal(f->screen[1].end_ms, 6000);
}

static void korean_on_the_screen(void **state UNUSED)
{
    need_ffmpeg();
    static const char FONT[] = "/usr/share/fonts/truetype/nanum/NanumGothic.ttf";
    if (!reader || access(FONT, R_OK) != 0) {
        print_message("SKIPPED: tesseract's data or the Nanum font is not installed\n");
        skip();
    }
    assert_int_equal(
        video_shell(
            FFMPEG
            "-f lavfi -i "
            "\"color=c=0x203040:s=640x360:d=2:r=25,drawtext=fontfile=/usr/share/fonts/truetype/"
            "nanum/"
            "NanumGothic.ttf:text='서울역 안내방송':fontsize=52:fontcolor=white:x=80:y=140\" "
            "-c:v libx264 -pix_fmt yuv420p korean.mp4"),
        0);
    struct pass_config c = config(&found);
    c.ocr = reader;
    const struct found *f = read_with("korean.mp4", &c);
    assert_int_equal(f->n_screen, 1);
    assert_non_null(strstr(f->screen[0].text, "서울역"));
}

static void key_frames_alone(void **state UNUSED)
{
    need_ffmpeg();
    assert_int_equal(video_shell(FFMPEG "-i cuts.mp4 -c:v libx264 -g 25 -keyint_min 25 keys.mp4"),
                     0);
    struct pass_config c = config(&found);
    c.media.keyframes = true;
    const struct found *f = read_with("keys.mp4", &c);
    assert_three_scenes(f);
    assert_non_null(strstr(f->remarks, "key frames"));
    /* A long video is read so without being asked. */
    c.media.keyframes = false;
    c.media.exact_pixels_max = 640 * 360 * 100;
    f = read_with("keys.mp4", &c);
    assert_non_null(strstr(f->remarks, "because it is long"));
}

static void limits_end_it(void **state UNUSED)
{
    need_ffmpeg();
    struct pass_config c = config(&found);
    c.media.pixels_max = 640 * 360 - 1;
    assert_int_equal(read_with("cuts.mp4", &c)->err, ERR_TOO_BIG);
    assert_non_null(strstr(found.why, "640 x 360"));
    c = config(&found);
    c.media.frames_max = 100;
    assert_int_equal(read_with("cuts.mp4", &c)->err, ERR_TOO_BIG);
    c = config(&found);
    c.media.packets_max = 100;
    assert_int_equal(read_with("cuts.mp4", &c)->err, ERR_TOO_BIG);
    c = config(&found);
    c.media.deadline_us = clock_mono_us();
    assert_int_equal(read_with("cuts.mp4", &c)->err, ERR_TIMEOUT);
    c = config(&found);
    c.media.duration_max_ms = 3000;
    const struct found *f = read_with("cuts.mp4", &c);
    assert_int_equal(f->err, 0);
    assert_non_null(strstr(f->remarks, "cut after 0:00:03"));
    assert_int_equal(f->n_scenes, 2);
    c = config(&found);
    c.frames_max = 2;
    assert_int_equal(read_with("cuts.mp4", &c)->n_frames, 2);
}

static void assert_unreadable(const char *file, const char *says)
{
    const struct found *f = read_file(file);
    assert_int_equal(f->err, ERR_UNREADABLE);
    if (!strstr(f->why, says))
        print_message("%s: '%s' does not say '%s'\n", file, f->why, says);
    assert_non_null(strstr(f->why, says));
}

static void files_that_are_no_videos(void **state UNUSED)
{
    need_ffmpeg();
    video_write("empty.mp4", "");
    assert_unreadable("empty.mp4", "empty");
    video_write("words.mp4", "this is not a video\n");
    assert_unreadable("words.mp4", "text");
    video_write("list.m3u8", "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n");
    assert_unreadable("list.m3u8", "HLS playlist");
    video_write("concat.mp4", "ffconcat version 1.0\nfile '/etc/passwd'\n");
    assert_unreadable("concat.mp4", "concat script");
    assert_int_equal(video_shell(FFMPEG "-f lavfi -i sine=d=1 -c:a aac sound.m4a"), 0);
    assert_unreadable("sound.m4a", "no video track");
    assert_int_equal(video_shell("head -c 3000 cuts.mp4 >cut.mp4"), 0);
    assert_unreadable("cut.mp4", "ends early");
    assert_int_equal(video_shell(FFMPEG "-i cuts.mp4 -frames:v 1 picture.png"), 0);
    assert_unreadable("picture.png", "picture");
    assert_int_equal(video_shell("tail -c +100 cuts.mp4 >tail.mp4"), 0);
    assert_unreadable("tail.mp4", "no video");
    assert_int_equal(video_shell(FFMPEG "-f lavfi -i testsrc=d=1:s=320x240 -c:v prores p.mov"), 0);
    assert_int_equal(read_file("p.mov")->err, ERR_UNSUPPORTED);
}

static void half_a_file_is_half_read(void **state UNUSED)
{
    need_ffmpeg();
    assert_int_equal(video_shell(FFMPEG
                                 "-f lavfi -i testsrc2=s=320x240:r=25:d=8 -c:v libx264 -g 25 "
                                 "-pix_fmt yuv420p -movflags faststart whole.mp4 && "
                                 "head -c $(( $(stat -c %s whole.mp4) / 2 )) whole.mp4 >half.mp4"),
                     0);
    const struct found *f = read_file("half.mp4");
    assert_int_equal(f->err, 0);
    assert_non_null(strstr(f->remarks, "ends early"));
    assert_true(f->duration_ms > 1000 && f->duration_ms < 7000);
}

/* Every tenth byte of a file another: whatever comes of it, it ends, and says something that fits.
 */
static void damaged_files_end(void **state UNUSED)
{
    need_ffmpeg();
    static const char *const FILES[] = {"s1.mp4", "s2.mkv", "c4.avi", "c6.ts", "c3.webm"};
    uint32_t random = 12345;
    for (size_t i = 0; i < ARRAY_LEN(FILES); i++) {
        char line[200];
        snprintf(line, sizeof line, "cp %s damaged.bin", FILES[i]);
        assert_int_equal(video_shell(line), 0);
        int fd = open("damaged.bin", O_RDWR | O_CLOEXEC);
        struct stat st = {0};
        assert_true(fd >= 0 && fstat(fd, &st) == 0);
        for (off_t at = 64; at < st.st_size; at += (random >> 20) % 400) {
            random = random * 1664525u + 1013904223u;
            unsigned char c = (unsigned char)(random >> 24);
            assert_int_equal(pwrite(fd, &c, 1, at), 1);
            at++;
        }
        close(fd);
        const struct found *f = read_file("damaged.bin");
        assert_true(f->err == 0 || f->err == ERR_UNREADABLE || f->err == ERR_UNSUPPORTED ||
                    f->err == ERR_TOO_BIG);
    }
}

/* A header that promises a hundred times more pictures than there are. */
static void lying_counts_are_not_believed(void **state UNUSED)
{
    need_ffmpeg();
    int fd = open("c4.avi", O_RDWR | O_CLOEXEC);
    unsigned char head[200];
    assert_int_equal(pread(fd, head, sizeof head, 0), sizeof head);
    assert_memory_equal(head + 24, "avih", 4);
    static const unsigned char LIE[] = {0xff, 0xff, 0x0f, 0x00};
    memcpy(head + 48, LIE, sizeof LIE);  /* dwTotalFrames */
    memcpy(head + 140, LIE, sizeof LIE); /* dwLength of the stream */
    assert_int_equal(pwrite(fd, head, sizeof head, 0), sizeof head);
    close(fd);
    const struct found *f = read_file("c4.avi");
    assert_int_equal(f->err, 0);
    assert_int_equal(f->n_scenes, 3);
    assert_int_equal(f->duration_ms, 6000);
    assert_non_null(strstr(f->remarks, "ends early"));
}

static void sound_without_words_is_remarked(void **state UNUSED)
{
    need_ffmpeg();
    assert_int_equal(
        video_shell(FFMPEG "-i cuts.mp4 -f lavfi -i sine=d=6 -c:v copy -c:a aac sound.mp4"), 0);
    const struct found *f = read_file("sound.mp4");
    assert_three_scenes(f);
    assert_non_null(strstr(f->remarks, "not transcribed"));
}

/* Any folder of videos: each is read or refused, in bounded time. NUNCHI_TEST_CORPUS names it. */
static void a_corpus(void **state UNUSED)
{
    const char *folder = getenv("NUNCHI_TEST_CORPUS");
    DIR *d = folder ? opendir(folder) : NULL;
    if (!d) {
        print_message("SKIPPED: NUNCHI_TEST_CORPUS names no folder\n");
        skip();
        return; /* skip() has left already; a reader of the code alone cannot know */
    }
    for (struct dirent *e; (e = readdir(d));) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        struct stat st;
        if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
            continue;
        const struct found *f = read_file(path);
        print_message("%s: %s, %zu scenes, %zu frames, %zu subtitles\n", e->d_name,
                      f->err ? f->why : "read", f->n_scenes, f->n_frames, f->n_subtitles);
        assert_true(f->err == 0 || f->why[0]);
    }
    closedir(d);
}

static int setup(void **state)
{
    struct why w;
    setenv("OMP_THREAD_LIMIT", "1", 1);
    if (ocr_new("eng+kor", &reader, &w) < 0)
        reader = NULL;
    return video_folder_make(state);
}

static int teardown(void **state)
{
    ocr_free(reader);
    buf_clear(&found.packed);
    return video_folder_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_are_found_to_the_frame),
        cmocka_unit_test(every_container_and_codec),
        cmocka_unit_test(flashes_are_not_cuts),
        cmocka_unit_test(fades_and_dissolves_are_one_cut),
        cmocka_unit_test(movement_is_not_a_cut),
        cmocka_unit_test(subtitles_of_all_kinds),
        cmocka_unit_test(chapters_and_titles),
        cmocka_unit_test(rotation_is_honoured),
        cmocka_unit_test(a_late_start_is_time_zero),
        cmocka_unit_test(text_on_the_screen),
        cmocka_unit_test(korean_on_the_screen),
        cmocka_unit_test(key_frames_alone),
        cmocka_unit_test(limits_end_it),
        cmocka_unit_test(files_that_are_no_videos),
        cmocka_unit_test(half_a_file_is_half_read),
        cmocka_unit_test(damaged_files_end),
        cmocka_unit_test(lying_counts_are_not_believed),
        cmocka_unit_test(sound_without_words_is_remarked),
        cmocka_unit_test(a_corpus),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
