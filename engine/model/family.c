#include "engine/model/family.h"

#include <stdio.h>

#include "engine/math.h"

/* llama: converters to GGUF permute the rows of q and k so that pairs lie side by side (interleaved
 * rotation). gemma3: 5 local layers to 1 global one, local base 10000, the 27B's scale
 * (transformers, Gemma3TextConfig): not in the file. */
static const struct family FAMILIES[] = {
    {.name = "llama",
     .norm = NORM_RMS,
     .rope = ROPE_INTERLEAVED,
     .act = ACT_SILU,
     .gated_mlp = true},
    {.name = "gemma3",
     .norm = NORM_RMS,
     .rope = ROPE_HALF,
     .act = ACT_GELU_TANH,
     .gated_mlp = true,
     .head_norms = true,
     .post_norms = true,
     .scaled_embed = true,
     .global_every = 6,
     .local_theta = 10000.0f,
     .wide_query_layers = 62},
};

const struct family *family_find(slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES); i++) {
        if (slice_eq_str(name, FAMILIES[i].name))
            return &FAMILIES[i];
    }
    return NULL;
}

const char *family_names(void)
{
    static char names[256];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES) && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", FAMILIES[i].name);
    return names;
}

/* Keys are FAMILY.name. An absent key leaves *out and gives ERR_NOT_FOUND. */
static int read_u32(const model_file *f, const struct family *fam, const char *name, uint32_t min,
                    uint32_t max, uint32_t *out, struct why *w)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", fam->name, name);
    uint32_t v = 0;
    int e = model_file_u32(f, key, &v);
    if (e == ERR_NOT_FOUND) {
        why_set(w, e, key, "the model file has no %s", key);
        return ERR_NOT_FOUND;
    }
    if (e < 0 || v < min || v > max) {
        why_set(w, ERR_INVALID, key, "%s must be a number from %u to %u", key, min, max);
        return ERR_INVALID;
    }
    *out = v;
    return 0;
}

static int read_f32(const model_file *f, const struct family *fam, const char *name, float min,
                    float max, float *out, struct why *w)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", fam->name, name);
    float v;
    int e = model_file_f32(f, key, &v);
    if (e == ERR_NOT_FOUND)
        return e;
    if (e < 0 || !(v >= min && v <= max))
        return why_set(w, ERR_INVALID, key, "%s must be a number from %g to %g", key, (double)min,
                       (double)max);
    *out = v;
    return 0;
}

/* An optional number: absent keeps what *out is. */
#define OPTIONAL(call)                                                                             \
    do {                                                                                           \
        int optional_e = (call);                                                                   \
        if (optional_e < 0 && optional_e != ERR_NOT_FOUND)                                         \
            return optional_e;                                                                     \
    } while (0)

#define REQUIRED(call)                                                                             \
    do {                                                                                           \
        int required_e = (call);                                                                   \
        if (required_e < 0)                                                                        \
            return required_e == ERR_NOT_FOUND ? ERR_INVALID : required_e;                         \
    } while (0)

static int read_sizes(const model_file *f, const struct family *fam, struct shape *s, struct why *w)
{
    REQUIRED(read_u32(f, fam, "block_count", 1, FAMILY_LAYERS_MAX, &s->n_layer, w));
    REQUIRED(read_u32(f, fam, "embedding_length", 1, FAMILY_WIDTH_MAX, &s->n_embd, w));
    REQUIRED(read_u32(f, fam, "feed_forward_length", 1, FAMILY_WIDTH_MAX * 4, &s->n_ff, w));
    REQUIRED(read_u32(f, fam, "context_length", 1, ENGINE_CONTEXT_MAX, &s->n_context, w));
    REQUIRED(read_u32(f, fam, "attention.head_count", 1, 1024, &s->n_head, w));
    s->n_kv_head = s->n_head;
    OPTIONAL(read_u32(f, fam, "attention.head_count_kv", 1, 1024, &s->n_kv_head, w));
    s->head_dim = s->n_embd / s->n_head;
    OPTIONAL(read_u32(f, fam, "attention.key_length", 1, 1024, &s->head_dim, w));
    uint32_t value_dim = s->head_dim;
    OPTIONAL(read_u32(f, fam, "attention.value_length", 1, 1024, &value_dim, w));
    if (s->n_head % s->n_kv_head != 0)
        return why_set(w, ERR_INVALID, "attention.head_count_kv",
                       "%u heads cannot share %u kv heads", s->n_head, s->n_kv_head);
    if (value_dim != s->head_dim)
        return why_set(w, ERR_UNSUPPORTED, "attention.value_length",
                       "values of another width than keys are not supported");
    if (s->head_dim == 0 || s->head_dim % 2 != 0)
        return why_set(w, ERR_INVALID, "attention.key_length",
                       "a head of %u dimensions cannot be rotated", s->head_dim);
    return 0;
}

