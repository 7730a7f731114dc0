/* A question's way through the core: the good one and the others. */
#include "gateway/limits.h"
#include "tests/unit/gateway_fake.h"

static struct world w;
static struct heard h;

static int setup(void **state UNUSED)
{
    world_new(&w, NULL);
    heard_clear(&h);
    return 0;
}

static int teardown(void **state UNUSED)
{
    world_free(&w);
    heard_clear(&h);
    return 0;
}

static const struct sent *placed(const char *more)
{
    ask_with(&w, more, &h);
    tokenised(&w);
    const struct sent *run = last_to(&w, MODEL, WIRE_REQUEST);
    assert_non_null(run);
    return run;
}

static void happy(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed(",\"max_tokens\":5,\"top_k\":7,\"stop\":\"END\"");
    Nunchi__Generate *q = body_of(&w, run, &nunchi__generate__descriptor);
    assert_string_equal(q->model, "m");
    assert_int_equal(q->max_tokens, 5);
    assert_int_equal(q->sampling->top_k, 7);
    assert_int_equal(q->sampling->seed, 42);
    assert_int_equal(q->n_stop, 1);
    assert_int_equal(q->n_choices, 1);
    assert_int_equal(q->segments[0]->tokens->n, PROMPT_TOKENS);
    assert_int_equal(run->frames[0].n, PROMPT_TOKENS * 4);
    words(&w, run, 0, 0, 1, "Hel");
    words(&w, run, 0, 1, 1, "lo");
    generated(&w, run, 1, (uint32_t[]){2}, "!", NUNCHI__CHOICE_END__REASON__STOP);
    assert_text(&h, 0, "Hello!");
    assert_int_equal(h.ended[0], 1 + GW_END_STOP);
    assert_int_equal(h.n_done, 1);
    assert_int_equal(h.usage.prompt_tokens, PROMPT_TOKENS);
    assert_int_equal(h.usage.completion_tokens, 2);
    struct gw_state s;
    gw_state(w.g, &s);
    assert_int_equal(s.requests, 0);
    assert_int_equal(s.running, 0);
}

static void whole_context_without_max_tokens(void **state UNUSED)
{
    up_all(&w);
    Nunchi__Generate *q = body_of(&w, placed(""), &nunchi__generate__descriptor);
    assert_int_equal(q->max_tokens, 100);
}

static void several_choices(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed(",\"n\":3");
    words(&w, run, 2, 0, 1, "c");
    words(&w, run, 0, 0, 1, "a");
    words(&w, run, 1, 0, 1, "b");
    generated(&w, run, 3, (uint32_t[]){1, 1, 1}, "", NUNCHI__CHOICE_END__REASON__LENGTH);
    assert_text(&h, 0, "a");
    assert_text(&h, 1, "b");
    assert_text(&h, 2, "c");
    assert_int_equal(h.ended[2], 1 + GW_END_LENGTH);
    assert_int_equal(h.usage.completion_tokens, 3);
}

/* The heart of it: the worker is gone in mid-answer, another one gets prompt, seed and ids so far,
 * and the client sees one answer without a seam. */
