/* Which pictures of a video are kept: candidates while a scene lasts (evenly spread, however long
 * it gets), a few of them as JPEGs when it ends, and fewer when all scenes together have more than
 * is wanted. */
#ifndef NUNCHI_KEEP_H
#define NUNCHI_KEEP_H

#include "video-svc/decode/picture.h"

#define KEEP_SCENE_FRAMES_MAX 8 /* of one scene */

struct kept_frame {
    uint32_t scene, time_ms, width, height;
    uint64_t phash;
    buf jpeg, thumb;
};

typedef struct keep keep;

keep *keep_new(uint32_t frames_max, uint32_t thumb_edge);
void keep_free(keep *k);
/* True when a picture at this time should be offered. sudden: the picture differs much from the
 * last one. */
bool keep_due(const keep *k, uint32_t time_ms, bool sudden);
void keep_take(keep *k, uint32_t time_ms, struct picture *pic); /* takes the picture over */
/* Candidates before end_ms belong to this scene, which ends there. */
int keep_scene(keep *k, uint32_t scene, uint32_t start_ms, uint32_t end_ms) MUST_USE;
size_t keep_n(const keep *k);
const struct kept_frame *keep_at(const keep *k, size_t i); /* ascending in time */

#endif
