/* API keys: who may ask, and as which tenant. */
#ifndef NUNCHI_GATEWAY_KEYS_H
#define NUNCHI_GATEWAY_KEYS_H

#include "common/base/hash.h"

typedef struct keys keys;

struct tenant {
    uint8_t id[DIGEST_BYTES]; /* zeros: there are no keys */
    const char *name;         /* for logs; lives as long as the keys */
};

/* Lines "key" or "name:key"; # begins a comment. A name may have several keys (to change them
 * without a gap). secret: of the cluster, may be empty. */
int keys_parse(slice text, slice secret, keys **out, struct why *w) MUST_USE;
int keys_load(const char *path, slice secret, keys **out, struct why *w) MUST_USE;
void keys_free(keys *k); /* NULL is allowed */
size_t keys_count(const keys *k);
/* authorization: the header's value, "Bearer KEY". All keys are compared, whatever the outcome.
 * NULL keys: everybody is the nameless tenant. ERR_AUTH. */
int keys_check(const keys *k, slice authorization, struct tenant *out, struct why *w) MUST_USE;

/* A small file as text, at most max_bytes. */
int read_small_file(const char *path, size_t max_bytes, buf *out, struct why *w) MUST_USE;

#endif