static void lost_worker(void **state UNUSED)
{
    up_all(&w);
    up(&w, MODEL_B, "model", "m", NUMERICS, 0);
    const struct sent *run = placed("");
    words(&w, run, 0, 0, 2, "one ");
    words(&w, run, 0, 2, 1, "two ");
    gw_peer_down(w.g, w.now, MODEL, true);
    assert_int_equal(h.n_failed, 0);
    Nunchi__Heartbeat beat = NUNCHI__HEARTBEAT__INIT;
    beat.slots = 4;
    gw_peer_changed(w.g, w.now, MODEL_B, NULL, &beat);
    const struct sent *second = last_to(&w, MODEL_B, WIRE_REQUEST);
    Nunchi__Generate *a = body_of(&w, run, &nunchi__generate__descriptor),
                     *b = body_of(&w, second, &nunchi__generate__descriptor);
    assert_int_equal(b->choices[0]->n_ids, 3);
    assert_int_equal(b->choices[0]->ids[2], 102);
    assert_int_equal(b->sampling->seed, a->sampling->seed);
    assert_int_equal(b->max_tokens, a->max_tokens);
    assert_true(slice_eq(buf_slice(&second->frames[0]), buf_slice(&run->frames[0])));
    words(&w, run, 0, 3, 1, "LATE"); /* of the lost one */
    words(&w, second, 0, 3, 1, "three");
    generated(&w, second, 1, (uint32_t[]){4}, "", NUNCHI__CHOICE_END__REASON__STOP);
    assert_text(&h, 0, "one two three");
    assert_int_equal(h.n_starts, 1);
    assert_int_equal(h.n_done, 1);
    assert_int_equal(h.usage.completion_tokens, 4);
    assert_int_equal(gw_counts(w.g)->retries, 1);
}

static void no_worker_comes_back(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed("");
    words(&w, run, 0, 0, 1, "one ");
    gw_peer_down(w.g, w.now, MODEL, true);
    turn(&w, 4000);
    assert_int_equal(h.n_failed, 0);
    turn(&w, 2000);
    assert_int_equal(h.n_failed, 1);
    assert_int_equal(h.fail.err, ERR_UNAVAILABLE);
}

/* Another arithmetic would give another answer: it is taken only when there is nobody else, and
 * waits for a busy twin. */
static void same_arithmetic_first(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed("");
    words(&w, run, 0, 0, 1, "a");
    up(&w, MODEL_B, "model", "m", NUMERICS_B, 4);
    up(&w, 7, "model", "m", NUMERICS, 0);
    gw_peer_down(w.g, w.now, MODEL, true);
    turn(&w, 1000);
    assert_int_equal(count_to(&w, MODEL_B, WIRE_REQUEST), 0);
    gw_peer_down(w.g, w.now, 7, true);
    turn(&w, 300);
    assert_int_equal(count_to(&w, MODEL_B, WIRE_REQUEST), 1);
}

/* What went on elsewhere says so at its end, and only then. */
static void other_arithmetic_is_said(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed("");
    words(&w, run, 0, 0, 1, "a");
    up(&w, MODEL_B, "model", "m", NUMERICS_B, 4);
    gw_peer_down(w.g, w.now, MODEL, true);
    turn(&w, 300);
    const struct sent *again = last_to(&w, MODEL_B, WIRE_REQUEST);
    words(&w, again, 0, 1, 1, "b");
    generated(&w, again, 1, (uint32_t[]){2}, "", NUNCHI__CHOICE_END__REASON__STOP);
    assert_int_equal(h.n_done, 1);
    assert_true(h.usage.numerics_changed);
}

/* A client that does not read is waited for, but not for ever: then its worker is free. */
static void a_client_that_never_reads(void **state UNUSED)
{
    static const struct gw_config cfg = {.requests_max = 64,
                                         .queue_max = 16,
                                         .request_ms = 600000,
                                         .worker_wait_ms = 5000,
                                         .client_stall_ms = 10000};
    for (int reads = 0; reads < 2; reads++) {
        world_free(&w);
        world_new(&w, &cfg);
        heard_clear(&h);
        up_all(&w);
        const struct sent *run = placed(",\"n\":2");
        h.busy = true;
        for (uint32_t i = 0; i < 70; i++) { /* more than half of the credit: now it is asked */
            words(&w, run, 0, i, 1, "x");
            words(&w, run, 1, i, 1, "y");
        }
        turn(&w, 9000);
        assert_int_equal(h.n_failed, 0);
        if (reads) {
            h.busy = false;
            gw_client_ready(w.g, w.now, h.id);
        }
        turn(&w, 2000);
        assert_int_equal(h.n_failed, !reads);
        assert_int_equal(count_to(&w, MODEL, WIRE_CANCEL), !reads);
        assert_int_equal(count_to(&w, MODEL, WIRE_CREDIT), reads);
    }
}

