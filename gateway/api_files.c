/* Files that are there: their records, notes and pictures, all kept by cache-svc. */
#include "common/wire/pb.h"
#include "gateway/api_impl.h"

#define NOTES_BYTES_MAX (1u << 20)
#define NOTES_ARENA_BYTES (32u << 20)

static void call(struct ex *x, const Nunchi__CacheRequest *q, slice key, gw_cache_fn fn)
{
    struct gw_fail f;
    if (gw_cache(x->a->g, loop_now_us(x->a->l), q, key, fn, x, &x->call, &f) < 0)
        api_fail(x, &f);
}

static void broken(struct ex *x)
{
    struct why w;
    why_set(&w, ERR_PROTO, "", "the store of files answered something else");
    api_fail_err(x, ERR_PROTO, &w);
}

static void respond(struct ex *x, buf *out)
{
    api_json(x, 200, buf_slice(out));
    buf_clear(out);
}

void files_over(struct ex *x)
{
    if (x->call)
        gw_call_cancel(x->a->g, x->call);
}

/* True: it failed, and that was answered. */
static bool failed(struct ex *x, const struct gw_fail *f)
{
    x->call = 0;
    if (!f)
        return false;
    struct gw_fail copy = *f;
    if (f->err == ERR_NOT_FOUND)
        gw_failed(&copy, ERR_NOT_FOUND, NULL, "id", "there is no file with this id");
    api_fail(x, &copy);
    return true;
}

/* ---- GET /v1/files ---- */

static void on_list(void *ctx, const struct gw_fail *f, const Nunchi__CacheReply *r,
                    const struct wire_msg *m UNUSED)
{
    struct ex *x = ctx;
    buf out = {0};
    if (failed(x, f))
        return;
    if (r->op_case != NUNCHI__CACHE_REPLY__OP_FILES) {
        broken(x);
        return;
    }
    openai_put_files(&out, r->files);
    respond(x, &out);
}

static int list_query(struct ex *x, Nunchi__FileList *q, struct why *w)
{
    slice limit = http_query(x->h, "limit"), after = http_query(x->h, "after"),
          order = http_query(x->h, "order"), purpose = http_query(x->h, "purpose");
    uint64_t n = FILES_LIST_MAX;
    if (limit.n && (slice_u64(limit, &n) < 0 || n < 1 || n > FILES_LIST_MAX))
        return why_set(w, ERR_INVALID, "limit", "a number from 1 to %d", FILES_LIST_MAX);
    if (after.n && !gw_file_id_ok(after))
        return why_set(w, ERR_INVALID, "after", "not a file's id");
    if (order.n && !slice_eq_str(order, "asc") && !slice_eq_str(order, "desc"))
        return why_set(w, ERR_INVALID, "order", "asc or desc");
    if (purpose.n > PURPOSE_BYTES_MAX || !utf8_valid(purpose))
        return why_set(w, ERR_INVALID, "purpose", "at most %d bytes", PURPOSE_BYTES_MAX);
    q->limit = (uint32_t)n;
    q->ascending = slice_eq_str(order, "asc");
    q->after = slice_dup(after);
    q->purpose = slice_dup(purpose);
    return 0;
}

void files_list(struct ex *x)
{
    struct why w;
    Nunchi__FileList list;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    nunchi__file_list__init(&list);
    int e = list_query(x, &list, &w);
    if (e < 0) {
        api_fail_err(x, e, &w);
        return;
    }
    list.tenant = pb_bytes(api_tenant(x));
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_LIST;
    q.file_list = &list;
    call(x, &q, api_tenant(x), on_list);
    free(list.after);
    free(list.purpose);
}

/* ---- one file ---- */

static bool id_ok(struct ex *x)
{
    if (gw_file_id_ok(x->id))
        return true;
    struct why w;
    why_set(&w, ERR_NOT_FOUND, "id", "there is no file with this id");
    api_fail_err(x, ERR_NOT_FOUND, &w);
    return false;
}

static void get_record(struct ex *x, gw_cache_fn fn)
{
    Nunchi__FileGet get;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    nunchi__file_get__init(&get);
    get.tenant = pb_bytes(api_tenant(x));
    get.id = slice_dup(x->id);
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_GET;
    q.file_get = &get;
    call(x, &q, x->id, fn);
    free(get.id);
}

