/* Videos in questions, uploads, and the result cache. */
#include "tests/unit/gateway_fake.h"

#define FILE_ID "file-0123456789abcdef0123456789abcdef"

static struct world w;
static struct heard h;
static const uint8_t CONTENT[32] = {5, 5, 5}, SALT[16] = {4, 4};

static int setup(void **state UNUSED)
{
    world_new(&w, NULL);
    heard_clear(&h);
    up_all(&w);
    return 0;
}

static int teardown(void **state UNUSED)
{
    world_free(&w);
    heard_clear(&h);
    return 0;
}

static const struct sent *last_cache(void)
{
    return last_to(&w, CACHE, WIRE_REQUEST);
}

static Nunchi__CacheRequest *cache_request(void)
{
    return body_of(&w, last_cache(), &nunchi__cache_request__descriptor);
}

static void ask_file(void)
{
    static const char JSON[] =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\","
        "\"file\":{\"file_id\":\"" FILE_ID "\"}},{\"type\":\"text\",\"text\":\"what?\"}]}]}";
    struct gw_fail f;
    assert_int_equal(ask_json(&w, JSON, &h, &f), 0);
    turn(&w, 1);
}

static void say_record(Nunchi__FileRecord__Status status, uint32_t permille, int error)
{
    Nunchi__FileRecord f;
    Nunchi__CacheReply r = NUNCHI__CACHE_REPLY__INIT;
    char id[] = FILE_ID;
    nunchi__file_record__init(&f);
    f.id = id;
    f.status = status;
    f.permille = permille;
    f.content = pb_bytes((slice){(const char *)CONTENT, 32});
    f.error = pb_bytes(SLICE_LIT("no video track"));
    f.error_code = error ? err_to_wire(error) : 0;
    r.op_case = NUNCHI__CACHE_REPLY__OP_FILE;
    r.file = &f;
    assert_int_equal(cache_request()->op_case, NUNCHI__CACHE_REQUEST__OP_FILE_GET);
    say(&w, CACHE, WIRE_DONE, 0, last_cache()->head.request, &r.base, NULL, 0);
}

static void say_notes(void)
{
    Nunchi__Notes n = NUNCHI__NOTES__INIT;
    buf packed = {0};
    n.format = 1;
    n.content = pb_bytes((slice){(const char *)CONTENT, 32});
    n.salt = pb_bytes((slice){(const char *)SALT, 16});
    pb_pack(&n.base, &packed);
    assert_int_equal(cache_request()->op_case, NUNCHI__CACHE_REQUEST__OP_GET);
    assert_int_equal(cache_request()->get->keys[0]->space, NUNCHI__SPACE__NOTES);
    hit(&w, buf_slice(&packed));
    buf_clear(&packed);
}

static void file_is_waited_for(void **state UNUSED)
{
    ask_file();
    say_record(NUNCHI__FILE_RECORD__STATUS__UPLOADED, 100, 0);
    for (uint32_t i = 1; i < 12; i++) {
        turn(&w, FILE_POLL_MS);
        say_record(NUNCHI__FILE_RECORD__STATUS__UPLOADED, 100 + i * 50, 0);
    }
    assert_in_range(h.n_waiting, 2, 3); /* about once a second */
    turn(&w, FILE_POLL_MS);
    say_record(NUNCHI__FILE_RECORD__STATUS__PROCESSED, 1000, 0);
    say_notes();
    const struct sent *q = last_to(&w, TOKENIZER, WIRE_REQUEST);
    Nunchi__TokenRequest *t = body_of(&w, q, &nunchi__token_request__descriptor);
    Nunchi__VideoRef *v = t->tokenize->chat->turns[0]->parts[0]->video;
    assert_memory_equal(v->content.data, CONTENT, 32);
    assert_memory_equal(v->salt.data, SALT, 16);
    assert_int_equal(q->n_frames, 1);
    tokenised(&w);
    Nunchi__Generate *g =
        body_of(&w, last_to(&w, MODEL, WIRE_REQUEST), &nunchi__generate__descriptor);
    assert_int_equal(g->segments[0]->tokens->salt.len, 16);
}

