/* One connection that asks and reads. Between run.c and stream.c. */
#ifndef NUNCHI_LOAD_STREAM_H
#define NUNCHI_LOAD_STREAM_H

#include "common/base/list.h"
#include "common/base/loop.h"
#include "tests/load/lib/answer.h"
#include "tests/load/lib/run.h"

#define READ_BYTES 65536

struct stream {
    struct list idle; /* in run.idle while it asks nothing */
    struct run *r;
    int fd; /* -1: not connected */
    loop_fd *watch;
    bool busy, slow;
    bool fresh; /* its connection has answered nothing yet */
    bool ever;  /* it had text */
    buf out;
    size_t sent;
    struct answer in;
    uint64_t wanted; /* the sum of the right answer, with --check-words */
    uint64_t begun_us, last_us;
    uint64_t steady_pieces; /* of this answer's, those that came in the steady time */
    struct loop_timer read_later;
};

struct run {
    const struct load_options *o;
    struct load_result *to;
    struct target target;
    struct prompts prompts;
    buf model, body, text;
    loop *l;
    void *prepare;
    struct stream *streams;
    struct list idle;
    size_t n_measured, n_ever; /* streams that are not slow; those of them that had text */
    uint64_t n_requests, n_ended, n_slow;
    uint64_t start_us, stop_us, end_us; /* stop: nothing begins any more */
    uint64_t steady_from_us, steady_to_us;
    uint64_t chance; /* of the arrivals */
    double next_us;  /* the next arrival, from the start */
    struct loop_timer arrival, timeout;
    char piece[READ_BYTES];
};

void stream_init(struct stream *s, struct run *r, bool slow);
void stream_clear(struct stream *s);
/* number: of the prompt. begun_us: what its times count from. */
void stream_ask(struct stream *s, uint64_t number, uint64_t begun_us);
void stream_give_up(struct stream *s); /* the run ends: counts as FAIL_TIMEOUT if it is busy */
/* Called by a stream whose request has ended, well or not. */
void run_ended(struct run *r, struct stream *s);

#endif
