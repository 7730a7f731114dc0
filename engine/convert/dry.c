#include "engine/convert/dry.h"

#include "engine/kernels/pack.h"
#include "engine/model/decoder.h"

struct dry {
    backend base; /* first */
    uint32_t n;
};

static int add_weight(backend *b, const struct weight *weight, tensor_id *out, struct why *w)
{
    struct dry *d = (struct dry *)(void *)b;
    struct packed plan;
    size_t bytes;
    *out = ++d->n;
    return weight->multiplied ? packed_plan(weight, &plan, &bytes, w) : 0;
}

static int add_act(backend *b, uint32_t width, act_id *out)
{
    (void)b, (void)width;
    *out = 1;
    return 0;
}

static int add_kv(backend *b, const struct kv_shape *shape)
{
    (void)b;
    return shape->head_dim % 16 == 0 ? 0 : ERR_UNSUPPORTED;
}

static int ready(backend *b, struct why *w)
{
    (void)b, (void)w;
    return 0;
}

int dry_load(const model_file *f, struct why *w)
{
    static const struct backend_ops OPS = {.name = "dry",
                                           .add_weight = add_weight,
                                           .add_act = add_act,
                                           .add_kv = add_kv,
                                           .ready = ready};
    struct dry d = {.base = {&OPS}};
    struct shape s;
    decoder *dec = NULL;
    vocab *v = NULL;
    int e = shape_read(f, &s, w);
    if (e >= 0)
        e = decoder_load(f, &s, &d.base, 1, NULL, NULL, &dec, w);
    if (e == ERR_UNSUPPORTED && s.head_dim % 16 != 0)
        why_set(w, e, "head_dim",
                "heads of %u dimensions cannot be computed with: a multiple of 16 is needed",
                s.head_dim);
    if (e >= 0)
        e = vocab_open(f, &v, w);
    decoder_free(dec);
    vocab_close(v);
    return e;
}
