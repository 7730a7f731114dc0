#include "model-svc/serve.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/pb.h"
#include "common/wire/wire_metrics.h"
#include "engine/model/name.h"
#include "model-svc/compute.h"
#include "model-svc/identity.h"
#include "model-svc/metrics.h"
#include "model-svc/reply.h"
#include "model-svc/traces.h"
#include "model-svc/transfer.h"
#include "proto/generate.pb-c.h"

struct model_serve {
    loop *l;
    const struct model_options *o;
    bus *b;
    links *ls;
    compute *c;
    pthread_mutex_t
        lock; /* of the scheduler: the loop brings it requests, the compute thread results */
    sched *s;
    struct sched_vocab words;
    struct gen_limits limits;
    buf name;
    uint64_t created_unix_s;
    bool stepping; /* under the lock: the compute thread has a step, or asks for one */
    bool draining, dirty;
    atomic_bool told; /* the loop knows that there is something to send */
    int exit_code;    /* of a drain */
    void *prepare;
    struct loop_timer deadline, drain;
    transfer *moves; /* NULL: there are no caches */
    arena *scratch;
    buf body;
};

/* ---- sending ---- */

static void gateway_gone(void *ctx, uint64_t gateway)
{
    model_serve *v = ctx;
    pthread_mutex_lock(&v->lock);
    sched_gateway_gone(v->s, gateway);
    pthread_mutex_unlock(&v->lock);
}

/* v->body, to a gateway: in order, and without waiting for one that is slow to read. */
static void post(model_serve *v, uint64_t gateway, const struct wire_head *h)
{
    peer_link *k = links_find(v->ls, gateway);
    struct wire_msg m = {.head = *h, .body = buf_slice(&v->body)};
    if (k && link_post(k, &m) < 0)
        log_debug("not sent: the gateway is gone", LOG_STR("endpoint", link_endpoint(k)));
}

static void send_error(model_serve *v, uint64_t gateway, uint64_t request, uint32_t attempt,
                       int err, const struct why *w, uint32_t retry_ms)
{
    reply_error(err, w, retry_ms, v->scratch, &v->body);
    struct wire_head h = {.type = WIRE_ERROR, .request = request, .attempt = attempt};
    post(v, gateway, &h);
}

static void on_deltas(void *ctx, uint64_t gateway, const struct sched_delta *d, size_t n)
{
    model_serve *v = ctx;
    reply_deltas(&v->words, d, n, v->scratch, &v->body);
    struct wire_head h = {.type = WIRE_CHUNK, .flags = WIRE_MANY};
    post(v, gateway, &h);
}

static void on_done(void *ctx, uint64_t gateway, const struct sched_done *d)
{
    model_serve *v = ctx;
    reply_done(d, &compute_info(v->c)->numerics, v->scratch, &v->body);
    struct wire_head h = {.type = WIRE_DONE, .request = d->request, .attempt = d->attempt};
    post(v, gateway, &h);
    model_metrics_done(d);
    traces_request(d);
    log_debug("done", LOG_U64("prompt_tokens", d->prompt_tokens),
              LOG_U64("cached_tokens", d->cached_tokens), LOG_U64("queue_us", d->queue_us),
              LOG_U64("prefill_us", d->prefill_us), LOG_U64("decode_us", d->decode_us),
              LOG_U64("drafted", d->drafted), LOG_U64("accepted", d->accepted));
}

static void on_error(void *ctx, uint64_t gateway, uint64_t request, uint32_t attempt, int err,
                     const struct why *w)
{
    model_metrics_error();
    send_error(ctx, gateway, request, attempt, err, w, 0);
}

/* ---- steps ---- */

static void on_deadline(void *ctx)
{
    model_serve *v = ctx;
    v->dirty = true;
}

/* The loop's turn: deadlines, a first step if none is under way, and what is to be sent. Sending
 * holds up nobody: the next step is being computed, and the lock is free. */
