/* A picture in memory: interleaved bytes, one channel (grey) or three (RGB), rows without gaps.
 * Sizes are bounded by whoever makes one; picture_init checks the arithmetic. */
#ifndef NUNCHI_PICTURE_H
#define NUNCHI_PICTURE_H

#include "common/base/slice.h"

#define PICTURE_EDGE_MAX 4096

struct picture {
    uint8_t *p; /* (h, w, channels) */
    uint32_t w, h, channels;
};

int picture_init(struct picture *pic, uint32_t w, uint32_t h,
                 uint32_t channels) MUST_USE; /* ERR_TOO_BIG, ERR_NOMEM */
void picture_clear(struct picture *pic);
/* Turns it clockwise by 0, 90, 180 or 270 degrees. */
int picture_rotate(struct picture *pic, uint32_t degrees) MUST_USE;
/* The largest size of w x h's shape whose longer edge is at most edge; grows only when `grow`. At
 * least 1 x 1. */
void picture_fit(uint32_t w, uint32_t h, uint32_t edge, bool grow, uint32_t *out_w,
                 uint32_t *out_h);
/* Mean-of-area reduction (or nearest growth) to w x h; channels stay. */
int picture_shrink(const struct picture *in, uint32_t w, uint32_t h, struct picture *out) MUST_USE;

/* 64-bit perceptual hash: signs of the low frequencies of the picture's luma. Near pictures differ
 * in few bits. Never 0. */
uint64_t picture_hash(const struct picture *pic);

#endif
