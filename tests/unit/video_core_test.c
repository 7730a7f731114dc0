/* The life of a file without disk, store, decoder or network: all of them are this test. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "common/wire/pb.h"
#include "video-svc/core.h"
#include "video-svc/notes.h"

#define MAX 64
#define SECOND 1000000ull

struct disk_call {
    uint64_t job;
    enum vid_disk_op op;
};
struct cache_call {
    uint64_t job;
    enum vid_call call;
    uint32_t tag;
    Nunchi__CacheRequest__OpCase op;
    int status;
    char error[200], phase[20];
    buf bulk;
};

static struct {
    vid *v;
    uint64_t now;
    struct disk_call disk[MAX];
    size_t n_disk;
    struct cache_call cache[MAX];
    size_t n_cache;
    uint64_t decode[MAX], killed[MAX];
    size_t n_decode, n_killed;
    uint64_t credit; /* all of them */
    int spooled, progress, done, errors;
    int last_error;
    char last_why[300];
    bool seen_before;
    uint32_t n_scenes;
    uint64_t done_request;
} w;

static void on_send(void *ctx UNUSED, uint64_t gateway UNUSED, uint64_t request,
                    uint32_t attempt UNUSED, enum wire_type type, const ProtobufCMessage *m)
{
    if (type == WIRE_CREDIT) {
        w.credit += ((const Nunchi__Credit *)m)->amount;
    } else if (type == WIRE_CHUNK) {
        bool spooled = ((const Nunchi__Ingesting *)m)->phase == NUNCHI__INGESTING__PHASE__SPOOLED;
        w.spooled += spooled;
        w.progress += !spooled;
    } else if (type == WIRE_DONE) {
        w.done++;
        w.done_request = request;
        w.seen_before = ((const Nunchi__Ingested *)m)->seen_before;
        w.n_scenes = ((const Nunchi__Ingested *)m)->n_scenes;
    }
}

static void on_error(void *ctx UNUSED, uint64_t gateway UNUSED, uint64_t request UNUSED,
                     uint32_t attempt UNUSED, int err, const struct why *why,
                     uint32_t retry_ms UNUSED)
{
    w.errors++;
    w.last_error = err;
    snprintf(w.last_why, sizeof w.last_why, "%s", why->text);
}

static void on_disk(void *ctx UNUSED, uint64_t job, enum vid_disk_op op,
                    const struct vid_saved *s UNUSED, slice bytes UNUSED)
{
    assert_true(w.n_disk < MAX);
    w.disk[w.n_disk++] = (struct disk_call){job, op};
}

static void on_cache(void *ctx UNUSED, uint64_t job, enum vid_call call, uint32_t tag,
                     slice key UNUSED, const Nunchi__CacheRequest *q, slice bulk)
{
    assert_true(w.n_cache < MAX);
    struct cache_call *c = &w.cache[w.n_cache++];
    *c = (struct cache_call){.job = job, .call = call, .tag = tag, .op = q->op_case};
    if (q->op_case == NUNCHI__CACHE_REQUEST__OP_FILE_PROGRESS) {
        c->status = (int)q->file_progress->status;
        snprintf(c->error, sizeof c->error, "%.*s", (int)q->file_progress->error.len,
                 (const char *)q->file_progress->error.data);
        snprintf(c->phase, sizeof c->phase, "%s", q->file_progress->phase);
    }
    buf_put_slice(&c->bulk, bulk);
}

static void on_decode(void *ctx UNUSED, uint64_t job, const struct vid_saved *s UNUSED)
{
    w.decode[w.n_decode++] = job;
}

static void on_kill(void *ctx UNUSED, uint64_t job)
{
    w.killed[w.n_killed++] = job;
}

static void on_random(void *ctx UNUSED, void *p, size_t n)
{
    memset(p, 0x5a, n);
}

static int start(void **state UNUSED)
{
    memset(&w, 0, sizeof w);
    w.now = 100 * SECOND;
    struct vid_config cfg = {.jobs = 1,
                             .queue = 3,
                             .spool_bytes = 4 << 20,
                             .upload_max = 2 << 20,
                             .upload_silence_ms = 60000,
                             .decode_ms = 600000,
                             .store_patience_ms = 10000};
    struct vid_out out = {NULL,     on_send,   on_error, on_disk,
                          on_cache, on_decode, on_kill,  on_random};
    w.v = vid_new(&cfg, &out);
    return 0;
}

