/* Uploads, and the doors to the core. What happens once a file is on disk: life.c. */
#include "video-svc/core_int.h"

#define FULL_RETRY_MS 5000

vid *vid_new(const struct vid_config *cfg, const struct vid_out *out)
{
    vid *v = xcalloc(1, sizeof *v);
    v->cfg = *cfg;
    v->out = *out;
    list_init(&v->jobs);
    v->by_id = map_new();
    return v;
}

void vid_free(vid *v)
{
    if (!v)
        return;
    LIST_EACH(it, &v->jobs)
    {
        vid_job_free(CONTAINER_OF(it, struct vid_job, link));
    }
    timers_clear(&v->timers);
    map_free(v->by_id);
    free(v);
}

/* ---- finding ---- */

static struct vid_job *of_request(vid *v, uint64_t gateway, uint64_t request)
{
    LIST_EACH(it, &v->jobs)
    {
        struct vid_job *j = CONTAINER_OF(it, struct vid_job, link);
        if (j->asked && j->gateway == gateway && j->request == request)
            return j;
    }
    return NULL;
}

/* ---- receiving ---- */

/* Ends an upload that was not accepted: the asker hears of it, the record is theirs to remove. */
static void refuse_upload(struct vid_job *j, int err, const struct why *w)
{
    if (j->asked)
        j->v->out.error(j->v->out.ctx, j->gateway, j->request, j->attempt, err, w,
                        err == ERR_BUSY ? FULL_RETRY_MS : 0);
    j->v->n_failed++;
    vid_abandon(j);
}

static int reserve(struct vid_job *j, uint64_t bytes, struct why *w)
{
    vid *v = j->v;
    if (bytes > v->cfg.spool_bytes - v->spool_used)
        return why_set(w, ERR_BUSY, "file", "the disk space for uploads is full; try again later");
    v->spool_used += bytes;
    j->reserved += bytes;
    return 0;
}

/* As much as keeps the window full; with an unknown size the space is reserved as it is granted. */
static int grant(struct vid_job *j, struct why *w)
{
    uint64_t window = j->written + VID_WINDOW_BYTES;
    bool all = j->announced && window >= j->announced;
    if (all)
        window = j->announced;
    if (window <= j->granted || (!all && window - j->granted < VID_WINDOW_BYTES / 2))
        return 0; /* nothing, or not worth a message */
    uint64_t more = window - j->granted;
    if (j->granted + more > j->reserved) {
        int e = reserve(j, j->granted + more - j->reserved, w);
        if (e < 0)
            return e;
    }
    j->granted += more;
    Nunchi__Credit c = NUNCHI__CREDIT__INIT;
    c.amount = more;
    j->v->out.send(j->v->out.ctx, j->gateway, j->request, j->attempt, WIRE_CREDIT, &c.base);
    return 0;
}

static void on_silence(void *ctx)
{
    struct vid_job *j = ctx;
    struct why w;
    int e = why_set(&w, ERR_TIMEOUT, "file", "the upload stood still for %u seconds",
                    j->v->cfg.upload_silence_ms / 1000);
    refuse_upload(j, e, &w);
}

static void wait_for_more(struct vid_job *j)
{
    j->alarm.fn = on_silence;
    timers_set(&j->v->timers, &j->alarm,
               j->v->now_us + (uint64_t)j->v->cfg.upload_silence_ms * 1000);
}

static int check_request(vid *v, const Nunchi__Ingest *q, struct why *w)
{
    if (v->draining)
        return why_set(w, ERR_UNAVAILABLE, "", "this worker is being stopped");
    if (q->tenant.len != VID_TENANT_BYTES)
        return why_set(w, ERR_INVALID, "tenant", "a tenant has %d bytes, not %zu", VID_TENANT_BYTES,
                       q->tenant.len);
    if (strlen(q->file_id) > VID_FILE_ID_MAX)
        return why_set(w, ERR_INVALID, "file_id", "at most %d bytes", VID_FILE_ID_MAX);
    if (q->filename.len > VID_NAME_MAX)
        return why_set(w, ERR_INVALID, "filename", "%zu bytes, at most %d", q->filename.len,
                       VID_NAME_MAX);
    if (q->frames != NUNCHI__INGEST__FRAMES__UNIFORM &&
        q->frames != NUNCHI__INGEST__FRAMES__KEYFRAME)
        return why_set(w, ERR_UNSUPPORTED, "frames", "unknown way of choosing frames");
    if (q->frames_max > REC_FRAMES_MAX)
        return why_set(w, ERR_INVALID, "frames_max", "%u frames, at most %d", q->frames_max,
                       REC_FRAMES_MAX);
    if (q->size > v->cfg.upload_max)
        return why_set(w, ERR_TOO_BIG, "file", "the file has %llu bytes; at most %llu are taken",
                       (unsigned long long)q->size, (unsigned long long)v->cfg.upload_max);
    if (v->n_jobs >= v->cfg.jobs + v->cfg.queue)
        return why_set(w, ERR_BUSY, "", "%u videos are being read or waiting; try again later",
                       v->n_jobs);
    return 0;
}

