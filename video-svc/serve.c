#include "video-svc/serve.h"

#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/thread.h"
#include "common/wire/links.h"
#include "common/wire/pb.h"
#include "common/wire/wire_metrics.h"
#include "video-svc/core.h"
#include "video-svc/decoders.h"
#include "video-svc/metrics.h"
#include "video-svc/spool.h"
#include "video-svc/caches.h"

#define DISK_THREADS 2
#define DISK_QUEUE 4096 /* one operation a job at a time: more than there can be jobs */
#define REQUEST_ARENA_BYTES ((size_t)1 << 20)

struct video_serve {
    loop *l;
    const struct video_options *o;
    vid *core;
    spool *spool;
    workq *disk;
    decoders *decoders;
    bus *bus;
    links *gateways;
    caches *caches;
    void *prepare;
    struct loop_timer deadline, drain;
    uint32_t jobs; /* decoders side by side */
    bool draining, dirty;
};

/* ---- to gateways ---- */

static void send_to(video_serve *v, uint64_t gateway, const struct wire_head *h, slice body)
{
    peer_link *k = v->gateways ? links_find(v->gateways, gateway) : NULL;
    struct wire_msg m = {.head = *h, .body = body};
    if (k && link_post(k, &m) < 0)
        log_debug("not sent: the gateway is gone", LOG_STR("endpoint", link_endpoint(k)));
}

static void send_message(video_serve *v, uint64_t gateway, uint64_t request, uint32_t attempt,
                         enum wire_type type, const ProtobufCMessage *m)
{
    buf body = {0};
    pb_pack(m, &body);
    struct wire_head h = {.type = (uint8_t)type, .request = request, .attempt = attempt};
    send_to(v, gateway, &h, buf_slice(&body));
    buf_clear(&body);
}

static void out_send(void *ctx, uint64_t gateway, uint64_t request, uint32_t attempt,
                     enum wire_type type, const ProtobufCMessage *m)
{
    send_message(ctx, gateway, request, attempt, type, m);
}

static void out_error(void *ctx, uint64_t gateway, uint64_t request, uint32_t attempt, int err,
                      const struct why *w, uint32_t retry_ms)
{
    Nunchi__Error m;
    nunchi__error__init(&m);
    union {
        const char *in;
        char *out;
    } field = {.in = w ? w->field : ""};
    m.code = err_to_wire(err);
    m.message = pb_bytes(slice_str(w && w->text[0] ? w->text : err_text(err)));
    m.param = field.out;
    m.retry_after_ms = retry_ms;
    log_info("a file ended with an error", LOG_STR("error", err_name(err)));
    send_message(ctx, gateway, request, attempt, WIRE_ERROR, &m.base);
}

/* ---- the disk ---- */

struct disk_job {
    video_serve *v;
    uint64_t job;
    enum vid_disk_op op;
    struct vid_saved saved;
    slice bytes;
    int err;
};

static void disk_work(void *ctx)
{
    struct disk_job *d = ctx;
    if (d->op == VID_DISK_WRITE)
        d->err = spool_write(d->v->spool, &d->saved, d->bytes);
    else if (d->op == VID_DISK_SEAL)
        d->err = spool_seal(d->v->spool, &d->saved);
    else
        spool_remove(d->v->spool, &d->saved);
}

static void disk_done(void *ctx)
{
    struct disk_job *d = ctx;
    video_serve *v = d->v;
    if (v->core) {
        vid_disk_done(v->core, clock_mono_us(), d->job, d->err);
        v->dirty = true;
    }
    free(d);
}

static void out_disk(void *ctx, uint64_t job, enum vid_disk_op op, const struct vid_saved *s,
                     slice bytes)
{
    video_serve *v = ctx;
    struct disk_job *d = xcalloc(1, sizeof *d);
    *d = (struct disk_job){.v = v, .job = job, .op = op, .saved = *s, .bytes = bytes};
    if (workq_add(v->disk, DISK_QUEUE, disk_work, disk_done, d) < 0) {
        d->err = ERR_IO;
        loop_post(v->l, disk_done, d);
    }
}

/* ---- store and decoders ---- */

static void out_cache(void *ctx, uint64_t job, enum vid_call call, uint32_t tag, slice key,
                      const Nunchi__CacheRequest *q, slice bulk)
{
    video_serve *v = ctx;
    caches_call(v->caches, job, call, tag, key, q, bulk);
}

static void on_stored(void *ctx, uint64_t job, uint32_t call, uint32_t tag, int err,
                      const Nunchi__CacheReply *reply, const slice *frames, size_t n_frames)
{
    video_serve *v = ctx;
    vid_cache_done(v->core, clock_mono_us(), job, (enum vid_call)call, tag, err, reply, frames,
                   n_frames);
    v->dirty = true;
}

static void out_decode(void *ctx, uint64_t job, const struct vid_saved *s)
{
    video_serve *v = ctx;
    decoders_start(v->decoders, job, s, spool_read_fd(v->spool, s));
}

static void out_kill(void *ctx, uint64_t job)
{
    decoders_kill(((video_serve *)ctx)->decoders, job);
}

