#include "video-svc/decode/media.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "video-svc/decode/subtext.h"

#define IO_BYTES 65536
/* One allocation inside libav: a picture of the largest allowed size in 16 bits a sample, with
 * room. */
#define ALLOC_MAX ((size_t)320 << 20)
/* Enough for parameter sets and the first pictures; keeps a hostile header from making us read the
 * whole file. */
#define PROBE_BYTES "8000000"
#define ANALYZE_US "5000000"
#define INDEX_BYTES "134217728" /* 128 MiB: an index of about 5 million packets */
#define DIMENSION_MAX 16384
#define ASPECT_MAX 8 /* pixel shapes beyond 8:1 are damage */
#define DRAIN_ERRORS_MAX                                                                           \
    1000 /* damaged pictures still inside the decoder when the file has ended */
#define SUBTITLE_DEFAULT_MS 3000 /* a subtitle that does not say how long it stays */

static const char FORMATS[] = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts";
static const char CODECS[] =
    "h264,hevc,vp8,vp9,libdav1d,mpeg4,mpeg2video,mjpeg,mov_text,subrip,srt,webvtt,ass,ssa,text";

/* The decoder is named, not chosen by libav: software, and one that we know. */
static const struct {
    enum AVCodecID id;
    const char *decoder;
} DECODERS[] = {
    {AV_CODEC_ID_H264, "h264"},
    {AV_CODEC_ID_HEVC, "hevc"},
    {AV_CODEC_ID_VP8, "vp8"},
    {AV_CODEC_ID_VP9, "vp9"},
    {AV_CODEC_ID_AV1, "libdav1d"},
    {AV_CODEC_ID_MPEG4, "mpeg4"},
    {AV_CODEC_ID_MPEG2VIDEO, "mpeg2video"},
    {AV_CODEC_ID_MJPEG, "mjpeg"},
    {AV_CODEC_ID_MOV_TEXT, "mov_text"},
    {AV_CODEC_ID_SUBRIP, "subrip"},
    {AV_CODEC_ID_WEBVTT, "webvtt"},
    {AV_CODEC_ID_ASS, "ass"},
    {AV_CODEC_ID_TEXT, "text"},
};

struct media {
    struct media_limits lim;
    int fd;
    uint64_t size, offset; /* of the file */
    bool overdue;
    AVIOContext *io;
    AVFormatContext *fmt;
    AVCodecContext *video;
    AVCodecContext *subs[REC_TRACKS_MAX]; /* per stream; NULL: not a text subtitle */
    int video_index;
    int64_t zero_us; /* timestamp of the file's start */
    AVPacket *packet;
    AVFrame *frame;
    bool draining;
    int drain_errors;
    int64_t last_ms;
    uint32_t rotation;
    struct SwsContext *sws_small, *sws_gray, *sws_rgb;
    buf text;
    struct media_report report;
};

/* ---- input ---- */

static int io_read(void *ctx, uint8_t *to, int n)
{
    media *m = ctx;
    ssize_t got;
    do
        got = pread(m->fd, to, (size_t)n, (off_t)m->offset);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return AVERROR(EIO);
    if (got == 0)
        return AVERROR_EOF;
    m->offset += (uint64_t)got;
    return (int)got;
}

static int64_t io_seek(void *ctx, int64_t to, int whence)
{
    media *m = ctx;
    if (whence & AVSEEK_SIZE)
        return (int64_t)m->size;
    whence &= ~AVSEEK_FORCE;
    int64_t base = whence == SEEK_CUR   ? (int64_t)m->offset
                   : whence == SEEK_END ? (int64_t)m->size
                                        : 0;
    if (to > INT64_MAX - base || base + to < 0)
        return AVERROR(EINVAL);
    m->offset = (uint64_t)(base + to);
    return base + to;
}

static int interrupted(void *ctx)
{
    media *m = ctx;
    m->overdue = m->overdue || clock_mono_us() > m->lim.deadline_us;
    return m->overdue;
}

/* A file that refers to others (MOV data references, playlists) gets nothing. */
static int refuse_open(AVFormatContext *s UNUSED, AVIOContext **pb UNUSED, const char *url UNUSED,
                       int flags UNUSED, AVDictionary **options UNUSED)
{
    return AVERROR(EPERM);
}

