/* What distinguishes one family of decoders from another: a row of constants, and how its
 * hyperparameters are named in the file. The loop that uses them (decoder.c) is the same for all.
 */
#ifndef NUNCHI_MODEL_FAMILY_H
#define NUNCHI_MODEL_FAMILY_H

#include "engine/backend/backend.h"

#define FAMILY_LAYERS_MAX 512
#define FAMILY_WIDTH_MAX 65536

/* Where a half of a layer (attention, MLP) is normed: what it reads, what it gives, or both. */
enum norm_place { NORM_BEFORE, NORM_AROUND, NORM_AFTER };

/* What the MLP reads: the stream with the attention's share in it, the stream that the attention
 * read, or even the attention's own normed input. */
enum residual { RESIDUAL_SEQUENTIAL, RESIDUAL_PARALLEL, RESIDUAL_SHARED_NORM };

struct family {
    const char *name; /* general.architecture */
    enum norm_kind norm;
    enum norm_place norm_place; /* after: post_attention_norm, post_ffw_norm */
    enum residual
        residual;        /* RESIDUAL_PARALLEL: unless the file's use_parallel_residual is false */
    enum rope_kind rope; /* as the rows of q and k lie in the file */
    bool learned_positions; /* position_embd is added to the embedding */
    enum act_fn act;
    bool gated_mlp; /* down(act(gate(x)) * up(x)), else down(act(up(x))) */
    bool
        head_norms; /* q and k are normed per head before the rotation (attn_q_norm, attn_k_norm) */
    bool scaled_embed; /* the embedding is multiplied by sqrt(n_embd) */
    /* Where the file has a sliding window: all layers but each `global_every`-th look back that
     * far only, and rotate with `local_theta` (0: as the others). 0: all layers do. */
    uint32_t global_every;
    float local_theta;
    bool global_unrotated;    /* … and the others do not rotate at all (EXAONE 4) */
    bool needs_window;        /* a file without one is incomplete */
    uint32_t unrotated_every; /* each so-many-th layer does not rotate (SmolLM3); 0: none */
    /* The size of this family, told by its number of layers, whose q·k is scaled by n_embd / n_head
     * instead of the head's width (Gemma's 27B, query_pre_attn_scalar; older files do not say). 0:
     * none. */
    uint32_t wide_query_layers;
};

const struct family *family_find(slice name); /* NULL: not supported */
/* "llama, gemma3": for messages. */
const char *family_names(void);

#define SHAPE_ROPE_PAIRS_MAX 512

/* A family with the numbers of one model. */
struct shape {
    const struct family *family;
    uint32_t n_vocab, n_context, n_layer, n_embd, n_ff, n_head, n_kv_head, head_dim;
    enum residual residual;
    uint32_t rope_dims;
    float rope_theta, rope_scale; /* rope_scale multiplies positions: 1 for none */
    float rope_magnitude;         /* of rotated vectors (YaRN): 1 for none */
    const char
        *rope_factors_name; /* the tensor of divisors of each pair's frequency; NULL: these: */
    float rope_factors[SHAPE_ROPE_PAIRS_MAX]; /* rope_dims / 2; the first is 0: none */
    float norm_eps;
    float attn_scale;           /* of q·k */
    float attn_cap, logits_cap; /* 0: none */
    float embed_scale;
    uint32_t window; /* positions; 0: none */
};

/* Reads and checks every number. ERR_UNSUPPORTED for an architecture or a feature that is not
 * served, ERR_INVALID for numbers that make no sense; w names the key. */
int shape_read(const model_file *f, struct shape *out, struct why *w) MUST_USE;

/* Does layer l see all positions? */
static inline bool shape_global(const struct shape *s, uint32_t l)
{
    uint32_t every = s->family->global_every;
    return s->window == 0 || (every > 0 && (l + 1) % every == 0);
}

/* Does layer l rotate q and k? */
static inline bool shape_rotates(const struct shape *s, uint32_t l)
{
    uint32_t never = s->family->unrotated_every;
    bool global = s->window > 0 && shape_global(s, l);
    return !(never > 0 && (l + 1) % never == 0) && !(s->family->global_unrotated && global);
}

/* Positions that a token at the end of `context` attends to, summed over layers. */
static inline uint64_t shape_attended(const struct shape *s, uint32_t context)
{
    uint64_t sum = 0;
    for (uint32_t l = 0; l < s->n_layer; l++)
        sum += shape_global(s, l) || context < s->window ? context : s->window;
    return sum;
}

#endif
