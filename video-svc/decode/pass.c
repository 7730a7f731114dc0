#include "video-svc/decode/pass.h"

#include <stdio.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "video-svc/decode/keep.h"
#include "video-svc/decode/scenes.h"
#include "video-svc/decode/screentext.h"
#include "video-svc/decode/sniff.h"

#define OCR_EDGE                                                                                   \
    1280 /* tesseract likes letters of 20 pixels and more; larger pictures cost without reading    \
            better */
#define OCR_STEP_MS 1000     /* between pictures that are read */
#define OCR_AFTER_CUT_MS 300 /* a scene's first pictures may still be half of the one before */
#define CELL 10              /* pixels of the picture by which changes are seen */
#define CELLS_W 16
#define CELLS_H 9
#define CELL_CHANGE 5.0  /* mean difference in one cell that may be letters coming or going */
#define PROGRESS_STEP 10 /* permille */
#define SUDDEN 16.0      /* as scenes.c judges a change */
#define SAID_MAX 128
#define EARLY_MIN_MS 2000 /* a track that ends so much before its header says is worth a remark */

struct pass {
    const struct pass_config *cfg;
    uint64_t size;
    media *m;
    scenes *scenes;
    keep *keep;
    screentext *text;
    struct why why;
    uint32_t *starts; /* of scenes: ascending, the first is the first picture's time */
    size_t n_starts, cap_starts;
    uint8_t small[2][SMALL_BYTES]; /* this picture's and the last one's */
    uint64_t n_pictures;
    uint32_t last_ms;
    uint32_t permille;
    size_t n_subtitles;
    uint64_t said[SAID_MAX]; /* hashes of the last subtitles */
    bool subtitles_cut, scenes_cut;
    struct {
        uint64_t runs;
        uint32_t next_ms;
        bool any;
        struct picture last; /* as it was when it was read */
    } ocr;
};

static void emit(struct pass *j, const struct record *r)
{
    j->cfg->emit(j->cfg->ctx, r);
}

