/* An answer under way: placed on a worker, taken delta by delta, moved to another worker when this
 * one is lost. */
#include "gateway/core_impl.h"

#define DONE_ARENA_BYTES (8u << 20)
/* Ids per bulk frame: 1 MiB of them. */
#define FRAME_IDS (WIRE_FRAME_MAX / 4)
#define BUSY_US 100000

/* ---- placing ---- */

static struct route_wish wish_of(const struct job *j, bool same_numerics)
{
    slice numerics = {(const char *)j->numerics, DIGEST_BYTES};
    uint32_t done = 0;
    for (uint32_t i = 0; i < j->r->n; i++)
        done += j->choice[i].n_ids;
    struct route_kind kind = job_kind(j);
    if (same_numerics && j->has_numerics)
        kind.numerics = numerics;
    return (struct route_wish){.kind = kind,
                               .n_tokens = j->n_tokens + done,
                               .max_tokens = j->max_tokens,
                               .hashes = (const uint8_t *)j->hashes.p,
                               .n_blocks = j->hashes.n / DIGEST_BYTES};
}

/* An answer goes on where the arithmetic is the same, so that it is the same answer; only when
 * there is no such worker at all, another one ends it, and it is not kept for others. */
static struct worker *choose(struct job *j)
{
    struct route_kind same = job_kind(j);
    same.numerics = (slice){(const char *)j->numerics, DIGEST_BYTES};
    bool must = j->has_numerics && route_any(j->g->route, SERVICE_MODEL, same);
    struct route_wish q = wish_of(j, must);
    return route_pick_model(j->g->route, j->g->now_us, &q);
}

static void note_numerics(struct job *j, const struct worker *w)
{
    const Nunchi__ModelInfo *m = worker_model(w, j->r->model);
    if (!m || m->numerics.len != DIGEST_BYTES)
        return;
    if (j->has_numerics && memcmp(j->numerics, m->numerics.data, DIGEST_BYTES) != 0) {
        j->cacheable = false;
        j->numerics_changed = j->started;
    }
    memcpy(j->numerics, m->numerics.data, DIGEST_BYTES);
    j->has_numerics = true;
}

static size_t put_segments(struct job *j, arena *a, Nunchi__Generate *q, slice *frames, slice salt)
{
    size_t n = (j->n_tokens + FRAME_IDS - 1) / FRAME_IDS;
    q->segments = arena_get(a, n * sizeof *q->segments);
    for (size_t i = 0; i < n; i++) {
        size_t at = i * FRAME_IDS,
               len = j->n_tokens - at < FRAME_IDS ? j->n_tokens - at : FRAME_IDS;
        Nunchi__Segment *s = arena_get(a, sizeof *s);
        Nunchi__Tokens *t = arena_get(a, sizeof *t);
        nunchi__segment__init(s);
        nunchi__tokens__init(t);
        frames[i] = (slice){j->ids.p + at * 4, len * 4};
        t->frame = (uint32_t)i;
        t->n = (uint32_t)len;
        if (i == 0)
            t->salt = pb_bytes(salt);
        s->kind_case = NUNCHI__SEGMENT__KIND_TOKENS;
        s->tokens = t;
        q->segments[q->n_segments++] = s;
    }
    return n;
}

static void put_sampling(arena *a, const struct gw_sampling *p, Nunchi__Sampling *out)
{
    out->temperature = (float)p->temperature;
    out->top_p = (float)p->top_p;
    out->min_p = (float)p->min_p;
    out->top_k = p->top_k;
    out->presence_penalty = (float)p->presence_penalty;
    out->frequency_penalty = (float)p->frequency_penalty;
    out->repetition_penalty = (float)p->repetition_penalty;
    out->seed = p->seed;
    out->logprobs = p->logprobs;
    out->top_logprobs = p->top_logprobs;
    out->bias = arena_get(a, (p->n_bias ? p->n_bias : 1) * sizeof *out->bias);
    for (size_t i = 0; i < p->n_bias; i++) {
        Nunchi__LogitBias *b = arena_get(a, sizeof *b);
        nunchi__logit_bias__init(b);
        b->id = p->bias[i].id;
        b->add = p->bias[i].add;
        out->bias[out->n_bias++] = b;
    }
}

