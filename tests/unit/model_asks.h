/* Requests of all kinds for the fake engine, and what must hold of their answers. For the model_*
 * tests of cmocka. */
#ifndef NUNCHI_TEST_MODEL_ASKS_H
#define NUNCHI_TEST_MODEL_ASKS_H

#include "tests/unit/model_fake.h"

/* Each request's answer is what it is when nobody else is there. */
UNUSED static void all_alike(struct world *w, const struct gen_request *rs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct world *alone = world_alone(&rs[i]);
        for (size_t c = 0; c < rs[i].n_choices; c++) {
            const struct answer *x =
                answer_of(w, rs[i].gateway, rs[i].request, rs[i].choices[c].index);
            const struct answer *y =
                answer_of(alone, rs[i].gateway, rs[i].request, rs[i].choices[c].index);
            assert_true(x && y);
            assert_true(answer_same(x, y));
        }
        world_free(alone);
    }
}

#define MANY 16
#define PROMPT_MAX 300
static int32_t prompts[64][PROMPT_MAX];

UNUSED static void make_requests(struct gen_request *rs, size_t n, uint32_t n_shared)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t len = 1 + (uint32_t)(fake_mix(i, 99) % (PROMPT_MAX - n_shared - 1)) + n_shared;
        fake_prompt(prompts[i], len, i + 1, n_shared);
        rs[i] = fake_request(1 + i % 3, 100 + i, prompts[i], len);
        rs[i].sampling.temperature = i % 2 ? 1 : 0;
        rs[i].sampling.seed = i;
        rs[i].max_tokens = 20 + (uint32_t)i;
    }
}

UNUSED static void everything_back(struct world *w)
{
    struct sched_load l = sched_load_now(w->s);
    assert_int_equal(l.blocks_free, l.blocks);
    assert_int_equal(sched_open(w->s), 0);
    assert_int_equal(l.running + l.queued, 0);
}

#define STORM 64

struct storm {
    uint64_t rnd;
    struct gen_request rs[STORM];
    size_t asked;
    bool cancelled[STORM];
};

/* Something comes, or not: a request, a cancel, credit. */
static void stir(struct world *w, void *ctx)
{
    struct storm *s = ctx;
    uint64_t rnd = s->rnd = fake_mix(s->rnd, w->steps);
    if (s->asked < STORM && rnd % 3 == 0) {
        struct gen_request *r = &s->rs[s->asked++];
        r->priority = (int)(rnd / 5 % 3) - 1;
        r->n_choices = 1 + rnd / 23 % 3;
        r->choices[1].index = 1;
        r->choices[2].index = 2;
        r->credit = 1 + rnd / 31 % 30;
        r->sampling.want_logprob = rnd / 37 % 2;
        r->stops[0] = SLICE_LIT("opq");
        r->n_stops = rnd / 43 % 2;
        assert_int_equal(world_ask(w, r, NULL), 0);
    }
    if (s->asked && rnd / 41 % 11 == 0) {
        size_t i = rnd / 53 % s->asked;
        if (!answer_of(w, s->rs[i].gateway, s->rs[i].request, 0)->done)
            s->cancelled[i] = true;
        sched_cancel(w->s, s->rs[i].gateway, s->rs[i].request);
    }
    for (size_t i = 0; i < s->asked && rnd / 61 % 3 == 0; i++)
        sched_credit(w->s, s->rs[i].gateway, s->rs[i].request, rnd % 7);
}

/* Everything at once, at random, between steps and while one is computed, against the answers of
 * each request alone. */
UNUSED static void storm(uint64_t seed, uint32_t draft_max)
{
    struct storm s = {.rnd = seed};
    make_requests(s.rs, STORM, seed % 2 ? 48 : 0);
    struct sched_config cfg = FAKE_CONFIG;
    cfg.n_blocks = 40;
    cfg.n_context = 39 * 16;
    cfg.seqs_max = 12;
    cfg.step_tokens = 12 + (uint32_t)seed * 9;
    cfg.draft_max = draft_max;
    struct world *w = world_new(&cfg);
    w->meanwhile = stir;
    w->meanwhile_ctx = &s;
    while (s.asked < STORM || sched_open(w->s)) {
        stir(w, &s);
        world_step(w);
    }
    for (size_t i = 0; i < STORM; i++) {
        s.rs[i].credit = UINT64_MAX;
        if (!s.cancelled[i])
            all_alike(w, &s.rs[i], 1);
    }
    everything_back(w);
    world_free(w);
}

#endif
