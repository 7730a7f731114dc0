/* Vocabularies: what ids read as, which pairs merge, where text ends, and what is refused. */
#include "tests/unit/engine_gguf.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

/* Id by id; both have one of each kind. */
static const char *const BPE[] = {"<|endoftext|>",
                                  "a",
                                  "b",
                                  "ab",
                                  "\xc4\xa0", /* U+0120 stands for a space */
                                  "\u0120ab",
                                  "<|im_end|>",
                                  "</s>",
                                  "\xc4\x8a", /* U+010A: a newline */
                                  "\xc2\xa9", /* U+00A9 is byte A9 */
                                  "a b",      /* a space is not in the alphabet */
                                  "<tool>",
                                  "a"};
static const int32_t BPE_KINDS[] = {3, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 4, 5};
static const char *const MERGES[] = {"a b", "\xc4\xa0 ab", "a b"};

static const char *const SPM[] = {"<pad>",
                                  "<eos>",
                                  "<bos>",
                                  "<unk>",
                                  "<0x0A>",
                                  "<0xe4>",
                                  "\u2581a",
                                  "b",
                                  "\xe2\x96\x81\xe2\x96\x81",
                                  "<end_of_turn>"};
static const int32_t SPM_KINDS[] = {3, 3, 3, 2, 6, 6, 1, 1, 4, 3};
static const float SPM_SCORES[] = {0, 0, 0, 0, 0, 0, -1.5f, -2, 0, 0};

static void begin_bpe(struct gguf_out *o)
{
    gguf_begin(o);
    meta_str(o, "tokenizer.ggml.model", "gpt2");
    meta_strs(o, "tokenizer.ggml.tokens", BPE, ARRAY_LEN(BPE));
    meta_i32s(o, "tokenizer.ggml.token_type", BPE_KINDS, ARRAY_LEN(BPE_KINDS));
}

static void begin_spm(struct gguf_out *o)
{
    gguf_begin(o);
    meta_str(o, "tokenizer.ggml.model", "llama");
    meta_strs(o, "tokenizer.ggml.tokens", SPM, ARRAY_LEN(SPM));
    meta_i32s(o, "tokenizer.ggml.token_type", SPM_KINDS, ARRAY_LEN(SPM_KINDS));
}

/* Opens the vocabulary of what was written; the file is gone afterwards, as callers may close it.
 */
static int open_vocab(struct gguf_out *o, vocab **v, struct why *w)
{
    model_file *f;
    gguf_end(o);
    if (model_file_open_mem(o->b.p, o->b.n, &f, w) < 0)
        fail_msg("%s", w->text);
    int e = vocab_open(f, v, w);
    model_file_close(f);
    memset(o->b.p, 0xee, o->b.n);
    buf_clear(&o->b);
    return e;
}

static void refused(struct gguf_out *o, int want, const char *says)
{
    struct why w = {.text = ""};
    vocab *v;
    int e = open_vocab(o, &v, &w);
    if (e != want || v || !strstr(w.text, says))
        fail_msg("got %s \"%s\", want %s \"%s\"", err_name(e), w.text, err_name(want), says);
}

static vocab *accepted(struct gguf_out *o)
{
    struct why w = {.text = ""};
    vocab *v;
    if (open_vocab(o, &v, &w) < 0)
        fail_msg("%s", w.text);
    return v;
}

static void assert_bytes(const vocab *v, int32_t id, const char *want)
{
    slice got = vocab_bytes(v, id);
    if (!slice_eq_str(got, want))
        fail_msg("id %d reads \"%.*s\", not \"%s\"", id, (int)got.n, got.p, want);
}