static void pump(model_serve *v)
{
    pthread_mutex_lock(&v->lock);
    uint64_t now = clock_mono_us(), next = sched_tick(v->s, now);
    if (!v->stepping) {
        struct sched_work *work = sched_plan(v->s, now);
        v->stepping = work != NULL;
        if (work)
            compute_submit(v->c, work);
    }
    sched_collect(v->s);
    size_t open = sched_open(v->s);
    pthread_mutex_unlock(&v->lock);
    sched_send(v->s);
    if (v->moves)
        transfer_pump(v->moves);
    if (next == UINT64_MAX)
        loop_timer_cancel(v->l, &v->deadline);
    else
        loop_timer_set(v->l, &v->deadline, next);
    if (v->draining && open == 0)
        loop_stop(v->l, v->exit_code);
}

static void on_told(void *ctx)
{
    model_serve *v = ctx;
    atomic_store(&v->told, false);
    pump(v);
}

/* On the compute thread: the next step is planned where the last one ended. */
static struct sched_work *on_stepped(void *ctx, int err, const struct why *w, uint64_t took_us)
{
    model_serve *v = ctx;
    pthread_mutex_lock(&v->lock);
    uint64_t now = clock_mono_us();
    struct sched_part parts[TRACES_PER_STEP];
    uint32_t rows = 0;
    size_t n = trace_on() ? sched_traced(v->s, parts, ARRAY_LEN(parts), &rows) : 0;
    sched_result(v->s, now, err, w, took_us);
    struct sched_work *work = sched_plan(v->s, now);
    v->stepping = work != NULL;
    pthread_mutex_unlock(&v->lock);
    model_metrics_step(took_us);
    traces_step(parts, n, rows, now, took_us);
    if (!atomic_exchange(&v->told, true))
        loop_post(v->l, on_told, v);
    return work;
}

/* Requests that came in one round of the loop begin in one step. */
static bool on_prepare(void *ctx)
{
    model_serve *v = ctx;
    if (v->dirty) {
        v->dirty = false;
        pump(v);
    }
    return false;
}

/* ---- KV that travels ---- */

static bool next_fetch(void *ctx, struct sched_fetch *out)
{
    model_serve *v = ctx;
    pthread_mutex_lock(&v->lock);
    bool any = sched_fetch_next(v->s, out);
    pthread_mutex_unlock(&v->lock);
    return any;
}

static void on_fetched(void *ctx, uint64_t id, uint32_t n)
{
    model_serve *v = ctx;
    pthread_mutex_lock(&v->lock);
    sched_fetched(v->s, id, n);
    pthread_mutex_unlock(&v->lock);
}

static void on_fetch_end(void *ctx, uint64_t id, uint64_t took_us, uint32_t damaged)
{
    model_serve *v = ctx;
    pthread_mutex_lock(&v->lock);
    sched_fetch_end(v->s, id, took_us, damaged);
    pthread_mutex_unlock(&v->lock);
    v->dirty = true;
}

static bool next_offer(void *ctx, struct sched_offer *out)
{
    model_serve *v = ctx;
    pthread_mutex_lock(&v->lock);
    bool any = sched_offer_next(v->s, out);
    pthread_mutex_unlock(&v->lock);
    return any;
}

static void on_offer_end(void *ctx, const struct sched_offer *o, bool exported)
{
    model_serve *v = ctx;
    pthread_mutex_lock(&v->lock);
    sched_offer_end(v->s, o, exported);
    pthread_mutex_unlock(&v->lock);
}

/* ---- what comes in ---- */

static uint32_t slots_each(const model_serve *v)
{
    if (v->draining)
        return 0;
    size_t n = links_n_up(v->ls);
    uint32_t each = (uint32_t)((size_t)v->o->slots / (n ? n : 1));
    return each ? each : 1;
}

static int take_request(model_serve *v, uint64_t gateway, const struct wire_msg *m, arena *a,
                        uint32_t *retry_ms, struct why *w)
{
    if (v->draining)
        return why_set(w, ERR_UNAVAILABLE, "", "this worker is being stopped");
    struct gen_request r;
    int err = gen_request_parse(m, &v->limits, a, &r, w);
    if (err < 0)
        return err;
    r.gateway = gateway;
    pthread_mutex_lock(&v->lock);
    if (sched_share_of(v->s, gateway).open >= slots_each(v)) {
        *retry_ms = 100;
        err = why_set(w, ERR_BUSY, "", "this gateway has all its %u slots in use here",
                      slots_each(v));
    } else {
        err = sched_take_request(v->s, clock_mono_us(), &r, a, retry_ms, w);
    }
    pthread_mutex_unlock(&v->lock);
    return err;
}

