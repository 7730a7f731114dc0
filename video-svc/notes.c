#include "video-svc/notes.h"

#include "common/wire/pb.h"
#include "proto/video.pb-c.h"

#define PEEK_ARENA_BYTES ((size_t)64 << 20) /* 1 MiB packed grows, at most this much */
#define SHORTENED "too much text for one set of notes: the last of it was left out"

struct list_of { /* pointers to messages that live in the arena */
    void **at;
    size_t n, cap;
};

struct notes {
    arena *a;
    Nunchi__Container container;
    struct list_of tracks, chapters, subtitles, screen_texts, scenes, remarks;
    struct notes_picture *pictures;
    size_t n_pictures, cap_pictures;
    uint64_t duration_ms;
};

notes *notes_new(void)
{
    notes *n = xcalloc(1, sizeof *n);
    n->a = arena_new(0); /* bounded by the counts and sizes of records.h */
    nunchi__container__init(&n->container);
    return n;
}

void notes_free(notes *n)
{
    if (!n)
        return;
    struct list_of *lists[] = {&n->tracks,       &n->chapters, &n->subtitles,
                               &n->screen_texts, &n->scenes,   &n->remarks};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        free(lists[i]->at);
    for (size_t i = 0; i < n->n_pictures; i++) {
        buf_clear(&n->pictures[i].jpeg);
        buf_clear(&n->pictures[i].thumb);
    }
    free(n->pictures);
    arena_free(n->a);
    free(n);
}

static void add(struct list_of *l, void *item)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->at = xrealloc(l->at, l->cap, sizeof *l->at);
    }
    l->at[l->n++] = item;
}

static ProtobufCBinaryData keep_bytes(notes *n, slice s)
{
    return pb_bytes(arena_slice(n->a, s));
}

/* Generated structs want char *; nobody writes through it. */
static char *keep_text(notes *n, slice s)
{
    union {
        const char *in;
        char *out;
    } cast = {.in = arena_slice(n->a, s).p};
    return cast.out;
}

static void add_track(notes *n, const struct rec_track *t)
{
    Nunchi__Track *out = arena_get(n->a, sizeof *out);
    nunchi__track__init(out);
    out->kind = (Nunchi__Track__Kind)t->kind;
    out->codec = keep_text(n, t->codec);
    out->language = keep_text(n, t->language);
    out->title = keep_bytes(n, t->title);
    out->width = t->width;
    out->height = t->height;
    out->fps_milli = t->fps_milli;
    out->rotation = (int32_t)t->rotation;
    out->channels = t->channels;
    out->sample_rate = t->sample_rate;
    out->selected = t->selected;
    add(&n->tracks, out);
}

static void add_span(notes *n, struct list_of *l, const struct rec_span *s)
{
    Nunchi__Span *out = arena_get(n->a, sizeof *out);
    nunchi__span__init(out);
    out->start_ms = s->start_ms;
    out->end_ms = s->end_ms;
    out->text = keep_bytes(n, s->text);
    out->track = s->track;
    out->confidence = s->confidence;
    out->language = keep_text(n, s->language);
    add(l, out);
}

static void add_scene(notes *n, uint32_t start_ms, uint32_t end_ms)
{
    Nunchi__Scene *out = arena_get(n->a, sizeof *out);
    nunchi__scene__init(out);
    out->start_ms = start_ms;
    out->end_ms = end_ms;
    add(&n->scenes, out);
}

static void add_remark(notes *n, slice text)
{
    slice *s = arena_get(n->a, sizeof *s);
    *s = arena_slice(n->a, text);
    add(&n->remarks, s);
}

static void add_picture(notes *n, const struct record *r)
{
    if (n->n_pictures == n->cap_pictures) {
        n->cap_pictures = n->cap_pictures ? n->cap_pictures * 2 : 16;
        n->pictures = xrealloc(n->pictures, n->cap_pictures, sizeof *n->pictures);
    }
    struct notes_picture *p = &n->pictures[n->n_pictures++];
    *p = (struct notes_picture){.digest = digest_of((slice){0}, r->frame.jpeg),
                                .scene = r->frame.scene,
                                .time_ms = r->frame.time_ms,
                                .width = r->frame.width,
                                .height = r->frame.height,
                                .phash = r->frame.phash};
    buf_put_slice(&p->jpeg, r->frame.jpeg);
}

void notes_record(notes *n, const struct record *r)
{
    switch (r->type) {
    case REC_CONTAINER:
        n->container.format = keep_text(n, r->container.format);
        n->container.title = keep_bytes(n, r->container.title);
        break;
    case REC_TRACK:
        add_track(n, &r->track);
        break;
    case REC_CHAPTER:
        add_span(n, &n->chapters, &r->span);
        break;
    case REC_SUBTITLE:
        add_span(n, &n->subtitles, &r->span);
        break;
    case REC_SCREEN_TEXT:
        add_span(n, &n->screen_texts, &r->span);
        break;
    case REC_SCENE:
        add_scene(n, r->scene.start_ms, r->scene.end_ms);
        break;
    case REC_FRAME:
        add_picture(n, r);
        break;
    case REC_THUMB:
        buf_put_slice(&n->pictures[n->n_pictures - 1].thumb, r->thumb);
        break;
    case REC_REMARK:
        add_remark(n, r->remark);
        break;
    case REC_DONE:
        n->duration_ms = r->done_duration_ms;
        break;
    default:
        break;
    }
}

