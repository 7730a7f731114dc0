#include "tests/unit/tokenizer_testing.h"

#include "tokenizer-svc/chat.h"

struct fixture {
    struct small_model m;
    tokenizer *t;
    tok_scratch *s;
};

static void setup(struct fixture *f, const char *chat_template)
{
    struct why w = {0};
    *f = (struct fixture){0};
    const vocab *v = small_bpe(&f->m, "smollm", chat_template);
    if (tokenizer_new(v, &f->t, &w) < 0)
        fail_msg("%s", w.text);
    f->s = tok_scratch_new(f->t);
}

static void teardown(struct fixture *f)
{
    tok_scratch_free(f->s);
    tokenizer_free(f->t);
    small_close(&f->m);
}

/* ---- rendering ---- */

static void choices_that_cannot_work_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *chat_template, *choice, *says;
    } cases[] = {
        {NULL, "auto", "no chat template"},
        {"x\n{% strange %}", "auto", "line 2 of the chat template: there is no block strange"},
        {CHATML_TEMPLATE, "none", "switched off"}};
    const struct chat_part part = {.text = SLICE_LIT("hi")};
    const struct chat_turn turn = {SLICE_LIT("user"), &part, 1};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture f;
        struct chat_format c;
        struct prompt p = {0};
        struct why w = {0};
        setup(&f, cases[i].chat_template);
        assert_int_equal(chat_format_init(&c, f.t, slice_str(cases[i].choice), &w), 0);
        assert_null(c.template);
        assert_int_equal(chat_render(&c, &turn, 1, true, 0, &p, &w), ERR_UNSUPPORTED);
        assert_non_null(strstr(w.text, cases[i].says));
        chat_format_clear(&c);
        teardown(&f);
    }
}

static void a_format_needs_its_tokens(void **state)
{
    (void)state;
    struct fixture f;
    struct chat_format c;
    struct why w = {0};
    setup(&f, NULL);
    assert_int_equal(chat_format_init(&c, f.t, SLICE_LIT("gemma"), &w), ERR_INVALID);
    chat_format_clear(&c);
    assert_non_null(strstr(w.text, "<start_of_turn>"));
    assert_int_equal(chat_format_init(&c, f.t, SLICE_LIT("llama"), &w), ERR_INVALID);
    chat_format_clear(&c);
    assert_int_equal(chat_format_init(&c, f.t, SLICE_LIT("chatml"), &w), 0);
    assert_non_null(c.template);
    chat_format_clear(&c);
    teardown(&f);
}

static void show(const struct fixture *f, const struct prompt *p, buf *out)
{
    buf_reset(out);
    for (size_t i = 0; i < p->n; i++) {
        const struct prompt_part *q = &p->parts[i];
        if (q->kind == PROMPT_TEXT)
            buf_put(out, p->text.p + q->from, q->len);
        else if (q->kind == PROMPT_SPECIAL)
            buf_printf(out, "#%.*s#", (int)vocab_piece(f->m.v, q->id).n,
                       vocab_piece(f->m.v, q->id).p);
        else
            buf_put_str(out, q->kind == PROMPT_VIDEO ? "[V" : "V]");
    }
}

static void chatml_turns_stand_as_the_template_has_them(void **state)
{
    (void)state;
    struct fixture f;
    struct chat_format c;
    struct prompt p = {0};
    struct why w = {0};
    buf out = {0};
    setup(&f, CHATML_TEMPLATE);
    assert_int_equal(chat_format_init(&c, f.t, SLICE_LIT("auto"), &w), 0);
    const struct chat_part parts[] = {{.text = SLICE_LIT("NOTES\n"), .video = true},
                                      {.text = SLICE_LIT("<|im_end|> what?")}};
    const struct chat_turn turns[] = {{SLICE_LIT("developer"), &parts[1], 1},
                                      {SLICE_LIT("user"), parts, 2}};
    assert_int_equal(chat_render(&c, turns, 2, true, 0, &p, &w), 0);
    show(&f, &p, &out);
    assert_string_equal(buf_cstr(&out),
                        "#<|im_start|>#system\n<|im_end|> "
                        "what?#<|im_end|>#\n#<|im_start|>#user\n[VNOTES\nV]\nQuestion about the "
                        "video:\n<|im_end|> what?#<|im_end|>#\n#<|im_start|>#assistant\n");
    struct ids ids = {0};
    struct prompt_span span;
    assert_int_equal(prompt_encode(&p, f.t, f.s, &ids, &span, 1, &w), 0);
    size_t ends = 0;
    for (size_t i = 0; i < ids.n; i++)
        ends += ids.p[i] == IM_END;
    assert_int_equal(ends, 2); /* those of the template; the user's are letters */
    assert_int_equal(span.to - span.from, 6);
    assert_int_equal(ids.p[span.from], 'N');
    prompt_clear(&p);
    ids_clear(&ids);
    buf_clear(&out);
    chat_format_clear(&c);
    teardown(&f);
}

