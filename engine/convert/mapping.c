/* Which tensor of the file comes from which of the source. */
#include "engine/convert/mapping.h"

#include <stdio.h>

static const struct hf_name LLAMA_LAYER[] = {
    {"input_layernorm.weight", "attn_norm.weight", MAPPING_COPY},
    {"self_attn.q_proj.weight", "attn_q.weight", MAPPING_PAIRS},
    {"self_attn.k_proj.weight", "attn_k.weight", MAPPING_PAIRS},
    {"self_attn.v_proj.weight", "attn_v.weight", MAPPING_COPY},
    {"self_attn.q_proj.bias", "attn_q.bias", MAPPING_PAIRS},
    {"self_attn.k_proj.bias", "attn_k.bias", MAPPING_PAIRS},
    {"self_attn.v_proj.bias", "attn_v.bias", MAPPING_COPY},
    {"self_attn.o_proj.weight", "attn_output.weight", MAPPING_COPY},
    {"self_attn.o_proj.bias", "attn_output.bias", MAPPING_COPY},
    {"post_attention_layernorm.weight", "ffn_norm.weight", MAPPING_COPY},
    {"mlp.gate_proj.weight", "ffn_gate.weight", MAPPING_COPY},
    {"mlp.up_proj.weight", "ffn_up.weight", MAPPING_COPY},
    {"mlp.down_proj.weight", "ffn_down.weight", MAPPING_COPY},
    {0},
};

/* The same without permuted rows; with norms of heads, and with Phi-3's matrices in one. */
static const struct hf_name HALF_LAYER[] = {
    {"input_layernorm.weight", "attn_norm.weight", MAPPING_COPY},
    {"self_attn.q_proj.weight", "attn_q.weight", MAPPING_COPY},
    {"self_attn.k_proj.weight", "attn_k.weight", MAPPING_COPY},
    {"self_attn.v_proj.weight", "attn_v.weight", MAPPING_COPY},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight", MAPPING_COPY},
    {"self_attn.q_proj.bias", "attn_q.bias", MAPPING_COPY},
    {"self_attn.k_proj.bias", "attn_k.bias", MAPPING_COPY},
    {"self_attn.v_proj.bias", "attn_v.bias", MAPPING_COPY},
    {"self_attn.o_proj.weight", "attn_output.weight", MAPPING_COPY},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", MAPPING_COPY},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", MAPPING_COPY},
    {"post_attention_layernorm.weight", "ffn_norm.weight", MAPPING_COPY},
    {"mlp.gate_proj.weight", "ffn_gate.weight", MAPPING_COPY},
    {"mlp.up_proj.weight", "ffn_up.weight", MAPPING_COPY},
    {"mlp.gate_up_proj.weight", "ffn_up.weight", MAPPING_COPY},
    {"mlp.down_proj.weight", "ffn_down.weight", MAPPING_COPY},
    {0},
};

static const struct hf_name EXAONE4_LAYER[] = {
    {"self_attn.q_proj.weight", "attn_q.weight", MAPPING_COPY},
    {"self_attn.k_proj.weight", "attn_k.weight", MAPPING_COPY},
    {"self_attn.v_proj.weight", "attn_v.weight", MAPPING_COPY},
    {"self_attn.o_proj.weight", "attn_output.weight", MAPPING_COPY},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", MAPPING_COPY},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", MAPPING_COPY},
    {"post_attention_layernorm.weight", "post_attention_norm.weight", MAPPING_COPY},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", MAPPING_COPY},
    {"mlp.gate_proj.weight", "ffn_gate.weight", MAPPING_COPY},
    {"mlp.up_proj.weight", "ffn_up.weight", MAPPING_COPY},
    {"mlp.down_proj.weight", "ffn_down.weight", MAPPING_COPY},
    {0},
};

