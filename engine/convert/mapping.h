/* What becomes of a source: which family it is, its numbers as GGUF keys, and where each tensor of
 * the file comes from. Tables only; nothing of the weights is read. Names of both sides:
 * transformers' modeling files, and llama.cpp's gguf-py (constants.py, tensor_mapping.py). */
#ifndef NUNCHI_CONVERT_MAPPING_H
#define NUNCHI_CONVERT_MAPPING_H

#include "engine/convert/gguf_out.h"
#include "engine/convert/source.h"
#include "engine/model/family.h"

/* How rows come about. */
enum mapping_op {
    MAPPING_COPY,
    MAPPING_ADD_ONE, /* Gemma's norms are kept less one */
    MAPPING_PAIRS,   /* of each head, the first and the second half of the rows by turns: pairs lie
                        side by side */
    MAPPING_TRANSPOSE, /* the source has (n_in, n_out) */
    MAPPING_BY_PART,   /* the source has q, k and v of a head together, the file all q, all k, all v
                        */
};

struct mapping_tensor {
    char name[64];
    const struct source_tensor *from; /* NULL: values */
    const float *values;              /* owned by the mapping */
    enum mapping_op op;
    uint64_t n_out, n_in; /* n_out 0: a vector */
    uint32_t heads;       /* of MAPPING_PAIRS and MAPPING_BY_PART */
};

struct mapping {
    const struct family *family;
    const struct hf_family *hf;
    struct mapping_tensor *tensors;
    size_t n, cap;
    uint64_t n_vocab;
    uint32_t n_layer, n_embd, n_ff, n_head, n_kv_head, head_dim, rope_dims;
    const json_val *config;
    struct gguf_out *out; /* takes the keys */
    float *values[2];
};

/* Writes keys into out and lists the tensors. ERR_UNSUPPORTED names what is not understood: nothing
 * is left out in silence. */
int mapping_make(const source *s, struct gguf_out *out, struct mapping *p, struct why *w) MUST_USE;
void mapping_clear(struct mapping *p);
/* Rows first .. first+n-1 of a tensor (of a vector: elements), n_in floats each. */
void mapping_rows(const struct mapping_tensor *t, uint64_t first, size_t n, float *out);

/* ---- for its own files ---- */

struct hf_name {
    const char *hf; /* below the prefix; of a layer: below it */
    const char *gguf;
    enum mapping_op op;
};

struct hf_family {
    const char *model_type; /* of config.json */
    const char *family;
    const char *prefix, *layers;              /* "transformer.", "h": transformer.h.0. */
    const struct hf_name *in_layer, *outside; /* end with NULL */
};

const struct hf_family *mapping_family(slice model_type); /* NULL: unknown */
const char *mapping_families(void);                       /* for messages */
int mapping_numbers(struct mapping *p,
                    struct why *w) MUST_USE; /* sets the sizes, writes the keys */
int mapping_tensors(struct mapping *p, const source *s, struct why *w) MUST_USE;

#endif
