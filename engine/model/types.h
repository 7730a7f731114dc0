/* The tensor types of GGUF: names and sizes of all known ones, so that a file can be listed and
 * checked whether or not the engine computes with it. */
#ifndef NUNCHI_MODEL_TYPES_H
#define NUNCHI_MODEL_TYPES_H

#include <stdint.h>

struct tensor_type {
    uint32_t id; /* as in the file; enum weight_type for those that can be loaded */
    const char *name;
    uint32_t block; /* elements of one block along dims[0] */
    uint32_t bytes; /* of one block */
};

const struct tensor_type *tensor_type_find(uint32_t id); /* NULL: unknown */

#endif
