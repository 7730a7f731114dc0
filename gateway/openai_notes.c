#include "common/wire/pb.h"
#include "gateway/openai.h"

static void put_text(struct json_out *j, const char *key, ProtobufCBinaryData text)
{
    json_kv_str(j, key, pb_slice(text));
}

static const char *kind_text(Nunchi__Track__Kind k)
{
    switch (k) {
    case NUNCHI__TRACK__KIND__VIDEO:
        return "video";
    case NUNCHI__TRACK__KIND__AUDIO:
        return "audio";
    case NUNCHI__TRACK__KIND__SUBTITLE:
        return "subtitle";
    default:
        return "other";
    }
}

static void put_track(struct json_out *j, const Nunchi__Track *t)
{
    json_obj(j);
    json_kv_cstr(j, "kind", kind_text(t->kind));
    json_kv_cstr(j, "codec", t->codec);
    if (t->language[0])
        json_kv_cstr(j, "language", t->language);
    if (t->title.len)
        put_text(j, "title", t->title);
    if (t->kind == NUNCHI__TRACK__KIND__VIDEO) {
        json_kv_u64(j, "width", t->width);
        json_kv_u64(j, "height", t->height);
        json_kv_f64(j, "fps", (double)t->fps_milli / 1000);
        json_kv_i64(j, "rotation", t->rotation);
    }
    if (t->kind == NUNCHI__TRACK__KIND__AUDIO) {
        json_kv_u64(j, "channels", t->channels);
        json_kv_u64(j, "sample_rate", t->sample_rate);
    }
    json_kv_bool(j, "selected", t->selected);
    json_obj_end(j);
}

static void put_container(struct json_out *j, const Nunchi__Container *c)
{
    json_obj(j);
    json_kv_cstr(j, "format", c->format);
    json_kv_u64(j, "duration_ms", c->duration_ms);
    json_kv_u64(j, "bytes", c->size);
    if (c->title.len)
        put_text(j, "title", c->title);
    json_key(j, "tracks");
    json_arr(j);
    for (size_t i = 0; i < c->n_tracks; i++)
        put_track(j, c->tracks[i]);
    json_arr_end(j);
    json_obj_end(j);
}

static void put_spans(struct json_out *j, const char *key, Nunchi__Span **spans, size_t n)
{
    json_key(j, key);
    json_arr(j);
    for (size_t i = 0; i < n; i++) {
        const Nunchi__Span *s = spans[i];
        json_obj(j);
        json_kv_u64(j, "start_ms", s->start_ms);
        json_kv_u64(j, "end_ms", s->end_ms);
        put_text(j, "text", s->text);
        if (s->language[0])
            json_kv_cstr(j, "language", s->language);
        if (s->confidence)
            json_kv_u64(j, "confidence", s->confidence);
        json_obj_end(j);
    }
    json_arr_end(j);
}

static void put_scene(struct json_out *j, const Nunchi__Scene *s)
{
    json_obj(j);
    json_kv_u64(j, "start_ms", s->start_ms);
    json_kv_u64(j, "end_ms", s->end_ms);
    json_key(j, "frames");
    json_arr(j);
    for (size_t i = 0; i < s->n_frames; i++) {
        json_obj(j);
        json_kv_u64(j, "time_ms", s->frames[i]->time_ms);
        json_kv_u64(j, "width", s->frames[i]->width);
        json_kv_u64(j, "height", s->frames[i]->height);
        json_kv_bool(j, "kept", s->frames[i]->digest.len == 32);
        json_obj_end(j);
    }
    json_arr_end(j);
    json_obj_end(j);
}

void openai_put_notes(buf *out, slice file_id, const Nunchi__Notes *n)
{
    struct json_out j;
    json_begin(&j, out);
    json_obj(&j);
    json_kv_cstr(&j, "object", "file.notes");
    json_kv_str(&j, "file_id", file_id);
    if (n->container) {
        json_kv_u64(&j, "duration_ms", n->container->duration_ms);
        json_key(&j, "container");
        put_container(&j, n->container);
    }
    put_spans(&j, "chapters", n->chapters, n->n_chapters);
    put_spans(&j, "subtitles", n->subtitles, n->n_subtitles);
    json_key(&j, "scenes");
    json_arr(&j);
    for (size_t i = 0; i < n->n_scenes; i++)
        put_scene(&j, n->scenes[i]);
    json_arr_end(&j);
    put_spans(&j, "screen_text", n->screen_text, n->n_screen_text);
    json_key(&j, "remarks");
    json_arr(&j);
    for (size_t i = 0; i < n->n_remarks; i++)
        json_str(&j, pb_slice(n->remarks[i]));
    json_arr_end(&j);
    json_obj_end(&j);
}