static void repeated_frames(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed("");
    words(&w, run, 0, 0, 2, "ab");
    words(&w, run, 0, 0, 2, "ab");
    words(&w, run, 0, 1, 1, "b");
    words(&w, run, 0, 2, 1, "c");
    generated(&w, run, 1, (uint32_t[]){3}, "", NUNCHI__CHOICE_END__REASON__STOP);
    generated(&w, run, 1, (uint32_t[]){3}, "", NUNCHI__CHOICE_END__REASON__STOP);
    assert_text(&h, 0, "abc");
    assert_int_equal(h.n_done, 1);
}

/* A worker that says what cannot be is left, and the answer goes on from what was right. */
static void broken_worker(void **state UNUSED)
{
    static const struct piece BAD[] = {{0, 5, 1, "gap", 0},
                                       {1, 0, 1, "no such choice", 0},
                                       {0, 1, 1, "more logprobs than asked for", 1}};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        teardown(NULL);
        setup(NULL);
        up_all(&w);
        const struct sent *run = placed("");
        words(&w, run, 0, 0, 1, "a");
        size_t before = count_to(&w, MODEL, WIRE_REQUEST);
        delta(&w, run, &BAD[i]);
        assert_int_equal(count_to(&w, MODEL, WIRE_CANCEL), 1);
        assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), before + 1);
        const struct sent *again = last_to(&w, MODEL, WIRE_REQUEST);
        words(&w, again, 0, 1, 1, "b");
        generated(&w, again, 1, (uint32_t[]){2}, "", NUNCHI__CHOICE_END__REASON__STOP);
        assert_text(&h, 0, "ab");
    }
}

static void counts_that_do_not_match(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed("");
    words(&w, run, 0, 0, 1, "a");
    generated(&w, run, 1, (uint32_t[]){3}, "",
              NUNCHI__CHOICE_END__REASON__STOP); /* two deltas were lost */
    assert_int_equal(h.n_done, 0);
    const struct sent *again = last_to(&w, MODEL, WIRE_REQUEST);
    assert_ptr_not_equal(again, run);
}

static void endless_failure_ends(void **state UNUSED)
{
    up_all(&w);
    placed("");
    for (int i = 0; i < 20 && !h.n_failed; i++) {
        say_error(&w, last_to(&w, MODEL, WIRE_REQUEST), ERR_NOMEM);
        turn(&w, 300);
    }
    assert_int_equal(h.n_failed, 1);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), ATTEMPTS_MAX);
}

static void refusal_is_not_repeated(void **state UNUSED)
{
    up_all(&w);
    say_error(&w, placed(""), ERR_INVALID);
    assert_int_equal(h.n_failed, 1);
    assert_int_equal(h.fail.err, ERR_INVALID);
    assert_string_equal(h.fail.why.text, "a sentence");
}

static void busy_worker(void **state UNUSED)
{
    up_all(&w);
    for (int i = 0; i < 20; i++) { /* more often than failures are borne: being busy is none */
        say_error(&w, i ? last_to(&w, MODEL, WIRE_REQUEST) : placed(""), ERR_BUSY);
        turn(&w, 300);
    }
    assert_int_equal(h.n_failed, 0);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), 21);
}

static void client_gone(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed("");
    words(&w, run, 0, 0, 1, "a");
    gw_cancel(w.g, w.now, h.id);
    const struct sent *c = last_to(&w, MODEL, WIRE_CANCEL);
    assert_non_null(c);
    assert_int_equal(c->head.request, run->head.request);
    words(&w, run, 0, 1, 1, "b");
    generated(&w, run, 1, (uint32_t[]){2}, "", NUNCHI__CHOICE_END__REASON__STOP);
    assert_text(&h, 0, "a");
    assert_int_equal(h.n_done + h.n_failed, 0);
}