static void file_that_cannot_be_read(void **state UNUSED)
{
    ask_file();
    say_record(NUNCHI__FILE_RECORD__STATUS__ERROR, 0, ERR_UNREADABLE);
    assert_int_equal(h.n_failed, 1);
    assert_int_equal(h.fail.err, ERR_UNREADABLE);
    assert_non_null(strstr(h.fail.why.text, "no video track"));
    assert_string_equal(h.fail.why.field, "messages[0].content[0].file.file_id");
}

static void file_that_is_not_there(void **state UNUSED)
{
    ask_file();
    say_error(&w, last_cache(), ERR_NOT_FOUND);
    assert_int_equal(h.fail.err, ERR_NOT_FOUND);
}

static void reader_that_died(void **state UNUSED)
{
    struct gw_config cfg = {
        .requests_max = 4, .queue_max = 4, .request_ms = 600000, .worker_wait_ms = 5000};
    world_free(&w);
    world_new(&w, &cfg);
    up_all(&w);
    ask_file();
    for (int i = 0; i < 500 && !h.n_failed; i++) {
        say_record(NUNCHI__FILE_RECORD__STATUS__UPLOADED, 300, 0);
        turn(&w, FILE_POLL_MS);
    }
    assert_int_equal(h.n_failed, 1);
    assert_int_equal(h.fail.err, ERR_UNAVAILABLE);
}

static void store_is_away(void **state UNUSED)
{
    ask_file();
    for (int i = 0; i < 5; i++) {
        say_error(&w, last_cache(), ERR_UNAVAILABLE);
        turn(&w, FILE_POLL_MS);
    }
    assert_int_equal(h.n_failed, 0);
    say_record(NUNCHI__FILE_RECORD__STATUS__UPLOADED, 300, 0); /* it is back */
    turn(&w, FILE_POLL_MS);
    for (int i = 0; i < 20 && !h.n_failed; i++) {
        say_error(&w, last_cache(), ERR_UNAVAILABLE);
        turn(&w, FILE_POLL_MS);
    }
    assert_int_equal(h.fail.err, ERR_UNAVAILABLE);
}

static void client_leaves_while_waiting(void **state UNUSED)
{
    ask_file();
    say_record(NUNCHI__FILE_RECORD__STATUS__UPLOADED, 100, 0);
    gw_cancel(w.g, w.now, h.id);
    size_t before = w.n_sent;
    turn(&w, 2000);
    assert_int_equal(w.n_sent, before);
}

/* ---- a video inside the request ---- */

static void grant(const struct sent *to, uint64_t bytes)
{
    Nunchi__Credit c = NUNCHI__CREDIT__INIT;
    c.amount = bytes;
    say(&w, VIDEO, WIRE_CREDIT, 0, to->head.request, &c.base, NULL, 0);
}

static void say_ingested(const struct sent *to)
{
    Nunchi__Ingested i = NUNCHI__INGESTED__INIT;
    i.content = pb_bytes((slice){(const char *)CONTENT, 32});
    say(&w, VIDEO, WIRE_DONE, 0, to->head.request, &i.base, NULL, 0);
}

static void video_inside(void **state UNUSED)
{
    struct gw_fail f;
    assert_int_equal(ask_json(&w,
                              "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{"
                              "\"type\":\"video_url\",\"video_url\":"
                              "{\"url\":\"data:video/mp4;base64,AAECAwQFBgc=\"}}]}]}",
                              &h, &f),
                     0);
    turn(&w, 1);
    const struct sent *q = last_to(&w, VIDEO, WIRE_REQUEST);
    Nunchi__Ingest *in = body_of(&w, q, &nunchi__ingest__descriptor);
    assert_int_equal(in->size, 8);
    assert_string_equal(in->file_id, "");
    assert_null(last_to(&w, VIDEO, WIRE_CHUNK)); /* no credit yet */
    grant(q, 5);
    grant(q, 1000);
    assert_int_equal(count_to(&w, VIDEO, WIRE_CHUNK), 2);
    const struct sent *last = last_to(&w, VIDEO, WIRE_CHUNK);
    assert_int_equal(last->head.flags, WIRE_END);
    assert_memory_equal(last->frames[0].p, "\5\6\7", 3);
    say_ingested(q);
    say_notes();
    assert_int_equal(count_to(&w, TOKENIZER, WIRE_REQUEST), 1);
}