static void byte_level(void **state)
{
    (void)state;
    struct gguf_out o;
    begin_bpe(&o);
    meta_strs(&o, "tokenizer.ggml.merges", MERGES, ARRAY_LEN(MERGES));
    meta_str(&o, "tokenizer.ggml.pre", "smollm");
    meta_str(&o, "tokenizer.chat_template", "{{ messages }}");
    meta_u32(&o, "tokenizer.ggml.eos_token_id", 6);
    vocab *v = accepted(&o);

    assert_int_equal(vocab_model(v), VOCAB_BPE);
    assert_int_equal(vocab_size(v), ARRAY_LEN(BPE));
    assert_true(slice_eq_str(vocab_pretokenizer(v), "smollm"));
    assert_true(slice_eq_str(vocab_chat_template(v), "{{ messages }}"));
    assert_false(vocab_add_bos(v) || vocab_add_space_prefix(v));
    assert_int_equal(vocab_bos(v), TOKEN_NONE);
    assert_int_equal(vocab_eos(v), 6);

    assert_bytes(v, 5, " ab");
    assert_bytes(v, 8, "\n");
    assert_bytes(v, 9, "\xa9");
    assert_bytes(v, 10, "a b"); /* outside the alphabet: literal */
    assert_bytes(v, 0, "<|endoftext|>");
    assert_bytes(v, 11, "<tool>");
    assert_true(slice_eq_str(vocab_piece(v, 5), BPE[5]));
    assert_int_equal(vocab_token_kind(v, 0), TOKEN_CONTROL);
    assert_int_equal(vocab_token_kind(v, 12), TOKEN_UNUSED);

    assert_int_equal(vocab_find(v, SLICE_LIT("ab")), 3);
    assert_int_equal(vocab_find(v, SLICE_LIT("a")), 1); /* the lower of two */
    assert_int_equal(vocab_find(v, SLICE_LIT("abc")), TOKEN_NONE);
    assert_int_equal(vocab_find(v, SLICE_LIT("")), TOKEN_NONE);
    assert_int_equal(vocab_byte_token(v, 10), TOKEN_NONE);

    int32_t merged = -7;
    assert_int_equal(vocab_merge_rank(v, 1, 2, &merged), 0); /* of two entries the first */
    assert_int_equal(merged, 3);
    assert_int_equal(vocab_merge_rank(v, 4, 3, &merged), 1);
    assert_int_equal(merged, 5);
    assert_int_equal(vocab_merge_rank(v, 2, 1, &merged), -1);
    assert_int_equal(vocab_merge_rank(v, -1, 2, &merged), -1);

    const int32_t *ends; /* "</s>" is an ordinary token here */
    assert_int_equal(vocab_ends(v, &ends), 2);
    assert_true(ends[0] == 0 && ends[1] == 6);
    assert_true(vocab_is_end(v, 6) && !vocab_is_end(v, 7) && !vocab_is_end(v, TOKEN_NONE));
    vocab_close(v);
}

static void sentence_pieces(void **state)
{
    (void)state;
    struct gguf_out o;
    begin_spm(&o);
    meta_f32s(&o, "tokenizer.ggml.scores", SPM_SCORES, ARRAY_LEN(SPM_SCORES));
    meta_u32(&o, "tokenizer.ggml.bos_token_id", 2);
    meta_u32(&o, "tokenizer.ggml.eos_token_id", 1);
    vocab *v = accepted(&o);

    assert_int_equal(vocab_model(v), VOCAB_SPM);
    assert_true(vocab_add_bos(v) && vocab_add_space_prefix(v)); /* what absent keys mean */
    assert_int_equal(vocab_bos(v), 2);
    assert_int_equal(vocab_chat_template(v).n, 0);
    assert_bytes(v, 6, " a");
    assert_bytes(v, 8, "  ");
    assert_bytes(v, 4, "\n");
    assert_bytes(v, 5, "\xe4");
    assert_bytes(v, 3, "<unk>");
    assert_int_equal(vocab_byte_token(v, '\n'), 4);
    assert_int_equal(vocab_byte_token(v, 0xe4), 5);
    assert_int_equal(vocab_byte_token(v, 'x'), TOKEN_NONE);
    assert_true(vocab_score(v, 6) == -1.5f && vocab_score(v, 99) == 0);
    int32_t merged;
    assert_int_equal(vocab_merge_rank(v, 6, 7, &merged), -1);
    assert_true(vocab_is_end(v, 1) && vocab_is_end(v, 9) && !vocab_is_end(v, 2));
    vocab_close(v);
}

