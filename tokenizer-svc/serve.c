#include "tokenizer-svc/serve.h"

#include <pthread.h>

#include "common/base/list.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/metrics.h"
#include "common/base/thread.h"
#include "common/wire/links.h"
#include "common/wire/pb.h"
#include "common/wire/traced.h"
#include "common/wire/wire_metrics.h"

struct serve {
    loop *l;
    const core *core;
    const struct tok_model *model;
    struct serve_config cfg;
    const bus *bus;
    links *links;
    workq *q;
    struct list jobs; /* running or waiting for a thread */
    size_t n_jobs;
    uint64_t bytes; /* of their messages */
    bool draining;
    struct loop_timer drain_timer;
    /* Scratches that no thread uses now; a thread takes one for a job. */
    pthread_mutex_t lock;
    tok_scratch *idle[SERVE_THREADS_MAX];
    size_t n_idle;
    metric *m_done, *m_failed, *m_refused, *m_running, *m_bytes, *m_seconds;
};

/* One request. The loop's thread owns it before and after `work`; during it the worker does. */
struct job {
    struct list link;
    serve *s;
    uint64_t from; /* link_id: an answer goes nowhere else */
    bool cancelled;
    struct wire_msg msg; /* its slices point into bytes */
    buf bytes;
    uint64_t began_us;
    int err;
    struct why why;
    struct core_answer answer;
};

/* ---- on a worker's thread ---- */

static tok_scratch *take_scratch(serve *s)
{
    pthread_mutex_lock(&s->lock);
    tok_scratch *t = s->n_idle > 0 ? s->idle[--s->n_idle] : NULL;
    pthread_mutex_unlock(&s->lock);
    return t ? t : tok_scratch_new(core_tokenizer(s->core));
}

static void give_scratch(serve *s, tok_scratch *t)
{
    pthread_mutex_lock(&s->lock);
    bool kept = s->n_idle < ARRAY_LEN(s->idle);
    if (kept)
        s->idle[s->n_idle++] = t;
    pthread_mutex_unlock(&s->lock);
    if (!kept)
        tok_scratch_free(t);
}

static void work(void *ctx)
{
    struct job *j = ctx;
    tok_scratch *t = take_scratch(j->s);
    j->err = core_answer_to(j->s->core, t, &j->msg, (int64_t)(clock_unix_ms() / 1000), &j->answer,
                            &j->why);
    give_scratch(j->s, t);
}

/* ---- answers ---- */

static void send_msg(peer_link *k, const struct wire_msg *m)
{
    int e = link_post(k, m);
    if (e < 0) /* the asker's own deadline ends the request */
        log_warn("an answer could not be sent", LOG_STR("error", err_name(e)),
                 LOG_STR("type", wire_type_name(m->head.type)));
}

static struct wire_head answer_head(const struct wire_head *to, enum wire_type type)
{
    struct wire_head h = *to;
    h.type = (uint8_t)type;
    h.flags = 0;
    h.sequence = 0;
    return h;
}

static void send_error(peer_link *k, const struct wire_head *to, int err, const struct why *why)
{
    char param[WHY_FIELD_MAX];
    Nunchi__Error e;
    buf body = {0};
    nunchi__error__init(&e);
    memcpy(param, why->field, sizeof param);
    e.code = err_to_wire(err);
    e.message = pb_bytes(slice_str(why->text[0] ? why->text : err_text(err)));
    e.param = param;
    pb_pack(&e.base, &body);
    struct wire_msg m = {.head = answer_head(to, WIRE_ERROR), .body = buf_slice(&body)};
    send_msg(k, &m);
    buf_clear(&body);
}

static void send_done(peer_link *k, const struct job *j)
{
    struct wire_msg m = {.head = answer_head(&j->msg.head, WIRE_DONE),
                         .body = buf_slice(&j->answer.body)};
    m.n_frames = j->answer.n_frames;
    for (size_t i = 0; i < m.n_frames; i++)
        m.frames[i] = buf_slice(&j->answer.frames[i]);
    send_msg(k, &m);
}

static void stop_if_drained(serve *s)
{
    if (s->draining && s->n_jobs == 0)
        loop_stop(s->l, 0);
}

static void end_job(struct job *j)
{
    serve *s = j->s;
    list_remove(&j->link);
    s->n_jobs--;
    s->bytes -= j->bytes.n;
    core_answer_clear(&j->answer);
    buf_clear(&j->bytes);
    free(j);
    stop_if_drained(s);
}