static void put_choices(struct job *j, arena *a, Nunchi__Generate *q)
{
    q->choices = arena_get(a, j->r->n * sizeof *q->choices);
    for (uint32_t i = 0; i < j->r->n; i++) {
        Nunchi__Choice *c = arena_get(a, sizeof *c);
        nunchi__choice__init(c);
        c->index = i;
        c->ids = j->choice[i].ids;
        c->n_ids = j->choice[i].n_ids;
        q->choices[q->n_choices++] = c;
    }
}

/* Everything that came from a deleted video must become unreachable: its salt enters all blocks of
 * this prompt. */
static slice salt_of(struct job *j, struct digest *room)
{
    if (j->n_videos == 0)
        return (slice){0};
    digest_stream *s = digest_begin((slice){0});
    for (size_t i = 0; i < j->n_videos; i++)
        digest_add(s, j->video[i].salt, sizeof j->video[i].salt);
    *room = digest_end(s);
    return (slice){(const char *)room->b, 16};
}

static uint32_t ms_left(const struct job *j)
{
    uint64_t at = j->deadline.at_us, now = j->g->now_us;
    return at > now ? (uint32_t)((at - now) / 1000 + 1) : 1;
}

/* Whoever runs alone has the worker for itself until it moves. */
static void leave_alone(struct job *j)
{
    struct worker *w = route_find(j->g->route, j->ask.peer);
    if (w && w->alone == j->id) {
        w->alone = 0;
        j->g->dirty = true;
    }
}

static int send_generate(struct job *j, struct worker *w)
{
    arena *a = arena_new(0);
    Nunchi__Generate q;
    Nunchi__Sampling sampling = NUNCHI__SAMPLING__INIT;
    struct digest salt;
    slice frames[WIRE_FRAMES_MAX];
    ProtobufCBinaryData *stop = arena_get(a, (STOPS_MAX) * sizeof *stop);
    nunchi__generate__init(&q);
    q.model = slice_dup(j->r->model);
    q.tenant = pb_bytes((slice){(const char *)j->r->tenant, DIGEST_BYTES});
    q.client = pb_bytes((slice){(const char *)j->r->client, sizeof j->r->client});
    q.deadline_ms = ms_left(j);
    size_t n_frames = put_segments(j, a, &q, frames, salt_of(j, &salt));
    put_sampling(a, &j->r->sampling, &sampling);
    q.sampling = &sampling;
    put_choices(j, a, &q);
    q.max_tokens = j->max_tokens;
    q.echoed = j->n_echoed;
    for (size_t i = 0; i < j->r->n_stop; i++)
        stop[i] = pb_bytes(j->r->stop[i]);
    q.stop = stop;
    q.n_stop = j->r->n_stop;
    q.ignore_eos = j->r->ignore_eos;
    q.no_store = j->r->no_store;
    q.credit = CREDIT_TOKENS;
    q.alone = j->alone;
    int e = ask_send(&j->ask, w, &q.base, frames, n_frames, 0);
    free(q.model);
    arena_free(a);
    return e;
}

static void on_generated(struct ask *ask, int err, const struct wire_msg *m, const struct why *w);

static bool condemned(struct job *j)
{
    gw *g = j->g;
    if (!suspects_any(g->suspects, g->now_us))
        return false;
    struct digest hash = job_hash(j);
    return suspects_condemned(g->suspects, &hash, g->now_us);
}

static void refuse(struct job *j)
{
    struct gw_fail f;
    gw_failed(&f, ERR_INTERNAL, "request_stops_workers", "",
              "workers stop while they compute this request; it is not tried again for a while");
    j->g->counts.condemned++;
    job_fail(j, &f);
}

static void go_on_waiting(struct job *j)
{
    if (job_outdated(j))
        job_retokenise(j);
    else
        job_alone(j, SERVICE_MODEL, "model worker");
}

void job_place(struct job *j)
{
    gw *g = j->g;
    struct worker *w;
    if (condemned(j)) {
        refuse(j);
        return;
    }
    j->ask.done = on_generated;
    j->ask.chunk = NULL;
    struct trace_span *span = job_span(j, STAGE_RUN);
    do { /* one that cannot be sent to is not chosen again soon */
        w = choose(j);
        if (!w) {
            free(span);
            go_on_waiting(j);
            return;
        }
    } while (send_generate(j, w) < 0);
    job_unwait(j);
    admit_placed(g->admit, &j->ticket, g->now_us);
    struct route_wish q = wish_of(j, false);
    route_placed(g->route, w, &q);
    note_numerics(j, w);
    if (j->alone)
        w->alone = j->id;
    j->moved = false;
    j->heard_us = g->now_us;
    trace_text(span, "nunchi.worker", slice_str(w->ready->instance));
    job_enter_with(j, STAGE_RUN, span);
    j->credit = CREDIT_TOKENS;
    j->run = j->ask.request;
    map_put_u64(g->runs, j->run, j);
}

