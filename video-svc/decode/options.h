/* Options of nunchi-decode. */
#ifndef NUNCHI_DECODE_OPTIONS_H
#define NUNCHI_DECODE_OPTIONS_H

#include "common/base/config.h"

struct decode_config {
    char *dump; /* FILE: by hand */
    int64_t input_fd, output_fd;
    char *frames;
    int64_t frames_max, edge, thumb_edge;
    char *ocr_languages;
    int64_t ocr_max;
    int64_t pixels_max, packets_max, pictures_max, duration_max_ms, deadline_ms, exact_pixels_max;
    int64_t memory_bytes, sandbox_uid;
    char *sandbox_require;
    char *selftest;
    bool report;
};

extern const struct config_spec DECODE_SPEC;

#endif
