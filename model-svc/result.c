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

/* Takes the token in; its certain text lands in s->scratch. True if the answer ends with it. */
static bool decide(sched *s, struct sequence *q, int32_t id)
{
    const struct generation *g = q->gen;
    sequence_append(q, id);
    buf_reset(&s->scratch);
    if (s->vocab.is_end(s->vocab.ctx, id)) {
        q->end = SEQ_STOP;
        q->end_text = stops_held(&q->stop);
        return true;
    }
    int hit = stops_feed(&g->stops, &q->stop, s->vocab.text(s->vocab.ctx, id), &s->scratch);
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

static void accept(sched *s, struct sequence *q, const struct sampled *out, uint64_t now_us)
{
    struct generation *g = q->gen;
    if (!g->first_us)
        g->first_us = now_us;
    g->last_us = now_us;
    g->credit--;
    bool ended = decide(s, q, out->id);
    outbox_delta(s->outbox, g->r.gateway,
                 &(struct sched_delta){.request = g->r.request,
                                       .attempt = g->r.attempt,
                                       .choice = q->choice,
                                       .position = q->n_ids - 1,
                                       .ids = &out->id,
                                       .n_ids = 1,
                                       .text = buf_slice(&s->scratch),
                                       .logprobs = g->r.sampling.want_logprob ? out : NULL,
                                       .cached_tokens = g->told_cached ? 0 : g->cached_tokens});
    g->told_cached = true;
    if (ended)
        sched_end_sequence(s, q, now_us);
}

static void computed(sched *s, struct sequence *q, uint32_t rows, uint64_t now_us)
{
    bool in_prompt = q->n_computed < q->n_prompt;
    sequence_computed(q, s->pool, q->n_computed + rows);
    fairq_charge(q->gen->flow, rows);
    if (in_prompt && q->n_computed >= q->n_prompt)
        share_with_siblings(s, q);
    if (q->job >= 0) {
        const struct sampled *out = &s->jobs[q->job].out;
        q->job = -1;
        accept(s, q, out, now_us);
    }
}

void sched_result(sched *s, uint64_t now_us, int err, const struct why *w, uint64_t took_us)
{
    CHECK(s->busy);
    s->busy = false;
    s->steps++;
    if (err >= 0)
        pace_step(&s->pace, s->n_decode_rows, (uint32_t)s->n_rows - s->n_decode_rows, took_us);
    for (size_t i = 0; i < s->n_members; i++)
        s->members[i]->gen->n_planned_ids = 0;
    for (size_t i = 0; i < s->n_members; i++) {
        struct sequence *q = s->members[i];
        struct generation *g = q->gen;
        uint32_t rows = q->n_rows;
        q->n_rows = 0;
        g->n_in_step--;
        if (g->dead)
            sched_reap(s, g);
        else if (err < 0)
            sched_fail(s, g, err, w);
        else
            computed(s, q, rows, now_us);
    }
}