static int stop(void **state UNUSED)
{
    for (size_t i = 0; i < MAX; i++)
        buf_clear(&w.cache[i].bulk);
    vid_free(w.v);
    return 0;
}

/* ---- what the world does ---- */

static struct wire_head head(uint64_t request, uint16_t flags)
{
    return (struct wire_head){.request = request, .flags = flags};
}

static void request(uint64_t id, uint64_t size)
{
    static uint8_t tenant[32];
    static char file_id[] = "file-0123456789abcdef0123456789abcdef";
    Nunchi__Ingest q;
    nunchi__ingest__init(&q);
    q.file_id = file_id;
    q.tenant = (ProtobufCBinaryData){32, tenant};
    q.size = size;
    struct wire_head h = head(id, 0);
    vid_request(w.v, w.now, 1, &h, &q);
}

static void chunk(uint64_t id, slice bytes, bool last)
{
    struct wire_head h = head(id, last ? WIRE_END : 0);
    vid_chunk(w.v, w.now, 1, &h, bytes);
}

static bool disk_step(int err)
{
    if (w.n_disk == 0)
        return false;
    struct disk_call c = w.disk[0];
    memmove(&w.disk[0], &w.disk[1], --w.n_disk * sizeof w.disk[0]);
    vid_disk_done(w.v, w.now, c.job, err);
    return true;
}

static void disk_all(void)
{
    while (disk_step(0))
        ;
}

/* Answers the first open call of this kind; false: there is none. */
static bool cache_answer(enum vid_call call, int err, const Nunchi__CacheReply *reply,
                         const slice *frames, size_t n_frames)
{
    for (size_t i = 0; i < w.n_cache; i++) {
        if (w.cache[i].call != call)
            continue;
        struct cache_call c = w.cache[i];
        memmove(&w.cache[i], &w.cache[i + 1], (--w.n_cache - i) * sizeof w.cache[0]);
        w.cache[w.n_cache] = (struct cache_call){0};
        vid_cache_done(w.v, w.now, c.job, call, c.tag, err, reply, frames, n_frames);
        buf_clear(&c.bulk);
        return true;
    }
    return false;
}

static bool answer_ok(enum vid_call call)
{
    Nunchi__Done d = NUNCHI__DONE__INIT;
    Nunchi__CacheReply r = NUNCHI__CACHE_REPLY__INIT;
    r.op_case = NUNCHI__CACHE_REPLY__OP_DONE;
    r.done = &d;
    return cache_answer(call, 0, &r, NULL, 0);
}

static bool answer_lookup(slice notes_bytes)
{
    uint32_t at = notes_bytes.n ? 1 : 0;
    Nunchi__BlobValues v = NUNCHI__BLOB_VALUES__INIT;
    Nunchi__CacheReply r = NUNCHI__CACHE_REPLY__INIT;
    v.n_frame = 1;
    v.frame = &at;
    r.op_case = NUNCHI__CACHE_REPLY__OP_VALUES;
    r.values = &v;
    return cache_answer(VID_CALL_LOOKUP, 0, &r, &notes_bytes, at);
}

static void tick(uint64_t later_us)
{
    w.now += later_us;
    vid_tick(w.v, w.now);
}

static void upload(uint64_t id, slice bytes)
{
    request(id, bytes.n);
    chunk(id, bytes, true);
    disk_all();
}

static void say(uint64_t job, const struct record *r)
{
    vid_record(w.v, w.now, job, r);
}

#define JPEG SLICE_LIT("\xff\xd8..\xff\xd9")

static void decode_well(uint64_t job)
{
    say(job, &(struct record){.type = REC_CONTAINER});
    say(job, &(struct record){.type = REC_PROGRESS, .progress = {REC_PHASE_SCENES, 500}});
    say(job, &(struct record){.type = REC_SCENE, .scene = {0, 4000}});
    say(job, &(struct record){.type = REC_FRAME, .frame = {.jpeg = JPEG, .width = 1, .height = 1}});
    say(job, &(struct record){.type = REC_THUMB, .thumb = JPEG});
    say(job, &(struct record){.type = REC_DONE, .done_duration_ms = 4000});
    vid_decoder_end(w.v, w.now, job, 0, NULL);
}