static int too_late(struct why *w)
{
    return why_set(w, ERR_TIMEOUT, "file", "reading the video took longer than is allowed");
}

/* ---- opening ---- */

static int open_format(media *m, const char *demuxer, struct why *w)
{
    uint8_t *buffer = av_malloc(IO_BYTES);
    m->io = buffer ? avio_alloc_context(buffer, IO_BYTES, 0, m, io_read, NULL, io_seek) : NULL;
    m->fmt = avformat_alloc_context();
    if (!m->io || !m->fmt) {
        if (!m->io)
            av_free(buffer);
        return why_set(w, ERR_NOMEM, NULL, "no memory to read the video");
    }
    m->fmt->pb = m->io;
    m->fmt->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_DISCARD_CORRUPT;
    m->fmt->io_open = refuse_open;
    m->fmt->interrupt_callback = (AVIOInterruptCB){interrupted, m};
    AVDictionary *o = NULL;
    av_dict_set(&o, "format_whitelist", FORMATS, 0);
    av_dict_set(&o, "codec_whitelist", CODECS, 0);
    av_dict_set(&o, "protocol_whitelist", "", 0);
    av_dict_set(&o, "probesize", PROBE_BYTES, 0);
    av_dict_set(&o, "analyzeduration", ANALYZE_US, 0);
    av_dict_set(&o, "indexmem", INDEX_BYTES, 0);
    av_dict_set_int(&o, "max_streams", REC_TRACKS_MAX, 0);
    int e = avformat_open_input(&m->fmt, NULL, av_find_input_format(demuxer),
                                &o); /* frees fmt on failure */
    av_dict_free(&o);
    if (e >= 0)
        e = avformat_find_stream_info(m->fmt, NULL);
    if (m->overdue)
        return too_late(w);
    if (e == AVERROR(ENOMEM))
        return why_set(w, ERR_TOO_BIG, "file",
                       "the file's index asks for more memory than is allowed");
    if (e < 0)
        return why_set(w, ERR_UNREADABLE, "file",
                       "the file ends early or is damaged: its header cannot be read");
    return 0;
}

static const AVCodec *known_decoder(enum AVCodecID id)
{
    for (size_t i = 0; i < ARRAY_LEN(DECODERS); i++)
        if (DECODERS[i].id == id)
            return avcodec_find_decoder_by_name(DECODERS[i].decoder);
    return NULL;
}

/* Cover pictures are streams of type video too. */
static bool is_video(const AVStream *s)
{
    return s->codecpar->codec_type == AVMEDIA_TYPE_VIDEO &&
           !(s->disposition & (AV_DISPOSITION_ATTACHED_PIC | AV_DISPOSITION_TIMED_THUMBNAILS));
}

static uint64_t n_pixels(const AVStream *s)
{
    return s->codecpar->width > 0 && s->codecpar->height > 0
               ? (uint64_t)s->codecpar->width * (uint64_t)s->codecpar->height
               : 0;
}

/* Decodable before default before large before first. */
static bool better(const AVStream *a, const AVStream *b)
{
    bool da = known_decoder(a->codecpar->codec_id), db = known_decoder(b->codecpar->codec_id);
    if (da != db)
        return da;
    int fa = a->disposition & AV_DISPOSITION_DEFAULT, fb = b->disposition & AV_DISPOSITION_DEFAULT;
    return fa != fb ? fa > fb : n_pixels(a) > n_pixels(b);
}

static int select_video(media *m, struct why *w)
{
    m->video_index = -1;
    bool audio = false;
    for (unsigned i = 0; i < m->fmt->nb_streams; i++) {
        const AVStream *s = m->fmt->streams[i];
        audio |= s->codecpar->codec_type == AVMEDIA_TYPE_AUDIO;
        if (is_video(s) && (m->video_index < 0 || better(s, m->fmt->streams[m->video_index])))
            m->video_index = (int)i;
    }
    m->report.has_audio = audio;
    if (m->video_index >= 0)
        return 0;
    return why_set(w, ERR_UNREADABLE, "file",
                   audio ? "the file holds sound but no video track"
                         : "the file has no video track");
}