static void on_request(model_serve *v, uint64_t gateway, const struct wire_msg *m)
{
    struct why w = {.text = ""};
    uint32_t retry_ms = 0;
    arena *a = arena_new(gen_request_budget(m, &v->limits));
    int err = take_request(v, gateway, m, a, &retry_ms, &w);
    if (err >= 0)
        return;
    arena_free(a);
    model_metrics_refused();
    log_debug("refused", LOG_STR("error", err_name(err)), LOG_STR("field", w.field),
              LOG_STR("why", w.text));
    /* an ERROR for one that is here twice would end the one that is computed */
    if (err != ERR_EXISTS && m->head.request != 0)
        send_error(v, gateway, m->head.request, m->head.attempt, err, &w, retry_ms);
}

static void on_credit(model_serve *v, uint64_t gateway, const struct wire_msg *m)
{
    void *c;
    arena_reset(v->scratch);
    if (pb_unpack(v->scratch, &nunchi__credit__descriptor, m->body, WIRE_CONTROL_MAX, &c, NULL) < 0)
        return;
    pthread_mutex_lock(&v->lock);
    sched_credit(v->s, gateway, m->head.request, ((const Nunchi__Credit *)c)->amount);
    pthread_mutex_unlock(&v->lock);
}

static void on_cancel(model_serve *v, uint64_t gateway, uint64_t request)
{
    pthread_mutex_lock(&v->lock);
    sched_cancel(v->s, gateway, request);
    pthread_mutex_unlock(&v->lock);
}

static void on_msg(void *ctx, peer_link *k, const struct wire_msg *m)
{
    model_serve *v = ctx;
    switch (m->head.type) {
    case WIRE_REQUEST:
        on_request(v, link_id(k), m);
        break;
    case WIRE_CREDIT:
        on_credit(v, link_id(k), m);
        break;
    case WIRE_CANCEL:
        on_cancel(v, link_id(k), m->head.request);
        break;
    default:
        return;
    }
    v->dirty = true;
}

static void on_up(void *ctx, peer_link *k UNUSED)
{
    model_serve *v = ctx;
    links_beat(v->ls); /* everybody's share of the slots is another now */
}

static void on_down(void *ctx, peer_link *k, const char *reason UNUSED)
{
    model_serve *v = ctx;
    gateway_gone(v, link_id(k));
    v->dirty = true;
}

static void on_heartbeat(void *ctx, peer_link *k, Nunchi__Heartbeat *out)
{
    model_serve *v = ctx;
    pthread_mutex_lock(&v->lock);
    struct sched_load load = sched_load_now(v->s);
    struct sched_share share = sched_share_of(v->s, link_id(k));
    pthread_mutex_unlock(&v->lock);
    out->open = share.open;
    out->parked = share.parked;
    out->open_known = true;
    out->slots = slots_each(v);
    out->running = load.running;
    out->queued = load.queued;
    out->kv_blocks = load.blocks;
    out->kv_blocks_free = load.blocks_free;
    out->prefill_tok_s = load.prefill_tok_s;
    out->decode_tok_s = load.decode_tok_s;
    out->queued_tokens = load.queued_tokens;
    out->steps = load.steps;
    out->fetch_tok_s = load.fetch_tok_s;
    out->draining = v->draining;
}

/* ---- start ---- */

static bool says_chat(const model_serve *v)
{
    if (strcmp(v->o->chat_format, "none") == 0)
        return false;
    return strcmp(v->o->chat_format, "auto") != 0 || vocab_chat_template(compute_vocab(v->c)).n > 0;
}

static bool has_caches(const struct model_options *o)
{
    return o->caches && *o->caches;
}