static void client_gone_before_the_model(void **state UNUSED)
{
    up_all(&w);
    ask_with(&w, "", &h);
    gw_cancel(w.g, w.now, h.id);
    assert_int_equal(count_to(&w, TOKENIZER, WIRE_CANCEL), 1);
    tokenised(&w);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), 0);
}

static void deadline(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed("");
    turn(&w, 59000);
    assert_int_equal(h.n_failed, 0);
    turn(&w, 2000);
    assert_int_equal(h.n_failed, 1);
    assert_int_equal(h.fail.err, ERR_TIMEOUT);
    assert_int_equal(last_to(&w, MODEL, WIRE_CANCEL)->head.request, run->head.request);
}

static void overload(void **state UNUSED)
{
    struct heard many[20] = {0};
    struct gw_fail f = {0};
    up(&w, TOKENIZER, "tokenizer", "m", NUMERICS, 1);
    up(&w, MODEL, "model", "m", NUMERICS, 1);
    for (int i = 0; i < 17; i++)
        assert_int_equal(ask_json(&w, ASK "}", &many[i], &f), 0);
    assert_int_equal(ask_json(&w, ASK "}", &many[17], &f),
                     ERR_BUSY); /* 1 at the tokenizer, 16 wait */
    assert_true(f.retry_after_ms > 0);
    assert_non_null(strstr(f.why.text, "queue-max"));
    tokenised(&w); /* one moves on: room for one */
    assert_int_equal(ask_json(&w, ASK "}", &many[17], &f), 0);
    assert_int_equal(ask_json(&w, ASK "}", &many[18], &f), ERR_BUSY);
    gw_cancel(w.g, w.now, many[3].id);
    assert_int_equal(ask_json(&w, ASK "}", &many[18], &f), 0);
}

static void tenant_limit(void **state UNUSED)
{
    struct gw_config cfg = {.requests_max = 64,
                            .queue_max = 16,
                            .request_ms = 60000,
                            .worker_wait_ms = 5000,
                            .tenant_max = 1};
    struct heard other = {0};
    struct gw_fail f;
    teardown(NULL);
    world_new(&w, &cfg);
    up_all(&w);
    ask_with(&w, "", &h);
    assert_int_equal(ask_json(&w, ASK "}", &other, &f), ERR_BUSY);
    gw_cancel(w.g, w.now, h.id);
    assert_int_equal(ask_json(&w, ASK "}", &other, &f), 0);
}

static void unknown_model(void **state UNUSED)
{
    struct gw_fail f;
    up_all(&w);
    int e = ask_json(
        &w, "{\"model\":\"other\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", &h, &f);
    assert_int_equal(e, ERR_NOT_FOUND);
    assert_string_equal(f.code, "model_not_found");
}

static void workers_come_late(void **state UNUSED)
{
    ask_with(&w, "", &h);
    turn(&w, 2000);
    up(&w, TOKENIZER, "tokenizer", "m", NUMERICS, 8);
    tokenised(&w);
    turn(&w, 1000);
    up(&w, MODEL, "model", "m", NUMERICS, 8);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), 1);
    assert_int_equal(h.n_failed, 0);
}

static void too_long_a_prompt(void **state UNUSED)
{
    up_all(&w);
    ask_with(&w, "", &h);
    say_error(&w, last_to(&w, TOKENIZER, WIRE_REQUEST), ERR_TOO_BIG);
    assert_int_equal(h.fail.err, ERR_INVALID);
    assert_string_equal(h.fail.code, "context_length_exceeded");
}

static void lost_tokenizer(void **state UNUSED)
{
    up_all(&w);
    ask_with(&w, "", &h);
    gw_peer_down(w.g, w.now, TOKENIZER, true);
    up(&w, 8, "tokenizer", "m", NUMERICS, 8);
    assert_int_equal(count_to(&w, 8, WIRE_REQUEST), 1);
    assert_int_equal(h.n_failed, 0);
}