static int check_size(const media *m, int64_t width, int64_t height, struct why *w)
{
    if (width > DIMENSION_MAX || height > DIMENSION_MAX ||
        (uint64_t)(width * height) > m->lim.pixels_max)
        return why_set(w, ERR_TOO_BIG, "file",
                       "its pictures have %lld x %lld pixels; at most %llu pixels are read",
                       (long long)width, (long long)height, (unsigned long long)m->lim.pixels_max);
    return 0;
}

static AVCodecContext *open_codec(const media *m, const AVStream *s, const AVCodec *codec)
{
    AVCodecContext *c = avcodec_alloc_context3(codec);
    if (!c || avcodec_parameters_to_context(c, s->codecpar) < 0)
        goto fail;
    c->pkt_timebase = s->time_base;
    c->thread_count =
        1; /* the sandbox has no threads; many files side by side use the cores instead */
    c->max_pixels = (int64_t)m->lim.pixels_max;
    c->strict_std_compliance = FF_COMPLIANCE_NORMAL;
    if (codec->type == AVMEDIA_TYPE_VIDEO && m->report.keyframes)
        c->skip_frame = AVDISCARD_NONKEY;
    if (avcodec_open2(c, codec, NULL) < 0)
        goto fail;
    return c;
fail:
    avcodec_free_context(&c);
    return NULL;
}

static uint32_t rotation_of(const AVStream *s)
{
    size_t n = 0;
    const uint8_t *side = av_stream_get_side_data(s, AV_PKT_DATA_DISPLAYMATRIX, &n);
    if (!side || n < 9 * sizeof(int32_t))
        return 0;
    int32_t matrix[9];
    memcpy(matrix, side, sizeof matrix);
    double degrees = -av_display_rotation_get(matrix); /* libav counts anticlockwise */
    if (isnan(degrees))
        return 0;
    long quarter = lround(degrees / 90);
    return (uint32_t)(((quarter % 4) + 4) % 4) * 90;
}

/* Long and large files are read at their key frames, because every picture would take too long. */
static bool too_much_work(const media *m, const AVStream *s)
{
    double fps = av_q2d(av_guess_frame_rate(m->fmt, m->fmt->streams[m->video_index], NULL));
    double seconds = (double)media_duration_ms(m) / 1000;
    return (double)n_pixels(s) * fps * seconds > (double)m->lim.exact_pixels_max;
}

static int open_video(media *m, struct why *w)
{
    AVStream *s = m->fmt->streams[m->video_index];
    const AVCodec *codec = known_decoder(s->codecpar->codec_id);
    if (!codec)
        return why_set(w, ERR_UNSUPPORTED, "file",
                       "its video is coded as %s, which is not read here (H.264, HEVC, VP8, VP9, "
                       "AV1, MPEG-4, MPEG-2, MJPEG are)",
                       avcodec_get_name(s->codecpar->codec_id));
    int e = check_size(m, s->codecpar->width, s->codecpar->height, w);
    if (e < 0)
        return e;
    m->report.keyframes = m->lim.keyframes || too_much_work(m, s);
    m->video = open_codec(m, s, codec);
    if (!m->video)
        return why_set(w, ERR_UNREADABLE, "file",
                       "the file is damaged: its video (%s) cannot be opened", codec->name);
    m->rotation = rotation_of(s);
    return 0;
}

static void open_subtitles(media *m)
{
    for (unsigned i = 0; i < m->fmt->nb_streams; i++) {
        AVStream *s = m->fmt->streams[i];
        if (s->codecpar->codec_type != AVMEDIA_TYPE_SUBTITLE)
            continue;
        const AVCodec *codec = known_decoder(s->codecpar->codec_id);
        m->report.has_picture_subtitles |= !codec;
        if (codec)
            m->subs[i] = open_codec(m, s, codec);
    }
}

static void discard_the_rest(media *m)
{
    for (unsigned i = 0; i < m->fmt->nb_streams; i++) {
        AVStream *s = m->fmt->streams[i];
        s->discard = AVDISCARD_ALL;
        if ((int)i == m->video_index)
            s->discard =
                AVDISCARD_DEFAULT; /* with key frames alone, the others still say how long it is */
        else if (m->subs[i])
            s->discard = AVDISCARD_DEFAULT;
    }
}