/* ---- losing a worker ---- */

/* Whether its worker waits for credit of ours, and is right to. */
static void set_parked(struct job *j, bool parked)
{
    struct worker *w = route_find(j->g->route, j->ask.peer);
    if (w && parked != j->parked)
        w->parked += parked ? 1 : UINT32_MAX;
    j->parked = parked;
}

void job_leave_worker(struct job *j)
{
    leave_alone(j);
    set_parked(j, false);
    timers_cancel(&j->g->timers, &j->stall);
    map_del_u64(j->g->runs, j->run);
    j->run = 0;
}

/* Back into the line, at its head: who has begun goes on first. */
static void go_on_elsewhere(struct job *j)
{
    unsigned n = j->attempts;
    j->g->counts.retries++;
    job_wait(j, STAGE_PLACE);
    j->attempts = n;
    list_remove(&j->wait_link);
    list_insert_after(&j->g->waiting, &j->wait_link);
}

/* A worker died under it before it brought anything new. Not counted where another request, already
 * suspected, was there. */
static bool kills(struct job *j)
{
    gw *g = j->g;
    if (!g->loss.died || j->moved || (g->loss.alone && g->loss.alone != j->id))
        return false;
    if (j->alone && g->cfg.condemned_ms) {
        struct digest hash = job_hash(j);
        suspects_condemn(g->suspects, &hash, g->now_us + (uint64_t)g->cfg.condemned_ms * 1000);
    }
    if (j->alone)
        return true;
    j->alone = ++j->deaths >= SUSPECT_DEATHS;
    g->counts.suspects += j->alone;
    return false;
}

/* Not the client's, not a lack of room or of time. */
static bool its_own_fault(int err)
{
    return err == ERR_INTERNAL || err == ERR_PROTO || err == ERR_IO || err == ERR_NOMEM;
}

static void lost(struct job *j, int err, const struct why *w)
{
    if (kills(j)) {
        refuse(j);
        return;
    }
    struct worker *worker = route_find(j->g->route, j->ask.peer);
    if (worker && !worker->draining && its_own_fault(err))
        route_failed(j->g->route, worker, j->g->now_us, j->id);
    if (err == ERR_BUSY) { /* it has more than it told us of: not its turn, and not a failure */
        if (worker)
            worker->busy_until_us = j->g->now_us + BUSY_US;
        go_on_elsewhere(j);
    } else if (err_retryable(err) && err != ERR_TIMEOUT && ++j->attempts < ATTEMPTS_MAX) {
        go_on_elsewhere(j);
    } else {
        job_fail_err(j, err, w);
    }
}

/* What this worker says cannot be: whatever it sends from now on is not for us any more. */
static void broken(struct job *j)
{
    struct why w;
    job_leave_worker(j);
    ask_cancel(&j->ask, "protocol");
    why_set(&w, ERR_PROTO, "", "a model worker broke the protocol");
    lost(j, ERR_PROTO, &w);
}

void job_take_back(struct job *j)
{
    struct why w;
    job_leave_worker(j);
    ask_cancel(&j->ask, "lost");
    why_set(&w, ERR_UNAVAILABLE, "", "a message to or from a model worker was lost");
    lost(j, ERR_UNAVAILABLE, &w);
}

/* ---- deltas ---- */

static void tell_start(struct job *j)
{
    if (j->started)
        return;
    j->started = true;
    slice numerics = {(const char *)j->numerics, j->has_numerics ? DIGEST_BYTES : 0};
    j->ops->start(j->client,
                  &(struct gw_start){.numerics = numerics, .first = buf_slice(&j->first)});
}