static void lying_tokenizer(void **state UNUSED)
{
    Nunchi__Tokenized t = NUNCHI__TOKENIZED__INIT;
    Nunchi__TokenReply r = NUNCHI__TOKEN_REPLY__INIT;
    up_all(&w);
    ask_with(&w, "", &h);
    t.n_tokens = 1u << 30;
    t.max_tokens_left = 1;
    r.op_case = NUNCHI__TOKEN_REPLY__OP_TOKENIZED;
    r.tokenized = &t;
    slice ids = SLICE_LIT("1234");
    for (int i = 0; i < 10 && !h.n_failed; i++)
        say(&w, TOKENIZER, WIRE_DONE, 0, last_to(&w, TOKENIZER, WIRE_REQUEST)->head.request,
            &r.base, &ids, 1);
    assert_int_equal(h.n_failed, 1);
    assert_int_equal(h.fail.err, ERR_PROTO);
}

/* Credit: a client that does not read gets no more than was granted, and goes on when it reads
 * again. */
static void slow_client(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed(",\"max_tokens\":1000");
    assert_int_equal(count_to(&w, MODEL, WIRE_CREDIT), 0);
    h.busy = true;
    for (uint32_t i = 0; i < 90; i++) /* of 100 that fit the context */
        words(&w, run, 0, i, 1, "x");
    assert_int_equal(count_to(&w, MODEL, WIRE_CREDIT), 0);
    h.busy = false;
    gw_client_ready(w.g, w.now, h.id);
    assert_int_equal(count_to(&w, MODEL, WIRE_CREDIT), 0); /* more than half is left */
}

static void credit_is_topped_up(void **state UNUSED)
{
    up_all(&w);
    ask_with(&w, ",\"n\":4", &h);
    tokenised(&w);
    const struct sent *run = last_to(&w, MODEL, WIRE_REQUEST);
    h.busy = true;
    for (uint32_t i = 0; i < 200; i++)
        words(&w, run, i % 4, i / 4, 1, "x");
    assert_int_equal(count_to(&w, MODEL, WIRE_CREDIT), 0);
    h.busy = false;
    gw_client_ready(w.g, w.now, h.id);
    Nunchi__Credit *c = body_of(&w, last_to(&w, MODEL, WIRE_CREDIT), &nunchi__credit__descriptor);
    assert_int_equal(c->amount, 200);
}

static void logprobs_follow_their_text(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed(",\"logprobs\":true,\"top_logprobs\":2");
    delta(&w, run, &(struct piece){0, 0, 1, "", 1}); /* held: may begin a stop string */
    assert_int_equal(h.n_logprobs, 0);
    delta(&w, run, &(struct piece){0, 1, 1, "ab", 1});
    assert_int_equal(h.n_logprobs, 2);
    delta(&w, run, &(struct piece){0, 2, 1, "", 1}); /* the end token: shown nowhere */
    generated(&w, run, 1, (uint32_t[]){3}, "", NUNCHI__CHOICE_END__REASON__STOP);
    assert_int_equal(h.n_logprobs, 2);
    assert_int_equal(h.usage.completion_tokens, 3);
}

static void least_loaded(void **state UNUSED)
{
    struct heard many[8] = {0};
    struct gw_fail f;
    up_all(&w);
    up(&w, MODEL_B, "model", "m", NUMERICS, 8);
    for (int i = 0; i < 8; i++) { /* the same prompt draws them together, load drives them apart */
        assert_int_equal(ask_json(&w, ASK "}", &many[i], &f), 0);
        tokenised(&w);
    }
    assert_true(count_to(&w, MODEL, WIRE_REQUEST) >= 2);
    assert_true(count_to(&w, MODEL_B, WIRE_REQUEST) >= 2);
}

/* A worker whose own faults end one request after another is left alone; the others go elsewhere.
 */
