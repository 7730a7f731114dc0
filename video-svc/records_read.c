#include "video-svc/records_read.h"

struct records_reader {
    buf pending; /* the beginning of a record */
    bool hello, container, ended, broken;
    size_t n_tracks, n_spans[3], n_scenes, n_frames, n_remarks,
        n_progress; /* n_spans: CHAPTER SUBTITLE SCREEN_TEXT */
    uint32_t last_scene_end;
    bool frame_just_sent;
};

records_reader *records_reader_new(void)
{
    return xcalloc(1, sizeof(records_reader));
}

void records_reader_free(records_reader *r)
{
    if (!r)
        return;
    buf_clear(&r->pending);
    free(r);
}

bool records_ended(const records_reader *r)
{
    return r->ended;
}

/* ---- taking a payload apart; ok turns false at the first breach and all that follows is zero ----
 */

struct cursor {
    slice in;
    bool ok;
};

static uint64_t get_le(struct cursor *c, size_t n)
{
    if (!c->ok || c->in.n < n) {
        c->ok = false;
        return 0;
    }
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;)
        v = v << 8 | (unsigned char)c->in.p[i];
    c->in.p += n;
    c->in.n -= n;
    return v;
}

static uint32_t get_u32(struct cursor *c, uint32_t most)
{
    uint32_t v = (uint32_t)get_le(c, 4);
    if (v > most)
        c->ok = false;
    return v;
}

static slice get_bytes(struct cursor *c, size_t most)
{
    uint32_t n = get_u32(c, UINT32_MAX);
    if (!c->ok || n > most || n > c->in.n) {
        c->ok = false;
        return (slice){0};
    }
    slice s = {c->in.p, n};
    c->in.p += n;
    c->in.n -= n;
    return s;
}

static slice get_text(struct cursor *c, size_t most)
{
    slice s = get_bytes(c, most);
    if (!utf8_valid(s) || (s.n > 0 && memchr(s.p, 0, s.n)))
        c->ok = false;
    return s;
}

/* A picture is opaque here, but it must at least begin and end like one. */
static slice get_jpeg(struct cursor *c, size_t most)
{
    slice s = get_bytes(c, most);
    if (s.n < 4 || memcmp(s.p, "\xff\xd8", 2) != 0 || memcmp(s.p + s.n - 2, "\xff\xd9", 2) != 0)
        c->ok = false;
    return s;
}

static void get_track(struct cursor *c, struct rec_track *t)
{
    t->kind = get_u32(c, REC_KIND_SUBTITLE);
    t->index = get_u32(c, REC_TRACKS_MAX - 1);
    t->codec = get_text(c, REC_NAME_MAX);
    t->language = get_text(c, REC_NAME_MAX);
    t->title = get_text(c, REC_TITLE_MAX);
    t->width = get_u32(c, REC_DIMENSION_MAX);
    t->height = get_u32(c, REC_DIMENSION_MAX);
    t->fps_milli = get_u32(c, 1000000);
    t->rotation = get_u32(c, 270);
    t->channels = get_u32(c, 255);
    t->sample_rate = get_u32(c, 10000000);
    t->selected = get_u32(c, 1);
    if (t->rotation % 90 != 0)
        c->ok = false;
}

static void get_span(struct cursor *c, struct rec_span *s)
{
    s->start_ms = get_u32(c, REC_TIME_MAX_MS);
    s->end_ms = get_u32(c, REC_TIME_MAX_MS);
    s->track = get_u32(c, REC_TRACKS_MAX - 1);
    s->confidence = get_u32(c, 100);
    s->language = get_text(c, REC_NAME_MAX);
    s->text = get_text(c, REC_TEXT_MAX);
    if (s->end_ms < s->start_ms)
        c->ok = false;
}

static void get_frame(struct cursor *c, struct record *r)
{
    r->frame.scene = get_u32(c, REC_SCENES_MAX - 1);
    r->frame.time_ms = get_u32(c, REC_TIME_MAX_MS);
    r->frame.width = get_u32(c, REC_EDGE_MAX);
    r->frame.height = get_u32(c, REC_EDGE_MAX);
    r->frame.phash = get_le(c, 8);
    r->frame.jpeg = get_jpeg(c, REC_JPEG_MAX);
}