static void on_record(void *ctx, const struct gw_fail *f, const Nunchi__CacheReply *r,
                      const struct wire_msg *m UNUSED)
{
    struct ex *x = ctx;
    buf out = {0};
    struct json_out j;
    if (failed(x, f))
        return;
    if (r->op_case != NUNCHI__CACHE_REPLY__OP_FILE) {
        broken(x);
        return;
    }
    json_begin(&j, &out);
    openai_put_file(&j, r->file);
    respond(x, &out);
}

void files_get(struct ex *x)
{
    if (id_ok(x))
        get_record(x, on_record);
}

static void on_deleted(void *ctx, const struct gw_fail *f, const Nunchi__CacheReply *r,
                       const struct wire_msg *m UNUSED)
{
    struct ex *x = ctx;
    buf out = {0};
    struct gw_fail gone;
    if (failed(x, f))
        return;
    if (r->op_case == NUNCHI__CACHE_REPLY__OP_DONE && !r->done->existed) {
        gw_failed(&gone, ERR_NOT_FOUND, NULL, "id", "there is no file with this id");
        api_fail(x, &gone);
        return;
    }
    openai_put_deleted(&out, x->id);
    respond(x, &out);
}

void files_delete(struct ex *x)
{
    Nunchi__FileDelete d;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    if (!id_ok(x))
        return;
    nunchi__file_delete__init(&d);
    d.tenant = pb_bytes(api_tenant(x));
    d.id = slice_dup(x->id);
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_DELETE;
    q.file_delete = &d;
    call(x, &q, x->id, on_deleted);
    free(d.id);
}

static void on_content(void *ctx, const struct gw_fail *f, const Nunchi__CacheReply *r UNUSED,
                       const struct wire_msg *m UNUSED)
{
    struct ex *x = ctx;
    struct why w;
    if (failed(x, f))
        return;
    why_set(&w, ERR_UNSUPPORTED, "id",
            "videos are not kept, only what was read from them: see /v1/files/{id}/notes");
    api_fail_err(x, ERR_UNSUPPORTED, &w);
}

void files_content(struct ex *x)
{
    if (id_ok(x))
        get_record(x, on_content);
}

/* ---- notes and pictures ---- */

static void get_blob(struct ex *x, Nunchi__Space space, ProtobufCBinaryData name, gw_cache_fn fn)
{
    Nunchi__BlobKey key = NUNCHI__BLOB_KEY__INIT, *names[] = {&key};
    Nunchi__BlobGet get = NUNCHI__BLOB_GET__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    key.space = space;
    key.tenant = pb_bytes(api_tenant(x));
    key.key = name;
    get.keys = names;
    get.n_keys = 1;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &get;
    call(x, &q, pb_slice(name), fn);
}

/* The one value that was asked for; false if it is not there, which was answered. */
static bool take_blob(struct ex *x, const Nunchi__CacheReply *r, const struct wire_msg *m,
                      slice *out)
{
    struct gw_fail f;
    if (r->op_case != NUNCHI__CACHE_REPLY__OP_VALUES || r->values->n_frame != 1 ||
        r->values->frame[0] > m->n_frames) {
        broken(x);
        return false;
    }
    if (r->values->frame[0] == 0) {
        bool away = r->values->degraded;
        gw_failed(&f, away ? ERR_UNAVAILABLE : ERR_NOT_FOUND, NULL, "id", "%s",
                  away ? "the store of files is away; try again later"
                       : "this is gone; upload the file again");
        api_fail(x, &f);
        return false;
    }
    *out = m->frames[r->values->frame[0] - 1];
    return true;
}

static bool take_notes(struct ex *x, const Nunchi__CacheReply *r, const struct wire_msg *m,
                       arena *a, const Nunchi__Notes **out)
{
    slice packed;
    void *v;
    if (!take_blob(x, r, m, &packed))
        return false;
    if (pb_unpack(a, &nunchi__notes__descriptor, packed, NOTES_BYTES_MAX, &v, NULL) < 0) {
        broken(x);
        return false;
    }
    *out = v;
    return true;
}