static void a_worker_that_fails_everything(void **state UNUSED)
{
    struct heard many[FAILURES_MAX + 2] = {0};
    struct gw_fail f;
    up_all(&w);
    for (int i = 0; i < FAILURES_MAX; i++) {
        assert_int_equal(ask_json(&w, ASK "}", &many[i], &f), 0);
        tokenised(&w);
        say_error(&w, last_to(&w, MODEL, WIRE_REQUEST), i == 2 ? ERR_BUSY : ERR_INTERNAL);
        if (i == 2) { /* no fault: it is asked again, and fails then */
            turn(&w, 200);
            say_error(&w, last_to(&w, MODEL, WIRE_REQUEST), ERR_INTERNAL);
        }
        assert_int_equal(many[i].n_failed, 1);
    }
    assert_int_equal(gw_route_counts(w.g).shunned, 1);
    struct gw_state s;
    gw_state(w.g, &s);
    assert_false(s.ready); /* a question sent now would fail, or wait */
    size_t before = count_to(&w, MODEL, WIRE_REQUEST);
    assert_int_equal(ask_json(&w, ASK "}", &many[FAILURES_MAX], &f), 0);
    tokenised(&w);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), before);
    up(&w, MODEL_B, "model", "m", NUMERICS, 8); /* it did not wait for nothing */
    assert_int_equal(count_to(&w, MODEL_B, WIRE_REQUEST), 1);
    gw_state(w.g, &s);
    assert_true(s.ready);
    gw_peer_down(w.g, w.now, MODEL_B, false);
    turn(&w, SHUN_MS);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), before + 1); /* after a while it is tried */
    words(&w, last_to(&w, MODEL, WIRE_REQUEST), 0, 0, 1, "a");
    generated(&w, last_to(&w, MODEL, WIRE_REQUEST), 1, (uint32_t[]){1}, "",
              NUNCHI__CHOICE_END__REASON__STOP);
    assert_int_equal(many[FAILURES_MAX].n_done, 1);
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        heard_clear(&many[i]);
}

enum { TOKENIZER_B = 6 };

/* A model's file is replaced, service by service, while a question is on its way. */
static void another_file_of_the_model(void **state UNUSED)
{
    struct gw_state s;
    up_as(&w, TOKENIZER, &(struct spec){"tokenizer", "m", NUMERICS, 1, 8});
    up_as(&w, MODEL, &(struct spec){"model", "m", NUMERICS, 1, 1});
    ask_with(&w, "", &h);
    assert_int_equal(count_to(&w, TOKENIZER, WIRE_REQUEST), 1);
    gw_peer_down(w.g, w.now, MODEL, false);
    up_as(&w, MODEL_B, &(struct spec){"model", "m", NUMERICS, 2, 1});
    tokenised(&w); /* for a file that no worker has any more, and nobody else can do it yet */
    turn(&w, 1000);
    assert_int_equal(count_to(&w, MODEL_B, WIRE_REQUEST), 0);
    assert_int_equal(count_to(&w, TOKENIZER, WIRE_REQUEST), 1); /* not again and again */
    gw_state(w.g, &s);
    assert_false(s.ready);
    up_as(&w, TOKENIZER_B, &(struct spec){"tokenizer", "m", NUMERICS, 2, 8});
    assert_int_equal(count_to(&w, TOKENIZER_B, WIRE_REQUEST), 1);
    gw_state(w.g, &s);
    assert_true(s.ready);
    tokenised_by(&w, TOKENIZER_B);
    assert_int_equal(count_to(&w, MODEL_B, WIRE_REQUEST), 1);
    const struct sent *run = last_to(&w, MODEL_B, WIRE_REQUEST);
    words(&w, run, 0, 0, 1, "a");
    /* Begun: it cannot go on with another file, and says so after a while. */
    gw_peer_down(w.g, w.now, MODEL_B, true);
    up_as(&w, MODEL, &(struct spec){"model", "m", NUMERICS, 1, 1});
    turn(&w, 6000);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), 0);
    assert_int_equal(h.n_failed, 1);
    assert_non_null(strstr(h.fail.why.text, "another file of the model"));
}

