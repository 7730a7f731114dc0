#include "engine/model/decoder.h"

#include <stdio.h>

#include "engine/dequant.h"
#include "engine/model/gguf.h"

struct layer {
    tensor_id attn_norm, attn_norm_bias;
    tensor_id q, k, v, o; /* (n_head * head_dim, n_embd), (n_kv_head * head_dim, n_embd) twice,
                             (n_embd, n_head * head_dim) */
    tensor_id q_bias, k_bias, v_bias, o_bias;
    tensor_id q_norm, k_norm; /* (head_dim) */
    tensor_id post_attn_norm;
    tensor_id ffn_norm, ffn_norm_bias;
    tensor_id gate, up, down; /* (n_ff, n_embd) twice, (n_embd, n_ff) */
    tensor_id up_bias, down_bias;
    tensor_id post_ffw_norm;
};

struct decoder {
    backend *b;
    struct shape shape;
    struct decoder_cost cost;
    tensor_id embed, head, head_bias, final_norm, final_norm_bias, freq_factors;
    act_id x[2];     /* the residual stream, n_embd: a sum is made from one into the other */
    act_id h;        /* what a half of a layer adds to it, n_embd */
    act_id q, k, v;  /* heads */
    act_id a;        /* what attention gives, n_head * head_dim */
    act_id ff;       /* n_ff */
    /* During a step: which of x holds the stream, and whether h has yet to be added to it. */
    int at;
    bool pending;
    struct norm_op pending_norm; /* of h, before; weight 0: none */
    struct layer layers[];
};

/* ---- loading
 * --------------------------------------------------------------------------------------------------
 */

struct loading {
    const model_file *f;
    decoder *d;
    struct why *w;
    void (*progress)(void *ctx, const char *what, int permille);
    void *ctx;
    size_t n_done;
    bool *used; /* by tensor of the file */
    int e;      /* the first failure; later calls do nothing */
};

enum { WANTED, OPTIONAL_TENSOR };

struct want {
    const char *name;     /* without the layer's prefix */
    uint32_t n_out, n_in; /* n_in 0: a vector of n_out */
    bool multiplied, gathered;
    int optional;
};

static void fail_shape(struct loading *l, const struct gguf_tensor *t, const struct want *want)
{
    l->e = why_set(l->w, ERR_INVALID, "model", "tensor %.*s is (%llu, %llu), not (%u, %u)",
                   (int)t->name.n, t->name.p, (unsigned long long)t->dims[1],
                   (unsigned long long)t->dims[0], want->n_in ? want->n_out : 1,
                   want->n_in ? want->n_in : want->n_out);
}

static void add_cost(struct decoder_cost *c, const struct weight *w, uint64_t bytes, bool head)
{
    bool whole = w->type == WEIGHT_F32 || w->type == WEIGHT_F16 || w->type == WEIGHT_BF16;
    struct engine_macs *macs = whole ? &c->floats : &c->ints;
    *(head ? &macs->head : &macs->layers) += (uint64_t)w->n_in * w->n_out;
    c->weight_bytes += bytes;
}

static void add(struct loading *l, const char *name, const struct want *want, tensor_id *out)
{
    *out = 0;
    if (l->e < 0)
        return;
    const struct gguf_tensor *t = gguf_tensor(l->f, name);
    if (!t) {
        if (want->optional == WANTED)
            l->e = why_set(l->w, ERR_INVALID, "model", "the model file has no tensor %s", name);
        return;
    }
    uint64_t n_in = want->n_in ? want->n_in : want->n_out, n_out = want->n_in ? want->n_out : 1;
    if (t->dims[0] != n_in || t->dims[1] != n_out || t->dims[2] != 1 || t->dims[3] != 1) {
        fail_shape(l, t, want);
        return;
    }
    if (!dequant_knows(t->type->id)) {
        l->e = why_set(l->w, ERR_UNSUPPORTED, "model",
                       "tensor %s is of type %s, which is not supported", name, t->type->name);
        return;
    }
    struct weight weight = {.type = (enum weight_type)t->type->id,
                            .n_out = (uint32_t)n_out,
                            .n_in = (uint32_t)n_in,
                            .data = t->data,
                            .gathered = want->gathered,
                            .multiplied = want->multiplied};
    l->e = l->d->b->ops->add_weight(l->d->b, &weight, out, l->w);
    if (want->multiplied)
        add_cost(&l->d->cost, &weight, t->bytes, n_out == l->d->shape.n_vocab);
    l->used[t - l->f->tensors] = true;
    l->n_done++;
    if (l->progress)
        l->progress(l->ctx, "load", (int)(l->n_done * 1000 / (model_file_n_tensors(l->f) + 1)));
}

