/* The decoders that run: one child for each job, found by the job's number. Loop thread only. */
#ifndef NUNCHI_DECODERS_H
#define NUNCHI_DECODERS_H

#include "common/base/loop.h"
#include "video-svc/core.h"
#include "video-svc/options.h"

typedef struct decoders decoders;

struct decoders_events {
    void *ctx;
    void (*record)(void *ctx, uint64_t job, const struct record *r);
    void (*end)(void *ctx, uint64_t job, int err, const struct why *w);
    /* The trial has ended: layers that are active and those that are wanted; err < 0: it cannot
     * work, and why. */
    void (*tried)(void *ctx, int err, const struct why *w, uint32_t active, uint32_t wanted,
                  slice remark);
};

decoders *decoders_new(loop *l, const struct video_options *o, const struct decoders_events *ev);
void decoders_free(decoders *d); /* kills what runs */
/* Runs one decoder on an empty file: is it there, can it load its data, which layers of the sandbox
 * does this host give? */
void decoders_try(decoders *d);
/* fd: of the video; closed here. `end` follows, from the loop, also when it cannot be started. */
void decoders_start(decoders *d, uint64_t job, const struct vid_saved *s, int fd);
void decoders_kill(decoders *d, uint64_t job);

#endif
