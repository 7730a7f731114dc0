/* What becomes of a file: received, hashed and spooled; known already or decoded; its pictures and
 * notes stored; its record told. A state machine without I/O: disk, store, decoder and gateways are
 * functions of vid_out; time is an argument. Nothing of vid_out may call back into the core before
 * it returns. One thread.
 *
 *   RECEIVING -> SEALING -> LOOKUP -> QUEUED -> DECODING -> STORING -> TELLING -> REMOVING
 *                             |  known: -------------------------------^
 *                             SAME: another job reads the same bytes; looked up again when it ends
 */
#ifndef NUNCHI_VIDEO_CORE_H
#define NUNCHI_VIDEO_CORE_H

#include "common/base/hash.h"
#include "common/wire/frame.h"
#include "proto/cache.pb-c.h"
#include "proto/session.pb-c.h"
#include "proto/video.pb-c.h"
#include "video-svc/records_read.h"

#define VID_CHUNK_MAX (256u << 10)  /* one piece of an upload */
#define VID_WINDOW_BYTES (1u << 20) /* of an upload: granted and not yet on disk */
#define VID_NAME_MAX 255            /* bytes of a file's name, for messages */
#define VID_FILE_ID_MAX 64
#define VID_TENANT_BYTES 32
#define VID_SPOOL_NAME 33 /* 32 hex digits and a NUL */
#define VID_PUTS_OPEN 8   /* pictures on their way to the store at once, for each job */

struct vid_config {
    uint32_t jobs;  /* decoders side by side */
    uint32_t queue; /* files beyond those: arriving, waiting, being stored */
    uint64_t spool_bytes, upload_max;
    uint32_t upload_silence_ms; /* between two pieces of an upload */
    uint32_t decode_ms;         /* one file in the decoder */
    uint32_t store_patience_ms; /* how long a job waits for a store that is away */
};

/* What a job needs on disk to be taken up again after a restart. */
struct vid_saved {
    char name[VID_SPOOL_NAME]; /* of its file in the spool */
    char file_id[VID_FILE_ID_MAX + 1];
    uint8_t tenant[VID_TENANT_BYTES];
    struct digest content;
    uint64_t size;
    uint32_t keyframes, frames_max;
};

enum vid_disk_op {
    VID_DISK_WRITE,  /* append `bytes`, which stay valid until vid_disk_done */
    VID_DISK_SEAL,   /* to the disk, with its journal entry: accepted from here on */
    VID_DISK_REMOVE, /* file and journal entry; cannot fail */
};

enum vid_call { VID_CALL_LOOKUP, VID_CALL_PUT, VID_CALL_PROGRESS, VID_CALL_TELL };

struct vid_out {
    void *ctx;
    /* To a gateway, about its request. */
    void (*send)(void *ctx, uint64_t gateway, uint64_t request, uint32_t attempt,
                 enum wire_type type, const ProtobufCMessage *body);
    void (*error)(void *ctx, uint64_t gateway, uint64_t request, uint32_t attempt, int err,
                  const struct why *w, uint32_t retry_ms);
    /* One operation a job at a time; answered by vid_disk_done. */
    void (*disk)(void *ctx, uint64_t job, enum vid_disk_op op, const struct vid_saved *s,
                 slice bytes);
    /* To the cache that `key` points at; answered by vid_cache_done with the same job, call and
     * tag. */
    void (*cache)(void *ctx, uint64_t job, enum vid_call call, uint32_t tag, slice key,
                  const Nunchi__CacheRequest *q, slice bulk);
    /* A decoder for this file: vid_record for what it says, vid_decoder_end once. */
    void (*decode)(void *ctx, uint64_t job, const struct vid_saved *s);
    void (*kill)(void *ctx, uint64_t job); /* vid_decoder_end still follows */
    void (*random)(void *ctx, void *p, size_t n);
};

typedef struct vid vid;

vid *vid_new(const struct vid_config *cfg, const struct vid_out *out);
void vid_free(vid *v);

/* From a gateway. Refusals go out through `error`. */
void vid_request(vid *v, uint64_t now_us, uint64_t gateway, const struct wire_head *h,
                 const Nunchi__Ingest *q);
void vid_chunk(vid *v, uint64_t now_us, uint64_t gateway, const struct wire_head *h, slice bytes);
void vid_cancel(vid *v, uint64_t now_us, uint64_t gateway, uint64_t request);
/* Its uploads end; files already accepted are read to their end. */
void vid_gateway_gone(vid *v, uint64_t now_us, uint64_t gateway);
/* A job found on disk at the start. */
void vid_resume(vid *v, uint64_t now_us, const struct vid_saved *s);

void vid_disk_done(vid *v, uint64_t now_us, uint64_t job, int err);
/* reply NULL when err < 0; frames: the bulk frames of the answer. */
void vid_cache_done(vid *v, uint64_t now_us, uint64_t job, enum vid_call call, uint32_t tag,
                    int err, const Nunchi__CacheReply *reply, const slice *frames, size_t n_frames);
void vid_record(vid *v, uint64_t now_us, uint64_t job, const struct record *r);
/* err 0: it ended by itself after DONE or FAIL; else what went wrong, with a sentence for people.
 */
void vid_decoder_end(vid *v, uint64_t now_us, uint64_t job, int err, const struct why *w);
uint64_t vid_tick(vid *v, uint64_t now_us); /* the next deadline; UINT64_MAX for none */

void vid_drain(vid *v); /* nothing new from now on */
struct vid_load {
    uint32_t running, queued, slots; /* slots: how many more would be taken */
    uint64_t spool_used;
    uint64_t done, failed, seen_before; /* since the start */
};
struct vid_load vid_load_now(const vid *v);

#endif
