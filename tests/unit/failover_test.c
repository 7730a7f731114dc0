/* The gateway's core and the workers' scheduler together, with workers that die after any message:
 * what the client hears is what it would have heard. The engine is a hash of everything before, so
 * a token that is lost, doubled or changed changes all that follow. */
#include "tests/unit/gateway_fake.h"

#include "common/base/list.h"
#include "model-svc/reply.h"

#define VOCAB 64
#define BLOCKS 256
#define FIRST_PEER 6 /* of the workers: they take turns at these ids */
#define LAST_PEER 15

/* ---- a worker ---- */

struct told { /* a message on its way to the gateway */
    struct list link;
    int type;
    uint16_t flags;
    uint64_t request;
    buf body;
};

struct node {
    uint64_t peer;
    sched *s;
    struct sched_vocab words;
    int32_t kv[BLOCKS * ENGINE_BLOCK_TOKENS];
    struct list told;
    arena *scratch;
    size_t n_read; /* of the world's sent */
    uint64_t steps;
    size_t n_alone; /* steps that held one request */
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

static slice word_bytes(void *ctx UNUSED, int32_t id)
{
    static const char text[] =
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz가나다라마바사아자차카타파하";
    return (slice){text + id % 50, 1 + (size_t)(id % 3)}; /* characters come in pieces, too */
}

static bool word_is_end(void *ctx UNUSED, int32_t id)
{
    return id == 0;
}

static void tell(struct node *n, int type, uint16_t flags, uint64_t request, buf *body)
{
    struct told *t = xcalloc(1, sizeof *t);
    *t = (struct told){.type = type, .flags = flags, .request = request, .body = *body};
    *body = (buf){0};
    list_append(&n->told, &t->link);
}

static void node_deltas(void *ctx, uint64_t gateway UNUSED, const struct sched_delta *d, size_t n_d)
{
    struct node *n = ctx;
    for (size_t i = 0; i < n_d; i++) { /* one by one: a death between any two */
        buf body = {0};
        reply_deltas(&n->words, &d[i], 1, n->scratch, &body);
        tell(n, WIRE_CHUNK, WIRE_MANY, 0, &body);
    }
}

static void node_done(void *ctx, uint64_t gateway UNUSED, const struct sched_done *d)
{
    struct node *n = ctx;
    struct digest numerics = {{1, 2, 3}};
    buf body = {0};
    reply_done(d, &numerics, n->scratch, &body);
    tell(n, WIRE_DONE, 0, d->request, &body);
}

static void node_error(void *ctx, uint64_t gateway UNUSED, uint64_t request,
                       uint32_t attempt UNUSED, int err, const struct why *w)
{
    struct node *n = ctx;
    buf body = {0};
    reply_error(err, w, 0, n->scratch, &body);
    tell(n, WIRE_ERROR, 0, request, &body);
}

static struct node *node_new(struct world *w, uint64_t peer)
{
    static const int32_t ends[] = {0};
    struct node *n = xcalloc(1, sizeof *n);
    n->peer = peer;
    n->scratch = arena_new(0);
    n->words = (struct sched_vocab){.text = word_bytes,
                                    .bytes = word_bytes,
                                    .is_end = word_is_end,
                                    .ends = ends,
                                    .n_ends = 1,
                                    .n = VOCAB};
    n->n_read = w->n_sent;
    list_init(&n->told);
    struct sched_config cfg = {.n_blocks = BLOCKS,
                               .n_context = 1024,
                               .seqs_max = 16,
                               .step_tokens = 64,
                               .queue_max = 64,
                               .draft_max = 4,
                               .step_target_us = 100000};
    struct sched_out out = {n, node_deltas, node_done, node_error};
    n->s = sched_new(&cfg, &n->words, &out);
    up(w, peer, "model", "m", NUMERICS, 8);
    return n;
}

static void node_free(struct node *n)
{
    for (struct list *it; (it = list_pop(&n->told));) {
        struct told *t = CONTAINER_OF(it, struct told, link);
        buf_clear(&t->body);
        free(t);
    }
    sched_free(n->s);
    arena_free(n->scratch);
    free(n);
}

static void node_takes(struct node *n, struct world *w, const struct sent *s)
{
    static const struct gen_limits limits = {{"m", 1}, VOCAB, 1024};
    struct why why;
    if (s->head.type == WIRE_CANCEL)
        sched_cancel(n->s, 1, s->head.request);
    if (s->head.type == WIRE_CREDIT) {
        const Nunchi__Credit *c = body_of(w, s, &nunchi__credit__descriptor);
        sched_credit(n->s, 1, s->head.request, c->amount);
    }
    if (s->head.type != WIRE_REQUEST)
        return;
    struct wire_msg m = {.head = s->head, .body = buf_slice(&s->body), .n_frames = s->n_frames};
    for (size_t i = 0; i < s->n_frames; i++)
        m.frames[i] = buf_slice(&s->frames[i]);
    arena *a = arena_new(gen_request_budget(&m, &limits));
    struct gen_request r;
    uint32_t retry;
    assert_int_equal(gen_request_parse(&m, &limits, a, &r, &why), 0);
    r.gateway = 1;
    assert_int_equal(sched_take_request(n->s, w->now, &r, a, &retry, &why), 0);
}

static void compute(struct node *n, struct sched_work *work)
{
    const size_t B = ENGINE_BLOCK_TOKENS;
    for (size_t i = 0; i < work->n_copies; i++)
        memcpy(&n->kv[work->copies[i].to * B], &n->kv[work->copies[i].from * B],
               work->copies[i].n_tokens * sizeof *n->kv);
    for (size_t i = 0; i < work->step.n_rows; i++) {
        const struct engine_row *r = &work->step.rows[i];
        n->kv[work->step.seqs[r->seq].blocks[r->position / B] * B + r->position % B] = r->token;
    }
    for (size_t i = 0; i < work->n_jobs; i++) {
        struct sample_job *j = &work->jobs[i];
        const struct engine_row *r = &work->step.rows[j->row];
        uint64_t h = 1;
        for (uint32_t p = 0; p < r->attend_until; p++)
            h = mix(h, (uint64_t)n->kv[work->step.seqs[r->seq].blocks[p / B] * B + p % B]);
        /* everything that a sampler looks at, so that all of it must arrive */
        h = mix(mix(h, j->params->seed), (uint64_t)(j->params->temperature * 1000) + j->in.choice);
        h = mix(h, (uint64_t)(j->params->presence_penalty * 100 +
                              j->params->frequency_penalty * 10 + j->params->repetition_penalty));
        h = mix(h, j->params->n_bias + j->in.n_generated);
        int32_t id = (int32_t)((h >> 17) % VOCAB);
        if (id == 0 && (j->params->forbid_ends || (h >> 40) % 3))
            id = 5;
        j->out = (struct sampled){.id = id, .logprob = -(float)id, .n_top = j->params->n_logprobs};
        for (uint32_t t = 0; t < j->out.n_top; t++)
            j->out.top[t].id = (int32_t)((h >> t) % VOCAB);
    }
}

static void node_step(struct node *n, struct world *w)
{
    for (; n->n_read < w->n_sent; n->n_read++)
        if (w->sent[n->n_read].peer == n->peer)
            node_takes(n, w, &w->sent[n->n_read]);
    struct sched_work *work = sched_plan(n->s, w->now);
    if (work) {
        compute(n, work);
        n->steps++;
        n->n_alone += work->step.n_seqs == 1;
        sched_result(n->s, w->now, 0, NULL, 100);
    }
    sched_flush(n->s);
}

/* ---- a client that writes everything down ---- */

struct client {
    buf said[CHOICES_MAX]; /* text and log probabilities, in order */
    size_t n_over;
    struct gw_usage usage;
    struct gw_fail fail;
    uint64_t id;
};

static void c_start(void *ctx UNUSED, const struct gw_start *s UNUSED)
{
}

static void c_delta(void *ctx, const struct gw_delta *d)
{
    struct client *c = ctx;
    buf_put_slice(&c->said[d->choice], d->text);
    for (size_t i = 0; i < d->n_logprobs; i++) {
        buf_printf(&c->said[d->choice], "{%g %zu", (double)d->logprobs[i]->logprob,
                   d->logprobs[i]->n_top);
        for (size_t t = 0; t < d->logprobs[i]->n_top; t++)
            buf_printf(&c->said[d->choice], " %d", d->logprobs[i]->top[t]->id);
        buf_put_str(&c->said[d->choice], "}");
    }
}

static void c_end(void *ctx, uint32_t choice, enum gw_end why)
{
    buf_printf(&((struct client *)ctx)->said[choice], "[end %d]", (int)why);
}

static void c_done(void *ctx, const struct gw_usage *u)
{
    struct client *c = ctx;
    c->usage = *u;
    c->n_over++;
}

static void c_failed(void *ctx, const struct gw_fail *f)
{
    struct client *c = ctx;
    c->fail = *f;
    c->n_over++;
}

static bool c_ready(void *ctx UNUSED)
{
    return true;
}

static const struct gw_client_ops WRITER = {on_waiting, c_start,  c_delta, c_end,
                                            c_done,     c_failed, c_ready};

static void begin(struct world *w, const char *more, struct client *c)
{
    struct gw_request *r;
    struct why why;
    struct gw_fail f;
    buf json = {0};
    *c = (struct client){0};
    buf_printf(&json, ASK "%s}", more);
    assert_int_equal(openai_parse(OPENAI_CHAT, buf_slice(&json), &r, &why), 0);
    r->no_store = true;
    buf_clear(&json);
    assert_int_equal(gw_ask(w->g, w->now, r, &WRITER, c, &c->id, &f), 0);
    tokenised(w);
}

static void client_clear(struct client *c)
{
    for (size_t i = 0; i < CHOICES_MAX; i++)
        buf_clear(&c->said[i]);
}

/* ---- a run: the worker dies after every k-th message, and another comes ---- */

static uint64_t next_peer(uint64_t peer)
{
    return peer == LAST_PEER ? FIRST_PEER : peer + 1;
}

static struct node *replace(struct world *w, struct node *n)
{
    uint64_t peer = next_peer(n->peer);
    gw_peer_down(w->g, w->now, n->peer, true);
    node_free(n);
    return node_new(w, peer);
}

static size_t run(const char *more, size_t k, struct client *c)
{
    static struct world w;
    size_t messages = 0;
    world_new(&w, NULL);
    up(&w, TOKENIZER, "tokenizer", "m", NUMERICS, 8);
    struct node *n = node_new(&w, FIRST_PEER);
    begin(&w, more, c);
    for (int rounds = 0; c->n_over == 0; rounds++) {
        assert_true(rounds < 20000);
        w.now += 1000;
        gw_tick(w.g, w.now);
        node_step(n, &w);
        bool died = false;
        for (struct list *it; !died && (it = list_pop(&n->told));) {
            struct told *t = CONTAINER_OF(it, struct told, link);
            struct wire_msg m = {
                .head = {.type = (uint8_t)t->type, .flags = t->flags, .request = t->request},
                .body = buf_slice(&t->body)};
            gw_peer_msg(w.g, w.now, n->peer, &m);
            buf_clear(&t->body);
            free(t);
            died = ++messages % k == 0;
        }
        if (died && c->n_over == 0)
            n = replace(&w, n);
    }
    node_free(n);
    world_free(&w);
    return messages;
}

static void assert_same(const struct client *a, const struct client *b, const char *more, size_t k)
{
    for (size_t i = 0; i < CHOICES_MAX; i++)
        if (!slice_eq(buf_slice(&a->said[i]), buf_slice(&b->said[i])))
            fail_msg("%s, dying after each %zu: choice %zu\n%.*s\n%.*s", more, k, i,
                     (int)a->said[i].n, a->said[i].p, (int)b->said[i].n, b->said[i].p);
    assert_int_equal(a->usage.completion_tokens, b->usage.completion_tokens);
    assert_int_equal(a->usage.prompt_tokens, b->usage.prompt_tokens);
    assert_false(b->usage.numerics_changed);
}

static const char *const KINDS[] = {
    ",\"seed\":1,\"max_tokens\":60,\"temperature\":0",
    ",\"seed\":7,\"max_tokens\":60,\"temperature\":0.8,\"ignore_eos\":true",
    ",\"seed\":3,\"max_tokens\":60,\"presence_penalty\":0.5,\"frequency_penalty\":0.3,\"repetition_"
    "penalty\":1.2,\"ignore_eos\":true",
    ",\"seed\":4,\"max_tokens\":60,\"stop\":[\"nop\",\"fg\",\"가나\",\"xyza\"],\"ignore_eos\":true",
    ",\"seed\":5,\"max_tokens\":40,\"logprobs\":true,\"top_logprobs\":3,\"ignore_eos\":true",
    ",\"seed\":6,\"max_tokens\":30,\"n\":3,\"temperature\":1",
    ",\"seed\":8,\"max_tokens\":25,\"n\":4,\"logprobs\":true,\"stop\":[\"mn\",\"hi\"],\"logit_"
    "bias\":{\"5\":1.5},\"ignore_eos\":true",
    ",\"seed\":9,\"max_tokens\":1",
};

static void the_same_bytes_whenever_a_worker_dies(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(KINDS); i++) {
        struct client whole, cut;
        size_t messages = run(KINDS[i], SIZE_MAX, &whole);
        assert_true(whole.fail.err == 0 && messages > 0);
        /* after each one it would never come to a token with k = 1 only if nothing were kept */
        for (size_t k = 1; k <= messages; k++) {
            (void)run(KINDS[i], k, &cut);
            if (cut.fail.err)
                fail_msg("%s, dying after each %zu: %s", KINDS[i], k, cut.fail.why.text);
            assert_same(&whole, &cut, KINDS[i], k);
            client_clear(&cut);
        }
        client_clear(&whole);
    }
}