/* ---- tests ---- */

static void a_file_from_its_first_byte_to_its_notes(void **state UNUSED)
{
    request(7, 10);
    assert_int_equal(w.credit, 10);
    chunk(7, SLICE_LIT("01234"), false);
    assert_int_equal(w.disk[0].op, VID_DISK_WRITE);
    chunk(7, SLICE_LIT("56789"), true);
    assert_int_equal(w.n_disk, 1); /* one at a time */
    disk_step(0);
    disk_step(0);
    assert_int_equal(w.disk[0].op, VID_DISK_SEAL);
    assert_int_equal(w.spooled, 0);
    disk_step(0);
    assert_int_equal(w.spooled, 1);
    tick(0);
    assert_true(answer_ok(VID_CALL_PROGRESS));
    assert_true(answer_lookup((slice){0}));
    assert_int_equal(w.n_decode, 1);
    decode_well(w.decode[0]);
    assert_int_equal(w.progress, 3); /* probing, scenes, storing */
    assert_int_equal(w.n_cache, 2);  /* frame and thumbnail; the notes wait for them */
    assert_true(answer_ok(VID_CALL_PUT));
    assert_int_equal(w.n_cache, 1);
    assert_true(answer_ok(VID_CALL_PUT));
    assert_int_equal(w.n_cache, 1);
    uint64_t duration;
    uint32_t scenes;
    assert_int_equal(notes_peek(buf_slice(&w.cache[0].bulk), &duration, &scenes), 0);
    assert_int_equal(duration, 4000);
    assert_true(answer_ok(VID_CALL_PUT));
    assert_int_equal(w.cache[0].call, VID_CALL_TELL);
    assert_int_equal(w.cache[0].status, NUNCHI__FILE_RECORD__STATUS__PROCESSED);
    assert_int_equal(w.done, 0);
    assert_true(answer_ok(VID_CALL_TELL));
    assert_int_equal(w.done, 1);
    assert_int_equal(w.n_scenes, 1);
    assert_int_equal(w.disk[0].op, VID_DISK_REMOVE);
    disk_all();
    assert_int_equal(vid_load_now(w.v).spool_used, 0);
    assert_int_equal(vid_load_now(w.v).queued, 0);
}

static void credit_is_given_as_bytes_reach_the_disk(void **state UNUSED)
{
    request(7, 0); /* unknown size */
    assert_int_equal(w.credit, VID_WINDOW_BYTES);
    char *bytes = xcalloc(1, VID_CHUNK_MAX);
    slice piece = {bytes, VID_CHUNK_MAX};
    for (int i = 0; i < 3; i++)
        chunk(7, piece, false);
    assert_int_equal(w.credit, VID_WINDOW_BYTES);
    disk_step(0); /* the first piece */
    disk_step(0); /* the two that had gathered */
    assert_int_equal(w.credit, VID_WINDOW_BYTES + 3 * VID_CHUNK_MAX);
    for (int i = 0; i < 4; i++)
        chunk(7, piece, false);
    assert_int_equal(w.errors, 0);
    chunk(7, (slice){bytes, 1}, false); /* beyond the credit */
    assert_int_equal(w.last_error, ERR_PROTO);
    disk_all();
    assert_int_equal(vid_load_now(w.v).spool_used, 0);
    free(bytes);
}

