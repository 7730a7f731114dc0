#include "cache-svc/sealed.h"

#include "common/base/hash.h"

/* Offsets. The checksum covers everything behind it. */
enum {
    AT_MAGIC = 0,
    AT_FORMAT = 4,
    AT_SUM = 8,
    AT_KEY_LEN = 24,
    AT_ZERO = 28,
    AT_LEN = 32,
    AT_EXPIRES = 40
};
#define SEALED_MAGIC 0x43434e31u
#define SEALED_FORMAT 1

static void put_le(char *to, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        to[i] = (char)(unsigned char)(v >> (8 * i));
}

static uint64_t get_le(const char *from, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v |= (uint64_t)(unsigned char)from[i] << (8 * i);
    return v;
}

void sealed_put(buf *out, slice key, slice value, uint64_t expires_unix_ms)
{
    char head[SEALED_HEAD_BYTES] = {0};
    size_t at = out->n;
    CHECK(key.n <= SEALED_KEY_MAX);
    put_le(head + AT_MAGIC, SEALED_MAGIC, 4);
    put_le(head + AT_FORMAT, SEALED_FORMAT, 4);
    put_le(head + AT_KEY_LEN, key.n, 4);
    put_le(head + AT_LEN, value.n, 8);
    put_le(head + AT_EXPIRES, expires_unix_ms, 8);
    buf_put(out, head, sizeof head);
    buf_put_slice(out, key);
    buf_put_slice(out, value);
    uint8_t sum[16];
    checksum128(out->p + at + AT_KEY_LEN, out->n - at - AT_KEY_LEN, sum);
    memcpy(out->p + at + AT_SUM, sum, sizeof sum);
}

int sealed_get(slice in, slice key, uint64_t now_unix_ms, slice *value, uint64_t *expires_unix_ms)
{
    if (in.n < SEALED_HEAD_BYTES || get_le(in.p + AT_MAGIC, 4) != SEALED_MAGIC ||
        get_le(in.p + AT_FORMAT, 4) != SEALED_FORMAT)
        return ERR_PROTO;
    size_t rest = in.n - SEALED_HEAD_BYTES, key_n = (size_t)get_le(in.p + AT_KEY_LEN, 4);
    if (key_n > rest || get_le(in.p + AT_LEN, 8) != rest - key_n)
        return ERR_PROTO;
    uint8_t sum[16];
    checksum128(in.p + AT_KEY_LEN, in.n - AT_KEY_LEN, sum);
    if (memcmp(sum, in.p + AT_SUM, sizeof sum) != 0 ||
        !slice_eq((slice){in.p + SEALED_HEAD_BYTES, key_n}, key))
        return ERR_PROTO;
    *expires_unix_ms = get_le(in.p + AT_EXPIRES, 8);
    if (*expires_unix_ms && *expires_unix_ms <= now_unix_ms)
        return ERR_NOT_FOUND;
    *value = (slice){in.p + SEALED_HEAD_BYTES + key_n, rest - key_n};
    return 0;
}