static void record(const struct job *j)
{
    const struct wire_head *h = &j->msg.head;
    struct trace_at at = traced_at(h);
    struct trace_span *s = trace_new(&at, h->request, "tokenize", TRACE_SERVER, j->began_us);
    if (s)
        s->err = j->err;
    trace_int(s, "nunchi.request_bytes", (int64_t)j->bytes.n);
    trace_end(s, loop_now_us(j->s->l));
}

static void done(void *ctx)
{
    struct job *j = ctx;
    peer_link *k = j->s->links && !j->cancelled ? links_find(j->s->links, j->from) : NULL;
    if (j->err == ERR_INTERNAL)
        log_error("a request failed", LOG_STR("why", j->why.text));
    metric_inc(j->err == 0 ? j->s->m_done : j->s->m_failed);
    metric_observe(j->s->m_seconds, (double)(loop_now_us(j->s->l) - j->began_us) / 1e6);
    record(j);
    if (k && j->err == 0)
        send_done(k, j);
    else if (k)
        send_error(k, &j->msg.head, j->err, &j->why);
    end_job(j);
}

/* ---- requests ---- */

static size_t msg_bytes(const struct wire_msg *m)
{
    size_t n = m->body.n;
    for (size_t i = 0; i < m->n_frames; i++)
        n += m->frames[i].n; /* bounded by WIRE_MESSAGE_MAX */
    return n;
}

/* The message outlives the callback: its parts are copied behind one another. */
static int copy_msg(struct job *j, const struct wire_msg *m)
{
    if (buf_try_reserve(&j->bytes, msg_bytes(m) + 1) < 0)
        return ERR_NOMEM;
    j->msg.head = m->head;
    j->msg.n_frames = m->n_frames;
    j->msg.body = (slice){j->bytes.p, m->body.n};
    buf_put_slice(&j->bytes, m->body);
    for (size_t i = 0; i < m->n_frames; i++) {
        j->msg.frames[i] = (slice){j->bytes.p + j->bytes.n, m->frames[i].n};
        buf_put_slice(&j->bytes, m->frames[i]);
    }
    return 0;
}

static size_t jobs_of(serve *s, uint64_t from)
{
    size_t n = 0;
    LIST_EACH(it, &s->jobs)
    n += CONTAINER_OF(it, struct job, link)->from == from;
    return n;
}

static int admit(serve *s, peer_link *k, const struct wire_msg *m, struct why *w)
{
    if (s->draining)
        return why_set(w, ERR_UNAVAILABLE, "", "this tokenizer is shutting down");
    if (jobs_of(s, link_id(k)) >= s->cfg.slots)
        return why_set(w, ERR_BUSY, "", "more than %u requests at once", s->cfg.slots);
    if (msg_bytes(m) > s->cfg.waiting_bytes - s->bytes)
        return why_set(w, ERR_BUSY, "", "too many bytes of requests are waiting");
    struct job *j = try_calloc(1, sizeof *j);
    if (!j || copy_msg(j, m) < 0) {
        free(j);
        return why_set(w, ERR_NOMEM, "", "no memory for the request");
    }
    j->s = s;
    j->began_us = loop_now_us(s->l);
    j->from = link_id(k);
    list_append(&s->jobs, &j->link);
    s->n_jobs++;
    s->bytes += j->bytes.n;
    int e = workq_add(s->q, SIZE_MAX, work, done, j); /* slots bound the queue */
    if (e < 0) {
        end_job(j);
        return why_set(w, e, "", "too many requests at once");
    }
    return 0;
}

static void cancel(serve *s, peer_link *k, const struct wire_head *h)
{
    LIST_EACH(it, &s->jobs)
    {
        struct job *j = CONTAINER_OF(it, struct job, link);
        if (j->from == link_id(k) && j->msg.head.request == h->request &&
            j->msg.head.attempt == h->attempt)
            j->cancelled = true;
    }
}

static void on_msg(void *ctx, peer_link *k, const struct wire_msg *m)
{
    serve *s = ctx;
    struct why w = {0};
    if (m->head.type == WIRE_CANCEL) {
        cancel(s, k, &m->head);
    } else if (m->head.type == WIRE_REQUEST) {
        int e = admit(s, k, m, &w);
        if (e < 0) {
            metric_inc(s->m_refused);
            send_error(k, &m->head, e, &w);
        }
    } /* anything else has no meaning here, and is ignored */
}