static void fill_saved(vid *v, struct vid_saved *s, const Nunchi__Ingest *q)
{
    uint8_t name[(VID_SPOOL_NAME - 1) / 2];
    v->out.random(v->out.ctx, name, sizeof name);
    hex_encode(name, sizeof name, s->name);
    memcpy(s->file_id, q->file_id, strlen(q->file_id) + 1);
    memcpy(s->tenant, q->tenant.data, VID_TENANT_BYTES);
    s->keyframes = q->frames == NUNCHI__INGEST__FRAMES__KEYFRAME;
    s->frames_max = q->frames_max;
}

void vid_request(vid *v, uint64_t now_us, uint64_t gateway, const struct wire_head *h,
                 const Nunchi__Ingest *q)
{
    v->now_us = now_us;
    if (of_request(v, gateway, h->request))
        return; /* here already: an ERROR would end that one */
    struct why w = {0};
    int e = check_request(v, q, &w);
    struct vid_job *j = NULL;
    if (e >= 0) {
        j = vid_job_new(v);
        j->gateway = gateway;
        j->request = h->request;
        j->attempt = h->attempt;
        j->announced = q->size;
        fill_saved(v, &j->saved, q);
        e = reserve(j, q->size, &w);
    }
    if (e >= 0)
        e = grant(j, &w);
    if (e < 0) {
        v->out.error(v->out.ctx, gateway, h->request, h->attempt, e, &w,
                     e == ERR_BUSY ? FULL_RETRY_MS : 0);
        vid_job_free(j);
        return;
    }
    j->asked = true;
    /* proto/PROTOCOL.md, "Keys" */
    static const char WHAT[] = "nunchi video 1";
    j->hash = digest_begin((slice){(const char *)j->saved.tenant, VID_TENANT_BYTES});
    digest_add(j->hash, WHAT, sizeof WHAT - 1);
    wait_for_more(j);
}

static int check_chunk(struct vid_job *j, slice bytes, bool last, struct why *w)
{
    uint64_t total = j->received + bytes.n;
    if (bytes.n > VID_CHUNK_MAX)
        return why_set(w, ERR_PROTO, "file", "a piece of %zu bytes; at most %u", bytes.n,
                       VID_CHUNK_MAX);
    if (total > j->granted)
        return why_set(w, ERR_PROTO, "file", "more bytes than were granted");
    if (total > j->v->cfg.upload_max)
        return why_set(w, ERR_TOO_BIG, "file", "the file has more than %llu bytes",
                       (unsigned long long)j->v->cfg.upload_max);
    if (j->announced && (total > j->announced || (last && total < j->announced)))
        return why_set(w, ERR_INVALID, "file", "%llu bytes were announced, and %s came",
                       (unsigned long long)j->announced, total > j->announced ? "more" : "fewer");
    return 0;
}

static void write_or_seal(struct vid_job *j)
{
    if (j->disk_busy)
        return;
    if (j->pending.n > 0) {
        buf free_one = j->writing;
        j->writing = j->pending;
        j->pending = free_one;
        buf_reset(&j->pending);
        j->disk_busy = true;
        j->v->out.disk(j->v->out.ctx, j->id, VID_DISK_WRITE, &j->saved, buf_slice(&j->writing));
    } else if (j->ended) {
        j->state = VID_SEALING;
        j->disk_busy = true;
        j->v->out.disk(j->v->out.ctx, j->id, VID_DISK_SEAL, &j->saved, (slice){0});
    }
}

