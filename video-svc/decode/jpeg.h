/* Pictures as JPEG. The only place that knows libjpeg. */
#ifndef NUNCHI_JPEG_H
#define NUNCHI_JPEG_H

#include "video-svc/decode/picture.h"

/* Appends a JPEG of at most max_bytes: the quality goes down until it fits. ERR_TOO_BIG when even
 * the lowest does not. */
int jpeg_encode(const struct picture *pic, size_t max_bytes, buf *out) MUST_USE;

#endif
