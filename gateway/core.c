#include "gateway/core_impl.h"

#include "common/base/hash.h"

#include <stdio.h>

#define STEP_ARENA_BYTES                                                                           \
    (64u << 20) /* one step's tokens of all requests; the wire bounds the packed form to 4 MiB */

gw *gw_new(const struct gw_config *cfg, const struct gw_out *out)
{
    gw *g = xcalloc(1, sizeof *g);
    g->cfg = *cfg;
    g->out = *out;
    g->calls = calls_new();
    g->route = route_new((enum route_policy)cfg->route);
    g->suspects = suspects_new();
    g->jobs = map_new();
    g->runs = map_new();
    g->ingests = map_new();
    g->uploads = map_new();
    g->asks = map_new();
    struct admit_limits limits = {.requests_max = cfg->requests_max,
                                  .queue_max = cfg->queue_max,
                                  .tenant_max = cfg->tenant_max,
                                  .queue_tokens_max = cfg->queue_tokens_max,
                                  .tenant_tokens_max = cfg->tenant_tokens_max};
    g->admit = admit_new(&limits);
    list_init(&g->waiting);
    list_init(&g->orphans);
    return g;
}

void gw_free(gw *g)
{
    if (!g)
        return;
    void *v;
    for (size_t it = 0; map_next(g->jobs, &it, NULL, &v); it = 0)
        job_free(v, "shutdown");
    for (size_t it = 0; map_next(g->uploads, &it, NULL, &v); it = 0)
        upload_free(v, "shutdown");
    for (size_t it = 0; map_next(g->asks, &it, NULL, &v); it = 0)
        front_call_free(v);
    ask_free_orphans(g);
    calls_free(g->calls);
    route_free(g->route);
    suspects_free(g->suspects);
    admit_free(g->admit);
    timers_clear(&g->timers);
    map *const maps[] = {g->jobs, g->runs, g->ingests, g->uploads, g->asks};
    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        map_free(maps[i]);
    free(g);
}

void core_enter(gw *g, uint64_t now_us)
{
    g->now_us = now_us;
}

/* What has been found to have no free worker during one look at those who wait: nobody else who
 * wants the same need be tried. More kinds than this are all tried. */
#define FULL_KINDS_MAX 8

struct full {
    uint64_t kinds[FULL_KINDS_MAX];
    size_t n;
};

static uint64_t kind_of(const struct job *j)
{
    return hash64(j->r->model.p, j->r->model.n) + (uint64_t)j->stage;
}

static bool known_full(const struct full *f, uint64_t kind)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->kinds[i] == kind)
            return true;
    return false;
}

static void try_or_note(struct job *j, struct full *f)
{
    uint64_t kind = kind_of(j), id = j->id;
    gw *g = j->g;
    bool picky = j->has_numerics; /* may not go to every worker: says nothing about them */
    if (known_full(f, kind))
        return;
    job_try(j); /* it may free itself */
    j = map_get_u64(g->jobs, id);
    if (j && !picky && f->n < FULL_KINDS_MAX && !list_empty(&j->wait_link) && kind_of(j) == kind)
        f->kinds[f->n++] = kind;
}

/* Whoever waits is looked at once after every change, in the order of their turns. */
void core_settle(gw *g)
{
    while (g->dirty) {
        struct full full = {.n = 0};
        g->dirty = false;
        LIST_EACH(it, &g->waiting)
        try_or_note(CONTAINER_OF(it, struct job, wait_link), &full);
    }
}

void gw_leave(gw *g)
{
    g->leaving = true;
}

void gw_drain(gw *g)
{
    g->draining = true;
}

/* ---- peers ---- */

void gw_peer_up(gw *g, uint64_t now_us, uint64_t peer, const Nunchi__Ready *r)
{
    core_enter(g, now_us);
    if (route_up(g->route, peer, r))
        g->dirty = true;
    core_settle(g);
}

void gw_peer_changed(gw *g, uint64_t now_us, uint64_t peer, const Nunchi__Ready *r,
                     const Nunchi__Heartbeat *h)
{
    core_enter(g, now_us);
    struct worker *w = route_find(g->route, peer);
    if (w) {
        uint32_t slots = w->slots;
        bool was_draining = w->draining, was_stuck = w->stuck;
        route_changed(g->route, w, now_us, r, h);
        g->dirty |= w->slots > slots || was_draining != w->draining || was_stuck != w->stuck;
    }
    core_settle(g);
}

void gw_peer_down(gw *g, uint64_t now_us, uint64_t peer, bool died)
{
    core_enter(g, now_us);
    const struct worker *w = route_find(g->route, peer);
    g->loss.died = died && w && !w->draining;
    g->loss.alone = w ? w->alone : 0;
    route_down(g->route, peer); /* first: what is told "lost" must not go there again */
    calls_peer_down(g->calls, peer);
    g->loss.died = false;
    g->loss.alone = 0;
    g->dirty = true;
    core_settle(g);
}

/* It says that it lives, and computes nothing: its requests go elsewhere, and new ones too, until
 * it moves again. */
static void give_up(gw *g, struct worker *w)
{
    w->stuck = true;
    g->counts.stalled_workers++;
    g->loss.stuck = true;
    calls_peer_down(g->calls, w->peer);
    g->loss.stuck = false;
    g->dirty = true;
}

#define STALL_LOOK_US 500000
/* Messages that were under way when a worker counted have arrived by then. */
#define LOST_US 5000000

/* It has not got all that we sent, or we not all that it did: whatever has not been heard of since
 * is placed anew. */
