/* From a file on disk to notes in the store. */
#include "video-svc/core_int.h"
#include "common/wire/pb.h"

#define BEAT_US 2000000       /* a sign of life in the file's record */
#define RETRY_US 1000000      /* before a store that is away is asked again */
#define DECODE_GRACE_MS 20000 /* the decoder has a deadline of its own and says it better */
#define DECODE_TRIES 2
#define THUMB_TAG 1 /* the lowest bit of a picture's tag */

/* ---- jobs ---- */

struct vid_job *vid_job_new(vid *v)
{
    struct vid_job *j = xcalloc(1, sizeof *j);
    j->v = v;
    j->id = ++v->last_id;
    j->alarm.ctx = j->beat.ctx = j;
    list_append(&v->jobs, &j->link);
    map_put_u64(v->by_id, j->id, j);
    v->n_jobs++;
    return j;
}

void vid_job_free(struct vid_job *j)
{
    if (!j)
        return;
    vid *v = j->v;
    timers_cancel(&v->timers, &j->alarm);
    timers_cancel(&v->timers, &j->beat);
    list_remove(&j->link);
    map_del_u64(v->by_id, j->id);
    v->n_jobs--;
    v->spool_used -= j->reserved;
    if (j->hash)
        (void)digest_end(j->hash);
    notes_free(j->notes);
    buf_clear(&j->pending);
    buf_clear(&j->writing);
    buf_clear(&j->packed);
    free(j->puts);
    free(j);
}

static void set_alarm(struct vid_job *j, loop_fn fn, uint64_t after_us)
{
    j->alarm.fn = fn;
    timers_set(&j->v->timers, &j->alarm, j->v->now_us + after_us);
}

static slice bytes_of(const void *p, size_t n)
{
    return (slice){p, n};
}

static slice content_of(const struct vid_job *j)
{
    return bytes_of(j->saved.content.b, DIGEST_BYTES);
}

static void call(struct vid_job *j, enum vid_call c, uint32_t tag, slice key,
                 const Nunchi__CacheRequest *q, slice bulk)
{
    j->v->out.cache(j->v->out.ctx, j->id, c, tag, key, q, bulk);
}

/* ---- progress ---- */

static const char *phase_name(const struct vid_job *j)
{
    switch (j->state) {
    case VID_LOOKUP:
    case VID_SAME:
    case VID_QUEUED:
        return "queued";
    case VID_STORING:
    case VID_TELLING:
        return "storing";
    default:
        break;
    }
    switch ((int)j->phase) {
    case NUNCHI__INGESTING__PHASE__PROBING:
        return "probing";
    case NUNCHI__INGESTING__PHASE__SCENES:
        return "scenes";
    case NUNCHI__INGESTING__PHASE__FRAMES:
        return "frames";
    case NUNCHI__INGESTING__PHASE__TEXT:
        return "text";
    default:
        return "queued";
    }
}

/* Generated structs want char *; nobody writes through it. */
static char *text_of(const char *s)
{
    union {
        const char *in;
        char *out;
    } cast = {.in = s};
    return cast.out;
}

static void send_record(struct vid_job *j, enum vid_call c, Nunchi__FileProgress *p)
{
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    p->tenant = pb_bytes(bytes_of(j->saved.tenant, VID_TENANT_BYTES));
    p->id = j->saved.file_id;
    p->content = pb_bytes(content_of(j));
    q.op_case = NUNCHI__CACHE_REQUEST__OP_FILE_PROGRESS;
    q.file_progress = p;
    call(j, c, 0, slice_str(j->saved.file_id), &q, (slice){0});
}

static void beat(struct vid_job *j)
{
    if (!j->saved.file_id[0])
        return;
    Nunchi__FileProgress p;
    nunchi__file_progress__init(&p);
    p.status = NUNCHI__FILE_RECORD__STATUS__UPLOADED;
    p.permille = j->permille;
    p.phase = text_of(phase_name(j));
    send_record(j, VID_CALL_PROGRESS, &p);
}

