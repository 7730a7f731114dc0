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
    tensor_id embed, positions, head, head_bias, final_norm, final_norm_bias, freq_factors;
    act_id x[2];    /* the residual stream, n_embd: a sum is made from one into the other */
    act_id h;       /* what a half of a layer adds to it, n_embd */
    act_id q, k, v; /* heads */
    act_id a;       /* what attention gives, n_head * head_dim */
    act_id ff;      /* n_ff */
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
    /* These are rows first .. first+n_out-1 of a tensor of so many (elements, for a vector):
     * several matrices in one. 0: the whole tensor. */
    uint32_t first, all;
};

static void fail_shape(struct loading *l, const struct gguf_tensor *t, const struct want *want)
{
    uint32_t all = want->all ? want->all : want->n_out;
    l->e = why_set(l->w, ERR_INVALID, "model", "tensor %.*s is (%llu, %llu), not (%u, %u)",
                   (int)t->name.n, t->name.p, (unsigned long long)t->dims[1],
                   (unsigned long long)t->dims[0], want->n_in ? all : 1,
                   want->n_in ? want->n_in : all);
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
    uint32_t all = want->all ? want->all : want->n_out;
    CHECK(all > 0);
    uint64_t n_in = want->n_in ? want->n_in : all, n_out = want->n_in ? all : 1;
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
                            .n_out = want->n_in ? want->n_out : 1,
                            .n_in = want->n_in ? want->n_in : want->n_out,
                            .data = t->data + t->bytes / all * want->first,
                            .gathered = want->gathered,
                            .multiplied = want->multiplied};
    if (!want->n_in && want->n_out != all && t->type->id != WEIGHT_F32) {
        l->e = why_set(l->w, ERR_UNSUPPORTED, "model", "tensor %s is of type %s; F32 is expected",
                       name, t->type->name);
        return;
    }
    l->e = l->d->b->ops->add_weight(l->d->b, &weight, out, l->w);
    if (want->multiplied)
        add_cost(&l->d->cost, &weight, t->bytes / all * want->n_out,
                 want->n_out == l->d->shape.n_vocab);
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

/* q, k and v: three tensors, or one with their rows below each other. */
static void load_qkv(struct loading *l, uint32_t i, struct layer *y)
{
    const struct shape *s = &l->d->shape;
    uint32_t q = s->n_head * s->head_dim, kv = s->n_kv_head * s->head_dim, first = 0;
    char fused[GGUF_NAME_MAX * 2];
    snprintf(fused, sizeof fused, "blk.%u.attn_qkv.weight", i);
    bool one = gguf_tensor(l->f, fused) != NULL;
    struct {
        const char *weight, *bias;
        uint32_t n;
        tensor_id *w, *b;
    } parts[] = {{"attn_q.weight", "attn_q.bias", q, &y->q, &y->q_bias},
                 {"attn_k.weight", "attn_k.bias", kv, &y->k, &y->k_bias},
                 {"attn_v.weight", "attn_v.bias", kv, &y->v, &y->v_bias}};
    for (size_t k = 0; k < ARRAY_LEN(parts); first += parts[k++].n) {
        struct want want = {.name = one ? "attn_qkv.weight" : parts[k].weight,
                            .n_out = parts[k].n,
                            .n_in = s->n_embd,
                            .multiplied = true,
                            .first = one ? first : 0,
                            .all = one ? q + 2 * kv : 0};
        *parts[k].w = layer_tensor(l, i, want);
        want.name = one ? "attn_qkv.bias" : parts[k].bias;
        want.n_in = 0;
        want.multiplied = false;
        want.optional = OPTIONAL_TENSOR;
        *parts[k].b = layer_tensor(l, i, want);
    }
}