static void uploads_are_bounded(void **state UNUSED)
{
    request(1, (2 << 20) + 1);
    assert_int_equal(w.last_error, ERR_TOO_BIG);
    request(2, 2 << 20);
    request(3, 2 << 20);
    assert_int_equal(w.errors, 1);
    request(4, 100); /* the spool is full */
    assert_int_equal(w.last_error, ERR_BUSY);
    vid_cancel(w.v, w.now, 1, 2);
    vid_cancel(w.v, w.now, 1, 3);
    disk_all();
    for (uint64_t i = 10; i < 14; i++)
        request(i, 10);
    assert_int_equal(w.errors, 2);
    request(14, 10); /* jobs and queue are full */
    assert_int_equal(w.last_error, ERR_BUSY);
    assert_int_equal(vid_load_now(w.v).slots, 0);
    chunk(10, SLICE_LIT("0123456789x"), false);
    assert_int_equal(w.last_error, ERR_PROTO);
    chunk(11, SLICE_LIT("012"), true);
    assert_int_equal(w.last_error, ERR_INVALID);
    char *bytes = xcalloc(1, VID_CHUNK_MAX + 1);
    chunk(12, (slice){bytes, VID_CHUNK_MAX + 1}, false);
    assert_int_equal(w.last_error, ERR_PROTO);
    free(bytes);
    tick(61 * SECOND); /* 13 said nothing */
    assert_int_equal(w.last_error, ERR_TIMEOUT);
    disk_all();
    assert_int_equal(vid_load_now(w.v).slots, 4);
}

static void bad_requests_are_refused(void **state UNUSED)
{
    static uint8_t tenant[32];
    Nunchi__Ingest q;
    struct wire_head h = head(5, 0);
    nunchi__ingest__init(&q);
    vid_request(w.v, w.now, 1, &h, &q);
    assert_int_equal(w.last_error, ERR_INVALID); /* no tenant */
    q.tenant = (ProtobufCBinaryData){32, tenant};
    q.frames_max = REC_FRAMES_MAX + 1;
    vid_request(w.v, w.now, 1, &h, &q);
    assert_int_equal(w.last_error, ERR_INVALID);
    q.frames_max = 0;
    q.frames = (Nunchi__Ingest__Frames)9;
    vid_request(w.v, w.now, 1, &h, &q);
    assert_int_equal(w.last_error, ERR_UNSUPPORTED);
    chunk(99, SLICE_LIT("x"), true); /* nobody's */
    vid_drain(w.v);
    request(6, 1);
    assert_int_equal(w.last_error, ERR_UNAVAILABLE);
    assert_int_equal(w.errors, 4);
}

static void what_is_known_is_not_read_again(void **state UNUSED)
{
    upload(7, SLICE_LIT("same"));
    answer_lookup((slice){0});
    decode_well(w.decode[0]);
    answer_ok(VID_CALL_PUT);
    answer_ok(VID_CALL_PUT);
    buf kept = {0};
    buf_put_slice(&kept, buf_slice(&w.cache[0].bulk));
    answer_ok(VID_CALL_PUT);
    answer_ok(VID_CALL_TELL);
    upload(8, SLICE_LIT("same"));
    assert_true(answer_lookup(buf_slice(&kept)));
    answer_ok(VID_CALL_TELL);
    assert_int_equal(w.done, 2);
    assert_true(w.seen_before);
    assert_int_equal(w.n_scenes, 1);
    assert_int_equal(w.n_decode, 1);
    /* Damaged notes are as good as none. */
    upload(9, SLICE_LIT("same"));
    assert_true(answer_lookup(SLICE_LIT("\x08\x07rubbish")));
    assert_int_equal(w.n_decode, 2);
    buf_clear(&kept);
}

static void the_same_file_twice_at_once_is_read_once(void **state UNUSED)
{
    upload(7, SLICE_LIT("same"));
    upload(8, SLICE_LIT("same"));
    upload(9, SLICE_LIT("other"));
    assert_true(answer_lookup((slice){0}));
    assert_true(answer_lookup((slice){0}));
    assert_false(answer_lookup((slice){0})); /* the second waits for the first */
    assert_int_equal(w.n_decode, 1);         /* one decoder */
    struct why why = {.text = "gone"};
    vid_cancel(w.v, w.now, 1, 7);
    assert_int_equal(w.n_killed, 1);
    vid_decoder_end(w.v, w.now, w.decode[0], ERR_CANCELLED, &why);
    assert_true(answer_lookup((slice){0})); /* now it is its turn to look */
    assert_int_equal(w.n_decode, 2);
    assert_int_equal(w.errors, 0);
}

