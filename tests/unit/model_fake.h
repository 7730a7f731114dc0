/* A scheduler with an engine that takes microseconds: its "KV" is the token ids themselves, and its
 * logits are a hash of what the blocks hold, so a wrong block, copy or order changes the answer.
 * Shared by the model_* tests. */
#ifndef NUNCHI_TEST_MODEL_FAKE_H
#define NUNCHI_TEST_MODEL_FAKE_H

#include <stdio.h>
#include "model-svc/core.h"

#define FAKE_VOCAB 64
#define FAKE_END 0
#define FAKE_BLOCKS_MAX 4096
#define ANSWERS_MAX 512
#define FAKE_IDS_MAX 512

struct answer {
    uint64_t gateway, request;
    uint32_t choice;
    int32_t ids[FAKE_IDS_MAX];
    float
        gap[FAKE_IDS_MAX]; /* between the two most likely, where two alternatives were asked for */
    size_t n;
    buf text;
    bool done;
    int err;
    enum seq_end reason;
    buf stop;
    uint32_t cached, n_ids_told;
    uint64_t first_step;
};

struct world {
    sched *s;
    void (*compute)(struct world *w, struct sched_work *work);
    void *engine; /* compute's own */
    void (*meanwhile)(struct world *w,
                      void *ctx); /* what else happens while a step is computed; NULL: nothing */
    void *meanwhile_ctx;
    struct sched_config cfg;
    uint64_t now;
    int32_t kv[FAKE_BLOCKS_MAX * ENGINE_BLOCK_TOKENS];
    struct answer *answers;
    size_t n_answers;
    uint64_t steps, rows, batches;
    size_t rows_most;
    int fail_next;                     /* error of the next step */
    uint64_t step_us, row_us, busy_us; /* what steps cost, and have cost */
};

/* In how many of a hundred places an answer goes on as it did behind the same id before;
 * FAKE_NEW: every id is said again and again, and each time another comes after it (for 60 ids). */
#define FAKE_NEW 101
static unsigned fake_habit;

static uint64_t fake_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

static slice fake_bytes(void *ctx, int32_t id)
{
    static const char text[FAKE_VOCAB + 2] =
        "<>abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl";
    (void)ctx;
    return (slice){text + id, id < 2 ? 1 : 1 + (size_t)id % 3 % (size_t)(FAKE_VOCAB - id)};
}

static slice fake_text(void *ctx, int32_t id)
{
    if (id < 2)
        return (slice){0};
    return fake_bytes(ctx, id);
}

static bool fake_is_end(void *ctx, int32_t id)
{
    (void)ctx;
    return id == FAKE_END;
}

static struct answer *answer_of(struct world *w, uint64_t gateway, uint64_t request,
                                uint32_t choice)
{
    for (size_t i = 0; i < w->n_answers; i++) {
        struct answer *a = &w->answers[i];
        if (a->gateway == gateway && a->request == request && a->choice == choice)
            return a;
    }
    return NULL;
}

static struct answer *answer_open(struct world *w, uint64_t gateway, uint64_t request,
                                  uint32_t choice)
{
    CHECK(w->n_answers < ANSWERS_MAX);
    struct answer *a = &w->answers[w->n_answers++];
    *a = (struct answer){.gateway = gateway, .request = request, .choice = choice};
    return a;
}

static void on_deltas(void *ctx, uint64_t gateway, const struct sched_delta *d, size_t n)
{
    struct world *w = ctx;
    w->batches++;
    for (size_t i = 0; i < n; i++) {
        struct answer *a = answer_of(w, gateway, d[i].request, d[i].choice);
        CHECK(a && !a->done && d[i].position == a->n && a->n + d[i].n_ids <= FAKE_IDS_MAX);
        for (size_t k = 0; k < d[i].n_ids; k++) {
            CHECK(!d[i].logprobs || w->engine || d[i].logprobs[k].logprob == -(float)d[i].ids[k]);
            if (d[i].logprobs && d[i].logprobs[k].n_top > 1)
                a->gap[a->n] = d[i].logprobs[k].top[0].logprob - d[i].logprobs[k].top[1].logprob;
            a->ids[a->n++] = d[i].ids[k];
        }
        buf_put_slice(&a->text, d[i].text);
        if (!a->first_step)
            a->first_step = w->steps;
        a->cached += d[i].cached_tokens;
    }
}

static void on_done(void *ctx, uint64_t gateway, const struct sched_done *d)
{
    struct world *w = ctx;
    for (size_t i = 0; i < d->n_ends; i++) {
        struct answer *a = answer_of(w, gateway, d->request, d->ends[i].choice);
        CHECK(a && !a->done);
        a->done = true;
        a->reason = d->ends[i].reason;
        a->n_ids_told = d->ends[i].n_ids;
        buf_put_slice(&a->text, d->ends[i].text);
        buf_put_slice(&a->stop, d->ends[i].stop);
    }
}

