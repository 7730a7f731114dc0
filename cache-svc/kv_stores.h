/* The Redis servers that keep KV blocks: apart from the one with records, because hundreds of
 * megabytes that may be forgotten share neither an append-only file nor an eviction policy with
 * what must last. A group of blocks lies on one of those that are up, chosen by rendezvous hashing
 * over their addresses: one that is lost takes its share with it, and no more. Loop thread only. */
#ifndef NUNCHI_CACHE_KV_STORES_H
#define NUNCHI_CACHE_KV_STORES_H

#include "cache-svc/store.h"

#define KV_STORES_MAX 64

typedef struct kv_stores kv_stores;

/* addresses: separated by commas, each as store_config's. NULL or "": none, and *out is NULL. */
int kv_stores_new(loop *l, const char *addresses, const struct store_config *like, kv_stores **out,
                  struct why *w) MUST_USE;
void kv_stores_free(kv_stores *k);
int kv_stores_send(kv_stores *k, slice group, const slice *argv, size_t n, store_fn fn,
                   void *ctx) MUST_USE;
size_t kv_stores_up(const kv_stores *k);

#endif
