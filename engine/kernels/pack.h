/* Weights as the kernels want them. The unit is a panel: 16 output rows and all of k. Quants and scales are apart, so
 * that quants stay on cache lines. Nothing is lost against the file: the same integers, the same scales.
 *
 *   panel = quants of block 0, 1, ... n_in/32-1, then the scales in the same order; padded to 64 bytes
 *   quants of a block (16 rows x 32 of k), as 8 registers of 64 bytes; register j, byte 4*row+c is k = 4*j+c, unsigned:
 *     4 bits: 4 registers, low nibble register j, high nibble register j+4
 *     5 bits: the same, then 8 words of 64 bits: bit i of word j is bit 4 of byte i of register j
 *     6 bits: as 4 bits, then 2 registers: bits 2*(j%4) of register j/4 are bits 4 and 5 of register j
 *     8 bits: 8 registers of q + 128
 *   scales: PACK_D    16 halves d                                   w = d * (q - offset)
 *           PACK_DM   16 halves d, 16 halves m                      w = d * q + m
 *           PACK_K    per 256: 16 halves d, 16 halves dmin, 8 times (16 bytes sc, 16 bytes m)   w = d*sc*q - dmin*m
 *           PACK_K6   per 256: 16 halves d, 8 times (16 sc of the first 16 k, 16 of the second) w = d*sc*(q - 32)
 *   float formats: panel = (n_in, 16 rows) of f32 or 16 bits, padded to 64 bytes
 *
 * The layout is flat and has a version: it can be written to a file and mapped. */
#ifndef NUNCHI_ENGINE_PACK_H
#define NUNCHI_ENGINE_PACK_H

#include "engine/backend/backend.h"

#define PACK_VERSION 1
#define PANEL_ROWS 16
#define PANEL_K 32

enum pack_scales { PACK_NONE, PACK_D, PACK_DM, PACK_K, PACK_K6 };

/* What a type of the file is made of. */
struct format {
    enum weight_type type;
    const char *name;      /* "Q4_1" */
    uint32_t block;        /* elements of a block in the file; 1 for floats */
    uint32_t block_bytes;
    uint32_t bits;         /* of a quant; 0 for floats */
    uint32_t offset;       /* w = d * (q - offset) */
    enum pack_scales scales;
    /* Integers of one block of the file, unsigned as packed. */
    void (*quants)(const uint8_t *block, uint8_t *q);
};

const struct format *format_of(enum weight_type type); /* NULL: cannot be loaded */
/* One row of the file's layout as floats. n is a multiple of format.block. */
void format_row(const struct format *f, const void *row, size_t n, float *out);
/* Bytes of one row in the file. */
static inline size_t format_row_bytes(const struct format *f, size_t n)
{
    return n / f->block * f->block_bytes;
}

struct packed {
    const struct format *f;
    uint32_t n_out, n_in, n_panels;
    size_t panel_bytes;
    size_t scales_at;  /* offset of the scales in a panel */
    const uint8_t *data; /* (n_panels, panel_bytes), 64-byte aligned */
};

/* Sizes alone: ERR_UNSUPPORTED for a type or shape that cannot be packed, ERR_TOO_BIG on overflow. */
int packed_plan(const struct weight *w, struct packed *out, size_t *bytes, struct why *why) MUST_USE;
/* Writes panels first .. first+n-1 of w into `data` (all of the weight's memory). Threads may share the work. */
void packed_write(const struct packed *p, const struct weight *w, uint8_t *data, uint32_t first, uint32_t n);

#endif
