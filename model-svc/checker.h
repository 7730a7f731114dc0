/* The thread that reads mapped weights through: first all of them into the page tables, so that the
 * first answers do not wait for the disk, then piece by piece against their checksums, slowly and
 * at the lowest priority, again and again. */
#ifndef NUNCHI_MODEL_CHECKER_H
#define NUNCHI_MODEL_CHECKER_H

#include "common/base/loop.h"
#include "engine/engine.h"

typedef struct checker checker;

struct checker_config {
    const engine *e;   /* borrowed; may compute meanwhile */
    uint64_t every_us; /* from one reading to the next; 0: once */
    void *ctx;
    /* On the loop's thread, once: the weights in use are wrong. Their file is removed already if
     * `removed`. */
    void (*damaged)(void *ctx, bool removed);
};

/* NULL where nothing is mapped. */
checker *checker_start(loop *l, const struct checker_config *cfg);
void checker_stop(checker *c); /* waits for the piece at hand; NULL is allowed */

#endif
