/* What a step brought: KV that is computed, tokens that are decided, answers that end. */
#include "model-svc/core_int.h"

/* The prompt has just been computed by one choice: the others that wait for it need not. */
static void share_with_siblings(sched *s, const struct sequence *q)
{
    struct generation *g = q->gen;
    for (size_t i = 0; i < g->r.n_choices; i++) {
        struct sequence *o = &g->seqs[i];
        if (o != q && o->state == SEQ_RUNNING && o->n_rows == 0 && o->n_computed + 1 < o->n_prompt)
            sequence_share_prompt(o, q, s->pool);
    }
}

/* Takes the token in; its certain text is added to s->scratch. True if the answer ends with it. */
static bool decide(sched *s, struct sequence *q, int32_t id)
{
    const struct generation *g = q->gen;
    bool echoed = q->n_ids < q->n_echoed;
    int hit = -1;
    sequence_append(q, id);
    if (echoed) {
        buf_put_slice(&s->scratch, s->vocab.text(s->vocab.ctx, id));
    } else if (s->vocab.is_end(s->vocab.ctx, id)) {
        q->end = SEQ_STOP;
        q->end_text = stops_held(&q->stop);
        return true;
    }
    if (!echoed)
        hit = stops_feed(&g->stops, &q->stop, s->vocab.text(s->vocab.ctx, id), &s->scratch);
    if (hit >= 0) {
        q->end = SEQ_STOP;
        q->end_stop = g->stops.text[hit];
        return true;
    }
    if (q->n_ids < g->r.max_tokens)
        return false;
    q->end = SEQ_LENGTH;
    q->end_text = stops_held(&q->stop);
    return true;
}

/* Takes the tokens in one by one, as if each had come alone: the next one, and those behind guesses
 * as long as the guesses are what was said. True if the answer ends with the last of them. */
static bool take_tokens(sched *s, struct sequence *q)
{
    bool ended = false, hit = true;
    buf_reset(&s->scratch);
    for (uint32_t i = 0; i < q->n_jobs && hit && !ended; i++) {
        const struct sampled *out = &s->jobs[q->job + i].out;
        s->picked[i] = *out;
        hit = i < q->n_drafts && sequence_token(q, sequence_total(q)) == out->id;
        if (i < q->n_drafts && q->n_ids >= q->n_echoed) {
            draft_seen(&q->odds, &q->draft_from, i, hit);
            draft_seen(&s->odds, &q->draft_from, i, hit);
        }
        ended = decide(s, q, out->id);
    }
    return ended;
}

static void tell(sched *s, struct sequence *q, uint32_t n, uint64_t now_us)
{
    struct generation *g = q->gen;
    if (!g->first_us)
        g->first_us = now_us;
    g->last_us = now_us;
    g->credit -= n;
    outbox_delta(s->outbox, g->r.gateway,
                 &(struct sched_delta){.request = g->r.request,
                                       .attempt = g->r.attempt,
                                       .choice = q->choice,
                                       .position = q->n_ids - n,
                                       .ids = q->ids + q->n_ids - n,
                                       .n_ids = n,
                                       .text = buf_slice(&s->scratch),
                                       .logprobs = g->r.sampling.want_logprob ? s->picked : NULL,
                                       .cached_tokens = g->told_cached ? 0 : g->cached_tokens});
    g->told_cached = true;
}

/* A guess that came true has its K and V computed with it; what is behind the first that did not is
 * written again. Returns how many tokens it brought. */
static uint32_t computed(sched *s, struct sequence *q, uint64_t now_us)
{
    struct generation *g = q->gen;
    bool in_prompt = q->n_computed < q->n_prompt;
    uint32_t before = q->n_ids;
    uint32_t rows = q->n_rows - q->n_drafts;
    bool ended = take_tokens(s, q);
    uint32_t n = q->n_ids - before, true_ones = n > 0 ? n - 1 : 0;
    sequence_computed(q, s->pool, q->n_computed + rows + true_ones);
    if (in_prompt)
        sched_offer(s, q, q->n_computed < q->n_prompt ? q->n_computed : q->n_prompt);
    fairq_charge(g->flow, rows + true_ones);
    s->counts.drafted += q->n_drafts;
    s->counts.accepted += true_ones;
    g->drafted += q->n_drafts;
    g->accepted += true_ones;
    q->n_rows = q->n_jobs = q->n_drafts = 0;
    if (in_prompt && q->n_computed >= q->n_prompt)
        share_with_siblings(s, q);
    if (n > 0)
        tell(s, q, n, now_us);
    if (ended)
        sched_end_sequence(s, q, now_us);
    return n;
}

static uint32_t result_of(sched *s, struct sequence *q, int err, const struct why *w,
                          uint64_t now_us)
{
    struct generation *g = q->gen;
    g->n_in_step--;
    if (!g->dead && err >= 0)
        return computed(s, q, now_us);
    q->n_rows = q->n_jobs = q->n_drafts = 0;
    if (g->dead)
        sched_reap(s, g);
    else
        sched_fail(s, g, err, w);
    return 0;
}

size_t sched_traced(const sched *s, struct sched_part *out, size_t max, uint32_t *rows)
{
    size_t n = 0;
    *rows = (uint32_t)s->n_rows;
    for (size_t i = 0; i < s->n_members && n < max; i++) {
        const struct sequence *q = s->members[i];
        const struct generation *g = q->gen;
        if (g->r.trace.on && !g->dead)
            out[n++] = (struct sched_part){.trace = g->r.trace,
                                           .arrived_us = g->arrived_us,
                                           .request = g->r.request,
                                           .rows = q->n_rows,
                                           .drafts = q->n_drafts};
    }
    return n;
}

void sched_result(sched *s, uint64_t now_us, int err, const struct why *w, uint64_t took_us)
{
    CHECK(s->busy);
    s->busy = false;
    sched_copied(s);
    s->counts.steps++;
    s->counts.rows += s->n_rows;
    uint32_t tokens = 0;
    for (size_t i = 0; i < s->n_members; i++)
        s->members[i]->gen->n_planned_ids = 0;
    for (size_t i = 0; i < s->n_members; i++)
        tokens += result_of(s, s->members[i], err, w, now_us);
    if (err >= 0)
        sched_step_took(s, tokens, took_us);
}
