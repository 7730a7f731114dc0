/* What /metrics of a video worker says. */
#ifndef NUNCHI_VIDEO_METRICS_H
#define NUNCHI_VIDEO_METRICS_H

#include "video-svc/core.h"

void video_metrics(const struct vid_load *l); /* makes the series on the first call */

#endif