static void out_random(void *ctx UNUSED, void *p, size_t n)
{
    random_bytes(p, n);
}

static void on_record(void *ctx, uint64_t job, const struct record *r)
{
    video_serve *v = ctx;
    vid_record(v->core, clock_mono_us(), job, r);
    v->dirty = true;
}

static void on_decoder_end(void *ctx, uint64_t job, int err, const struct why *w)
{
    video_serve *v = ctx;
    vid_decoder_end(v->core, clock_mono_us(), job, err, w);
    v->dirty = true;
}

/* ---- from gateways ---- */

static void on_request(video_serve *v, peer_link *k, const struct wire_msg *m)
{
    struct why w = {0};
    void *q;
    arena *a = arena_new(REQUEST_ARENA_BYTES);
    int e = pb_unpack(a, &nunchi__ingest__descriptor, m->body, WIRE_CONTROL_MAX, &q, &w);
    if (e < 0)
        out_error(v, link_id(k), m->head.request, m->head.attempt, e, &w, 0);
    else if (m->head.request != 0)
        vid_request(v->core, clock_mono_us(), link_id(k), &m->head, q);
    arena_free(a);
}

static void on_msg(void *ctx, peer_link *k, const struct wire_msg *m)
{
    video_serve *v = ctx;
    switch (m->head.type) {
    case WIRE_REQUEST:
        on_request(v, k, m);
        break;
    case WIRE_CHUNK:
        vid_chunk(v->core, clock_mono_us(), link_id(k), &m->head,
                  m->n_frames ? m->frames[0] : (slice){0});
        break;
    case WIRE_CANCEL:
        vid_cancel(v->core, clock_mono_us(), link_id(k), m->head.request);
        break;
    default:
        return;
    }
    v->dirty = true;
}

static void on_up(void *ctx, peer_link *k UNUSED)
{
    video_serve *v = ctx;
    links_beat(v->gateways);
}

static void on_down(void *ctx, peer_link *k, const char *reason UNUSED)
{
    video_serve *v = ctx;
    vid_gateway_gone(v->core, clock_mono_us(), link_id(k));
    v->dirty = true;
}

static uint32_t slots(const video_serve *v)
{
    return v->draining ? 0 : v->jobs + (uint32_t)v->o->queue;
}

static void on_heartbeat(void *ctx, peer_link *k UNUSED, Nunchi__Heartbeat *out)
{
    const video_serve *v = ctx;
    struct vid_load load = vid_load_now(v->core);
    out->slots = slots(v);
    out->running = load.running;
    out->queued = load.queued;
    out->draining = v->draining;
}

/* ---- running ---- */

static void on_deadline(void *ctx)
{
    ((video_serve *)ctx)->dirty = true;
}

static bool on_prepare(void *ctx)
{
    video_serve *v = ctx;
    if (!v->dirty)
        return false;
    v->dirty = false;
    uint64_t next = vid_tick(v->core, clock_mono_us());
    if (next == UINT64_MAX)
        loop_timer_cancel(v->l, &v->deadline);
    else
        loop_timer_set(v->l, &v->deadline, next);
    struct vid_load load = vid_load_now(v->core);
    if (v->draining && load.running + load.queued == 0)
        loop_stop(v->l, 0);
    return false;
}

/* ---- start ---- */

static void make_core(video_serve *v)
{
    const struct video_options *o = v->o;
    struct vid_config cfg = {.jobs = v->jobs,
                             .queue = (uint32_t)o->queue,
                             .spool_bytes = (uint64_t)o->spool_bytes,
                             .upload_max = (uint64_t)o->upload_max,
                             .upload_silence_ms = (uint32_t)o->upload_silence_ms,
                             .decode_ms = (uint32_t)o->decode_ms,
                             .store_patience_ms = (uint32_t)o->store_patience_ms};
    struct vid_out out = {v,         out_send,   out_error, out_disk,
                          out_cache, out_decode, out_kill,  out_random};
    v->core = vid_new(&cfg, &out);
}

static int open_links(video_serve *v, struct why *w)
{
    struct bus_config keys = {.secret_key_file = v->o->curve_key_file,
                              .allow_file = v->o->curve_allow_file,
                              .server_key = v->o->curve_server_key,
                              .insecure_network = v->o->insecure_network};
    int e = bus_new(v->l, &keys, &v->bus, w);
    if (e < 0)
        return e;
    static char service[] = "video";
    Nunchi__Ready ready;
    nunchi__ready__init(&ready);
    ready.service = service;
    e = caches_open(v->bus, v->l, v->o->caches, &ready, on_stored, v, &v->caches, w);
    if (e < 0)
        return e;
    ready.slots = slots(v);
    struct links_config cfg = {.targets = v->o->gateways,
                               .ready = &ready,
                               .ctx = v,
                               .up = on_up,
                               .down = on_down,
                               .msg = on_msg,
                               .heartbeat = on_heartbeat};
    return links_new(v->bus, v->l, &cfg, &v->gateways, w);
}

