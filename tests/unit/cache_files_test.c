/* Records of files, sealed values and the memory tier: no store, no sockets. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "cache-svc/files.h"
#include "cache-svc/ram_tier.h"
#include "cache-svc/sealed.h"
#include "common/wire/pb.h"

#define NOW UINT64_C(1800000000000)

/* ---- sealed values
 * ----------------------------------------------------------------------------------------------------
 */

static void sealed_there_and_back(void **state UNUSED)
{
    buf b = {0};
    slice value;
    uint64_t end;
    sealed_put(&b, SLICE_LIT("key"), SLICE_LIT("value\0x"), NOW + 1);
    assert_int_equal(sealed_get(buf_slice(&b), SLICE_LIT("key"), NOW, &value, &end), 0);
    assert_true(slice_eq(value, SLICE_LIT("value\0x")));
    assert_true(end == NOW + 1);
    assert_int_equal(sealed_get(buf_slice(&b), SLICE_LIT("key"), NOW + 1, &value, &end),
                     ERR_NOT_FOUND);
    buf_clear(&b);
}

static void every_damaged_byte_is_seen(void **state UNUSED)
{
    buf b = {0};
    slice value;
    uint64_t end;
    sealed_put(&b, SLICE_LIT("key"), SLICE_LIT("some value"), 0);
    for (size_t i = 0; i < b.n; i++)
        for (int bit = 0; bit < 8; bit++) {
            b.p[i] = (char)(b.p[i] ^ (1 << bit));
            assert_int_equal(sealed_get(buf_slice(&b), SLICE_LIT("key"), NOW, &value, &end),
                             ERR_PROTO);
            b.p[i] = (char)(b.p[i] ^ (1 << bit));
        }
    for (size_t n = 0; n < b.n; n++)
        assert_int_equal(sealed_get((slice){b.p, n}, SLICE_LIT("key"), NOW, &value, &end),
                         ERR_PROTO);
    assert_int_equal(sealed_get(buf_slice(&b), SLICE_LIT("kez"), NOW, &value, &end),
                     ERR_PROTO); /* swapped */
    assert_int_equal(sealed_get(buf_slice(&b), SLICE_LIT("key"), NOW, &value, &end), 0);
    buf_clear(&b);
}

/* ---- memory
 * -----------------------------------------------------------------------------------------------------------
 */

static void put_for(ram_tier *t, const char *tenant, const char *key, size_t n, uint64_t ends_ms)
{
    shared *v = shared_new(n);
    memset(shared_bytes(v), key[0], n);
    ram_tier_put(t, slice_str(tenant), slice_str(key), v, ends_ms);
    shared_unref(v);
}

static void put_bytes(ram_tier *t, const char *key, size_t n, uint64_t ends_ms)
{
    put_for(t, "", key, n, ends_ms);
}

static void the_least_used_goes_first(void **state UNUSED)
{
    ram_tier *t = ram_tier_new(4 * 1300, 4 * 1300);
    static const char *const keys[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        put_bytes(t, keys[i], 1000, UINT64_MAX);
    assert_true(ram_tier_get(t, SLICE_LIT("a"), 0)); /* used again */
    put_bytes(t, "e", 1000, UINT64_MAX);
    assert_false(ram_tier_get(t, SLICE_LIT("b"), 0));
    assert_int_equal(shared_slice(ram_tier_get(t, SLICE_LIT("a"), 0)).n, 1000);
    assert_true(ram_tier_bytes(t) <= 4 * 1300);
    assert_int_equal(ram_tier_evicted(t), 1);
    ram_tier_del(t, SLICE_LIT("a"));
    assert_false(ram_tier_get(t, SLICE_LIT("a"), 0));
    put_bytes(t, "short", 1, 100);
    assert_true(ram_tier_get(t, SLICE_LIT("short"), 99));
    assert_false(ram_tier_get(t, SLICE_LIT("short"), 100));
    put_bytes(t, "large", 1000, UINT64_MAX);
    put_bytes(t, "large", 1, UINT64_MAX); /* replaced */
    assert_int_equal(shared_slice(ram_tier_get(t, SLICE_LIT("large"), 0)).n, 1);
    ram_tier_free(t);
}

/* Ten prefixes asked for all day, among a thousand that come once. */
static void what_is_asked_for_survives_what_comes_once(void **state UNUSED)
{
    char key[32];
    ram_tier *t = ram_tier_new(40 * 1300, 40 * 1300);
    size_t hits = 0;
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 10; i++) {
            snprintf(key, sizeof key, "h%d", i);
            if (ram_tier_get(t, slice_str(key), 0))
                hits++;
            else
                put_bytes(t, key, 1000, UINT64_MAX);
        }
        for (int i = 0; i < 100; i++) {
            snprintf(key, sizeof key, "once %d %d", round, i);
            put_bytes(t, key, 1000, UINT64_MAX);
            /* in the middle of the flood, the first time, they are asked for once more */
            if (round == 0 && i == 20)
                for (int k = 0; k < 10; k++) {
                    snprintf(key, sizeof key, "h%d", k);
                    assert_true(ram_tier_get(t, slice_str(key), 0));
                }
        }
    }
    assert_int_equal(hits, 990);
    ram_tier_free(t);
}

