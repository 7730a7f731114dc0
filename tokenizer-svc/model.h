/* What tokenizer-svc takes from a model file: the vocabulary, and how the model is called and
 * known. The weights are read once for their digest (or the digest remembered beside the file is
 * taken) and not kept. */
#ifndef NUNCHI_TOKENIZER_MODEL_H
#define NUNCHI_TOKENIZER_MODEL_H

#include "engine/engine.h"

struct tok_model {
    vocab *vocab;
    buf name, family; /* NUL-terminated */
    struct digest weights;
    uint32_t n_context;
    uint64_t created_unix_s;
};

/* name: what clients ask for; NULL or "": made from the file's name. context: most tokens; 0: as
 * the file says. Logs progress while it hashes a large file. */
int tok_model_open(const char *path, const char *name, uint32_t context, struct tok_model *out,
                   struct why *w) MUST_USE;
void tok_model_close(struct tok_model *m);

#endif
