/* The service on the wire, with a hub in the place of a gateway. */
#include "tests/unit/tokenizer_testing.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/hub.h"
#include "common/wire/pb.h"
#include "proto/token.pb-c.h"
#include "tokenizer-svc/serve.h"

#define PATIENCE_US ((uint64_t)20 * 1000000)
#define TURN_UNTIL(f, cond)                                                                        \
    do {                                                                                           \
        uint64_t until_ = clock_mono_us() + PATIENCE_US;                                           \
        while (!(cond) && clock_mono_us() < until_)                                                \
            loop_turn((f)->l, 20000);                                                              \
        if (!(cond))                                                                               \
            fail_msg("never came: %s", #cond);                                                     \
    } while (0)

struct fixture {
    loop *l;
    bus *b;
    hub *h;
    struct small_model m;
    struct tok_model model;
    core *c;
    serve *s;
    hub_peer *peer;
    size_t n_done, n_error, n_down;
    uint32_t error;
    struct wire_head last;
    size_t last_frames;
};

static void on_up(void *ctx, hub_peer *p)
{
    ((struct fixture *)ctx)->peer = p;
}

static void on_down(void *ctx, hub_peer *p UNUSED, const char *reason UNUSED)
{
    struct fixture *f = ctx;
    f->peer = NULL;
    f->n_down++;
}

static void on_msg(void *ctx, hub_peer *p UNUSED, const struct wire_msg *m)
{
    struct fixture *f = ctx;
    f->last = m->head;
    f->last_frames = m->n_frames;
    f->n_done += m->head.type == WIRE_DONE;
    if (m->head.type != WIRE_ERROR)
        return;
    arena *a = arena_new(0);
    void *e;
    assert_int_equal(pb_unpack(a, &nunchi__error__descriptor, m->body, WIRE_CONTROL_MAX, &e, NULL),
                     0);
    f->error = ((const Nunchi__Error *)e)->code;
    f->n_error++;
    arena_free(a);
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct why w = {0};
    struct bus_config keys = {0};
    Nunchi__Ready ready;
    static char gateway[] = "gateway";
    log_init("test", LOG_ERROR, 2);
    nunchi__ready__init(&ready);
    ready.service = gateway;
    f->l = loop_new();
    if (bus_new(f->l, &keys, &f->b, &w) < 0)
        fail_msg("%s", w.text);
    struct hub_config hc = {.endpoint = "tcp://127.0.0.1:*",
                            .ready = &ready,
                            .ctx = f,
                            .up = on_up,
                            .down = on_down,
                            .msg = on_msg};
    if (hub_new(f->b, f->l, &hc, &f->h, &w) < 0)
        fail_msg("%s", w.text);
    f->model.vocab = NULL;
    buf_put_str(&f->model.name, "small");
    buf_put_str(&f->model.family, "llama");
    (void)buf_cstr(&f->model.name);
    (void)buf_cstr(&f->model.family);
    f->model.n_context = 20000;
    const vocab *v = small_bpe(&f->m, "smollm", CHATML_TEMPLATE);
    struct core_config cc = {.vocab = v, .model = "small", .n_context = 20000};
    f->model.vocab = f->m.v;
    if (core_new(&cc, &f->c, &w) < 0)
        fail_msg("%s", w.text);
    struct serve_config sc = {.gateways = hub_endpoint(f->h),
                              .threads = 2,
                              .slots = 3,
                              .waiting_bytes = 60000,
                              .drain_ms = 10000};
    if (serve_new(f->l, f->b, f->c, &f->model, &sc, &f->s, &w) < 0)
        fail_msg("%s", w.text);
    TURN_UNTIL(f, f->peer != NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    serve_free(f->s);
    hub_free(f->h);
    bus_free(f->b);
    core_free(f->c);
    small_close(&f->m);
    buf_clear(&f->model.name);
    buf_clear(&f->model.family);
    loop_free(f->l);
    free(f);
    return 0;
}

static void request(struct fixture *f, uint64_t id, size_t letters)
{
    static char name[] = "small", tenant[32];
    Nunchi__TokenRequest r;
    Nunchi__Tokenize t;
    Nunchi__Prompt p;
    Nunchi__ChatPart part, *list[1] = {&part};
    buf text = {0}, body = {0};
    nunchi__token_request__init(&r);
    nunchi__tokenize__init(&t);
    nunchi__prompt__init(&p);
    nunchi__chat_part__init(&part);
    for (size_t i = 0; i < letters; i++)
        buf_put_byte(&text, 'x');
    part.part_case = NUNCHI__CHAT_PART__PART_TEXT;
    part.text = pb_bytes(buf_slice(&text));
    p.parts = list;
    p.n_parts = 1;
    t.model = name;
    t.tenant = pb_bytes((slice){tenant, sizeof tenant});
    t.input_case = NUNCHI__TOKENIZE__INPUT_PROMPT;
    t.prompt = &p;
    r.op_case = NUNCHI__TOKEN_REQUEST__OP_TOKENIZE;
    r.tokenize = &t;
    pb_pack(&r.base, &body);
    struct wire_msg m = {.head = {.type = WIRE_REQUEST, .request = id, .attempt = 2, .trace = {7}},
                         .body = buf_slice(&body)};
    assert_int_equal(hub_send(f->h, f->peer, &m), 0);
    buf_clear(&text);
    buf_clear(&body);
}

static void it_says_what_it_is(void **state)
{
    struct fixture *f = *state;
    const Nunchi__Ready *r = hub_peer_ready(f->peer);
    assert_string_equal(r->service, "tokenizer");
    assert_int_equal(r->slots, 3);
    assert_int_equal(r->n_models, 1);
    assert_string_equal(r->models[0]->name, "small");
    assert_string_equal(r->models[0]->family, "llama");
    assert_int_equal(r->models[0]->n_context, 20000);
    assert_int_equal(r->models[0]->n_vocab, f->m.n_tokens);
    assert_int_equal(r->models[0]->weights.len, 32);
    assert_true(r->models[0]->chat);
}

static void a_request_is_answered_with_its_own_head(void **state)
{
    struct fixture *f = *state;
    request(f, 77, 100);
    TURN_UNTIL(f, f->n_done == 1);
    assert_int_equal(f->last.request, 77);
    assert_int_equal(f->last.attempt, 2);
    assert_int_equal(f->last.trace[0], 7);
    assert_int_equal(f->last_frames, 2);
    request(f, 78, 0);
    TURN_UNTIL(f, f->n_error == 1);
    assert_int_equal(f->last.request, 78);
    assert_int_equal(f->error, err_to_wire(ERR_INVALID));
}

static void more_than_its_slots_is_refused(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 0; i < 30; i++) /* sent in one go: they arrive before the first is answered */
        request(f, i + 1, 15000);
    TURN_UNTIL(f, f->n_done + f->n_error == 30);
    assert_true(f->n_done >= 3);
    assert_true(f->n_error > 0);
    assert_int_equal(f->error, err_to_wire(ERR_BUSY));
}

static void a_cancelled_request_is_not_answered(void **state)
{
    struct fixture *f = *state;
    struct wire_msg cancel = {.head = {.type = WIRE_CANCEL, .request = 1, .attempt = 2}};
    request(f, 1, 15000);
    assert_int_equal(hub_send(f->h, f->peer, &cancel), 0);
    request(f, 2, 15000);
    TURN_UNTIL(f, f->last.request == 2);
    assert_true(f->n_done <= 2); /* the first may have been quicker than its cancel */
}

static void draining_ends_when_the_work_does(void **state)
{
    struct fixture *f = *state;
    request(f, 1, 15000);
    TURN_UNTIL(f, f->n_done == 1);
    serve_drain(f->s);
    assert_true(loop_stopping(f->l));
}

static void a_drained_service_takes_nothing_new(void **state)
{
    struct fixture *f = *state;
    serve_drain(f->s);
    request(f, 5, 10);
    TURN_UNTIL(f, f->n_error == 1);
    assert_int_equal(f->error, err_to_wire(ERR_UNAVAILABLE));
}

static void leaving_says_good_bye(void **state)
{
    struct fixture *f = *state;
    request(f, 1, 15000);
    serve_free(f->s);
    f->s = NULL;
    TURN_UNTIL(f, f->n_down == 1 || (f->peer && hub_peer_heartbeat(f->peer)->draining));
}

static void a_request_too_large_to_hold_is_refused(void **state)
{
    struct fixture *f = *state;
    request(f, 1, 60001);
    TURN_UNTIL(f, f->n_error == 1);
    assert_int_equal(f->error, err_to_wire(ERR_BUSY));
    request(f, 2, 100);
    TURN_UNTIL(f, f->n_done == 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_says_what_it_is),
        TEST(a_request_is_answered_with_its_own_head),
        TEST(more_than_its_slots_is_refused),
        TEST(a_cancelled_request_is_not_answered),
        TEST(draining_ends_when_the_work_does),
        TEST(a_drained_service_takes_nothing_new),
        TEST(leaving_says_good_bye),
        TEST(a_request_too_large_to_hold_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