static void drain(void **state UNUSED)
{
    struct gw_fail f;
    struct heard other = {0};
    struct gw_state s;
    up_all(&w);
    gw_state(w.g, &s);
    assert_true(s.ready);
    const struct sent *run = placed("");
    gw_drain(w.g);
    gw_state(w.g, &s);
    assert_false(s.ready);
    assert_int_equal(ask_json(&w, ASK "}", &other, &f), ERR_UNAVAILABLE);
    words(&w, run, 0, 0, 1, "a");
    generated(&w, run, 1, (uint32_t[]){1}, "", NUNCHI__CHOICE_END__REASON__STOP);
    assert_int_equal(h.n_done, 1);
}

static void unreachable_worker(void **state UNUSED)
{
    up_all(&w);
    up(&w, MODEL_B, "model", "m", NUMERICS, 1);
    w.send_error[MODEL] = ERR_AGAIN;
    ask_with(&w, "", &h);
    tokenised(&w);
    turn(&w, 300);
    assert_int_equal(count_to(&w, MODEL_B, WIRE_REQUEST), 1);
}

/* An end token's delta may hold text alone; the first one does so before any id came. */
static void text_before_any_id(void **state UNUSED)
{
    up_all(&w);
    const struct sent *run = placed(",\"max_tokens\":5");
    words(&w, run, 0, 0, 0, "a");
    words(&w, run, 0, 0, 1, "b");
    generated(&w, run, 1, (uint32_t[]){1}, "", NUNCHI__CHOICE_END__REASON__STOP);
    assert_text(&h, 0, "ab");
}

static void count_model(void *ctx, const Nunchi__ModelInfo *m UNUSED)
{
    ++*(size_t *)ctx;
}

/* Listing what thousands of forged models are called would hold up everybody. */
static void too_many_models(void **state UNUSED)
{
    Nunchi__ModelInfo m[WORKER_MODELS_MAX + 1], *models[WORKER_MODELS_MAX + 1];
    char names[WORKER_MODELS_MAX + 1][32], service[] = "model";
    Nunchi__Ready r;
    size_t n = 0;
    nunchi__ready__init(&r);
    for (size_t i = 0; i < ARRAY_LEN(m); i++) {
        nunchi__model_info__init(&m[i]);
        snprintf(names[i], sizeof names[i], "m%zu", i);
        m[i].name = names[i];
        models[i] = &m[i];
    }
    r.service = service;
    r.models = models;
    r.n_models = ARRAY_LEN(m);
    gw_peer_up(w.g, w.now, MODEL, &r);
    gw_models(w.g, count_model, &n);
    assert_int_equal(n, 0);
    r.n_models = WORKER_MODELS_MAX;
    gw_peer_up(w.g, w.now, MODEL_B, &r);
    gw_models(w.g, count_model, &n);
    assert_int_equal(n, WORKER_MODELS_MAX);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(happy),
                                       T(whole_context_without_max_tokens),
                                       T(several_choices),
                                       T(lost_worker),
                                       T(no_worker_comes_back),
                                       T(same_arithmetic_first),
                                       T(other_arithmetic_is_said),
                                       T(a_client_that_never_reads),
                                       T(repeated_frames),
                                       T(broken_worker),
                                       T(counts_that_do_not_match),
                                       T(endless_failure_ends),
                                       T(refusal_is_not_repeated),
                                       T(busy_worker),
                                       T(client_gone),
                                       T(client_gone_before_the_model),
                                       T(deadline),
                                       T(overload),
                                       T(tenant_limit),
                                       T(unknown_model),
                                       T(workers_come_late),
                                       T(too_long_a_prompt),
                                       T(lost_tokenizer),
                                       T(lying_tokenizer),
                                       T(slow_client),
                                       T(credit_is_topped_up),
                                       T(logprobs_follow_their_text),
                                       T(least_loaded),
                                       T(a_worker_that_fails_everything),
                                       T(another_file_of_the_model),
                                       T(drain),
                                       T(text_before_any_id),
                                       T(too_many_models),
                                       T(unreachable_worker)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
