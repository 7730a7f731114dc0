/* A hash map from short byte-string or u64 keys to pointers: open addressing, seeded hash, amortised O(1).
 * Keys are copied; values are borrowed. Iteration order is not defined. A u64 key is its 8 bytes: do not mix it with
 * byte strings of that length in one map. */
#ifndef NUNCHI_MAP_H
#define NUNCHI_MAP_H

#include "common/base/slice.h"

typedef struct map map;

map *map_new(void);
void map_free(map *m); /* NULL is allowed; frees no values */
void *map_get(const map *m, slice key); /* NULL if absent */
void *map_put(map *m, slice key, void *value); /* returns the value that was there, or NULL; value must not be NULL */
void *map_del(map *m, slice key);
size_t map_len(const map *m);
/* Walks all entries: start with *it = 0; false at the end. Deleting the entry just returned is allowed. */
bool map_next(const map *m, size_t *it, slice *key, void **value);

void *map_get_u64(const map *m, uint64_t key);
void *map_put_u64(map *m, uint64_t key, void *value);
void *map_del_u64(map *m, uint64_t key);

#endif
