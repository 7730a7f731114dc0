/* What a PyTorch file's data.pkl says about its tensors. Pickle is a program for a machine that can
 * call anything; this machine can build dictionaries, lists, tuples and numbers, and "call" exactly
 * the four things that rebuild tensors. Any other name, and any opcode that a dictionary of tensors
 * does not need, is refused with its name. Opcodes: CPython, Lib/pickletools.py. */
#ifndef NUNCHI_CONVERT_PICKLE_H
#define NUNCHI_CONVERT_PICKLE_H

#include "common/base/arena.h"

#define PICKLE_BYTES_MAX (64u << 20)
#define PICKLE_STACK_MAX 262144 /* values on the stack: SETITEMS takes 1,000 pairs at a time */
#define PICKLE_MEMO_MAX 4194304
#define PICKLE_DIMS_MAX 8

struct pickle_tensor {
    slice name;      /* the key it stands under */
    slice storage;   /* "FloatStorage" */
    slice key;       /* of its storage: the name of an archive's entry */
    uint64_t offset; /* in elements, into the storage */
    uint32_t n_dims;
    uint64_t dims[PICKLE_DIMS_MAX], strides[PICKLE_DIMS_MAX]; /* in elements */
};

typedef int (*pickle_fn)(void *ctx, const struct pickle_tensor *t, struct why *w);

/* Calls fn for every tensor that stands directly in the dictionary that the pickle is, in order;
 * other values are passed over. */
int pickle_tensors(slice text, pickle_fn fn, void *ctx, struct why *w) MUST_USE;

#endif