static const struct hf_name GEMMA_LAYER[] = {
    {"input_layernorm.weight", "attn_norm.weight", MAPPING_ADD_ONE},
    {"self_attn.q_proj.weight", "attn_q.weight", MAPPING_COPY},
    {"self_attn.k_proj.weight", "attn_k.weight", MAPPING_COPY},
    {"self_attn.v_proj.weight", "attn_v.weight", MAPPING_COPY},
    {"self_attn.o_proj.weight", "attn_output.weight", MAPPING_COPY},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", MAPPING_ADD_ONE},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", MAPPING_ADD_ONE},
    {"post_attention_layernorm.weight", "post_attention_norm.weight", MAPPING_ADD_ONE},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight", MAPPING_ADD_ONE},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", MAPPING_ADD_ONE},
    {"mlp.gate_proj.weight", "ffn_gate.weight", MAPPING_COPY},
    {"mlp.up_proj.weight", "ffn_up.weight", MAPPING_COPY},
    {"mlp.down_proj.weight", "ffn_down.weight", MAPPING_COPY},
    {0},
};

static const struct hf_name GPTJ_LAYER[] = {
    {"ln_1.weight", "attn_norm.weight", MAPPING_COPY},
    {"ln_1.bias", "attn_norm.bias", MAPPING_COPY},
    {"attn.q_proj.weight", "attn_q.weight", MAPPING_COPY},
    {"attn.k_proj.weight", "attn_k.weight", MAPPING_COPY},
    {"attn.v_proj.weight", "attn_v.weight", MAPPING_COPY},
    {"attn.out_proj.weight", "attn_output.weight", MAPPING_COPY},
    {"mlp.fc_in.weight", "ffn_up.weight", MAPPING_COPY},
    {"mlp.fc_in.bias", "ffn_up.bias", MAPPING_COPY},
    {"mlp.fc_out.weight", "ffn_down.weight", MAPPING_COPY},
    {"mlp.fc_out.bias", "ffn_down.bias", MAPPING_COPY},
    {0},
};

static const struct hf_name NEOX_LAYER[] = {
    {"input_layernorm.weight", "attn_norm.weight", MAPPING_COPY},
    {"input_layernorm.bias", "attn_norm.bias", MAPPING_COPY},
    {"attention.query_key_value.weight", "attn_qkv.weight", MAPPING_BY_PART},
    {"attention.query_key_value.bias", "attn_qkv.bias", MAPPING_BY_PART},
    {"attention.dense.weight", "attn_output.weight", MAPPING_COPY},
    {"attention.dense.bias", "attn_output.bias", MAPPING_COPY},
    {"post_attention_layernorm.weight", "ffn_norm.weight", MAPPING_COPY},
    {"post_attention_layernorm.bias", "ffn_norm.bias", MAPPING_COPY},
    {"mlp.dense_h_to_4h.weight", "ffn_up.weight", MAPPING_COPY},
    {"mlp.dense_h_to_4h.bias", "ffn_up.bias", MAPPING_COPY},
    {"mlp.dense_4h_to_h.weight", "ffn_down.weight", MAPPING_COPY},
    {"mlp.dense_4h_to_h.bias", "ffn_down.bias", MAPPING_COPY},
    {0},
};

static const struct hf_name GPT2_LAYER[] = {
    {"ln_1.weight", "attn_norm.weight", MAPPING_COPY},
    {"ln_1.bias", "attn_norm.bias", MAPPING_COPY},
    {"attn.c_attn.weight", "attn_qkv.weight", MAPPING_TRANSPOSE},
    {"attn.c_attn.bias", "attn_qkv.bias", MAPPING_COPY},
    {"attn.c_proj.weight", "attn_output.weight", MAPPING_TRANSPOSE},
    {"attn.c_proj.bias", "attn_output.bias", MAPPING_COPY},
    {"ln_2.weight", "ffn_norm.weight", MAPPING_COPY},
    {"ln_2.bias", "ffn_norm.bias", MAPPING_COPY},
    {"mlp.c_fc.weight", "ffn_up.weight", MAPPING_TRANSPOSE},
    {"mlp.c_fc.bias", "ffn_up.bias", MAPPING_COPY},
    {"mlp.c_proj.weight", "ffn_down.weight", MAPPING_TRANSPOSE},
    {"mlp.c_proj.bias", "ffn_down.bias", MAPPING_COPY},
    {0},
};

