/* Inside libengine: what the GGUF reader found, before it has a meaning. All pointers go into the
 * mapped file and were checked against its size; numbers in the file are little-endian and not
 * aligned. */
#ifndef NUNCHI_MODEL_GGUF_H
#define NUNCHI_MODEL_GGUF_H

#include "common/base/map.h"
#include "engine/engine.h"
#include "engine/model/types.h"

/* Limits: far above real files, low enough that a hostile one costs little memory and time. */
#define GGUF_META_MAX 65536
#define GGUF_TENSORS_MAX 65536
#define GGUF_KEY_MAX 1024
#define GGUF_NAME_MAX 64            /* the format's own */
#define GGUF_DIMS_MAX 4             /* the format's own */
#define GGUF_STRING_MAX (64u << 20) /* a whole tokenizer.json fits */
#define GGUF_ARRAY_MAX (16u << 20)  /* elements: merges of the largest vocabulary */
#define GGUF_DIM_MAX (UINT64_C(1) << 40)
#define GGUF_ALIGNMENT_MAX 65536

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STR,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_N_TYPES
};

struct gguf_meta {
    slice key;
    uint32_t type;       /* enum gguf_type */
    uint32_t elem;       /* of an array; never an array again */
    uint64_t n;          /* elements of an array */
    const uint8_t *data; /* value, string bytes, or first element */
    uint64_t bytes;      /* of data */
};

struct gguf_tensor {
    slice name;
    const struct tensor_type *type;
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX]; /* 1 beyond n_dims */
    uint64_t offset, bytes;
    const uint8_t *data;
};

struct model_file {
    const uint8_t *p;
    size_t n;
    char *path; /* NULL: in memory */
    int fd;     /* -1: in memory */
    struct gguf_meta *meta;
    size_t n_meta;
    struct gguf_tensor *tensors;
    size_t n_tensors;
    map *by_key, *by_name;
    uint64_t alignment;
    bool digest_known;
    struct digest digest;
};

/* Gives up the pages that were looked at so far; they are read again when somebody looks. For when
 * a reader went through all of it (hashing, packing) and few of them will be needed again. */
void model_file_drop_pages(model_file *f);

int gguf_parse(model_file *f, struct why *w)
    MUST_USE; /* fills meta, tensors and maps; the caller closes on failure */

const struct gguf_meta *gguf_find(const model_file *f, const char *key);      /* NULL: absent */
const struct gguf_tensor *gguf_tensor(const model_file *f, const char *name); /* NULL: absent */
/* Numbers of an array, or of a single value with i 0. False: not a number of that kind, or out of
 * the C type's range. */
bool gguf_int(const struct gguf_meta *m, uint64_t i, int64_t *out);
bool gguf_float(const struct gguf_meta *m, uint64_t i, double *out);
/* Walks an array of strings: start with *at = 0, call m->n times at most. */
slice gguf_next_str(const struct gguf_meta *m, uint64_t *at);

#endif