static void video_worker_lost(void **state UNUSED)
{
    struct gw_fail f;
    assert_int_equal(ask_json(&w,
                              "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{"
                              "\"type\":\"video_url\",\"video_url\":"
                              "{\"url\":\"data:video/mp4;base64,AAECAwQFBgc=\"}}]}]}",
                              &h, &f),
                     0);
    turn(&w, 1);
    grant(last_to(&w, VIDEO, WIRE_REQUEST), 1000);
    gw_peer_down(w.g, w.now, VIDEO, true);
    up(&w, 6, "video", NULL, NULL, 4);
    turn(&w, 500);
    const struct sent *again = last_to(&w, 6, WIRE_REQUEST);
    assert_non_null(again); /* from the first byte */
    assert_int_equal(h.n_failed, 0);
}

/* ---- uploads ---- */

static struct {
    size_t more, accepted, failed;
    int err;
    uint64_t bytes;
} got;

static void on_more(void *ctx UNUSED)
{
    got.more++;
}

static void on_accepted(void *ctx UNUSED, const Nunchi__FileRecord *f)
{
    got.accepted++;
    got.bytes = f->bytes;
    assert_string_equal(f->purpose, "user_data");
}

static void on_upload_failed(void *ctx UNUSED, const struct gw_fail *f)
{
    got.failed++;
    got.err = f->err;
}

static const struct gw_upload_ops UPLOAD = {on_more, on_accepted, on_upload_failed};

static uint64_t begin_upload(void)
{
    uint64_t id;
    struct gw_fail f;
    uint8_t tenant[32] = {0};
    struct gw_upload_meta m = {.id = SLICE_LIT(FILE_ID),
                               .tenant = {(const char *)tenant, 32},
                               .filename = SLICE_LIT("a.mp4")};
    memset(&got, 0, sizeof got);
    assert_int_equal(gw_upload_begin(w.g, w.now, &m, &UPLOAD, NULL, &id, &f), 0);
    return id;
}

static void say_spooled(const struct sent *to)
{
    Nunchi__Ingesting i = NUNCHI__INGESTING__INIT;
    i.phase = NUNCHI__INGESTING__PHASE__SPOOLED;
    say(&w, VIDEO, WIRE_CHUNK, 0, to->head.request, &i.base, NULL, 0);
}

static void say_put(void)
{
    Nunchi__Done d = NUNCHI__DONE__INIT;
    Nunchi__CacheReply r = NUNCHI__CACHE_REPLY__INIT;
    r.op_case = NUNCHI__CACHE_REPLY__OP_DONE;
    r.done = &d;
    assert_int_equal(cache_request()->op_case, NUNCHI__CACHE_REQUEST__OP_FILE_PUT);
    say(&w, CACHE, WIRE_DONE, 0, last_cache()->head.request, &r.base, NULL, 0);
}

/* The worker hears of the last byte when the record is written, and the client when the worker has
 * it all on disk. */
static void upload_is_accepted(void **state UNUSED)
{
    uint64_t id = begin_upload();
    const struct sent *q = last_to(&w, VIDEO, WIRE_REQUEST);
    grant(q, 1 << 20);
    assert_true(gw_upload_bytes(w.g, w.now, id, SLICE_LIT("0123456789")));
    gw_upload_finish(w.g, w.now, id, SLICE_LIT("user_data"), 1700000000, 0);
    assert_int_equal(cache_request()->file_put->file->bytes, 10);
    assert_int_equal(count_to(&w, VIDEO, WIRE_CHUNK), 0);
    say_put();
    assert_int_equal(last_to(&w, VIDEO, WIRE_CHUNK)->head.flags, WIRE_END);
    assert_int_equal(got.accepted, 0);
    say_spooled(q);
    assert_int_equal(got.accepted, 1);
    assert_int_equal(got.bytes, 10);
    say_ingested(q);
    assert_int_equal(got.accepted + got.failed, 1);
}