void vid_chunk(vid *v, uint64_t now_us, uint64_t gateway, const struct wire_head *h, slice bytes)
{
    v->now_us = now_us;
    struct vid_job *j = of_request(v, gateway, h->request);
    if (!j || j->attempt != h->attempt || j->state != VID_RECEIVING || j->ended)
        return;
    struct why w = {0};
    bool last = h->flags & WIRE_END;
    int e = check_chunk(j, bytes, last, &w);
    if (e < 0) {
        refuse_upload(j, e, &w);
        return;
    }
    j->received += bytes.n;
    j->ended = last;
    if (bytes.n) {
        digest_add(j->hash, bytes.p, bytes.n);
        buf_put_slice(&j->pending, bytes); /* bounded by the window */
    }
    if (last) {
        timers_cancel(&v->timers, &j->alarm);
        j->saved.size = j->received;
        j->saved.content = digest_end(j->hash);
        j->hash = NULL;
    } else {
        wait_for_more(j);
    }
    write_or_seal(j);
}

/* ---- accepted ---- */

static void accepted(struct vid_job *j)
{
    vid *v = j->v;
    /* What was reserved and not used is free again. */
    v->spool_used -= j->reserved - j->received;
    j->reserved = j->received;
    j->phase = NUNCHI__INGESTING__PHASE__SPOOLED;
    vid_say_progress(j);
    vid_enter_lookup(j);
}

void vid_disk_done(vid *v, uint64_t now_us, uint64_t job, int err)
{
    v->now_us = now_us;
    struct vid_job *j = map_get_u64(v->by_id, job);
    if (!j)
        return;
    j->disk_busy = false;
    if (j->state == VID_REMOVING) {
        if (j->abandoned) { /* the end of what was under way when it was given up */
            vid_remove(j);
            return;
        }
        vid_job_free(j);
        return;
    }
    if (err < 0) {
        struct why w;
        why_set(&w, err, "file",
                err == ERR_UNAVAILABLE ? "there is no room for the upload now; try again later"
                                       : "the upload could not be written to disk");
        refuse_upload(j, err, &w);
        return;
    }
    if (j->state == VID_SEALING) {
        accepted(j);
        return;
    }
    j->written += j->writing.n;
    buf_reset(&j->writing);
    struct why w = {0};
    int e = j->ended ? 0 : grant(j, &w);
    if (e < 0)
        refuse_upload(j, e, &w);
    else
        write_or_seal(j);
}

void vid_resume(vid *v, uint64_t now_us, const struct vid_saved *s)
{
    v->now_us = now_us;
    struct vid_job *j = vid_job_new(v);
    j->saved = *s;
    j->received = j->written = j->reserved = s->size;
    v->spool_used += s->size; /* it lies there, whatever the limit is today */
    j->phase = NUNCHI__INGESTING__PHASE__SPOOLED;
    vid_enter_lookup(j);
}

/* ---- leaving ---- */

void vid_cancel(vid *v, uint64_t now_us, uint64_t gateway, uint64_t request)
{
    v->now_us = now_us;
    struct vid_job *j = of_request(v, gateway, request);
    if (j) {
        j->asked = false;
        vid_abandon(j);
    }
}

void vid_gateway_gone(vid *v, uint64_t now_us, uint64_t gateway)
{
    v->now_us = now_us;
    LIST_EACH(it, &v->jobs)
    {
        struct vid_job *j = CONTAINER_OF(it, struct vid_job, link);
        if (!j->asked || j->gateway != gateway)
            continue;
        j->asked = false;
        /* Without a record nobody could find what comes out of it. */
        if (j->state == VID_RECEIVING || !j->saved.file_id[0])
            vid_abandon(j);
    }
}

uint64_t vid_tick(vid *v, uint64_t now_us)
{
    v->now_us = now_us;
    timers_run(&v->timers, now_us);
    return timers_next_us(&v->timers);
}

void vid_drain(vid *v)
{
    v->draining = true;
}

struct vid_load vid_load_now(const vid *v)
{
    uint32_t most = v->cfg.jobs + v->cfg.queue;
    return (struct vid_load){.running = v->n_decoders,
                             .queued = v->n_jobs - v->n_decoders,
                             .slots = v->draining || v->n_jobs >= most ? 0 : most - v->n_jobs,
                             .spool_used = v->spool_used,
                             .done = v->n_finished,
                             .failed = v->n_failed,
                             .seen_before = v->n_seen};
}
