/* What a file is, from its first bytes and without libav: the demuxer is chosen here and never
 * guessed by a library, so that playlists, scripts and pictures do not reach one. */
#ifndef NUNCHI_SNIFF_H
#define NUNCHI_SNIFF_H

#include "common/base/slice.h"

#define SNIFF_BYTES 4096

/* head: the first min(size, SNIFF_BYTES) bytes. The demuxer's name in *demuxer; ERR_UNREADABLE with
 * a sentence that says what the file is instead. */
int sniff(slice head, uint64_t size, const char **demuxer, struct why *w) MUST_USE;

/* Walks the boxes of an MP4 (read with pread): ERR_UNREADABLE when the index is not there or the
 * file ends early. */
int sniff_mp4(int fd, uint64_t size, struct why *w) MUST_USE;

#endif