static int open_links(model_serve *v, struct why *w)
{
    struct bus_config keys = {.secret_key_file = v->o->curve_key_file,
                              .allow_file = v->o->curve_allow_file,
                              .server_key = v->o->curve_server_key,
                              .insecure_network = v->o->insecure_network};
    int err = bus_new(v->l, &keys, &v->b, w);
    if (err < 0)
        return err;
    struct identity id = {.name = buf_cstr(&v->name),
                          .engine = compute_info(v->c),
                          .n_context = v->limits.n_context,
                          .created_unix_s = v->created_unix_s,
                          .chat = says_chat(v),
                          .slots = v->draining ? 0 : (uint32_t)v->o->slots};
    struct links_config cfg = {.targets = v->o->gateways,
                               .ready = identity_ready(&id, v->scratch),
                               .ctx = v,
                               .up = on_up,
                               .down = on_down,
                               .msg = on_msg,
                               .heartbeat = on_heartbeat};
    err = links_new(v->b, v->l, &cfg, &v->ls, w);
    if (err < 0 || !has_caches(v->o))
        return err;
    struct transfer_config tc = {
        .caches = v->o->caches,
        .ready = cfg.ready,
        .e = compute_engine(v->c),
        .ops = {v, next_fetch, on_fetched, on_fetch_end, next_offer, on_offer_end}};
    return transfer_new(v->b, v->l, &tc, &v->moves, w);
}

/* What fits: the model's own context, what was configured, and the KV there is (one block is for a
 * copy). */
static uint32_t context_of(const model_serve *v, const struct engine_info *i)
{
    uint64_t n = i->n_context;
    if (v->o->context > 0 && (uint64_t)v->o->context < n)
        n = (uint64_t)v->o->context;
    uint64_t kv = (uint64_t)(i->n_kv_blocks > 1 ? i->n_kv_blocks - 1 : 1) * ENGINE_BLOCK_TOKENS;
    return (uint32_t)(kv < n ? kv : n);
}

static void make_scheduler(model_serve *v)
{
    const struct engine_info *i = compute_info(v->c);
    v->words = compute_words(v->c);
    struct sched_config cfg = {.n_blocks = i->n_kv_blocks,
                               .n_context = context_of(v, i),
                               .seqs_max = (uint32_t)v->o->batch,
                               .step_tokens = (uint32_t)v->o->step_tokens,
                               .queue_max = (uint32_t)v->o->queue_max,
                               .draft_max = (uint32_t)v->o->draft_max,
                               .fetch = has_caches(v->o),
                               .step_target_us = (uint64_t)v->o->step_ms * 1000,
                               .weights = i->weights};
    struct sched_out out = {v, on_deltas, on_done, on_error};
    v->s = sched_new(&cfg, &v->words, &out);
    v->limits = (struct gen_limits){buf_slice(&v->name), i->n_vocab, cfg.n_context};
    if (cfg.n_context < i->n_context)
        log_info("context is limited", LOG_U64("tokens", cfg.n_context),
                 LOG_U64("model", i->n_context), LOG_U64("kv_blocks", i->n_kv_blocks));
}

static void on_loaded(void *ctx, int err, const struct why *w)
{
    model_serve *v = ctx;
    struct why link_why;
    if (err < 0) {
        log_error("the model cannot be served", LOG_STR("error", err_name(err)),
                  LOG_STR("field", w->field), LOG_STR("why", w->text));
        loop_stop(v->l, 1);
        return;
    }
    if (v->draining)
        return;
    make_scheduler(v);
    if ((err = open_links(v, &link_why)) < 0) {
        log_error("cannot reach the cluster", LOG_STR("error", err_name(err)),
                  LOG_STR("why", link_why.text));
        loop_stop(v->l, 1);
        return;
    }
    v->prepare = loop_prepare_add(v->l, on_prepare, v);
    const struct engine_info *i = compute_info(v->c);
    if (i->in_memory_why[0])
        log_warn("the weights are packed in memory, not shared with other workers",
                 LOG_STR("why", i->in_memory_why));
    log_info("ready", LOG_STR("model", buf_cstr(&v->name)), LOG_STR("family", i->family),
             LOG_STR("backend", i->backend), LOG_STR("isa", i->isa), LOG_I64("threads", i->threads),
             LOG_U64("context", v->limits.n_context), LOG_U64("kv_blocks", i->n_kv_blocks),
             LOG_STR("weights", i->prepared_path ? "mapped" : "in memory"),
             LOG_U64("weights_bytes", i->packed_bytes), LOG_HEX("numerics", i->numerics.b, 8));
}