static uint64_t claimed_ms(const media *m)
{
    const AVStream *s = m->fmt->streams[m->video_index];
    if (s->duration > 0)
        return (uint64_t)av_rescale_q(s->duration, s->time_base, (AVRational){1, 1000});
    return media_duration_ms(m);
}

int media_open(int fd, uint64_t size, const char *demuxer, const struct media_limits *lim,
               media **out, struct why *w)
{
    av_log_set_level(AV_LOG_QUIET);
    av_max_alloc(ALLOC_MAX);
    media *m = xcalloc(1, sizeof *m);
    m->lim = *lim;
    m->fd = fd;
    m->size = size;
    m->last_ms = -1;
    int e = open_format(m, demuxer, w);
    if (e < 0)
        goto fail;
    e = m->fmt->nb_streams > REC_TRACKS_MAX
            ? why_set(w, ERR_TOO_BIG, "file", "the file has %u tracks; at most %d are read",
                      m->fmt->nb_streams, REC_TRACKS_MAX)
            : select_video(m, w);
    if (e < 0 || (e = open_video(m, w)) < 0)
        goto fail;
    open_subtitles(m);
    discard_the_rest(m);
    m->zero_us = m->fmt->start_time == AV_NOPTS_VALUE ? 0 : m->fmt->start_time;
    m->report.claimed_duration_ms = claimed_ms(m);
    m->packet = av_packet_alloc();
    m->frame = av_frame_alloc();
    CHECK(m->packet && m->frame);
    *out = m;
    return 0;
fail:
    media_close(m);
    return e;
}

void media_close(media *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < ARRAY_LEN(m->subs); i++)
        avcodec_free_context(&m->subs[i]);
    avcodec_free_context(&m->video);
    av_packet_free(&m->packet);
    av_frame_free(&m->frame);
    sws_freeContext(m->sws_small);
    sws_freeContext(m->sws_gray);
    sws_freeContext(m->sws_rgb);
    avformat_close_input(&m->fmt);
    if (m->io)
        av_freep(&m->io->buffer);
    avio_context_free(&m->io);
    buf_clear(&m->text);
    free(m);
}

/* ---- what it holds ---- */

static slice meta(AVDictionary *d, const char *key, size_t most)
{
    const AVDictionaryEntry *t = av_dict_get(d, key, NULL, 0);
    slice s = slice_str(t ? t->value : "");
    if (s.n > most)
        s.n = utf8_complete_len(s.p, most);
    return s;
}

slice media_format(const media *m)
{
    return slice_str(m->fmt->iformat->name);
}

slice media_title(const media *m)
{
    return meta(m->fmt->metadata, "title", REC_TITLE_MAX);
}

uint64_t media_duration_ms(const media *m)
{
    int64_t us = m->fmt->duration;
    return us > 0 ? (uint64_t)us / 1000 : 0;
}

size_t media_n_tracks(const media *m)
{
    return m->fmt->nb_streams;
}

static uint32_t bounded(int64_t v, uint32_t most)
{
    return v < 0 ? 0 : v > most ? most : (uint32_t)v;
}

/* Pixels need not be square: the width is stretched, never the height. */
static int64_t shown_width(const media *m, const AVStream *s, int64_t width)
{
    AVRational shape = av_guess_sample_aspect_ratio(m->fmt, m->fmt->streams[s->index], NULL);
    if (shape.num <= 0 || shape.den <= 0 || av_q2d(shape) > ASPECT_MAX ||
        av_q2d(shape) < 1.0 / ASPECT_MAX)
        return width;
    return av_rescale(width, shape.num, shape.den);
}

static void video_facts(const media *m, AVStream *s, struct rec_track *out)
{
    out->rotation = rotation_of(s);
    int64_t w = shown_width(m, s, s->codecpar->width), h = s->codecpar->height;
    bool turned = out->rotation == 90 || out->rotation == 270;
    out->width = bounded(turned ? h : w, REC_DIMENSION_MAX);
    out->height = bounded(turned ? w : h, REC_DIMENSION_MAX);
    AVRational fps = av_guess_frame_rate(m->fmt, s, NULL);
    if (fps.num > 0 && fps.den > 0)
        out->fps_milli = bounded(av_rescale(1000, fps.num, fps.den), 1000000);
}

