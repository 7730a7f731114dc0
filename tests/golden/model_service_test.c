/* The whole service over the real wire: a gateway's hub and nunchi-model on one loop, a real model
 * behind it. Model: $NUNCHI_TEST_MODELS or ~/.cache/nunchi/models; skipped when it is not there. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/hub.h"
#include "common/wire/pb.h"
#include "engine/engine.h"
#include "model-svc/serve.h"
#include "proto/generate.pb-c.h"

#define MODEL "SmolLM2-135M-Instruct.Q4_1.gguf"
#define PATIENCE_US 60000000u
#define ANSWERS_MAX 64
#define IDS_MAX 256

struct got {
    int32_t ids[IDS_MAX];
    size_t n, logprobs;
    buf text;
    bool done;
    uint32_t n_told, prompt_tokens, cached_tokens, reason;
    int err;
    char param[32];
};

struct house {
    loop *l;
    bus *b;
    hub *h;
    hub_peer *peer;
    model_serve *m;
    struct model_options o;
    struct got got[ANSWERS_MAX]; /* by request id */
    uint64_t chunks;
    arena *a;
    int exit_code;
};

static struct house house;

static void on_up(void *ctx UNUSED, hub_peer *p)
{
    house.peer = p;
}

static void on_down(void *ctx UNUSED, hub_peer *p UNUSED, const char *reason UNUSED)
{
    house.peer = NULL;
}

static void *unpack(const ProtobufCMessageDescriptor *d, slice body)
{
    void *out;
    assert_int_equal(pb_unpack(house.a, d, body, WIRE_BODY_MAX, &out, NULL), 0);
    return out;
}

static void on_step(slice body)
{
    const Nunchi__StepTokens *t = unpack(&nunchi__step_tokens__descriptor, body);
    house.chunks++;
    for (size_t i = 0; i < t->n_deltas; i++) {
        const Nunchi__Delta *d = t->deltas[i];
        assert_true(d->request < ANSWERS_MAX && d->attempt == 1);
        struct got *g = &house.got[d->request];
        assert_false(g->done);
        assert_int_equal(d->position, g->n);
        for (size_t k = 0; k < d->n_ids; k++)
            g->ids[g->n++] = d->ids[k];
        g->logprobs += d->n_logprobs;
        buf_put(&g->text, d->text.data, d->text.len);
    }
}

static void on_done(struct got *g, slice body)
{
    const Nunchi__Generated *d = unpack(&nunchi__generated__descriptor, body);
    assert_int_equal(d->n_ends, 1);
    assert_int_equal(d->numerics.len, 32);
    g->done = true;
    g->n_told = d->ends[0]->n_ids;
    g->reason = d->ends[0]->reason;
    g->prompt_tokens = d->prompt_tokens;
    g->cached_tokens = d->cached_tokens;
    buf_put(&g->text, d->ends[0]->text.data, d->ends[0]->text.len);
}

static void on_msg(void *ctx UNUSED, hub_peer *p UNUSED, const struct wire_msg *m)
{
    struct got *g = &house.got[m->head.request % ANSWERS_MAX];
    if (m->head.type == WIRE_CHUNK) {
        assert_int_equal(m->head.flags, WIRE_MANY);
        on_step(m->body);
    } else if (m->head.type == WIRE_DONE) {
        on_done(g, m->body);
    } else if (m->head.type == WIRE_ERROR) {
        const Nunchi__Error *e = unpack(&nunchi__error__descriptor, m->body);
        g->err = err_from_wire(e->code);
        snprintf(g->param, sizeof g->param, "%s", e->param);
    }
    arena_reset(house.a);
}