/* ---- requests that workers die of ---- */

static void deliver(struct node *n, struct world *w)
{
    for (struct list *it; (it = list_pop(&n->told));) {
        struct told *t = CONTAINER_OF(it, struct told, link);
        struct wire_msg m = {
            .head = {.type = (uint8_t)t->type, .flags = t->flags, .request = t->request},
            .body = buf_slice(&t->body)};
        gw_peer_msg(w->g, w->now, n->peer, &m);
        buf_clear(&t->body);
        free(t);
    }
}

#define POISON 66 /* its seed */

/* The poisonous request has come to the node, and it has not computed since. */
static bool has_poison(struct node *n, struct world *w, bool *alone)
{
    for (size_t i = n->n_read; i < w->n_sent; i++)
        if (w->sent[i].peer == n->peer && w->sent[i].head.type == WIRE_REQUEST) {
            const Nunchi__Generate *g = body_of(w, &w->sent[i], &nunchi__generate__descriptor);
            *alone = g->alone;
            if (g->sampling->seed == POISON)
                return true;
        }
    return false;
}

/* Workers die of one question, others are beside it: they are delayed, and it is refused. */
static void a_poisonous_request_ends_and_the_others_do_not(void **state UNUSED)
{
    static struct world w;
    struct gw_config cfg = {.requests_max = 64,
                            .queue_max = 16,
                            .request_ms = 60000,
                            .worker_wait_ms = 5000,
                            .condemned_ms = 60000};
    struct client poison, good[3], whole;
    (void)run(KINDS[1], SIZE_MAX, &whole);
    world_new(&w, &cfg);
    up(&w, TOKENIZER, "tokenizer", "m", NUMERICS, 8);
    struct node *n = node_new(&w, FIRST_PEER);
    begin(&w, ",\"seed\":66,\"max_tokens\":5", &poison);
    for (size_t i = 0; i < 3; i++)
        begin(&w, KINDS[1], &good[i]);
    size_t deaths = 0, alone_deaths = 0;
    for (int rounds = 0; poison.n_over + good[0].n_over + good[1].n_over + good[2].n_over < 4;
         rounds++) {
        assert_true(rounds < 5000);
        bool alone;
        w.now += 1000;
        gw_tick(w.g, w.now);
        if (has_poison(n, &w, &alone)) {
            deaths++;
            alone_deaths += alone;
            n = replace(&w, n);
            continue;
        }
        node_step(n, &w);
        deliver(n, &w);
    }
    assert_int_equal(deaths, SUSPECT_DEATHS + 1);
    assert_int_equal(alone_deaths, 1);
    assert_int_equal(poison.fail.err, ERR_INTERNAL);
    assert_string_equal(poison.fail.code, "request_stops_workers");
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(good[i].fail.err, 0);
        assert_same(&whole, &good[i], KINDS[1], 0);
        client_clear(&good[i]);
    }
    /* asked again it is refused at once; another question is not */
    size_t before = count_to(&w, n->peer, WIRE_REQUEST);
    begin(&w, ",\"seed\":66,\"max_tokens\":5", &poison);
    assert_int_equal(poison.fail.err, ERR_INTERNAL);
    assert_int_equal(count_to(&w, n->peer, WIRE_REQUEST), before);
    begin(&w, ",\"seed\":67,\"max_tokens\":5", &good[0]);
    assert_int_equal(count_to(&w, n->peer, WIRE_REQUEST), before + 1);
    gw_cancel(w.g, w.now, good[0].id);
    /* and after a while it is tried again */
    turn(&w, 61000);
    begin(&w, ",\"seed\":66,\"max_tokens\":5", &poison);
    assert_int_equal(poison.n_over, 0);
    gw_cancel(w.g, w.now, poison.id);
    client_clear(&whole);
    node_free(n);
    world_free(&w);
}