/* blk.<layer>.<name> */
static tensor_id layer_tensor(struct loading *l, uint32_t layer, struct want want)
{
    char name[GGUF_NAME_MAX * 2];
    snprintf(name, sizeof name, "blk.%u.%s", layer, want.name);
    tensor_id id;
    add(l, name, &want, &id);
    return id;
}

static tensor_id matrix(struct loading *l, uint32_t layer, const char *name, uint32_t n_out,
                        uint32_t n_in)
{
    return layer_tensor(
        l, layer, (struct want){.name = name, .n_out = n_out, .n_in = n_in, .multiplied = true});
}

static tensor_id vector(struct loading *l, uint32_t layer, const char *name, uint32_t n,
                        int optional)
{
    return layer_tensor(l, layer, (struct want){.name = name, .n_out = n, .optional = optional});
}

static void load_layer(struct loading *l, uint32_t i, struct layer *y)
{
    const struct shape *s = &l->d->shape;
    const struct family *fam = s->family;
    uint32_t q = s->n_head * s->head_dim, kv = s->n_kv_head * s->head_dim;
    y->attn_norm = vector(l, i, "attn_norm.weight", s->n_embd, WANTED);
    y->attn_norm_bias = vector(l, i, "attn_norm.bias", s->n_embd, OPTIONAL_TENSOR);
    y->q = matrix(l, i, "attn_q.weight", q, s->n_embd);
    y->k = matrix(l, i, "attn_k.weight", kv, s->n_embd);
    y->v = matrix(l, i, "attn_v.weight", kv, s->n_embd);
    y->o = matrix(l, i, "attn_output.weight", s->n_embd, q);
    y->q_bias = vector(l, i, "attn_q.bias", q, OPTIONAL_TENSOR);
    y->k_bias = vector(l, i, "attn_k.bias", kv, OPTIONAL_TENSOR);
    y->v_bias = vector(l, i, "attn_v.bias", kv, OPTIONAL_TENSOR);
    y->o_bias = vector(l, i, "attn_output.bias", s->n_embd, OPTIONAL_TENSOR);
    if (fam->head_norms) {
        y->q_norm = vector(l, i, "attn_q_norm.weight", s->head_dim, WANTED);
        y->k_norm = vector(l, i, "attn_k_norm.weight", s->head_dim, WANTED);
    }
    y->ffn_norm = vector(l, i, "ffn_norm.weight", s->n_embd, WANTED);
    y->ffn_norm_bias = vector(l, i, "ffn_norm.bias", s->n_embd, OPTIONAL_TENSOR);
    if (fam->gated_mlp)
        y->gate = matrix(l, i, "ffn_gate.weight", s->n_ff, s->n_embd);
    y->up = matrix(l, i, "ffn_up.weight", s->n_ff, s->n_embd);
    y->up_bias = vector(l, i, "ffn_up.bias", s->n_ff, OPTIONAL_TENSOR);
    y->down = matrix(l, i, "ffn_down.weight", s->n_embd, s->n_ff);
    y->down_bias = vector(l, i, "ffn_down.bias", s->n_embd, OPTIONAL_TENSOR);
    if (fam->post_norms) {
        y->post_attn_norm = vector(l, i, "post_attention_norm.weight", s->n_embd, WANTED);
        y->post_ffw_norm = vector(l, i, "post_ffw_norm.weight", s->n_embd, WANTED);
    }
}