/* A tenant's flood, however useful to itself, leaves the others what they have in the rest. */
static void a_flood_makes_room_from_its_own(void **state UNUSED)
{
    enum { ENTRY = 1300, ROOM = 100 };
    char key[32];
    ram_tier *t = ram_tier_new(ROOM * ENTRY, ROOM / 2 * ENTRY);
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "quiet %d", i);
        put_for(t, "quiet", key, 1000, UINT64_MAX);
    }
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "loud %d", i);
        put_for(t, "loud", key, 1000, UINT64_MAX);
        assert_true(ram_tier_get(t, slice_str(key), 0)); /* asked for again at once */
    }
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "quiet %d", i);
        assert_true(ram_tier_has(t, slice_str(key), 0));
    }
    assert_true(ram_tier_bytes(t) > (ROOM - 3) * ENTRY); /* and what nobody else uses it may have */
    for (int i = 0; i < 60; i++) { /* whoever has less than a share takes it from the oldest */
        snprintf(key, sizeof key, "third %d", i);
        put_for(t, "third", key, 1000, UINT64_MAX);
    }
    snprintf(key, sizeof key, "third %d", 59);
    assert_true(ram_tier_has(t, slice_str(key), 0));
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "loud %d", i);
        ram_tier_del(t, slice_str(key));
        snprintf(key, sizeof key, "third %d", i % 60);
        ram_tier_del(t, slice_str(key));
        snprintf(key, sizeof key, "quiet %d", i % 40);
        ram_tier_del(t, slice_str(key));
    }
    assert_int_equal(ram_tier_bytes(t), 0);
    ram_tier_free(t);
}

/* A value that is on its way out lives until it has gone, whatever the cache does. */
static void who_holds_a_value_keeps_it(void **state UNUSED)
{
    ram_tier *t = ram_tier_new(4 * 1300, 4 * 1300);
    put_bytes(t, "a", 1000, UINT64_MAX);
    shared *v = shared_ref(ram_tier_get(t, SLICE_LIT("a"), 0));
    ram_tier_free(t);
    assert_int_equal(shared_slice(v).p[999], 'a');
    shared_unref(v);
}

static void no_budget_and_too_large(void **state UNUSED)
{
    ram_tier *none = ram_tier_new(0, 0), *small = ram_tier_new(8000, 8000);
    put_bytes(none, "k", 1, UINT64_MAX);
    assert_false(ram_tier_get(none, SLICE_LIT("k"), 0));
    put_bytes(small, "k", 1, UINT64_MAX);
    put_bytes(small, "big", 5000, UINT64_MAX);
    assert_true(
        ram_tier_get(small, SLICE_LIT("k"), 0)); /* not swept out by one that is too large */
    assert_false(ram_tier_get(small, SLICE_LIT("big"), 0));
    ram_tier_free(none);
    ram_tier_free(small);
}

/* ---- files
 * -------------------------------------------------------------------------------------------------------------
 */

static const struct file_limits limits = {
    .quota_bytes = 1000, .quota_count = 5, .ttl_s = 0, .silent_ms = 60000};