static void resume(video_serve *v)
{
    struct vid_saved *found;
    size_t n = spool_found(v->spool, &found);
    for (size_t i = 0; i < n; i++)
        vid_resume(v->core, clock_mono_us(), &found[i]);
    free(found);
    if (n)
        log_info("files accepted before are taken up again", LOG_U64("files", n));
}

static void fail(video_serve *v, const char *msg, int err, const struct why *w)
{
    log_error(msg, LOG_STR("error", err_name(err)), LOG_STR("field", w->field),
              LOG_STR("why", w->text));
    loop_stop(v->l, 1);
}

static void log_layers(uint32_t active, uint32_t wanted)
{
    buf on = {0}, off = {0};
    static const char *const NAMES[] = {
#define X(name, text) text,
        SANDBOX_LAYERS(X)
#undef X
    };
    for (size_t i = 0; i < SANDBOX_N_LAYERS; i++)
        if (wanted & 1u << i)
            buf_printf(active & 1u << i ? &on : &off, "%s ", NAMES[i]);
    if (wanted & ~active)
        log_warn("THE SANDBOX IS NOT WHOLE: strangers' files are read with fewer walls than there "
                 "should be",
                 LOG_STR("missing", buf_cstr(&off)), LOG_STR("active", buf_cstr(&on)));
    else
        log_info("sandbox of the decoders", LOG_STR("active", buf_cstr(&on)));
    buf_clear(&on);
    buf_clear(&off);
}

static void on_tried(void *ctx, int err, const struct why *w, uint32_t active, uint32_t wanted,
                     slice remark)
{
    video_serve *v = ctx;
    struct why why = {0};
    log_layers(active, wanted);
    if (err < 0) {
        fail(v, "the decoder cannot be used", err, w);
        return;
    }
    if (remark.n)
        log_warn("text on the screen will not be read", LOG_SLICE("why", remark));
    if (v->draining)
        return;
    err = open_links(v, &why);
    if (err < 0) {
        fail(v, "cannot reach the cluster", err, &why);
        return;
    }
    resume(v);
    v->dirty = true;
    v->prepare = loop_prepare_add(v->l, on_prepare, v);
    log_info("ready", LOG_U64("jobs", v->jobs), LOG_I64("queue", v->o->queue),
             LOG_I64("spool_bytes", v->o->spool_bytes));
}

static void start(void *ctx)
{
    video_serve *v = ctx;
    struct why w = {0};
    int e = spool_open(v->o->spool_dir, &v->spool, &w);
    if (e < 0) {
        fail(v, "no place for uploads", e, &w);
        return;
    }
    decoders_try(v->decoders);
}

static void on_drain_over(void *ctx)
{
    video_serve *v = ctx;
    struct vid_load load = vid_load_now(v->core);
    log_warn("drained as long as allowed; files are left for the next start",
             LOG_U64("files", load.running + load.queued));
    loop_stop(v->l, 0);
}

video_serve *video_serve_new(loop *l, const struct video_options *o)
{
    video_serve *v = xcalloc(1, sizeof *v);
    v->l = l;
    v->o = o;
    v->jobs = o->jobs ? (uint32_t)o->jobs : (uint32_t)(thread_cpus() + 1) / 2;
    v->deadline = (struct loop_timer){.fn = on_deadline, .ctx = v};
    v->drain = (struct loop_timer){.fn = on_drain_over, .ctx = v};
    struct decoders_events ev = {v, on_record, on_decoder_end, on_tried};
    v->decoders = decoders_new(l, o, &ev);
    v->disk = workq_new(l, DISK_THREADS, "disk");
    make_core(v);
    loop_post(l, start, v);
    return v;
}

void video_serve_drain(video_serve *v)
{
    if (v->draining)
        return;
    v->draining = true;
    vid_drain(v->core);
    struct vid_load load = vid_load_now(v->core);
    log_info("draining", LOG_U64("open", load.running + load.queued));
    if (!v->gateways) {
        loop_stop(v->l, 0);
        return;
    }
    links_beat(v->gateways);
    loop_timer_in(v->l, &v->drain, (uint64_t)v->o->drain_ms * 1000);
    v->dirty = true;
}

void video_serve_collect(void *serve)
{
    const video_serve *v = serve;
    struct vid_load load = vid_load_now(v->core);
    video_metrics(&load);
    wire_metrics(v->bus);
}

bool video_serve_ready(void *serve)
{
    const video_serve *v = serve;
    return !v->draining && v->gateways && links_n_up(v->gateways) > 0;
}

void video_serve_free(video_serve *v)
{
    if (!v)
        return;
    if (v->prepare)
        loop_prepare_del(v->l, v->prepare);
    loop_timer_cancel(v->l, &v->deadline);
    loop_timer_cancel(v->l, &v->drain);
    decoders_free(v->decoders);
    if (v->gateways)
        links_free(v->gateways);
    caches_close(v->caches);
    bus_free(v->bus);
    workq_free(v->disk);
    vid *core = v->core;
    v->core = NULL;
    loop_turn(v->l, 0); /* what the threads have done is delivered, to be freed */
    vid_free(core);
    spool_close(v->spool);
    free(v);
}
