/* Where one scene ends and the next begins, from small pictures in the order of time. A hard cut is
 * a change that stands out from its neighbours and that lasts (a flash does not: what follows it
 * looks like what came before). A gradual one (fade, dissolve) is found over a longer distance by
 * how the colours are spread, which a moving camera changes little. Decisions come up to
 * SCENE_LAG_MS late. No I/O, no libav. */
#ifndef NUNCHI_SCENES_H
#define NUNCHI_SCENES_H

#include "video-svc/decode/media.h"

#define SCENE_MIN_MS 500 /* shorter ones belong to their neighbour */
#define SCENE_LAG_MS 700

typedef struct scenes scenes;

/* sparse: the pictures are key frames, seconds apart, so nothing can be said about their
 * neighbourhood. */
scenes *scenes_new(bool sparse);
void scenes_free(scenes *s);
/* time_ms ascends. Appends the cuts that are certain now: cut[i] is the time of a scene's first
 * picture, ascending. Returns how many (0 to SCENE_CUTS_MAX). */
#define SCENE_CUTS_MAX 4
size_t scenes_picture(scenes *s, uint32_t time_ms, const uint8_t small[SMALL_BYTES],
                      uint32_t cut[SCENE_CUTS_MAX]);
/* The end: call until it returns 0. */
size_t scenes_end(scenes *s, uint32_t cut[SCENE_CUTS_MAX]);

/* Mean absolute difference of two small pictures, the planes' means added: 0 to 765. */
double scenes_difference(const uint8_t a[SMALL_BYTES], const uint8_t b[SMALL_BYTES]);

#endif
