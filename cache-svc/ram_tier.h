/* Values in memory, before the store. When the budget is full, those go first that nobody has asked
 * for since they came, the longest unused first; what was asked for again stays, in up to three
 * quarters of the budget: many prefixes that are seen once must not sweep out the few that are
 * asked for all day. A tenant that has more than its share makes room from its own. */
#ifndef NUNCHI_CACHE_RAM_TIER_H
#define NUNCHI_CACHE_RAM_TIER_H

#include "common/base/shared.h"

typedef struct ram_tier ram_tier;

/* budget 0: holds nothing. tenant_bytes: a tenant's share, not kept free for it. */
ram_tier *ram_tier_new(size_t budget_bytes, size_t tenant_bytes);
void ram_tier_free(ram_tier *t);
/* Borrowed until the next put or del; ref it to keep it. NULL: not there, or past its end. */
shared *ram_tier_get(ram_tier *t, slice key, uint64_t now_ms);
bool ram_tier_has(ram_tier *t, slice key,
                  uint64_t now_ms); /* the same, without having asked for it */
/* Holds the value, too; one that is too large is not kept. */
void ram_tier_put(ram_tier *t, slice tenant, slice key, shared *value, uint64_t ends_ms);
void ram_tier_del(ram_tier *t, slice key);
size_t ram_tier_bytes(const ram_tier *t); /* keys and bookkeeping counted */
uint64_t ram_tier_evicted(const ram_tier *t);

#endif