/* Turns the loop until the condition holds; the test fails when that takes a minute. */
#define WAIT_FOR(cond)                                                                             \
    do {                                                                                           \
        uint64_t until = clock_mono_us() + PATIENCE_US;                                            \
        while (!(cond)) {                                                                          \
            if (clock_mono_us() > until)                                                           \
                fail_msg("waited a minute for %s", #cond);                                         \
            loop_turn(house.l, 5000);                                                              \
        }                                                                                          \
    } while (0)

static bool have_model(char *path, size_t cap)
{
    const char *dir = getenv("NUNCHI_TEST_MODELS"), *home = getenv("HOME");
    int n = dir ? snprintf(path, cap, "%s/%s", dir, MODEL)
                : snprintf(path, cap, "%s/.cache/nunchi/models/%s", home ? home : "", MODEL);
    return n > 0 && (size_t)n < cap && access(path, R_OK) == 0;
}

static void house_open(void)
{
    static char path[4096];
    if (!have_model(path, sizeof path)) {
        fprintf(stderr, "SKIPPED: %s is not there (NUNCHI_TEST_MODELS)\n", MODEL);
        skip();
    }
    struct why w = {.text = ""};
    memset(&house, 0, sizeof house);
    log_init("test", LOG_WARN, 2);
    house.l = loop_new();
    house.a = arena_new(0);
    Nunchi__Ready ready;
    nunchi__ready__init(&ready);
    char service[] = "gateway";
    ready.service = service;
    struct bus_config none = {0};
    struct hub_config cfg = {.endpoint = "tcp://127.0.0.1:0",
                             .ready = &ready,
                             .up = on_up,
                             .down = on_down,
                             .msg = on_msg};
    assert_int_equal(bus_new(house.l, &none, &house.b, &w), 0);
    assert_int_equal(hub_new(house.b, house.l, &cfg, &house.h, &w), 0);
    char gateways[64],
        *argv[] = {(char[]){"--model"},     path,           (char[]){"--gateways"}, gateways,
                   (char[]){"--kv-blocks"}, (char[]){"96"}, (char[]){"--slots"},    (char[]){"20"}};
    char *env[] = {NULL};
    snprintf(gateways, sizeof gateways, "%s", hub_endpoint(house.h) + strlen("tcp://"));
    if (config_parse(&MODEL_OPTIONS, ARRAY_LEN(argv), argv, env, (slice){0}, &house.o, &w) < 0)
        fail_msg("%s", w.text);
    house.m = model_serve_new(house.l, &house.o);
    WAIT_FOR(house.peer);
}

static void house_close(void)
{
    model_serve_free(house.m);
    hub_free(house.h);
    bus_free(house.b);
    loop_free(house.l);
    for (size_t i = 0; i < ANSWERS_MAX; i++)
        buf_clear(&house.got[i].text);
    arena_free(house.a);
    config_free(&MODEL_OPTIONS, &house.o);
}

struct ask {
    uint64_t id;
    const int32_t *prompt;
    uint32_t n;
    float temperature;
    uint32_t max_tokens;
    uint64_t credit;
    const char *model;
    bool logprobs;
};

static void send_head(int type, uint64_t id, slice body, slice frame)
{
    struct wire_msg m = {.head = {.type = (uint8_t)type, .request = id, .attempt = 1},
                         .body = body,
                         .frames = {frame},
                         .n_frames = frame.n ? 1 : 0};
    assert_int_equal(hub_send(house.h, house.peer, &m), 0);
}

static void ask(const struct ask *q)
{
    char model[64], empty[] = "";
    Nunchi__Generate g;
    Nunchi__Segment seg, *segs[] = {&seg};
    Nunchi__Tokens tokens;
    Nunchi__Sampling s;
    Nunchi__Choice c, *choices[] = {&c};
    nunchi__generate__init(&g);
    nunchi__segment__init(&seg);
    nunchi__tokens__init(&tokens);
    nunchi__sampling__init(&s);
    nunchi__choice__init(&c);
    snprintf(model, sizeof model, "%s", q->model ? q->model : "smollm2-135m-instruct");
    g.model = model;
    g.adapter = empty;
    tokens.n = q->n;
    seg.kind_case = NUNCHI__SEGMENT__KIND_TOKENS;
    seg.tokens = &tokens;
    g.segments = segs;
    g.n_segments = 1;
    s.temperature = q->temperature;
    s.top_p = 1;
    s.seed = q->n;
    s.logprobs = q->logprobs;
    s.top_logprobs = q->logprobs ? 3 : 0;
    g.sampling = &s;
    g.choices = choices;
    g.n_choices = 1;
    g.max_tokens = q->max_tokens;
    g.credit = q->credit ? q->credit : 100000;
    g.ignore_eos = true;
    buf body = {0};
    pb_pack(&g.base, &body);
    send_head(WIRE_REQUEST, q->id, buf_slice(&body),
              (slice){(const char *)q->prompt, q->n * sizeof(int32_t)});
    buf_clear(&body);
}

static int32_t prompts[ANSWERS_MAX][64];

static struct ask prompt_of(uint64_t id, uint32_t n, uint64_t seed)
{
    for (uint32_t i = 0; i < n; i++)
        prompts[id][i] = 300 + (int32_t)((i < 8 ? i : seed) * 7919 % 40000 + i * 31);
    return (struct ask){.id = id,
                        .prompt = prompts[id],
                        .n = n,
                        .temperature = seed % 2 ? 0.9f : 0,
                        .max_tokens = 20};
}

static void test_says_what_it_is(void **state UNUSED)
{
    house_open();
    const Nunchi__Ready *r = hub_peer_ready(house.peer);
    assert_string_equal(r->service, "model");
    assert_int_equal(r->n_models, 1);
    assert_string_equal(r->models[0]->name, "smollm2-135m-instruct");
    assert_string_equal(r->models[0]->family, "llama");
    assert_true(r->models[0]->chat);
    assert_int_equal(r->models[0]->n_vocab, 49152);
    assert_int_equal(r->models[0]->n_context, 95 * 16);
    assert_int_equal(r->models[0]->weights.len, 32);
    assert_int_equal(r->models[0]->numerics.len, 32);
    WAIT_FOR(hub_peer_heartbeat(house.peer)->kv_blocks == 96);
    assert_int_equal(hub_peer_heartbeat(house.peer)->slots, 20);
    assert_int_equal(hub_peer_heartbeat(house.peer)->kv_blocks_free, 96);
    house_close();
}

static void test_sixteen_at_once_as_alone(void **state UNUSED)
{
    house_open();
    for (uint64_t i = 0; i < 16; i++) {
        struct ask q = prompt_of(i + 1, 10 + (uint32_t)i * 3, i);
        q.logprobs = i == 3;
        ask(&q);
        WAIT_FOR(house.got[i + 1].done);
    }
    uint64_t alone = house.chunks;
    for (uint64_t i = 0; i < 16; i++) {
        struct ask q = prompt_of(i + 17, 10 + (uint32_t)i * 3, i);
        ask(&q);
    }
    for (uint64_t i = 0; i < 16; i++) {
        struct got *x = &house.got[i + 1], *y = &house.got[i + 17];
        WAIT_FOR(y->done);
        assert_int_equal(x->n, 20);
        assert_int_equal(x->n, y->n);
        assert_memory_equal(x->ids, y->ids, x->n * sizeof x->ids[0]);
        assert_true(slice_eq(buf_slice(&x->text), buf_slice(&y->text)));
        assert_int_equal(y->prompt_tokens, 10 + i * 3);
        assert_int_equal(y->n_told, 20);
        assert_int_equal(y->reason, NUNCHI__CHOICE_END__REASON__LENGTH);
    }
    assert_int_equal(house.got[4].logprobs, 20);
    assert_int_equal(house.got[5].logprobs, 0);
    /* together they share steps, and a step's tokens come in one message */
    assert_true(house.chunks - alone < alone / 3);
    house_close();
}

static void give_credit(uint64_t id, uint64_t amount)
{
    Nunchi__Credit c;
    nunchi__credit__init(&c);
    c.amount = amount;
    buf body = {0};
    pb_pack(&c.base, &body);
    send_head(WIRE_CREDIT, id, buf_slice(&body), (slice){0});
    buf_clear(&body);
}

/* Until a step brings something, or for so long. */
static void a_moment(uint64_t us)
{
    uint64_t chunks = house.chunks, until = clock_mono_us() + us;
    while (house.chunks == chunks && clock_mono_us() < until)
        loop_turn(house.l, 1000);
}

/* Everything that the loop brings the scheduler while the other thread computes and plans: what is
 * left of it all is as it would have been alone. */
static void test_a_storm_beside_the_steps(void **state UNUSED)
{
    house_open();
    struct ask q = prompt_of(1, 20, 2);
    ask(&q);
    WAIT_FOR(house.got[1].done);
    for (uint64_t i = 2; i < 20; i++) {
        q = prompt_of(i, 20, 2);
        q.credit = 1 + i % 3;
        q.max_tokens = i % 3 ? 20 : 200;
        ask(&q);
        loop_turn(house.l, 1000 * (i % 4));
    }
    uint64_t late_us = clock_mono_us() + 4 * (uint64_t)PATIENCE_US;
    for (uint64_t n = 0, left = 1; left; n++) {
        uint64_t id = 2 + n * 7 % 18;
        if (id % 3 == 0 && n > 90)
            send_head(WIRE_CANCEL, id, (slice){0}, (slice){0});
        else
            give_credit(id, 1 + n % 2);
        a_moment(1000 * (n % 5));
        left = 0;
        for (uint64_t i = 2; i < 20; i++)
            left += i % 3 && !house.got[i].done;
        assert_true(clock_mono_us() < late_us);
    }
    for (uint64_t i = 3; i < 20; i += 3)
        send_head(WIRE_CANCEL, i, (slice){0}, (slice){0});
    for (uint64_t i = 2; i < 20; i++) {
        size_t n = house.got[i].n < 20 ? house.got[i].n : 20;
        assert_int_equal(house.got[i].err, 0);
        assert_memory_equal(house.got[i].ids, house.got[1].ids, n * sizeof(int32_t));
        assert_true(i % 3 == 0 || house.got[i].n == 20);
    }
    WAIT_FOR(hub_peer_heartbeat(house.peer)->running == 0 &&
             hub_peer_heartbeat(house.peer)->kv_blocks_free == 96);
    for (uint64_t i = 20; i < 36; i++) { /* in the middle of steps it is stopped */
        q = prompt_of(i, 30, i);
        q.max_tokens = 200;
        ask(&q);
    }
    WAIT_FOR(house.got[20].n > 0);
    house_close();
}

static void test_credit_and_cancel(void **state UNUSED)
{
    house_open();
    struct ask q = prompt_of(1, 12, 2);
    q.credit = 5;
    ask(&q);
    WAIT_FOR(house.got[1].n == 5);
    struct ask other = prompt_of(2, 12, 4); /* others go on meanwhile */
    ask(&other);
    WAIT_FOR(house.got[2].done);
    assert_int_equal(house.got[1].n, 5);
    give_credit(1, 100);
    WAIT_FOR(house.got[1].done);
    assert_int_equal(house.got[1].n, 20);

    q = prompt_of(3, 12, 6);
    q.max_tokens = 1000;
    ask(&q);
    WAIT_FOR(house.got[3].n > 2);
    send_head(WIRE_CANCEL, 3, (slice){0}, (slice){0});
    WAIT_FOR(hub_peer_heartbeat(house.peer)->running == 0 &&
             hub_peer_heartbeat(house.peer)->kv_blocks_free == 96);
    assert_false(house.got[3].done);
    assert_true(house.got[3].n < 500);
    house_close();
}

static void test_refusals(void **state UNUSED)
{
    house_open();
    struct ask q = prompt_of(1, 12, 2);
    q.model = "gpt-4";
    ask(&q);
    WAIT_FOR(house.got[1].err);
    assert_int_equal(house.got[1].err, ERR_NOT_FOUND);
    assert_string_equal(house.got[1].param, "model");
    send_head(WIRE_REQUEST, 2, SLICE_LIT("\xff\xff\xff garbage"), (slice){0});
    WAIT_FOR(house.got[2].err);
    q = prompt_of(3, 12, 2);
    prompts[3][5] = -7;
    ask(&q);
    WAIT_FOR(house.got[3].err);
    assert_int_equal(house.got[3].err, ERR_INVALID);
    /* more than the slots it was granted */
    for (uint64_t i = 10; i < 32; i++) {
        q = prompt_of(i, 12, i);
        q.max_tokens = 200;
        ask(&q);
    }
    WAIT_FOR(house.got[31].err);
    assert_int_equal(house.got[31].err, ERR_BUSY);
    assert_int_equal(house.got[29].err, 0);
    house_close();
}

static void test_drains(void **state UNUSED)
{
    house_open();
    struct ask q = prompt_of(1, 12, 2);
    q.max_tokens = 60;
    ask(&q);
    WAIT_FOR(house.got[1].n > 0);
    model_serve_drain(house.m);
    q = prompt_of(2, 12, 2);
    ask(&q);
    WAIT_FOR(house.got[2].err);
    assert_int_equal(house.got[2].err, ERR_UNAVAILABLE);
    WAIT_FOR(hub_peer_heartbeat(house.peer)->draining || house.got[1].done);
    WAIT_FOR(loop_stopping(house.l));
    WAIT_FOR(house.got[1].done);
    assert_int_equal(house.got[1].n, 60);
    house_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_says_what_it_is),
        cmocka_unit_test(test_sixteen_at_once_as_alone),
        cmocka_unit_test(test_a_storm_beside_the_steps),
        cmocka_unit_test(test_credit_and_cancel),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_drains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
