/* A published model (source.h) as one GGUF file: converted and quantised on the user's machine,
 * tensor by tensor, so that a model larger than memory passes through. Written as FILE.part and
 * renamed when whole; a conversion that was cut short goes on where it was, if source and settings
 * are the same. The file is checked as the engine would check it before any weight is written. */
#ifndef NUNCHI_CONVERT_H
#define NUNCHI_CONVERT_H

#include "engine/engine.h"

#define CONVERT_NAME_MAX 128
#define CONVERT_UNSYNCED_BYTES                                                                     \
    (256u << 20) /* what a crash of the machine may damage; repeated when going on */

struct convert_job {
    const char *source; /* folder, or file of weights */
    const char *target; /* the file to make; must not exist */
    const char *name;   /* general.name; NULL: that of the folder */
    const char *quant;  /* one of convert_quants; NULL: "q4_k" */
    int threads;        /* 0: thread_cpus() */
    void (*progress)(void *ctx, int permille);
    void *ctx;
};

struct convert_done {
    char family[32];
    char licence[96]; /* as the model's README says; "" if it does not */
    uint64_t source_bytes, bytes;
    uint64_t went_on_at; /* bytes that an earlier run had written; 0: from the start */
};

/* "none, f16, bf16, q8_0, q6_k, q5_k, q4_k, …": for usage. */
const char *convert_quants(void);
/* ERR_EXISTS: the target is there. ERR_BUSY: another conversion is writing it. */
int convert(const struct convert_job *job, struct convert_done *done, struct why *w) MUST_USE;

#endif