/* Workers that are drained, and answers that move on, are no signs of poison. */
static void workers_that_go_do_not_count(void **state UNUSED)
{
    static struct world w;
    struct client c;
    world_new(&w, NULL);
    up(&w, TOKENIZER, "tokenizer", "m", NUMERICS, 8);
    up(&w, FIRST_PEER, "model", "m", NUMERICS, 8);
    begin(&w, ",\"seed\":66,\"max_tokens\":5", &c);
    uint64_t peer = FIRST_PEER;
    for (int i = 0; i < 5; i++) {
        gw_peer_down(w.g, w.now, peer, false);
        peer = next_peer(peer);
        up(&w, peer, "model", "m", NUMERICS, 8);
        turn(&w, 300);
        const Nunchi__Generate *g =
            body_of(&w, last_to(&w, peer, WIRE_REQUEST), &nunchi__generate__descriptor);
        assert_false(g->alone);
    }
    assert_int_equal(c.n_over, 0);
    gw_cancel(w.g, w.now, c.id);
    world_free(&w);
}

/* ---- alone ---- */

static void take(struct node *n, struct world *w, uint64_t id, bool alone, uint32_t n_prompt)
{
    static int32_t prompt[200];
    arena *a = arena_new(0);
    struct gen_request r = {.gateway = 1,
                            .request = id,
                            .tenant = {(const char *)NUMERICS, 32},
                            .prompt = prompt,
                            .n_prompt = n_prompt,
                            .sampling = {.repetition_penalty = 1, .forbid_ends = true},
                            .n_choices = 1,
                            .max_tokens = 30,
                            .credit = 1000,
                            .alone = alone};
    uint32_t retry;
    assert_int_equal(sched_take_request(n->s, w->now, &r, a, &retry, NULL), 0);
}

