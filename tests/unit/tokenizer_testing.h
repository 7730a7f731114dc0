/* What the tests of tokenizer-svc share: small vocabularies, made as model files in memory. */
#ifndef NUNCHI_TOKENIZER_TESTING_H
#define NUNCHI_TOKENIZER_TESTING_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "tokenizer-svc/tokenizer.h"

struct token {
    char text[40];
    int kind;
    float score;
};

struct small_model {
    buf gguf, meta, tokens, kinds, scores, merges;
    uint32_t n_tokens, n_merges;
    uint64_t n_meta;
    vocab *v;
};

static inline void put_int(buf *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        buf_put_byte(b, (unsigned char)(v >> (8 * i)));
}

static inline void put_gguf_text(buf *b, slice s)
{
    put_int(b, s.n, 8);
    buf_put_slice(b, s);
}

static inline void meta_key(struct small_model *m, const char *key, uint32_t type)
{
    put_gguf_text(&m->meta, slice_str(key));
    put_int(&m->meta, type, 4);
    m->n_meta++;
}

static inline void meta_text(struct small_model *m, const char *key, const char *value)
{
    meta_key(m, key, 8);
    put_gguf_text(&m->meta, slice_str(value));
}

static inline void meta_u32(struct small_model *m, const char *key, uint32_t value)
{
    meta_key(m, key, 4);
    put_int(&m->meta, value, 4);
}

static inline void meta_bool(struct small_model *m, const char *key, bool value)
{
    meta_key(m, key, 7);
    put_int(&m->meta, value, 1);
}

static inline int32_t add_token(struct small_model *m, const char *text, int kind, float score)
{
    union {
        float f;
        uint32_t u;
    } bits = {.f = score};
    put_gguf_text(&m->tokens, slice_str(text));
    put_int(&m->kinds, (uint32_t)kind, 4);
    put_int(&m->scores, bits.u, 4);
    return (int32_t)m->n_tokens++;
}

static inline void add_merge(struct small_model *m, const char *merge)
{
    put_gguf_text(&m->merges, slice_str(merge));
    m->n_merges++;
}

static inline void meta_array(struct small_model *m, const char *key, uint32_t type, uint32_t n,
                              const buf *items)
{
    meta_key(m, key, 9);
    put_int(&m->meta, type, 4);
    put_int(&m->meta, n, 8);
    buf_put_slice(&m->meta, buf_slice(items));
}

static inline const vocab *small_open(struct small_model *m, const char *kind)
{
    meta_text(m, "tokenizer.ggml.model", kind);
    meta_array(m, "tokenizer.ggml.tokens", 8, m->n_tokens, &m->tokens);
    meta_array(m, "tokenizer.ggml.token_type", 5, m->n_tokens, &m->kinds);
    meta_array(m, "tokenizer.ggml.scores", 6, m->n_tokens, &m->scores);
    meta_array(m, "tokenizer.ggml.merges", 8, m->n_merges, &m->merges);
    buf_put_str(&m->gguf, "GGUF");
    put_int(&m->gguf, 3, 4);
    put_int(&m->gguf, 0, 8);
    put_int(&m->gguf, m->n_meta, 8);
    buf_put_slice(&m->gguf, buf_slice(&m->meta));
    model_file *f;
    struct why w = {0};
    if (model_file_open_mem(m->gguf.p, m->gguf.n, &f, &w) < 0)
        fail_msg("%s", w.text);
    if (vocab_open(f, &m->v, &w) < 0)
        fail_msg("%s", w.text);
    model_file_close(f);
    return m->v;
}

static inline void small_close(struct small_model *m)
{
    vocab_close(m->v);
    buf_clear(&m->gguf);
    buf_clear(&m->meta);
    buf_clear(&m->tokens);
    buf_clear(&m->kinds);
    buf_clear(&m->scores);
    buf_clear(&m->merges);
    *m = (struct small_model){0};
}

#define CHATML_TEMPLATE                                                                            \
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "                   \
    "message['content'] + '<|im_end|>' + "                                                         \
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

/* Byte-level: every byte has a token, its id is the byte; "hello" and " hello" merge; ids 300 … are
 * special. */
enum { IM_START = 300, IM_END, END_OF_TEXT, TOOL };

static inline const vocab *small_bpe(struct small_model *m, const char *pre,
                                     const char *chat_template)
{
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; b++) {
        bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        char text[5] = {0};
        text[utf8_encode(itself ? b : next++, text)] = 0;
        add_token(m, text, TOKEN_NORMAL, 0);
    }
    static const char *const merges[] = {"h e", "l l",   "he ll",    "hell o", "\xc4\xa0 hello",
                                         "a a", "aa aa", "aaaa aaaa"};
    for (size_t i = 0; i < ARRAY_LEN(merges); i++) {
        char joined[40];
        size_t left = strcspn(merges[i], " ");
        (void)snprintf(joined, sizeof joined, "%.*s%s", (int)left, merges[i], merges[i] + left + 1);
        add_token(m, joined, TOKEN_NORMAL, 0);
        add_merge(m, merges[i]);
    }
    while (m->n_tokens < IM_START) {
        char filler[16];
        (void)snprintf(filler, sizeof filler, "<f%u>", m->n_tokens);
        add_token(m, filler, TOKEN_CONTROL, 0);
    }
    add_token(m, "<|im_start|>", TOKEN_CONTROL, 0);
    add_token(m, "<|im_end|>", TOKEN_CONTROL, 0);
    add_token(m, "<|endoftext|>", TOKEN_CONTROL, 0);
    add_token(m, "<tool>", TOKEN_USER, 0);
    meta_text(m, "tokenizer.ggml.pre", pre);
    meta_u32(m, "tokenizer.ggml.bos_token_id", END_OF_TEXT);
    meta_u32(m, "tokenizer.ggml.eos_token_id", IM_END);
    if (chat_template)
        meta_text(m, "tokenizer.chat_template", chat_template);
    return small_open(m, "gpt2");
}

#endif
