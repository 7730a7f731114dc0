/* A video file opened for reading: what it holds, and then its pictures and subtitles in the order
 * of the file. The only place that knows libav. Input is a file descriptor read with pread; libav
 * sees no name, no protocol and only the one demuxer that sniff.h chose. Times are milliseconds
 * from the start of the file as a player shows it, whatever number its first timestamp has. One
 * thread. */
#ifndef NUNCHI_MEDIA_H
#define NUNCHI_MEDIA_H

#include "video-svc/decode/picture.h"
#include "video-svc/decode/records.h"

struct media_limits {
    uint64_t pixels_max;       /* of one picture */
    uint64_t packets_max;      /* bounds files of endless tiny packets */
    uint64_t frames_max;       /* decoded pictures */
    uint32_t duration_max_ms;  /* reading ends there */
    uint64_t deadline_us;      /* of clock_mono_us */
    uint64_t exact_pixels_max; /* all pictures together; longer files are read at their key frames
                                  alone */
    bool keyframes;            /* key frames alone in any case */
};

/* Small planes for the scene detector: Y, U, V of SMALL_W x SMALL_H each. */
#define SMALL_W 96
#define SMALL_H 54
#define SMALL_PLANE ((size_t)SMALL_W * SMALL_H)
#define SMALL_BYTES (3 * SMALL_PLANE)

enum media_event_kind { MEDIA_END, MEDIA_FRAME, MEDIA_SUBTITLE };

struct media_event {
    enum media_event_kind kind;
    uint32_t start_ms, end_ms;
    uint32_t track;       /* MEDIA_SUBTITLE: index of the track */
    const char *language; /* of that track; "" unknown */
    slice text;           /* MEDIA_SUBTITLE: plain text; valid until the next call */
    uint64_t position;    /* MEDIA_FRAME: bytes of the file read so far, for progress */
};

struct media_chapter {
    uint32_t start_ms, end_ms;
    slice title;
};

/* How reading went; final after MEDIA_END. */
struct media_report {
    uint64_t duration_ms;         /* end of the last picture */
    uint64_t claimed_duration_ms; /* of the video track, or of the file; 0: it does not say */
    bool cut_by_duration;
    bool keyframes; /* read at key frames alone */
    bool has_audio;
    bool has_picture_subtitles;
    uint64_t frames, packets, damaged; /* damaged: packets that could not be decoded */
};

typedef struct media media;

/* ERR_UNREADABLE, ERR_UNSUPPORTED (a codec), ERR_TOO_BIG (a limit), ERR_TIMEOUT, with a sentence.
 */
int media_open(int fd, uint64_t size, const char *demuxer, const struct media_limits *lim,
               media **out, struct why *w) MUST_USE;
void media_close(media *m); /* NULL is allowed */

slice media_format(const media *m);
slice media_title(const media *m);
uint64_t media_duration_ms(const media *m); /* as the file says; 0: unknown */
size_t media_n_tracks(const media *m);
void media_track(const media *m, size_t i, struct rec_track *out); /* slices live as long as m */
size_t media_n_chapters(const media *m);
void media_chapter(const media *m, size_t i, struct media_chapter *out);

/* The next picture of the selected video track, or the next subtitle of any text track. 0, or an
 * error that ends the file; damage inside the file is stepped over and counted. */
int media_next(media *m, struct media_event *out, struct why *w) MUST_USE;
/* Of the picture that media_next returned last. */
int media_small(media *m, uint8_t out[SMALL_BYTES]) MUST_USE;
/* As shown (rotation and pixel shape applied), its longer edge at most `edge`; grow: exactly.
 * channels: 1 or 3. */
int media_picture(media *m, uint32_t edge, bool grow, uint32_t channels,
                  struct picture *out) MUST_USE;
struct media_report media_report(const media *m);

#endif
