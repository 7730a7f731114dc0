/* Values in memory, before the store: least recently used go first when the byte budget is full. */
#ifndef NUNCHI_CACHE_RAM_TIER_H
#define NUNCHI_CACHE_RAM_TIER_H

#include "common/base/slice.h"

typedef struct ram_tier ram_tier;

ram_tier *ram_tier_new(size_t budget_bytes); /* 0: holds nothing */
void ram_tier_free(ram_tier *t);
/* Borrowed until the next put or del. False: not there, or past its end. */
bool ram_tier_get(ram_tier *t, slice key, uint64_t now_ms, slice *value);
void ram_tier_put(ram_tier *t, slice key, slice value,
                  uint64_t ends_ms); /* copies; too large a value is not kept */
void ram_tier_del(ram_tier *t, slice key);
size_t ram_tier_bytes(const ram_tier *t); /* keys and bookkeeping counted */

#endif
