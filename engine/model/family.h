/* What distinguishes one family of decoders from another: a row of constants, and how its
 * hyperparameters are named in the file. The loop that uses them (decoder.c) is the same for all.
 */
#ifndef NUNCHI_MODEL_FAMILY_H
#define NUNCHI_MODEL_FAMILY_H

#include "engine/backend/backend.h"

#define FAMILY_LAYERS_MAX 512
#define FAMILY_WIDTH_MAX 65536

struct family {
    const char *name; /* general.architecture */
    enum norm_kind norm;
    enum rope_kind rope; /* as the rows of q and k lie in the file */
    enum act_fn act;
    bool gated_mlp; /* down(act(gate(x)) * up(x)), else down(act(up(x))) */
    bool
        head_norms; /* q and k are normed per head before the rotation (attn_q_norm, attn_k_norm) */
    bool post_norms;   /* what attention and MLP give is normed before it is added
                          (post_attention_norm, post_ffw_norm) */
    bool scaled_embed; /* the embedding is multiplied by sqrt(n_embd) */
    /* Sliding windows: all layers but each `global_every`-th look back `sliding_window` positions
     * only, and rotate with `local_theta`. 0: every layer sees everything. Neither number stands in
     * the file. */
    uint32_t global_every;
    float local_theta;
    /* The size of this family, told by its number of layers, whose q·k is scaled by n_embd / n_head
     * instead of the head's width (Gemma 3 27B, query_pre_attn_scalar; not in the file either). 0:
     * none. */
    uint32_t wide_query_layers;
};

const struct family *family_find(slice name); /* NULL: not supported */
/* "llama, gemma3": for messages. */
const char *family_names(void);

/* A family with the numbers of one model. */
struct shape {
    const struct family *family;
    uint32_t n_vocab, n_context, n_layer, n_embd, n_ff, n_head, n_kv_head, head_dim;
    uint32_t rope_dims;
    float rope_theta, rope_scale; /* rope_scale multiplies positions: 1 for none */
    float norm_eps;
    float attn_scale; /* of q·k */
    float embed_scale;
    uint32_t window; /* positions; 0: none */
};

/* Reads and checks every number. ERR_UNSUPPORTED for an architecture or a feature that is not
 * served, ERR_INVALID for numbers that make no sense; w names the key. */
int shape_read(const model_file *f, struct shape *out, struct why *w) MUST_USE;

/* Does layer l see all positions? */
static inline bool shape_global(const struct shape *s, uint32_t l)
{
    return s->window == 0 || s->family->global_every == 0 || (l + 1) % s->family->global_every == 0;
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