static const slice doc_name = {"nunchi:1:f:00", 13};

struct shelf { /* what the store would give */
    arena *a;
    slice list[64];
    size_t n;
    struct files files;
};

static void shelf_open(struct shelf *s)
{
    *s = (struct shelf){.a = arena_new(0)};
    s->list[s->n++] = SLICE_LIT("v");
    s->list[s->n++] = SLICE_LIT("7");
}

static char *file_id(arena *a, int i)
{
    char *id = arena_get(a, FILE_ID_BYTES + 1);
    snprintf(id, FILE_ID_BYTES + 1, "file-%032d", i);
    return id;
}

static Nunchi__FileRecord record(arena *a, int i, uint64_t bytes)
{
    static char purpose[] = "user_data";
    Nunchi__FileRecord r;
    nunchi__file_record__init(&r);
    r.id = file_id(a, i);
    r.bytes = bytes;
    r.created_unix_s = 1000 + (uint64_t)i;
    r.purpose = purpose;
    r.touched_unix_ms = NOW;
    return r;
}

static void shelf_add(struct shelf *s, const Nunchi__FileRecord *r)
{
    buf b = {0};
    files_seal(&b, doc_name, r);
    s->list[s->n++] = arena_slice(s->a, slice_str(r->id));
    s->list[s->n++] = arena_slice(s->a, buf_slice(&b));
    buf_clear(&b);
}

static void shelf_read(struct shelf *s)
{
    assert_int_equal(files_read(s->a, doc_name, s->list, s->n, &s->files), 0);
}

static void records_are_read_and_damaged_ones_are_not(void **state UNUSED)
{
    struct shelf s;
    shelf_open(&s);
    for (int i = 0; i < 3; i++) {
        Nunchi__FileRecord r = record(s.a, i, 10);
        shelf_add(&s, &r);
    }
    buf damaged = {0};
    buf_put_slice(&damaged, s.list[3]);
    damaged.p[60] ^= 1;
    s.list[3] = buf_slice(&damaged);
    slice second = s.list[5];
    s.list[5] = s.list[7]; /* one record under another's id */
    s.list[s.n++] = SLICE_LIT("file-x");
    s.list[s.n++] = SLICE_LIT("rubbish");
    shelf_read(&s);
    assert_true(slice_eq_str(s.files.version, "7"));
    assert_int_equal(s.files.n, 1);
    assert_int_equal(s.files.n_damaged, 3);
    s.list[5] = second;
    shelf_read(&s);
    assert_int_equal(s.files.n, 2);
    buf_clear(&damaged);
    arena_free(s.a);
}

static void ids(void **state UNUSED)
{
    assert_true(files_id_valid("file-0123456789abcdef0123456789abcdef"));
    assert_false(files_id_valid("file-0123456789ABCDEF0123456789abcdef"));
    assert_false(files_id_valid("file-0123456789abcdef0123456789abcde"));
    assert_false(files_id_valid("file-0123456789abcdef0123456789abcdef0"));
    assert_false(files_id_valid("film-0123456789abcdef0123456789abcdef"));
    assert_false(files_id_valid(""));
    assert_false(files_id_valid("v"));
}

static void quotas(void **state UNUSED)
{
    struct shelf s;
    struct why w;
    Nunchi__FileRecord *out;
    shelf_open(&s);
    Nunchi__FileRecord r = record(s.a, 0, 900), old = record(s.a, 1, 500);
    old.expires_unix_s = NOW / 1000; /* past its end: does not count */
    shelf_add(&s, &r);
    shelf_add(&s, &old);
    shelf_read(&s);
    Nunchi__FileRecord in = record(s.a, 2, 100);
    assert_int_equal(files_put(s.a, &s.files, &limits, &in, NOW, &out, &w), 0);
    assert_true(out->touched_unix_ms == NOW && out->expires_unix_s == 0);
    in.bytes = 101;
    assert_int_equal(files_put(s.a, &s.files, &limits, &in, NOW, &out, &w), ERR_TOO_BIG);
    in.bytes = UINT64_MAX;
    assert_int_equal(files_put(s.a, &s.files, &limits, &in, NOW, &out, &w), ERR_TOO_BIG);
    in.bytes = 0;
    struct file_limits few = limits;
    few.quota_count = 1;
    assert_int_equal(files_put(s.a, &s.files, &few, &in, NOW, &out, &w), ERR_TOO_BIG);
    few.quota_count = 2;
    few.ttl_s = 60;
    assert_int_equal(files_put(s.a, &s.files, &few, &in, NOW, &out, &w), 0);
    assert_true(out->expires_unix_s == NOW / 1000 + 60);
    assert_int_equal(files_put(s.a, &s.files, &limits, &r, NOW, &out, &w), ERR_EXISTS);
    arena_free(s.a);
}

