#include "tests/unit/tokenizer_testing.h"

#include "common/wire/blockhash.h"
#include "common/wire/pb.h"
#include "proto/token.pb-c.h"
#include "proto/video.pb-c.h"
#include "tokenizer-svc/core.h"

#define CONTEXT 400

struct fixture {
    struct small_model m;
    core *c;
    tok_scratch *s;
    struct core_answer answer;
    struct why w;
    arena *a;
    /* the request */
    Nunchi__TokenRequest req;
    Nunchi__Tokenize tok;
    Nunchi__Chat chat;
    Nunchi__Prompt prompt;
    Nunchi__ChatTurn turns[4], *turn_list[CORE_TURNS_MAX + 1];
    Nunchi__ChatPart parts[4], *part_list[CORE_PARTS_MAX + 1];
    Nunchi__VideoRef video;
    buf notes;
    char tenant[32], content[32], salt[16];
};

static char model_name[] = "small", other_name[] = "other", empty[] = "";

static void make(void **state, const char *chat_template)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    const vocab *v = small_bpe(&f->m, "smollm", chat_template);
    struct core_config cfg = {
        .vocab = v, .model = model_name, .n_context = CONTEXT, .chat_format = "auto"};
    memset(&cfg.weights, 7, sizeof cfg.weights);
    if (core_new(&cfg, &f->c, &f->w) < 0)
        fail_msg("%s", f->w.text);
    f->s = tok_scratch_new(core_tokenizer(f->c));
    f->a = arena_new(0);
    nunchi__token_request__init(&f->req);
    nunchi__tokenize__init(&f->tok);
    nunchi__chat__init(&f->chat);
    nunchi__prompt__init(&f->prompt);
    nunchi__video_ref__init(&f->video);
    memset(f->tenant, 1, sizeof f->tenant);
    memset(f->content, 2, sizeof f->content);
    memset(f->salt, 3, sizeof f->salt);
    f->req.op_case = NUNCHI__TOKEN_REQUEST__OP_TOKENIZE;
    f->req.tokenize = &f->tok;
    f->tok.model = model_name;
    f->tok.tenant = pb_bytes((slice){f->tenant, sizeof f->tenant});
    f->chat.turns = f->turn_list;
    f->prompt.parts = f->part_list;
    for (size_t i = 0; i < ARRAY_LEN(f->parts); i++) {
        nunchi__chat_part__init(&f->parts[i]);
        nunchi__chat_turn__init(&f->turns[i]);
        f->part_list[i] = &f->parts[i];
        f->turn_list[i] = &f->turns[i];
        f->turns[i].parts = &f->part_list[i];
        f->turns[i].n_parts = 1;
        f->turns[i].role = pb_bytes(slice_str(i % 2 ? "assistant" : "user"));
    }
    *state = f;
}

static int setup(void **state)
{
    make(state, CHATML_TEMPLATE);
    return 0;
}

static int setup_base(void **state)
{
    make(state, NULL);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    core_answer_clear(&f->answer);
    buf_clear(&f->notes);
    tok_scratch_free(f->s);
    core_free(f->c);
    small_close(&f->m);
    arena_free(f->a);
    free(f);
    return 0;
}

static void set_text(struct fixture *f, size_t i, slice text)
{
    f->parts[i].part_case = NUNCHI__CHAT_PART__PART_TEXT;
    f->parts[i].text = pb_bytes(text);
}

static void as_prompt(struct fixture *f, slice text)
{
    set_text(f, 0, text);
    f->prompt.n_parts = 1;
    f->tok.input_case = NUNCHI__TOKENIZE__INPUT_PROMPT;
    f->tok.prompt = &f->prompt;
}

static void as_chat(struct fixture *f, slice text)
{
    set_text(f, 0, text);
    f->chat.n_turns = 1;
    f->chat.add_generation_prompt = true;
    f->tok.input_case = NUNCHI__TOKENIZE__INPUT_CHAT;
    f->tok.chat = &f->chat;
}

static int ask_with(struct fixture *f, slice body, slice frame)
{
    struct wire_msg m = {.body = body, .frames = {frame}, .n_frames = frame.p != NULL};
    core_answer_clear(&f->answer);
    f->w = (struct why){0};
    return core_answer_to(f->c, f->s, &m, 0, &f->answer, &f->w);
}