static void on_beat(void *ctx)
{
    struct vid_job *j = ctx;
    beat(j);
    timers_set(&j->v->timers, &j->beat, j->v->now_us + BEAT_US);
}

void vid_say_progress(struct vid_job *j)
{
    if (!j->asked)
        return;
    Nunchi__Ingesting m = NUNCHI__INGESTING__INIT;
    m.phase = j->phase;
    m.permille = j->permille;
    m.content = pb_bytes(content_of(j));
    m.size = j->saved.size;
    j->v->out.send(j->v->out.ctx, j->gateway, j->request, j->attempt, WIRE_CHUNK, &m.base);
}

/* ---- a store that is away ---- */

static bool worth_waiting(int err)
{
    return err == ERR_UNAVAILABLE || err == ERR_TIMEOUT || err == ERR_BUSY || err == ERR_AGAIN ||
           err == ERR_IO || err == ERR_PROTO;
}

/* True: `fn` will run soon. False: that is no longer worth it, or never was. */
static bool try_again(struct vid_job *j, int err, loop_fn fn)
{
    uint64_t now = j->v->now_us;
    if (!worth_waiting(err))
        return false;
    if (!j->patience_us)
        j->patience_us = now + (uint64_t)j->v->cfg.store_patience_ms * 1000;
    if (now >= j->patience_us)
        return false;
    set_alarm(j, fn, RETRY_US);
    return true;
}

/* ---- is it known? ---- */

static bool same_is_read(const struct vid_job *j)
{
    LIST_EACH(it, &j->v->jobs)
    {
        struct vid_job *o = CONTAINER_OF(it, struct vid_job, link);
        if (o != j && o->state >= VID_LOOKUP && o->state != VID_SAME && o->state <= VID_STORING &&
            digest_eq(&o->saved.content, &j->saved.content))
            return true; /* the digest is keyed by the tenant */
    }
    return false;
}

static void look_up(void *ctx)
{
    struct vid_job *j = ctx;
    Nunchi__BlobKey key = NUNCHI__BLOB_KEY__INIT, *keys[] = {&key};
    Nunchi__BlobGet get = NUNCHI__BLOB_GET__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    key.space = NUNCHI__SPACE__NOTES;
    key.tenant = pb_bytes(bytes_of(j->saved.tenant, VID_TENANT_BYTES));
    key.key = pb_bytes(content_of(j));
    get.n_keys = 1;
    get.keys = keys;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &get;
    call(j, VID_CALL_LOOKUP, 0, content_of(j), &q, (slice){0});
}

void vid_enter_lookup(struct vid_job *j)
{
    j->beat.fn = on_beat;
    if (!j->beat.heap_index)
        timers_set(&j->v->timers, &j->beat, j->v->now_us);
    if (same_is_read(j)) {
        j->state = VID_SAME;
        return;
    }
    j->state = VID_LOOKUP;
    look_up(j);
}

/* Those that wait for this content have another look. */
static void wake_same(vid *v, const struct digest *content)
{
    LIST_EACH(it, &v->jobs)
    {
        struct vid_job *j = CONTAINER_OF(it, struct vid_job, link);
        if (j->state == VID_SAME && digest_eq(&j->saved.content, content))
            vid_enter_lookup(j);
    }
}

static void enter_queue(struct vid_job *j)
{
    j->state = VID_QUEUED;
    j->patience_us = 0;
    vid_start_decoders(j->v);
}

