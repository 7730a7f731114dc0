/* Any bytes as a model file: refused with a sentence, or every accessor stays inside it. What is
 * taken for a vocabulary holds together. */
#include <stddef.h>
#include <stdint.h>

#include "engine/model/family.h"
#include "engine/model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at_meta(const model_file *f)
{
    for (size_t i = 0; i < model_file_n_meta(f); i++) {
        slice key = model_file_meta_key(f, i), s;
        char name[GGUF_KEY_MAX + 1];
        memcpy(name, key.p, key.n);
        name[key.n] = 0;
        uint32_t u;
        float x;
        bool b;
        CHECK(model_file_meta_type(f, key) != META_NONE);
        CHECK(model_file_u32(f, name, &u) <= 0 && model_file_bool(f, name, &b) <= 0);
        CHECK(model_file_f32(f, name, &x) < 0 || x - x == 0);
        CHECK(model_file_str(f, name, &s) < 0 || utf8_valid(s) ||
              !utf8_valid(s)); /* reads all of it */
        const struct gguf_meta *m = gguf_find(f, name);
        uint64_t at = 0;
        for (uint64_t k = 0; m->type == GGUF_ARRAY && m->elem == GGUF_STR && k < m->n; k++)
            CHECK(gguf_next_str(m, &at).n <= GGUF_STRING_MAX);
        CHECK(at <= m->bytes);
    }
}

static void look_at_tensors(const model_file *f)
{
    for (size_t i = 0; i < model_file_n_tensors(f); i++) {
        const struct gguf_tensor *t = &f->tensors[i];
        CHECK(t->bytes <= f->n &&
              (t->bytes == 0 || (t->data >= f->p && t->data + t->bytes <= f->p + f->n)));
        CHECK(digest_of((slice){"", 0}, (slice){(const char *)t->data, (size_t)t->bytes}).b[0] <=
              255);
    }
}

static void look_at_vocab(const vocab *v)
{
    const int32_t *ends;
    for (int32_t id = -1; id <= vocab_size(v); id++) {
        slice piece = vocab_piece(v, id), bytes = vocab_bytes(v, id);
        CHECK(bytes.n <= piece.n);
        CHECK(vocab_find(v, piece) <= id || id < 0 ||
              id == vocab_size(v)); /* the lowest of equals */
        int32_t merged;
        CHECK(vocab_merge_rank(v, id, id, &merged) < 0 || (merged >= 0 && merged < vocab_size(v)));
    }
    for (size_t i = vocab_ends(v, &ends); i > 0; i--)
        CHECK(ends[i - 1] >= 0 && ends[i - 1] < vocab_size(v) && vocab_is_end(v, ends[i - 1]));
    CHECK(vocab_bos(v) < vocab_size(v) && vocab_eos(v) < vocab_size(v));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    model_file *f;
    vocab *v;
    struct shape s;
    struct why w = {.text = ""};
    if (model_file_open_mem(data, size, &f, &w) < 0) {
        CHECK(f == NULL && w.text[0] != '\0' && utf8_valid(slice_str(w.text)));
        return 0;
    }
    look_at_meta(f);
    look_at_tensors(f);
    w.text[0] = 0;
    int e = vocab_open(f, &v, &w);
    CHECK((e < 0) == (v == NULL) && (e == 0 || w.text[0] != '\0'));
    if (v)
        look_at_vocab(v);
    vocab_close(v);
    CHECK(shape_read(f, &s, &w) < 0 || (s.n_layer > 0 && s.n_embd > 0 && s.n_head > 0));
    model_file_close(f);
    return 0;
}