static int ask(struct fixture *f)
{
    buf body = {0};
    pb_pack(&f->req.base, &body);
    int e = ask_with(f, buf_slice(&body), buf_slice(&f->notes));
    buf_clear(&body);
    return e;
}

static const Nunchi__TokenReply *reply(struct fixture *f)
{
    void *out;
    assert_int_equal(pb_unpack(f->a, &nunchi__token_reply__descriptor, buf_slice(&f->answer.body),
                               WIRE_BODY_MAX, &out, NULL),
                     0);
    return out;
}

static int32_t id_at(const struct fixture *f, size_t i)
{
    const unsigned char *p = (const unsigned char *)f->answer.frames[0].p + 4 * i;
    return (int32_t)(p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
}

#define expect(f, want, says)                                                                      \
    do {                                                                                           \
        assert_int_equal(ask(f), (want));                                                          \
        if (!strstr((f)->w.text, (says)))                                                          \
            fail_msg("\"%s\" does not say \"%s\"", (f)->w.text, (says));                           \
    } while (0)

/* ---- the plain way ---- */

static void a_prompt_gives_ids_and_their_hashes(void **state)
{
    struct fixture *f = *state;
    as_prompt(f, SLICE_LIT("hello hello 0123456789abcdefghijklmnop"));
    assert_int_equal(ask(f), 0);
    const Nunchi__Tokenized *t = reply(f)->tokenized;
    assert_int_equal(t->n_tokens, 2 + 27);
    assert_int_equal(t->n_context, CONTEXT);
    assert_int_equal(t->max_tokens_left, CONTEXT - 29);
    assert_int_equal(f->answer.n_frames, 2);
    assert_int_equal(f->answer.frames[0].n, 29 * 4);
    assert_int_equal(f->answer.frames[1].n, 32);
    assert_int_equal(id_at(f, 0), 259);
    assert_int_equal(id_at(f, 1), 260);
    assert_int_equal(id_at(f, 3), '0');

    struct digest weights, block;
    memset(&weights, 7, sizeof weights);
    blockhash *h =
        blockhash_new((slice){f->tenant, 32}, (slice){(char *)weights.b, 32}, SLICE_LIT(""));
    for (size_t i = 0; i < 29; i++)
        if (blockhash_token(h, id_at(f, i), &block))
            assert_memory_equal(f->answer.frames[1].p, block.b, 32);
    struct digest content = blockhash_content(h);
    assert_int_equal(t->content.len, 32);
    assert_memory_equal(t->content.data, content.b, 32);
    blockhash_free(h);
}

static void bos_comes_where_it_is_wanted(void **state)
{
    struct fixture *f = *state;
    as_prompt(f, SLICE_LIT("x"));
    f->prompt.add_special = true; /* but this vocabulary wants none */
    assert_int_equal(ask(f), 0);
    assert_int_equal(reply(f)->tokenized->n_tokens, 1);
}

static void a_chat_is_rendered(void **state)
{
    struct fixture *f = *state;
    as_chat(f, SLICE_LIT("hello<|im_end|>"));
    assert_int_equal(ask(f), 0);
    assert_int_equal(id_at(f, 0), IM_START);
    size_t n = reply(f)->tokenized->n_tokens, starts = 0, ends = 0;
    for (size_t i = 0; i < n; i++) {
        starts += id_at(f, i) == IM_START;
        ends += id_at(f, i) == IM_END;
    }
    assert_int_equal(starts, 2);
    assert_int_equal(ends, 1);
}

static void tenants_and_models_have_hashes_of_their_own(void **state)
{
    struct fixture *f = *state;
    char first[32];
    as_prompt(f, SLICE_LIT("0123456789abcdef"));
    assert_int_equal(ask(f), 0);
    memcpy(first, f->answer.frames[1].p, 32);
    assert_int_equal(ask(f), 0);
    assert_memory_equal(f->answer.frames[1].p, first, 32);
    f->tenant[5] = 9;
    assert_int_equal(ask(f), 0);
    assert_memory_not_equal(f->answer.frames[1].p, first, 32);
}

static void ids_turn_into_text_again(void **state)
{
    struct fixture *f = *state;
    Nunchi__Detokenize d;
    nunchi__detokenize__init(&d);
    d.model = model_name;
    d.skip_special = true;
    f->req.op_case = NUNCHI__TOKEN_REQUEST__OP_DETOKENIZE;
    f->req.detokenize = &d;
    static const uint32_t ids[] = {259, IM_END, 260, 0xea, 0xb0, 0x80, 0xff};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        put_int(&f->notes, ids[i], 4);
    assert_int_equal(ask(f), 0);
    ProtobufCBinaryData text = reply(f)->detokenized->text;
    assert_int_equal(text.len, 17);
    assert_memory_equal(text.data, "hello hello\xea\xb0\x80\xef\xbf\xbd", 17);
    put_int(&f->notes, 304, 4);
    expect(f, ERR_INVALID, "304 at 7");
    buf_put_byte(&f->notes, 0);
    expect(f, ERR_PROTO, "4 bytes each");
}

/* ---- what does not fit ---- */

static void letters(struct fixture *f, buf *text, size_t n)
{
    buf_reset(text);
    for (size_t i = 0; i < n; i++)
        buf_put_byte(text, (unsigned char)('b' + i % 2));
    as_prompt(f, buf_slice(text));
}

static void what_does_not_fit_is_refused_with_the_numbers(void **state)
{
    struct fixture *f = *state;
    buf text = {0};
    letters(f, &text, CONTEXT - 1);
    assert_int_equal(ask(f), 0);
    assert_int_equal(reply(f)->tokenized->max_tokens_left, 1);
    letters(f, &text, CONTEXT);
    expect(f, ERR_INVALID,
           "the prompt has 400 tokens; the model's context is 400, the answer included: shorten it "
           "by at least 1");
    assert_string_equal(f->w.field, "prompt");
    letters(f, &text, 300);
    f->tok.max_tokens = 100;
    assert_int_equal(ask(f), 0);
    f->tok.max_tokens = 101;
    expect(f, ERR_INVALID,
           "300 tokens and max_tokens is 101, together 401; the model's context is 400: ask for at "
           "most 100");
    assert_string_equal(f->w.field, "max_tokens");
    f->tok.max_tokens = UINT32_MAX;
    assert_int_equal(ask(f), ERR_INVALID);
    f->tok.max_tokens = 0;
    letters(f, &text, 100000); /* hopeless: refused before it is looked at */
    expect(f, ERR_INVALID, "100000 bytes, at least");
    letters(f, &text, 0);
    expect(f, ERR_INVALID, "empty");
    buf_clear(&text);
}

static void wrong_requests_are_refused_by_name(void **state)
{
    struct fixture *f = *state;
    as_prompt(f, SLICE_LIT("x\xff"));
    expect(f, ERR_INVALID, "UTF-8");
    as_prompt(f, SLICE_LIT("x"));
    f->tok.model = other_name;
    expect(f, ERR_NOT_FOUND, "'small'");
    f->tok.model = model_name;
    f->tok.adapter = other_name;
    expect(f, ERR_NOT_FOUND, "adapter");
    f->tok.adapter = empty;
    f->tok.tenant = pb_bytes((slice){f->tenant, 31});
    expect(f, ERR_PROTO, "tenant");
    f->tok.tenant = pb_bytes((slice){f->tenant, 32});
    ProtobufCBinaryData stop = pb_bytes(SLICE_LIT("x"));
    f->tok.stop = &stop;
    f->tok.n_stop = 1;
    expect(f, ERR_UNSUPPORTED, "stop");
    f->tok.n_stop = 0;
    f->tok.input_case = NUNCHI__TOKENIZE__INPUT__NOT_SET;
    expect(f, ERR_UNSUPPORTED, "neither");
    f->req.op_case = NUNCHI__TOKEN_REQUEST__OP__NOT_SET;
    expect(f, ERR_UNSUPPORTED, "does not know");
    assert_true(ask_with(f, SLICE_LIT("\xff\xff\xff"), (slice){0}) < 0);
}

static void counts_have_limits(void **state)
{
    struct fixture *f = *state;
    as_chat(f, SLICE_LIT("x"));
    for (size_t i = 0; i <= CORE_TURNS_MAX; i++)
        f->turn_list[i] = &f->turns[0];
    f->chat.n_turns = CORE_TURNS_MAX + 1;
    expect(f, ERR_TOO_BIG, "2049 messages; at most 2048");
    f->chat.n_turns = 1;
    for (size_t i = 0; i <= CORE_PARTS_MAX; i++)
        f->part_list[i] = &f->parts[0];
    f->turns[0].n_parts = CORE_PARTS_MAX + 1;
    expect(f, ERR_TOO_BIG, "4097 content parts");
}

static void a_base_model_says_what_to_configure(void **state)
{
    struct fixture *f = *state;
    as_chat(f, SLICE_LIT("x"));
    assert_false(core_can_chat(f->c));
    expect(f, ERR_UNSUPPORTED, "--chat-format");
    as_prompt(f, SLICE_LIT("x"));
    assert_int_equal(ask(f), 0);
}

/* ---- videos ---- */

static void add_video(struct fixture *f, size_t part, size_t lines)
{
    Nunchi__Notes n;
    Nunchi__Span *spans = xcalloc(lines, sizeof *spans), **list = xcalloc(lines, sizeof *list);
    nunchi__notes__init(&n);
    n.format = 1;
    n.salt = pb_bytes((slice){f->salt, sizeof f->salt});
    n.subtitles = list;
    n.n_subtitles = lines;
    for (size_t i = 0; i < lines; i++) {
        nunchi__span__init(&spans[i]);
        spans[i].start_ms = (uint32_t)i * 1000;
        spans[i].end_ms = (uint32_t)i * 1000 + 900;
        spans[i].text = pb_bytes(i % 2 ? SLICE_LIT("one") : SLICE_LIT("two"));
        list[i] = &spans[i];
    }
    buf_reset(&f->notes);
    pb_pack(&n.base, &f->notes);
    free(spans);
    free(list);
    f->video.content = pb_bytes((slice){f->content, sizeof f->content});
    f->video.salt = pb_bytes((slice){f->salt, sizeof f->salt});
    f->video.name = pb_bytes(SLICE_LIT("a.mp4"));
    f->parts[part].part_case = NUNCHI__CHAT_PART__PART_VIDEO;
    f->parts[part].video = &f->video;
}

static void a_video_is_placed_and_salts_what_follows(void **state)
{
    struct fixture *f = *state;
    char before[64], after[64];
    as_prompt(f, SLICE_LIT("0123456789abcdef")); /* one block before the video */
    add_video(f, 1, 2);
    f->prompt.n_parts = 2;
    assert_int_equal(ask(f), 0);
    const Nunchi__Tokenized *t = reply(f)->tokenized;
    assert_int_equal(t->n_videos, 1);
    assert_int_equal(t->videos[0]->lines, 2);
    assert_int_equal(t->videos[0]->lines_kept, 2);
    assert_false(t->videos[0]->shortened);
    assert_int_equal(t->videos[0]->n_tokens, t->n_tokens - 16);
    assert_memory_equal(t->videos[0]->content.data, f->content, 32);
    assert_int_equal(id_at(f, 16), 'V');
    memcpy(before, f->answer.frames[1].p, 64);
    memset(f->salt, 4, sizeof f->salt);
    add_video(f, 1, 2);
    assert_int_equal(ask(f), 0);
    memcpy(after, f->answer.frames[1].p, 64);
    assert_memory_equal(before, after, 32);               /* the text before it: as it was */
    assert_memory_not_equal(before + 32, after + 32, 32); /* the video: out of reach */
}

static void notes_take_no_more_than_their_share(void **state)
{
    struct fixture *f = *state;
    as_chat(f, SLICE_LIT("what?"));
    add_video(f, 0, 100);
    set_text(f, 1, SLICE_LIT("what?"));
    f->turns[0].n_parts = 2;
    assert_int_equal(ask(f), 0);
    const Nunchi__PlacedVideo *v = reply(f)->tokenized->videos[0];
    assert_true(v->shortened);
    assert_true(v->n_tokens <= CONTEXT / CORE_NOTES_SHARE + 1);
    assert_true(v->lines == 100 && v->lines_kept < 100);
    f->tok.notes_tokens_max = 250;
    assert_int_equal(ask(f), 0);
    uint32_t n = reply(f)->tokenized->videos[0]->n_tokens;
    assert_true(n > v->n_tokens && n <= 250);
    f->tok.max_tokens = 200; /* the answer's room comes first */
    assert_int_equal(ask(f), 0);
    assert_true(reply(f)->tokenized->max_tokens_left >= 200);
}

static void broken_videos_are_refused(void **state)
{
    struct fixture *f = *state;
    as_prompt(f, SLICE_LIT("x"));
    add_video(f, 0, 1);
    f->video.notes_frame = 1;
    expect(f, ERR_PROTO, "not in the message");
    f->video.notes_frame = 0;
    f->video.salt = pb_bytes((slice){f->salt, 15});
    expect(f, ERR_PROTO, "wrong length");
    f->video.salt = pb_bytes((slice){f->content, 16});
    expect(f, ERR_PROTO, "not that of its notes");
    f->video.salt = pb_bytes((slice){f->salt, 16});
    assert_int_equal(ask(f), 0);
    buf_reset(&f->notes);
    buf_put_str(&f->notes, "\x08\x02"); /* format 2 */
    expect(f, ERR_UNSUPPORTED, "format 2");
    buf_put_str(&f->notes, "\xff");
    assert_true(ask(f) < 0);
    add_video(f, 0, 1);
    for (size_t i = 0; i <= CORE_VIDEOS_MAX; i++)
        f->part_list[i] = &f->parts[0];
    f->prompt.n_parts = CORE_VIDEOS_MAX + 1;
    expect(f, ERR_TOO_BIG, "more than 16 videos");
    f->prompt.n_parts = CORE_VIDEOS_MAX;
    f->tok.notes_tokens_max = 1;
    assert_true(ask(f) == ERR_INVALID); /* sixteen headings do not fit this small context */
}

/* Bytes of a good request changed, cut and doubled at random: an answer or an error, never more. */
static void garbage_is_answered_with_an_error(void **state)
{
    struct fixture *f = *state;
    buf body = {0}, bad = {0}, frame = {0};
    uint32_t seed = 7;
    as_chat(f, SLICE_LIT("hello \xea\xb0\x80"));
    add_video(f, 1, 5);
    f->turns[0].n_parts = 2;
    pb_pack(&f->req.base, &body);
    for (size_t round = 0; round < 20000; round++) {
        buf_reset(&bad);
        buf_reset(&frame);
        buf_put_slice(&bad, buf_slice(&body));
        buf_put_slice(&frame, buf_slice(&f->notes));
        for (size_t k = 0; k <= round % 3; k++) {
            buf *b = round % 2 ? &bad : &frame;
            seed = seed * 1664525u + 1013904223u;
            b->p[(seed >> 8) % b->n] ^= (char)(1u << (seed >> 29));
        }
        if (round % 5 == 0)
            bad.n = (seed >> 10) % (bad.n + 1);
        int e = ask_with(f, buf_slice(&bad), buf_slice(&frame));
        assert_true(e <= 0 && e != ERR_INTERNAL);
    }
    buf_clear(&body);
    buf_clear(&bad);
    buf_clear(&frame);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_prompt_gives_ids_and_their_hashes),
        TEST(bos_comes_where_it_is_wanted),
        TEST(a_chat_is_rendered),
        TEST(tenants_and_models_have_hashes_of_their_own),
        TEST(ids_turn_into_text_again),
        TEST(what_does_not_fit_is_refused_with_the_numbers),
        TEST(wrong_requests_are_refused_by_name),
        TEST(counts_have_limits),
        cmocka_unit_test_setup_teardown(a_base_model_says_what_to_configure, setup_base, teardown),
        TEST(a_video_is_placed_and_salts_what_follows),
        TEST(notes_take_no_more_than_their_share),
        TEST(broken_videos_are_refused),
        TEST(garbage_is_answered_with_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
