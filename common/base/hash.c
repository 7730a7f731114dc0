#include "common/base/hash.h"

#include <pthread.h>
#include <sodium.h>
#include <xxhash.h>

#include "common/base/clock.h"

#define DIGEST_KEY_MIN 16

struct digest_stream {
    crypto_generichash_state state; /* wants 64-byte alignment */
};

static unsigned char table_secret[XXH3_SECRET_SIZE_MIN];
static pthread_once_t ready_once = PTHREAD_ONCE_INIT;

static void ready_make(void)
{
    CHECK(sodium_init() >= 0); /* chooses the fastest BLAKE2b for this CPU */
    random_bytes(table_secret, sizeof table_secret);
}

static void ready(void)
{
    pthread_once(&ready_once, ready_make);
}

static const unsigned char *key_bytes(slice key)
{
    CHECK(key.n == 0 || (key.n >= DIGEST_KEY_MIN && key.n <= crypto_generichash_KEYBYTES_MAX));
    return key.n ? (const unsigned char *)key.p : NULL;
}

struct digest digest_of(slice key, slice data)
{
    ready();
    struct digest d;
    CHECK(crypto_generichash(d.b, sizeof d.b, (const unsigned char *)data.p, data.n, key_bytes(key),
                             key.n) == 0);
    return d;
}

bool digest_eq(const struct digest *a, const struct digest *b)
{
    return memcmp(a->b, b->b, DIGEST_BYTES) == 0;
}

bool digest_is_zero(const struct digest *a)
{
    static const struct digest ZERO;
    return digest_eq(a, &ZERO);
}

digest_stream *digest_begin(slice key)
{
    ready();
    digest_stream *s = aligned_alloc(_Alignof(digest_stream), sizeof *s);
    CHECK(s != NULL);
    CHECK(crypto_generichash_init(&s->state, key_bytes(key), key.n, DIGEST_BYTES) == 0);
    return s;
}

void digest_add(digest_stream *s, const void *p, size_t n)
{
    if (n)
        CHECK(crypto_generichash_update(&s->state, p, n) == 0);
}

static void add_le(digest_stream *s, uint64_t v, size_t n)
{
    unsigned char b[8];
    for (size_t i = 0; i < n; i++)
        b[i] = (unsigned char)(v >> (8 * i));
    digest_add(s, b, n);
}

void digest_add_u32(digest_stream *s, uint32_t v)
{
    add_le(s, v, 4);
}

void digest_add_u64(digest_stream *s, uint64_t v)
{
    add_le(s, v, 8);
}

void digest_add_slice(digest_stream *s, slice v)
{
    digest_add_u64(s, v.n);
    digest_add(s, v.p, v.n);
}

struct digest digest_end(digest_stream *s)
{
    struct digest d;
    CHECK(crypto_generichash_final(&s->state, d.b, sizeof d.b) == 0);
    sodium_memzero(s, sizeof *s); /* the state holds what the key became */
    free(s);
    return d;
}

uint64_t hash64(const void *p, size_t n)
{
    ready();
    return XXH3_64bits_withSecret(p, n, table_secret, sizeof table_secret);
}

void checksum128(const void *p, size_t n, uint8_t out[16])
{
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits(p, n));
    memcpy(out, c.digest, sizeof c.digest);
}

uint64_t hash_rendezvous(slice key, slice node)
{
    /* Two steps, so that no pair of (key, node) texts can run together into another one. */
    return XXH3_64bits_withSeed(key.p, key.n, XXH3_64bits(node.p, node.n));
}

uint64_t checksum64(uint64_t before, slice part)
{
    return XXH3_64bits_withSeed(part.p, part.n, before);
}
