#include "common/wire/pb.h"
#include "gateway/openai.h"

static const char *error_code(const struct openai_error *e)
{
    if (e->code)
        return e->code;
    switch (e->err) {
    case ERR_AUTH:
        return "invalid_api_key";
    case ERR_BUSY:
        return "rate_limit_exceeded";
    case ERR_UNSUPPORTED:
        return "unsupported_parameter";
    default:
        return NULL;
    }
}

void openai_put_error(buf *out, const struct openai_error *e)
{
    struct json_out j;
    const struct why *w = e->why;
    json_begin(&j, out);
    json_obj(&j);
    json_key(&j, "error");
    json_obj(&j);
    json_key(&j, "message");
    if (w && w->text[0] && w->field[0]) {
        buf text = {0};
        buf_printf(&text, "%s: %s", w->field, w->text);
        json_str(&j, buf_slice(&text));
        buf_clear(&text);
    } else {
        json_cstr(&j, w && w->text[0] ? w->text : err_text(e->err));
    }
    json_kv_cstr(&j, "type", err_openai_type(e->err));
    json_kv_cstr(&j, "param", w && w->field[0] ? w->field : NULL);
    json_kv_cstr(&j, "code", error_code(e));
    json_obj_end(&j);
    json_obj_end(&j);
}

void openai_put_model(struct json_out *j, const Nunchi__ModelInfo *m)
{
    json_obj(j);
    json_kv_cstr(j, "id", m->name);
    json_kv_cstr(j, "object", "model");
    json_kv_u64(j, "created", m->created_unix_s);
    json_kv_cstr(j, "owned_by", "nunchi");
    json_kv_cstr(j, "family", m->family);
    json_kv_u64(j, "context_length", m->n_context);
    json_kv_bool(j, "chat", m->chat);
    json_obj_end(j);
}

static const char *status_text(Nunchi__FileRecord__Status s)
{
    switch (s) {
    case NUNCHI__FILE_RECORD__STATUS__PROCESSED:
        return "processed";
    case NUNCHI__FILE_RECORD__STATUS__ERROR:
        return "error";
    default:
        return "uploaded";
    }
}

void openai_put_file(struct json_out *j, const Nunchi__FileRecord *f)
{
    json_obj(j);
    json_kv_cstr(j, "id", f->id);
    json_kv_cstr(j, "object", "file");
    json_kv_u64(j, "bytes", f->bytes);
    json_kv_u64(j, "created_at", f->created_unix_s);
    if (f->expires_unix_s)
        json_kv_u64(j, "expires_at", f->expires_unix_s);
    json_kv_str(j, "filename", pb_slice(f->filename));
    json_kv_cstr(j, "purpose", f->purpose);
    json_kv_cstr(j, "status", status_text(f->status));
    json_key(j, "status_details");
    if (f->status == NUNCHI__FILE_RECORD__STATUS__ERROR)
        json_str(j, pb_slice(f->error));
    else
        json_null(j);
    if (f->status == NUNCHI__FILE_RECORD__STATUS__UPLOADED) {
        json_kv_f64(j, "progress", (double)f->permille / 1000);
        json_kv_cstr(j, "phase", f->phase);
    }
    json_obj_end(j);
}

void openai_put_files(buf *out, const Nunchi__FileRecords *fs)
{
    struct json_out j;
    json_begin(&j, out);
    json_obj(&j);
    json_kv_cstr(&j, "object", "list");
    json_key(&j, "data");
    json_arr(&j);
    for (size_t i = 0; i < fs->n_files; i++)
        openai_put_file(&j, fs->files[i]);
    json_arr_end(&j);
    json_kv_cstr(&j, "first_id", fs->n_files ? fs->files[0]->id : NULL);
    json_kv_cstr(&j, "last_id", fs->n_files ? fs->files[fs->n_files - 1]->id : NULL);
    json_kv_bool(&j, "has_more", fs->has_more);
    json_obj_end(&j);
}

void openai_put_deleted(buf *out, slice id)
{
    struct json_out j;
    json_begin(&j, out);
    json_obj(&j);
    json_kv_str(&j, "id", id);
    json_kv_cstr(&j, "object", "file");
    json_kv_bool(&j, "deleted", true);
    json_obj_end(&j);
}
