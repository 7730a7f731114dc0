/* The scheduler's calls in: requests, cancels, credit, gateways that go, deadlines. */
#include "model-svc/core_int.h"

/* Shares of the flows: an urgent request's client gets 16 tokens computed where a batch job's
 * gets 1. */
static const uint32_t WEIGHTS[] = {1, 4, 16};

sched *sched_new(const struct sched_config *cfg, const struct sched_vocab *words,
                 const struct sched_out *out)
{
    CHECK(cfg->seqs_max > 0 && cfg->seqs_max <= cfg->step_tokens &&
          cfg->step_tokens <= ENGINE_ROWS_MAX && cfg->draft_max <= DRAFT_MAX);
    CHECK(cfg->n_context <= (uint64_t)cfg->n_blocks * ENGINE_BLOCK_TOKENS);
    sched *s = xcalloc(1, sizeof *s);
    s->cfg = *cfg;
    s->vocab = *words;
    s->out = *out;
    s->pace = (struct pace){.target_us = cfg->step_target_us, .rows_max = cfg->step_tokens};
    s->deadline_us = UINT64_MAX;
    s->pool = kvpool_new(cfg->n_blocks);
    s->queue = fairq_new();
    list_init(&s->open);
    list_init(&s->running);
    list_init(&s->fetches);
    list_init(&s->offers);
    s->by_id = map_new();
    s->outbox = outbox_new();
    s->rows = xcalloc(cfg->step_tokens, sizeof *s->rows);
    s->seqs = xcalloc(cfg->seqs_max, sizeof *s->seqs);
    s->members = xcalloc(cfg->seqs_max, sizeof(struct sequence *));
    s->starts = xcalloc(cfg->seqs_max, sizeof *s->starts);
    s->copies = xcalloc(cfg->seqs_max, sizeof *s->copies);
    s->jobs = xcalloc(cfg->step_tokens, sizeof *s->jobs);
    s->bids = xcalloc(cfg->seqs_max, sizeof *s->bids);
    s->picked = xcalloc(DRAFT_MAX + 1, sizeof *s->picked);
    s->order = xcalloc(cfg->seqs_max, sizeof(struct sequence *));
    return s;
}

struct id_key {
    uint64_t gateway, request;
};

static slice key_of(const struct id_key *k)
{
    return (slice){(const char *)k, sizeof *k};
}

static struct generation *find(const sched *s, uint64_t gateway, uint64_t request)
{
    struct id_key k = {gateway, request};
    return map_get(s->by_id, key_of(&k));
}

static void free_generation(sched *s, struct generation *g, bool with_arena)
{
    for (size_t i = 0; i < g->r.n_choices; i++)
        sequence_clear(&g->seqs[i], s->pool);
    if (g->flow)
        fairq_flow_unref(s->queue, g->flow);
    if (with_arena)
        arena_free(g->a);
    free(g->seqs);
    free(g);
}

void sched_free(sched *s)
{
    if (!s)
        return;
    LIST_EACH(it, &s->open)
    {
        struct generation *g = CONTAINER_OF(it, struct generation, link);
        for (size_t i = 0; i < g->r.n_choices; i++)
            fairq_remove(s->queue, &g->seqs[i].queued);
        free_generation(s, g, true);
    }
    sched_fetch_clear(s);
    sched_offer_clear(s);
    kvpool_free(s->pool);
    fairq_free(s->queue);
    map_free(s->by_id);
    outbox_free(s->outbox);
    buf_clear(&s->scratch);
    free(s->rows);
    free(s->seqs);
    free(s->members);
    free(s->starts);
    free(s->copies);
    free(s->jobs);
    free(s->bids);
    free(s->picked);
    free(s->order);
    free(s);
}

/* ---- states of a sequence ---- */

bool sched_has_credit(const struct generation *g)
{
    return g->credit > g->n_planned_ids;
}

bool sched_order_before(const struct sequence *a, const struct sequence *b)
{
    if (a->gen->r.priority != b->gen->r.priority)
        return a->gen->r.priority > b->gen->r.priority;
    return a->order < b->order;
}