static void on_error(void *ctx, uint64_t gateway, uint64_t request, uint32_t attempt, int err,
                     const struct why *why)
{
    struct world *w = ctx;
    (void)attempt;
    (void)why;
    for (size_t i = 0; i < w->n_answers; i++)
        if (w->answers[i].gateway == gateway && w->answers[i].request == request)
            w->answers[i].err = err;
}

static const struct sched_config FAKE_CONFIG = {.n_blocks = 1024,
                                                .n_context = 1024,
                                                .seqs_max = 32,
                                                .step_tokens = 128,
                                                .queue_max = 256,
                                                .draft_max = 8,
                                                .step_target_us = 100000};

static struct world *world_new_on(const struct sched_config *cfg, const struct sched_vocab *words,
                                  void (*compute)(struct world *w, struct sched_work *work),
                                  void *own)
{
    struct world *w = xcalloc(1, sizeof *w);
    w->cfg = *cfg;
    w->now = 1000;
    w->step_us = 1000;
    w->row_us = 10;
    w->answers = xcalloc(ANSWERS_MAX, sizeof *w->answers);
    w->compute = compute;
    w->engine = own;
    struct sched_out out = {.ctx = w, .deltas = on_deltas, .done = on_done, .error = on_error};
    w->s = sched_new(cfg, words, &out);
    return w;
}

static void fake_compute(struct world *w, struct sched_work *work);

static struct world *world_new(const struct sched_config *cfg)
{
    static const int32_t ends[] = {FAKE_END};
    CHECK(cfg->n_blocks <= FAKE_BLOCKS_MAX);
    struct sched_vocab v = {.text = fake_text,
                            .bytes = fake_bytes,
                            .is_end = fake_is_end,
                            .ends = ends,
                            .n_ends = 1,
                            .n = FAKE_VOCAB};
    struct world *w = world_new_on(cfg, &v, fake_compute, NULL);
    memset(w->kv, 0xff, sizeof w->kv);
    return w;
}

static void world_forget(struct world *w)
{
    for (size_t i = 0; i < w->n_answers; i++) {
        buf_clear(&w->answers[i].text);
        buf_clear(&w->answers[i].stop);
    }
    w->n_answers = 0;
}

static void world_free(struct world *w)
{
    sched_free(w->s);
    world_forget(w);
    free(w->answers);
    free(w);
}

/* ---- the engine ---- */

static int32_t *fake_slot(struct world *w, const struct engine_seq *q, uint32_t position)
{
    uint32_t i = position / ENGINE_BLOCK_TOKENS;
    CHECK(i < q->n_blocks && q->blocks[i] < w->cfg.n_blocks);
    return &w->kv[q->blocks[i] * ENGINE_BLOCK_TOKENS + position % ENGINE_BLOCK_TOKENS];
}

static int32_t fake_news(size_t position)
{
    return 2 + (int32_t)(position * (position + 1) / 2 % 61);
}

/* The next token after `last`, with `h` for all there is: never the end one in a row that forbids
 * it. */
static int32_t fake_pick(const struct sample_params *p, uint64_t h, int32_t last, uint32_t choice,
                         size_t position)
{
    if (fake_habit == FAKE_NEW)
        return fake_news(position);
    h = fake_mix(h, position);
    if (p->temperature > 0)
        h = fake_mix(fake_mix(h, p->seed), choice);
    if ((h >> 50) % 100 < fake_habit)
        h = fake_mix((uint64_t)last, 3);
    int32_t id = (int32_t)((h >> 17) % FAKE_VOCAB);
    /* the end is as rare as in real answers */
    if (id == FAKE_END && (p->forbid_ends || (h >> 40) % 4))
        id = 2;
    return id;
}

static uint64_t fake_state(struct world *w, const struct engine_seq *q, uint32_t until)
{
    uint64_t h = 1;
    for (uint32_t p = 0; p < until; p++)
        h = fake_mix(h, (uint64_t)*fake_slot(w, q, p));
    return h;
}