static void limits_of_a_record(void **state UNUSED)
{
    struct shelf s;
    struct why w;
    static char long_text[2000];
    Nunchi__FileRecord *out;
    shelf_open(&s);
    shelf_read(&s);
    memset(long_text, 'x', sizeof long_text - 1);
    Nunchi__FileRecord in = record(s.a, 1, 1);
    in.filename = pb_bytes((slice){long_text, FILE_NAME_MAX});
    assert_int_equal(files_put(s.a, &s.files, &limits, &in, NOW, &out, &w), 0);
    buf sealed = {0};
    out->error = pb_bytes((slice){long_text, FILE_TEXT_MAX});
    files_seal(&sealed, doc_name, out);
    assert_true(sealed.n <= FILE_RECORD_MAX); /* the largest that is let in can be read back */
    buf_clear(&sealed);
    in.filename.len++;
    assert_int_equal(files_put(s.a, &s.files, &limits, &in, NOW, &out, &w), ERR_TOO_BIG);
    assert_string_equal(w.field, "file.filename");
    in = record(s.a, 1, 1);
    in.purpose = long_text;
    assert_int_equal(files_put(s.a, &s.files, &limits, &in, NOW, &out, &w), ERR_TOO_BIG);
    in = record(s.a, 1, 1);
    in.content = pb_bytes((slice){long_text, 31});
    assert_int_equal(files_put(s.a, &s.files, &limits, &in, NOW, &out, &w), ERR_INVALID);
    in = record(s.a, 1, 1);
    in.status = (Nunchi__FileRecord__Status)9;
    assert_int_equal(files_put(s.a, &s.files, &limits, &in, NOW, &out, &w), ERR_UNSUPPORTED);
    arena_free(s.a);
}

static void progress(void **state UNUSED)
{
    struct shelf s;
    struct why w;
    Nunchi__FileRecord *out;
    Nunchi__FileProgress p;
    shelf_open(&s);
    Nunchi__FileRecord r = record(s.a, 1, 1), ended = record(s.a, 2, 1);
    ended.status = NUNCHI__FILE_RECORD__STATUS__PROCESSED;
    shelf_add(&s, &r);
    shelf_add(&s, &ended);
    shelf_read(&s);
    nunchi__file_progress__init(&p);
    p.id = r.id;
    p.permille = 5000;
    p.content = pb_bytes((slice){"01234567890123456789012345678901", 32});
    assert_int_equal(files_progress(s.a, &s.files, &p, NOW + 5, &out, &w), 0);
    assert_int_equal(out->permille, 1000);
    assert_int_equal(out->content.len, 32);
    assert_true(out->touched_unix_ms == NOW + 5);
    p.id = ended.id; /* a late word does not undo the end */
    assert_int_equal(files_progress(s.a, &s.files, &p, NOW, &out, &w), 0);
    assert_int_equal(out->status, NUNCHI__FILE_RECORD__STATUS__PROCESSED);
    p.id = file_id(s.a, 9);
    assert_int_equal(files_progress(s.a, &s.files, &p, NOW, &out, &w), ERR_NOT_FOUND);
    arena_free(s.a);
}