static void wait_for_turn(sched *s, struct sequence *q)
{
    if (q->gen->credit == 0) {
        q->state = SEQ_PARKED;
        return;
    }
    q->state = SEQ_QUEUED;
    fairq_push(s->queue, q->gen->flow, &q->queued, q->gen->started);
}

void sched_start_running(sched *s, struct sequence *q)
{
    CHECK(q->state == SEQ_QUEUED && s->n_running < s->cfg.seqs_max);
    struct list *at = s->running.next;
    while (at != &s->running && sched_order_before(CONTAINER_OF(at, struct sequence, running), q))
        at = at->next;
    list_append(at, &q->running);
    q->state = SEQ_RUNNING;
    s->n_running++;
}

static void stop_running(sched *s, struct sequence *q)
{
    if (q->state == SEQ_RUNNING) {
        list_remove(&q->running);
        s->n_running--;
    }
    fairq_remove(s->queue, &q->queued);
    sched_offer(s, q, q->n_computed); /* cancelled or not: the work is done */
    if (q->n_rows == 0)
        sequence_drop(q, s->pool);
    /* else the step under way writes into its blocks: they go with it, when that is done */
}

void sched_preempt(sched *s, struct sequence *q)
{
    CHECK(q->state == SEQ_RUNNING && q->n_rows == 0);
    stop_running(s, q);
    s->counts.preemptions++;
    wait_for_turn(s, q);
}

/* ---- ends ---- */

static void close_generation(sched *s, struct generation *g)
{
    struct id_key k = {g->r.gateway, g->r.request};
    if (map_get(s->by_id, key_of(&k)) == g)
        map_del(s->by_id, key_of(&k));
    for (size_t i = 0; i < g->r.n_choices; i++) {
        stop_running(s, &g->seqs[i]);
        g->seqs[i].state = SEQ_ENDED;
    }
    if (!g->started)
        s->n_waiting--;
    g->started = true;
    g->dead = true;
    sched_fetch_forget(g);
    sched_reap(s, g);
}

void sched_reap(sched *s, struct generation *g)
{
    if (!g->dead || g->n_in_step > 0)
        return;
    list_remove(&g->link);
    free_generation(s, g, true);
}

void sched_fail(sched *s, struct generation *g, int err, const struct why *w)
{
    if (g->dead)
        return;
    if (err < 0)
        outbox_error(s->outbox, g->r.gateway, g->r.request, g->r.attempt, err, w);
    close_generation(s, g);
}

static uint64_t between(uint64_t from, uint64_t to)
{
    return from && to > from ? to - from : 0;
}

static void finish(sched *s, struct generation *g)
{
    struct sched_end ends[GENERATE_CHOICES_MAX];
    for (size_t i = 0; i < g->r.n_choices; i++) {
        const struct sequence *q = &g->seqs[i];
        ends[i] = (struct sched_end){q->choice, q->n_ids, q->end, q->end_text, q->end_stop};
    }
    struct sched_done d = {.request = g->r.request,
                           .attempt = g->r.attempt,
                           .ends = ends,
                           .n_ends = g->r.n_choices,
                           .prompt_tokens = g->r.n_prompt,
                           .cached_tokens = g->cached_tokens,
                           .fetched_tokens = g->fetched_tokens < g->cached_tokens
                                                 ? g->fetched_tokens
                                                 : g->cached_tokens,
                           .drafted = g->drafted,
                           .accepted = g->accepted,
                           .trace = g->r.trace,
                           .arrived_us = g->arrived_us,
                           .queue_us = between(g->arrived_us, g->started_us),
                           .prefill_us = between(g->started_us, g->first_us),
                           .decode_us = between(g->first_us, g->last_us)};
    outbox_done(s->outbox, g->r.gateway, &d);
    close_generation(s, g);
}

void sched_end_sequence(sched *s, struct sequence *q, uint64_t now_us)
{
    struct generation *g = q->gen;
    stop_running(s, q);
    q->state = SEQ_ENDED;
    g->last_us = now_us;
    if (--g->n_open == 0)
        finish(s, g);
}

/* ---- calls in ---- */

/* Brings stop strings to where the ids so far left them. 1: the answer had ended with the last of
 * them. */