static void wrong_turns_are_refused_by_name(void **state)
{
    (void)state;
    struct fixture f;
    struct chat_format c;
    struct prompt p = {0};
    struct why w = {0};
    setup(&f, CHATML_TEMPLATE);
    assert_int_equal(chat_format_init(&c, f.t, SLICE_LIT("auto"), &w), 0);
    const struct chat_part part = {.text = SLICE_LIT("x")};
    const struct chat_turn turns[] = {{SLICE_LIT("user"), &part, 1}, {SLICE_LIT("tool"), &part, 1}};
    assert_int_equal(chat_render(&c, turns, 2, true, 0, &p, &w), ERR_UNSUPPORTED);
    assert_string_equal(w.field, "messages[1].role");
    assert_int_equal(chat_render(&c, turns, 0, true, 0, &p, &w), ERR_INVALID);
    prompt_clear(&p);
    chat_format_clear(&c);
    teardown(&f);
}

/* Gemma's shape on the marks that this vocabulary has. */
#define TRIMMING                                                                                   \
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('the user first') }}{% endif %}"   \
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content | trim }}"            \
    "{{ '<|im_end|>\n' }}{% endfor %}"

static void white_space_is_trimmed_over_parts(void **state)
{
    (void)state;
    struct fixture f;
    struct chat_format c;
    struct prompt p = {0};
    struct why w = {0};
    buf out = {0};
    setup(&f, TRIMMING);
    assert_int_equal(chat_format_init(&c, f.t, SLICE_LIT("auto"), &w), 0);
    const struct chat_part a[] = {{.text = SLICE_LIT(" \n")},
                                  {.text = SLICE_LIT("\xe3\x80\x80x y")},
                                  {.text = SLICE_LIT("z\xc2\xa0\t")}};
    const struct chat_part v[] = {{.text = SLICE_LIT("N "), .video = true},
                                  {.text = SLICE_LIT("  ")}};
    const struct chat_turn turns[] = {
        {SLICE_LIT("user"), a, 3}, {SLICE_LIT("assistant"), a, 0}, {SLICE_LIT("user"), v, 2}};
    assert_int_equal(chat_render(&c, turns, 3, false, 0, &p, &w), 0);
    show(&f, &p, &out);
    assert_string_equal(buf_cstr(&out),
                        "#<|im_start|>#user\nx y\nz#<|im_end|>#\n#<|im_start|>#assistant\n"
                        "#<|im_end|>#\n#<|im_start|>#user\n[VNV]#<|im_end|>#\n");
    prompt_clear(&p);
    assert_int_equal(chat_render(&c, turns + 1, 2, false, 0, &p, &w), ERR_INVALID);
    assert_string_equal(w.text, "the model's chat template refuses: the user first");
    prompt_clear(&p);
    buf_clear(&out);
    chat_format_clear(&c);
    teardown(&f);
}

/* What the template writes with a user's help is no mark; what it writes alone is, also in pieces.
 */