static void name_model(model_serve *v)
{
    struct stat st;
    if (v->o->model_name && *v->o->model_name)
        buf_put_str(&v->name, v->o->model_name);
    else
        model_default_name(slice_str(v->o->model), &v->name);
    if (stat(v->o->model, &st) == 0)
        v->created_unix_s = (uint64_t)st.st_mtim.tv_sec;
}

static size_t open_requests(model_serve *v)
{
    pthread_mutex_lock(&v->lock);
    size_t n = v->s ? sched_open(v->s) : 0;
    pthread_mutex_unlock(&v->lock);
    return n;
}

static void on_drain_over(void *ctx)
{
    model_serve *v = ctx;
    log_warn("drained as long as allowed; requests are left", LOG_U64("open", open_requests(v)));
    loop_stop(v->l, v->exit_code);
}

/* Whoever starts this worker again gets one that prepares its weights anew. */
static void on_damaged(void *ctx, bool removed)
{
    model_serve *v = ctx;
    log_error(removed ? "the prepared weights are damaged; they were removed and this worker ends"
                      : "the prepared weights are damaged; this worker ends. They cannot be "
                        "removed from here: remove the file by hand",
              LOG_STR("file", compute_info(v->c)->prepared_path));
    v->exit_code = 1;
    model_serve_drain(v);
}

model_serve *model_serve_new(loop *l, const struct model_options *o)
{
    model_metrics_init();
    model_serve *v = xcalloc(1, sizeof *v);
    v->l = l;
    v->o = o;
    pthread_mutex_init(&v->lock, NULL);
    v->scratch = arena_new(0);
    v->deadline = (struct loop_timer){.fn = on_deadline, .ctx = v};
    v->drain = (struct loop_timer){.fn = on_drain_over, .ctx = v};
    name_model(v);
    struct compute_config cfg = {.model = o->model,
                                 .engine = {.backend = o->backend,
                                            .threads = (int)o->threads,
                                            .isa = o->isa && *o->isa ? o->isa : NULL,
                                            .kv_type = o->kv_type,
                                            .kv_blocks = (uint32_t)o->kv_blocks,
                                            .kv_bytes = (uint64_t)o->kv_bytes,
                                            .rows_max = (uint32_t)o->step_tokens}};
    cfg.engine.prepare =
        o->prepare && strcmp(o->prepare, "auto") == 0 ? ENGINE_PREPARE_AUTO : ENGINE_PREPARE_NEVER;
    cfg.check_us = (uint64_t)o->check_ms * 1000;
    struct compute_events ev = {v, on_loaded, on_damaged, on_stepped};
    v->c = compute_start(l, &cfg, &ev);
    return v;
}

void model_serve_drain(model_serve *v)
{
    if (v->draining)
        return;
    v->draining = true;
    log_info("draining", LOG_U64("open", open_requests(v)));
    if (!v->s || !v->ls) {
        loop_stop(v->l, v->exit_code);
        return;
    }
    links_beat(v->ls); /* no slots, draining */
    loop_timer_in(v->l, &v->drain, (uint64_t)v->o->drain_ms * 1000);
    v->dirty = true;
}

void model_serve_collect(void *serve)
{
    model_serve *v = serve;
    wire_metrics(v->b);
    if (!v->s)
        return; /* still loading */
    pthread_mutex_lock(&v->lock);
    struct sched_load load = sched_load_now(v->s);
    pthread_mutex_unlock(&v->lock);
    model_metrics_load(&load);
}

bool model_serve_ready(void *serve)
{
    const model_serve *v = serve;
    return !v->draining && v->ls && links_n_up(v->ls) > 0;
}

void model_serve_free(model_serve *v)
{
    if (!v)
        return;
    transfer_free(v->moves);
    v->moves = NULL;
    compute_stop(v->c);
    if (v->prepare)
        loop_prepare_del(v->l, v->prepare);
    loop_timer_cancel(v->l, &v->deadline);
    loop_timer_cancel(v->l, &v->drain);
    if (v->ls)
        links_free(v->ls);
    if (v->b)
        bus_free(v->b);
    sched_free(v->s);
    pthread_mutex_destroy(&v->lock);
    arena_free(v->scratch);
    buf_clear(&v->name);
    buf_clear(&v->body);
    free(v);
}