static void out_of_range(void **state)
{
    (void)state;
    struct gguf_out o;
    begin_bpe(&o);
    meta_strs(&o, "tokenizer.ggml.merges", MERGES, ARRAY_LEN(MERGES));
    vocab *v = accepted(&o);
    static const int32_t ids[] = {-1, INT32_MIN, INT32_MAX, ARRAY_LEN(BPE)};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        assert_int_equal(vocab_piece(v, ids[i]).n, 0);
        assert_int_equal(vocab_bytes(v, ids[i]).n, 0);
        assert_int_equal(vocab_token_kind(v, ids[i]), TOKEN_UNUSED);
    }
    vocab_close(v);
    vocab_close(NULL);
}

static void wrong_arrays(void **state)
{
    (void)state;
    struct gguf_out o;
    gguf_begin(&o);
    refused(&o, ERR_INVALID, "tokenizer.ggml.model");
    gguf_begin(&o), meta_str(&o, "tokenizer.ggml.model", "rwkv");
    refused(&o, ERR_UNSUPPORTED, "rwkv");
    gguf_begin(&o), meta_str(&o, "tokenizer.ggml.model", "gpt2");
    refused(&o, ERR_INVALID, "tokenizer.ggml.tokens");
    gguf_begin(&o), meta_str(&o, "tokenizer.ggml.model", "gpt2"),
        meta_strs(&o, "tokenizer.ggml.tokens", BPE, 0);
    refused(&o, ERR_INVALID, "tokenizer.ggml.tokens");
    gguf_begin(&o), meta_str(&o, "tokenizer.ggml.model", "gpt2"),
        meta_u32(&o, "tokenizer.ggml.tokens", 3);
    refused(&o, ERR_INVALID, "not an array");
    gguf_begin(&o), meta_str(&o, "tokenizer.ggml.model", "gpt2");
    meta_i32s(&o, "tokenizer.ggml.tokens", BPE_KINDS, 3);
    refused(&o, ERR_INVALID, "list of text");

    begin_bpe(&o); /* no merges */
    refused(&o, ERR_INVALID, "merges");
    begin_spm(&o); /* no scores */
    refused(&o, ERR_INVALID, "scores");
    begin_spm(&o), meta_f32s(&o, "tokenizer.ggml.scores", SPM_SCORES, 3);
    refused(&o, ERR_INVALID, "has 3 entries");
    float nan_scores[ARRAY_LEN(SPM)] = {0};
    nan_scores[4] = NAN;
    begin_spm(&o), meta_f32s(&o, "tokenizer.ggml.scores", nan_scores, ARRAY_LEN(SPM));
    refused(&o, ERR_INVALID, "score of token 4");

    gguf_begin(&o), meta_str(&o, "tokenizer.ggml.model", "gpt2");
    meta_strs(&o, "tokenizer.ggml.tokens", BPE, 2);
    meta_i32s(&o, "tokenizer.ggml.token_type", (int32_t[]){1, 7}, 2);
    refused(&o, ERR_INVALID, "unknown type");
}

static void wrong_merges(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "ab", " ab", "ab ", "a x", "x a", "b a", "a  b"};
    struct gguf_out o;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        begin_bpe(&o);
        meta_strs(&o, "tokenizer.ggml.merges", (const char *[]){MERGES[0], bad[i]}, 2);
        refused(&o, ERR_INVALID, "merge 1");
    }
}