size_t notes_n_pictures(const notes *n)
{
    return n->n_pictures;
}

struct notes_picture *notes_picture_at(notes *n, size_t i)
{
    return &n->pictures[i];
}

size_t notes_n_scenes(const notes *n)
{
    return n->scenes.n;
}

uint64_t notes_duration_ms(const notes *n)
{
    return n->duration_ms;
}

/* ---- packing ---- */

static Nunchi__Frame *frame_of(notes *n, const struct notes_picture *p)
{
    Nunchi__Frame *f = arena_get(n->a, sizeof *f);
    nunchi__frame__init(f);
    f->time_ms = p->time_ms;
    f->digest = keep_bytes(n, (slice){(const char *)p->digest.b, DIGEST_BYTES});
    f->width = p->width;
    f->height = p->height;
    f->phash = p->phash;
    return f;
}

static void hang_frames(notes *n)
{
    for (size_t i = 0; i < n->n_pictures; i++) {
        Nunchi__Scene *s = n->scenes.at[n->pictures[i].scene];
        if (!s->frames)
            s->frames = arena_get(n->a, n->n_pictures * sizeof *s->frames);
        s->frames[s->n_frames++] = frame_of(n, &n->pictures[i]);
    }
}

static int by_start(const void *a, const void *b)
{
    const Nunchi__Span *x = *(Nunchi__Span *const *)a, *y = *(Nunchi__Span *const *)b;
    if (x->start_ms != y->start_ms)
        return x->start_ms < y->start_ms ? -1 : 1;
    return (x->track > y->track) - (x->track < y->track);
}

static void sort_spans(struct list_of *l)
{
    if (l->n)
        qsort(l->at, l->n, sizeof *l->at, by_start);
}

static void fill(notes *n, Nunchi__Notes *m)
{
    m->container = &n->container;
    n->container.duration_ms = n->duration_ms;
    n->container.n_tracks = n->tracks.n;
    n->container.tracks = (Nunchi__Track **)n->tracks.at;
    m->n_chapters = n->chapters.n;
    m->chapters = (Nunchi__Span **)n->chapters.at;
    m->n_subtitles = n->subtitles.n;
    m->subtitles = (Nunchi__Span **)n->subtitles.at;
    m->n_scenes = n->scenes.n;
    m->scenes = (Nunchi__Scene **)n->scenes.at;
    m->n_screen_text = n->screen_texts.n;
    m->screen_text = (Nunchi__Span **)n->screen_texts.at;
    m->n_remarks = n->remarks.n;
    m->remarks = arena_get(n->a, (n->remarks.n + 1) * sizeof *m->remarks);
    for (size_t i = 0; i < n->remarks.n; i++)
        m->remarks[i] = pb_bytes(*(slice *)n->remarks.at[i]);
}

/* Takes the last eighth off the first list that has anything. */
static void shorten(Nunchi__Notes *m)
{
    size_t *counts[] = {&m->n_screen_text, &m->n_subtitles, &m->n_chapters, &m->n_scenes};
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        if (*counts[i] > 0) {
            *counts[i] -= (*counts[i] + 7) / 8;
            return;
        }
}

void notes_pack(notes *n, const struct digest *content, slice salt, uint64_t size, buf *out)
{
    Nunchi__Notes m = NUNCHI__NOTES__INIT;
    m.format = NOTES_FORMAT;
    m.content = pb_bytes((slice){(const char *)content->b, DIGEST_BYTES});
    m.salt = pb_bytes(salt);
    n->container.size = size;
    hang_frames(n);
    sort_spans(&n->subtitles);
    sort_spans(&n->screen_texts);
    fill(n, &m);
    bool over = nunchi__notes__get_packed_size(&m) > NOTES_BYTES_MAX;
    if (over)
        m.remarks[m.n_remarks++] = pb_bytes(SLICE_LIT(SHORTENED));
    while (nunchi__notes__get_packed_size(&m) > NOTES_BYTES_MAX)
        shorten(&m);
    pb_pack(&m.base, out);
}

int notes_peek(slice packed, uint64_t *duration_ms, uint32_t *n_scenes)
{
    arena *a = arena_new(PEEK_ARENA_BYTES);
    void *v;
    int e = pb_unpack(a, &nunchi__notes__descriptor, packed, NOTES_BYTES_MAX, &v, NULL);
    const Nunchi__Notes *m = v;
    if (e >= 0 && (m->format != NOTES_FORMAT || m->salt.len != NOTES_SALT_BYTES || !m->container))
        e = ERR_PROTO;
    if (e >= 0) {
        *duration_ms = m->container->duration_ms;
        *n_scenes = (uint32_t)m->n_scenes;
    }
    arena_free(a);
    return e;
}