static void add_ids(struct job_choice *c, const int32_t *ids, size_t n)
{
    if (n == 0)
        return;
    if (c->n_ids + n > c->cap) {
        c->cap = (uint32_t)(2 * (c->n_ids + n) + 64);
        c->ids = xrealloc(c->ids, c->cap, sizeof *c->ids);
    }
    memcpy(c->ids + c->n_ids, ids, n * sizeof *ids);
    c->n_ids += (uint32_t)n;
}

static void hold_logprobs(struct job_choice *c, const Nunchi__Delta *d)
{
    for (size_t i = 0; i < d->n_logprobs; i++) {
        buf one = {0};
        pb_pack(&d->logprobs[i]->base, &one);
        uint32_t len = (uint32_t)one.n;
        buf_put(&c->held, &len, sizeof len);
        if (len)
            buf_put_slice(&c->held, buf_slice(&one));
        buf_clear(&one);
    }
}

/* The last one held is an end token's: it is shown nowhere. */
static void drop_last(buf *held)
{
    size_t last = 0;
    for (size_t at = 0; at < held->n;) {
        uint32_t len;
        last = at;
        memcpy(&len, held->p + at, sizeof len);
        at += sizeof len + len;
    }
    held->n = last;
}

static size_t unpack_held(arena *a, const buf *held, Nunchi__TokenLogprob ***out)
{
    size_t n = 0;
    *out = arena_get(a, (held->n / 4 + 1) * sizeof **out);
    for (size_t at = 0; at < held->n;) {
        uint32_t len;
        void *v;
        memcpy(&len, held->p + at, sizeof len);
        slice one = {held->p + at + sizeof len, len};
        if (pb_unpack(a, &nunchi__token_logprob__descriptor, one, WIRE_BODY_MAX, &v, NULL) == 0)
            (*out)[n++] = v;
        at += sizeof len + len;
    }
    return n;
}

/* Log probabilities go out with the text that they belong to. */
static void emit(struct job *j, uint32_t choice, slice text)
{
    struct job_choice *c = &j->choice[choice];
    arena *a = arena_new(0);
    struct gw_delta d = {.choice = choice, .text = text};
    Nunchi__TokenLogprob **lps = NULL;
    if (c->held.n)
        d.n_logprobs = unpack_held(a, &c->held, &lps);
    d.logprobs = lps;
    job_keep(j, choice, text);
    job_keep_logprobs(j, choice, buf_slice(&c->held));
    buf_reset(&c->held);
    if (text.n || d.n_logprobs)
        j->ops->delta(j->client, &d);
    arena_free(a);
}

static bool delta_ok(const struct job *j, const Nunchi__Delta *d)
{
    if (d->choice >= j->r->n)
        return false;
    const struct job_choice *c = &j->choice[d->choice];
    bool logprobs = d->n_logprobs == 0 || (j->r->sampling.logprobs && d->n_logprobs == d->n_ids);
    return logprobs && d->position == c->n_ids && d->n_ids <= j->max_tokens - c->n_ids &&
           d->n_ids <= j->credit;
}

/* True: said before (by whom does not matter: it is the same). */
static bool delta_old(const struct job *j, const Nunchi__Delta *d)
{
    if (d->choice >= j->r->n)
        return false;
    const struct job_choice *c = &j->choice[d->choice];
    return d->n_ids > 0 && d->position < c->n_ids && d->n_ids <= c->n_ids - d->position;
}

/* A client that does not read stops its answer, and holds what it holds, but not for ever. */
static bool reads(struct job *j)
{
    if (j->ops->ready(j->client)) {
        timers_cancel(&j->g->timers, &j->stall);
        return true;
    }
    if (j->stall.heap_index == 0 && j->g->cfg.client_stall_ms)
        timers_set(&j->g->timers, &j->stall,
                   j->g->now_us + (uint64_t)j->g->cfg.client_stall_ms * 1000);
    return false;
}

void job_stalled(void *ctx)
{
    struct job *j = ctx;
    struct gw_fail f;
    j->g->counts.stalled_clients++;
    gw_failed(&f, ERR_TIMEOUT, NULL, "", "the answer was not read for too long (client-stall-ms)");
    job_fail(j, &f);
}

void job_grant(struct job *j)
{
    if (!j->ask.request || j->credit > CREDIT_TOKENS / 2 || !reads(j))
        return;
    Nunchi__Credit c = NUNCHI__CREDIT__INIT;
    c.amount = CREDIT_TOKENS - j->credit;
    if (ask_more(&j->ask, WIRE_CREDIT, 0, &c.base, NULL) == 0) {
        j->credit += c.amount;
        set_parked(j, false);
    }
    /* A full queue: the next delta, or the client's next read, brings the next try. */
}