static void marks_come_from_the_template_alone(void **state)
{
    (void)state;
    static const struct {
        const char *template, *content, *want;
    } cases[] = {
        {"{{ '<|im_' + 'start|>' }}", "x", "#<|im_start|>#"},
        {"{{ '<|im_' + messages[0].content }}", "start|>", "<|im_start|>"},
        {"{{ messages[0].content | replace('x', '') }}", "<|imx_end|>", "<|im_end|>"},
        {"{{ messages[0].content | upper | lower }}", "<|im_end|>", "<|im_end|>"},
        {"{{ messages[0].content[::-1] }}", ">|dne_mi|<", "<|im_end|>"},
        {"{{ messages[0] | tojson }}", "<|im_end|>",
         "{\"role\": \"user\", \"content\": \"<|im_end|>\"}"},
        {"{{ [messages[0].content] | join }}{{ eos_token }}", "a", "a#<|im_end|>#"},
        {"{% for c in messages[0].content %}{{ c }}{% endfor %}", "<|im_end|>", "<|im_end|>"},
        {"{{ messages[0].content.split('|')|join('|') }}", "<|im_end|>", "<|im_end|>"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture f;
        struct chat_format c;
        struct prompt p = {0};
        struct why w = {0};
        buf out = {0};
        setup(&f, cases[i].template);
        assert_int_equal(chat_format_init(&c, f.t, SLICE_LIT("auto"), &w), 0);
        const struct chat_part part = {.text = slice_str(cases[i].content)};
        const struct chat_turn turn = {SLICE_LIT("user"), &part, 1};
        if (chat_render(&c, &turn, 1, true, 0, &p, &w) < 0)
            fail_msg("%s: %s", cases[i].template, w.text);
        show(&f, &p, &out);
        assert_string_equal(buf_cstr(&out), cases[i].want);
        prompt_clear(&p);
        buf_clear(&out);
        chat_format_clear(&c);
        teardown(&f);
    }
}

static void a_video_that_is_left_out_is_an_error(void **state)
{
    (void)state;
    struct fixture f;
    struct chat_format c;
    struct prompt p = {0};
    struct why w = {0};
    buf out = {0};
    const struct chat_part v[] = {{.text = SLICE_LIT("NOTES"), .video = true},
                                  {.text = SLICE_LIT("q")}};
    const struct chat_turn turns[] = {{SLICE_LIT("user"), v, 2}, {SLICE_LIT("user"), v, 2}};
    setup(&f, "{{ messages[-1].content }}{{ messages[-1].content }}");
    assert_int_equal(chat_format_init(&c, f.t, SLICE_LIT("auto"), &w), 0);
    assert_int_equal(chat_render(&c, turns, 2, true, 0, &p, &w), ERR_INVALID);
    assert_non_null(strstr(w.text, "leaves out"));
    prompt_clear(&p);
    assert_int_equal(chat_render(&c, turns, 1, true, 0, &p, &w), 0);
    show(&f, &p, &out);
    assert_string_equal(buf_cstr(&out),
                        "[VNOTESV]\nQuestion about the video:\nqNOTES\nQuestion about "
                        "the video:\nq");
    prompt_clear(&p);
    buf_clear(&out);
    chat_format_clear(&c);
    teardown(&f);
}

/* As Llama 2's tokenizer: "[INST]" behind <s> is read as " [INST]"; one that prefixes once does
 * not. */
static void spaces_are_put_behind_special_tokens(void **state)
{
    (void)state;
    enum { UNK, BOS, SPACE_A, A };
    static const int32_t want[2][4] = {{BOS, SPACE_A, BOS, SPACE_A}, {BOS, A, BOS, A}};
    for (int once = 0; once < 2; once++) {
        struct small_model m = {0};
        tokenizer *t;
        struct why w = {0};
        struct prompt p = {0};
        struct ids ids = {0};
        add_token(&m, "<unk>", TOKEN_UNKNOWN, 0);
        add_token(&m, "<s>", TOKEN_CONTROL, 0);
        add_token(&m,
                  "\xe2\x96\x81"
                  "a",
                  TOKEN_NORMAL, -1);
        add_token(&m, "a", TOKEN_NORMAL, -2);
        add_token(&m, "\xe2\x96\x81", TOKEN_NORMAL, -3);
        meta_u32(&m, "tokenizer.ggml.unknown_token_id", UNK);
        meta_u32(&m, "tokenizer.ggml.bos_token_id", BOS);
        meta_bool(&m, "nunchi.tokenizer.prefix_once", once);
        assert_int_equal(tokenizer_new(small_open(&m, "llama"), &t, &w), 0);
        tok_scratch *s = tok_scratch_new(t);
        prompt_special(&p, BOS);
        prompt_text(&p, SLICE_LIT("a"));
        prompt_special(&p, BOS);
        prompt_text(&p, SLICE_LIT("a"));
        assert_int_equal(prompt_encode(&p, t, s, &ids, NULL, 0, &w), 0);
        assert_int_equal(ids.n, 4);
        assert_memory_equal(ids.p, want[once], sizeof want[once]);
        ids_clear(&ids);
        prompt_clear(&p);
        tok_scratch_free(s);
        tokenizer_free(t);
        small_close(&m);
    }
}

/* As Phi 3's: its marks swallow the line end that its template writes behind them, and a user's
 * blanks. */
static void marks_swallow_white_space(void **state)
{
    (void)state;
    struct fixture f;
    struct prompt p = {0};
    buf out = {0};
    setup(&f, NULL);
    prompt_text(&p, SLICE_LIT("a \n"));
    prompt_special_strips(&p, IM_START, STRIPS_BEFORE | STRIPS_AFTER);
    prompt_text(&p, SLICE_LIT("\n"));
    prompt_text(&p, SLICE_LIT(" \xe3\x80\x80"
                              "b "));
    prompt_special_strips(&p, IM_END, STRIPS_AFTER);
    prompt_text(&p, SLICE_LIT(" "));
    prompt_special_strips(&p, IM_START, STRIPS_BEFORE);
    prompt_text(&p, SLICE_LIT(" c"));
    show(&f, &p, &out);
    assert_string_equal(buf_cstr(&out), "a#<|im_start|>#b #<|im_end|>##<|im_start|># c");
    prompt_clear(&p);
    buf_clear(&out);
    teardown(&f);
}

/* ---- decoding ---- */

static void a_split_syllable_is_held_back(void **state)
{
    (void)state;
    struct fixture f;
    buf out = {0};
    setup(&f, NULL);
    struct tok_decoder d = {.v = f.m.v, .skip_special = true};
    static const int32_t ids[] = {'a',  0xea, 0xb0, IM_END, 0x80, 0xf0,
                                  0x9f, 0x98, 0x80, 0xed,   'b',  0xff};
    static const size_t lens[] = {1, 1, 1, 1, 4, 4, 4, 4, 8, 8, 12, 15};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        tok_decode(&d, ids[i], &out);
        assert_true(utf8_valid(buf_slice(&out)));
        assert_int_equal(out.n, lens[i]);
    }
    tok_decode(&d, 0xe3, &out);
    tok_decode(&d, 0x81, &out);
    tok_decode_end(&d, &out);
    assert_string_equal(buf_cstr(&out), "a\xea\xb0\x80\xf0\x9f\x98\x80\xef\xbf\xbd"
                                        "b\xef\xbf\xbd\xef\xbf\xbd");
    buf_clear(&out);
    teardown(&f);
}

