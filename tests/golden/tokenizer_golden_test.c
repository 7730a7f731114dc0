/* Ids equal to those of the references (make_tokenizer_golden.py says which), over texts of many
 * languages, random texts, hostile ones and long runs; and chats as the models' templates render
 * them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "tokenizer-svc/chat.h"

#define STORED_IDS_MAX 4000 /* as in the script */

struct model {
    const char *file, *texts_ids, *chats;
    vocab *v;
    tokenizer *t;
    tok_scratch *s;
};

static struct model models[] = {
    {.file = "SmolLM2-135M-Instruct.Q4_1.gguf",
     .texts_ids = "tokenizer_smollm2.bin",
     .chats = "tokenizer_chat_smollm2.bin"},
    {.file = "gemma-3-270m-q4_k_m.gguf",
     .texts_ids = "tokenizer_gemma3.bin",
     .chats = "tokenizer_chat_gemma3.bin"},
};

/* ---- golden files ---- */

struct reader {
    buf data;
    size_t at;
};

static void open_golden(struct reader *r, const char *name, const char *magic)
{
    char path[512];
    (void)snprintf(path, sizeof path, "tests/golden/%s", name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing: run from the root of the source tree", path);
    char part[65536];
    *r = (struct reader){0};
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;)
        buf_put(&r->data, part, n);
    fclose(f);
    CHECK(r->data.p && r->data.n > 5);
    assert_true(memcmp(r->data.p, magic, 4) == 0 && r->data.p[4] == 1);
    r->at = 5;
}

static uint64_t number(struct reader *r)
{
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(r->at < r->data.n);
        unsigned char b = (unsigned char)r->data.p[r->at++];
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
}

static slice bytes(struct reader *r, size_t n)
{
    assert_true(n <= r->data.n - r->at);
    slice s = {r->data.p + r->at, n};
    r->at += n;
    return s;
}

static slice text(struct reader *r)
{
    size_t n = number(r);
    return bytes(r, n);
}

static uint64_t fnv(const struct ids *ids)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < ids->n; i++)
        for (int b = 0; b < 32; b += 8)
            h = (h ^ ((uint32_t)ids->p[i] >> b & 0xff)) * 0x100000001b3u;
    return h;
}

static void expect_ids(struct reader *r, const struct ids *got, slice what)
{
    size_t n = number(r);
    uint64_t hash = 0;
    size_t same = 0;
    if (n > STORED_IDS_MAX) {
        slice h = bytes(r, 8);
        for (int i = 7; i >= 0; i--)
            hash = hash << 8 | (unsigned char)h.p[i];
        if (n != got->n || hash != fnv(got))
            fail_msg("%zu ids, wanted %zu, for \"%.*s\"", got->n, n,
                     (int)(what.n < 80 ? what.n : 80), what.p);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t want = (int32_t)number(r);
        if (i >= got->n || got->p[i] != want)
            fail_msg("id %zu of %zu (wanted %zu ids) is %d, wanted %d, for \"%.*s\"", i, got->n, n,
                     i < got->n ? got->p[i] : -1, want, (int)(what.n < 200 ? what.n : 200), what.p);
        same++;
    }
    assert_int_equal(got->n, same);
}

/* ---- models ---- */

static int open_model(struct model *m)
{
    char path[1024];
    const char *dir = getenv("NUNCHI_TEST_MODELS"), *home = getenv("HOME");
    if (dir)
        (void)snprintf(path, sizeof path, "%s/%s", dir, m->file);
    else
        (void)snprintf(path, sizeof path, "%s/.cache/nunchi/models/%s", home ? home : "", m->file);
    model_file *f;
    struct why w = {0};
    if (model_file_open(path, &f, &w) < 0) {
        print_message("SKIPPED: %s: %s\n", path, w.text);
        return 0;
    }
    assert_int_equal(vocab_open(f, &m->v, &w), 0);
    model_file_close(f);
    if (tokenizer_new(m->v, &m->t, &w) < 0)
        fail_msg("%s: %s", m->file, w.text);
    m->s = tok_scratch_new(m->t);
    return 0;
}

static int open_models(void **state)
{
    (void)state;
    return open_model(&models[0]) + open_model(&models[1]);
}

static int close_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        tok_scratch_free(models[i].s);
        tokenizer_free(models[i].t);
        vocab_close(models[i].v);
    }
    return 0;
}

static const struct model *need(void **state)
{
    const struct model *m = *state;
    if (!m->t)
        skip();
    return m;
}

/* ---- tests ---- */

static void texts_have_the_references_ids(void **state)
{
    const struct model *m = need(state);
    struct reader texts, want;
    open_golden(&texts, "tokenizer_texts.bin", "NTXT");
    open_golden(&want, m->texts_ids, "NIDS");
    size_t n = number(&texts);
    assert_int_equal(number(&want), n);
    struct ids ids = {0};
    buf whole = {0};
    struct why w = {0};
    for (size_t i = 0; i < n; i++) {
        slice s = text(&texts);
        buf_reset(&whole);
        for (size_t times = number(&texts); times > 0; times--)
            buf_put_slice(&whole, s);
        ids.n = 0;
        if (tokenizer_encode(m->t, m->s, buf_slice(&whole), true, &ids, &w) < 0)
            fail_msg("%s", w.text);
        expect_ids(&want, &ids, buf_slice(&whole));
    }
    assert_int_equal(texts.at, texts.data.n);
    assert_int_equal(want.at, want.data.n);
    buf_clear(&texts.data);
    buf_clear(&want.data);
    buf_clear(&whole);
    ids_clear(&ids);
}

