/* The one gate between protobuf bytes and structs. protobuf-c 1.4.1 alone has no limit on recursion, memory or count of
 * fields, and keeps unknown ones: here all four are bounded before it sees a byte. Nothing else in the tree calls an
 * *__unpack function. The result lives in the arena. */
#ifndef NUNCHI_PB_H
#define NUNCHI_PB_H

#include <protobuf-c/protobuf-c.h>

#include "common/base/arena.h"

/* Most fields and sub-messages in one message, all levels together. */
#define PB_FIELDS_MAX 200000

/* Unknown fields are skipped, not kept, and counted (pb_unknown_fields). ERR_TOO_BIG beyond max_bytes; ERR_PROTO for bytes
 * that are not such a message; ERR_NOMEM when the arena's budget ends. `string` fields must be UTF-8 without NUL. */
int pb_unpack(arena *a, const ProtobufCMessageDescriptor *d, slice in, size_t max_bytes, void **out,
              struct why *w) MUST_USE;
void pb_pack(const ProtobufCMessage *m, buf *out); /* appends */
uint64_t pb_unknown_fields(void); /* counted since the start, for metrics */

/* bytes fields. */
static inline slice pb_slice(ProtobufCBinaryData d)
{
    return (slice){(const char *)d.data, d.len};
}
static inline ProtobufCBinaryData pb_bytes(slice s) /* borrows */
{
    union {
        const char *in;
        uint8_t *out;
    } cast = {.in = s.p}; /* protobuf-c does not write through what it packs */
    return (ProtobufCBinaryData){.len = s.n, .data = cast.out};
}

#endif