void media_track(const media *m, size_t i, struct rec_track *out)
{
    AVStream *s = m->fmt->streams[i];
    *out = (struct rec_track){.index = (uint32_t)i,
                              .codec = slice_str(avcodec_get_name(s->codecpar->codec_id))};
    out->language = meta(s->metadata, "language", REC_NAME_MAX);
    if (slice_eq_str(out->language, "und"))
        out->language = (slice){0};
    out->title = meta(s->metadata, "title", REC_TITLE_MAX);
    out->selected = (int)i == m->video_index;
    switch (s->codecpar->codec_type) {
    case AVMEDIA_TYPE_VIDEO:
        out->kind = is_video(s) ? REC_KIND_VIDEO : REC_KIND_OTHER;
        video_facts(m, s, out);
        break;
    case AVMEDIA_TYPE_AUDIO:
        out->kind = REC_KIND_AUDIO;
        out->channels = bounded(s->codecpar->ch_layout.nb_channels, 255);
        out->sample_rate = bounded(s->codecpar->sample_rate, 10000000);
        break;
    case AVMEDIA_TYPE_SUBTITLE:
        out->kind = REC_KIND_SUBTITLE;
        break;
    default:
        break;
    }
}

size_t media_n_chapters(const media *m)
{
    return m->fmt->nb_chapters < REC_CHAPTERS_MAX ? m->fmt->nb_chapters : REC_CHAPTERS_MAX;
}

/* A timestamp as milliseconds from the file's start. */
static int64_t from_start_ms(const media *m, int64_t ts, AVRational base)
{
    int64_t us = av_rescale_q(ts, base, AV_TIME_BASE_Q);
    if (us == INT64_MIN || us == INT64_MAX)
        return 0;
    /* Both are below 2^63 in magnitude; their difference may not be. */
    int64_t d;
    if (__builtin_sub_overflow(us, m->zero_us, &d))
        return 0;
    return d < 0 ? 0 : (d + 500) / 1000;
}

static uint32_t time_ms(int64_t ms)
{
    return bounded(ms, REC_TIME_MAX_MS);
}

void media_chapter(const media *m, size_t i, struct media_chapter *out)
{
    const AVChapter *c = m->fmt->chapters[i];
    out->start_ms = time_ms(from_start_ms(m, c->start, c->time_base));
    out->end_ms =
        c->end == AV_NOPTS_VALUE ? out->start_ms : time_ms(from_start_ms(m, c->end, c->time_base));
    if (out->end_ms < out->start_ms)
        out->end_ms = out->start_ms;
    out->title = meta(c->metadata, "title", REC_TITLE_MAX);
}

/* ---- reading ---- */

static int64_t frame_length_ms(const media *m)
{
    AVStream *s = m->fmt->streams[m->video_index];
    int64_t ms = av_rescale_q(m->frame->pkt_duration, s->time_base, (AVRational){1, 1000});
    if (m->frame->pkt_duration > 0 && ms > 0 && ms < 60000)
        return ms;
    AVRational fps = av_guess_frame_rate(m->fmt, s, NULL);
    ms = fps.num > 0 && fps.den > 0 ? av_rescale(1000, fps.den, fps.num) : 40;
    return ms < 1 ? 1 : ms > 1000 ? 1000 : ms;
}

/* A frame without a timestamp, or one that goes back, takes its place behind the last. */
static int64_t frame_time_ms(media *m)
{
    AVStream *s = m->fmt->streams[m->video_index];
    int64_t ts = m->frame->best_effort_timestamp;
    int64_t ms =
        ts == AV_NOPTS_VALUE ? m->last_ms + frame_length_ms(m) : from_start_ms(m, ts, s->time_base);
    if (ms <= m->last_ms)
        ms = m->last_ms + 1;
    return ms;
}