static void upload_waits_for_credit(void **state UNUSED)
{
    uint64_t id = begin_upload();
    const struct sent *q = last_to(&w, VIDEO, WIRE_REQUEST);
    static char big[UPLOAD_CHUNK_BYTES];
    assert_false(gw_upload_bytes(w.g, w.now, id, (slice){big, sizeof big}));
    assert_int_equal(count_to(&w, VIDEO, WIRE_CHUNK), 0);
    grant(q, 2 * sizeof big);
    assert_int_equal(count_to(&w, VIDEO, WIRE_CHUNK), 1);
    assert_int_equal(got.more, 1);
    assert_true(gw_upload_bytes(w.g, w.now, id, SLICE_LIT("x")));
}

static void quota_is_full(void **state UNUSED)
{
    uint64_t id = begin_upload();
    gw_upload_bytes(w.g, w.now, id, SLICE_LIT("0123456789"));
    gw_upload_finish(w.g, w.now, id, SLICE_LIT("user_data"), 1, 0);
    say_error(&w, last_cache(), ERR_TOO_BIG);
    assert_int_equal(got.err, ERR_TOO_BIG);
    assert_int_equal(count_to(&w, VIDEO, WIRE_CANCEL), 1);
}

static void video_worker_lost_before_acceptance(void **state UNUSED)
{
    uint64_t id = begin_upload();
    gw_upload_bytes(w.g, w.now, id, SLICE_LIT("0123456789"));
    gw_upload_finish(w.g, w.now, id, SLICE_LIT("user_data"), 1, 0);
    say_put();
    gw_peer_down(w.g, w.now, VIDEO, true);
    assert_int_equal(got.failed, 1);
    assert_int_equal(cache_request()->op_case,
                     NUNCHI__CACHE_REQUEST__OP_FILE_DELETE); /* no trace stays */
}

static void video_worker_lost_after_acceptance(void **state UNUSED)
{
    uint64_t id = begin_upload();
    const struct sent *q = last_to(&w, VIDEO, WIRE_REQUEST);
    gw_upload_bytes(w.g, w.now, id, SLICE_LIT("0123456789"));
    gw_upload_finish(w.g, w.now, id, SLICE_LIT("user_data"), 1, 0);
    say_put();
    say_spooled(q);
    gw_peer_down(w.g, w.now, VIDEO, true);
    assert_int_equal(got.accepted, 1);
    assert_int_equal(got.failed, 0);
    /* Its reader comes back and goes on: nothing is written about it from here. */
    assert_int_equal(cache_request()->op_case, NUNCHI__CACHE_REQUEST__OP_FILE_PUT);
}

static void uploader_leaves(void **state UNUSED)
{
    uint64_t id = begin_upload();
    gw_upload_bytes(w.g, w.now, id, SLICE_LIT("0123456789"));
    gw_upload_cancel(w.g, w.now, id);
    assert_int_equal(count_to(&w, VIDEO, WIRE_CANCEL), 1);
    assert_int_equal(got.failed + got.accepted, 0);
}

/* ---- the result cache ---- */

static void remembered(void **state UNUSED)
{
    ask_with(&w, ",\"temperature\":0,\"logprobs\":true", &h);
    tokenised(&w);
    assert_int_equal(cache_request()->get->keys[0]->space, NUNCHI__SPACE__RESULT);
    miss(&w);
    const struct sent *run = last_to(&w, MODEL, WIRE_REQUEST);
    delta(&w, run, &(struct piece){0, 0, 1, "yes", 1});
    generated(&w, run, 1, (uint32_t[]){1}, " sir", NUNCHI__CHOICE_END__REASON__LENGTH);
    assert_false(h.cached);
    const struct sent *put = last_cache();
    assert_int_equal(cache_request()->op_case, NUNCHI__CACHE_REQUEST__OP_PUT);
    struct gw_usage usage = h.usage;
    /* The same again, from the cache. */
    struct heard again = {0};
    ask_with(&w, ",\"temperature\":0,\"logprobs\":true", &again);
    tokenised(&w);
    assert_memory_equal(
        cache_request()->get->keys[0]->key.data,
        ((Nunchi__CacheRequest *)body_of(&w, put, &nunchi__cache_request__descriptor))
            ->put->key->key.data,
        32);
    hit(&w, buf_slice(&put->frames[0]));
    assert_true(again.cached);
    assert_text(&again, 0, "yes sir");
    assert_int_equal(again.n_logprobs, 1);
    assert_int_equal(again.ended[0], 1 + GW_END_LENGTH);
    assert_memory_equal(&again.usage, &usage, sizeof usage);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), 1);
    heard_clear(&again);
}

