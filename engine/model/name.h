/* What a model is called when nobody says: worked out from its file's name alone, so that every
 * service that opens the same file arrives at the same name. */
#ifndef NUNCHI_MODEL_NAME_H
#define NUNCHI_MODEL_NAME_H

#include "common/base/slice.h"

#define MODEL_NAME_MAX 96

/* The file's stem in lower case, without ".gguf", a shard's number and a quantisation at its end:
 * "/m/SmolLM2-135M-Instruct.Q4_1.gguf" is "smollm2-135m-instruct", "gemma-3-270m-q4_k_m.gguf" is
 * "gemma-3-270m". Bytes other than a-z 0-9 . _ - become '-'. Never empty ("model"), at most
 * MODEL_NAME_MAX bytes. Replaces *out. */
void model_default_name(slice path, buf *out);

#endif
