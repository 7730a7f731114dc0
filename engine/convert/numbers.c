/* config.json as GGUF keys. Fields have had several names, and since version 5 of transformers all
 * of rotation stands in rope_parameters. What changes the arithmetic and cannot be said in the
 * family's table is refused by name. */
#include <math.h>
#include <stdio.h>

#include "engine/convert/mapping.h"
#include "engine/math.h"

#define NONE INT64_C(-1)

struct reading {
    struct mapping *p;
    const json_val *c;
    struct gguf_out *o;
    struct why *w;
    int e;
};

/* ---- fields under any of their names ---- */

static const json_val *field(const json_val *c, const char *const *names)
{
    for (; *names; names++) {
        const json_val *v = json_get(c, *names);
        if (!json_absent(v))
            return v;
    }
    return NULL;
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static int64_t whole(struct reading *r, const char *const *names, int64_t max, int64_t otherwise)
{
    int64_t v = otherwise;
    const json_val *f = field(r->c, names);
    if (r->e < 0)
        return 1;
    if (f)
        r->e = json_to_i64(f, 1, max, &v, r->w);
    else if (otherwise == NONE)
        r->e = why_set(r->w, ERR_INVALID, names[0], "there is no %s", names[0]);
    return r->e < 0 ? 1 : v;
}

static double real(struct reading *r, const json_val *c, const char *const *names, double min,
                   double max, double otherwise)
{
    double v = otherwise;
    const json_val *f = field(c, names);
    if (r->e == 0 && f)
        r->e = json_to_f64(f, min, max, &v, r->w);
    return v;
}

static bool flag(struct reading *r, const char *name, bool otherwise)
{
    bool v = otherwise;
    if (r->e == 0 && json_opt_bool(r->c, name, &v, r->w) < 0)
        r->e = ERR_INVALID;
    return v;
}

static void refuse(struct reading *r, const char *name, const char *what)
{
    if (r->e == 0)
        r->e = why_set(r->w, ERR_UNSUPPORTED, name, "%s: %s", name, what);
}

/* ---- sizes ---- */

static void sizes(struct reading *r)
{
    struct mapping *p = r->p;
    p->n_layer = (uint32_t)whole(r, NAMES("num_hidden_layers", "n_layer", "num_layers"),
                                 FAMILY_LAYERS_MAX, NONE);
    p->n_embd = (uint32_t)whole(r, NAMES("hidden_size", "n_embd"), FAMILY_WIDTH_MAX, NONE);
    p->n_ff = (uint32_t)whole(r, NAMES("intermediate_size", "n_inner"),
                              FAMILY_WIDTH_MAX * INT64_C(4), 4 * (int64_t)p->n_embd);
    p->n_head = (uint32_t)whole(r, NAMES("num_attention_heads", "n_head"), 1024, NONE);
    p->n_kv_head = (uint32_t)whole(r, NAMES("num_key_value_heads"), 1024, p->n_head);
    p->head_dim = (uint32_t)whole(r, NAMES("head_dim"), 1024,
                                  p->n_embd / p->n_head ? p->n_embd / p->n_head : 1);
    int64_t context =
        whole(r, NAMES("max_position_embeddings", "n_positions"), INT64_C(1) << 40, NONE);
    context = context > ENGINE_CONTEXT_MAX ? ENGINE_CONTEXT_MAX : context;
    gguf_out_u32(r->o, ".block_count", p->n_layer);
    gguf_out_u32(r->o, ".embedding_length", p->n_embd);
    gguf_out_u32(r->o, ".feed_forward_length", p->n_ff);
    gguf_out_u32(r->o, ".context_length", (uint32_t)context);
    gguf_out_u32(r->o, ".attention.head_count", p->n_head);
    gguf_out_u32(r->o, ".attention.head_count_kv", p->n_kv_head);
    if (p->head_dim * p->n_head != p->n_embd) {
        gguf_out_u32(r->o, ".attention.key_length", p->head_dim);
        gguf_out_u32(r->o, ".attention.value_length", p->head_dim);
    }
    double eps = real(r, r->c, NAMES("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"), 0, 1,
                      p->family->norm == NORM_RMS ? 1e-6 : 1e-5);
    gguf_out_f32(r->o,
                 p->family->norm == NORM_RMS ? ".attention.layer_norm_rms_epsilon"
                                             : ".attention.layer_norm_epsilon",
                 (float)eps);
}

/* ---- rotation ---- */

static float *values(struct reading *r, size_t n)
{
    size_t i = r->p->values[0] ? 1 : 0;
    CHECK(!r->p->values[i]);
    return r->p->values[i] = xcalloc(n, sizeof(float));
}

static void add_values(struct reading *r, const char *name, const float *v, size_t n)
{
    struct mapping *p = r->p;
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 256;
        p->tensors = xrealloc(p->tensors, p->cap, sizeof *p->tensors);
    }
    struct mapping_tensor *t = &p->tensors[p->n++];
    *t = (struct mapping_tensor){.values = v, .n_in = n};
    snprintf(t->name, sizeof t->name, "%s", name);
}

