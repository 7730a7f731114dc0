/* What the next step computes: who joins, the next token of everybody running, then chunks of
 * prompts. */
#include "model-svc/core_int.h"

static struct sequence *seq_of(struct list *it)
{
    return CONTAINER_OF(it, struct sequence, running);
}

static uint32_t left_of(const struct sequence *q)
{
    return sequence_total(q) - q->n_computed;
}

/* ---- joining ---- */

/* Weight of the newest turn in how fast the queue is believed to move. */
#define TURN_NEWEST 0.1

/* Another choice of the same request that has the whole prompt in its blocks. */
static const struct sequence *sibling_with_prompt(const struct sequence *q)
{
    const struct generation *g = q->gen;
    for (size_t i = 0; i < g->r.n_choices; i++) {
        const struct sequence *o = &g->seqs[i];
        if (o != q && o->state == SEQ_RUNNING && o->n_computed >= q->n_prompt)
            return o;
    }
    return NULL;
}

static void take_what_is_computed(sched *s, struct sequence *q)
{
    struct generation *g = q->gen;
    uint32_t before = q->n_computed;
    const struct sequence *sibling =
        q->n_computed < q->n_prompt - 1 ? sibling_with_prompt(q) : NULL;
    if (sibling)
        sequence_share_prompt(q, sibling, s->pool);
    else
        sequence_reuse(q, s->pool);
    if (q == g->seqs && !g->first_us && q->n_computed > before)
        g->cached_tokens += q->n_computed - before;
    if (g->cached_tokens > g->r.n_prompt)
        g->cached_tokens = g->r.n_prompt;
}

/* A sequence takes part with one block more than it needs now: to grow into, or to copy a shared
 * one. */
#define HEADROOM 1

/* Blocks that those running will still take. */
static uint64_t promised(const sched *s)
{
    uint64_t n = 0;
    LIST_EACH(it, &s->running)
    n += sequence_lacks(seq_of(it)) + HEADROOM;
    return n;
}

static bool fits(sched *s, struct sequence *q)
{
    if (s->n_running >= s->cfg.seqs_max)
        return false;
    uint32_t cached = q->gen->cached_tokens;
    take_what_is_computed(s, q);
    if (s->n_running == 0 ||
        sequence_lacks(q) + HEADROOM + promised(s) <= kvpool_available(s->pool))
        return true;
    sequence_drop(q, s->pool);
    q->gen->cached_tokens = cached;
    return false;
}

/* Somebody who has to go so that q can run: without credit first, then of lower priority. */
static bool make_way(sched *s, const struct sequence *q)
{
    struct sequence *victim = NULL;
    for (struct list *it = s->running.prev; it != &s->running; it = it->prev) {
        struct sequence *v = seq_of(it);
        if (v->gen->credit == 0) {
            victim = v;
            break;
        }
        if (!victim && v->gen->r.priority < q->gen->r.priority)
            victim = v;
    }
    if (victim)
        sched_preempt(s, victim);
    return victim != NULL;
}

/* How fast the queue moves: what a refused client is told. */
static void note_turn(sched *s, uint64_t now_us)
{
    if (s->turned_us) {
        double us = (double)(now_us - s->turned_us);
        s->turn_us += (s->turn_us > 0 ? TURN_NEWEST : 1) * (us - s->turn_us);
    }
    s->turned_us = s->n_waiting > 0 ? now_us : 0;
}

static void join(sched *s, struct sequence *q, uint64_t now_us)
{
    struct generation *g = q->gen;
    fairq_remove(s->queue, &q->queued);
    sched_start_running(s, q);
    if (!g->started) {
        g->started = true;
        g->started_us = now_us;
        s->n_waiting--;
        note_turn(s, now_us);
    }
}

void sched_admit(sched *s, uint64_t now_us)
{
    struct fair_entry *e;
    while ((e = fairq_head(s->queue))) {
        struct sequence *q = CONTAINER_OF(e, struct sequence, queued);
        if (q->gen->credit == 0) {
            fairq_remove(s->queue, e);
            q->state = SEQ_PARKED;
            continue;
        }
        bool fit;
        while (!(fit = fits(s, q)) && make_way(s, q))
            ;
        if (!fit)
            return; /* the others wait behind it: or a long prompt would never get in */
        join(s, q, now_us);
    }
}

/* ---- room ---- */

/* Whose blocks go when q needs one: somebody not in this step, without credit or behind q, from the
 * end. */