/* The MLP; gate and up are two tensors, or one with gate's rows first. */
static void load_mlp(struct loading *l, uint32_t i, struct layer *y)
{
    const struct shape *s = &l->d->shape;
    char name[GGUF_NAME_MAX * 2];
    snprintf(name, sizeof name, "blk.%u.ffn_up.weight", i);
    const struct gguf_tensor *t = gguf_tensor(l->f, name);
    bool gated = s->family->gated_mlp, one = gated && t && t->dims[1] == 2 * (uint64_t)s->n_ff;
    struct want up = {
        .name = "ffn_up.weight", .n_out = s->n_ff, .n_in = s->n_embd, .multiplied = true};
    if (one) {
        up.all = 2 * s->n_ff;
        y->gate = layer_tensor(l, i, up);
        up.first = s->n_ff;
    } else if (gated)
        y->gate = matrix(l, i, "ffn_gate.weight", s->n_ff, s->n_embd);
    y->up = layer_tensor(l, i, up);
    y->up_bias = vector(l, i, "ffn_up.bias", s->n_ff, OPTIONAL_TENSOR);
    y->down = matrix(l, i, "ffn_down.weight", s->n_embd, s->n_ff);
    y->down_bias = vector(l, i, "ffn_down.bias", s->n_embd, OPTIONAL_TENSOR);
}

static void load_norms(struct loading *l, uint32_t i, struct layer *y)
{
    const struct shape *s = &l->d->shape;
    const struct family *fam = s->family;
    if (fam->norm_place != NORM_AFTER) {
        y->attn_norm = vector(l, i, "attn_norm.weight", s->n_embd, WANTED);
        y->attn_norm_bias = vector(l, i, "attn_norm.bias", s->n_embd, OPTIONAL_TENSOR);
    }
    if (fam->norm_place != NORM_AFTER && s->residual != RESIDUAL_SHARED_NORM) {
        y->ffn_norm = vector(l, i, "ffn_norm.weight", s->n_embd, WANTED);
        y->ffn_norm_bias = vector(l, i, "ffn_norm.bias", s->n_embd, OPTIONAL_TENSOR);
    }
    if (fam->norm_place != NORM_BEFORE) {
        y->post_attn_norm = vector(l, i, "post_attention_norm.weight", s->n_embd, WANTED);
        y->post_ffw_norm = vector(l, i, "post_ffw_norm.weight", s->n_embd, WANTED);
    }
    if (fam->head_norms) {
        y->q_norm = vector(l, i, "attn_q_norm.weight", s->head_dim, WANTED);
        y->k_norm = vector(l, i, "attn_k_norm.weight", s->head_dim, WANTED);
    }
}

static void load_layer(struct loading *l, uint32_t i, struct layer *y)
{
    const struct shape *s = &l->d->shape;
    load_norms(l, i, y);
    load_qkv(l, i, y);
    y->o = matrix(l, i, "attn_output.weight", s->n_embd, s->n_head * s->head_dim);
    y->o_bias = vector(l, i, "attn_output.bias", s->n_embd, OPTIONAL_TENSOR);
    load_mlp(l, i, y);
}