static void a_cancel_kills_at_once(void **state UNUSED)
{
    upload(7, SLICE_LIT("bytes"));
    answer_lookup((slice){0});
    vid_cancel(w.v, w.now, 1, 7);
    assert_int_equal(w.n_killed, 1);
    assert_int_equal(w.n_disk, 0); /* the file is still open in the decoder */
    say(w.decode[0], &(struct record){.type = REC_SCENE});
    vid_decoder_end(w.v, w.now, w.decode[0], ERR_CANCELLED, NULL);
    assert_int_equal(w.disk[0].op, VID_DISK_REMOVE);
    disk_all();
    assert_int_equal(vid_load_now(w.v).running, 0);
    assert_int_equal(w.errors + w.done, 0);
    /* While the disk is at work: removed when it is done. */
    request(8, 100);
    chunk(8, SLICE_LIT("abc"), false);
    vid_cancel(w.v, w.now, 1, 8);
    assert_int_equal(w.n_disk, 1);
    disk_step(0);
    assert_int_equal(w.disk[0].op, VID_DISK_REMOVE);
    disk_all();
    assert_int_equal(vid_load_now(w.v).queued, 0);
}

static void an_accepted_file_outlives_its_gateway(void **state UNUSED)
{
    upload(7, SLICE_LIT("bytes"));
    request(8, 100);
    vid_gateway_gone(w.v, w.now, 1);
    disk_all(); /* 8 goes */
    assert_int_equal(vid_load_now(w.v).queued, 1);
    answer_lookup((slice){0});
    decode_well(w.decode[0]);
    while (answer_ok(VID_CALL_PUT))
        ;
    assert_true(answer_ok(VID_CALL_TELL));
    assert_int_equal(w.done, 0);
    disk_all();
    assert_int_equal(vid_load_now(w.v).done, 1);
}

static void what_the_decoder_says_reaches_the_record(void **state UNUSED)
{
    upload(7, SLICE_LIT("bytes"));
    answer_lookup((slice){0});
    say(w.decode[0],
        &(struct record){.type = REC_FAIL,
                         .fail = {err_to_wire(ERR_UNREADABLE), SLICE_LIT("the file is text")}});
    vid_decoder_end(w.v, w.now, w.decode[0], 0, NULL);
    assert_int_equal(w.cache[w.n_cache - 1].call, VID_CALL_TELL);
    assert_int_equal(w.cache[w.n_cache - 1].status, NUNCHI__FILE_RECORD__STATUS__ERROR);
    assert_string_equal(w.cache[w.n_cache - 1].error, "the file is text");
    answer_ok(VID_CALL_TELL);
    assert_int_equal(w.last_error, ERR_UNREADABLE);
    assert_string_equal(w.last_why, "the file is text");
    disk_all();
    /* A crash. */
    upload(8, SLICE_LIT("other"));
    answer_lookup((slice){0});
    struct why why = {.text = "its decoder crashed"};
    vid_decoder_end(w.v, w.now, w.decode[1], ERR_UNREADABLE, &why);
    answer_ok(VID_CALL_TELL);
    assert_string_equal(w.last_why, "its decoder crashed");
    disk_all();
    /* A decoder that hangs, the second time: the first was killed for lack of memory. */
    upload(9, SLICE_LIT("third"));
    answer_lookup((slice){0});
    vid_decoder_end(w.v, w.now, w.decode[2], ERR_NOMEM, NULL);
    assert_int_equal(w.n_decode, 4);
    assert_int_equal(w.errors, 2);
    for (int i = 0; i < 700; i++)
        tick(SECOND), cache_answer(VID_CALL_PROGRESS, ERR_TIMEOUT, NULL, NULL, 0);
    assert_int_equal(w.n_killed, 1);
    vid_decoder_end(w.v, w.now, w.decode[2], ERR_CANCELLED, NULL);
    answer_ok(VID_CALL_TELL);
    assert_int_equal(w.last_error, ERR_TIMEOUT);
}

