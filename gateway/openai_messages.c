#include "gateway/base64.h"
#include "gateway/openai_parse.h"

int count_text(struct parse *p, const json_val *v, slice text)
{
    p->text_bytes += text.n;
    if (p->text_bytes > TEXT_BYTES_MAX)
        return json_why(p->w, ERR_TOO_BIG, v, "more than %u bytes of text in one request",
                        TEXT_BYTES_MAX);
    return 0;
}

/* ---- one part of a message's content ---- */

static int part_text(struct parse *p, const json_val *part, struct gw_part *out)
{
    static const char *const KNOWN[] = {"type", "text"};
    const json_val *v;
    int e = json_only(part, KNOWN, ARRAY_LEN(KNOWN), p->w);
    if (e == 0)
        e = json_req(part, "text", &v, p->w);
    if (e == 0)
        e = json_to_str(v, &out->text, p->w);
    if (e == 0)
        e = count_text(p, v, out->text);
    out->kind = GW_TEXT;
    return e;
}

static int count_video(struct parse *p, const json_val *v, struct gw_part *out)
{
    json_path(v, out->where, sizeof out->where);
    if (++p->n_videos > VIDEOS_MAX)
        return json_why(p->w, ERR_INVALID, v, "more than %d videos in one request", VIDEOS_MAX);
    return 0;
}

static int video_file(struct parse *p, const json_val *v, slice id, struct gw_part *out)
{
    out->kind = GW_VIDEO_FILE;
    out->text = id;
    if (!gw_file_id_ok(id))
        return json_why(p->w, ERR_INVALID, v,
                        "not a file's id: those look like file-0123…, %d characters",
                        FILE_ID_CHARS);
    return count_video(p, v, out);
}

/* data:[<media type>][;parameters];base64,<digits>. Types that cannot be a video are refused here;
 * the bytes decide in the end. */
static int video_data(struct parse *p, const json_val *v, slice url, struct gw_part *out)
{
    slice head = {0}, rest = url;
    if (!slice_split(&rest, ',', &head) || head.n > 256 || head.n + 1 > url.n)
        return json_why(p->w, ERR_INVALID, v, "a data URL looks like data:video/mp4;base64,AAAA…");
    bool typed = slice_starts(head, SLICE_LIT("data:video/")) ||
                 slice_starts(head, SLICE_LIT("data:application/octet-stream"));
    slice tail = {head.p + head.n - (head.n < 7 ? head.n : 7), head.n < 7 ? head.n : 7};
    if (!typed || !slice_eq_str(tail, ";base64"))
        return json_why(p->w, ERR_INVALID, v, "a data URL looks like data:video/mp4;base64,AAAA…");
    size_t len;
    if (base64_check(rest, &len) < 0 || len == 0)
        return json_why(p->w, ERR_INVALID, v, "what follows ;base64, is not base64");
    out->kind = GW_VIDEO_DATA;
    out->text = rest;
    out->bytes = len;
    return count_video(p, v, out);
}

static int part_video_url(struct parse *p, const json_val *part, struct gw_part *out)
{
    const json_val *obj = NULL, *v = NULL;
    slice url = {0};
    int e = json_req(part, "video_url", &obj, p->w);
    if (e == 0)
        e = json_need_obj(obj, p->w);
    if (e == 0)
        e = json_req(obj, "url", &v, p->w);
    if (e == 0)
        e = json_to_str(v, &url, p->w);
    if (e < 0)
        return e;
    if (slice_starts(url, SLICE_LIT("data:")))
        return video_data(p, v, url, out);
    if (slice_starts(url, SLICE_LIT("file-")))
        return video_file(p, v, url, out);
    if (slice_starts(url, SLICE_LIT("http://")) || slice_starts(url, SLICE_LIT("https://")))
        return json_why(
            p->w, ERR_UNSUPPORTED, v,
            "videos are not fetched from the network; upload it to /v1/files and name its id");
    return json_why(p->w, ERR_INVALID, v, "a data: URL or the id of an uploaded file (file-…)");
}

static int part_file(struct parse *p, const json_val *part, struct gw_part *out)
{
    static const char *const KNOWN[] = {"file_id", "file_data", "filename"};
    const json_val *obj;
    slice id = {0}, data = {0};
    int e = json_req(part, "file", &obj, p->w);
    if (e == 0)
        e = json_need_obj(obj, p->w);
    if (e == 0)
        e = json_only(obj, KNOWN, ARRAY_LEN(KNOWN), p->w);
    if (e == 0)
        e = json_opt_str(obj, "filename", FILENAME_BYTES_MAX, &out->name, p->w);
    if (e >= 0)
        e = json_opt_str(obj, "file_id", BODY_BYTES_MAX, &id, p->w);
    if (e >= 0)
        e = json_opt_str(obj, "file_data", BODY_BYTES_MAX, &data, p->w);
    if (e < 0)
        return e;
    if (id.n)
        return video_file(p, json_get(obj, "file_id"), id, out);
    if (data.n)
        return video_data(p, json_get(obj, "file_data"), data, out);
    return json_why(p->w, ERR_INVALID, obj, "needs file_id (an uploaded video) or file_data");
}