static void load_ends(struct loading *l)
{
    decoder *d = l->d;
    const struct shape *s = &d->shape;
    bool tied = gguf_tensor(l->f, "output.weight") == NULL;
    add(l, "token_embd.weight",
        &(struct want){
            .n_out = s->n_vocab, .n_in = s->n_embd, .gathered = true, .multiplied = tied},
        &d->embed);
    d->head = d->embed;
    if (!tied)
        add(l, "output.weight",
            &(struct want){.n_out = s->n_vocab, .n_in = s->n_embd, .multiplied = true}, &d->head);
    add(l, "output.bias", &(struct want){.n_out = s->n_vocab, .optional = OPTIONAL_TENSOR},
        &d->head_bias);
    add(l, "output_norm.weight", &(struct want){.n_out = s->n_embd}, &d->final_norm);
    add(l, "output_norm.bias", &(struct want){.n_out = s->n_embd, .optional = OPTIONAL_TENSOR},
        &d->final_norm_bias);
    add(l, "rope_freqs.weight",
        &(struct want){.n_out = s->rope_dims / 2, .optional = OPTIONAL_TENSOR}, &d->freq_factors);
}

/* A tensor that nobody asked for (a bias, an expert, a norm of another family) would be left out of
 * the sum in silence. */
static void check_all_used(struct loading *l)
{
    for (size_t i = 0; i < l->f->n_tensors && l->e >= 0; i++) {
        const struct gguf_tensor *t = &l->f->tensors[i];
        if (!l->used[i])
            l->e =
                why_set(l->w, ERR_UNSUPPORTED, "model", "tensor %.*s has no place in the family %s",
                        (int)t->name.n, t->name.p, l->d->shape.family->name);
    }
}

static void make_acts(struct loading *l)
{
    decoder *d = l->d;
    const struct shape *s = &d->shape;
    uint32_t q = s->n_head * s->head_dim, kv = s->n_kv_head * s->head_dim;
    struct {
        act_id *id;
        uint32_t width;
    } acts[] = {{&d->x[0], s->n_embd}, {&d->x[1], s->n_embd}, {&d->h, s->n_embd}, {&d->q, q},
                {&d->k, kv},           {&d->v, kv},           {&d->a, q},         {&d->ff, s->n_ff}};
    for (size_t i = 0; i < ARRAY_LEN(acts) && l->e >= 0; i++)
        l->e = d->b->ops->add_act(d->b, acts[i].width, acts[i].id);
    if (l->e < 0)
        why_set(l->w, l->e, "", "no memory for a step's vectors");
}

int decoder_load(const model_file *f, const struct shape *s, backend *b, uint32_t n_blocks,
                 void (*progress)(void *ctx, const char *what, int permille), void *ctx,
                 decoder **out, struct why *w)
{
    decoder *d = xcalloc(1, sizeof *d + s->n_layer * sizeof d->layers[0]);
    d->b = b;
    d->shape = *s;
    struct loading l = {.f = f, .d = d, .w = w, .progress = progress, .ctx = ctx};
    l.used = xcalloc(model_file_n_tensors(f) + 1, sizeof *l.used);
    load_ends(&l);
    for (uint32_t i = 0; i < s->n_layer && l.e >= 0; i++)
        load_layer(&l, i, &d->layers[i]);
    check_all_used(&l);
    free(l.used);
    if (l.e >= 0)
        make_acts(&l);
    struct kv_shape kv = {.n_layer = s->n_layer,
                          .n_kv_head = s->n_kv_head,
                          .head_dim = s->head_dim,
                          .n_blocks = n_blocks};
    if (l.e >= 0 && (l.e = b->ops->add_kv(b, &kv)) < 0)
        why_set(w, l.e, "kv-blocks", "no memory for %u KV blocks", n_blocks);
    if (l.e >= 0)
        l.e = b->ops->ready(b, w);
    if (l.e < 0) {
        decoder_free(d);
        d = NULL;
    }
    *out = d;
    return l.e;
}

void decoder_free(decoder *d)
{
    free(d);
}

struct decoder_cost decoder_cost(const decoder *d)
{
    return d->cost;
}

/* ---- running
 * --------------------------------------------------------------------------------------------------
 */

static struct norm_op norm_of(const decoder *d, tensor_id weight, tensor_id bias)
{
    return (struct norm_op){
        .kind = d->shape.family->norm, .weight = weight, .bias = bias, .eps = d->shape.norm_eps};
}