static const struct hf_name EXAONE_LAYER[] = {
    {"ln_1.weight", "attn_norm.weight", MAPPING_COPY},
    {"attn.attention.q_proj.weight", "attn_q.weight", MAPPING_COPY},
    {"attn.attention.k_proj.weight", "attn_k.weight", MAPPING_COPY},
    {"attn.attention.v_proj.weight", "attn_v.weight", MAPPING_COPY},
    {"attn.attention.out_proj.weight", "attn_output.weight", MAPPING_COPY},
    {"ln_2.weight", "ffn_norm.weight", MAPPING_COPY},
    {"mlp.c_fc_0.weight", "ffn_gate.weight", MAPPING_COPY},
    {"mlp.c_fc_1.weight", "ffn_up.weight", MAPPING_COPY},
    {"mlp.c_proj.weight", "ffn_down.weight", MAPPING_COPY},
    {0},
};

/* The head is not below the prefix: mapping_tensors looks for it. */
static const struct hf_name LLAMA_ENDS[] = {
    {"embed_tokens.weight", "token_embd.weight", MAPPING_COPY},
    {"norm.weight", "output_norm.weight", MAPPING_COPY},
    {0}};
static const struct hf_name GEMMA_ENDS[] = {
    {"embed_tokens.weight", "token_embd.weight", MAPPING_COPY},
    {"norm.weight", "output_norm.weight", MAPPING_ADD_ONE},
    {0}};
static const struct hf_name GPT_ENDS[] = {{"wte.weight", "token_embd.weight", MAPPING_COPY},
                                          {"wpe.weight", "position_embd.weight", MAPPING_COPY},
                                          {"ln_f.weight", "output_norm.weight", MAPPING_COPY},
                                          {"ln_f.bias", "output_norm.bias", MAPPING_COPY},
                                          {0}};
static const struct hf_name NEOX_ENDS[] = {
    {"embed_in.weight", "token_embd.weight", MAPPING_COPY},
    {"final_layer_norm.weight", "output_norm.weight", MAPPING_COPY},
    {"final_layer_norm.bias", "output_norm.bias", MAPPING_COPY},
    {0}};
static const struct hf_name HEADS[] = {{"lm_head.weight", "output.weight", MAPPING_COPY},
                                       {"lm_head.bias", "output.bias", MAPPING_COPY},
                                       {"embed_out.weight", "output.weight", MAPPING_COPY},
                                       {0}};

static const struct hf_family FAMILIES[] = {
    {"llama", "llama", "model.", "layers", LLAMA_LAYER, LLAMA_ENDS},
    {"mistral", "llama", "model.", "layers", LLAMA_LAYER, LLAMA_ENDS},
    {"smollm3", "smollm3", "model.", "layers", LLAMA_LAYER, LLAMA_ENDS},
    {"qwen2", "qwen2", "model.", "layers", HALF_LAYER, LLAMA_ENDS},
    {"qwen3", "qwen3", "model.", "layers", HALF_LAYER, LLAMA_ENDS},
    {"phi3", "phi3", "model.", "layers", HALF_LAYER, LLAMA_ENDS},
    {"exaone", "exaone", "transformer.", "h", EXAONE_LAYER, GPT_ENDS},
    {"exaone4", "exaone4", "model.", "layers", EXAONE4_LAYER, LLAMA_ENDS},
    {"gemma2", "gemma2", "model.", "layers", GEMMA_LAYER, GEMMA_ENDS},
    {"gemma3_text", "gemma3", "model.", "layers", GEMMA_LAYER, GEMMA_ENDS},
    {"gptj", "gptj", "transformer.", "h", GPTJ_LAYER, GPT_ENDS},
    {"gpt_neox", "gptneox", "gpt_neox.", "layers", NEOX_LAYER, NEOX_ENDS},
    {"gpt2", "gpt2", "transformer.", "h", GPT2_LAYER, GPT_ENDS},
};

/* Masks and tables that older checkpoints keep beside the weights. */
static const char *const JUNK[] = {".attn.bias", ".attn.masked_bias", ".attention.bias",
                                   ".attention.masked_bias", "rotary_emb.inv_freq"};

const struct hf_family *mapping_family(slice model_type)
{
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES); i++)
        if (slice_eq_str(model_type, FAMILIES[i].model_type))
            return &FAMILIES[i];
    return NULL;
}