static void on_looked_up(struct vid_job *j, int err, const Nunchi__CacheReply *reply,
                         const slice *frames, size_t n_frames)
{
    const Nunchi__BlobValues *v =
        err >= 0 && reply->op_case == NUNCHI__CACHE_REPLY__OP_VALUES ? reply->values : NULL;
    if (err >= 0 && v && v->degraded && (v->n_frame == 0 || v->frame[0] == 0))
        err = ERR_UNAVAILABLE; /* not there, or not to be reached: the store will know */
    if (err < 0) {
        struct why w;
        if (try_again(j, err, look_up))
            return;
        why_set(&w, ERR_UNAVAILABLE, "file", "the store of files is not there");
        vid_finish(j, ERR_UNAVAILABLE, &w);
        return;
    }
    bool hit = v && v->n_frame == 1 && v->frame[0] >= 1 && v->frame[0] <= n_frames;
    if (!hit || notes_peek(frames[v->frame[0] - 1], &j->duration_ms, &j->n_scenes) < 0) {
        enter_queue(j); /* new, or damaged: then it is made again */
        return;
    }
    j->seen_before = true;
    vid_finish(j, 0, NULL);
}

/* ---- decoding ---- */

static void on_decode_deadline(void *ctx)
{
    struct vid_job *j = ctx;
    j->said.err =
        why_set(&j->said.why, ERR_TIMEOUT, "file", "reading the video took longer than is allowed");
    j->v->out.kill(j->v->out.ctx, j->id);
}

static void start_decoder(struct vid_job *j)
{
    j->state = VID_DECODING;
    j->phase = NUNCHI__INGESTING__PHASE__PROBING;
    notes_free(j->notes);
    j->notes = notes_new();
    j->tries++;
    j->decoder = true;
    j->v->n_decoders++;
    set_alarm(j, on_decode_deadline, ((uint64_t)j->v->cfg.decode_ms + DECODE_GRACE_MS) * 1000);
    j->v->out.decode(j->v->out.ctx, j->id, &j->saved);
    vid_say_progress(j);
}

void vid_start_decoders(vid *v)
{
    LIST_EACH(it, &v->jobs)
    {
        if (v->n_decoders >= v->cfg.jobs)
            return;
        struct vid_job *j = CONTAINER_OF(it, struct vid_job, link);
        if (j->state == VID_QUEUED)
            start_decoder(j);
    }
}

void vid_record(vid *v, uint64_t now_us, uint64_t job, const struct record *r)
{
    v->now_us = now_us;
    struct vid_job *j = map_get_u64(v->by_id, job);
    if (!j || j->state != VID_DECODING)
        return;
    if (r->type == REC_FAIL) {
        int e = err_from_wire(r->fail.code);
        j->said.err = why_set(&j->said.why, e < 0 ? e : ERR_UNREADABLE, "file", "%.*s",
                              (int)r->fail.text.n, r->fail.text.p);
    } else if (r->type == REC_PROGRESS) {
        j->phase = (Nunchi__Ingesting__Phase)r->progress.phase;
        j->permille = r->progress.permille;
        vid_say_progress(j);
    } else {
        notes_record(j->notes, r);
    }
}

void vid_decoder_end(vid *v, uint64_t now_us, uint64_t job, int err, const struct why *w)
{
    v->now_us = now_us;
    struct vid_job *j = map_get_u64(v->by_id, job);
    if (!j || !j->decoder)
        return;
    j->decoder = false;
    v->n_decoders--;
    timers_cancel(&v->timers, &j->alarm);
    if (j->state != VID_DECODING)
        vid_remove(j); /* given up in the meantime */
    else if (j->said.err < 0)
        vid_finish(j, j->said.err, &j->said.why);
    else if (err == ERR_NOMEM && j->tries < DECODE_TRIES)
        j->state = VID_QUEUED; /* killed by somebody else: the next time may go better */
    else if (err < 0)
        vid_finish(j, err, w);
    else
        vid_enter_storing(j);
    vid_start_decoders(v);
}

/* ---- storing ---- */