static void worked(struct job *j)
{
    struct worker *w = route_find(j->g->route, j->ask.peer);
    if (w)
        route_worked(w);
}

void job_delta(struct job *j, const Nunchi__Delta *d)
{
    if (delta_old(j, d))
        return;
    if (!delta_ok(j, d)) {
        broken(j);
        return;
    }
    struct job_choice *c = &j->choice[d->choice];
    if (d->cached_tokens > j->cached_tokens && d->cached_tokens <= j->n_tokens && !j->started)
        j->cached_tokens = d->cached_tokens;
    tell_start(j);
    if (j->attempts || !j->moved)
        worked(j);
    j->attempts = 0; /* it moves: the count is of failures in a row */
    if (d->n_ids > 0 && !j->moved) {
        j->moved = true;
        j->deaths = 0;
        leave_alone(j);
        j->alone = false;
    }
    add_ids(c, d->ids, d->n_ids);
    j->credit -= d->n_ids;
    j->heard_us = j->g->now_us;
    hold_logprobs(c, d);
    if (d->text.len)
        emit(j, d->choice, pb_slice(d->text));
    job_grant(j);
    if (j->credit == 0)
        set_parked(j, true);
}

/* ---- the end ---- */

/* Each choice ends once; the ids that were counted there are those that came. */
static bool ends_ok(const struct job *j, const Nunchi__Generated *d, const Nunchi__ChoiceEnd **ends)
{
    for (size_t i = 0; i < d->n_ends; i++) {
        const Nunchi__ChoiceEnd *e = d->ends[i];
        if (e->choice >= j->r->n || ends[e->choice] || e->n_ids != j->choice[e->choice].n_ids)
            return false;
        ends[e->choice] = e;
    }
    return d->n_ends == j->r->n;
}

static void end_all(struct job *j, const Nunchi__Generated *d, const Nunchi__ChoiceEnd **ends)
{
    enum gw_end why[CHOICES_MAX];
    uint32_t n_ids[CHOICES_MAX];
    uint32_t cached = d->cached_tokens <= j->n_tokens ? d->cached_tokens : j->n_tokens;
    struct gw_usage u = {.prompt_tokens = j->n_tokens,
                         .cached_tokens = j->cached_tokens > cached ? j->cached_tokens : cached,
                         .numerics_changed = j->numerics_changed};
    tell_start(j);
    for (uint32_t i = 0; i < j->r->n; i++) {
        CHECK(ends[i]); /* as ends_ok has seen */
        bool stopped = ends[i]->reason == NUNCHI__CHOICE_END__REASON__STOP;
        if (stopped && ends[i]->stop.len)
            buf_reset(&j->choice[i].held); /* tokens of the stop string */
        else if (stopped)
            drop_last(&j->choice[i].held);
        why[i] =
            ends[i]->reason == NUNCHI__CHOICE_END__REASON__LENGTH ? GW_END_LENGTH : GW_END_STOP;
        n_ids[i] = ends[i]->n_ids;
        emit(j, i, pb_slice(ends[i]->text));
        j->ops->choice_end(j->client, i, why[i]);
        u.completion_tokens += n_ids[i] > j->n_echoed ? n_ids[i] - j->n_echoed : 0;
    }
    job_store(j, &u, why, n_ids);
    job_finish(j, &u);
}

static void on_generated(struct ask *ask, int err, const struct wire_msg *m, const struct why *w)
{
    struct job *j = CONTAINER_OF(ask, struct job, ask);
    arena *a = arena_new(DONE_ARENA_BYTES);
    const Nunchi__ChoiceEnd *ends[CHOICES_MAX] = {0};
    void *v = NULL;
    struct why why = {0};
    job_leave_worker(j);
    if (err == 0) {
        err = ask_unpack(a, &nunchi__generated__descriptor, m, &v);
        if (err < 0 || !ends_ok(j, v, ends))
            err = why_set(&why, ERR_PROTO, "", "a model worker broke the protocol");
        w = &why;
    }
    if (err == 0)
        end_all(j, v, ends);
    else
        lost(j, err, w);
    arena_free(a);
}