static uint8_t *key_of(const char *more, uint8_t out[32])
{
    struct heard x = {0};
    ask_with(&w, more, &x);
    tokenised(&w);
    memcpy(out, cache_request()->get->keys[0]->key.data, 32);
    gw_cancel(w.g, w.now, x.id);
    return out;
}

static void what_changes_the_answer_changes_the_key(void **state UNUSED)
{
    static const char *const DIFFERENT[] = {",\"temperature\":0",
                                            ",\"temperature\":1,\"seed\":1",
                                            ",\"temperature\":1,\"seed\":2",
                                            ",\"temperature\":0,\"n\":2",
                                            ",\"temperature\":0,\"top_k\":3",
                                            ",\"temperature\":0,\"stop\":\"a\"",
                                            ",\"temperature\":0,\"stop\":[\"a\",\"b\"]",
                                            ",\"temperature\":0,\"max_tokens\":3",
                                            ",\"temperature\":0,\"logprobs\":true",
                                            ",\"temperature\":0,\"ignore_eos\":true",
                                            ",\"temperature\":0,\"logit_bias\":{\"1\":2}",
                                            ",\"temperature\":0,\"frequency_penalty\":1",
                                            ",\"temperature\":0.5,\"seed\":1"};
    uint8_t keys[ARRAY_LEN(DIFFERENT)][32];
    for (size_t i = 0; i < ARRAY_LEN(DIFFERENT); i++)
        key_of(DIFFERENT[i], keys[i]);
    for (size_t i = 0; i < ARRAY_LEN(DIFFERENT); i++)
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(keys[i], keys[k], 32);
    uint8_t greedy[32];
    assert_memory_equal(key_of(",\"temperature\":0,\"seed\":9", greedy), keys[0], 32);
}

static void random_answers_are_not_kept(void **state UNUSED)
{
    ask_with(&w, ",\"temperature\":1", &h);
    tokenised(&w);
    generated(&w, last_to(&w, MODEL, WIRE_REQUEST), 1, (uint32_t[]){0}, "",
              NUNCHI__CHOICE_END__REASON__STOP);
    assert_int_equal(count_to(&w, CACHE, WIRE_REQUEST), 0);
    assert_int_equal(h.n_done, 1);
}

static void silent_cache_is_a_miss(void **state UNUSED)
{
    ask_with(&w, ",\"temperature\":0", &h);
    tokenised(&w);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), 0);
    turn(&w, CACHE_LOOKUP_MS + 1);
    assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), 1);
}

static void damaged_values_are_misses(void **state UNUSED)
{
    static const char *const BAD[] = {"", "garbage", "\x08\x01"};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        struct heard x = {0};
        size_t before = count_to(&w, MODEL, WIRE_REQUEST);
        ask_with(&w, ",\"temperature\":0", &x);
        tokenised(&w);
        hit(&w, slice_str(BAD[i]));
        assert_int_equal(x.n_done, 0);
        assert_int_equal(count_to(&w, MODEL, WIRE_REQUEST), before + 1);
        gw_cancel(w.g, w.now, x.id);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(file_is_waited_for),
                                       T(file_that_cannot_be_read),
                                       T(file_that_is_not_there),
                                       T(reader_that_died),
                                       T(store_is_away),
                                       T(client_leaves_while_waiting),
                                       T(video_inside),
                                       T(video_worker_lost),
                                       T(upload_is_accepted),
                                       T(upload_waits_for_credit),
                                       T(quota_is_full),
                                       T(video_worker_lost_before_acceptance),
                                       T(video_worker_lost_after_acceptance),
                                       T(uploader_leaves),
                                       T(remembered),
                                       T(what_changes_the_answer_changes_the_key),
                                       T(random_answers_are_not_kept),
                                       T(silent_cache_is_a_miss),
                                       T(damaged_values_are_misses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
