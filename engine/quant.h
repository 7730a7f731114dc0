/* Floats as weights of a file: the other direction of dequant.h, for converting a model. Each
 * type's scales are searched for the least squared error; the result is the same on every machine.
 */
#ifndef NUNCHI_ENGINE_QUANT_H
#define NUNCHI_ENGINE_QUANT_H

#include <stddef.h>

#include "engine/backend/backend.h"

/* n elements, a whole number of blocks (CHECKed), finite; a scale beyond the range of f16 is
 * clamped. out is as long as the type's blocks say (model/types.h). Any thread. */
void quant(enum weight_type type, const float *x, size_t n, void *out);

#endif