const char *mapping_families(void)
{
    static char names[256];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES) && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "",
                              FAMILIES[i].model_type);
    return names;
}

/* ---- tensors ---- */

struct listing {
    struct mapping *p;
    const source *s;
    bool *used; /* by tensor of the source */
    const char *prefix;
    struct why *w;
    int e;
};

static int refuse(struct listing *l, int e, const struct source_tensor *t, const char *what)
{
    l->e = why_set(l->w, e, "tensors", "tensor %.*s %s", (int)t->name.n, t->name.p, what);
    return l->e;
}

static uint32_t heads_of(const struct mapping *p, const struct hf_name *n)
{
    return strncmp(n->gguf, "attn_k", 6) == 0 ? p->n_kv_head : p->n_head;
}

static void add(struct listing *l, const struct source_tensor *t, const char *name,
                const struct hf_name *how)
{
    struct mapping *p = l->p;
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 256;
        p->tensors = xrealloc(p->tensors, p->cap, sizeof *p->tensors);
    }
    struct mapping_tensor *to = &p->tensors[p->n++];
    *to = (struct mapping_tensor){.from = t, .op = how->op, .heads = heads_of(p, how)};
    snprintf(to->name, sizeof to->name, "%s", name);
    if (t->type == SOURCE_OTHER)
        refuse(l, ERR_UNSUPPORTED, t, "is not of floats");
    else if (t->n == 0 || t->n_dims < 1 || t->n_dims > 2)
        refuse(l, ERR_INVALID, t, "is neither a matrix nor a vector");
    else if (t->n_dims == 1)
        to->n_in = t->dims[0];
    else {
        bool turned = to->op == MAPPING_TRANSPOSE;
        to->n_out = t->dims[turned ? 1 : 0];
        to->n_in = t->dims[turned ? 0 : 1];
    }
    uint64_t rows = to->n_out ? to->n_out : to->n_in, each = to->op == MAPPING_PAIRS     ? 2
                                                             : to->op == MAPPING_BY_PART ? 3
                                                                                         : 1;
    if (l->e == 0 && each > 1 && rows % (to->heads * each) != 0)
        refuse(l, ERR_INVALID, t, "has rows that do not divide into heads");
    l->used[t - source_tensor(l->s, 0)] = true;
}

/* The tensor of that name, if the source has it. */
static void take(struct listing *l, const char *from, const char *to, const struct hf_name *how)
{
    const struct source_tensor *t = l->e == 0 ? source_find(l->s, from) : NULL;
    if (t)
        add(l, t, to, how);
}

static void take_layer(struct listing *l, uint32_t i)
{
    char from[256], to[64];
    for (const struct hf_name *n = l->p->hf->in_layer; n->hf; n++) {
        snprintf(from, sizeof from, "%s%s.%u.%s", l->prefix, l->p->hf->layers, i, n->hf);
        snprintf(to, sizeof to, "blk.%u.%s", i, n->gguf);
        take(l, from, to, n);
    }
}

/* A head that is the embedding is written once. */
static void take_head(struct listing *l)
{
    bool tied = json_kind(json_get(l->p->config, "tie_word_embeddings")) == JSON_KIND_BOOL;
    if (tied && json_opt_bool(l->p->config, "tie_word_embeddings", &tied, NULL) < 0)
        tied = false;
    for (const struct hf_name *n = HEADS; n->hf && l->e == 0; n++) {
        const struct source_tensor *t = source_find(l->s, n->hf);
        if (t && tied && t->n_dims == 2)
            l->used[t - source_tensor(l->s, 0)] = true;
        else if (t)
            add(l, t, n->gguf, n);
    }
}

static bool junk(slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(JUNK); i++) {
        size_t n = strlen(JUNK[i]);
        if (name.n >= n && memcmp(name.p + name.n - n, JUNK[i], n) == 0)
            return true;
    }
    return false;
}

static void check_all_used(struct listing *l)
{
    for (size_t i = 0; i < source_n_tensors(l->s) && l->e == 0; i++)
        if (!l->used[i] && !junk(source_tensor(l->s, i)->name))
            refuse(l, ERR_UNSUPPORTED, source_tensor(l->s, i),
                   "has no place in this family: the model has parts that are not known");
}