static void wrong_ids_and_texts(void **state)
{
    (void)state;
    static const char *const ids[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                      "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    struct gguf_out o;
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        begin_bpe(&o), meta_strs(&o, "tokenizer.ggml.merges", MERGES, 1),
            meta_u32(&o, ids[i], ARRAY_LEN(BPE));
        refused(&o, ERR_INVALID, ids[i]);
    }
    begin_bpe(&o), meta_strs(&o, "tokenizer.ggml.merges", MERGES, 1),
        meta_bool(&o, "tokenizer.ggml.add_bos_token", 1);
    refused(&o, ERR_INVALID, "bos");
    begin_bpe(&o), meta_strs(&o, "tokenizer.ggml.merges", MERGES, 1),
        meta_u32(&o, "tokenizer.ggml.add_bos_token", 1);
    refused(&o, ERR_INVALID, "add_bos_token");
    begin_bpe(&o), meta_strs(&o, "tokenizer.ggml.merges", MERGES, 1),
        meta_str(&o, "tokenizer.chat_template", "\xff");
    refused(&o, ERR_INVALID, "chat_template");
    char *big = malloc((1u << 20) + 2);
    assert_non_null(big);
    memset(big, 'x', (1u << 20) + 1);
    big[(1u << 20) + 1] = 0;
    begin_bpe(&o), meta_strs(&o, "tokenizer.ggml.merges", MERGES, 1),
        meta_str(&o, "tokenizer.chat_template", big);
    refused(&o, ERR_INVALID, "chat_template");
    gguf_begin(&o), meta_str(&o, "tokenizer.ggml.model", "gpt2");
    meta_strs(&o, "tokenizer.ggml.tokens", (const char *const *)&big, 1);
    refused(&o, ERR_TOO_BIG, "token 0");
    free(big);
}

/* ---- the two real ones
 * --------------------------------------------------------------------------------------- */

static vocab *open_real(const char *name)
{
    char path[4096];
    const char *dir = getenv("NUNCHI_TEST_MODELS"), *home = getenv("HOME");
    struct why w = {.text = ""};
    model_file *f = NULL;
    vocab *v = NULL;
    snprintf(path, sizeof path, "%s%s/%s",
             dir    ? dir
             : home ? home
                    : "",
             dir ? "" : "/.cache/nunchi/models", name);
    if (access(path, R_OK) != 0) {
        fprintf(stderr, "SKIPPED: %s is not there (NUNCHI_TEST_MODELS)\n", name);
        skip();
    }
    if (model_file_open(path, &f, &w) < 0 || vocab_open(f, &v, &w) < 0)
        fail_msg("%s", w.text);
    model_file_close(f);
    return v;
}

static void smollm2(void **state)
{
    (void)state;
    vocab *v = open_real("SmolLM2-135M-Instruct.Q4_1.gguf");
    assert_int_equal(vocab_size(v), 49152);
    assert_true(vocab_is_end(v, 2) && slice_eq_str(vocab_bytes(v, 2), "<|im_end|>"));
    assert_false(vocab_add_bos(v));
    int32_t the = vocab_find(v, SLICE_LIT("\xc4\xa0the"));
    assert_true(the > 0 && slice_eq_str(vocab_bytes(v, the), " the"));
    for (int32_t id = 0; id < vocab_size(v); id++)
        assert_int_equal(vocab_find(v, vocab_piece(v, id)), id);
    vocab_close(v);
}

static void gemma3(void **state)
{
    (void)state;
    vocab *v = open_real("gemma-3-270m-q4_k_m.gguf");
    assert_int_equal(vocab_size(v), 262144);
    assert_true(vocab_add_bos(v) && !vocab_add_space_prefix(v) && vocab_bos(v) == 2);
    const int32_t *ends; /* "</s>" is HTML here */
    assert_int_equal(vocab_ends(v, &ends), 2);
    assert_true(ends[0] == 1 && ends[1] == 106);
    for (int b = 0; b < 256; b++) {
        slice s = vocab_bytes(v, vocab_byte_token(v, (unsigned char)b));
        assert_true(s.n == 1 && (unsigned char)s.p[0] == b);
    }
    vocab_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level),   cmocka_unit_test(sentence_pieces),
        cmocka_unit_test(out_of_range), cmocka_unit_test(wrong_arrays),
        cmocka_unit_test(wrong_merges), cmocka_unit_test(wrong_ids_and_texts),
        cmocka_unit_test(smollm2),      cmocka_unit_test(gemma3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