static void one_given_up_says_so(void **state UNUSED)
{
    arena *a = arena_new(0);
    Nunchi__FileRecord r = record(a, 1, 1);
    files_show(&r, &limits, NOW + 60000);
    assert_int_equal(r.status, NUNCHI__FILE_RECORD__STATUS__UPLOADED);
    files_show(&r, &limits, NOW + 60001);
    assert_int_equal(r.status, NUNCHI__FILE_RECORD__STATUS__ERROR);
    assert_true(slice_eq_str(pb_slice(r.error), "reading was interrupted; upload the file again"));
    r = record(a, 1, 1);
    r.status = NUNCHI__FILE_RECORD__STATUS__PROCESSED;
    files_show(&r, &limits, NOW + 1000000);
    assert_int_equal(r.status, NUNCHI__FILE_RECORD__STATUS__PROCESSED);
    arena_free(a);
}

static void pages(void **state UNUSED)
{
    struct shelf s;
    struct why w;
    Nunchi__FileRecords page;
    Nunchi__FileList q;
    static char other[] = "vision";
    shelf_open(&s);
    for (int i = 0; i < 7; i++) {
        Nunchi__FileRecord r = record(s.a, i, 1);
        if (i == 3)
            r.purpose = other;
        if (i == 6)
            r.expires_unix_s = 1;
        shelf_add(&s, &r);
    }
    shelf_read(&s);
    nunchi__file_list__init(&q);
    q.limit = 4;
    assert_int_equal(files_page(s.a, &s.files, &limits, &q, NOW, &page, &w), 0);
    assert_int_equal(page.n_files, 4);
    assert_true(page.has_more);
    assert_string_equal(page.files[0]->id, file_id(s.a, 5)); /* newest first; 6 is past its end */
    q.after = page.files[3]->id;
    assert_int_equal(files_page(s.a, &s.files, &limits, &q, NOW, &page, &w), 0);
    assert_int_equal(page.n_files, 2);
    assert_false(page.has_more);
    assert_string_equal(page.files[1]->id, file_id(s.a, 0));
    q.after = file_id(s.a, 77);
    assert_int_equal(files_page(s.a, &s.files, &limits, &q, NOW, &page, &w), ERR_INVALID);
    nunchi__file_list__init(&q);
    q.limit = 1000;
    q.ascending = true;
    q.purpose = other;
    assert_int_equal(files_page(s.a, &s.files, &limits, &q, NOW, &page, &w), 0);
    assert_int_equal(page.n_files, 1);
    assert_string_equal(page.files[0]->id, file_id(s.a, 3));
    q.limit = 0;
    assert_int_equal(files_page(s.a, &s.files, &limits, &q, NOW, &page, &w), ERR_INVALID);
    q.limit = FILE_LIST_MAX + 1;
    assert_int_equal(files_page(s.a, &s.files, &limits, &q, NOW, &page, &w), ERR_INVALID);
    arena_free(s.a);
}

static void content_of_several(void **state UNUSED)
{
    struct shelf s;
    static const slice x = {"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 32},
                       y = {"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", 32};
    shelf_open(&s);
    for (int i = 0; i < 3; i++) {
        Nunchi__FileRecord r = record(s.a, i, 1);
        r.content = pb_bytes(i < 2 ? x : y);
        shelf_add(&s, &r);
    }
    shelf_read(&s);
    CHECK(s.files.n == 3 && s.files.list);
    assert_int_equal(files_only_content(&s.files, s.files.list[0]).n, 0);
    assert_true(slice_eq(files_only_content(&s.files, s.files.list[2]), y));
    assert_true(files_name_content(&s.files, y));
    assert_false(files_name_content(&s.files, doc_name));
    arena_free(s.a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sealed_there_and_back),
        cmocka_unit_test(every_damaged_byte_is_seen),
        cmocka_unit_test(the_least_used_goes_first),
        cmocka_unit_test(what_is_asked_for_survives_what_comes_once),
        cmocka_unit_test(a_flood_makes_room_from_its_own),
        cmocka_unit_test(who_holds_a_value_keeps_it),
        cmocka_unit_test(no_budget_and_too_large),
        cmocka_unit_test(records_are_read_and_damaged_ones_are_not),
        cmocka_unit_test(ids),
        cmocka_unit_test(quotas),
        cmocka_unit_test(limits_of_a_record),
        cmocka_unit_test(progress),
        cmocka_unit_test(one_given_up_says_so),
        cmocka_unit_test(pages),
        cmocka_unit_test(content_of_several),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
