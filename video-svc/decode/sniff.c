#include "video-svc/decode/sniff.h"

#include <unistd.h>

#define MP4_BOXES_MAX 4096 /* top-level boxes: a fragmented file has two for each of its seconds   \
                            */
#define TS_PACKET 188
#define M2TS_PACKET 192

struct magic {
    size_t at;
    const char *bytes;
    size_t n;
    const char *demuxer; /* NULL: refused */
    const char *what;
};
#define MAGIC(at, s, demuxer, what)                                                                \
    {                                                                                              \
        at, s, sizeof(s) - 1, demuxer, what                                                        \
    }

static const struct magic MAGICS[] = {
    MAGIC(4, "ftyp", "mov", NULL),
    MAGIC(4, "moov", "mov", NULL),
    MAGIC(4, "mdat", "mov", NULL),
    MAGIC(4, "wide", "mov", NULL),
    MAGIC(4, "skip", "mov", NULL),
    MAGIC(4, "free", "mov", NULL),
    MAGIC(0, "\x1a\x45\xdf\xa3", "matroska", NULL),
    MAGIC(8, "AVI ", "avi", NULL),
    MAGIC(8, "WAVE", NULL, "an audio file (WAV), without a video track"),
    MAGIC(8, "WEBP", NULL, "a picture (WebP), not a video"),
    MAGIC(0, "ID3", NULL, "an audio file (MP3), without a video track"),
    MAGIC(0, "fLaC", NULL, "an audio file (FLAC), without a video track"),
    MAGIC(0, "OggS", NULL, "an Ogg file; send MP4, Matroska, WebM, AVI or MPEG-TS"),
    MAGIC(0, "FLV\x01", NULL, "a Flash video; send MP4, Matroska, WebM, AVI or MPEG-TS"),
    MAGIC(0, "\x30\x26\xb2\x75", NULL,
          "a Windows Media file; send MP4, Matroska, WebM, AVI or MPEG-TS"),
    MAGIC(0, "\x00\x00\x01\xba", NULL,
          "an MPEG program stream; send MP4, Matroska, WebM, AVI or MPEG-TS"),
    MAGIC(0, "GIF8", NULL, "a picture (GIF), not a video"),
    MAGIC(0, "\x89PNG", NULL, "a picture (PNG), not a video"),
    MAGIC(0, "\xff\xd8\xff", NULL, "a picture (JPEG), not a video"),
    MAGIC(0, "BM", NULL, "a picture (BMP), not a video"),
    MAGIC(0, "%PDF", NULL, "a PDF document, not a video"),
    MAGIC(0, "PK\x03\x04", NULL, "a zip archive, not a video"),
    MAGIC(0, "\x1f\x8b", NULL, "a gzip archive, not a video"),
    MAGIC(0,
          "\x7f"
          "ELF",
          NULL, "a program, not a video"),
    MAGIC(0, "#EXTM3U", NULL, "an HLS playlist: it names a video and does not hold one"),
    MAGIC(0, "ffconcat", NULL, "a concat script: it names videos and does not hold one"),
    MAGIC(0, "[playlist]", NULL, "a playlist: it names videos and does not hold one"),
    MAGIC(0, "<?xml", NULL, "an XML text, not a video"),
    MAGIC(0, "<MPD", NULL, "a DASH manifest: it names a video and does not hold one"),
    MAGIC(0, "v=0", NULL, "an SDP description: it names a stream and does not hold one"),
    MAGIC(0, "WEBVTT", NULL, "a subtitle file, not a video"),
};

static bool matches(slice head, const struct magic *m)
{
    return head.n >= m->at + m->n && memcmp(head.p + m->at, m->bytes, m->n) == 0;
}

/* Sync bytes at every packet of the head, however many fit; at least three. */
static bool is_ts(slice head, size_t packet, size_t at)
{
    size_t n = 0;
    for (; at < head.n; at += packet, n++)
        if (head.p[at] != 0x47)
            return false;
    return n >= 3;
}

static bool is_mp3(slice head)
{
    return head.n >= 2 && (unsigned char)head.p[0] == 0xff &&
           ((unsigned char)head.p[1] & 0xe6) == 0xe2;
}

static bool is_text(slice head)
{
    size_t whole = utf8_complete_len(head.p, head.n);
    if (!utf8_valid((slice){head.p, whole}))
        return false;
    for (size_t i = 0; i < whole; i++)
        if ((unsigned char)head.p[i] < 32 && !strchr("\t\n\r\f", head.p[i]))
            return false;
    return true;
}

static slice without_bom(slice head)
{
    if (slice_starts(head, SLICE_LIT("\xef\xbb\xbf")))
        return (slice){head.p + 3, head.n - 3};
    return head;
}

int sniff(slice head, uint64_t size, const char **demuxer, struct why *w)
{
    if (size == 0)
        return why_set(w, ERR_UNREADABLE, "file", "the file is empty");
    slice text = slice_trim(without_bom(head));
    for (size_t i = 0; i < ARRAY_LEN(MAGICS); i++) {
        const struct magic *m = &MAGICS[i];
        if (!matches(m->demuxer || m->at > 0 ? head : text, m))
            continue;
        if (!m->demuxer)
            return why_set(w, ERR_UNREADABLE, "file", "the file is %s", m->what);
        *demuxer = m->demuxer;
        return 0;
    }
    if (is_ts(head, TS_PACKET, 0) || is_ts(head, M2TS_PACKET, 4)) {
        *demuxer = "mpegts";
        return 0;
    }
    if (is_mp3(head))
        return why_set(w, ERR_UNREADABLE, "file",
                       "the file is an audio file (MP3 or AAC), without a video track");
    if (is_text(head))
        return why_set(w, ERR_UNREADABLE, "file", "the file is text, not a video");
    return why_set(
        w, ERR_UNREADABLE, "file",
        "the file is no video of a kind read here (MP4, MOV, Matroska, WebM, AVI, MPEG-TS)");
}

static uint64_t be(const unsigned char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

int sniff_mp4(int fd, uint64_t size, struct why *w)
{
    bool index = false;
    uint64_t at = 0;
    for (int i = 0; i < MP4_BOXES_MAX && at < size && size - at >= 8; i++) {
        unsigned char head[16] = {0};
        ssize_t got = pread(fd, head, sizeof head, (off_t)at);
        if (got < 8)
            break;
        uint64_t box = be(head, 4);
        if (box == 1 && got == 16)
            box = be(head + 8, 8);
        else if (box == 0)
            box = size - at; /* to the end */
        if (memcmp(head + 4, "moov", 4) == 0)
            index = true;
        if (box < 8)
            break;
        if (box > size - at) {
            if (index && memcmp(head + 4, "moov", 4) != 0)
                return 0; /* the index is whole: what is there of the video can be read */
            return why_set(
                w, ERR_UNREADABLE, "file",
                "the file ends early: %llu of its bytes are missing, its index (moov) among them",
                (unsigned long long)(box - (size - at)));
        }
        at += box;
    }
    if (!index)
        return why_set(w, ERR_UNREADABLE, "file",
                       "the file ends early or is damaged: its index (moov) is missing");
    return 0;
}