/* Until it has brought a token, a suspect is computed with nobody beside it; then it is one of
 * many. */
static void a_suspect_takes_nobody_along(void **state UNUSED)
{
    static struct world w;
    world_new(&w, NULL);
    struct node *n = node_new(&w, FIRST_PEER);
    take(n, &w, 1, false, 10);
    node_step(n, &w);
    take(n, &w, 2, true, 150); /* three steps of its own */
    take(n, &w, 3, false, 10);
    bool told_alone = false;
    for (int i = 0; i < 3; i++) {
        struct sched_work *work = sched_plan(n->s, w.now);
        assert_non_null(work);
        assert_int_equal(work->step.n_seqs, 1);
        assert_true(work->step.n_rows > 1);
        told_alone |= work->n_jobs > 0;
        compute(n, work);
        sched_result(n->s, w.now, 0, NULL, 100);
        sched_flush(n->s);
    }
    assert_true(told_alone);
    struct sched_work *work = sched_plan(n->s, w.now);
    assert_int_equal(work->step.n_seqs, 3);
    compute(n, work);
    sched_result(n->s, w.now, 0, NULL, 100);
    node_free(n);
    world_free(&w);
}

/* ---- a worker that lives and computes nothing ---- */

static void beat(struct world *w, uint64_t peer, uint64_t steps, uint32_t running)
{
    Nunchi__Heartbeat h = NUNCHI__HEARTBEAT__INIT;
    h.slots = 8;
    h.steps = steps;
    h.running = running;
    gw_peer_changed(w->g, w->now, peer, NULL, &h);
}

