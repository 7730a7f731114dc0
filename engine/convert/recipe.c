#include "engine/convert/recipe.h"

#include <stdio.h>

struct recipe {
    const char *name;
    enum weight_type most, vocab,
        more; /* of most matrices, of the vocabulary's, of those that need more */
    uint32_t file_type;
    bool keep; /* as in the source */
};

static const struct recipe RECIPES[] = {
    {"q4_k", WEIGHT_Q4_K, WEIGHT_Q6_K, WEIGHT_Q6_K, 15, false},
    {"q5_k", WEIGHT_Q5_K, WEIGHT_Q6_K, WEIGHT_Q6_K, 17, false},
    {"q6_k", WEIGHT_Q6_K, WEIGHT_Q6_K, WEIGHT_Q6_K, 18, false},
    {"q8_0", WEIGHT_Q8_0, WEIGHT_Q8_0, WEIGHT_Q8_0, 7, false},
    {"q4_0", WEIGHT_Q4_0, WEIGHT_Q6_K, WEIGHT_Q4_0, 2, false},
    {"q4_1", WEIGHT_Q4_1, WEIGHT_Q6_K, WEIGHT_Q4_1, 3, false},
    {"q5_0", WEIGHT_Q5_0, WEIGHT_Q6_K, WEIGHT_Q5_0, 8, false},
    {"q5_1", WEIGHT_Q5_1, WEIGHT_Q6_K, WEIGHT_Q5_1, 9, false},
    {"f16", WEIGHT_F16, WEIGHT_F16, WEIGHT_F16, 1, false},
    {"bf16", WEIGHT_BF16, WEIGHT_BF16, WEIGHT_BF16, 32, false},
    {"none", WEIGHT_F32, WEIGHT_F32, WEIGHT_F32, 0, true},
};

const struct recipe *recipe_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(RECIPES); i++)
        if (strcmp(name, RECIPES[i].name) == 0)
            return &RECIPES[i];
    return NULL;
}

const char *recipe_names(void)
{
    static char names[128];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(RECIPES) && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", RECIPES[i].name);
    return names;
}

static enum weight_type source_weight(const struct mapping_tensor *t)
{
    enum source_type s = t->from ? t->from->type : SOURCE_F32;
    return s == SOURCE_F16 ? WEIGHT_F16 : s == SOURCE_BF16 ? WEIGHT_BF16 : WEIGHT_F32;
}

uint32_t recipe_file_type(const struct recipe *r, const struct mapping *p)
{
    for (size_t i = 0; r->keep && i < p->n; i++)
        if (p->tensors[i].n_out && p->tensors[i].from->type != SOURCE_F32)
            return p->tensors[i].from->type == SOURCE_F16    ? 1
                   : p->tensors[i].from->type == SOURCE_BF16 ? 32
                                                             : 0;
    return r->file_type;
}

/* The layers that get more bits: the first and last eighth, and every third between. */
static bool favoured(uint32_t layer, uint32_t n)
{
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static bool part_is(const char *name, const char *part)
{
    const char *dot = strncmp(name, "blk.", 4) == 0 ? strchr(name + 4, '.') : NULL;
    return dot && strcmp(dot + 1, part) == 0;
}

static enum weight_type wanted(const struct recipe *r, const struct mapping *p, const char *name)
{
    if (strcmp(name, "token_embd.weight") == 0 || strcmp(name, "output.weight") == 0)
        return r->vocab;
    uint64_t layer;
    slice rest = slice_str(name), part;
    bool of_layer = slice_split(&rest, '.', &part) && slice_eq_str(part, "blk") &&
                    slice_split(&rest, '.', &part) && slice_u64(part, &layer) == 0;
    if (!of_layer || r->most == r->more)
        return r->most;
    if (part_is(name, "attn_qkv.weight"))
        return r->most == WEIGHT_Q4_K ? WEIGHT_Q5_K : WEIGHT_Q6_K;
    bool needs = part_is(name, "attn_v.weight") || part_is(name, "ffn_down.weight");
    return needs && favoured((uint32_t)layer, p->n_layer) ? r->more : r->most;
}

static enum weight_type fitting(enum weight_type type, uint64_t n_in)
{
    if (n_in % 256 != 0)
        type = type == WEIGHT_Q4_K   ? WEIGHT_Q5_0
               : type == WEIGHT_Q5_K ? WEIGHT_Q5_1
               : type == WEIGHT_Q6_K ? WEIGHT_Q8_0
                                     : type;
    bool floats = type == WEIGHT_F32 || type == WEIGHT_F16 || type == WEIGHT_BF16;
    return !floats && n_in % 32 != 0 ? WEIGHT_F16 : type;
}

enum weight_type recipe_type(const struct recipe *r, const struct mapping *p,
                             const struct mapping_tensor *t)
{
    if (!t->n_out) /* norms and biases are small, and the sums depend on them */
        return WEIGHT_F32;
    if (r->keep)
        return source_weight(t);
    if (strcmp(t->name, "position_embd.weight") == 0)
        return WEIGHT_F32;
    return fitting(wanted(r, p, t->name), t->n_in);
}
