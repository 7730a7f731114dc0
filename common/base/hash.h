/* Hashes, each for its purpose. This pair is the one place that includes sodium.h and xxhash.h. */
#ifndef NUNCHI_HASH_H
#define NUNCHI_HASH_H

#include "common/base/slice.h"

#define DIGEST_BYTES 32

/* BLAKE2b-256: content hashes and keys; a collision would show one tenant another's data. */
struct digest {
    uint8_t b[DIGEST_BYTES];
};

/* key may be empty (plain hash) or 16..64 bytes. */
struct digest digest_of(slice key, slice data);
bool digest_eq(const struct digest *a, const struct digest *b);
bool digest_is_zero(const struct digest *a);

typedef struct digest_stream digest_stream; /* for data that comes in pieces */
digest_stream *digest_begin(slice key);
void digest_add(digest_stream *s, const void *p, size_t n);
void digest_add_u32(digest_stream *s, uint32_t v); /* little-endian, whatever the machine */
void digest_add_u64(digest_stream *s, uint64_t v);
/* Length (u64) first, then the bytes: so that ("ab","c") and ("a","bc") differ. */
void digest_add_slice(digest_stream *s, slice v);
struct digest digest_end(digest_stream *s); /* frees s */

/* XXH3: fast, not secret. hash64 for tables (seeded at random per process), checksum128 for damage.
 */
uint64_t hash64(const void *p, size_t n);
void checksum128(const void *p, size_t n, uint8_t out[16]);
/* Over parts, each seeded with the sum before it (0 at first), so that where one ends counts too.
 */
uint64_t checksum64(uint64_t before, slice part);

/* Rendezvous weight of `node` for `key`: the node with the largest weight holds the key. Same on
 * every machine. */
uint64_t hash_rendezvous(slice key, slice node);

#endif
