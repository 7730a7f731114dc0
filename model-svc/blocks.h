/* Which KV blocks are free, shared or remembered. A block is referenced by sequences; a full one
 * can be published under the hash of everything up to its end, and then be found by any sequence
 * with the same beginning. Unreferenced published blocks stay until their room is needed: first
 * those that nobody ever looked for again, then the others, the least recently used first. Numbers
 * only: the bytes are the engine's. One thread. */
#ifndef NUNCHI_MODEL_BLOCKS_H
#define NUNCHI_MODEL_BLOCKS_H

#include "common/base/hash.h"

#define KVPOOL_NONE UINT32_MAX

typedef struct kvpool kvpool;

kvpool *kvpool_new(uint32_t n_blocks);
void kvpool_free(kvpool *p); /* NULL is allowed */

/* A block for its taker alone (one reference, not published); forgets the published one that is
 * least likely to be missed if no other is free. KVPOOL_NONE when every block is referenced. */
uint32_t kvpool_take(kvpool *p);
void kvpool_ref(kvpool *p, uint32_t block);
void kvpool_unref(kvpool *p, uint32_t block);
/* The published block of that hash, with one more reference; KVPOOL_NONE. */
uint32_t kvpool_find(kvpool *p, const struct digest *hash);
/* The same without having asked for it: it is kept no longer than before. */
uint32_t kvpool_peek(kvpool *p, const struct digest *hash);
/* The caller's block is full and will not be written again. Returns the block to use from now on:
 * if the hash is known already (somebody computed the same), the caller's reference moves to that
 * one. */
uint32_t kvpool_publish(kvpool *p, uint32_t block, const struct digest *hash);
/* True if the one who holds it may write into it: the only reference, not published. */
bool kvpool_writable(const kvpool *p, uint32_t block);

uint32_t kvpool_size(const kvpool *p);
uint32_t kvpool_available(
    const kvpool *p); /* could be taken: free ones and unreferenced published ones */
uint32_t kvpool_cached(const kvpool *p); /* published, referenced or not */

#endif
