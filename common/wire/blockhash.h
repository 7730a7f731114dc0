/* Content hashes of prompt blocks: chained, keyed by tenant, the same in every service. tokenizer-svc computes them for
 * routing; a worker computes them again and believes nobody's. Source of the scheme: proto/PROTOCOL.md, "Keys". */
#ifndef NUNCHI_BLOCKHASH_H
#define NUNCHI_BLOCKHASH_H

#include "common/base/hash.h"

#define BLOCK_TOKENS 16

typedef struct blockhash blockhash;

/* tenant: 32 bytes (the key); model: weights digest, 32 bytes; adapter: name, may be empty. */
blockhash *blockhash_new(slice tenant, slice model, slice adapter);
void blockhash_free(blockhash *h);
/* From here on hashes depend on this too (a video's salt, a row digest). Takes effect for the block the next token lies in. */
void blockhash_salt(blockhash *h, slice salt);
/* Adds one token; true when it completes a block, whose hash is then in *out. */
bool blockhash_token(blockhash *h, int32_t id, struct digest *out);
/* Hash of everything added so far, the unfinished block included. */
struct digest blockhash_content(const blockhash *h);

#endif
