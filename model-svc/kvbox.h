/* How a KV block travels and lies in caches: cut into parts of a MiB, each with a head that says
 * whose it is and a checksum, so that a part that is damaged, swapped, cut or of another arithmetic
 * is a miss and never wrong tokens. */
#ifndef NUNCHI_MODEL_KVBOX_H
#define NUNCHI_MODEL_KVBOX_H

#include "common/base/hash.h"
#include "common/wire/frame.h"

#define KVBOX_HEAD_BYTES 96
#define KVBOX_PART_BYTES (WIRE_FRAME_MAX - KVBOX_HEAD_BYTES) /* of the block, in one part */
#define KVBOX_PARTS_MAX 256

/* Names arithmetic and layout: the second level of the key. */
struct digest kvbox_detail(const struct digest *numerics, uint64_t block_bytes);

uint32_t kvbox_parts(uint64_t block_bytes); /* 0: too large to travel */
size_t kvbox_part_bytes(uint64_t block_bytes, uint32_t part);

/* The head of a part whose bytes stand behind it already: out is (KVBOX_HEAD_BYTES + n). */
void kvbox_seal(char *out, size_t n, const struct digest *hash, const struct digest *detail,
                uint32_t part);
/* The part's bytes, borrowed from `in`. ERR_PROTO: not what was asked for, or damaged. */
int kvbox_open(slice in, const struct digest *hash, const struct digest *detail, uint32_t part,
               slice *bytes) MUST_USE;

#endif