static struct sequence *victim_for(sched *s, const struct sequence *q)
{
    struct sequence *behind = NULL;
    for (struct list *it = s->running.prev; it != &s->running; it = it->prev) {
        struct sequence *v = seq_of(it);
        if (v == q || v->n_rows > 0)
            continue;
        if (v->gen->credit == 0)
            return v;
        if (!behind && sched_order_before(q, v))
            behind = v;
    }
    return behind;
}

void sched_copied(sched *s)
{
    while (s->work.n_copies > 0)
        kvpool_unref(s->pool, s->copies[--s->work.n_copies].from);
}

/* Returns up to where q has room; the copy it needs first, if any, is noted in the step. */
static uint32_t make_room(sched *s, struct sequence *q, uint32_t until)
{
    for (;;) {
        struct seq_copy copy;
        uint32_t room = sequence_room(q, s->pool, until, &copy);
        if (copy.n_tokens > 0)
            s->copies[s->work.n_copies++] = copy;
        if (room >= until)
            return room;
        struct sequence *v = victim_for(s, q);
        if (!v)
            return room;
        sched_preempt(s, v);
    }
}

/* ---- rows ---- */

/* Behind so many guesses: they are what was said, if this one's token is to be kept. */
static void add_job(sched *s, struct sequence *q, uint32_t row, uint32_t guesses)
{
    const struct gen_request *r = &q->gen->r;
    q->n_jobs++;
    s->jobs[s->work.n_jobs++] = (struct sample_job){
        .row = row,
        .params = &r->sampling,
        .in = {.n_vocab = s->vocab.n,
               .prompt = q->prompt,
               .n_prompt = q->n_prompt,
               .generated = q->ids,
               .n_generated = q->n_ids + guesses,
               .choice = q->choice,
               .forced = q->n_ids + guesses < q->n_echoed ? q->echoed + q->n_ids + guesses : NULL,
               .ends = s->vocab.ends,
               .n_ends = s->vocab.n_ends},
    };
}

static void add_rows(sched *s, struct sequence *q, uint32_t until)
{
    uint32_t total = sequence_total(q);
    uint32_t member = (uint32_t)s->n_members;
    q->n_rows = until - q->n_computed;
    q->job = (uint32_t)s->work.n_jobs;
    q->n_jobs = 0;
    q->gen->n_in_step++;
    s->members[s->n_members++] = q;
    s->seqs[member] = (struct engine_seq){q->blocks, q->n_blocks};
    for (uint32_t p = q->n_computed; p < until; p++) {
        if (p + 1 >= total)
            add_job(s, q, (uint32_t)s->n_rows, p + 1 - total);
        s->rows[s->n_rows++] = (struct engine_row){.seq = member,
                                                   .token = sequence_token(q, p),
                                                   .position = p,
                                                   .attend_until = p + 1,
                                                   .want_logits = p + 1 >= total};
    }
}

static size_t snapshot(sched *s)
{
    size_t n = 0;
    LIST_EACH(it, &s->running)
    if (!s->only || seq_of(it)->gen == s->only)
        s->order[n++] = seq_of(it);
    return n;
}

/* Who is suspected to stop workers takes nobody along: the first of them that has brought nothing
 * yet. */
static const struct generation *who_is_alone(const sched *s)
{
    LIST_EACH(it, &s->running)
    {
        const struct generation *g = seq_of(it)->gen;
        if (g->r.alone && !g->first_us && g->credit > 0)
            return g;
    }
    return NULL;
}

/* Everybody's next token; then what may follow it, if there is more to gain than to lose. */
static void plan_decodes(sched *s)
{
    size_t n = snapshot(s), n_next = 0;
    for (size_t i = 0; i < n; i++) {
        struct sequence *q = s->order[i];
        if (q->state != SEQ_RUNNING || left_of(q) != 1 || !sched_has_credit(q->gen))
            continue;
        uint32_t total = sequence_total(q);
        if (make_room(s, q, total) < total) {
            sched_preempt(s, q); /* those before it need the room; it goes on when they are done */
            continue;
        }
        q->n_rows = 1;
        q->n_drafts = 0;
        q->gen->n_planned_ids++;
        s->order[n_next++] = q;
    }
    sched_speculate(s, n_next);
    for (size_t i = 0; i < n_next; i++)
        add_rows(s, s->order[i], sequence_total(s->order[i]) + s->order[i]->n_drafts);
    s->cost = (struct pace_rows){.decode = (uint32_t)s->n_rows};
}

/* ---- prompts ---- */

static int by_service(const void *x, const void *y)
{
    const struct sequence *a = *(struct sequence *const *)x, *b = *(struct sequence *const *)y;
    uint64_t ta = fairq_flow_time(a->gen->flow), tb = fairq_flow_time(b->gen->flow);
    if (ta != tb)
        return ta < tb ? -1 : 1;
    return sched_order_before(a, b) ? -1 : 1;
}

