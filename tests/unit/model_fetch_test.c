/* KV that travels: what a scheduler asks caches for, what it does with what comes, and with what
 * does not; what it offers. The engine is the fake one, whose answers change with every wrong
 * block. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model-svc/kvbox.h"
#include "tests/unit/model_asks.h"

#define KEPT_MAX 4096

/* What all workers share: ids of blocks, by hash. */
struct cache {
    struct digest hash[KEPT_MAX];
    int32_t ids[KEPT_MAX][ENGINE_BLOCK_TOKENS];
    size_t n;
};

static struct sched_config with_caches(void)
{
    struct sched_config cfg = FAKE_CONFIG;
    cfg.fetch = true;
    return cfg;
}

static const int32_t *cached(const struct cache *c, const struct digest *hash)
{
    for (size_t i = 0; i < c->n; i++)
        if (digest_eq(&c->hash[i], hash))
            return c->ids[i];
    return NULL;
}

static size_t take_offers(struct world *w, struct cache *c)
{
    struct sched_offer o;
    size_t n = 0;
    for (; sched_offer_next(w->s, &o); n++) {
        assert_true(c->n < KEPT_MAX);
        assert_null(cached(c, &o.hash));
        c->hash[c->n] = o.hash;
        memcpy(c->ids[c->n++], &w->kv[o.block * ENGINE_BLOCK_TOKENS],
               ENGINE_BLOCK_TOKENS * sizeof(int32_t));
        sched_offer_end(w->s, &o, true);
    }
    return n;
}

/* Fills what the cache has, in order; returns how many. */
static uint32_t fill(struct world *w, const struct cache *c, const struct sched_fetch *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        const int32_t *ids = cached(c, &f->chain[f->first + i]);
        if (!ids)
            return i;
        memcpy(&w->kv[f->blocks[f->first + i] * ENGINE_BLOCK_TOKENS], ids,
               ENGINE_BLOCK_TOKENS * sizeof(int32_t));
    }
    return f->n;
}

static uint32_t answer_fetches(struct world *w, const struct cache *c)
{
    struct sched_fetch f;
    uint32_t n = 0;
    while (sched_fetch_next(w->s, &f)) {
        uint32_t got = fill(w, c, &f);
        sched_fetched(w->s, f.id, got / 2); /* as they come */
        sched_fetched(w->s, f.id, got);
        sched_fetch_end(w->s, f.id, 100 + 10 * got, 0);
        n += got;
    }
    return n;
}

static struct gen_request asked(uint64_t id, uint32_t n, uint64_t seed, uint32_t common)
{
    fake_prompt(prompts[id], n, seed, common);
    return fake_request(1, 100 + id, prompts[id], n);
}

/* A second worker does not compute what the first did, and says the same. */
static void a_second_worker_starts_warm(void **state UNUSED)
{
    struct sched_config cfg = with_caches();
    struct cache *c = xcalloc(1, sizeof *c);
    struct world *a = world_new(&cfg), *b = world_new(&cfg);
    struct gen_request first = asked(0, 200, 1, 160), second = asked(1, 190, 2, 160);
    assert_int_equal(world_ask(a, &first, NULL), 0);
    assert_int_equal(answer_fetches(a, c), 0);
    world_run(a);
    assert_true(take_offers(a, c) >= 200 / ENGINE_BLOCK_TOKENS);
    uint64_t cold = a->rows;
    assert_int_equal(world_ask(b, &second, NULL), 0);
    assert_false(world_step(b)); /* it waits */
    assert_int_equal(answer_fetches(b, c), 160 / ENGINE_BLOCK_TOKENS);
    world_run(b);
    assert_true(b->rows < cold - 150);
    assert_int_equal(answer_of(b, 1, 101, 0)->cached, 160);
    struct sched_load l = sched_load_now(b->s);
    assert_int_equal(l.kv.fetched, 160 / ENGINE_BLOCK_TOKENS);
    assert_true(l.fetch_tok_s > 0);
    all_alike(a, &first, 1);
    all_alike(b, &second, 1);
    everything_back(a);
    everything_back(b);
    /* what came from a cache is not sent there again */
    assert_true(take_offers(b, c) <= (190 - 160 + 40) / ENGINE_BLOCK_TOKENS + 1);
    world_free(a);
    world_free(b);
    free(c);
}