static void take_back(gw *g, struct worker *w)
{
    void *v;
    buf lost = {0};
    for (size_t it = 0; map_next(g->runs, &it, NULL, &v);) {
        struct job *j = v;
        if (j->ask.peer == w->peer && !j->parked && g->now_us - j->heard_us > LOST_US)
            buf_put(&lost, &j->id, sizeof j->id);
    }
    g->counts.taken_back += lost.n / sizeof(uint64_t);
    for (size_t at = 0; at < lost.n; at += sizeof(uint64_t)) {
        uint64_t id;
        memcpy(&id, lost.p + at, sizeof id);
        struct job *j = map_get_u64(g->jobs, id);
        if (j)
            job_take_back(j);
    }
    buf_clear(&lost);
}

static void look_for_stuck(gw *g)
{
    if (g->now_us < g->stall_look_us)
        return;
    g->stall_look_us = g->now_us + STALL_LOOK_US;
    for (struct worker *w = NULL; (w = route_next(g->route, w));)
        if (g->cfg.stall_ms && w->service == SERVICE_MODEL && !w->stuck && w->steps && w->running &&
            w->open && g->now_us - w->moved_us > (uint64_t)g->cfg.stall_ms * 1000)
            give_up(g, w);
    for (struct worker *w = NULL; (w = route_next(g->route, w));)
        if (w->short_us && g->now_us - w->short_us > LOST_US)
            take_back(g, w);
}

uint64_t gw_tick(gw *g, uint64_t now_us)
{
    core_enter(g, now_us);
    calls_tick(g->calls, now_us);
    timers_run(&g->timers, now_us);
    look_for_stuck(g);
    core_settle(g);
    uint64_t a = calls_tick(g->calls, now_us), b = timers_next_us(&g->timers);
    return a < b ? a : b;
}

static void on_step(gw *g, uint64_t peer, const struct wire_msg *m)
{
    arena *a = arena_new(STEP_ARENA_BYTES);
    void *v;
    if (ask_unpack(a, &nunchi__step_tokens__descriptor, m, &v) == 0) {
        const Nunchi__StepTokens *s = v;
        for (size_t i = 0; i < s->n_deltas; i++) {
            struct job *j = map_get_u64(g->runs, s->deltas[i]->request);
            if (j && j->ask.peer == peer && s->deltas[i]->attempt == 0)
                job_delta(j, s->deltas[i]); /* anything else is late, or not ours */
        }
    }
    arena_free(a);
}

static void on_credit(gw *g, uint64_t peer, const struct wire_msg *m)
{
    struct ingest *in = map_get_u64(g->ingests, m->head.request);
    if (!in || in->ask.peer != peer)
        return;
    arena *a = arena_new(4096);
    void *v;
    if (pb_unpack(a, &nunchi__credit__descriptor, m->body, WIRE_CONTROL_MAX, &v, NULL) == 0) {
        uint64_t more = ((const Nunchi__Credit *)v)->amount;
        in->credit = more > UINT64_MAX - in->credit ? UINT64_MAX : in->credit + more;
        timers_set(&g->timers, &in->again, g->now_us);
    }
    arena_free(a);
}

void gw_peer_msg(gw *g, uint64_t now_us, uint64_t peer, const struct wire_msg *m)
{
    core_enter(g, now_us);
    if (m->head.type == WIRE_CHUNK && (m->head.flags & WIRE_MANY))
        on_step(g, peer, m);
    else if (m->head.type == WIRE_CREDIT)
        on_credit(g, peer, m);
    else
        calls_msg(g->calls, now_us, peer, m); /* false: late; dropped */
    timers_run(&g->timers, now_us);
    core_settle(g);
}

/* ---- what there is ---- */

struct search {
    gw *g;
    bool found;
};

static void can_be_asked(void *ctx, const Nunchi__ModelInfo *m)
{
    struct search *s = ctx;
    slice name = slice_str(m->name);
    gw *g = s->g;
    s->found |= route_answers(g->route, g->now_us, name, g->n_waiting < g->cfg.queue_max);
}

/* A question sent now would be answered: some model has a tokenizer, and a worker of the same
 * weights with a free slot, or one that works and a line with room. */
static bool can_answer(gw *g)
{
    struct search s = {.g = g};
    if (map_len(g->jobs) < g->cfg.requests_max)
        route_models(g->route, can_be_asked, &s);
    return s.found;
}

void gw_state(gw *g, struct gw_state *s)
{
    *s = (struct gw_state){.requests = map_len(g->jobs),
                           .queued = g->n_waiting,
                           .running = map_len(g->runs),
                           .queued_tokens = admit_waiting_tokens(g->admit),
                           .uploads = map_len(g->uploads),
                           .ready = !g->leaving && !g->draining && can_answer(g),
                           .draining = g->leaving || g->draining};
    for (struct worker *w = NULL; (w = route_next(g->route, w));)
        s->workers[w->service] += !w->draining;
}

void gw_models(gw *g, void (*fn)(void *ctx, const Nunchi__ModelInfo *m), void *ctx)
{
    route_models(g->route, fn, ctx);
}

const struct gw_counts *gw_counts(const gw *g)
{
    return &g->counts;
}

struct route_counts gw_route_counts(const gw *g)
{
    return route_counts(g->route);
}

int gw_failed(struct gw_fail *f, int err, const char *code, const char *field, const char *fmt, ...)
{
    *f = (struct gw_fail){.err = err, .code = code};
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->why.text, sizeof f->why.text, fmt, args);
    va_end(args);
    snprintf(f->why.field, sizeof f->why.field, "%s", field);
    if (err_retryable(err))
        f->retry_after_ms = 1000;
    return err;
}