/* Somebody computes the very block that q would begin with: q takes it when it is done. */
static bool computed_by_another(sched *s, struct sequence *q)
{
    const struct generation *g = q->gen;
    for (const struct sequence *o = g->seqs; o < q; o++)
        if (o->state == SEQ_RUNNING && o->n_computed < q->n_prompt && q->n_computed < q->n_prompt)
            return true;
    struct digest next;
    if (!sequence_next_hash(q, &next))
        return false;
    for (size_t i = 0; i < s->n_starts; i++)
        if (digest_eq(&s->starts[i], &next))
            return true;
    s->starts[s->n_starts++] = next;
    return false;
}

/* Kernels take 16 rows at once, or 4: what a step of few rows leaves unused would be too much of it
 * if it were cut at 16. */
#define TILE 16
#define SMALL_TILE 4

/* Rows of a prompt for so much time; a piece that is not the last fills the step's last tile. At
 * least a tile for the first: progress. */
static uint32_t chunk_of(const sched *s, const struct sequence *q, double us)
{
    uint32_t room = s->cfg.step_tokens - (uint32_t)s->n_rows, left = left_of(q);
    uint32_t rows = pace_prompt_rows(&s->pace, us, q->n_computed);
    if (rows >= left && left <= room)
        return left;
    rows = rows < room ? rows : room;
    uint32_t all = (uint32_t)s->n_rows + rows;
    uint32_t over = all % (all < 4 * TILE ? SMALL_TILE : TILE);
    rows = rows > over ? rows - over : 0;
    if (rows > 0 || s->cost.prompt > 0)
        return rows;
    rows = left < TILE ? left : TILE;
    return rows < room ? rows : room;
}

static void plan_prefills(sched *s)
{
    size_t n = 0;
    LIST_EACH(it, &s->running)
    {
        struct sequence *q = seq_of(it);
        if (q->n_rows == 0 && left_of(q) > 1 && (!s->only || q->gen == s->only))
            s->order[n++] = q;
    }
    if (n == 0)
        return;
    qsort(s->order, n, sizeof(struct sequence *), by_service);
    double us = pace_prompt_time(&s->pace, s->cost.decode);
    for (size_t i = 0; i < n && s->n_rows < s->cfg.step_tokens; i++) {
        struct sequence *q = s->order[i];
        if (q->state != SEQ_RUNNING || !sched_has_credit(q->gen))
            continue;
        take_what_is_computed(s, q);
        if (computed_by_another(s, q))
            continue;
        uint32_t rows = chunk_of(s, q, us);
        if (rows == 0)
            break;
        uint32_t until = make_room(s, q, q->n_computed + rows);
        if (until == q->n_computed)
            continue;
        us -= pace_prompt_us(&s->pace, until - q->n_computed, q->n_computed);
        s->cost.prompt += until - q->n_computed;
        s->cost.looks += pace_looks(q->n_computed, until - q->n_computed);
        q->gen->n_planned_ids += until == sequence_total(q);
        q->n_drafts = 0;
        add_rows(s, q, until);
    }
}

/* Answers that grew while a prompt before them was computed in pieces may have taken the room it
 * was admitted with. */
static void keep_promise(sched *s)
{
    LIST_EACH(it, &s->running)
    {
        struct sequence *q = seq_of(it), *v;
        if (left_of(q) == 1 || q->gen->credit == 0)
            continue;
        while (sequence_lacks(q) > kvpool_available(s->pool) && (v = victim_for(s, q)))
            sched_preempt(s, v);
        return; /* the first of them is enough for progress; it may also have changed the list */
    }
}

struct sched_work *sched_plan(sched *s, uint64_t now_us)
{
    CHECK(!s->busy);
    s->n_rows = s->n_members = s->n_starts = 0;
    s->work = (struct sched_work){.copies = s->copies, .jobs = s->jobs};
    sched_admit(s, now_us);
    keep_promise(s);
    s->only = who_is_alone(s);
    plan_decodes(s);
    plan_prefills(s);
    if (s->n_rows == 0 && s->only) { /* it has no room: the others make some */
        s->only = NULL;
        s->n_starts = 0;
        plan_decodes(s);
        plan_prefills(s);
    }
    if (s->n_rows == 0) {
        sched_copied(s);
        return NULL;
    }
    s->busy = true;
    s->work.step = (struct engine_step){s->seqs, s->n_members, s->rows, s->n_rows};
    return &s->work;
}