/* Nobody takes what is offered: what is new beyond the limit is dropped, and counted. */
static void offers_are_bounded(void **state UNUSED)
{
    enum { PROMPTS = 400, BLOCKS = 12 };
    struct sched_config cfg = with_caches();
    struct world *w = world_new(&cfg);
    struct cache *none = xcalloc(1, sizeof *none);
    for (int i = 0; i < PROMPTS; i++) {
        struct gen_request r = asked(0, BLOCKS * ENGINE_BLOCK_TOKENS + 8, 1000 + (uint64_t)i, 0);
        r.max_tokens = 1;
        r.request = 100 + (uint64_t)i;
        assert_int_equal(world_ask(w, &r, NULL), 0);
        answer_fetches(w, none);
        world_run(w);
    }
    struct sched_load l = sched_load_now(w->s);
    assert_true(l.kv.dropped >= PROMPTS * BLOCKS - 4096); /* OFFERS_MAX */
    struct sched_offer o;
    size_t left = 0;
    for (; sched_offer_next(w->s, &o); left++)
        sched_offer_end(w->s, &o, false);
    assert_true(left > 0 && left + sched_load_now(w->s).kv.dropped == PROMPTS * BLOCKS);
    everything_back(w);
    world_free(w);
    free(none);
}

/* Nothing there, a part, and a fetch that ends with an error: the rest is computed. */
static void what_does_not_come_is_computed(void **state UNUSED)
{
    for (size_t keep = 0; keep < 14; keep += 3) {
        struct sched_config cfg = with_caches();
        struct cache *c = xcalloc(1, sizeof *c);
        struct world *a = world_new(&cfg), *b = world_new(&cfg);
        struct gen_request r = asked(0, 220, 1, 0);
        assert_int_equal(world_ask(a, &r, NULL), 0);
        answer_fetches(a, c);
        world_run(a);
        take_offers(a, c);
        c->n = keep;
        assert_int_equal(world_ask(b, &r, NULL), 0);
        assert_int_equal(answer_fetches(b, c), keep);
        world_run(b);
        all_alike(b, &r, 1);
        everything_back(b);
        world_free(a);
        world_free(b);
        free(c);
    }
}

/* Two that want the same blocks fetch once; cancelled in the middle, nothing is lost. */
static void a_fetch_is_shared_and_outlives_who_asked(void **state UNUSED)
{
    struct sched_config cfg = with_caches();
    struct cache *c = xcalloc(1, sizeof *c);
    struct world *a = world_new(&cfg), *b = world_new(&cfg);
    struct gen_request r = asked(0, 220, 1, 0), same = asked(1, 220, 1, 0);
    assert_int_equal(world_ask(a, &r, NULL), 0);
    answer_fetches(a, c);
    world_run(a);
    take_offers(a, c);
    struct sched_fetch f, none;
    assert_int_equal(world_ask(b, &r, NULL), 0);
    assert_int_equal(world_ask(b, &same, NULL), 0);
    assert_true(sched_fetch_next(b->s, &f));
    assert_false(sched_fetch_next(b->s, &none));
    sched_cancel(b->s, 1, 100);
    uint32_t got = fill(b, c, &f);
    sched_fetched(b->s, f.id, got);
    sched_fetch_end(b->s, f.id, 100, 0);
    answer_fetches(b, c);
    world_run(b);
    assert_true(answer_of(b, 1, 101, 0)->cached >= 200);
    all_alike(b, &same, 1);
    everything_back(b);
    world_free(a);
    world_free(b);
    free(c);
}

/* Fetches hold no more than their share, and those who run go on beside them; a gateway that goes
 * takes its own along. */
