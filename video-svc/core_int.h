/* What the files of the core share. Nothing outside them includes it, but their tests. */
#ifndef NUNCHI_VIDEO_CORE_INT_H
#define NUNCHI_VIDEO_CORE_INT_H

#include "common/base/list.h"
#include "common/base/map.h"
#include "common/base/timers.h"
#include "video-svc/core.h"
#include "video-svc/notes.h"

enum vid_state {
    VID_RECEIVING,
    VID_SEALING,
    VID_LOOKUP,
    VID_SAME,
    VID_QUEUED,
    VID_DECODING,
    VID_STORING,
    VID_TELLING,
    VID_REMOVING,
};

enum put_state { PUT_TODO, PUT_OPEN, PUT_DONE };

struct vid_job {
    struct list link; /* of vid.jobs, oldest first */
    vid *v;
    uint64_t id;
    enum vid_state state;

    bool asked; /* somebody waits for the answer */
    uint64_t gateway, request;
    uint32_t attempt;

    struct vid_saved saved;
    uint64_t announced; /* 0: unknown */
    uint64_t received, granted, written, reserved;
    digest_stream *hash;
    buf pending, writing; /* to disk: waiting, under way */
    bool ended;           /* the last piece came */
    bool disk_busy;
    bool abandoned; /* to be removed as soon as the disk is done */

    bool decoder; /* one is running */
    uint32_t tries;
    notes *notes;
    struct {
        int err;
        struct why why;
    } said; /* by the decoder's FAIL */
    Nunchi__Ingesting__Phase phase;
    uint32_t permille;

    buf packed;    /* notes; stored last */
    uint8_t *puts; /* enum put_state: picture i is 2i, its thumbnail 2i + 1, the notes the last */
    size_t n_puts, n_open, n_done;

    bool seen_before;
    uint64_t duration_ms;
    uint32_t n_scenes;
    int err; /* how it ended */
    struct why why;

    uint64_t patience_us;    /* until when a store that is away is waited for; 0: not waiting */
    struct loop_timer alarm; /* of the state */
    struct loop_timer beat;  /* progress to the record */
};

struct vid {
    struct vid_config cfg;
    struct vid_out out;
    struct list jobs;
    map *by_id;
    struct timers timers;
    uint64_t now_us, last_id;
    uint32_t n_jobs, n_decoders;
    uint64_t spool_used;
    bool draining;
    uint64_t n_finished, n_failed, n_seen;
};

/* life.c */
struct vid_job *vid_job_new(vid *v);
void vid_job_free(struct vid_job *j);
void vid_enter_lookup(struct vid_job *j);
void vid_enter_storing(struct vid_job *j);
/* Ends a job, well (err 0) or not: the record is told, then the asker, then the file goes. */
void vid_finish(struct vid_job *j, int err, const struct why *w);
/* Ends a job that nobody wants any more: no word to anyone. */
void vid_abandon(struct vid_job *j);
void vid_start_decoders(vid *v);
void vid_say_progress(struct vid_job *j);
void vid_remove(struct vid_job *j);

#endif
