/* Options of nunchi-video. */
#ifndef NUNCHI_VIDEO_OPTIONS_H
#define NUNCHI_VIDEO_OPTIONS_H

#include "common/base/config.h"

struct video_options {
    char *spool_dir;
    int64_t spool_bytes, upload_max, upload_silence_ms, store_patience_ms;
    int64_t jobs, queue;
    char *decoder;
    int64_t frames_max, edge, thumb_edge;
    char *ocr_languages;
    int64_t ocr_max;
    int64_t pixels_max, duration_max_ms, decode_ms, decode_memory;
    int64_t sandbox_uid;
    char *sandbox_require;
    char *gateways, *caches;
    char *curve_key_file, *curve_allow_file, *curve_server_key;
    bool insecure_network;
    char *metrics;
    char *log_level;
    int64_t drain_ms;
};

extern const struct config_spec VIDEO_OPTIONS;

#endif
