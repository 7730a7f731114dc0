#include "video-svc/decode/dump.h"

#include "video-svc/decode/sandbox.h"

static const char *const NAMES[] = {
    [REC_HELLO] = "hello",
    [REC_PROGRESS] = "progress",
    [REC_CONTAINER] = "container",
    [REC_TRACK] = "track",
    [REC_CHAPTER] = "chapter",
    [REC_SUBTITLE] = "subtitle",
    [REC_SCREEN_TEXT] = "screen_text",
    [REC_SCENE] = "scene",
    [REC_FRAME] = "frame",
    [REC_THUMB] = "thumb",
    [REC_REMARK] = "remark",
    [REC_DONE] = "done",
    [REC_FAIL] = "fail",
};
static const char *const KINDS[] = {"other", "video", "audio", "subtitle"};

static void dump_layers(struct json_out *j, const char *key, uint32_t layers)
{
    buf b = {0};
    sandbox_layers_print(layers, &b);
    json_kv_str(j, key, buf_slice(&b));
    buf_clear(&b);
}

static void dump_track(struct json_out *j, const struct rec_track *t)
{
    json_kv_u64(j, "index", t->index);
    json_kv_cstr(j, "kind", KINDS[t->kind]);
    json_kv_str(j, "codec", t->codec);
    json_kv_str(j, "language", t->language);
    json_kv_str(j, "title", t->title);
    if (t->kind == REC_KIND_VIDEO) {
        json_kv_u64(j, "width", t->width);
        json_kv_u64(j, "height", t->height);
        json_kv_u64(j, "fps_milli", t->fps_milli);
        json_kv_u64(j, "rotation", t->rotation);
        json_kv_bool(j, "selected", t->selected);
    }
    if (t->kind == REC_KIND_AUDIO) {
        json_kv_u64(j, "channels", t->channels);
        json_kv_u64(j, "sample_rate", t->sample_rate);
    }
}

static void dump_span(struct json_out *j, const struct rec_span *s)
{
    json_kv_u64(j, "start_ms", s->start_ms);
    json_kv_u64(j, "end_ms", s->end_ms);
    json_kv_u64(j, "track", s->track);
    json_kv_u64(j, "confidence", s->confidence);
    json_kv_str(j, "language", s->language);
    json_kv_str(j, "text", s->text);
}

static void dump_frame(struct json_out *j, const struct record *r)
{
    char hash[17];
    unsigned char be[8];
    for (int i = 0; i < 8; i++)
        be[i] = (unsigned char)(r->frame.phash >> (56 - 8 * i));
    hex_encode(be, sizeof be, hash);
    json_kv_u64(j, "scene", r->frame.scene);
    json_kv_u64(j, "time_ms", r->frame.time_ms);
    json_kv_u64(j, "width", r->frame.width);
    json_kv_u64(j, "height", r->frame.height);
    json_kv_cstr(j, "phash", hash);
    json_kv_u64(j, "jpeg_bytes", r->frame.jpeg.n);
}

void dump_record(struct json_out *j, const struct record *r)
{
    json_obj(j);
    json_kv_cstr(j, "record", NAMES[r->type]);
    switch (r->type) {
    case REC_HELLO:
        dump_layers(j, "layers", r->hello.active);
        dump_layers(j, "missing", r->hello.wanted & ~r->hello.active);
        break;
    case REC_PROGRESS:
        json_kv_u64(j, "phase", r->progress.phase);
        json_kv_u64(j, "permille", r->progress.permille);
        break;
    case REC_CONTAINER:
        json_kv_str(j, "format", r->container.format);
        json_kv_str(j, "title", r->container.title);
        json_kv_u64(j, "duration_ms", r->container.duration_ms);
        break;
    case REC_TRACK:
        dump_track(j, &r->track);
        break;
    case REC_CHAPTER:
    case REC_SUBTITLE:
    case REC_SCREEN_TEXT:
        dump_span(j, &r->span);
        break;
    case REC_SCENE:
        json_kv_u64(j, "start_ms", r->scene.start_ms);
        json_kv_u64(j, "end_ms", r->scene.end_ms);
        break;
    case REC_FRAME:
        dump_frame(j, r);
        break;
    case REC_THUMB:
        json_kv_u64(j, "jpeg_bytes", r->thumb.n);
        break;
    case REC_REMARK:
        json_kv_str(j, "text", r->remark);
        break;
    case REC_DONE:
        json_kv_u64(j, "duration_ms", r->done_duration_ms);
        break;
    case REC_FAIL:
        json_kv_cstr(j, "error", err_name(err_from_wire(r->fail.code)));
        json_kv_str(j, "text", r->fail.text);
        break;
    }
    json_obj_end(j);
}