static void a_store_that_is_away_is_waited_for(void **state UNUSED)
{
    upload(7, SLICE_LIT("bytes"));
    cache_answer(VID_CALL_LOOKUP, ERR_UNAVAILABLE, NULL, NULL, 0);
    assert_false(answer_lookup((slice){0}));
    tick(SECOND);
    assert_true(answer_lookup((slice){0}));
    decode_well(w.decode[0]);
    cache_answer(VID_CALL_PUT, ERR_UNAVAILABLE, NULL, NULL, 0);
    answer_ok(VID_CALL_PUT);
    tick(SECOND);
    answer_ok(VID_CALL_PUT);
    answer_ok(VID_CALL_PUT);
    cache_answer(VID_CALL_TELL, ERR_TIMEOUT, NULL, NULL, 0);
    tick(SECOND);
    answer_ok(VID_CALL_TELL);
    assert_int_equal(w.done, 1);
    disk_all();
    /* But not for ever. */
    upload(8, SLICE_LIT("other"));
    for (int i = 0; i < 20 && cache_answer(VID_CALL_LOOKUP, ERR_UNAVAILABLE, NULL, NULL, 0); i++)
        tick(SECOND);
    while (cache_answer(VID_CALL_TELL, ERR_UNAVAILABLE, NULL, NULL, 0))
        tick(SECOND);
    assert_int_equal(w.last_error, ERR_UNAVAILABLE);
    assert_int_equal(w.errors, 1);
    /* A lookup by a store that has lost what is behind it is no answer. */
    disk_all();
    upload(9, SLICE_LIT("third"));
    uint32_t miss = 0;
    Nunchi__BlobValues v = NUNCHI__BLOB_VALUES__INIT;
    Nunchi__CacheReply r = NUNCHI__CACHE_REPLY__INIT;
    v.n_frame = 1;
    v.frame = &miss;
    v.degraded = 1;
    r.op_case = NUNCHI__CACHE_REPLY__OP_VALUES;
    r.values = &v;
    cache_answer(VID_CALL_LOOKUP, 0, &r, NULL, 0);
    assert_int_equal(w.n_decode, 1);
}

static void a_deleted_file_is_not_read_on(void **state UNUSED)
{
    upload(7, SLICE_LIT("bytes"));
    answer_lookup((slice){0});
    tick(3 * SECOND);
    cache_answer(VID_CALL_PROGRESS, ERR_NOT_FOUND, NULL, NULL, 0);
    assert_int_equal(w.n_killed, 1);
    assert_int_equal(w.last_error, ERR_NOT_FOUND);
}

static void a_disk_that_fails_ends_the_upload(void **state UNUSED)
{
    request(7, 10);
    chunk(7, SLICE_LIT("0123456789"), true);
    disk_step(ERR_IO);
    assert_int_equal(w.last_error, ERR_IO);
    disk_all();
    request(8, 10);
    chunk(8, SLICE_LIT("0123456789"), true);
    disk_step(0);
    disk_step(ERR_IO); /* the seal */
    assert_int_equal(w.errors, 2);
    assert_int_equal(w.spooled, 0);
    disk_all();
    assert_int_equal(vid_load_now(w.v).spool_used, 0);
}

static void accepted_files_are_taken_up_again(void **state UNUSED)
{
    struct vid_saved s = {.size = 100, .file_id = "file-1"};
    vid_resume(w.v, w.now, &s);
    assert_int_equal(vid_load_now(w.v).spool_used, 100);
    answer_lookup((slice){0});
    decode_well(w.decode[0]);
    while (answer_ok(VID_CALL_PUT))
        ;
    assert_true(answer_ok(VID_CALL_TELL));
    disk_all();
    assert_int_equal(vid_load_now(w.v).done, 1);
    assert_int_equal(vid_load_now(w.v).spool_used, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_file_from_its_first_byte_to_its_notes),
        TEST(credit_is_given_as_bytes_reach_the_disk),
        TEST(uploads_are_bounded),
        TEST(bad_requests_are_refused),
        TEST(what_is_known_is_not_read_again),
        TEST(the_same_file_twice_at_once_is_read_once),
        TEST(a_cancel_kills_at_once),
        TEST(an_accepted_file_outlives_its_gateway),
        TEST(what_the_decoder_says_reaches_the_record),
        TEST(a_store_that_is_away_is_waited_for),
        TEST(a_deleted_file_is_not_read_on),
        TEST(a_disk_that_fails_ends_the_upload),
        TEST(accepted_files_are_taken_up_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