/* Divisors of the rotation's frequencies: from a tensor, or as the shape made them. */
static void load_rope(struct loading *l)
{
    decoder *d = l->d;
    const struct shape *s = &d->shape;
    uint32_t n = s->rope_dims / 2;
    if (s->rope_factors_name) {
        add(l, s->rope_factors_name, &(struct want){.n_out = n}, &d->freq_factors);
        /* For a context that is not offered (family.c). */
        tensor_id unused;
        add(l, "rope_factors_long.weight", &(struct want){.n_out = n, .optional = OPTIONAL_TENSOR},
            &unused);
    } else if (s->rope_factors[0] > 0 && l->e >= 0) {
        struct weight w = {.type = WEIGHT_F32, .n_out = 1, .n_in = n, .data = s->rope_factors};
        l->e = d->b->ops->add_weight(d->b, &w, &d->freq_factors, l->w);
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
    if (s->family->learned_positions)
        add(l, "position_embd.weight",
            &(struct want){.n_out = s->n_context, .n_in = s->n_embd, .gathered = true},
            &d->positions);
    load_rope(l);
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
    } acts[] = {
        {&d->x[0], s->n_embd}, {&d->x[1], s->n_embd}, {&d->h, s->n_embd}, {&d->q, q},
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

/* h = w·from; where the attention's share waits in h for the MLP's, h += w·from. */
static void into_h(decoder *d, act_id from, tensor_id w, tensor_id bias, bool added)
{
    d->b->ops->linear(d->b, &(struct linear_in){.x = from}, 1,
                      &(struct linear_out){w, bias, d->h, added});
}

static struct rope_op rope_of(const decoder *d, uint32_t l)
{
    const struct shape *s = &d->shape;
    float local_theta = shape_global(s, l) ? 0 : s->family->local_theta;
    struct rope_op op = {.kind = shape_rotates(s, l) ? s->family->rope : ROPE_NONE,
                         .n_dims = s->rope_dims,
                         .theta = s->rope_theta,
                         .freq_scale = s->rope_scale,
                         .freq_factors = d->freq_factors,
                         .magnitude = s->rope_magnitude};
    if (local_theta > 0) { /* scaling is for those that look far */
        op.theta = local_theta;
        op.freq_scale = op.magnitude = 1.0f;
        op.freq_factors = 0;
    }
    return op;
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
                              .soft_cap = s->attn_cap,
                              .window = shape_global(s, l) ? 0 : s->window};
    d->b->ops->attention(d->b, &op, d->q, d->k, d->v, d->a);
}

/* x += o(attention(norm(x))); in a parallel layer the sum waits for the MLP. */
static void attend(decoder *d, uint32_t l)
{
    const struct layer *y = &d->layers[l];
    const struct backend_ops *ops = d->b->ops;
    struct norm_op pre = norm_of(d, y->attn_norm, y->attn_norm_bias);
    struct linear_in in = stream(d, y->attn_norm ? &pre : NULL, true);
    ops->linear(d->b, &in, 3,
                (struct linear_out[]){{y->q, y->q_bias, d->q, false},
                                      {y->k, y->k_bias, d->k, false},
                                      {y->v, y->v_bias, d->v, false}});
    moved(d);
    attend_heads(d, l);
    into_h(d, d->a, y->o, y->o_bias, false);
    if (d->shape.residual == RESIDUAL_SEQUENTIAL)
        add_later(d, y->post_attn_norm);
}

/* x += mlp(norm(x)) */
static void feed_forward(decoder *d, uint32_t l)
{
    const struct layer *y = &d->layers[l];
    bool shared = d->shape.residual == RESIDUAL_SHARED_NORM;
    tensor_id norm = shared ? y->attn_norm : y->ffn_norm;
    struct norm_op pre = norm_of(d, norm, shared ? y->attn_norm_bias : y->ffn_norm_bias);
    struct linear_in in = stream(d, norm ? &pre : NULL, true);
    d->b->ops->gated(d->b, &in,
                     &(struct gated_op){.fn = d->shape.family->act,
                                        .gate = y->gate,
                                        .up = y->up,
                                        .up_bias = y->up_bias,
                                        .y = d->ff});
    moved(d);
    into_h(d, d->ff, y->down, y->down_bias, d->shape.residual != RESIDUAL_SEQUENTIAL);
    add_later(d, y->post_ffw_norm);
}

int decoder_run(decoder *d, const struct engine_step *step)
{
    const struct backend_ops *ops = d->b->ops;
    ops->begin(d->b, step);
    d->at = 0;
    d->pending = false;
    ops->embed(d->b, d->embed, d->positions, d->shape.embed_scale, d->x[0]);
    for (uint32_t l = 0; l < d->shape.n_layer; l++) {
        attend(d, l);
        feed_forward(d, l);
    }
    struct norm_op final = norm_of(d, d->final_norm, d->final_norm_bias);
    struct linear_in in = stream(d, &final, false);
    ops->logits(d->b, &in, d->head, d->head_bias, 1.0f, d->shape.logits_cap);
    return ops->finish(d->b);
}
