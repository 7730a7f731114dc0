/* What is written to the store beside a value, so that a damaged, swapped or outdated one is a miss
 * and never a wrong answer: format, lengths, a checksum over everything, the full key, the end of
 * its life. */
#ifndef NUNCHI_CACHE_SEALED_H
#define NUNCHI_CACHE_SEALED_H

#include "common/base/slice.h"

#define SEALED_HEAD_BYTES 48
#define SEALED_KEY_MAX 512

void sealed_put(buf *out, slice key, slice value, uint64_t expires_unix_ms); /* 0: never; appends */
/* *value borrows from `in`. ERR_NOT_FOUND: past its end; ERR_PROTO: damaged, or stored under
 * another key. */
int sealed_get(slice in, slice key, uint64_t now_unix_ms, slice *value,
               uint64_t *expires_unix_ms) MUST_USE;

#endif