static int read_rope(const model_file *f, const struct family *fam, struct shape *s, struct why *w)
{
    char key[96];
    slice scaling;
    s->rope_dims = s->head_dim;
    OPTIONAL(read_u32(f, fam, "rope.dimension_count", 2, s->head_dim, &s->rope_dims, w));
    s->rope_theta = 10000.0f;
    OPTIONAL(read_f32(f, fam, "rope.freq_base", 1.0f, 1e9f, &s->rope_theta, w));
    s->rope_scale = 1.0f;
    snprintf(key, sizeof key, "%s.rope.scaling.type", fam->name);
    if (model_file_str(f, key, &scaling) < 0 || slice_eq_str(scaling, "none"))
        return 0;
    if (!slice_eq_str(scaling, "linear"))
        return why_set(w, ERR_UNSUPPORTED, key, "rope scaling '%.*s' is not supported",
                       (int)(scaling.n < 32 ? scaling.n : 32), scaling.p);
    float factor = 1.0f;
    OPTIONAL(read_f32(f, fam, "rope.scaling.factor", 1e-3f, 1e3f, &factor, w));
    s->rope_scale = 1.0f / factor;
    return 0;
}

static int read_vocab_size(const model_file *f, struct shape *s, struct why *w)
{
    for (size_t i = 0; i < model_file_n_tensors(f); i++) {
        struct tensor_info t = model_file_tensor(f, i);
        if (!slice_eq_str(t.name, "token_embd.weight"))
            continue;
        if (t.n_dims != 2 || t.dims[0] != s->n_embd || t.dims[1] < 1 ||
            t.dims[1] > ENGINE_VOCAB_MAX)
            return why_set(w, ERR_INVALID, "token_embd.weight",
                           "the embedding table has not the shape (vocabulary, %u)", s->n_embd);
        s->n_vocab = (uint32_t)t.dims[1];
        return 0;
    }
    return why_set(w, ERR_INVALID, "token_embd.weight", "the model file has no embedding table");
}

int shape_read(const model_file *f, struct shape *out, struct why *w)
{
    slice name;
    if (model_file_str(f, "general.architecture", &name) < 0)
        return why_set(w, ERR_INVALID, "general.architecture",
                       "the model file does not say what it is");
    const struct family *fam = family_find(name);
    if (!fam)
        return why_set(w, ERR_UNSUPPORTED, "general.architecture",
                       "models of the family '%.*s' are not supported; supported: %s",
                       (int)(name.n < 40 ? name.n : 40), name.p, family_names());
    struct shape s = {.family = fam, .norm_eps = 1e-5f, .embed_scale = 1.0f};
    REQUIRED(read_sizes(f, fam, &s, w));
    REQUIRED(read_rope(f, fam, &s, w));
    OPTIONAL(read_f32(f, fam,
                      fam->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                            : "attention.layer_norm_epsilon",
                      0, 1.0f, &s.norm_eps, w));
    if (fam->global_every > 0)
        REQUIRED(read_u32(f, fam, "attention.sliding_window", 1, ENGINE_CONTEXT_MAX, &s.window, w));
    REQUIRED(read_vocab_size(f, &s, w));
    s.attn_scale = 1.0f / sqrtf((float)(s.n_layer == fam->wide_query_layers ? s.n_embd / s.n_head
                                                                            : s.head_dim));
    if (fam->scaled_embed)
        s.embed_scale = sqrtf((float)s.n_embd);
    *out = s;
    return 0;
}
