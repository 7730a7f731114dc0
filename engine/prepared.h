/* Prepared weights: a model's matrices in the layout that the kernels want, written once to a file
 * and mapped read-only ever after, so that a worker starts in milliseconds and all workers of a
 * host share the pages.
 *
 *   file = the data, zeros up to a multiple of 4096, then the seal, to the file's end
 *   seal = magic, version, sizes, digest of the model file, layout, the table of weights, a
 * checksum of each piece of the file before the seal, and a checksum of the seal
 *
 * The seal is last because the data then lies on multiples of a huge page in the file, and because
 * a file that was not written to its end has none. Nothing in it is interpreted: all but the
 * checksums is known before the file is opened (struct prepared_want), so whoever opens it compares
 * bytes, and no size or offset is ever taken from the file.
 *
 * It lies beside the model (MODEL.gguf.prepared) or, where that folder cannot be written, in the
 * cache folder. It is written as MODEL.gguf.prepared.part under a lock on that file, so that
 * workers that start together write once, and renamed when it is whole; what a killed writer leaves
 * is written over by the next one. Like the model itself it must not be shortened while it is in
 * use: that stops the process. */
#ifndef NUNCHI_ENGINE_PREPARED_H
#define NUNCHI_ENGINE_PREPARED_H

#include <limits.h>

#include "engine/engine.h"

#define PREPARED_VERSION 1
/* What one checksum covers: some tenths of a millisecond of work, and the size of one write. */
#define PREPARED_PIECE_BYTES ((size_t)4 << 20)
#define PREPARED_PAGE_BYTES 4096
/* How long to wait for another process that writes the same file before doing without it: ten times
 * what the largest models take. */
#define PREPARED_WAIT_MS 600000

struct prepared_tensor {
    uint32_t type, n_out, n_in; /* as in struct weight */
    uint64_t at, bytes;         /* in the data */
};

/* What the file must be. Borrowed for the call. */
struct prepared_want {
    struct digest source; /* of the model file */
    struct digest layout; /* of what the packer does */
    const struct prepared_tensor *tensors;
    size_t n_tensors;
    uint64_t bytes; /* of the data; at least 1 */
    uint32_t owner; /* of the model: their file is taken, as our own and root's are */
};

/* ---- a file that is there ---- */

typedef struct prepared prepared;

/* ERR_NOT_FOUND, or ERR_INVALID for a file that is anything but what is wanted. */
int prepared_open(const char *path, const struct prepared_want *want, prepared **out,
                  struct why *w) MUST_USE;
int prepared_open_fd(int fd, const struct prepared_want *want, prepared **out,
                     struct why *w) MUST_USE; /* borrows fd */
void prepared_close(prepared *p);             /* NULL is allowed */
const uint8_t *prepared_data(const prepared *p);
uint64_t prepared_file_bytes(const prepared *p);
const char *prepared_path(const prepared *p); /* "" for prepared_open_fd */
/* The whole file, piece by piece; from any thread. Opening checks the seal alone. */
size_t prepared_n_pieces(const prepared *p);
bool prepared_piece_ok(const prepared *p, size_t i);
/* Brings a piece into memory and into the page tables, so that the first step does not. */
void prepared_touch(const prepared *p, size_t i);
/* Removes the file, if it is still this one, so that the next worker writes it again. */
int prepared_discard(const prepared *p) MUST_USE;

/* ---- writing one ---- */

typedef struct prepared_writer prepared_writer;

/* Takes the lock of `path`, then reserves the room. ERR_EXISTS: somebody wrote it meanwhile. */
int prepared_begin(const char *path, uint32_t mode, const struct prepared_want *want,
                   prepared_writer **out, struct why *w) MUST_USE;
/* The data in order; want.bytes altogether. After a failure only prepared_abandon. */
int prepared_add(prepared_writer *pw, const void *p, size_t n, struct why *w) MUST_USE;
int prepared_commit(prepared_writer *pw, struct why *w) MUST_USE; /* frees it in any case */
void prepared_abandon(prepared_writer *pw);

/* ---- both ---- */

/* Where the file of a model lies or would lie: beside it (0) or in the cache folder (1). */
bool prepared_place(const char *model, int place, bool make, char out[PATH_MAX]);

struct prepared_how {
    const char *model; /* path */
    uint32_t mode;     /* of a new file: who may read the model may read it */
    int (*fill)(void *ctx, prepared_writer *pw,
                struct why *w); /* calls prepared_add for everything */
    void *ctx;
};
/* Opens it wherever it is, or else writes it where that is possible. On failure the sentence says
 * why not in each place. */
int prepared_get(const struct prepared_want *want, const struct prepared_how *how, prepared **out,
                 struct why *w) MUST_USE;

/* ---- between the two files ---- */

/* All of the seal but the checksums. */
void prepared_head(const struct prepared_want *want, buf *out);
uint64_t prepared_seal_at(const struct prepared_want *want);

#endif
