/* What nunchi-decode says to video-svc, and how it is written down. The decoder reads a stranger's
 * file, so the reader of these records (video-svc/records_read.c) takes the decoder for an
 * attacker: every length, count, time and text is checked against the limits below, in the order
 * below, and the first breach ends the job.
 *
 * Stream: records, each [type u32][length u32][payload], little-endian. A text is [length
 * u32][bytes]. Payloads: HELLO      u32 version, u32 layers active, u32 layers wanted       first
 *   PROGRESS   u32 phase (Ingesting.Phase of proto/video.proto), u32 permille      at any time
 * after HELLO CONTAINER  text format, u64 duration ms as the file says (0: unknown), text title
 * once TRACK      u32 kind, u32 index, text codec, text language, text title, u32 width, height,
 * fps_milli, rotation, channels, sample_rate, selected CHAPTER, SUBTITLE, SCREEN_TEXT   u32 start
 * ms, end ms, track, confidence, text language, text SCENE      u32 start ms, end ms ascending,
 * after CONTAINER FRAME      u32 scene, time ms, width, height, u64 phash, text JPEG  scene: index
 * of a SCENE already sent THUMB      text JPEG                                               of the
 * FRAME just sent REMARK     text DONE       u64 duration ms as read last; or: FAIL       u32 error
 * (wire number), text                           last */
#ifndef NUNCHI_RECORDS_H
#define NUNCHI_RECORDS_H

#include "common/base/slice.h"

#define REC_VERSION 1
#define REC_HEAD_BYTES 8
/* One record: the largest picture (REC_JPEG_MAX) and its numbers. */
#define REC_PAYLOAD_MAX (512u << 10)
#define REC_JPEG_MAX (400u << 10)
#define REC_THUMB_MAX (64u << 10)
#define REC_TEXT_MAX 4096 /* one subtitle, chapter title or line on the screen */
#define REC_NAME_MAX 64   /* codec, language, format */
#define REC_TITLE_MAX 512
#define REC_TRACKS_MAX 64
#define REC_CHAPTERS_MAX 1000
#define REC_SUBTITLES_MAX 20000 /* a three-hour film has about 2,500 in each of its languages */
#define REC_SCREEN_TEXTS_MAX 5000
#define REC_SCENES_MAX 5000
#define REC_FRAMES_MAX 512
#define REC_REMARKS_MAX 32
#define REC_EDGE_MAX 4096       /* of a picture we send */
#define REC_DIMENSION_MAX 65535 /* of a track we tell about */
#define REC_TIME_MAX_MS (48u * 3600 * 1000)
#define REC_PROGRESS_MAX 100000 /* a decoder that only chatters is stopped */

enum rec_type {
    REC_HELLO = 1,
    REC_PROGRESS,
    REC_CONTAINER,
    REC_TRACK,
    REC_CHAPTER,
    REC_SUBTITLE,
    REC_SCREEN_TEXT,
    REC_SCENE,
    REC_FRAME,
    REC_THUMB,
    REC_REMARK,
    REC_DONE,
    REC_FAIL,
};

/* The numbers of Ingesting.Phase. */
enum rec_phase {
    REC_PHASE_PROBING = 2,
    REC_PHASE_SCENES = 3,
    REC_PHASE_FRAMES = 4,
    REC_PHASE_TEXT = 5
};

enum rec_kind { REC_KIND_OTHER, REC_KIND_VIDEO, REC_KIND_AUDIO, REC_KIND_SUBTITLE };

/* Layers of the sandbox. */
#define SANDBOX_LAYERS(X)                                                                          \
    X(NO_NEW_PRIVS, "no_new_privs")                                                                \
    X(RLIMITS, "rlimits")                                                                          \
    X(NOT_DUMPABLE, "not_dumpable")                                                                \
    X(UID, "uid")                                                                                  \
    X(NAMESPACES, "namespaces")                                                                    \
    X(LANDLOCK, "landlock")                                                                        \
    X(SECCOMP, "seccomp")
enum sandbox_bit {
#define X(name, text) SANDBOX_BIT_##name,
    SANDBOX_LAYERS(X)
#undef X
        SANDBOX_N_LAYERS
};
enum sandbox_layer {
#define X(name, text) SANDBOX_##name = 1 << SANDBOX_BIT_##name,
    SANDBOX_LAYERS(X)
#undef X
        SANDBOX_ALL = (1 << SANDBOX_N_LAYERS) - 1
};

struct rec_track {
    uint32_t kind, index;
    slice codec, language, title;
    uint32_t width, height; /* as shown */
    uint32_t fps_milli;
    uint32_t rotation; /* degrees clockwise: 0 90 180 270 */
    uint32_t channels, sample_rate;
    uint32_t selected;
};

struct rec_span {
    uint32_t start_ms, end_ms, track, confidence;
    slice language, text;
};

/* Slices are borrowed: from the payload when read, from the sender when written. */
struct record {
    enum rec_type type;
    union {
        struct {
            uint32_t version, active, wanted;
        } hello;
        struct {
            uint32_t phase, permille;
        } progress;
        struct {
            slice format, title;
            uint64_t duration_ms;
        } container;
        struct rec_track track;
        struct rec_span span; /* CHAPTER SUBTITLE SCREEN_TEXT */
        struct {
            uint32_t start_ms, end_ms;
        } scene;
        struct {
            uint32_t scene, time_ms, width, height;
            uint64_t phash;
            slice jpeg;
        } frame;
        slice thumb;
        slice remark;
        uint64_t done_duration_ms;
        struct {
            uint32_t code; /* wire number of an enum err */
            slice text;
        } fail;
    };
};

/* Appends one record. The caller keeps to the limits (nunchi-decode does; records_read.c checks).
 */
void record_pack(const struct record *r, buf *out);

#endif
