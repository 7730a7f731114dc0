#include "video-svc/decode/records.h"

static void put_u32(buf *b, uint32_t v)
{
    unsigned char p[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                          (unsigned char)(v >> 24)};
    buf_put(b, p, sizeof p);
}

static void put_u64(buf *b, uint64_t v)
{
    put_u32(b, (uint32_t)v);
    put_u32(b, (uint32_t)(v >> 32));
}

static void put_text(buf *b, slice s)
{
    put_u32(b, (uint32_t)s.n);
    buf_put_slice(b, s);
}

static void put_track(buf *b, const struct rec_track *t)
{
    put_u32(b, t->kind);
    put_u32(b, t->index);
    put_text(b, t->codec);
    put_text(b, t->language);
    put_text(b, t->title);
    const uint32_t rest[] = {t->width,    t->height,      t->fps_milli, t->rotation,
                             t->channels, t->sample_rate, t->selected};
    for (size_t i = 0; i < ARRAY_LEN(rest); i++)
        put_u32(b, rest[i]);
}

static void put_span(buf *b, const struct rec_span *s)
{
    put_u32(b, s->start_ms);
    put_u32(b, s->end_ms);
    put_u32(b, s->track);
    put_u32(b, s->confidence);
    put_text(b, s->language);
    put_text(b, s->text);
}

static void put_payload(buf *b, const struct record *r)
{
    switch (r->type) {
    case REC_HELLO:
        put_u32(b, r->hello.version);
        put_u32(b, r->hello.active);
        put_u32(b, r->hello.wanted);
        break;
    case REC_PROGRESS:
        put_u32(b, r->progress.phase);
        put_u32(b, r->progress.permille);
        break;
    case REC_CONTAINER:
        put_text(b, r->container.format);
        put_u64(b, r->container.duration_ms);
        put_text(b, r->container.title);
        break;
    case REC_TRACK:
        put_track(b, &r->track);
        break;
    case REC_CHAPTER:
    case REC_SUBTITLE:
    case REC_SCREEN_TEXT:
        put_span(b, &r->span);
        break;
    case REC_SCENE:
        put_u32(b, r->scene.start_ms);
        put_u32(b, r->scene.end_ms);
        break;
    case REC_FRAME:
        put_u32(b, r->frame.scene);
        put_u32(b, r->frame.time_ms);
        put_u32(b, r->frame.width);
        put_u32(b, r->frame.height);
        put_u64(b, r->frame.phash);
        put_text(b, r->frame.jpeg);
        break;
    case REC_THUMB:
        put_text(b, r->thumb);
        break;
    case REC_REMARK:
        put_text(b, r->remark);
        break;
    case REC_DONE:
        put_u64(b, r->done_duration_ms);
        break;
    case REC_FAIL:
        put_u32(b, r->fail.code);
        put_text(b, r->fail.text);
        break;
    }
}

void record_pack(const struct record *r, buf *out)
{
    size_t at = out->n;
    put_u32(out, r->type);
    put_u32(out, 0);
    put_payload(out, r);
    uint32_t n = (uint32_t)(out->n - at - REC_HEAD_BYTES);
    for (int i = 0; i < 4; i++)
        out->p[at + 4 + (size_t)i] = (char)(unsigned char)(n >> (8 * i));
}
