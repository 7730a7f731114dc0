/* Any bytes as a file of weights or a tokenizer: refused with a sentence, or every tensor lies
 * inside it. The first byte says as what: safetensors, a PyTorch archive, its pickle alone,
 * SentencePiece's model. */
#include <stddef.h>
#include <stdint.h>

#include "engine/convert/pickle.h"
#include "engine/convert/source.h"
#include "common/base/hash.h"
#include "engine/convert/words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at(const source *s, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < source_n_tensors(s); i++) {
        const struct source_tensor *t = source_tensor(s, i);
        CHECK(t->bytes == 0 || (t->data >= p && t->data + t->bytes <= p + n));
        float x[16];
        size_t some = t->n < 16 ? (size_t)t->n : 16;
        if (t->type != SOURCE_OTHER && some) {
            source_floats(t, 0, some, x);
            source_floats(t, t->n - some, some, x);
        }
    }
}

static int look_at_tensor(void *ctx, const struct pickle_tensor *t, struct why *w)
{
    (void)ctx;
    (void)w;
    CHECK(t->n_dims <= PICKLE_DIMS_MAX);
    hash64(t->name.p, t->name.n); /* reads all of them */
    hash64(t->key.p, t->key.n);
    return 0;
}

static void as_weights(const uint8_t *p, size_t n, bool safetensors)
{
    struct why w = {.text = ""};
    source *s = NULL;
    if (source_open_mem(p, n, safetensors, &s, &w) == 0)
        look_at(s, p, n);
    else
        CHECK(w.text[0]);
    source_close(s);
}

static void as_model(const uint8_t *p, size_t n)
{
    struct words v = {.bos = -1, .eos = -1, .unk = -1, .pad = -1};
    struct why w = {.text = ""};
    buf_put(&v.model, p, n);
    if (words_from_model(&v, &w) < 0)
        CHECK(w.text[0]);
    buf_clear(&v.model);
    free(v.pieces);
    free(v.kinds);
    free(v.scores);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct why w = {.text = ""};
    if (size == 0)
        return 0;
    switch (data[0] % 4) {
    case 0:
        as_weights(data + 1, size - 1, true);
        break;
    case 1:
        as_weights(data + 1, size - 1, false);
        break;
    case 2:
        if (pickle_tensors((slice){(const char *)data + 1, size - 1}, look_at_tensor, NULL, &w) < 0)
            CHECK(w.text[0]);
        break;
    default:
        as_model(data + 1, size - 1);
    }
    return 0;
}