static void fetches_leave_room(void **state UNUSED)
{
    struct sched_config cfg = with_caches();
    cfg.n_blocks = 40;
    cfg.n_context = 600;
    struct world *w = world_new(&cfg);
    struct gen_request many[6];
    struct sched_fetch f[6];
    size_t n = 0;
    for (size_t i = 0; i < 6; i++) {
        many[i] = asked(i, 250, i + 1, 0);
        assert_int_equal(world_ask(w, &many[i], NULL), 0);
    }
    uint32_t held = 0;
    for (; n < 6 && sched_fetch_next(w->s, &f[n]); n++)
        held += f[n].n;
    assert_true(n >= 1 && held <= cfg.n_blocks / 2);
    for (int i = 0; i < 3; i++)
        (void)world_step(w);
    for (size_t i = 0; i < n; i++)
        sched_fetch_end(w->s, f[i].id, 50, 0);
    world_run(w);
    all_alike(w, many, 6);
    everything_back(w);
    struct gen_request r = asked(7, 100, 77, 0);
    assert_int_equal(world_ask(w, &r, NULL), 0);
    sched_gateway_gone(w->s, 1);
    struct sched_fetch last;
    if (sched_fetch_next(w->s, &last))
        sched_fetch_end(w->s, last.id, 50, 0);
    everything_back(w);
    world_free(w);
}

/* Where fetching lately took longer than computing, it is computed; now and then it is tried again.
 */
static void a_slow_cache_is_left_alone(void **state UNUSED)
{
    struct sched_config cfg = with_caches();
    struct world *w = world_new(&cfg);
    struct cache *c = xcalloc(1, sizeof *c);
    w->row_us = 100;
    size_t asks = 0;
    for (uint64_t i = 0; i < 200; i++) {
        struct gen_request r = asked(i % 60, 100, 1000 + i, 0);
        r.request = 100 + i;
        r.max_tokens = 2;
        assert_int_equal(world_ask(w, &r, NULL), 0);
        struct sched_fetch f;
        while (sched_fetch_next(w->s, &f)) {
            asks++;
            if (i == 0) { /* once it had something, and took very long */
                sched_fetched(w->s, f.id, 1);
                memcpy(&w->kv[f.blocks[0] * ENGINE_BLOCK_TOKENS], r.prompt, 64);
            }
            sched_fetch_end(w->s, f.id, 10000000, 0);
        }
        world_run(w);
        world_forget(w);
    }
    struct sched_load l = sched_load_now(w->s);
    assert_true(asks >= 3 && asks < 20);
    assert_true(l.kv.recomputed > 100);
    everything_back(w);
    world_free(w);
    free(c);
}

/* A storm with fetches that end at any time, and blocks taken from under steps that are cancelled:
 * answers never change. */
static void nothing_changes_an_answer(void **state UNUSED)
{
    struct sched_config cfg = with_caches();
    cfg.n_blocks = 96;
    struct cache *c = xcalloc(1, sizeof *c);
    struct world *w = world_new(&cfg);
    static struct gen_request rs[60];
    uint64_t rnd = 5;
    for (size_t i = 0; i < 60; i++) {
        rs[i] =
            asked(i, 40 + (uint32_t)(fake_mix(i, 3) % 200), 1 + i % 7, 30 + 40 * (uint32_t)(i % 3));
        rs[i].sampling.seed = i;
    }
    struct sched_fetch open[60];
    size_t n_open = 0;
    for (size_t i = 0; i < 60 || n_open || sched_open(w->s); rnd = fake_mix(rnd, i)) {
        if (i < 60 && rnd % 2)
            assert_int_equal(world_ask(w, &rs[i++], NULL), 0);
        while (n_open < 60 && sched_fetch_next(w->s, &open[n_open]))
            n_open++;
        if (n_open && (rnd >> 8) % 3 == 0) {
            struct sched_fetch f = open[--n_open];
            uint32_t got = fill(w, c, &f);
            got = (rnd >> 12) % 4 == 0 ? got / 2 : got;
            sched_fetched(w->s, f.id, got);
            sched_fetch_end(w->s, f.id, 10 + rnd % 1000, 0);
        }
        (void)world_step(w);
        if ((rnd >> 16) % 3 == 0) {
            struct sched_offer o;
            while (sched_offer_next(w->s, &o)) {
                if (!cached(c, &o.hash) && c->n < KEPT_MAX) {
                    c->hash[c->n] = o.hash;
                    memcpy(c->ids[c->n++], &w->kv[o.block * ENGINE_BLOCK_TOKENS], 64);
                }
                sched_offer_end(w->s, &o, true);
            }
        }
    }
    all_alike(w, rs, 60);
    assert_true(sched_load_now(w->s).kv.fetched > 0);
    everything_back(w);
    world_free(w);
    free(c);
}