static int replay(sched *s, struct sequence *q, struct why *w)
{
    for (uint32_t i = q->n_echoed; i < q->n_ids; i++) {
        bool end = s->vocab.is_end(s->vocab.ctx, q->ids[i]);
        int hit = -1;
        if (!end) {
            buf_reset(&s->scratch);
            hit = stops_feed(&q->gen->stops, &q->stop, s->vocab.text(s->vocab.ctx, q->ids[i]),
                             &s->scratch);
        }
        if (!end && hit < 0)
            continue;
        if (i + 1 < q->n_ids)
            return why_set(w, ERR_INVALID, "choices",
                           "the ids of choice %u go on after the answer's end", q->choice);
        q->end = SEQ_STOP;
        if (hit < 0)
            q->end_text = stops_held(&q->stop);
        else
            q->end_stop = q->gen->stops.text[hit];
        return 1;
    }
    if (q->n_ids < q->gen->r.max_tokens)
        return 0;
    q->end = SEQ_LENGTH;
    q->end_text = stops_held(&q->stop);
    return 1;
}

static fair_flow *flow_of(sched *s, const struct gen_request *r)
{
    char key[1 + GENERATE_CLIENT_BYTES] = {(char)(r->priority + 1)};
    size_t n = r->client.n ? r->client.n : sizeof r->gateway;
    memcpy(key + 1, r->client.n ? r->client.p : (const char *)&r->gateway, n);
    return fairq_flow_ref(s->queue, (slice){key, 1 + n}, WEIGHTS[r->priority + 1]);
}

static struct generation *new_generation(sched *s, uint64_t now_us, const struct gen_request *r)
{
    struct generation *g = xcalloc(1, sizeof *g);
    g->r = *r;
    g->arrived_us = now_us;
    list_init(&g->fetch_link);
    g->deadline_us = r->deadline_ms ? now_us + (uint64_t)r->deadline_ms * 1000 : 0;
    g->credit = r->credit;
    stops_init(&g->stops, g->r.stops, r->n_stops);
    g->seqs = xcalloc(r->n_choices, sizeof *g->seqs);
    for (size_t i = 0; i < r->n_choices; i++) {
        sequence_init(&g->seqs[i], &g->r, &g->r.choices[i], &s->cfg.weights);
        g->seqs[i].gen = g;
        g->seqs[i].order = s->n_arrived * GENERATE_CHOICES_MAX + i;
        g->seqs[i].state = SEQ_PARKED;
    }
    s->n_arrived++;
    return g;
}

static uint64_t queued_tokens(const sched *s)
{
    uint64_t n = 0;
    LIST_EACH(it, &s->open)
    {
        const struct generation *g = CONTAINER_OF(it, struct generation, link);
        for (size_t i = 0; i < g->r.n_choices; i++) {
            const struct sequence *q = &g->seqs[i];
            uint32_t left = sequence_total(q) - q->n_computed;
            n += q->state == SEQ_ENDED || left == 1 ? 0 : left;
        }
    }
    return n;
}

/* Replays all choices; those that had ended already end here. */
static int replay_all(sched *s, struct generation *g, struct why *w)
{
    for (size_t i = 0; i < g->r.n_choices; i++) {
        int ended = replay(s, &g->seqs[i], w);
        if (ended < 0)
            return ended;
        if (ended)
            g->seqs[i].state = SEQ_ENDED;
        else
            g->n_open++;
    }
    return 0;
}

void sched_enqueue(sched *s, struct generation *g)
{
    if (sched_fetch_begin(s, g))
        return;
    for (size_t i = 0; i < g->r.n_choices; i++)
        if (g->seqs[i].state != SEQ_ENDED)
            wait_for_turn(s, &g->seqs[i]);
}

static void admit(sched *s, struct generation *g)
{
    struct id_key k = {g->r.gateway, g->r.request};
    map_put(s->by_id, key_of(&k), g);
    list_append(&s->open, &g->link);
    s->n_waiting++;
    if (g->deadline_us && g->deadline_us < s->deadline_us)
        s->deadline_us = g->deadline_us;
    g->flow = flow_of(s, &g->r);
    sched_enqueue(s, g);
    if (g->n_open == 0)
        finish(s, g);
}

