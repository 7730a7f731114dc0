#include "model-svc/kvbox.h"

/* Offsets; integers are little-endian. The checksum covers everything behind it. */
enum {
    AT_MAGIC = 0,
    AT_FORMAT = 4,
    AT_SUM = 8,
    AT_LEN = 24,
    AT_PART = 28,
    AT_HASH = 32,
    AT_DETAIL = 64
};
_Static_assert(AT_DETAIL + DIGEST_BYTES == KVBOX_HEAD_BYTES, "the head ends with the key");
#define KVBOX_MAGIC 0x564b4e31u
#define KVBOX_FORMAT 1

static void put_u32(char *to, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        to[i] = (char)(unsigned char)(v >> (8 * i));
}

static uint32_t get_u32(const char *from)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v |= (uint32_t)(unsigned char)from[i] << (8 * i);
    return v;
}

struct digest kvbox_detail(const struct digest *numerics, uint64_t block_bytes)
{
    digest_stream *s = digest_begin((slice){0});
    digest_add_slice(s, SLICE_LIT("nunchi kv 1"));
    digest_add(s, numerics->b, DIGEST_BYTES);
    digest_add_u64(s, block_bytes);
    return digest_end(s);
}

uint32_t kvbox_parts(uint64_t block_bytes)
{
    uint64_t n = (block_bytes + KVBOX_PART_BYTES - 1) / KVBOX_PART_BYTES;
    return n <= KVBOX_PARTS_MAX ? (uint32_t)n : 0;
}

size_t kvbox_part_bytes(uint64_t block_bytes, uint32_t part)
{
    uint64_t at = (uint64_t)part * KVBOX_PART_BYTES, left = block_bytes - at;
    CHECK(at < block_bytes);
    return left < KVBOX_PART_BYTES ? (size_t)left : KVBOX_PART_BYTES;
}

void kvbox_seal(char *out, size_t n, const struct digest *hash, const struct digest *detail,
                uint32_t part)
{
    uint8_t sum[16];
    put_u32(out + AT_MAGIC, KVBOX_MAGIC);
    put_u32(out + AT_FORMAT, KVBOX_FORMAT);
    put_u32(out + AT_LEN, (uint32_t)n);
    put_u32(out + AT_PART, part);
    memcpy(out + AT_HASH, hash->b, DIGEST_BYTES);
    memcpy(out + AT_DETAIL, detail->b, DIGEST_BYTES);
    checksum128(out + AT_LEN, KVBOX_HEAD_BYTES - AT_LEN + n, sum);
    memcpy(out + AT_SUM, sum, sizeof sum);
}

int kvbox_open(slice in, const struct digest *hash, const struct digest *detail, uint32_t part,
               slice *bytes)
{
    uint8_t sum[16];
    if (in.n < KVBOX_HEAD_BYTES || get_u32(in.p + AT_MAGIC) != KVBOX_MAGIC ||
        get_u32(in.p + AT_FORMAT) != KVBOX_FORMAT || get_u32(in.p + AT_PART) != part ||
        get_u32(in.p + AT_LEN) != in.n - KVBOX_HEAD_BYTES)
        return ERR_PROTO;
    if (memcmp(in.p + AT_HASH, hash->b, DIGEST_BYTES) != 0 ||
        memcmp(in.p + AT_DETAIL, detail->b, DIGEST_BYTES) != 0)
        return ERR_PROTO;
    checksum128(in.p + AT_LEN, in.n - AT_LEN, sum);
    if (memcmp(in.p + AT_SUM, sum, sizeof sum) != 0)
        return ERR_PROTO;
    *bytes = (slice){in.p + KVBOX_HEAD_BYTES, in.n - KVBOX_HEAD_BYTES};
    return 0;
}