static void put_blob(struct vid_job *j, uint32_t tag, Nunchi__Space space, slice key_bytes,
                     slice value)
{
    Nunchi__BlobKey key = NUNCHI__BLOB_KEY__INIT;
    Nunchi__BlobPut put = NUNCHI__BLOB_PUT__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    key.space = space;
    key.tenant = pb_bytes(bytes_of(j->saved.tenant, VID_TENANT_BYTES));
    key.key = pb_bytes(key_bytes);
    put.key = &key;
    put.owner = pb_bytes(content_of(j));
    q.op_case = NUNCHI__CACHE_REQUEST__OP_PUT;
    q.put = &put;
    j->puts[tag] = PUT_OPEN;
    j->n_open++;
    call(j, VID_CALL_PUT, tag, content_of(j), &q, value);
}

static void put_picture(struct vid_job *j, uint32_t tag)
{
    const struct notes_picture *p = notes_picture_at(j->notes, tag / 2);
    slice key = bytes_of(p->digest.b, DIGEST_BYTES);
    if (!(tag & THUMB_TAG))
        put_blob(j, tag, NUNCHI__SPACE__FRAME, key, buf_slice(&p->jpeg));
    else if (p->thumb.n > 0)
        put_blob(j, tag, NUNCHI__SPACE__THUMB, key, buf_slice(&p->thumb));
    else {
        j->puts[tag] = PUT_DONE;
        j->n_done++;
    }
}

/* The notes go last: whoever finds them finds what they speak of. */
static void store_more(void *ctx)
{
    struct vid_job *j = ctx;
    uint32_t last = (uint32_t)j->n_puts - 1;
    for (uint32_t i = 0; i < last && j->n_open < VID_PUTS_OPEN; i++)
        if (j->puts[i] == PUT_TODO)
            put_picture(j, i);
    if (j->n_done == last && j->puts[last] == PUT_TODO)
        put_blob(j, last, NUNCHI__SPACE__NOTES, content_of(j), buf_slice(&j->packed));
}

void vid_enter_storing(struct vid_job *j)
{
    uint8_t salt[NOTES_SALT_BYTES];
    j->state = VID_STORING;
    j->phase = NUNCHI__INGESTING__PHASE__STORING;
    j->permille = 0;
    j->patience_us = 0;
    j->duration_ms = notes_duration_ms(j->notes);
    j->n_scenes = (uint32_t)notes_n_scenes(j->notes);
    j->v->out.random(j->v->out.ctx, salt, sizeof salt);
    notes_pack(j->notes, &j->saved.content, bytes_of(salt, sizeof salt), j->saved.size, &j->packed);
    j->n_puts = 2 * notes_n_pictures(j->notes) + 1;
    j->puts = xcalloc(j->n_puts, sizeof *j->puts);
    vid_say_progress(j);
    store_more(j);
}

static void on_stored(struct vid_job *j, uint32_t tag, int err)
{
    if (tag >= j->n_puts || j->puts[tag] != PUT_OPEN)
        return;
    j->n_open--;
    if (err >= 0) {
        j->puts[tag] = PUT_DONE;
        j->n_done++;
        j->patience_us = 0;
        if (j->n_done == j->n_puts)
            vid_finish(j, 0, NULL);
        else
            store_more(j);
        return;
    }
    j->puts[tag] = PUT_TODO;
    if (try_again(j, err, store_more))
        return;
    struct why w;
    int e = err == ERR_TOO_BIG ? ERR_TOO_BIG : ERR_UNAVAILABLE;
    why_set(&w, e, "file", "%s",
            e == ERR_TOO_BIG ? "what was read of the video does not fit into the store"
                             : "the store of files is not there");
    vid_finish(j, e, &w);
}

/* ---- the end ---- */

static void tell_record(void *ctx)
{
    struct vid_job *j = ctx;
    Nunchi__FileProgress p;
    nunchi__file_progress__init(&p);
    p.status =
        j->err < 0 ? NUNCHI__FILE_RECORD__STATUS__ERROR : NUNCHI__FILE_RECORD__STATUS__PROCESSED;
    p.permille = j->err < 0 ? j->permille : 1000;
    p.phase = text_of(j->err < 0 ? phase_name(j) : "done");
    if (j->err < 0) {
        p.error = pb_bytes(slice_str(j->why.text));
        p.error_code = err_to_wire(j->err);
    }
    send_record(j, VID_CALL_TELL, &p);
}