static int take_part(struct parse *p, const json_val *part, struct gw_part *out)
{
    slice type = {0};
    int e = json_need_obj(part, p->w);
    if (e == 0)
        e = json_req_str(part, "type", HINT_BYTES_MAX, &type, p->w);
    if (e < 0)
        return e;
    if (slice_eq_str(type, "text"))
        return part_text(p, part, out);
    if (slice_eq_str(type, "file"))
        return part_file(p, part, out);
    if (slice_eq_str(type, "video_url"))
        return part_video_url(p, part, out);
    const json_val *v = json_get(part, "type");
    if (slice_eq_str(type, "image_url") || slice_eq_str(type, "input_audio") ||
        slice_eq_str(type, "refusal"))
        return json_why(p->w, ERR_UNSUPPORTED, v,
                        "this kind of content is not supported yet; text, file and video_url are");
    return json_why(p->w, ERR_INVALID, v, "one of \"text\", \"file\", \"video_url\"");
}

static int take_content(struct parse *p, const json_val *v, struct gw_turn *t)
{
    if (json_kind(v) == JSON_KIND_STR) {
        t->parts = arena_get(p->r->a, sizeof *t->parts);
        t->n_parts = 1;
        t->parts->text = json_str_or(v, SLICE_LIT(""));
        return count_text(p, v, t->parts->text);
    }
    if (json_kind(v) != JSON_KIND_ARR)
        return json_why(p->w, ERR_INVALID, v, "must be a string or a list of content parts, not %s",
                        json_kind_text(json_kind(v)));
    int e = json_need_arr(v, 1, PARTS_MAX, p->w);
    if (e < 0)
        return e;
    t->parts = arena_try(p->r->a, json_len(v) * sizeof *t->parts);
    if (!t->parts)
        return json_why(p->w, ERR_TOO_BIG, v, "too many content parts in one request");
    for (const json_val *part = json_first(v); e == 0 && part; part = json_next(part))
        e = take_part(p, part, &t->parts[t->n_parts++]);
    return e;
}

/* ---- one message ---- */

static int take_role(struct parse *p, const json_val *msg, struct gw_turn *t)
{
    static const char *const ROLES[] = {"system", "developer", "user", "assistant"};
    int e = json_req_str(msg, "role", HINT_BYTES_MAX, &t->role, p->w);
    if (e < 0)
        return e;
    for (size_t i = 0; i < ARRAY_LEN(ROLES); i++)
        if (slice_eq_str(t->role, ROLES[i]))
            return 0;
    const json_val *v = json_get(msg, "role");
    if (slice_eq_str(t->role, "tool") || slice_eq_str(t->role, "function"))
        return json_why(p->w, ERR_UNSUPPORTED, v, "calling tools is not supported yet");
    return json_why(p->w, ERR_INVALID, v,
                    "one of \"system\", \"developer\", \"user\", \"assistant\"");
}

/* Answers are sent back as messages: what they carry empty is let pass, what would mean something
 * is refused. */
static int refuse_rest(struct parse *p, const json_val *msg)
{
    static const char *const KNOWN[] = {"role",       "content",       "name",
                                        "refusal",    "annotations",   "audio",
                                        "tool_calls", "function_call", "tool_call_id"};
    int e = json_only(msg, KNOWN, ARRAY_LEN(KNOWN), p->w);
    for (size_t i = 3; e == 0 && i < ARRAY_LEN(KNOWN); i++) {
        const json_val *v = json_get(msg, KNOWN[i]);
        if (json_absent(v) || (json_kind(v) == JSON_KIND_ARR && json_len(v) == 0))
            continue;
        e = json_why(p->w, ERR_UNSUPPORTED, v, "not supported; leave it out");
    }
    return e;
}

static int take_message(struct parse *p, const json_val *msg, struct gw_turn *t)
{
    const json_val *content;
    int e = json_need_obj(msg, p->w);
    if (e == 0)
        e = take_role(p, msg, t);
    if (e == 0)
        e = refuse_rest(p, msg);
    if (e == 0)
        e = json_opt_str(msg, "name", NAME_BYTES_MAX, &t->name, p->w);
    if (e >= 0)
        e = json_req(msg, "content", &content, p->w);
    if (e >= 0)
        e = take_content(p, content, t);
    return e;
}

int take_messages(struct parse *p, const json_val *v)
{
    int e = json_need_arr(v, 1, MESSAGES_MAX, p->w);
    if (e < 0)
        return e;
    p->r->turns = arena_get(p->r->a, json_len(v) * sizeof *p->r->turns);
    for (const json_val *msg = json_first(v); e == 0 && msg; msg = json_next(msg))
        e = take_message(p, msg, &p->r->turns[p->r->n_turns++]);
    return e;
}

/* ---- /v1/completions ---- */

int take_prompt(struct parse *p, const json_val *v)
{
    if (json_kind(v) == JSON_KIND_ARR && json_len(v) == 1 &&
        json_kind(json_at(v, 0)) == JSON_KIND_STR)
        v = json_at(v, 0);
    if (json_kind(v) == JSON_KIND_ARR)
        return json_why(p->w, ERR_UNSUPPORTED, v,
                        "one text at a time: several prompts or token ids are not supported yet");
    int e = json_to_str(v, &p->r->prompt, p->w);
    return e < 0 ? e : count_text(p, v, p->r->prompt);
}