/* False: not such a record. */
static bool parse(uint32_t type, slice payload, struct record *r)
{
    struct cursor c = {payload, true};
    *r = (struct record){.type = (enum rec_type)type};
    switch (type) {
    case REC_HELLO:
        r->hello.version = get_u32(&c, REC_VERSION);
        r->hello.active = get_u32(&c, SANDBOX_ALL);
        r->hello.wanted = get_u32(&c, SANDBOX_ALL);
        break;
    case REC_PROGRESS:
        r->progress.phase = get_u32(&c, REC_PHASE_TEXT);
        r->progress.permille = get_u32(&c, 1000);
        break;
    case REC_CONTAINER:
        r->container.format = get_text(&c, REC_NAME_MAX);
        r->container.duration_ms = get_le(&c, 8);
        r->container.title = get_text(&c, REC_TITLE_MAX);
        break;
    case REC_TRACK:
        get_track(&c, &r->track);
        break;
    case REC_CHAPTER:
    case REC_SUBTITLE:
    case REC_SCREEN_TEXT:
        get_span(&c, &r->span);
        break;
    case REC_SCENE:
        r->scene.start_ms = get_u32(&c, REC_TIME_MAX_MS);
        r->scene.end_ms = get_u32(&c, REC_TIME_MAX_MS);
        break;
    case REC_FRAME:
        get_frame(&c, r);
        break;
    case REC_THUMB:
        r->thumb = get_jpeg(&c, REC_THUMB_MAX);
        break;
    case REC_REMARK:
        r->remark = get_text(&c, REC_TEXT_MAX);
        break;
    case REC_DONE:
        r->done_duration_ms = get_le(&c, 8);
        break;
    case REC_FAIL:
        r->fail.code = get_u32(&c, 1000);
        r->fail.text = get_text(&c, WHY_TEXT_MAX - 1);
        break;
    default:
        return false;
    }
    return c.ok && c.in.n == 0;
}

/* ---- order and counts ---- */

static bool one_more(size_t *n, size_t most)
{
    return ++*n <= most;
}

static bool scene_in_place(records_reader *r, const struct record *rec)
{
    bool ok = rec->scene.start_ms >= r->last_scene_end &&
              rec->scene.end_ms >= rec->scene.start_ms && one_more(&r->n_scenes, REC_SCENES_MAX);
    r->last_scene_end = rec->scene.end_ms;
    return ok;
}

/* HELLO first, nothing after the end, the container before what it holds, counts within their
 * limits. */
static bool in_place(records_reader *r, const struct record *rec)
{
    bool after_frame = r->frame_just_sent;
    r->frame_just_sent = false;
    if (rec->type == REC_HELLO) {
        bool first = !r->hello;
        r->hello = true;
        return first && rec->hello.version == REC_VERSION;
    }
    if (!r->hello || r->ended)
        return false;
    switch (rec->type) {
    case REC_PROGRESS:
        return one_more(&r->n_progress, REC_PROGRESS_MAX);
    case REC_REMARK:
        return one_more(&r->n_remarks, REC_REMARKS_MAX);
    case REC_FAIL:
        r->ended = true;
        return true;
    case REC_CONTAINER:
        r->container = !r->container;
        return r->container;
    default:
        break;
    }
    if (!r->container)
        return false;
    switch (rec->type) {
    case REC_TRACK:
        return one_more(&r->n_tracks, REC_TRACKS_MAX);
    case REC_CHAPTER:
        return one_more(&r->n_spans[0], REC_CHAPTERS_MAX);
    case REC_SUBTITLE:
        return one_more(&r->n_spans[1], REC_SUBTITLES_MAX);
    case REC_SCREEN_TEXT:
        return one_more(&r->n_spans[2], REC_SCREEN_TEXTS_MAX);
    case REC_SCENE:
        return scene_in_place(r, rec);
    case REC_FRAME:
        r->frame_just_sent = true;
        return rec->frame.scene < r->n_scenes && one_more(&r->n_frames, REC_FRAMES_MAX);
    case REC_THUMB:
        return after_frame;
    case REC_DONE:
        r->ended = true;
        return r->n_scenes > 0;
    default:
        return false;
    }
}

static int breach(records_reader *r, struct why *w, const char *what)
{
    r->broken = true;
    return why_set(w, ERR_PROTO, "decoder", "the decoder broke its protocol: %s", what);
}

int records_feed(records_reader *r, slice bytes, void (*fn)(void *ctx, const struct record *rec),
                 void *ctx, struct why *w)
{
    CHECK(!r->broken);
    if (bytes.n)
        buf_put_slice(&r->pending, bytes);
    size_t at = 0;
    int e = 0;
    while (e == 0 && r->pending.n - at >= REC_HEAD_BYTES) {
        struct cursor head = {{r->pending.p + at, REC_HEAD_BYTES}, true};
        uint32_t type = get_u32(&head, UINT32_MAX), n = get_u32(&head, UINT32_MAX);
        struct record rec;
        if (n > REC_PAYLOAD_MAX)
            e = breach(r, w, "a record is too long");
        else if (r->pending.n - at - REC_HEAD_BYTES < n)
            break;
        else if (!parse(type, (slice){r->pending.p + at + REC_HEAD_BYTES, n}, &rec))
            e = breach(r, w, "a record is malformed or beyond a limit");
        else if (!in_place(r, &rec))
            e = breach(r, w, "a record is out of place or one too many");
        else
            fn(ctx, &rec);
        at += REC_HEAD_BYTES + n;
    }
    if (e == 0)
        buf_drop_front(&r->pending, at);
    return e;
}
