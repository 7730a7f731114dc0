/* The videos of a question: waited for, or sent to a video worker, until their notes are here. */
#include <stdio.h>

#include "gateway/core_impl.h"

#define RECORD_ARENA_BYTES (256u << 10)
/* Notes unpacked, to see that they are some: 1 MiB packed. */
#define NOTES_ARENA_BYTES (32u << 20)
#define NOTES_BYTES_MAX (1u << 20)
/* How long the file store may be away before a question that needs it is given up. */
#define STORE_AWAY_US 3000000
#define TELL_US 1000000
/* Text decoded at a time: whole groups of four digits. */
#define DECODE_CHARS (64u << 10)

static void ask_record(struct job_video *v);
static void ask_notes(struct job_video *v);
static void send_data(struct job_video *v);

static void again_in(struct job_video *v, uint64_t us)
{
    gw *g = v->job->g;
    timers_set(&g->timers, &v->again, g->now_us + us);
}

static void on_again(void *ctx)
{
    struct job_video *v = ctx;
    if (v->has_content)
        ask_notes(v);
    else if (v->part->kind == GW_VIDEO_FILE)
        ask_record(v);
    else
        send_data(v);
}

static void fail(struct job_video *v, int err, const char *text)
{
    struct gw_fail f;
    gw_failed(&f, err, NULL, v->part->where, "%s", text);
    job_fail(v->job, &f);
}

/* Something is away: again soon, but not for ever. False: given up. */
static bool trouble(struct job_video *v, uint64_t patience_us, const char *text)
{
    gw *g = v->job->g;
    if (v->trouble_us == 0)
        v->trouble_us = g->now_us;
    if (g->now_us - v->trouble_us >= patience_us) {
        fail(v, ERR_UNAVAILABLE, text);
        return false;
    }
    again_in(v, FILE_POLL_MS * 1000);
    return true;
}

static bool store_trouble(struct job_video *v)
{
    return trouble(v, STORE_AWAY_US, "the store of files is not there; try again later");
}

static void tell_progress(struct job *j)
{
    uint32_t least = 1000;
    if (j->g->now_us - j->told_us < TELL_US)
        return;
    for (size_t i = 0; i < j->n_videos; i++)
        if (!j->video[i].ready && j->video[i].permille < least)
            least = j->video[i].permille;
    j->told_us = j->g->now_us;
    j->ops->waiting(j->client, least);
}

static void check_all(struct job *j)
{
    for (size_t i = 0; i < j->n_videos; i++)
        if (!j->video[i].ready)
            return;
    job_wait(j, STAGE_TOKENISE);
}

static int ask_cache(struct job_video *v, const Nunchi__CacheRequest *q, slice key,
                     void (*done)(struct ask *, int, const struct wire_msg *, const struct why *))
{
    gw *g = v->job->g;
    struct worker *w = route_cache(g->route, key);
    if (!w)
        return ERR_UNAVAILABLE;
    v->ask.done = done;
    return ask_send(&v->ask, w, &q->base, NULL, 0, CACHE_CALL_MS);
}

/* ---- notes ---- */

/* The salt enters the block hashes; notes that cannot be read are as good as none. */
static bool take_notes(struct job_video *v, slice packed)
{
    arena *a = arena_new(NOTES_ARENA_BYTES);
    void *p;
    bool ok = pb_unpack(a, &nunchi__notes__descriptor, packed, NOTES_BYTES_MAX, &p, NULL) == 0;
    if (ok) {
        const Nunchi__Notes *n = p;
        ok = n->salt.len == sizeof v->salt && n->content.len == DIGEST_BYTES &&
             memcmp(n->content.data, v->content, DIGEST_BYTES) == 0;
        if (ok)
            memcpy(v->salt, n->salt.data, sizeof v->salt);
    }
    arena_free(a);
    if (ok)
        buf_put_slice(&v->notes, packed);
    return ok;
}

static void on_notes(struct ask *ask, int err, const struct wire_msg *m, const struct why *w UNUSED)
{
    struct job_video *v = CONTAINER_OF(ask, struct job_video, ask);
    arena *a = arena_new(RECORD_ARENA_BYTES);
    void *p = NULL;
    const Nunchi__BlobValues *values = NULL;
    if (err == 0 && ask_unpack(a, &nunchi__cache_reply__descriptor, m, &p) == 0 &&
        ((Nunchi__CacheReply *)p)->op_case == NUNCHI__CACHE_REPLY__OP_VALUES)
        values = ((Nunchi__CacheReply *)p)->values;
    bool known = values && values->n_frame == 1 && !(values->frame[0] == 0 && values->degraded);
    bool hit = known && values->frame[0] >= 1 && values->frame[0] <= m->n_frames;
    if (hit && take_notes(v, m->frames[values->frame[0] - 1])) {
        v->ready = true;
        check_all(v->job);
    } else if (known) {
        fail(v, ERR_NOT_FOUND, "what was read from this video is gone; upload it again");
    } else {
        store_trouble(v);
    }
    arena_free(a);
}