static void remark(struct pass *j, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void remark(struct pass *j, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    emit(j, &(struct record){.type = REC_REMARK, .remark = slice_str(text)});
}

static void progress(struct pass *j, uint32_t phase, uint32_t permille)
{
    emit(j, &(struct record){.type = REC_PROGRESS, .progress = {phase, permille}});
}

/* ---- what the container says ---- */

static void tell_container(struct pass *j)
{
    struct record c = {.type = REC_CONTAINER};
    c.container.format = media_format(j->m);
    c.container.title = media_title(j->m);
    c.container.duration_ms = media_duration_ms(j->m);
    emit(j, &c);
    for (size_t i = 0; i < media_n_tracks(j->m); i++) {
        struct record r = {.type = REC_TRACK};
        media_track(j->m, i, &r.track);
        emit(j, &r);
    }
    for (size_t i = 0; i < media_n_chapters(j->m); i++) {
        struct media_chapter c2;
        media_chapter(j->m, i, &c2);
        struct record r = {.type = REC_CHAPTER};
        r.span = (struct rec_span){.start_ms = c2.start_ms, .end_ms = c2.end_ms, .text = c2.title};
        emit(j, &r);
    }
}

/* ---- scenes ---- */

static bool scene_begins(struct pass *j, uint32_t time_ms)
{
    if (j->n_starts == REC_SCENES_MAX) {
        j->scenes_cut = true;
        return false;
    }
    if (j->n_starts == j->cap_starts) {
        j->cap_starts = j->cap_starts ? j->cap_starts * 2 : 64;
        j->starts = xrealloc(j->starts, j->cap_starts, sizeof *j->starts);
    }
    j->starts[j->n_starts++] = time_ms;
    return true;
}

static int take_cuts(struct pass *j, const uint32_t *cut, size_t n)
{
    int e = 0;
    for (size_t i = 0; i < n && e >= 0; i++) {
        uint32_t scene = (uint32_t)j->n_starts - 1, start = j->starts[scene];
        if (!scene_begins(j, cut[i]))
            break;
        e = keep_scene(j->keep, scene, start, cut[i]);
        if (j->ocr.next_ms > cut[i] + OCR_AFTER_CUT_MS)
            j->ocr.next_ms = cut[i] + OCR_AFTER_CUT_MS;
    }
    return e;
}

static bool sudden(const struct pass *j)
{
    const uint8_t *now = j->small[j->n_pictures % 2], *before = j->small[(j->n_pictures + 1) % 2];
    return j->n_pictures > 0 && scenes_difference(now, before) >= SUDDEN;
}

static int watch_scenes(struct pass *j, uint32_t time_ms)
{
    uint8_t *small = j->small[j->n_pictures % 2];
    uint32_t cut[SCENE_CUTS_MAX];
    int e = media_small(j->m, small);
    if (e < 0)
        return e;
    if (j->n_pictures == 0)
        scene_begins(j, time_ms);
    size_t n = scenes_picture(j->scenes, time_ms, small, cut);
    e = take_cuts(j, cut, n);
    if (e >= 0 && keep_due(j->keep, time_ms, sudden(j))) {
        struct picture pic = {0};
        e = media_picture(j->m, j->cfg->edge, false, 3, &pic);
        if (e >= 0)
            keep_take(j->keep, time_ms, &pic);
    }
    return e;
}

/* ---- text on the screen ---- */

/* The largest change of any cell: a new word changes a few of them much and the picture's mean
 * hardly at all. */
static bool changed(const struct picture *a, const struct picture *b)
{
    if (!a->p || a->w != b->w || a->h != b->h)
        return true;
    for (uint32_t cy = 0; cy < CELLS_H; cy++)
        for (uint32_t cx = 0; cx < CELLS_W; cx++) {
            uint32_t sum = 0;
            for (uint32_t y = cy * CELL; y < (cy + 1) * CELL; y++)
                for (uint32_t x = cx * CELL; x < (cx + 1) * CELL; x++)
                    sum += (uint32_t)abs(a->p[y * a->w + x] - b->p[y * b->w + x]);
            if (sum > CELL_CHANGE * CELL * CELL)
                return true;
        }
    return false;
}

static void read_text(struct pass *j, uint32_t time_ms, const struct picture *grey)
{
    struct ocr_line lines[OCR_LINES_MAX];
    int n = ocr_worth_it(grey) ? ocr_read(j->cfg->ocr, grey, lines) : 0;
    if (n < 0)
        n = 0;
    screentext_seen(j->text, time_ms, lines, (size_t)n);
}

/* Spreads what is left of the budget over what is left of the video, by whichever measure says more
 * is left: the container's word or the bytes still to come. */
static uint32_t ocr_step(const struct pass *j, const struct media_event *ev)
{
    uint64_t left = 0, claimed = media_report(j->m).claimed_duration_ms;
    if (claimed > ev->start_ms)
        left = claimed - ev->start_ms;
    if (ev->position > 0 && ev->position < j->size) {
        uint64_t by_bytes =
            (uint64_t)((double)ev->start_ms * ((double)j->size / (double)ev->position - 1));
        left = by_bytes > left ? by_bytes : left;
    }
    uint64_t runs = j->cfg->ocr_max - j->ocr.runs;
    uint64_t step = runs ? left / runs : left;
    return step < OCR_STEP_MS       ? OCR_STEP_MS
           : step > REC_TIME_MAX_MS ? REC_TIME_MAX_MS
                                    : (uint32_t)step;
}

static uint32_t ocr_edge(const struct pass *j)
{
    for (size_t i = 0; i < media_n_tracks(j->m); i++) {
        struct rec_track t;
        media_track(j->m, i, &t);
        uint32_t longest = t.width > t.height ? t.width : t.height;
        if (t.selected && longest * 2 < OCR_EDGE)
            return longest * 2 < 64 ? 64 : longest * 2;
    }
    return OCR_EDGE;
}

static int watch_text(struct pass *j, const struct media_event *ev)
{
    if (!j->cfg->ocr || ev->start_ms < j->ocr.next_ms || j->ocr.runs >= j->cfg->ocr_max)
        return 0;
    struct picture grey = {0}, small = {0};
    int e = media_picture(j->m, ocr_edge(j), true, 1, &grey);
    if (e >= 0)
        e = picture_shrink(&grey, CELLS_W * CELL, CELLS_H * CELL, &small);
    if (e >= 0 && !changed(&j->ocr.last, &small)) {
        screentext_same(j->text, ev->start_ms);
        picture_clear(&small);
    } else if (e >= 0) {
        read_text(j, ev->start_ms, &grey);
        j->ocr.runs++;
        picture_clear(&j->ocr.last);
        j->ocr.last = small;
    }
    picture_clear(&grey);
    j->ocr.next_ms = ev->start_ms + ocr_step(j, ev);
    return e;
}

/* ---- the pass ---- */

static void tell_progress(struct pass *j, const struct media_event *ev)
{
    uint64_t claimed = media_report(j->m).claimed_duration_ms;
    uint64_t p = claimed   ? (uint64_t)ev->start_ms * 1000 / claimed
                 : j->size ? ev->position * 1000 / j->size
                           : 0;
    if (p > 999)
        p = 999;
    if (p < j->permille + PROGRESS_STEP)
        return;
    j->permille = (uint32_t)p;
    progress(j, REC_PHASE_SCENES, j->permille);
}

static int on_picture(struct pass *j, const struct media_event *ev)
{
    int e = watch_scenes(j, ev->start_ms);
    if (e >= 0)
        e = watch_text(j, ev);
    if (e < 0 && !j->why.text[0])
        why_set(&j->why, e, "file", "a picture of the video could not be converted");
    j->n_pictures++;
    j->last_ms = ev->start_ms;
    tell_progress(j, ev);
    return e;
}

/* Files carry the same subtitles in several tracks, for several versions of the video. */
static bool said_before(struct pass *j, const struct media_event *ev)
{
    uint64_t h = hash64(ev->text.p, ev->text.n) ^ hash64(&ev->start_ms, sizeof ev->start_ms);
    for (size_t i = 0; i < SAID_MAX; i++)
        if (j->said[i] == h)
            return true;
    j->said[j->n_subtitles % SAID_MAX] = h;
    return false;
}

static void on_subtitle(struct pass *j, const struct media_event *ev)
{
    if (said_before(j, ev))
        return;
    if (j->n_subtitles == REC_SUBTITLES_MAX) {
        j->subtitles_cut = true;
        return;
    }
    j->n_subtitles++;
    struct record r = {.type = REC_SUBTITLE};
    r.span = (struct rec_span){.start_ms = ev->start_ms,
                               .end_ms = ev->end_ms < ev->start_ms ? ev->start_ms : ev->end_ms,
                               .track = ev->track,
                               .text = ev->text};
    r.span.language = slice_str(ev->language);
    if (r.span.language.n > REC_NAME_MAX)
        r.span.language = (slice){0};
    emit(j, &r);
}

static int read_all(struct pass *j)
{
    for (;;) {
        struct media_event ev;
        int e = media_next(j->m, &ev, &j->why);
        if (e < 0 || ev.kind == MEDIA_END)
            return e;
        if (ev.kind == MEDIA_SUBTITLE)
            on_subtitle(j, &ev);
        else if ((e = on_picture(j, &ev)) < 0)
            return e;
    }
}

/* ---- the end ---- */

static int last_scene(struct pass *j, uint32_t end_ms)
{
    uint32_t cut[SCENE_CUTS_MAX];
    size_t n;
    int e = 0;
    while (e >= 0 && (n = scenes_end(j->scenes, cut)) > 0) {
        /* A last scene too short to be one is part of the one before. */
        if (cut[n - 1] + SCENE_MIN_MS > end_ms)
            n--;
        e = take_cuts(j, cut, n);
    }
    if (e >= 0)
        e = keep_scene(j->keep, (uint32_t)j->n_starts - 1, j->starts[j->n_starts - 1], end_ms);
    return e;
}

static void tell_scenes(struct pass *j, uint32_t end_ms)
{
    for (size_t i = 0; i < j->n_starts; i++) {
        struct record r = {.type = REC_SCENE};
        r.scene.start_ms = j->starts[i];
        r.scene.end_ms = i + 1 < j->n_starts ? j->starts[i + 1] : end_ms;
        emit(j, &r);
    }
    progress(j, REC_PHASE_FRAMES, 0);
    for (size_t i = 0; i < keep_n(j->keep); i++) {
        const struct kept_frame *f = keep_at(j->keep, i);
        struct record r = {.type = REC_FRAME};
        r.frame.scene = f->scene;
        r.frame.time_ms = f->time_ms;
        r.frame.width = f->width;
        r.frame.height = f->height;
        r.frame.phash = f->phash;
        r.frame.jpeg = buf_slice(&f->jpeg);
        emit(j, &r);
        emit(j, &(struct record){.type = REC_THUMB, .thumb = buf_slice(&f->thumb)});
    }
}

static void tell_text(struct pass *j, uint32_t end_ms)
{
    progress(j, REC_PHASE_TEXT, 0);
    size_t n = screentext_end(j->text, j->starts, j->n_starts, end_ms);
    for (size_t i = 0; i < n; i++) {
        const struct screentext_span *s = screentext_at(j->text, i);
        struct record r = {.type = REC_SCREEN_TEXT};
        r.span = (struct rec_span){
            .start_ms = s->start_ms, .end_ms = s->end_ms, .confidence = s->confidence};
        r.span.text = slice_str(s->text);
        emit(j, &r);
    }
}

#define CLOCK_FMT "%llu:%02u:%02u"
#define CLOCK_ARGS(ms)                                                                             \
    (unsigned long long)((ms) / 3600000), (unsigned)((ms) / 60000 % 60),                           \
        (unsigned)((ms) / 1000 % 60)

static void tell_remarks(struct pass *j)
{
    struct media_report r = media_report(j->m);
    uint64_t missing =
        r.claimed_duration_ms > r.duration_ms ? r.claimed_duration_ms - r.duration_ms : 0;
    if (r.cut_by_duration)
        remark(j, "cut after " CLOCK_FMT ": longer videos are not read to their end",
               CLOCK_ARGS(j->cfg->media.duration_max_ms));
    else if (missing > EARLY_MIN_MS && missing > r.claimed_duration_ms / 10)
        remark(j,
               "the file ends early: it says that its video lasts " CLOCK_FMT ", and " CLOCK_FMT
               " of it could be read",
               CLOCK_ARGS(r.claimed_duration_ms), CLOCK_ARGS(r.duration_ms));
    if (r.damaged)
        remark(j, "%llu damaged parts of the file were skipped", (unsigned long long)r.damaged);
    if (r.keyframes)
        remark(j, "read at its key frames%s: scenes and times are less exact",
               j->cfg->media.keyframes ? "" : ", because it is long");
    if (r.has_audio)
        remark(j, "no audio transcript: the audio track was not transcribed");
    if (r.has_picture_subtitles)
        remark(j, "subtitles that are pictures, not text, were not read");
    if (j->subtitles_cut)
        remark(j, "only the first %d subtitles were kept", REC_SUBTITLES_MAX);
    if (j->scenes_cut)
        remark(j, "only the first %d scenes were told apart", REC_SCENES_MAX);
    if (j->cfg->ocr && j->ocr.runs >= j->cfg->ocr_max)
        remark(j, "text on the screen was read in %u pictures; more may have been there",
               j->cfg->ocr_max);
}

static int finish(struct pass *j)
{
    uint64_t duration = media_report(j->m).duration_ms;
    if (j->n_pictures == 0)
        return why_set(
            &j->why, ERR_UNREADABLE, "file",
            "the file ends early or is damaged: no picture of its video could be decoded");
    int e = last_scene(j, (uint32_t)duration);
    if (e < 0)
        return why_set(&j->why, e, "file", "a picture of the video could not be stored as JPEG");
    tell_scenes(j, (uint32_t)duration);
    tell_text(j, (uint32_t)duration);
    tell_remarks(j);
    emit(j, &(struct record){.type = REC_DONE, .done_duration_ms = duration});
    return 0;
}

static int open_file(struct pass *j, int fd)
{
    char head[SNIFF_BYTES];
    ssize_t got = pread(fd, head, sizeof head, 0);
    if (got < 0)
        return why_set(&j->why, ERR_IO, "file", "the file could not be read");
    const char *demuxer = NULL;
    int e = sniff((slice){head, (size_t)got}, j->size, &demuxer, &j->why);
    if (e >= 0 && strcmp(demuxer, "mov") == 0)
        e = sniff_mp4(fd, j->size, &j->why);
    if (e >= 0)
        e = media_open(fd, j->size, demuxer, &j->cfg->media, &j->m, &j->why);
    return e;
}

static int run(struct pass *j, int fd)
{
    progress(j, REC_PHASE_PROBING, 0);
    int e = open_file(j, fd);
    if (e < 0)
        return e;
    tell_container(j);
    j->scenes = scenes_new(media_report(j->m).keyframes);
    progress(j, REC_PHASE_SCENES, 0);
    e = read_all(j);
    return e < 0 ? e : finish(j);
}

int pass_run(const struct pass_config *cfg, int fd, uint64_t size)
{
    struct pass *j = xcalloc(1, sizeof *j);
    j->cfg = cfg;
    j->size = size;
    j->keep = keep_new(cfg->frames_max, cfg->thumb_edge);
    j->text = screentext_new();
    int e = run(j, fd);
    if (e < 0) {
        struct record r = {.type = REC_FAIL};
        r.fail.code = err_to_wire(e);
        r.fail.text = slice_str(j->why.text[0] ? j->why.text : err_text(e));
        emit(j, &r);
    }
    picture_clear(&j->ocr.last);
    screentext_free(j->text);
    keep_free(j->keep);
    scenes_free(j->scenes);
    media_close(j->m);
    free(j->starts);
    free(j);
    return e;
}
