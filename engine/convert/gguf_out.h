/* The header of a GGUF file: keys, then tensors, whose places follow from their order. Only memory:
 * who writes the file calls gguf_out_seal and puts the tensors' data behind it. Format: ggml's
 * docs/gguf.md, version 3. */
#ifndef NUNCHI_CONVERT_GGUF_OUT_H
#define NUNCHI_CONVERT_GGUF_OUT_H

#include "common/base/slice.h"
#include "engine/model/types.h"

#define GGUF_OUT_ALIGNMENT 32

struct gguf_out_tensor {
    char name[64];
    const struct tensor_type *type;
    uint32_t n_dims;
    uint64_t dims[4]; /* dims[0] is contiguous */
    uint64_t bytes;
    uint64_t at; /* in the file; set by gguf_out_seal */
};

struct gguf_out {
    buf keys;
    uint64_t n_keys;
    struct gguf_out_tensor *tensors;
    size_t n_tensors, cap_tensors;
    char prefix[32]; /* "gptj": of the keys that begin with a dot */
};

/* A key that begins with '.' is the family's: ".block_count". */
void gguf_out_u32(struct gguf_out *o, const char *key, uint32_t v);
void gguf_out_f32(struct gguf_out *o, const char *key, float v);
void gguf_out_bool(struct gguf_out *o, const char *key, bool v);
void gguf_out_str(struct gguf_out *o, const char *key, slice v);
/* Arrays: the elements follow, n of them. */
void gguf_out_strings(struct gguf_out *o, const char *key, uint64_t n);
void gguf_out_put_str(struct gguf_out *o, slice v);
void gguf_out_ints(struct gguf_out *o, const char *key, uint64_t n, const int32_t *v);
void gguf_out_floats(struct gguf_out *o, const char *key, uint64_t n, const float *v);

/* Rows of n_in elements; n_out 0: a vector. Aborts on a name of 64 bytes or more. */
void gguf_out_tensor(struct gguf_out *o, const char *name, const struct tensor_type *type,
                     uint64_t n_out, uint64_t n_in);
/* One as it is in another file, and a key with its value as it lies there (elem < 0: no array). */
void gguf_out_copy(struct gguf_out *o, const char *name, const struct tensor_type *type,
                   uint32_t n_dims, const uint64_t *dims, uint64_t bytes);
void gguf_out_raw(struct gguf_out *o, slice key, uint32_t type, int elem, uint64_t n,
                  const uint8_t *value, uint64_t bytes);
/* The bytes before the tensors' data, padded; places the tensors. Returns the size of the whole
 * file. */
uint64_t gguf_out_seal(struct gguf_out *o, buf *out);
void gguf_out_clear(struct gguf_out *o);

#endif