static void a_stuck_worker_is_given_up(void **state UNUSED)
{
    static struct world w;
    struct client c;
    struct gw_config cfg = {.requests_max = 64,
                            .queue_max = 16,
                            .request_ms = 600000,
                            .worker_wait_ms = 5000,
                            .stall_ms = 10000};
    world_new(&w, &cfg);
    up(&w, TOKENIZER, "tokenizer", "m", NUMERICS, 8);
    up(&w, FIRST_PEER, "model", "m", NUMERICS, 8);
    begin(&w, ",\"seed\":1,\"max_tokens\":5", &c);
    up(&w, FIRST_PEER + 1, "model", "m", NUMERICS, 8);
    for (uint64_t i = 0; i < 40; i++) { /* slow, but it moves */
        beat(&w, FIRST_PEER, 5 + i / 15, 1);
        turn(&w, 500);
    }
    assert_int_equal(count_to(&w, FIRST_PEER + 1, WIRE_REQUEST), 0);
    for (int i = 0; i < 25; i++) {
        beat(&w, FIRST_PEER, 7, 1);
        turn(&w, 500);
    }
    assert_int_equal(count_to(&w, FIRST_PEER, WIRE_CANCEL), 1);
    assert_int_equal(count_to(&w, FIRST_PEER + 1, WIRE_REQUEST), 1);
    const struct sent *old = last_to(&w, FIRST_PEER, WIRE_REQUEST);
    words(&w, old, 0, 0, 1, "LATE");
    assert_int_equal(c.said[0].n, 0);
    gw_peer_down(w.g, w.now, FIRST_PEER + 1,
                 true); /* nobody else is left: it is not asked while it is stuck … */
    turn(&w, 1000);
    assert_int_equal(count_to(&w, FIRST_PEER, WIRE_REQUEST), 1);
    beat(&w, FIRST_PEER, 8, 0); /* … and is when it has moved */
    turn(&w, 300);
    assert_int_equal(count_to(&w, FIRST_PEER, WIRE_REQUEST), 2);
    gw_cancel(w.g, w.now, c.id);
    world_free(&w);
}

