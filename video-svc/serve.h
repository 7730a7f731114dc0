/* nunchi-video on the wire: links to every gateway and cache, the spool, the decoders, the core
 * between them. The one file of this service that touches sockets. Loop thread only. */
#ifndef NUNCHI_VIDEO_SERVE_H
#define NUNCHI_VIDEO_SERVE_H

#include "common/base/loop.h"
#include "video-svc/options.h"

typedef struct video_serve video_serve;

/* Tries the decoder first, and registers when it works; logs why and stops the loop with 1 when it
 * does not. The options stay the caller's and must outlive it. */
video_serve *video_serve_new(loop *l, const struct video_options *o);
void video_serve_free(video_serve *v); /* NULL is allowed */
/* No new files; the loop stops with 0 when the running ones have ended, or after drain-ms. */
void video_serve_drain(video_serve *v);
/* For those who watch (base/monitor.h): brings the metrics up to date; whether it is there for gateways. */
void video_serve_collect(void *video_serve);
bool video_serve_ready(void *video_serve);

#endif