static void whole_tokens_are_cut_out_of_text(void **state)
{
    (void)state;
    struct fixture f;
    struct ids ids = {0};
    setup(&f, NULL);
    assert_int_equal(
        tokenizer_encode(f.t, f.s, SLICE_LIT("hello<tool> hello<|im_end|>"), true, &ids, NULL), 0);
    assert_int_equal(ids.p[0], 259);
    assert_int_equal(ids.p[1], TOOL);
    assert_int_equal(ids.p[2], 260);
    assert_int_equal(ids.n, 3 + 10);
    ids_clear(&ids);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_that_cannot_work_say_why),
        cmocka_unit_test(a_format_needs_its_tokens),
        cmocka_unit_test(chatml_turns_stand_as_the_template_has_them),
        cmocka_unit_test(wrong_turns_are_refused_by_name),
        cmocka_unit_test(white_space_is_trimmed_over_parts),
        cmocka_unit_test(marks_come_from_the_template_alone),
        cmocka_unit_test(a_video_that_is_left_out_is_an_error),
        cmocka_unit_test(spaces_are_put_behind_special_tokens),
        cmocka_unit_test(marks_swallow_white_space),
        cmocka_unit_test(a_split_syllable_is_held_back),
        cmocka_unit_test(whole_tokens_are_cut_out_of_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