static int take_frame(media *m, struct media_event *out, struct why *w)
{
    int e = check_size(m, m->frame->width, m->frame->height, w); /* it may change in mid-stream */
    if (e < 0)
        return e;
    if (++m->report.frames > m->lim.frames_max)
        return why_set(w, ERR_TOO_BIG, "file", "the video has more than %llu pictures",
                       (unsigned long long)m->lim.frames_max);
    int64_t ms = frame_time_ms(m);
    if (ms > m->lim.duration_max_ms || ms > (int64_t)REC_TIME_MAX_MS) {
        m->report.cut_by_duration = true;
        *out = (struct media_event){.kind = MEDIA_END};
        return 0;
    }
    m->last_ms = ms;
    int64_t end = ms + frame_length_ms(m);
    if ((uint64_t)time_ms(end) > m->report.duration_ms)
        m->report.duration_ms = (uint64_t)time_ms(end);
    *out = (struct media_event){.kind = MEDIA_FRAME,
                                .start_ms = time_ms(ms),
                                .end_ms = time_ms(end),
                                .position = m->offset};
    return 0;
}

/* Collects the text of a decoded subtitle; false: nothing to show. */
static bool subtitle_text(media *m, const AVSubtitle *sub)
{
    buf_reset(&m->text);
    for (unsigned i = 0; i < sub->num_rects; i++) {
        if (m->text.n > 0)
            buf_put_byte(&m->text, '\n');
        if (sub->rects[i]->ass)
            subtext_from_ass(slice_str(sub->rects[i]->ass), &m->text);
        else if (sub->rects[i]->text)
            subtext_plain(slice_str(sub->rects[i]->text), &m->text);
    }
    if (m->text.n > REC_TEXT_MAX)
        m->text.n = utf8_complete_len(m->text.p, REC_TEXT_MAX);
    return slice_trim(buf_slice(&m->text)).n > 0;
}

static bool take_subtitle(media *m, struct media_event *out)
{
    AVPacket *p = m->packet;
    AVStream *s = m->fmt->streams[p->stream_index];
    AVSubtitle sub = {0};
    int got = 0;
    if (avcodec_decode_subtitle2(m->subs[p->stream_index], &sub, &got, p) < 0)
        m->report.damaged++;
    bool shown = got && p->pts != AV_NOPTS_VALUE && subtitle_text(m, &sub);
    if (shown) {
        int64_t start = from_start_ms(m, p->pts, s->time_base) + sub.start_display_time;
        int64_t length = av_rescale_q(p->duration, s->time_base, (AVRational){1, 1000});
        if (p->duration <= 0)
            length = sub.end_display_time > sub.start_display_time &&
                             sub.end_display_time < REC_TIME_MAX_MS
                         ? (int64_t)sub.end_display_time - sub.start_display_time
                         : SUBTITLE_DEFAULT_MS;
        const AVDictionaryEntry *language = av_dict_get(s->metadata, "language", NULL, 0);
        *out = (struct media_event){
            .kind = MEDIA_SUBTITLE,
            .start_ms = time_ms(start),
            .end_ms = time_ms(start + length),
            .track = (uint32_t)p->stream_index,
            .language = language && strcmp(language->value, "und") != 0 ? language->value : "",
            .text = slice_trim(buf_slice(&m->text))};
        shown = out->start_ms <= m->lim.duration_max_ms;
    }
    if (got)
        avsubtitle_free(&sub);
    return shown;
}

/* How far the packets reach: the only word about the end when most of them are not decoded. */
static void note_end(media *m)
{
    const AVPacket *p = m->packet;
    const AVStream *s = m->fmt->streams[m->video_index];
    if (!m->report.keyframes || p->pts == AV_NOPTS_VALUE || p->duration < 0 ||
        p->duration > INT32_MAX)
        return;
    int64_t end = from_start_ms(m, p->pts, s->time_base) +
                  av_rescale_q(p->duration, s->time_base, (AVRational){1, 1000});
    if (end > (int64_t)m->report.duration_ms && end <= (int64_t)m->lim.duration_max_ms)
        m->report.duration_ms = (uint64_t)time_ms(end);
}