/* The residual stream as the input of a linear: what is pending is added on the way, and kept. */
static struct linear_in stream(decoder *d, const struct norm_op *norm, bool keep)
{
    struct linear_in in = {.x = d->x[d->at], .norm = norm};
    if (!d->pending)
        return in;
    in.delta = d->h;
    in.delta_norm = d->pending_norm.weight ? &d->pending_norm : NULL;
    in.sum = keep ? d->x[!d->at] : 0;
    return in;
}

/* in.sum has become the stream. */
static void moved(decoder *d)
{
    d->at ^= d->pending;
    d->pending = false;
}

/* h has yet to be added to the stream, normed first if there is a norm. */
static void add_later(decoder *d, tensor_id post_norm)
{
    d->pending_norm = norm_of(d, post_norm, 0);
    d->pending = true;
}

static void into_h(decoder *d, act_id from, tensor_id w, tensor_id bias)
{
    d->b->ops->linear(d->b, &(struct linear_in){.x = from}, 1, &(struct linear_out){w, bias, d->h});
}

static struct rope_op rope_of(const decoder *d, uint32_t l)
{
    const struct shape *s = &d->shape;
    bool local = !shape_global(s, l);
    return (struct rope_op){.kind = s->family->rope,
                            .n_dims = s->rope_dims,
                            .theta = local ? s->family->local_theta : s->rope_theta,
                            .freq_scale = local ? 1.0f : s->rope_scale,
                            .freq_factors = d->freq_factors};
}

/* a = attention of q, k and v. */
static void attend_heads(decoder *d, uint32_t l)
{
    const struct shape *s = &d->shape;
    const struct layer *y = &d->layers[l];
    bool normed = s->family->head_norms;
    struct norm_op q_norm = norm_of(d, y->q_norm, 0), k_norm = norm_of(d, y->k_norm, 0);
    struct attention_op op = {.layer = l,
                              .n_head = s->n_head,
                              .n_kv_head = s->n_kv_head,
                              .head_dim = s->head_dim,
                              .q_norm = normed ? &q_norm : NULL,
                              .k_norm = normed ? &k_norm : NULL,
                              .rope = rope_of(d, l),
                              .scale = s->attn_scale,
                              .window = shape_global(s, l) ? 0 : s->window};
    d->b->ops->attention(d->b, &op, d->q, d->k, d->v, d->a);
}

/* x += o(attention(norm(x))) */
static void attend(decoder *d, uint32_t l)
{
    const struct layer *y = &d->layers[l];
    const struct backend_ops *ops = d->b->ops;
    struct norm_op pre = norm_of(d, y->attn_norm, y->attn_norm_bias);
    struct linear_in in = stream(d, &pre, true);
    ops->linear(d->b, &in, 3,
                (struct linear_out[]){
                    {y->q, y->q_bias, d->q}, {y->k, y->k_bias, d->k}, {y->v, y->v_bias, d->v}});
    moved(d);
    attend_heads(d, l);
    into_h(d, d->a, y->o, y->o_bias);
    add_later(d, y->post_attn_norm);
}

/* x += mlp(norm(x)) */
static void feed_forward(decoder *d, uint32_t l)
{
    const struct layer *y = &d->layers[l];
    struct norm_op pre = norm_of(d, y->ffn_norm, y->ffn_norm_bias);
    struct linear_in in = stream(d, &pre, true);
    d->b->ops->gated(d->b, &in,
                     &(struct gated_op){.fn = d->shape.family->act,
                                        .gate = y->gate,
                                        .up = y->up,
                                        .up_bias = y->up_bias,
                                        .y = d->ff});
    moved(d);
    into_h(d, d->ff, y->down, y->down_bias);
    add_later(d, y->post_ffw_norm);
}

int decoder_run(decoder *d, const struct engine_step *step)
{
    const struct backend_ops *ops = d->b->ops;
    ops->begin(d->b, step);
    d->at = 0;
    d->pending = false;
    ops->embed(d->b, d->embed, d->shape.embed_scale, d->x[0]);
    for (uint32_t l = 0; l < d->shape.n_layer; l++) {
        attend(d, l);
        feed_forward(d, l);
    }
    struct norm_op final = norm_of(d, d->final_norm, d->final_norm_bias);
    struct linear_in in = stream(d, &final, false);
    ops->logits(d->b, &in, d->head, d->head_bias, 1.0f, 0.0f);
    return ops->finish(d->b);
}
