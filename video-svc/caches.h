/* Requests to the cache services: to the one that a key points at, of those that are up; answered
 * once, from the loop, never inside the call. Loop thread only. */
#ifndef NUNCHI_VIDEO_CACHES_H
#define NUNCHI_VIDEO_CACHES_H

#include "common/wire/links.h"
#include "proto/cache.pb-c.h"

#define CACHES_CALL_MS 10000 /* a store that does not answer so long is away */

typedef struct caches caches;

/* reply NULL when err < 0. */
typedef void (*caches_fn)(void *ctx, uint64_t a, uint32_t b, uint32_t c, int err,
                          const Nunchi__CacheReply *reply, const slice *frames, size_t n_frames);

int caches_open(bus *b, loop *l, const char *targets, const Nunchi__Ready *ready, caches_fn fn,
                void *ctx, caches **out, struct why *w) MUST_USE;
void caches_close(caches *s);
/* a, b, c come back with the answer. */
void caches_call(caches *s, uint64_t a, uint32_t b, uint32_t c, slice key,
                 const Nunchi__CacheRequest *q, slice bulk);

#endif
