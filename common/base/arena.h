/* Memory that lives as long as one request: everything parsed for it comes from its arena, and
 * arena_free is the only free. A budget bounds what a stranger's input can make us allocate. One thread. */
#ifndef NUNCHI_ARENA_H
#define NUNCHI_ARENA_H

#include "common/base/slice.h"

typedef struct arena arena;

arena *arena_new(size_t budget_bytes); /* 0: no budget */
void arena_free(arena *a);             /* NULL is allowed */
void arena_reset(arena *a);            /* forgets all, keeps one block */
void *arena_try(arena *a, size_t n) MUST_USE; /* zeroed, 16-byte aligned; NULL beyond the budget or memory */
void *arena_get(arena *a, size_t n);   /* the same, but aborts: for sizes already limited */
slice arena_slice(arena *a, slice s);  /* a copy with a NUL behind it; aborts as arena_get */
size_t arena_used(const arena *a);     /* bytes handed out */

#endif