/* What the step under way writes to is nobody else's, whoever leaves meanwhile. */
static void blocks_of_a_step_stay_its_own(void **state UNUSED)
{
    struct sched_config cfg = with_caches();
    cfg.n_blocks = 24;
    cfg.n_context = 300;
    struct world *w = world_new(&cfg);
    struct gen_request r = asked(0, 128, 1, 0), other = asked(1, 300 - 50, 2, 0);
    assert_int_equal(world_ask(w, &r, NULL), 0);
    struct sched_fetch f;
    assert_true(sched_fetch_next(w->s, &f));
    sched_fetch_end(w->s, f.id, 50, 0);
    struct sched_work *work = sched_plan(w->s, w->now);
    assert_non_null(work);
    bool mine[24] = {false};
    for (uint32_t i = 0; i < work->step.seqs[0].n_blocks; i++)
        mine[work->step.seqs[0].blocks[i]] = true;
    sched_cancel(w->s, 1, 100);
    assert_int_equal(world_ask(w, &other, NULL), 0);
    assert_true(sched_fetch_next(w->s, &f));
    for (uint32_t i = 0; i < f.n; i++)
        assert_false(mine[f.blocks[f.first + i]]);
    sched_fetch_end(w->s, f.id, 50, 0);
    w->compute(w, work);
    sched_result(w->s, w->now, 0, NULL, 100);
    world_run(w);
    all_alike(w, &other, 1);
    everything_back(w);
    world_free(w);
}

/* ---- boxes ---- */

static void a_box_is_what_was_asked_for_or_nothing(void **state UNUSED)
{
    struct digest hash = digest_of((slice){0}, SLICE_LIT("h")),
                  other = digest_of((slice){0}, SLICE_LIT("o"));
    struct digest detail = kvbox_detail(&other, 1000), another = kvbox_detail(&hash, 1000);
    char box[KVBOX_HEAD_BYTES + 100];
    slice bytes;
    memset(box + KVBOX_HEAD_BYTES, 7, 100);
    kvbox_seal(box, 100, &hash, &detail, 3);
    slice whole = {box, sizeof box};
    assert_int_equal(kvbox_open(whole, &hash, &detail, 3, &bytes), 0);
    assert_int_equal(bytes.n, 100);
    assert_int_equal(kvbox_open(whole, &hash, &detail, 2, &bytes), ERR_PROTO);
    assert_int_equal(kvbox_open(whole, &other, &detail, 3, &bytes), ERR_PROTO);
    assert_int_equal(kvbox_open(whole, &hash, &another, 3, &bytes), ERR_PROTO);
    for (size_t n = 0; n < sizeof box; n++)
        assert_int_equal(kvbox_open((slice){box, n}, &hash, &detail, 3, &bytes), ERR_PROTO);
    for (size_t bit = 0; bit < 8 * sizeof box; bit++) {
        box[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_equal(kvbox_open(whole, &hash, &detail, 3, &bytes), ERR_PROTO);
        box[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_int_equal(kvbox_parts(KVBOX_PART_BYTES), 1);
    assert_int_equal(kvbox_parts((uint64_t)2 << 20), 3);
    assert_int_equal(kvbox_part_bytes((uint64_t)2 << 20, 2), (2 << 20) - 2 * KVBOX_PART_BYTES);
    assert_int_equal(kvbox_parts((uint64_t)1 << 40), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_worker_starts_warm),
        cmocka_unit_test(offers_are_bounded),
        cmocka_unit_test(what_does_not_come_is_computed),
        cmocka_unit_test(a_fetch_is_shared_and_outlives_who_asked),
        cmocka_unit_test(fetches_leave_room),
        cmocka_unit_test(a_slow_cache_is_left_alone),
        cmocka_unit_test(nothing_changes_an_answer),
        cmocka_unit_test(blocks_of_a_step_stay_its_own),
        cmocka_unit_test(a_box_is_what_was_asked_for_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