static void ask_notes(struct job_video *v)
{
    struct job *j = v->job;
    Nunchi__BlobKey key = NUNCHI__BLOB_KEY__INIT, *keys[] = {&key};
    Nunchi__BlobGet get = NUNCHI__BLOB_GET__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    slice content = {(const char *)v->content, DIGEST_BYTES};
    key.space = NUNCHI__SPACE__NOTES;
    key.tenant = pb_bytes((slice){(const char *)j->r->tenant, DIGEST_BYTES});
    key.key = pb_bytes(content);
    get.keys = keys;
    get.n_keys = 1;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &get;
    if (ask_cache(v, &q, content, on_notes) < 0)
        store_trouble(v);
}

static void has_content(struct job_video *v, ProtobufCBinaryData content)
{
    memcpy(v->content, content.data, DIGEST_BYTES);
    v->has_content = true;
    v->trouble_us = 0;
    ask_notes(v);
}

/* ---- an uploaded file ---- */

static void file_failed(struct job_video *v, const Nunchi__FileRecord *f)
{
    int err = err_from_wire(f->error_code);
    char text[WHY_TEXT_MAX];
    buf clean = {0};
    utf8_put_lossy(&clean, pb_slice(f->error));
    snprintf(text, sizeof text, "this file could not be read: %s",
             clean.n ? buf_cstr(&clean) : err_text(err));
    buf_clear(&clean);
    if (err_http(err) < 400 || err_http(err) >= 500 || err == ERR_NOT_FOUND)
        err = ERR_UNREADABLE; /* it is the file's fault as far as this request can tell */
    fail(v, err, text);
}

/* Whoever reads the file tells the store about it all the time; if not, it was lost. */
static bool file_silent(struct job_video *v, const Nunchi__FileRecord *f)
{
    gw *g = v->job->g;
    uint64_t sign = f->touched_unix_ms ^ ((uint64_t)f->permille << 48);
    if (v->quiet_us == 0 || sign != v->touched)
        v->quiet_us = g->now_us;
    v->touched = sign;
    return g->now_us - v->quiet_us >= (uint64_t)FILE_SILENT_MS * 1000;
}

static void on_file(struct job_video *v, const Nunchi__FileRecord *f)
{
    v->trouble_us = 0;
    if (f->status == NUNCHI__FILE_RECORD__STATUS__ERROR) {
        file_failed(v, f);
    } else if (f->status == NUNCHI__FILE_RECORD__STATUS__PROCESSED &&
               f->content.len == DIGEST_BYTES) {
        has_content(v, f->content);
    } else if (file_silent(v, f)) {
        fail(v, ERR_UNAVAILABLE, "reading this file has stopped; delete it and upload it again");
    } else {
        v->permille = f->permille;
        again_in(v, FILE_POLL_MS * 1000);
        tell_progress(v->job);
    }
}

static void on_record(struct ask *ask, int err, const struct wire_msg *m,
                      const struct why *w UNUSED)
{
    struct job_video *v = CONTAINER_OF(ask, struct job_video, ask);
    arena *a = arena_new(RECORD_ARENA_BYTES);
    void *p = NULL;
    if (err == 0 && (ask_unpack(a, &nunchi__cache_reply__descriptor, m, &p) < 0 ||
                     ((Nunchi__CacheReply *)p)->op_case != NUNCHI__CACHE_REPLY__OP_FILE))
        err = ERR_PROTO;
    if (err == 0)
        on_file(v, ((Nunchi__CacheReply *)p)->file);
    else if (err == ERR_NOT_FOUND)
        fail(v, ERR_NOT_FOUND, "there is no file with this id");
    else
        store_trouble(v);
    arena_free(a);
}

static void ask_record(struct job_video *v)
{
    struct job *j = v->job;
    Nunchi__FileGet get;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    nunchi__file_get__init(&get);
    get.tenant = pb_bytes((slice){(const char *)j->r->tenant, DIGEST_BYTES});
    get.id = slice_dup(v->part->text);
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_GET;
    q.file_get = &get;
    int e = ask_cache(v, &q, v->part->text, on_record);
    free(get.id);
    if (e < 0)
        store_trouble(v);
}