static void heartbeat(void *ctx, peer_link *k, Nunchi__Heartbeat *out)
{
    serve *s = ctx;
    (void)k;
    out->slots = s->draining ? 0 : s->cfg.slots;
    out->running = (uint32_t)s->n_jobs;
    out->draining = s->draining;
}

/* ---- life ---- */

static int connect_links(serve *s, bus *b, struct why *w)
{
    union {
        const char *in;
        char *out;
    } name = {.in = s->model->name.p},
      family = {.in = s->model->family.p}; /* packed, not written to */
    static char service[] = "tokenizer";
    Nunchi__ModelInfo info, *models[1] = {&info};
    Nunchi__Ready ready;
    nunchi__model_info__init(&info);
    nunchi__ready__init(&ready);
    info.name = name.out;
    info.family = family.out;
    info.n_context = s->model->n_context;
    info.n_vocab = (uint32_t)vocab_size(s->model->vocab);
    info.weights = pb_bytes((slice){(const char *)s->model->weights.b, DIGEST_BYTES});
    info.chat = core_can_chat(s->core);
    info.created_unix_s = s->model->created_unix_s;
    ready.service = service;
    ready.slots = s->cfg.slots;
    ready.n_models = 1;
    ready.models = models;
    struct links_config cfg = {.targets = s->cfg.gateways,
                               .ready = &ready,
                               .ctx = s,
                               .msg = on_msg,
                               .heartbeat = heartbeat};
    return links_new(b, s->l, &cfg, &s->links, w);
}

static metric *requests(const char *labels)
{
    return metric_counter("nunchi_tokenizer_requests_total", labels, "Requests by how they ended");
}

static void make_metrics(serve *s)
{
    s->m_done = requests("result=\"done\"");
    s->m_failed = requests("result=\"failed\"");
    s->m_refused = requests("result=\"refused\"");
    s->m_running = metric_gauge("nunchi_tokenizer_running", "", "Requests not answered yet");
    s->m_bytes = metric_gauge("nunchi_tokenizer_waiting_bytes", "", "Bytes of those requests");
    s->m_seconds = metric_histogram("nunchi_tokenizer_seconds", "", "From a request to its answer",
                                    METRIC_SECONDS, METRIC_SECONDS_N);
}

int serve_new(loop *l, bus *b, const core *c, const struct tok_model *m,
              const struct serve_config *cfg, serve **out, struct why *w)
{
    serve *s = xcalloc(1, sizeof *s);
    int cpus = thread_cpus();
    s->l = l;
    s->bus = b;
    s->core = c;
    s->model = m;
    s->cfg = *cfg;
    if (s->cfg.threads == 0)
        s->cfg.threads = cpus < SERVE_THREADS_DEFAULT ? cpus : SERVE_THREADS_DEFAULT;
    make_metrics(s);
    list_init(&s->jobs);
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    s->q = workq_new(l, s->cfg.threads, "tokenize");
    int e = connect_links(s, b, w);
    if (e < 0) {
        serve_free(s);
        s = NULL;
    }
    *out = s;
    return e;
}

static void drain_over(void *ctx)
{
    serve *s = ctx;
    log_warn("shutting down with requests unanswered", LOG_U64("requests", s->n_jobs));
    loop_stop(s->l, 0);
}

void serve_drain(serve *s)
{
    s->draining = true;
    links_beat(s->links);
    s->drain_timer = (struct loop_timer){.fn = drain_over, .ctx = s};
    loop_timer_in(s->l, &s->drain_timer, s->cfg.drain_ms * 1000);
    stop_if_drained(s);
}

void serve_collect(void *ctx)
{
    const serve *s = ctx;
    metric_set(s->m_running, (double)s->n_jobs);
    metric_set(s->m_bytes, (double)s->bytes);
    wire_metrics(s->bus);
}

bool serve_ready(void *ctx)
{
    const serve *s = ctx;
    return !s->draining && links_n_up(s->links) > 0;
}

void serve_free(serve *s)
{
    if (!s)
        return;
    loop_timer_cancel(s->l, &s->drain_timer);
    links_free(s->links);
    s->links = NULL;
    workq_free(s->q);
    while (s->n_jobs > 0) /* their done() calls are still to come */
        loop_turn(s->l, 1000);
    for (size_t i = 0; i < s->n_idle; i++)
        tok_scratch_free(s->idle[i]);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