static void answer(struct vid_job *j)
{
    if (!j->asked)
        return;
    j->asked = false;
    const struct vid_out *o = &j->v->out;
    if (j->err < 0) {
        o->error(o->ctx, j->gateway, j->request, j->attempt, j->err, &j->why, 0);
        return;
    }
    Nunchi__Ingested m = NUNCHI__INGESTED__INIT;
    m.content = pb_bytes(content_of(j));
    m.seen_before = j->seen_before;
    m.duration_ms = j->duration_ms;
    m.n_scenes = j->n_scenes;
    o->send(o->ctx, j->gateway, j->request, j->attempt, WIRE_DONE, &m.base);
}

static void told(struct vid_job *j)
{
    answer(j);
    vid_remove(j);
}

void vid_finish(struct vid_job *j, int err, const struct why *w)
{
    vid *v = j->v;
    j->err = err;
    if (w)
        j->why = *w;
    v->n_finished += err >= 0;
    v->n_failed += err < 0;
    v->n_seen += j->seen_before;
    timers_cancel(&v->timers, &j->alarm);
    timers_cancel(&v->timers, &j->beat);
    j->patience_us = 0;
    struct digest content = j->saved.content;
    j->state = VID_TELLING;
    if (j->saved.file_id[0])
        tell_record(j);
    else
        told(j);
    wake_same(v, &content); /* j may be gone */
}

static void on_told(struct vid_job *j, int err)
{
    if (err < 0 && err != ERR_NOT_FOUND && try_again(j, err, tell_record))
        return;
    told(j);
}

void vid_remove(struct vid_job *j)
{
    j->state = VID_REMOVING;
    j->abandoned = false;
    j->disk_busy = true;
    timers_cancel(&j->v->timers, &j->alarm);
    timers_cancel(&j->v->timers, &j->beat);
    j->v->out.disk(j->v->out.ctx, j->id, VID_DISK_REMOVE, &j->saved, (slice){0});
}

void vid_abandon(struct vid_job *j)
{
    vid *v = j->v;
    bool accepted = j->state >= VID_LOOKUP;
    struct digest content = j->saved.content;
    if (j->state == VID_REMOVING)
        return;
    j->state = VID_REMOVING;
    j->asked = false;
    timers_cancel(&v->timers, &j->alarm);
    timers_cancel(&v->timers, &j->beat);
    if (j->decoder)
        v->out.kill(v->out.ctx, j->id); /* removed when it is gone */
    else if (j->disk_busy)
        j->abandoned = true;
    else
        vid_remove(j);
    if (accepted)
        wake_same(v, &content);
}

void vid_cache_done(vid *v, uint64_t now_us, uint64_t job, enum vid_call c, uint32_t tag, int err,
                    const Nunchi__CacheReply *reply, const slice *frames, size_t n_frames)
{
    v->now_us = now_us;
    struct vid_job *j = map_get_u64(v->by_id, job);
    if (!j)
        return;
    if (c == VID_CALL_LOOKUP && j->state == VID_LOOKUP)
        on_looked_up(j, err, reply, frames, n_frames);
    else if (c == VID_CALL_PUT && j->state == VID_STORING)
        on_stored(j, tag, err);
    else if (c == VID_CALL_TELL && j->state == VID_TELLING)
        on_told(j, err);
    else if (c == VID_CALL_PROGRESS && err == ERR_NOT_FOUND && j->state >= VID_LOOKUP &&
             j->state <= VID_STORING) {
        /* The file was deleted while it was read. */
        struct why w;
        why_set(&w, ERR_NOT_FOUND, "file", "the file was deleted while it was being read");
        j->err = ERR_NOT_FOUND;
        j->why = w;
        answer(j);
        vid_abandon(j);
    }
}
