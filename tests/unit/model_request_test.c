/* The gate of a Generate request: everything a peer can say wrongly is refused with the field's
 * name, and what the scheduler says is packed as the protocol wants it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <math.h>
#include <cmocka.h>

#include "common/wire/pb.h"
#include "model-svc/reply.h"
#include "model-svc/request.h"
#include "proto/generate.pb-c.h"
#include "proto/session.pb-c.h"

static const struct gen_limits LIMITS = {{"tiny", 4}, 1000, 100};

/* A good request, whose parts a test breaks one at a time. */
struct ask {
    Nunchi__Generate g;
    Nunchi__Segment seg[2], *segs[2];
    Nunchi__Tokens tok[2];
    Nunchi__Sampling sampling;
    Nunchi__Constraint constraint;
    Nunchi__Choice choice[20], *choices[20];
    Nunchi__LogitBias bias[2], *biases[2];
    Nunchi__Rows rows;
    ProtobufCBinaryData stops[20];
    int32_t resumed[128];
    unsigned char frame[2][200 * 4];
    struct wire_msg m;
    char model[8], adapter[8];
};

static void put_id(struct ask *a, size_t frame, size_t i, uint32_t id)
{
    for (size_t b = 0; b < 4; b++)
        a->frame[frame][i * 4 + b] = (unsigned char)(id >> (8 * b));
}

static void segment_init(struct ask *a, size_t i, uint32_t n)
{
    nunchi__segment__init(&a->seg[i]);
    nunchi__tokens__init(&a->tok[i]);
    a->tok[i].frame = (uint32_t)i;
    a->tok[i].n = n;
    a->seg[i].kind_case = NUNCHI__SEGMENT__KIND_TOKENS;
    a->seg[i].tokens = &a->tok[i];
    a->segs[i] = &a->seg[i];
    a->m.frames[i] = (slice){(const char *)a->frame[i], (size_t)n * 4};
}

static void ask_init(struct ask *a)
{
    memset(a, 0, sizeof *a);
    nunchi__generate__init(&a->g);
    memcpy(a->model, "tiny", 5);
    a->g.model = a->model;
    a->g.adapter = a->adapter;
    segment_init(a, 0, 3);
    segment_init(a, 1, 2);
    for (uint32_t i = 0; i < 5; i++)
        put_id(a, i / 3, i % 3, 10 + i);
    a->g.segments = a->segs;
    a->g.n_segments = 2;
    nunchi__sampling__init(&a->sampling);
    a->sampling.top_p = 1;
    a->g.sampling = &a->sampling;
    for (size_t i = 0; i < 20; i++) {
        nunchi__choice__init(&a->choice[i]);
        a->choice[i].index = (uint32_t)i;
        a->choices[i] = &a->choice[i];
        a->stops[i] = pb_bytes(SLICE_LIT("stop"));
    }
    a->g.choices = a->choices;
    a->g.n_choices = 1;
    a->g.max_tokens = 20;
    nunchi__constraint__init(&a->constraint);
    nunchi__rows__init(&a->rows);
    for (size_t i = 0; i < 2; i++) {
        nunchi__logit_bias__init(&a->bias[i]);
        a->biases[i] = &a->bias[i];
    }
    a->m.n_frames = 2;
    a->m.head = (struct wire_head){.type = WIRE_REQUEST, .request = 7, .attempt = 2};
}

static int parse(struct ask *a, arena **keep, struct gen_request *out, struct why *w)
{
    buf body = {0};
    pb_pack(&a->g.base, &body);
    a->m.body = buf_slice(&body);
    arena *mem = arena_new(gen_request_budget(&a->m, &LIMITS));
    int err = gen_request_parse(&a->m, &LIMITS, mem, out, w);
    buf_clear(&body);
    if (keep)
        *keep = mem;
    else
        arena_free(mem);
    return err;
}

static void refused(struct ask *a, int err, const char *field)
{
    struct gen_request r;
    struct why w = {.text = ""};
    assert_int_equal(parse(a, NULL, &r, &w), err);
    assert_string_equal(w.field, field);
    assert_true(strlen(w.text) > 5);
}