static void counted(struct world *w, uint64_t peer, uint32_t open, uint32_t parked)
{
    Nunchi__Heartbeat h = NUNCHI__HEARTBEAT__INIT;
    h.slots = 8;
    h.running = open;
    h.open = open;
    h.parked = parked;
    h.open_known = true;
    gw_peer_changed(w->g, w->now, peer, NULL, &h);
    turn(w, 500);
}

/* A request, or its end, or credit that was lost on the way is found out by counting. */
static void a_lost_message_is_found_out(void **state UNUSED)
{
    static struct world w;
    struct client c;
    world_new(&w, NULL);
    up(&w, TOKENIZER, "tokenizer", "m", NUMERICS, 8);
    up(&w, FIRST_PEER, "model", "m", NUMERICS, 8);
    begin(&w, ",\"seed\":1,\"max_tokens\":50", &c);
    const struct sent *first = last_to(&w, FIRST_PEER, WIRE_REQUEST);
    for (int i = 0; i < 30; i++)
        counted(&w, FIRST_PEER, 1, 0); /* it is there, and slow */
    assert_int_equal(count_to(&w, FIRST_PEER, WIRE_REQUEST), 1);
    for (int i = 0; i < 5; i++) { /* not for long: under way */
        counted(&w, FIRST_PEER, 0, 0);
        counted(&w, FIRST_PEER, 1, 0);
    }
    assert_int_equal(count_to(&w, FIRST_PEER, WIRE_REQUEST), 1);
    for (int i = 0; i < 6; i++) { /* it brings tokens, whatever the worker says */
        counted(&w, FIRST_PEER, 0, 0);
        words(&w, first, 0, (uint32_t)i, 1, "x");
    }
    assert_int_equal(count_to(&w, FIRST_PEER, WIRE_REQUEST), 1);
    for (int i = 0; i < 12; i++)
        counted(&w, FIRST_PEER, 0, 0);
    assert_int_equal(count_to(&w, FIRST_PEER, WIRE_CANCEL), 1);
    assert_int_equal(count_to(&w, FIRST_PEER, WIRE_REQUEST), 2);
    const Nunchi__Generate *again =
        body_of(&w, last_to(&w, FIRST_PEER, WIRE_REQUEST), &nunchi__generate__descriptor);
    assert_int_equal(again->choices[0]->n_ids, 6);
    for (int i = 0; i < 12; i++) /* it waits for credit that it was given */
        counted(&w, FIRST_PEER, 1, 1);
    assert_int_equal(count_to(&w, FIRST_PEER, WIRE_REQUEST), 3);
    gw_cancel(w.g, w.now, c.id);
    client_clear(&c);
    world_free(&w);
}