static void on_notes(void *ctx, const struct gw_fail *f, const Nunchi__CacheReply *r,
                     const struct wire_msg *m)
{
    struct ex *x = ctx;
    arena *a = arena_new(NOTES_ARENA_BYTES);
    const Nunchi__Notes *n;
    buf out = {0};
    if (!failed(x, f) && take_notes(x, r, m, a, &n)) {
        openai_put_notes(&out, x->id, n);
        respond(x, &out);
    }
    arena_free(a);
}

static void on_frame(void *ctx, const struct gw_fail *f, const Nunchi__CacheReply *r,
                     const struct wire_msg *m)
{
    struct ex *x = ctx;
    slice jpeg;
    if (failed(x, f) || !take_blob(x, r, m, &jpeg))
        return;
    api_count(x, 200);
    http_add_header(x->h, "X-Content-Type-Options", SLICE_LIT("nosniff"));
    http_respond(x->h, 200, "image/jpeg", jpeg);
}

/* The kept frame nearest to the time that was asked for. */
static const Nunchi__Frame *nearest_frame(const Nunchi__Notes *n, uint64_t ms)
{
    const Nunchi__Frame *best = NULL;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < n->n_scenes; i++)
        for (size_t k = 0; k < n->scenes[i]->n_frames; k++) {
            const Nunchi__Frame *fr = n->scenes[i]->frames[k];
            uint64_t d = fr->time_ms > ms ? fr->time_ms - ms : ms - fr->time_ms;
            if (fr->digest.len == DIGEST_BYTES && d < least) {
                best = fr;
                least = d;
            }
        }
    return best;
}

static void on_notes_for_frame(void *ctx, const struct gw_fail *f, const Nunchi__CacheReply *r,
                               const struct wire_msg *m)
{
    struct ex *x = ctx;
    arena *a = arena_new(NOTES_ARENA_BYTES);
    const Nunchi__Notes *n;
    if (!failed(x, f) && take_notes(x, r, m, a, &n)) {
        const Nunchi__Frame *best = nearest_frame(n, x->frame_ms);
        struct why w;
        if (best)
            get_blob(x, NUNCHI__SPACE__FRAME, best->digest, on_frame);
        else
            api_fail_err(x, why_set(&w, ERR_NOT_FOUND, "id", "no frame of this video was kept"),
                         &w);
    }
    arena_free(a);
}

/* Reading has ended well: true. Otherwise that was answered. */
static bool is_read(struct ex *x, const Nunchi__CacheReply *r)
{
    struct gw_fail f;
    if (r->op_case != NUNCHI__CACHE_REPLY__OP_FILE) {
        broken(x);
        return false;
    }
    const Nunchi__FileRecord *file = r->file;
    if (file->status == NUNCHI__FILE_RECORD__STATUS__PROCESSED && file->content.len == DIGEST_BYTES)
        return true;
    if (file->status == NUNCHI__FILE_RECORD__STATUS__ERROR)
        gw_failed(&f, ERR_UNREADABLE, NULL, "id", "this file could not be read: %.*s",
                  (int)file->error.len, (const char *)file->error.data);
    else
        gw_failed(&f, ERR_AGAIN, "file_not_ready", "id",
                  "this file is still being read (%u%%); try again soon", file->permille / 10);
    api_fail(x, &f);
    return false;
}

static void on_record_for_notes(void *ctx, const struct gw_fail *f, const Nunchi__CacheReply *r,
                                const struct wire_msg *m UNUSED)
{
    struct ex *x = ctx;
    if (!failed(x, f) && is_read(x, r))
        get_blob(x, NUNCHI__SPACE__NOTES, r->file->content,
                 x->at->end == files_notes ? on_notes : on_notes_for_frame);
}

void files_notes(struct ex *x)
{
    if (id_ok(x))
        get_record(x, on_record_for_notes);
}

/* …/frames/12500.jpg */
void files_frame(struct ex *x)
{
    static const char TAIL[] = ".jpg";
    size_t tail = sizeof TAIL - 1;
    struct why w;
    bool shaped = x->rest.n > tail && memcmp(x->rest.p + x->rest.n - tail, TAIL, tail) == 0;
    if (!shaped || slice_u64((slice){x->rest.p, x->rest.n - tail}, &x->frame_ms) < 0)
        api_fail_err(
            x,
            why_set(&w, ERR_NOT_FOUND, "", "frames are named by milliseconds: …/frames/12500.jpg"),
            &w);
    else if (id_ok(x))
        get_record(x, on_record_for_notes);
}