/* Feeds the decoder one packet. 1: *out holds a subtitle; 0: go on; or an error. */
static int feed(media *m, struct media_event *out, struct why *w)
{
    int e = av_read_frame(m->fmt, m->packet);
    if (interrupted(m))
        return too_late(w);
    if (e < 0) { /* the end, or damage that nothing can be read behind */
        m->report.damaged += e != AVERROR_EOF;
        m->draining = true;
        m->report.damaged += avcodec_send_packet(m->video, NULL) < 0;
        return 0;
    }
    int shown = 0;
    if (++m->report.packets > m->lim.packets_max)
        shown = why_set(w, ERR_TOO_BIG, "file", "the file has more than %llu packets",
                        (unsigned long long)m->lim.packets_max);
    else if (m->packet->stream_index == m->video_index) {
        note_end(m);
        m->report.damaged += avcodec_send_packet(m->video, m->packet) < 0;
    } else if (m->packet->stream_index >= 0 && m->packet->stream_index < REC_TRACKS_MAX &&
               m->subs[m->packet->stream_index])
        shown = take_subtitle(m, out);
    av_packet_unref(m->packet);
    return shown;
}

int media_next(media *m, struct media_event *out, struct why *w)
{
    for (;;) {
        av_frame_unref(m->frame);
        int e = avcodec_receive_frame(m->video, m->frame);
        if (e >= 0)
            return take_frame(m, out, w);
        if (e == AVERROR_EOF ||
            (m->draining && (e == AVERROR(EAGAIN) || m->drain_errors == DRAIN_ERRORS_MAX))) {
            *out = (struct media_event){.kind = MEDIA_END};
            return 0;
        }
        if (e != AVERROR(EAGAIN))
            m->report.damaged++;
        if (m->draining && ++m->drain_errors < DRAIN_ERRORS_MAX)
            continue; /* the decoder goes on behind a damaged picture, and ends with EOF */
        e = feed(m, out, w);
        if (e != 0)
            return e < 0 ? e : 0;
    }
}

/* ---- pictures ---- */

static int scale(struct SwsContext **sws, const AVFrame *f, enum AVPixelFormat format, int w, int h,
                 uint8_t *const planes[4], const int strides[4])
{
    if (!f->data[0] || f->width <= 0 || f->height <= 0 || !sws_isSupportedInput(f->format))
        return ERR_UNREADABLE;
    bool shrinks = w <= f->width && h <= f->height;
    *sws = sws_getCachedContext(*sws, f->width, f->height, f->format, w, h, format,
                                shrinks ? SWS_AREA : SWS_BICUBIC, NULL, NULL, NULL);
    if (!*sws)
        return ERR_NOMEM;
    return sws_scale(*sws, (const uint8_t *const *)f->data, f->linesize, 0, f->height, planes,
                     strides) == h
               ? 0
               : ERR_UNREADABLE;
}

int media_small(media *m, uint8_t out[SMALL_BYTES])
{
    uint8_t *planes[4] = {out, out + SMALL_PLANE, out + 2 * SMALL_PLANE, NULL};
    int strides[4] = {SMALL_W, SMALL_W, SMALL_W, 0};
    return scale(&m->sws_small, m->frame, AV_PIX_FMT_YUV444P, SMALL_W, SMALL_H, planes, strides);
}

int media_picture(media *m, uint32_t edge, bool grow, uint32_t channels, struct picture *out)
{
    int64_t shown = shown_width(m, m->fmt->streams[m->video_index], m->frame->width);
    uint32_t w, h;
    picture_fit(bounded(shown, REC_DIMENSION_MAX), bounded(m->frame->height, REC_DIMENSION_MAX),
                edge, grow, &w, &h);
    /* swscale writes a little beyond a row's end: rows of our own, wider than needed, then packed.
     */
    int stride = (int)((w * channels + 63) & ~63u);
    uint8_t *rows = av_malloc((size_t)stride * h + 64);
    if (!rows)
        return ERR_NOMEM;
    uint8_t *planes[4] = {rows};
    int strides[4] = {stride};
    int e =
        scale(channels == 1 ? &m->sws_gray : &m->sws_rgb, m->frame,
              channels == 1 ? AV_PIX_FMT_GRAY8 : AV_PIX_FMT_RGB24, (int)w, (int)h, planes, strides);
    if (e >= 0)
        e = picture_init(out, w, h, channels);
    for (uint32_t y = 0; e >= 0 && y < h; y++)
        memcpy(out->p + (size_t)y * w * channels, rows + (size_t)y * (size_t)stride,
               (size_t)w * channels);
    av_free(rows);
    if (e >= 0 && (e = picture_rotate(out, m->rotation)) < 0)
        picture_clear(out);
    return e;
}

struct media_report media_report(const media *m)
{
    return m->report;
}