static void yarn(struct reading *r, const json_val *rope)
{
    double factor = real(r, rope, NAMES("factor"), 1, 1000, 1),
           plain = 1 + 0.1 * math_log64(factor);
    gguf_out_str(r->o, ".rope.scaling.type", SLICE_LIT("yarn"));
    gguf_out_f32(r->o, ".rope.scaling.factor", (float)factor);
    double trained =
        real(r, rope, NAMES("original_max_position_embeddings"), 1, ENGINE_CONTEXT_MAX, 0);
    if (trained > 0)
        gguf_out_u32(r->o, ".rope.scaling.original_context_length", (uint32_t)trained);
    gguf_out_f32(r->o, ".rope.scaling.yarn_beta_fast",
                 (float)real(r, rope, NAMES("beta_fast"), 1e-3, 1e6, 32));
    gguf_out_f32(r->o, ".rope.scaling.yarn_beta_slow",
                 (float)real(r, rope, NAMES("beta_slow"), 1e-3, 1e6, 1));
    double given = real(r, rope, NAMES("attention_factor"), 1e-3, 1e3, plain);
    if (given < plain || given > plain)
        gguf_out_f32(r->o, ".rope.scaling.attn_factor", (float)(given / plain));
    bool truncate = true;
    if (json_opt_bool(rope, "truncate", &truncate, r->w) < 0 || !truncate ||
        !json_absent(json_get(rope, "mscale")) || !json_absent(json_get(rope, "mscale_all_dim")))
        refuse(r, "rope_scaling", "YaRN with mscale or without truncation is not supported");
}

