/* A model as its makers publish it: a folder of Hugging Face's kind (config.json, tokenizer files,
 * weights in safetensors or in a PyTorch file), or one file of weights in such a folder. Weights
 * are mapped; nothing is executed; every size, offset and name was checked against the files before
 * anything is used. */
#ifndef NUNCHI_CONVERT_SOURCE_H
#define NUNCHI_CONVERT_SOURCE_H

#include "common/json/json.h"

/* Far above real models, low enough that a hostile one costs little. */
#define SOURCE_TENSORS_MAX 65536
#define SOURCE_FILES_MAX 1024 /* shards */
#define SOURCE_NAME_MAX 512   /* bytes of a tensor's name */
#define SOURCE_DIMS_MAX 8
#define SOURCE_CONFIG_MAX (1u << 20)     /* bytes of config.json and its like */
#define SOURCE_INDEX_MAX (16u << 20)     /* … of an index of shards */
#define SOURCE_TOKENIZER_MAX (64u << 20) /* … of tokenizer.json: the largest known has 33 MB */

enum source_type { SOURCE_F32, SOURCE_F16, SOURCE_BF16, SOURCE_F64, SOURCE_OTHER };

struct source_tensor {
    slice name;
    enum source_type type;
    const char *type_name; /* as the file says it */
    uint32_t n_dims;
    uint64_t dims[SOURCE_DIMS_MAX]; /* outermost first; 1 beyond n_dims */
    uint64_t n;                     /* elements */
    const uint8_t *data;            /* row-major, little-endian, unaligned; NULL without elements */
    uint64_t bytes;
};

typedef struct source source;

/* path: a folder, or a file of weights (*.safetensors, *.bin, *.pt, *.pth) beside its config.json.
 */
int source_open(const char *path, source **out, struct why *w) MUST_USE;
/* One file of weights in memory, borrowed, without anything beside it; for fuzzing. */
int source_open_mem(const void *p, size_t n, bool safetensors, source **out,
                    struct why *w) MUST_USE;
void source_close(source *s); /* NULL is allowed */

const json_val *source_config(const source *s); /* config.json; an object */
const char *source_folder(const source *s);
size_t source_n_tensors(const source *s);
const struct source_tensor *source_tensor(const source *s, size_t i);
const struct source_tensor *source_find(const source *s, const char *name); /* NULL: absent */
uint64_t source_bytes(const source *s); /* of all files of weights */
/* A number that changes when a file of weights is replaced: names, sizes and times. */
uint64_t source_stamp(const source *s);

/* A text beside the weights. ERR_NOT_FOUND if there is none; ERR_TOO_BIG beyond max bytes. The
 * caller frees. */
int source_text(const source *s, const char *file, size_t max, buf *out, struct why *w) MUST_USE;
/* The same as JSON, an object. */
int source_json(const source *s, const char *file, size_t max, json_doc **out,
                struct why *w) MUST_USE;

/* The same error about a value in that file, with the value's path before the sentence. */
int source_why(struct why *w, int e, const char *file, const struct why *inner);

/* Elements first .. first+n-1 as floats. */
void source_floats(const struct source_tensor *t, uint64_t first, size_t n, float *out);
/* Its pages are not needed again soon: a file larger than memory passes through. */
void source_forget(const struct source_tensor *t);

/* ---- for the readers of one kind of file (safetensors.c, torch.c) ---- */

struct source_file {
    const uint8_t *p; /* mapped */
    size_t n;
    const char *name; /* for errors */
};
/* Takes a tensor whose data lies in the file; refuses a second one of that name, and sizes that do
 * not fit. */
int source_add(source *s, const struct source_file *f, const struct source_tensor *t,
               struct why *w) MUST_USE;
int safetensors_read(source *s, const struct source_file *f, struct why *w) MUST_USE;
int torch_read(source *s, const struct source_file *f, struct why *w) MUST_USE;
/* Bytes of an element; 0 for SOURCE_OTHER. */
size_t source_type_bytes(enum source_type type);
/* n_dims and dims of t are set: sets n. False beyond 2^62. */
bool source_count(struct source_tensor *t);

#endif
