#include "video-svc/decode/options.h"

#include "video-svc/decode/sandbox.h"

#define ROW(field, name, type, def, min, max, help)                                                \
    CONFIG_OPT(struct decode_config, field, name, type, def, min, max, help)

static const struct opt OPTIONS[] = {
    CONFIG_GROUP("What to read"),
    ROW(dump, "dump", OPT_STR, NULL, 0, 0,
        "Read this file and print what is found as JSON, for people."),
    ROW(input_fd, "input-fd", OPT_INT, "-1", -1, 1000,
        "Descriptor of the video, opened for reading."),
    ROW(output_fd, "output-fd", OPT_INT, "-1", -1, 1000, "Descriptor that the records go to."),
    CONFIG_GROUP("What to find"),
    ROW(frames, "frames", OPT_STR, "uniform", 0, 16,
        "uniform: every picture is looked at; keyframe: key frames alone, faster and less exact."),
    ROW(frames_max, "frames-max", OPT_INT, "64", 1, REC_FRAMES_MAX,
        "Most frames kept of one video."),
    ROW(edge, "edge", OPT_INT, "512", 64, 2048, "Longer edge of a kept frame, pixels."),
    ROW(thumb_edge, "thumb-edge", OPT_INT, "160", 16, 512, "Longer edge of a thumbnail, pixels."),
    ROW(ocr_languages, "ocr-languages", OPT_STR, "eng+kor", 0, 64,
        "Languages of text on the screen, as tesseract names them; empty: not read."),
    ROW(ocr_max, "ocr-max", OPT_INT, "240", 0, 100000,
        "Most pictures whose text is read: each costs up to a second."),
    CONFIG_GROUP("Limits"),
    ROW(pixels_max, "pixels-max", OPT_INT, "35389440", 1, 268435456,
        "Pixels of one picture; 8192 x 4320 by default."),
    ROW(packets_max, "packets-max", OPT_INT, "8000000", 1, 1e9,
        "Packets of one file: more are endless tiny ones."),
    ROW(pictures_max, "pictures-max", OPT_INT, "2000000", 1, 1e9,
        "Decoded pictures of one file; two hours at 240 a second."),
    ROW(duration_max_ms, "duration-max", OPT_MS, "2h", 1000, REC_TIME_MAX_MS,
        "A longer video is cut there, with a remark."),
    ROW(deadline_ms, "deadline", OPT_MS, "15m", 1000, 86400000, "Time for one file."),
    ROW(exact_pixels_max, "exact-pixels-max", OPT_INT, "60000000000", 1, 1e15,
        "Videos with more pixels, all pictures together, are read at their key frames; 19 minutes "
        "of 1080p at 25 a second by default."),
    ROW(memory_bytes, "memory", OPT_SIZE, "2g", 268435456, 68719476736,
        "Address space of this process."),
    CONFIG_GROUP("Sandbox"),
    ROW(sandbox_uid, "sandbox-uid", OPT_INT, "65534", 0, 4294967294,
        "User to become when started as root; 0: stay root."),
    ROW(sandbox_require, "sandbox-require", OPT_STR, "", 0, 200,
        "Layers without which nothing is read: a comma-separated list, or 'all'."),
    ROW(selftest, "sandbox-selftest", OPT_STR, NULL, 0, 32,
        "Enter the sandbox and try what must not work: open socket exec fork exec-memory write."),
    ROW(report, "sandbox-report", OPT_BOOL, "false", 0, 0,
        "Enter the sandbox and print the layers that are active."),
};

static int check(const void *config, struct why *w)
{
    const struct decode_config *c = config;
    if (strcmp(c->frames, "uniform") != 0 && strcmp(c->frames, "keyframe") != 0)
        return why_set(w, ERR_INVALID, "frames", "must be 'uniform' or 'keyframe'");
    uint32_t layers;
    int e = sandbox_layers_parse(slice_str(c->sandbox_require), &layers, w);
    if (e < 0)
        return e;
    if (!c->dump && !c->selftest && !c->report && (c->input_fd < 0 || c->output_fd < 0))
        return why_set(w, ERR_INVALID, "dump",
                       "nothing to read: --dump FILE, or --input-fd and --output-fd");
    return 0;
}

const struct config_spec DECODE_SPEC = {
    .program = "nunchi-decode",
    .about =
        "reads one video inside a sandbox: tracks, subtitles, scenes, frames, text on the screen",
    .opts = OPTIONS,
    .n_opts = ARRAY_LEN(OPTIONS),
    .check = check,
};
