#include "video-svc/options.h"

#include "common/base/log.h"
#include "common/base/monitor.h"
#include "common/wire/options.h"
#include "video-svc/decode/records.h"

#define OPT(field, name, type, def, min, max, help)                                                \
    CONFIG_OPT(struct video_options, field, name, type, def, min, max, help)

static const struct opt OPTIONS[] = {
    CONFIG_GROUP("Uploads"),
    OPT(spool_dir, "spool-dir", OPT_STR, "/var/lib/nunchi/spool", 0, 0,
        "folder where accepted files lie until they are read; processes may share it"),
    OPT(spool_bytes, "spool-bytes", OPT_SIZE, "8g", 1048576, 1e15,
        "disk space for accepted files; uploads beyond it are told to try later"),
    OPT(upload_max, "upload-max", OPT_SIZE, "2g", 1024, 1e14, "largest file taken"),
    OPT(upload_silence_ms, "upload-silence", OPT_MS, "60s", 1000, 3600000,
        "an upload that stands still for so long ends"),
    OPT(store_patience_ms, "store-patience", OPT_MS, "10m", 1000, 86400000,
        "how long a file that was read waits for a store that is away"),

    CONFIG_GROUP("Work"),
    OPT(jobs, "jobs", OPT_INT, "0", 0, 256,
        "videos read side by side; 0: half the CPUs that this process may use"),
    OPT(queue, "queue", OPT_INT, "64", 1, 4096,
        "files beyond those: arriving, waiting, being stored"),
    OPT(decoder, "decoder", OPT_STR, NULL, 0, 0,
        "path of nunchi-decode; default: beside this program"),
    OPT(frames_max, "frames-max", OPT_INT, "64", 1, REC_FRAMES_MAX,
        "most frames kept of one video, where a request does not say"),
    OPT(edge, "edge", OPT_INT, "512", 64, 2048, "longer edge of a kept frame, pixels"),
    OPT(thumb_edge, "thumb-edge", OPT_INT, "160", 16, 512, "longer edge of a thumbnail, pixels"),
    OPT(ocr_languages, "ocr-languages", OPT_STR, "eng+kor", 0, 64,
        "languages of text on the screen, as tesseract names them; empty: not read"),
    OPT(ocr_max, "ocr-max", OPT_INT, "240", 0, 100000,
        "most pictures of a video whose text is read: each costs up to a second"),
    OPT(pixels_max, "pixels-max", OPT_INT, "35389440", 1, 268435456,
        "pixels of one picture; 8192 x 4320 by default"),
    OPT(duration_max_ms, "duration-max", OPT_MS, "2h", 1000, REC_TIME_MAX_MS,
        "a longer video is cut there, with a remark"),
    OPT(decode_ms, "decode-deadline", OPT_MS, "15m", 1000, 86400000, "time for reading one file"),
    OPT(decode_memory, "decode-memory", OPT_SIZE, "2g", 268435456, 68719476736,
        "address space of one decoder"),

    CONFIG_GROUP("Sandbox"),
    OPT(sandbox_uid, "sandbox-uid", OPT_INT, "65534", 0, 4294967294,
        "user that decoders become when this runs as root; 0: stay root"),
    OPT(sandbox_require, "sandbox-require", OPT_STR, "no_new_privs,rlimits,seccomp", 0, 200,
        "layers without which nothing is read: no_new_privs rlimits not_dumpable uid namespaces "
        "landlock seccomp, or all"),

    CONFIG_GROUP("Cluster"),
    WIRE_GATEWAYS_OPTION(struct video_options),
    OPT(caches, "caches", OPT_STR, "127.0.0.1:8651", 0, 0,
        "cache services, likewise: what is read of a video is stored there"),
    WIRE_KEYS_OPTIONS(struct video_options),

    CONFIG_GROUP("Running"),
    MONITOR_OPTION(struct video_options),
    OPT(log_level, "log-level", OPT_STR, "info", 0, 8, "debug, info, warn or error"),
    OPT(drain_ms, "drain-ms", OPT_MS, "30000", 0, 86400000,
        "how long running work may go on after SIGTERM; what is left is taken up at the next "
        "start"),
};

static int check(const void *config, struct why *w)
{
    const struct video_options *o = config;
    enum log_level level;
    if (log_level_parse(slice_str(o->log_level), &level) < 0)
        return why_set(w, ERR_INVALID, "log-level", "must be debug, info, warn or error");
    if (o->upload_max > o->spool_bytes)
        return why_set(w, ERR_INVALID, "upload-max",
                       "larger than --spool-bytes: such a file could never be taken");
    return 0;
}

const struct config_spec VIDEO_OPTIONS = {
    .program = "nunchi-video",
    .about = "takes videos in, reads them in sandboxed decoders, stores what they hold",
    .opts = OPTIONS,
    .n_opts = ARRAY_LEN(OPTIONS),
    .check = check,
};