/* Bytes that SmolLM2's vocabulary has no token for: they vanish, as in the reference. */
static bool has_lost_bytes(const struct model *m, slice s)
{
    bool lost = false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        lost = lost || (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c > 0xf0;
    }
    return lost && vocab_model(m->v) == VOCAB_BPE;
}

/* U+2581 is how the vocabulary writes a space: it comes back as one. */
static void expected_text(const struct model *m, slice s, buf *out)
{
    buf_reset(out);
    for (size_t i = 0; i < s.n; i++) {
        bool space = vocab_model(m->v) == VOCAB_SPM && s.n - i >= 3 &&
                     memcmp(s.p + i, "\xe2\x96\x81", 3) == 0;
        buf_put_byte(out, (unsigned char)(space ? ' ' : s.p[i]));
        i += space ? 2 : 0;
    }
}

/* What goes in comes out again, id by id, and is whole characters at every moment. */
static void ids_turn_back_into_the_text(void **state)
{
    const struct model *m = need(state);
    struct reader texts;
    open_golden(&texts, "tokenizer_texts.bin", "NTXT");
    struct ids ids = {0};
    buf out = {0}, want = {0};
    struct why w = {0};
    size_t compared = 0;
    for (size_t i = number(&texts); i > 0; i--) {
        slice s = text(&texts);
        (void)number(&texts);
        ids.n = 0;
        assert_int_equal(tokenizer_encode(m->t, m->s, s, true, &ids, &w), 0);
        struct tok_decoder d = {.v = m->v};
        buf_reset(&out);
        for (size_t k = 0; k < ids.n; k++) {
            tok_decode(&d, ids.p[k], &out);
            assert_true(utf8_valid(buf_slice(&out)));
        }
        tok_decode_end(&d, &out);
        if (has_lost_bytes(m, s))
            continue;
        expected_text(m, s, &want);
        assert_int_equal(out.n, want.n);
        assert_memory_equal(out.p ? out.p : "", want.p ? want.p : "", want.n);
        compared++;
    }
    assert_true(compared > 240);
    buf_clear(&texts.data);
    buf_clear(&out);
    buf_clear(&want);
    ids_clear(&ids);
}

static void chats_are_rendered_as_by_the_template(void **state)
{
    const struct model *m = need(state);
    struct reader r;
    struct chat_format f;
    struct why w = {0};
    bool gemma = vocab_model(m->v) == VOCAB_SPM;
    open_golden(&r, m->chats, "NCHT");
    assert_int_equal(chat_format_init(&f, m->t, slice_str(gemma ? "gemma" : "auto"), &w), 0);
    assert_non_null(f.template);
    for (size_t i = number(&r); i > 0; i--) {
        struct chat_turn turns[8];
        struct chat_part parts[8];
        size_t n = number(&r);
        CHECK(n >= 1 && n <= ARRAY_LEN(turns));
        for (size_t k = 0; k < n; k++) {
            slice role = text(&r);
            parts[k] = (struct chat_part){.text = text(&r)};
            turns[k] = (struct chat_turn){role, &parts[k], 1};
        }
        bool generate = number(&r) != 0;
        struct prompt p = {0};
        struct ids ids = {0};
        assert_int_equal(chat_render(&f, turns, n, generate, 0, &p, &w), 0);
        assert_int_equal(prompt_encode(&p, m->t, m->s, &ids, NULL, 0, &w), 0);
        expect_ids(&r, &ids, parts[n - 1].text);
        prompt_clear(&p);
        ids_clear(&ids);
    }
    assert_int_equal(r.at, r.data.n);
    chat_format_clear(&f);
    buf_clear(&r.data);
}

/* Over everything in the golden texts, with the special tokens' own spellings among it: no control
 * token comes out. */
static void text_never_becomes_a_control_token(void **state)
{
    const struct model *m = need(state);
    struct ids ids = {0};
    buf s = {0};
    struct why w = {0};
    for (int32_t id = 0; id < vocab_size(m->v); id++)
        if (vocab_token_kind(m->v, id) == TOKEN_CONTROL)
            buf_put_slice(&s, vocab_bytes(m->v, id));
    assert_true(s.n > 100);
    assert_int_equal(tokenizer_encode(m->t, m->s, buf_slice(&s), true, &ids, &w), 0);
    for (size_t i = 0; i < ids.n; i++)
        assert_int_not_equal(vocab_token_kind(m->v, ids.p[i]), TOKEN_CONTROL);
    buf_clear(&s);
    ids_clear(&ids);
}

#define FOR_BOTH(fn)                                                                               \
    cmocka_unit_test_prestate(fn, &models[0]), cmocka_unit_test_prestate(fn, &models[1])

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOR_BOTH(texts_have_the_references_ids),
        FOR_BOTH(ids_turn_back_into_the_text),
        FOR_BOTH(chats_are_rendered_as_by_the_template),
        FOR_BOTH(text_never_becomes_a_control_token),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