/* Frequencies that turn seldom are stretched, as _compute_llama3_parameters does. */
static void llama3(struct reading *r, const json_val *rope, double theta)
{
    double factor = real(r, rope, NAMES("factor"), 1, 1000, 8),
           low = real(r, rope, NAMES("low_freq_factor"), 1e-3, 1e3, 1);
    double high = real(r, rope, NAMES("high_freq_factor"), 1e-3, 1e3, 4);
    double trained =
        real(r, rope, NAMES("original_max_position_embeddings"), 1, ENGINE_CONTEXT_MAX, 8192);
    uint32_t n = r->p->rope_dims / 2;
    float *v = values(r, n);
    for (uint32_t i = 0; i < n; i++) {
        double length = 6.283185307179586 * math_pow64(theta, 2.0 * i / r->p->rope_dims),
               turns = trained / length;
        double smooth = high > low ? (turns - low) / (high - low) : 1;
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        v[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
    add_values(r, "rope_freqs.weight", v, n);
}

static void longrope(struct reading *r, const json_val *rope, double context)
{
    static const char *const LISTS[][2] = {{"short_factor", "rope_factors_short.weight"},
                                           {"long_factor", "rope_factors_long.weight"}};
    uint32_t n = r->p->rope_dims / 2;
    double trained =
        real(r, rope, NAMES("original_max_position_embeddings"), 1, ENGINE_CONTEXT_MAX, 0);
    trained =
        real(r, r->c, NAMES("original_max_position_embeddings"), 1, ENGINE_CONTEXT_MAX, trained);
    if (trained < 2) {
        refuse(r, "original_max_position_embeddings", "longrope needs it");
        return;
    }
    double factor = context / trained,
           plain = factor <= 1 ? 1 : sqrt(1 + math_log64(factor) / math_log64(trained));
    gguf_out_str(r->o, ".rope.scaling.type", SLICE_LIT("longrope"));
    gguf_out_u32(r->o, ".rope.scaling.original_context_length", (uint32_t)trained);
    gguf_out_f32(r->o, ".rope.scaling.attn_factor",
                 (float)real(r, rope, NAMES("attention_factor"), 1e-3, 1e3, plain));
    for (size_t k = 0; k < ARRAY_LEN(LISTS) && r->e == 0; k++) {
        const json_val *list = json_get(rope, LISTS[k][0]);
        if ((r->e = json_need_arr(list, n, n, r->w)) < 0)
            return;
        float *v = values(r, n);
        for (uint32_t i = 0; i < n && r->e == 0; i++) {
            double d = 1;
            r->e = json_to_f64(json_at(list, i), 1e-3, 1e6, &d, r->w);
            v[i] = (float)d;
        }
        add_values(r, LISTS[k][1], v, n);
    }
}

/* A family whose near layers rotate otherwise: both are checked against its table. */
static const json_val *rope_of_kinds(struct reading *r, const json_val *rope)
{
    const json_val *near = json_get(rope, "sliding_attention"),
                   *far = json_get(rope, "full_attention");
    if (!near && !far)
        return rope;
    double local = real(r, near, NAMES("rope_theta"), 1, 1e9, 10000),
           global = real(r, far, NAMES("rope_theta"), 1, 1e9, local);
    double want = r->p->family->local_theta > 0 ? (double)r->p->family->local_theta : global;
    slice type = json_str_or(json_get(near, "rope_type"), SLICE_LIT("default"));
    if (near && (local < want || local > want || !slice_eq_str(type, "default")))
        refuse(r, "rope_parameters", "near layers rotate in another way than this family's do");
    return far ? far : near;
}

static void scaling(struct reading *r, const json_val *rope, double theta)
{
    slice type = json_str_or(field(rope, NAMES("rope_type", "type")), SLICE_LIT("default"));
    double context = real(r, r->c, NAMES("max_position_embeddings", "n_positions"), 1, 1e12, 0);
    if (slice_eq_str(type, "default") || slice_eq_str(type, "dynamic"))
        return; /* dynamic: nothing is stretched within max_position_embeddings, and that is all
                   that is offered */
    if (slice_eq_str(type, "linear")) {
        gguf_out_str(r->o, ".rope.scaling.type", SLICE_LIT("linear"));
        gguf_out_f32(r->o, ".rope.scaling.factor",
                     (float)real(r, rope, NAMES("factor"), 1e-3, 1e3, 1));
    } else if (slice_eq_str(type, "yarn"))
        yarn(r, rope);
    else if (slice_eq_str(type, "llama3"))
        llama3(r, rope, theta);
    else if (slice_eq_str(type, "longrope") || slice_eq_str(type, "su"))
        longrope(r, rope, context);
    else
        refuse(r, "rope_scaling",
               "of its kinds, linear, dynamic, yarn, llama3 and longrope are supported");
}

static void rotation(struct reading *r)
{
    struct mapping *p = r->p;
    if (p->family->rope == ROPE_NONE)
        return;
    const json_val *all = json_get(r->c, "rope_parameters"), *rope = rope_of_kinds(r, all);
    const json_val *old = json_get(r->c, "rope_scaling");
    double theta = real(r, r->c, NAMES("rope_theta", "rotary_emb_base"), 2, 1e9, 10000);
    theta = real(r, rope, NAMES("rope_theta"), 2, 1e9, theta);
    double part = real(r, r->c, NAMES("partial_rotary_factor", "rotary_pct"), 0, 1,
                       strcmp(p->hf->family, "gptneox") ? 1 : 0.25);
    part = real(r, rope, NAMES("partial_rotary_factor"), 0, 1, part);
    p->rope_dims = (uint32_t)(p->head_dim * part);
    if (!json_absent(json_get(r->c, "rotary_dim")))
        p->rope_dims = (uint32_t)whole(r, NAMES("rotary_dim"), p->head_dim, p->head_dim);
    if (p->rope_dims < 2 || p->rope_dims % 2 != 0)
        refuse(r, "rotary_dim", "the number of rotated dimensions is odd or none");
    double local =
        real(r, r->c, NAMES("rope_local_base_freq"), 1, 1e9, (double)p->family->local_theta);
    if (local < (double)p->family->local_theta || local > (double)p->family->local_theta)
        refuse(r, "rope_local_base_freq", "another than this family's");
    gguf_out_u32(r->o, ".rope.dimension_count", p->rope_dims);
    gguf_out_f32(r->o, ".rope.freq_base", (float)theta);
    if (r->e == 0)
        scaling(r, json_absent(rope) ? old : rope, theta);
}

/* ---- attention ---- */

/* layer_types and no_rope_layers, where they are given, must say what the family's table does. */
static void check_layers(struct reading *r, uint32_t window)
{
    const json_val *types = json_get(r->c, "layer_types"),
                   *rotated = json_get(r->c, "no_rope_layers");
    struct shape s = {.family = r->p->family, .window = window};
    for (uint32_t l = 0; l < json_len(types) && l < r->p->n_layer; l++) {
        bool far = slice_eq_str(json_str_or(json_at(types, l), SLICE_LIT("")), "full_attention");
        if (far != shape_global(&s, l))
            refuse(r, "layer_types", "windows lie on other layers than in this family");
    }
    for (uint32_t l = 0; l < json_len(rotated) && l < r->p->n_layer; l++) {
        int64_t on = 1;
        r->e = r->e < 0 ? r->e : json_to_i64(json_at(rotated, l), 0, 1, &on, r->w);
        if ((on == 1) != shape_rotates(&s, l))
            refuse(r, "no_rope_layers", "other layers rotate than in this family");
    }
    const json_val *pattern = json_get(r->c, "sliding_window_pattern");
    uint32_t every = r->p->family->global_every;
    int64_t n = every;
    bool same = json_kind(pattern) == JSON_KIND_STR
                    ? json_str_or(pattern, SLICE_LIT("")).n == every
                    : json_absent(pattern) || json_to_i64(pattern, 1, 1024, &n, NULL) == 0;
    if (window && every && (!same || n != every))
        refuse(r, "sliding_window_pattern", "another than this family's");
}

static void attention(struct reading *r)
{
    const struct family *f = r->p->family;
    int64_t window = json_absent(json_get(r->c, "sliding_window"))
                         ? 0
                         : whole(r, NAMES("sliding_window"), ENGINE_CONTEXT_MAX, 0);
    if (!flag(r, "use_sliding_window", true))
        window = 0;
    if (window &&
        (strncmp(r->p->hf->family, "qwen", 4) == 0 || strcmp(r->p->hf->family, "smollm3") == 0))
        refuse(r, "use_sliding_window", "windows on some layers of this family are not supported");
    if (window)
        gguf_out_u32(r->o, ".attention.sliding_window", (uint32_t)window);
    check_layers(r, (uint32_t)window);
    double per = real(r, r->c, NAMES("query_pre_attn_scalar"), 1e-3, 1e6, r->p->head_dim);
    if (per < r->p->head_dim || per > r->p->head_dim)
        gguf_out_f32(r->o, ".attention.scale", (float)(1 / sqrt(per)));
    double cap = real(r, r->c, NAMES("attn_logit_softcapping"), 0, 1e6, 0),
           last = real(r, r->c, NAMES("final_logit_softcapping"), 0, 1e6, 0);
    if (cap > 0)
        gguf_out_f32(r->o, ".attn_logit_softcapping", (float)cap);
    if (last > 0)
        gguf_out_f32(r->o, ".final_logit_softcapping", (float)last);
    if (f->residual == RESIDUAL_PARALLEL)
        gguf_out_bool(r->o, ".use_parallel_residual", flag(r, "use_parallel_residual", true));
    if (!flag(r, "scale_attn_weights", true) || flag(r, "scale_attn_by_inverse_layer_idx", false))
        refuse(r, "scale_attn_weights", "scores scaled in another way are not supported");
}

/* ---- the rest ---- */

static void activation(struct reading *r)
{
    static const struct {
        const char *name;
        enum act_fn fn;
    } ACTS[] = {{"silu", ACT_SILU},
                {"swish", ACT_SILU},
                {"gelu_pytorch_tanh", ACT_GELU_TANH},
                {"gelu_new", ACT_GELU_TANH},
                {"gelu_fast", ACT_GELU_TANH},
                {"gelu", ACT_GELU_ERF}};
    const json_val *v =
        field(r->c, NAMES("hidden_activation", "hidden_act", "activation_function"));
    slice name = json_str_or(v, SLICE_LIT(""));
    bool same = !v;
    for (size_t i = 0; i < ARRAY_LEN(ACTS); i++)
        same |= slice_eq_str(name, ACTS[i].name) && ACTS[i].fn == r->p->family->act;
    if (!same)
        refuse(r, "hidden_act", "another activation than this family's is not supported");
}

static void check_known(struct reading *r)
{
    static const char *const PARTS[][2] = {
        {"quantization_config",
         "a model that is quantised already is not converted; take the one it was made from"},
        {"num_local_experts", "experts are not supported"},
        {"num_experts", "experts are not supported"},
        {"text_config", "models of several parts are not supported"},
    };
    for (size_t i = 0; i < ARRAY_LEN(PARTS); i++)
        if (!json_absent(json_get(r->c, PARTS[i][0])))
            refuse(r, PARTS[i][0], PARTS[i][1]);
}

int mapping_numbers(struct mapping *p, struct why *w)
{
    struct reading r = {.p = p, .c = p->config, .o = p->out, .w = w};
    check_known(&r);
    sizes(&r);
    if (r.e == 0)
        rotation(&r);
    if (r.e == 0)
        attention(&r);
    activation(&r);
    return r.e;
}
