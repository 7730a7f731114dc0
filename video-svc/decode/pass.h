/* One video, from a descriptor to records: demux, decode, scenes, sampled frames, subtitles, text
 * on the screen, in one pass without seeking, so that memory and time are bounded and every
 * timestamp is the decoder's own. */
#ifndef NUNCHI_PASS_H
#define NUNCHI_PASS_H

#include "video-svc/decode/media.h"
#include "video-svc/decode/ocr.h"

struct pass_config {
    struct media_limits media;
    uint32_t frames_max; /* 1 .. REC_FRAMES_MAX */
    uint32_t edge, thumb_edge;
    uint32_t ocr_max; /* pictures that are read */
    ocr *ocr;         /* NULL: text on the screen is not read */
    void (*emit)(void *ctx, const struct record *r);
    void *ctx;
};

/* Ends with DONE or FAIL; the error it said, or 0. */
int pass_run(const struct pass_config *cfg, int fd, uint64_t size);

#endif