int sched_take_request(sched *s, uint64_t now_us, const struct gen_request *r, arena *a,
                       uint32_t *retry_ms, struct why *w)
{
    *retry_ms = 0;
    struct generation *old = find(s, r->gateway, r->request);
    if (old && old->r.attempt >= r->attempt)
        return why_set(w, ERR_EXISTS, "request", "this request is here already");
    if (s->n_waiting >= s->cfg.queue_max) {
        *retry_ms = pace_retry_ms(&s->pace, queued_tokens(s), s->turn_us * s->n_waiting / 2);
        return why_set(w, ERR_BUSY, "",
                       "%u requests wait already, which is the most this worker lets wait",
                       s->n_waiting);
    }
    struct generation *g = new_generation(s, now_us, r);
    int err = replay_all(s, g, w);
    if (err < 0) {
        free_generation(s, g, false);
        return err;
    }
    if (old)
        sched_cancel(s, r->gateway, r->request);
    g->a = a;
    admit(s, g);
    return 0;
}

void sched_cancel(sched *s, uint64_t gateway, uint64_t request)
{
    struct generation *g = find(s, gateway, request);
    if (!g)
        return;
    outbox_forget(s->outbox, gateway, request);
    sched_fail(s, g, 0, NULL);
}

void sched_credit(sched *s, uint64_t gateway, uint64_t request, uint64_t tokens)
{
    struct generation *g = find(s, gateway, request);
    if (!g || tokens == 0)
        return;
    g->credit = tokens > UINT64_MAX - g->credit ? UINT64_MAX : g->credit + tokens;
    for (size_t i = 0; i < g->r.n_choices; i++)
        if (g->seqs[i].state == SEQ_PARKED)
            wait_for_turn(s, &g->seqs[i]);
}

void sched_gateway_gone(sched *s, uint64_t gateway)
{
    outbox_forget(s->outbox, gateway, 0);
    LIST_EACH(it, &s->open)
    {
        struct generation *g = CONTAINER_OF(it, struct generation, link);
        if (g->r.gateway == gateway)
            sched_fail(s, g, 0, NULL);
    }
}

uint64_t sched_tick(sched *s, uint64_t now_us)
{
    uint64_t next = UINT64_MAX;
    if (now_us < s->deadline_us)
        return s->deadline_us;
    LIST_EACH(it, &s->open)
    {
        struct generation *g = CONTAINER_OF(it, struct generation, link);
        if (g->dead || !g->deadline_us)
            continue;
        if (g->deadline_us <= now_us) {
            struct why w;
            sched_fail(s, g,
                       why_set(&w, ERR_TIMEOUT, "", "not done within the request's %u ms",
                               g->r.deadline_ms),
                       &w);
        } else if (g->deadline_us < next) {
            next = g->deadline_us;
        }
    }
    s->deadline_us = next;
    return next;
}

void sched_collect(sched *s)
{
    outbox_turn(s->outbox);
}

void sched_send(sched *s)
{
    outbox_send(s->outbox, &s->out);
}

void sched_flush(sched *s)
{
    sched_collect(s);
    sched_send(s);
}

struct sched_load sched_load_now(const sched *s)
{
    struct sched_load l = s->counts;
    l.running = (uint32_t)sched_open(s) - s->n_waiting;
    l.queued = s->n_waiting;
    l.queued_tokens = queued_tokens(s);
    l.blocks = kvpool_size(s->pool);
    l.blocks_free = kvpool_available(s->pool);
    l.prefill_tok_s = pace_prefill_rate(&s->pace);
    l.decode_tok_s = pace_decode_rate(&s->pace);
    l.fetch_tok_s = sched_fetch_rate(s);
    return l;
}

size_t sched_open(const sched *s)
{
    return map_len(s->by_id);
}

struct sched_share sched_share_of(const sched *s, uint64_t gateway)
{
    struct sched_share n = {0, 0};
    LIST_EACH(it, &s->open)
    {
        const struct generation *g = CONTAINER_OF(it, struct generation, link);
        bool its = g->r.gateway == gateway && !g->dead;
        n.open += its;
        n.parked += its && g->credit == 0;
    }
    return n;
}
