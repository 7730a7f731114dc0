/* A file on its way in: its bytes to a video worker, its record to the store. The record is written
 * when all bytes are there and before the worker is told so; from then on the file is durable.
 * Whoever uploaded it hears of it when the worker has it hashed and on disk; reading goes on
 * without them, and is watched from here to its end. */
#include "gateway/core_impl.h"

struct upload {
    gw *g;
    uint64_t id;
    const struct gw_upload_ops *ops; /* NULL: nobody listens any more */
    void *ctx;
    struct ingest ingest;
    struct ask ask; /* the record */
    arena *a;
    Nunchi__FileRecord record;
    bool recorded, spooled;
};

void upload_free(struct upload *u, const char *reason)
{
    map_del_u64(u->g->uploads, u->id);
    ingest_clear(&u->ingest, reason);
    ask_cancel(&u->ask, reason);
    arena_free(u->a);
    free(u);
}

/* The uploader was told of a failure, or has left before the file was accepted: no trace stays. */
static void delete_record(struct upload *u)
{
    Nunchi__FileDelete d;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    nunchi__file_delete__init(&d);
    d.tenant = u->record.tenant;
    d.id = u->record.id;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_DELETE;
    q.file_delete = &d;
    ask_and_forget(u->g, route_cache(u->g->route, slice_str(d.id)), &q.base, NULL, 0);
}

static void fail(struct upload *u, int err, const struct why *w)
{
    const struct gw_upload_ops *ops = u->ops;
    void *ctx = u->ctx;
    struct gw_fail f;
    gw_failed(&f, err, NULL, "file", "%s", w && w->text[0] ? w->text : err_text(err));
    if (u->recorded)
        delete_record(u);
    upload_free(u, "failed");
    if (ops)
        ops->failed(ctx, &f);
}

/* ---- what the video worker says ---- */

static void on_more(void *ctx)
{
    struct upload *u = ctx;
    if (u->ops)
        u->ops->more(u->ctx);
}

static void accepted(struct upload *u)
{
    const struct gw_upload_ops *ops = u->ops;
    u->spooled = true;
    u->ops = NULL;
    if (ops)
        ops->accepted(u->ctx, &u->record);
}

static void on_progress(void *ctx, const Nunchi__Ingesting *i)
{
    struct upload *u = ctx;
    if (!u->spooled && u->recorded && i->phase != NUNCHI__INGESTING__PHASE__RECEIVING)
        accepted(u);
}

static void on_ingested(void *ctx, const Nunchi__Ingested *i UNUSED)
{
    struct upload *u = ctx;
    if (!u->spooled && u->recorded)
        accepted(u);
    upload_free(u, "done");
}

/* Once it was accepted this is no longer about the uploader: the worker has the file on disk and
 * writes its record, also when it was started again; one that never comes back is seen by the
 * record's silence. */
static void on_ingest_failed(void *ctx, int err, const struct why *w)
{
    struct upload *u = ctx;
    if (u->spooled)
        upload_free(u, "failed");
    else
        fail(u, err, w);
}

/* ---- what the front asks for ---- */

static void fill_record(struct upload *u, const struct gw_upload_meta *m)
{
    nunchi__file_record__init(&u->record);
    union {
        const char *in;
        char *out;
    } id = {.in = arena_slice(u->a, m->id).p};
    u->record.id = id.out;
    u->record.tenant = pb_bytes(arena_slice(u->a, m->tenant));
    u->record.filename = pb_bytes(arena_slice(u->a, m->filename));
}

int gw_upload_begin(gw *g, uint64_t now_us, const struct gw_upload_meta *m,
                    const struct gw_upload_ops *ops, void *ctx, uint64_t *id, struct gw_fail *f)
{
    static const struct ingest_ops OPS = {on_more, on_progress, on_ingested, on_ingest_failed};
    core_enter(g, now_us);
    if (g->draining)
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "",
                         "shutting down; try again elsewhere or later");
    if (!route_any(g->route, SERVICE_CACHE, ROUTE_ANY))
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "",
                         "the store of files is not there; try again later");
    struct worker *w = route_pick(g->route, g->now_us, SERVICE_VIDEO, ROUTE_ANY);
    if (!w && route_any(g->route, SERVICE_VIDEO, ROUTE_ANY))
        return gw_failed(f, ERR_BUSY, NULL, "", "all video workers are busy; try again later");
    if (!w)
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "",
                         "no video worker is there to read this; try again later");
    struct upload *u = xcalloc(1, sizeof *u);
    *u = (struct upload){
        .g = g, .id = ++g->last_id, .ops = ops, .ctx = ctx, .ask = {.g = g}, .a = arena_new(0)};
    fill_record(u, m);
    Nunchi__Ingest q;
    nunchi__ingest__init(&q);
    q.file_id = u->record.id;
    q.tenant = u->record.tenant;
    q.filename = u->record.filename;
    q.size = m->size;
    if (ingest_start(g, &u->ingest, w, &q, &OPS, u) < 0) {
        arena_free(u->a);
        free(u);
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "",
                         "the video worker cannot be reached; try again later");
    }
    map_put_u64(g->uploads, u->id, u);
    *id = u->id;
    return 0;
}

bool gw_upload_bytes(gw *g, uint64_t now_us, uint64_t id, slice bytes)
{
    core_enter(g, now_us);
    struct upload *u = map_get_u64(g->uploads, id);
    if (!u)
        return true; /* it has failed; what still comes falls on the floor */
    u->record.bytes += bytes.n;
    return ingest_bytes(&u->ingest, bytes);
}

static void on_recorded(struct ask *ask, int err, const struct wire_msg *m UNUSED,
                        const struct why *w)
{
    struct upload *u = CONTAINER_OF(ask, struct upload, ask);
    if (err < 0) {
        fail(u, err, w);
        return;
    }
    u->recorded = true;
    ingest_end(&u->ingest);
}

void gw_upload_finish(gw *g, uint64_t now_us, uint64_t id, slice purpose, uint64_t unix_s,
                      uint64_t expires_s)
{
    core_enter(g, now_us);
    struct upload *u = map_get_u64(g->uploads, id);
    if (!u)
        return;
    union {
        const char *in;
        char *out;
    } text = {.in = arena_slice(u->a, purpose).p};
    u->record.purpose = text.out;
    u->record.created_unix_s = unix_s;
    u->record.expires_unix_s = expires_s;
    u->record.status = NUNCHI__FILE_RECORD__STATUS__UPLOADED;
    Nunchi__FilePut put = NUNCHI__FILE_PUT__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    put.file = &u->record;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_PUT;
    q.file_put = &put;
    u->ask.done = on_recorded;
    struct worker *w = route_cache(g->route, slice_str(u->record.id));
    if (!w || ask_send(&u->ask, w, &q.base, NULL, 0, CACHE_CALL_MS) < 0) {
        struct why why;
        why_set(&why, ERR_UNAVAILABLE, "", "the store of files is not there; try again later");
        fail(u, ERR_UNAVAILABLE, &why);
    }
    core_settle(g);
}

void gw_upload_cancel(gw *g, uint64_t now_us, uint64_t id)
{
    core_enter(g, now_us);
    struct upload *u = map_get_u64(g->uploads, id);
    if (u && !u->spooled) {
        if (u->recorded || u->ask.request)
            delete_record(u);
        upload_free(u, "client gone");
    }
    core_settle(g);
}