/* ---- a video inside the request ---- */

static void data_more(void *ctx)
{
    struct job_video *v = ctx;
    slice text = v->part->text;
    bool more = true;
    while (more && v->at < text.n) {
        buf bytes = {0};
        size_t n = text.n - v->at < DECODE_CHARS ? text.n - v->at : DECODE_CHARS;
        CHECK(base64_feed(&v->decoder, (slice){text.p + v->at, n}, &bytes) ==
              0); /* checked when it was parsed */
        v->at += n;
        if (v->at == text.n)
            CHECK(base64_end(&v->decoder, &bytes) == 0);
        more = ingest_bytes(&v->ingest, buf_slice(&bytes));
        buf_clear(&bytes);
    }
    if (v->at == text.n && !v->ingest.ended)
        ingest_end(&v->ingest);
}

static void data_progress(void *ctx, const Nunchi__Ingesting *i)
{
    struct job_video *v = ctx;
    v->permille = i->permille;
    tell_progress(v->job);
}

static void data_done(void *ctx, const Nunchi__Ingested *i)
{
    struct job_video *v = ctx;
    ingest_clear(&v->ingest, "done");
    has_content(v, i->content);
}

static void data_failed(void *ctx, int err, const struct why *w)
{
    struct job_video *v = ctx;
    char text[WHY_TEXT_MAX];
    snprintf(text, sizeof text, "%s", w && w->text[0] ? w->text : err_text(err));
    ingest_clear(&v->ingest, "failed");
    if (err == ERR_BUSY)
        again_in(v, FILE_POLL_MS * 1000);
    else if (err_retryable(err))
        trouble(v, (uint64_t)v->job->g->cfg.worker_wait_ms * 1000, text);
    else
        fail(v, err, text);
}

static void send_data(struct job_video *v)
{
    static const struct ingest_ops OPS = {data_more, data_progress, data_done, data_failed};
    struct job *j = v->job;
    struct worker *w = route_pick(j->g->route, j->g->now_us, SERVICE_VIDEO, ROUTE_ANY);
    Nunchi__Ingest q;
    nunchi__ingest__init(&q);
    q.tenant = pb_bytes((slice){(const char *)j->r->tenant, DIGEST_BYTES});
    q.filename = pb_bytes(v->part->name);
    q.size = v->part->bytes;
    v->at = 0;
    v->decoder = (struct base64){0};
    if (!w && route_any(j->g->route, SERVICE_VIDEO, ROUTE_ANY)) { /* all are busy */
        again_in(v, FILE_POLL_MS * 1000);
        return;
    }
    v->ingest.ask.at = j->ask.at;
    if (!w || ingest_start(j->g, &v->ingest, w, &q, &OPS, v) < 0) {
        trouble(v, (uint64_t)j->g->cfg.worker_wait_ms * 1000,
                "no video worker is there to read this; try again later");
        return;
    }
    data_more(v);
}

/* ---- all of them ---- */

static void add_video(struct job *j, const struct gw_part *p)
{
    struct job_video *v = &j->video[j->n_videos++];
    v->job = j;
    v->part = p;
    v->ask.g = j->g;
    v->ask.at = j->ask.at;
    v->again = (struct loop_timer){.fn = on_again, .ctx = v};
    again_in(v, 0);
}

static size_t count_videos(const struct gw_request *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_turns; i++)
        for (size_t k = 0; k < r->turns[i].n_parts; k++)
            n += r->turns[i].parts[k].kind != GW_TEXT;
    return n < VIDEOS_MAX ? n : VIDEOS_MAX;
}

void job_videos_start(struct job *j)
{
    size_t n = count_videos(j->r);
    if (n) /* where a job begins in any case: what is entered is seen in its trace */
        job_enter(j, STAGE_VIDEOS);
    j->told_us = j->g->now_us;
    if (n)
        j->video = xcalloc(n, sizeof *j->video);
    for (size_t i = 0; i < j->r->n_turns; i++)
        for (size_t k = 0; k < j->r->turns[i].n_parts; k++)
            if (j->r->turns[i].parts[k].kind != GW_TEXT && j->n_videos < n)
                add_video(j, &j->r->turns[i].parts[k]);
    if (j->n_videos == 0)
        check_all(j);
}

void job_video_clear(struct job_video *v)
{
    timers_cancel(&v->job->g->timers, &v->again);
    ask_cancel(&v->ask, "client gone");
    ingest_clear(&v->ingest, "client gone");
    buf_clear(&v->notes);
}
