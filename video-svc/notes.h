/* The timeline of one video as it comes together from the decoder's records, and its packed form.
 * Owned by its job. */
#ifndef NUNCHI_NOTES_H
#define NUNCHI_NOTES_H

#include "common/base/hash.h"
#include "video-svc/records_read.h"

#define NOTES_FORMAT 1
#define NOTES_BYTES_MAX (1u << 20) /* one value in the store, one bulk frame on the wire */
#define NOTES_SALT_BYTES 16

/* A picture to be stored, under the digest of its JPEG. */
struct notes_picture {
    struct digest digest;
    uint32_t scene, time_ms, width, height;
    uint64_t phash;
    buf jpeg, thumb; /* thumb.n 0: none */
};

typedef struct notes notes;

notes *notes_new(void);
void notes_free(notes *n); /* NULL is allowed */
void notes_record(notes *n,
                  const struct record
                      *r); /* valid ones, from records_read.h; HELLO, PROGRESS, FAIL are ignored */
size_t notes_n_pictures(const notes *n);
struct notes_picture *notes_picture_at(notes *n, size_t i);
size_t notes_n_scenes(const notes *n);
uint64_t notes_duration_ms(const notes *n);
/* Appends the packed Notes of proto/video.proto, at most NOTES_BYTES_MAX: what is over is left out
 * from the end, on-screen text before subtitles before scenes, and a remark says so. */
void notes_pack(notes *n, const struct digest *content, slice salt, uint64_t size, buf *out);
/* What an answer needs of notes packed before. ERR_PROTO when they are damaged or of another
 * format. */
int notes_peek(slice packed, uint64_t *duration_ms, uint32_t *n_scenes) MUST_USE;

#endif