int mapping_tensors(struct mapping *p, const source *s, struct why *w)
{
    char from[256];
    struct listing l = {.p = p, .s = s, .w = w, .prefix = p->hf->prefix};
    l.used = xcalloc(source_n_tensors(s) + 1, sizeof *l.used);
    snprintf(from, sizeof from, "%s%s", l.prefix, p->hf->outside[0].hf);
    if (!source_find(s, from)) /* a model that was saved without its head */
        l.prefix = "";
    for (const struct hf_name *n = p->hf->outside; n->hf; n++) {
        snprintf(from, sizeof from, "%s%s", l.prefix, n->hf);
        take(&l, from, n->gguf, n);
    }
    take_head(&l);
    for (uint32_t i = 0; i < p->n_layer; i++)
        take_layer(&l, i);
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->tensors[i].name, "token_embd.weight") == 0)
            p->n_vocab = p->tensors[i].n_out;
    if (l.e == 0 && p->n_vocab == 0)
        l.e = why_set(w, ERR_INVALID, "tensors", "there is no embedding (%s%s)", p->hf->prefix,
                      p->hf->outside[0].hf);
    check_all_used(&l);
    free(l.used);
    return l.e;
}

int mapping_make(const source *s, struct gguf_out *out, struct mapping *p, struct why *w)
{
    slice type;
    struct why inner = {.text = ""};
    *p = (struct mapping){.config = source_config(s), .out = out};
    int e = json_req_str(p->config, "model_type", 64, &type, &inner);
    if (e < 0)
        return source_why(w, e, "config.json", &inner);
    p->hf = mapping_family(type);
    if (!p->hf)
        return why_set(w, ERR_UNSUPPORTED, "model_type",
                       "models of the type '%.*s' are not supported; supported: %s", (int)type.n,
                       type.p, mapping_families());
    p->family = family_find(slice_str(p->hf->family));
    CHECK(p->family);
    snprintf(out->prefix, sizeof out->prefix, "%s", p->hf->family);
    if ((e = mapping_numbers(p, &inner)) < 0)
        return source_why(w, e, "config.json", &inner);
    return mapping_tensors(p, s, w);
}

void mapping_clear(struct mapping *p)
{
    for (size_t i = 0; i < ARRAY_LEN(p->values); i++)
        free(p->values[i]);
    free(p->tensors);
    *p = (struct mapping){0};
}

/* ---- rows ---- */

/* Which row of the source row r of the file is. */
static uint64_t row_from(const struct mapping_tensor *t, uint64_t r)
{
    uint64_t rows = t->n_out ? t->n_out : t->n_in, heads = t->heads, dim, part;
    switch (t->op) {
    case MAPPING_PAIRS:
        dim = rows / heads;
        return r / dim * dim + r % 2 * (dim / 2) + r % dim / 2;
    case MAPPING_BY_PART:
        part = rows / 3;
        dim = part / heads;
        return r % part / dim * 3 * dim + r / part * dim + r % dim;
    case MAPPING_COPY:
    case MAPPING_ADD_ONE:
    case MAPPING_TRANSPOSE:
        break;
    }
    return r;
}

void mapping_rows(const struct mapping_tensor *t, uint64_t first, size_t n, float *out)
{
    uint64_t width = t->n_out ? t->n_in : 1;
    if (t->values) {
        memcpy(out, t->values + first, n * sizeof *out);
        return;
    }
    if (t->op == MAPPING_TRANSPOSE && t->n_out) {
        for (size_t r = 0; r < n; r++)
            for (uint64_t k = 0; k < width; k++)
                source_floats(t->from, k * t->n_out + first + r, 1, out + r * width + k);
        return;
    }
    if (t->op == MAPPING_COPY || t->op == MAPPING_ADD_ONE || t->op == MAPPING_TRANSPOSE)
        source_floats(t->from, first * width, n * width, out);
    else
        for (size_t r = 0; r < n; r++)
            source_floats(t->from, row_from(t, first + r) * width, width, out + r * width);
    for (size_t i = 0; t->op == MAPPING_ADD_ONE && i < n * width; i++)
        out[i] += 1.0f;
}