static void fake_compute(struct world *w, struct sched_work *work)
{
    for (size_t i = 0; i < work->n_copies; i++) {
        const struct seq_copy *c = &work->copies[i];
        memcpy(&w->kv[c->to * ENGINE_BLOCK_TOKENS], &w->kv[c->from * ENGINE_BLOCK_TOKENS],
               c->n_tokens * sizeof(int32_t));
    }
    for (size_t i = 0; i < work->step.n_rows; i++) {
        const struct engine_row *r = &work->step.rows[i];
        CHECK(r->position < w->cfg.n_context && r->attend_until == r->position + 1);
        *fake_slot(w, &work->step.seqs[r->seq], r->position) = r->token;
    }
    for (size_t i = 0; i < work->n_jobs; i++) {
        struct sample_job *j = &work->jobs[i];
        const struct engine_row *r = &work->step.rows[j->row];
        CHECK(r->want_logits);
        const struct engine_seq *q = &work->step.seqs[r->seq];
        CHECK(r->attend_until == j->in.n_prompt + j->in.n_generated);
        for (uint32_t k = 0; k < j->in.n_generated; k++)
            CHECK(j->in.generated[k] == *fake_slot(w, q, (uint32_t)j->in.n_prompt + k));
        uint64_t h = fake_state(w, q, r->attend_until);
        int32_t id = fake_pick(j->params, h, r->token, j->in.choice, j->in.n_generated);
        j->out = (struct sampled){.id = id, .logprob = -(float)id};
    }
    w->rows += work->step.n_rows;
    w->rows_most = work->step.n_rows > w->rows_most ? work->step.n_rows : w->rows_most;
}

/* One step; false when there is nothing to compute. */
static bool world_step(struct world *w)
{
    struct sched_work *work = sched_plan(w->s, w->now);
    sched_flush(w->s);
    if (!work)
        return false;
    if (w->meanwhile)
        w->meanwhile(w, w->meanwhile_ctx);
    w->compute(w, work);
    w->steps++;
    uint64_t took = w->step_us + w->row_us * work->step.n_rows;
    w->now += took;
    w->busy_us += took;
    int err = w->fail_next;
    w->fail_next = 0;
    sched_result(w->s, w->now, err, NULL, took);
    sched_flush(w->s);
    return true;
}

static void world_run(struct world *w)
{
    while (world_step(w))
        CHECK(w->steps < 10000000);
}

/* ---- requests ---- */

/* A prompt of n ids that is a function of `seed`; the first `shared` ids are the same for all. */
UNUSED static void fake_prompt(int32_t *ids, uint32_t n, uint64_t seed, uint32_t n_shared)
{
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)(2 + (fake_mix(fake_mix(7, i < n_shared ? 0 : seed), i) >> 20) %
                                   (FAKE_VOCAB - 2));
}

static struct gen_request fake_request(uint64_t gateway, uint64_t request, const int32_t *prompt,
                                       uint32_t n)
{
    static const char tenant[GENERATE_TENANT_BYTES];
    return (struct gen_request){
        .gateway = gateway,
        .request = request,
        .tenant = {tenant, sizeof tenant},
        .prompt = prompt,
        .n_prompt = n,
        .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 42},
        .choices = {{.index = 0}},
        .n_choices = 1,
        .max_tokens = 40,
        .credit = UINT64_MAX};
}

/* Copies what r points to, as the parser's arena would hold it. */
static int world_ask(struct world *w, const struct gen_request *r, uint32_t *retry_ms)
{
    uint32_t retry = 0;
    arena *a = arena_new(0);
    struct gen_request c = *r;
    int32_t *ids = arena_get(a, (size_t)r->n_prompt * sizeof *ids);
    memcpy(ids, r->prompt, (size_t)r->n_prompt * sizeof *ids);
    c.prompt = ids;
    c.client = arena_slice(a, r->client);
    for (size_t i = 0; i < r->n_stops; i++)
        c.stops[i] = arena_slice(a, r->stops[i]);
    for (size_t i = 0; i < r->n_choices; i++) {
        struct answer *o = answer_open(w, r->gateway, r->request, r->choices[i].index);
        memcpy(o->ids, r->choices[i].ids ? r->choices[i].ids : ids,
               r->choices[i].n_ids * sizeof *o->ids);
        o->n = r->choices[i].n_ids;
    }
    int err = sched_take_request(w->s, w->now, &c, a, retry_ms ? retry_ms : &retry, NULL);
    if (err < 0)
        arena_free(a);
    return err;
}

/* What the request brings when nobody else is there: one sequence, an engine of its own, no
 * guesses.
 */
UNUSED static struct world *world_alone(const struct gen_request *r)
{
    struct sched_config cfg = FAKE_CONFIG;
    cfg.draft_max = 0;
    struct world *w = world_new(&cfg);
    CHECK(world_ask(w, r, NULL) == 0);
    world_run(w);
    return w;
}

static bool answer_same(const struct answer *a, const struct answer *b)
{
    return a->done && b->done && a->n == b->n &&
           memcmp(a->ids, b->ids, a->n * sizeof a->ids[0]) == 0 &&
           slice_eq(buf_slice(&a->text), buf_slice(&b->text)) && a->reason == b->reason &&
           a->n_ids_told == b->n_ids_told && slice_eq(buf_slice(&a->stop), buf_slice(&b->stop));
}

#endif
