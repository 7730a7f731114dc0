/* Base64 in pieces: what stands in a data: URL is decoded while it is sent on, never whole. */
#ifndef NUNCHI_GATEWAY_BASE64_H
#define NUNCHI_GATEWAY_BASE64_H

#include "common/base/slice.h"

struct base64 {
    uint32_t bits;
    unsigned n;    /* digits in `bits` */
    unsigned pads; /* '=' seen */
};

/* Decodes all of `in`, appending at most 3/4 of its length to out. White space is skipped.
 * ERR_INVALID for anything that is not a digit, or after the padding. */
int base64_feed(struct base64 *b, slice in, buf *out) MUST_USE;
int base64_end(struct base64 *b,
               buf *out) MUST_USE; /* the last group; ERR_INVALID if it cannot be one */
/* Checks all of a text without decoding it; *len is the number of bytes it stands for. */
int base64_check(slice in, size_t *len) MUST_USE;

#endif
