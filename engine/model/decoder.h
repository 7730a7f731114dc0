/* The one decoder: which operators run in which order for a family, over any backend. */
#ifndef NUNCHI_MODEL_DECODER_H
#define NUNCHI_MODEL_DECODER_H

#include "engine/model/family.h"

typedef struct decoder decoder;

struct decoder_cost {
    uint64_t weight_bytes; /* of the matrices that every token multiplies with, as in the file */
    struct engine_macs ints, floats; /* with quantised weights, and with F32, F16 and BF16 ones */
};

/* Gives the file's weights to the backend, makes activations and the KV pool, and readies it. Borrows b and f. */
int decoder_load(const model_file *f, const struct shape *s, backend *b, uint32_t n_blocks,
                 void (*progress)(void *ctx, const char *what, int permille), void *ctx, decoder **out,
                 struct why *w) MUST_USE;
void decoder_free(decoder *d);
struct decoder_cost decoder_cost(const decoder *d);
/* One step, which the caller has checked. */
int decoder_run(decoder *d, const struct engine_step *step) MUST_USE;

#endif
