#include "engine/model/family.h"

#include <stdio.h>

#include "engine/math.h"
#include "engine/model/gguf.h"

/* llama and smollm3: converters to GGUF permute the rows of q and k so that pairs lie side by side
 * (interleaved rotation); gptj's model rotates so itself. Numbers that are in no file are from
 * transformers' configurations: Gemma 3's windows (5 local layers to 1, local base 10000) and the
 * 27Bs' scale, Gemma 2's and EXAONE 4's order of windows, SmolLM3's layers without rotation. */
static const struct family FAMILIES[] = {
    {.name = "llama", .rope = ROPE_INTERLEAVED, .act = ACT_SILU, .gated_mlp = true},
    {.name = "qwen2", .rope = ROPE_HALF, .act = ACT_SILU, .gated_mlp = true},
    {.name = "qwen3", .rope = ROPE_HALF, .act = ACT_SILU, .gated_mlp = true, .head_norms = true},
    {.name = "phi3", .rope = ROPE_HALF, .act = ACT_SILU, .gated_mlp = true},
    {.name = "exaone", .rope = ROPE_HALF, .act = ACT_SILU, .gated_mlp = true},
    {.name = "exaone4",
     .norm_place = NORM_AFTER,
     .rope = ROPE_HALF,
     .act = ACT_SILU,
     .gated_mlp = true,
     .head_norms = true,
     .global_every = 4,
     .global_unrotated = true},
    {.name = "smollm3",
     .rope = ROPE_INTERLEAVED,
     .act = ACT_SILU,
     .gated_mlp = true,
     .unrotated_every = 4},
    {.name = "gemma2",
     .norm_place = NORM_AROUND,
     .rope = ROPE_HALF,
     .act = ACT_GELU_TANH,
     .gated_mlp = true,
     .scaled_embed = true,
     .global_every = 2,
     .needs_window = true,
     .wide_query_layers = 46},
    {.name = "gemma3",
     .norm_place = NORM_AROUND,
     .rope = ROPE_HALF,
     .act = ACT_GELU_TANH,
     .gated_mlp = true,
     .head_norms = true,
     .scaled_embed = true,
     .global_every = 6,
     .local_theta = 10000.0f,
     .needs_window = true,
     .wide_query_layers = 62},
    {.name = "gptj",
     .norm = NORM_LAYER,
     .residual = RESIDUAL_SHARED_NORM,
     .rope = ROPE_INTERLEAVED,
     .act = ACT_GELU_TANH},
    {.name = "gptneox",
     .norm = NORM_LAYER,
     .residual = RESIDUAL_PARALLEL,
     .rope = ROPE_HALF,
     .act = ACT_GELU_ERF},
    {.name = "gpt2",
     .norm = NORM_LAYER,
     .rope = ROPE_NONE,
     .learned_positions = true,
     .act = ACT_GELU_TANH},
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

/* YaRN (transformers, _compute_yarn_parameters): pairs that turn more than `fast` times within the
 * context the model was trained on keep their frequency, those that turn less than `slow` times are
 * stretched by `factor`, between them a ramp; rotated vectors are lengthened. */
static int read_yarn(const model_file *f, const struct family *fam, float factor, struct shape *s,
                     struct why *w)
{
    uint32_t trained = s->n_context, n = s->rope_dims / 2;
    float fast = 32, slow = 1, magnitude = 1, dims = (float)s->rope_dims;
    OPTIONAL(read_u32(f, fam, "rope.scaling.original_context_length", 1, ENGINE_CONTEXT_MAX,
                      &trained, w));
    OPTIONAL(read_f32(f, fam, "rope.scaling.yarn_beta_fast", 1e-3f, 1e6f, &fast, w));
    OPTIONAL(read_f32(f, fam, "rope.scaling.yarn_beta_slow", 1e-3f, 1e6f, &slow, w));
    OPTIONAL(read_f32(f, fam, "rope.scaling.attn_factor", 1e-3f, 1e3f, &magnitude, w));
    double per_log = (double)dims / (2 * math_log64((double)s->rope_theta)),
           turn = 6.283185307179586;
    double low = floor(per_log * math_log64(trained / ((double)fast * turn)));
    double high = ceil(per_log * math_log64(trained / ((double)slow * turn)));
    low = low < 0 ? 0 : low;
    high = high > dims - 1 ? (double)dims - 1 : high;
    high = high == low ? high + 0.001 : high;
    for (uint32_t i = 0; i < n; i++) {
        double stretched = (i - low) / (high - low);
        stretched = stretched < 0 ? 0 : stretched > 1 ? 1 : stretched;
        s->rope_factors[i] = (float)(1 / (stretched / (double)factor + 1 - stretched));
    }
    s->rope_magnitude = magnitude * (1 + 0.1f * (float)math_log64((double)factor));
    return 0;
}

/* Two lists of divisors, of which the short one is for the context the model was trained on: that
 * much is offered, since positions computed by one list cannot be read by the other. */
static int read_longrope(const model_file *f, const struct family *fam, struct shape *s,
                         struct why *w)
{
    uint32_t trained = s->n_context;
    REQUIRED(read_u32(f, fam, "rope.scaling.original_context_length", 1, ENGINE_CONTEXT_MAX,
                      &trained, w));
    OPTIONAL(read_f32(f, fam, "rope.scaling.attn_factor", 1e-3f, 1e3f, &s->rope_magnitude, w));
    s->n_context = trained < s->n_context ? trained : s->n_context;
    s->rope_factors_name = "rope_factors_short.weight";
    return 0;
}

static int read_rope(const model_file *f, const struct family *fam, struct shape *s, struct why *w)
{
    char key[96];
    slice scaling;
    s->rope_dims = s->head_dim;
    OPTIONAL(read_u32(f, fam, "rope.dimension_count", 2, s->head_dim, &s->rope_dims, w));
    if (s->rope_dims % 2 != 0 || s->rope_dims / 2 > SHAPE_ROPE_PAIRS_MAX)
        return why_set(w, ERR_INVALID, "rope.dimension_count", "%u dimensions cannot be rotated",
                       s->rope_dims);
    s->rope_theta = 10000.0f;
    OPTIONAL(read_f32(f, fam, "rope.freq_base", 2.0f, 1e9f, &s->rope_theta, w));
    s->rope_scale = s->rope_magnitude = 1.0f;
    if (gguf_tensor(f, "rope_freqs.weight"))
        s->rope_factors_name = "rope_freqs.weight";
    snprintf(key, sizeof key, "%s.rope.scaling.type", fam->name);
    if (model_file_str(f, key, &scaling) < 0 || slice_eq_str(scaling, "none"))
        return 0;
    float factor = 1.0f;
    OPTIONAL(read_f32(f, fam, "rope.scaling.factor", 1e-3f, 1e3f, &factor, w));
    if (slice_eq_str(scaling, "yarn"))
        return read_yarn(f, fam, factor, s, w);
    if (slice_eq_str(scaling, "longrope"))
        return read_longrope(f, fam, s, w);
    if (!slice_eq_str(scaling, "linear"))
        return why_set(w, ERR_UNSUPPORTED, key,
                       "rope scaling '%.*s' is not supported (linear, yarn and longrope are)",
                       (int)(scaling.n < 32 ? scaling.n : 32), scaling.p);
    s->rope_scale = 1.0f / factor;
    return 0;
}

/* What a layer sees and how scores and logits are scaled. */
static int read_attention(const model_file *f, const struct family *fam, struct shape *s,
                          struct why *w)
{
    int e = read_u32(f, fam, "attention.sliding_window", 1, ENGINE_CONTEXT_MAX, &s->window, w);
    if (e < 0 && (e != ERR_NOT_FOUND || fam->needs_window))
        return e == ERR_NOT_FOUND ? ERR_INVALID : e;
    OPTIONAL(read_f32(f, fam, "attn_logit_softcapping", 0, 1e6f, &s->attn_cap, w));
    OPTIONAL(read_f32(f, fam, "final_logit_softcapping", 0, 1e6f, &s->logits_cap, w));
    bool wide = s->n_layer == fam->wide_query_layers;
    s->attn_scale = 1.0f / sqrtf((float)(wide ? s->n_embd / s->n_head : s->head_dim));
    OPTIONAL(read_f32(f, fam, "attention.scale", 1e-6f, 1e3f, &s->attn_scale, w));
    return 0;
}

/* gptneox.use_parallel_residual, in the families that can be told. */
static int read_residual(const model_file *f, const struct family *fam, struct shape *s,
                         struct why *w)
{
    char key[96];
    bool parallel = true;
    s->residual = fam->residual;
    if (fam->residual != RESIDUAL_PARALLEL)
        return 0;
    snprintf(key, sizeof key, "%s.use_parallel_residual", fam->name);
    int e = model_file_bool(f, key, &parallel);
    if (e < 0 && e != ERR_NOT_FOUND)
        return why_set(w, ERR_INVALID, key, "%s must be true or false", key);
    if (!parallel)
        s->residual = RESIDUAL_SEQUENTIAL;
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
    REQUIRED(read_attention(f, fam, &s, w));
    REQUIRED(read_residual(f, fam, &s, w));
    REQUIRED(read_vocab_size(f, &s, w));
    if (fam->scaled_embed)
        s.embed_scale = sqrtf((float)s.n_embd);
    *out = s;
    return 0;
}