/* ---- many cancels ---- */

static void nothing_is_lost_over_many_cancels(void **state UNUSED)
{
    static struct world w;
    world_new(&w, NULL);
    struct node *n = node_new(&w, FIRST_PEER);
    uint64_t rnd = 1, late = 0;
    for (uint64_t i = 1; i <= 100000; i++) {
        rnd = mix(rnd, i);
        take(n, &w, i, rnd % 50 == 0, 1 + (uint32_t)((rnd >> 20) % 60));
        uint64_t steps = (rnd >> 8) % 3;
        struct sched_work *work = NULL;
        for (uint64_t k = 0; k <= steps; k++) {
            work = sched_plan(n->s, w.now);
            if (work && k < steps) {
                compute(n, work);
                sched_result(n->s, w.now, 0, NULL, 100);
                work = NULL;
            }
        }
        sched_cancel(n->s, 1, i); /* in the middle of a step, or between two */
        if (work) {
            compute(n, work);
            sched_result(n->s, w.now, 0, NULL, 100);
        }
        late += sched_plan(n->s, w.now) != NULL;
        sched_flush(n->s);
        for (struct list *it; (it = list_pop(&n->told));) {
            buf_clear(&CONTAINER_OF(it, struct told, link)->body);
            free(CONTAINER_OF(it, struct told, link));
        }
    }
    struct sched_load l = sched_load_now(n->s);
    assert_int_equal(late, 0); /* no step after the one under way */
    assert_int_equal(l.blocks_free, l.blocks);
    assert_int_equal(sched_open(n->s), 0);
    node_free(n);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bytes_whenever_a_worker_dies),
        cmocka_unit_test(a_poisonous_request_ends_and_the_others_do_not),
        cmocka_unit_test(workers_that_go_do_not_count),
        cmocka_unit_test(a_suspect_takes_nobody_along),
        cmocka_unit_test(a_stuck_worker_is_given_up),
        cmocka_unit_test(a_lost_message_is_found_out),
        cmocka_unit_test(nothing_is_lost_over_many_cancels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
