/* Which workers have lately been given which blocks of prompts: approximate, of bounded memory, and
 * forgetting what was not seen for long. Pure; one thread.
 *
 * Two tables, young and old: what is put goes into the young one; when that is full it becomes the
 * old one, and what only the old one had is gone. So a block that is used again at least once per
 * `blocks_max` others stays. */
#ifndef NUNCHI_GATEWAY_PREFIX_H
#define NUNCHI_GATEWAY_PREFIX_H

#include <stddef.h>
#include <stdint.h>

/* Of one block; beyond them the one that was given it longest ago is forgotten. */
#define PREFIX_HOLDERS 3

struct prefix_holder {
    uint32_t worker; /* the caller's number for it; 0: nobody */
    uint32_t stamp;  /* the caller's word on when */
};

typedef struct prefix prefix;

/* Memory: at most 128 bytes for each of blocks_max, which is a power of two. */
prefix *prefix_new(uint32_t blocks_max);
void prefix_free(prefix *p);
/* PREFIX_HOLDERS of them, the last one given it first; NULL: the block is not known. Until the next
 * put. */
const struct prefix_holder *prefix_find(const prefix *p, uint64_t block);
void prefix_put(prefix *p, uint64_t block, struct prefix_holder h);
size_t prefix_bytes(const prefix *p);

#endif
