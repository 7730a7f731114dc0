/* Weights of a file as floats: plain loops, one per type, straight from the formulas of the GGUF block formats
 * (ggml's ggml-common.h and ggml-quants.c). For the reference backend and for tests; nothing here is fast. */
#ifndef NUNCHI_ENGINE_DEQUANT_H
#define NUNCHI_ENGINE_DEQUANT_H

#include <stddef.h>

#include "engine/backend/backend.h"

/* n elements, a whole number of blocks (CHECKed). src needs no alignment. */
void dequant(enum weight_type type, const void *src, size_t n, float *out);
bool dequant_knows(uint32_t type);

#endif