static void test_a_good_one(void **state)
{
    (void)state;
    struct ask *a = xcalloc(1, sizeof *a);
    struct gen_request r;
    struct why w;
    arena *mem;
    ask_init(a);
    a->tok[1].salt = pb_bytes(SLICE_LIT("0123456789abcdef"));
    a->g.n_choices = 2;
    a->resumed[0] = 5;
    a->choice[1].ids = a->resumed;
    a->choice[1].n_ids = 1;
    a->g.stop = a->stops;
    a->g.n_stop = 1;
    a->g.credit = 9;
    a->g.ignore_eos = true;
    a->sampling.seed = UINT64_MAX;
    a->sampling.logprobs = true;
    a->sampling.top_logprobs = 20;
    assert_int_equal(parse(a, &mem, &r, &w), 0);
    assert_int_equal(r.request, 7);
    assert_int_equal(r.attempt, 2);
    assert_int_equal(r.n_prompt, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(r.prompt[i], 10 + i);
    assert_int_equal(r.n_salts, 1);
    assert_int_equal(r.salts[0].at, 3);
    assert_int_equal(r.tenant.n, 32);
    assert_int_equal(r.max_tokens, 20);
    assert_int_equal(r.n_choices, 2);
    assert_int_equal(r.choices[1].ids[0], 5);
    assert_true(slice_eq(r.stops[0], SLICE_LIT("stop")));
    assert_true(r.sampling.forbid_ends && r.sampling.want_logprob);
    assert_int_equal(r.sampling.n_logprobs, 20);
    assert_true(r.sampling.seed == UINT64_MAX);
    assert_true(r.sampling.repetition_penalty == 1);
    arena_free(mem);
    /* what the context cannot hold is cut, not refused */
    ask_init(a);
    a->g.max_tokens = 1000000;
    assert_int_equal(parse(a, NULL, &r, &w), 0);
    assert_int_equal(r.max_tokens, 95);
    a->g.max_tokens = 0;
    assert_int_equal(parse(a, NULL, &r, &w), 0);
    assert_int_equal(r.max_tokens, 95);
    free(a);
}

static void test_model_and_what_is_not_built(void **state)
{
    (void)state;
    struct ask *a = xcalloc(1, sizeof *a);
    ask_init(a);
    a->model[0] = 'T';
    refused(a, ERR_NOT_FOUND, "model");
    ask_init(a);
    a->adapter[0] = 'x';
    refused(a, ERR_UNSUPPORTED, "adapter");
    ask_init(a);
    a->g.constraint = &a->constraint;
    a->constraint.kind = NUNCHI__CONSTRAINT__KIND__JSON;
    refused(a, ERR_UNSUPPORTED, "constraint");
    a->constraint.kind = 77;
    refused(a, ERR_UNSUPPORTED, "constraint");
    ask_init(a);
    a->seg[1].kind_case = NUNCHI__SEGMENT__KIND_ROWS;
    a->seg[1].rows = &a->rows;
    refused(a, ERR_UNSUPPORTED, "segments[1].rows");
    ask_init(a);
    a->seg[1].kind_case = NUNCHI__SEGMENT__KIND__NOT_SET;
    refused(a, ERR_UNSUPPORTED, "segments[1]");
    free(a);
}

static void test_prompts(void **state)
{
    (void)state;
    struct ask *a = xcalloc(1, sizeof *a);
    ask_init(a);
    a->g.n_segments = 0;
    refused(a, ERR_INVALID, "segments");
    ask_init(a);
    a->tok[1].frame = 2;
    refused(a, ERR_INVALID, "segments[1].tokens.frame");
    ask_init(a);
    a->tok[0].n = 4;
    refused(a, ERR_INVALID, "segments[0].tokens.n");
    a->tok[0].n = 0x40000003; /* times four is twelve again in 32 bits */
    refused(a, ERR_INVALID, "segments[0].tokens.n");
    ask_init(a);
    a->tok[0].salt = pb_bytes(SLICE_LIT("short"));
    refused(a, ERR_INVALID, "segments[0].tokens.salt");
    ask_init(a);
    put_id(a, 1, 1, 1000);
    refused(a, ERR_INVALID, "segments");
    put_id(a, 1, 1, UINT32_MAX);
    refused(a, ERR_INVALID, "segments");
    ask_init(a);
    segment_init(a, 0, 98); /* and two more: no room for an answer */
    refused(a, ERR_TOO_BIG, "segments");
    segment_init(a, 0, 0);
    segment_init(a, 1, 0);
    refused(a, ERR_INVALID, "segments");
    /* one frame, named a thousand times */
    ask_init(a);
    Nunchi__Segment *same[GENERATE_SEGMENTS_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        same[i] = &a->seg[0];
    a->g.segments = same;
    a->g.n_segments = GENERATE_SEGMENTS_MAX;
    refused(a, ERR_TOO_BIG, "segments");
    a->g.n_segments = GENERATE_SEGMENTS_MAX + 1;
    refused(a, ERR_INVALID, "segments");
    free(a);
}

static void test_identity(void **state)
{
    (void)state;
    struct ask *a = xcalloc(1, sizeof *a);
    ask_init(a);
    a->m.head.request = 0;
    refused(a, ERR_INVALID, "request");
    ask_init(a);
    a->g.tenant = pb_bytes(SLICE_LIT("not 32 bytes"));
    refused(a, ERR_INVALID, "tenant");
    ask_init(a);
    a->g.client = pb_bytes(SLICE_LIT("not 16 bytes long"));
    refused(a, ERR_INVALID, "client");
    ask_init(a);
    a->g.priority = 2;
    refused(a, ERR_INVALID, "priority");
    a->g.priority = INT32_MIN;
    refused(a, ERR_INVALID, "priority");
    free(a);
}

static void test_sampling(void **state)
{
    (void)state;
    struct ask *a = xcalloc(1, sizeof *a);
    ask_init(a);
    a->g.sampling = NULL;
    refused(a, ERR_INVALID, "sampling");
    const struct {
        size_t offset;
        const char *field;
        float bad[3];
    } f[] = {
        {offsetof(Nunchi__Sampling, temperature), "sampling.temperature", {-0.1f, 101, NAN}},
        {offsetof(Nunchi__Sampling, top_p), "sampling.top_p", {-1, 1.1f, NAN}},
        {offsetof(Nunchi__Sampling, min_p), "sampling.min_p", {-1, 1.1f, INFINITY}},
        {offsetof(Nunchi__Sampling, presence_penalty),
         "sampling.presence_penalty",
         {-2.1f, 2.1f, NAN}},
        {offsetof(Nunchi__Sampling, frequency_penalty),
         "sampling.frequency_penalty",
         {-2.1f, 2.1f, NAN}},
        {offsetof(Nunchi__Sampling, repetition_penalty),
         "sampling.repetition_penalty",
         {-1, 11, NAN}},
    };
    for (size_t i = 0; i < ARRAY_LEN(f); i++)
        for (size_t k = 0; k < 3; k++) {
            ask_init(a);
            memcpy((char *)&a->sampling + f[i].offset, &f[i].bad[k], sizeof(float));
            refused(a, ERR_INVALID, f[i].field);
        }
    ask_init(a);
    a->sampling.top_logprobs = 21;
    refused(a, ERR_INVALID, "sampling.top_logprobs");
    ask_init(a);
    a->sampling.bias = a->biases;
    a->sampling.n_bias = 2;
    a->bias[1].id = 1000;
    refused(a, ERR_INVALID, "sampling.bias");
    a->bias[1] = (Nunchi__LogitBias){a->bias[1].base, 3, 100.5f};
    refused(a, ERR_INVALID, "sampling.bias");
    Nunchi__LogitBias *many[SAMPLE_BIAS_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i] = &a->bias[0];
    a->sampling.bias = many;
    a->sampling.n_bias = ARRAY_LEN(many);
    refused(a, ERR_INVALID, "sampling.bias");
    free(a);
}

static void test_choices_and_stops(void **state)
{
    (void)state;
    struct ask *a = xcalloc(1, sizeof *a);
    ask_init(a);
    a->g.n_choices = 0;
    refused(a, ERR_INVALID, "choices");
    a->g.n_choices = 17;
    refused(a, ERR_INVALID, "choices");
    a->g.n_choices = 2;
    a->choice[1].index = 0;
    refused(a, ERR_INVALID, "choices");
    a->choice[1].index = 16;
    refused(a, ERR_INVALID, "choices");
    ask_init(a);
    a->choice[0].ids = a->resumed;
    a->choice[0].n_ids = 21;
    refused(a, ERR_INVALID, "choices");
    a->choice[0].n_ids = 2;
    a->resumed[1] = -1;
    refused(a, ERR_INVALID, "choices");
    ask_init(a);
    a->g.stop = a->stops;
    a->g.n_stop = 17;
    refused(a, ERR_INVALID, "stop");
    a->g.n_stop = 1;
    a->stops[0] = pb_bytes((slice){"", 0});
    refused(a, ERR_INVALID, "stop");
    char *long_one = xcalloc(1, STOP_BYTES_MAX + 1);
    a->stops[0] = pb_bytes((slice){long_one, STOP_BYTES_MAX + 1});
    refused(a, ERR_INVALID, "stop");
    free(long_one);
    free(a);
}

static void test_garbage(void **state)
{
    (void)state;
    uint64_t rnd = 1;
    for (int i = 0; i < 20000; i++) {
        char body[64];
        for (size_t k = 0; k < sizeof body; k++) {
            rnd = rnd * 6364136223846793005u + 1442695040888963407u;
            body[k] = (char)(rnd >> 40);
        }
        struct wire_msg m = {.head = {.request = 1}, .body = {body, (rnd >> 33) % sizeof body}};
        arena *a = arena_new(gen_request_budget(&m, &LIMITS));
        struct gen_request r;
        struct why w;
        assert_true(gen_request_parse(&m, &LIMITS, a, &r, &w) < 0);
        arena_free(a);
    }
}

/* ---- replies ---- */

static slice bytes(void *ctx, int32_t id)
{
    static const char text[] = "0123456789";
    (void)ctx;
    return (slice){text + id, 1};
}

static void *unpack(arena *a, const ProtobufCMessageDescriptor *d, const buf *b)
{
    void *out;
    assert_int_equal(pb_unpack(a, d, buf_slice(b), WIRE_BODY_MAX, &out, NULL), 0);
    return out;
}

static void test_replies(void **state)
{
    (void)state;
    struct sched_vocab words = {.bytes = bytes, .n = 10};
    arena *scratch = arena_new(0), *a = arena_new(0);
    buf out = {0};
    int32_t id = 4;
    struct sampled s = {.id = 4, .logprob = -0.5f, .n_top = 2, .top = {{4, -0.5f}, {7, -1.5f}}};
    struct sched_delta d[2] = {{.request = 9,
                                .attempt = 1,
                                .choice = 2,
                                .position = 5,
                                .ids = &id,
                                .n_ids = 1,
                                .text = {"4", 1},
                                .logprobs = &s},
                               {.request = 10, .ids = &id, .n_ids = 1, .cached_tokens = 32}};
    reply_deltas(&words, d, 2, scratch, &out);
    const Nunchi__StepTokens *t = unpack(a, &nunchi__step_tokens__descriptor, &out);
    assert_int_equal(t->n_deltas, 2);
    assert_int_equal(t->deltas[0]->request, 9);
    assert_int_equal(t->deltas[0]->position, 5);
    assert_int_equal(t->deltas[0]->ids[0], 4);
    assert_int_equal(t->deltas[0]->logprobs[0]->n_top, 2);
    assert_int_equal(t->deltas[0]->logprobs[0]->top[1]->text.data[0], '7');
    assert_int_equal(t->deltas[1]->cached_tokens, 32);
    assert_int_equal(t->deltas[1]->n_logprobs, 0);

    struct sched_end ends[1] = {{.choice = 0, .n_ids = 3, .reason = SEQ_LENGTH, .text = {"ab", 2}}};
    struct sched_done done = {
        .request = 9, .ends = ends, .n_ends = 1, .prompt_tokens = 5, .queue_us = UINT64_MAX};
    struct digest numerics = {{7}};
    reply_done(&done, &numerics, scratch, &out);
    const Nunchi__Generated *g = unpack(a, &nunchi__generated__descriptor, &out);
    assert_int_equal(g->ends[0]->reason, NUNCHI__CHOICE_END__REASON__LENGTH);
    assert_int_equal(g->ends[0]->n_ids, 3);
    assert_int_equal(g->ends[0]->text.len, 2);
    assert_int_equal(g->queue_us, UINT32_MAX);
    assert_int_equal(g->numerics.len, 32);

    struct why w = {.text = "too long", .field = "segments"};
    reply_error(ERR_TOO_BIG, &w, 0, scratch, &out);
    const Nunchi__Error *e = unpack(a, &nunchi__error__descriptor, &out);
    assert_int_equal(e->code, 6);
    assert_string_equal(e->param, "segments");
    reply_error(ERR_BUSY, NULL, 250, scratch, &out);
    e = unpack(a, &nunchi__error__descriptor, &out);
    assert_int_equal(e->retry_after_ms, 250);
    assert_true(e->message.len > 0);
    buf_clear(&out);
    arena_free(a);
    arena_free(scratch);
}

/* The echoed end of a prompt is answer, not prompt; one token at least stays before it. */
static void test_echoed(void **state)
{
    (void)state;
    struct ask *a = xcalloc(1, sizeof *a);
    struct gen_request r;
    struct why w;
    arena *mem;
    ask_init(a);
    a->g.echoed = 2;
    assert_int_equal(parse(a, &mem, &r, &w), 0);
    assert_int_equal(r.n_prompt, 3);
    assert_int_equal(r.n_echoed, 2);
    assert_int_equal(r.echoed[0], 13);
    assert_int_equal(r.max_tokens, 20);
    arena_free(mem);
    a->g.echoed = 5;
    refused(a, ERR_INVALID, "echoed");
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_one), cmocka_unit_test(test_model_and_what_is_not_built),
        cmocka_unit_test(test_prompts),    cmocka_unit_test(test_identity),
        cmocka_unit_test(test_sampling),   cmocka_unit_test(test_choices_and_stops),
        cmocka_unit_test(test_garbage),    cmocka_unit_test(test_replies),
        cmocka_unit_test(test_echoed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
