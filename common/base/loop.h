/* One thread's event loop: epoll, timers in a heap, hooks before every sleep (ZeroMQ's edge-triggered
 * fd needs them), signals, and work posted by other threads. All callbacks run on the loop's thread.
 * Only loop_post and loop_stop may be called from other threads. */
#ifndef NUNCHI_LOOP_H
#define NUNCHI_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

typedef struct loop loop;
typedef struct loop_fd loop_fd;

typedef void (*loop_fd_fn)(void *ctx, uint32_t epoll_events);
typedef void (*loop_fn)(void *ctx);
/* Returns true if work is pending: then the loop does not sleep before its next round. */
typedef bool (*loop_prepare_fn)(void *ctx);

/* Embedded by its owner, who keeps it alive while set. Zero-initialise it. */
struct loop_timer {
    loop_fn fn;
    void *ctx;
    uint64_t at_us; /* monotonic */
    size_t heap_index; /* 0: not set */
};

loop *loop_new(void); /* aborts if the kernel refuses */
void loop_free(loop *l);
int loop_run(loop *l);   /* until loop_stop; returns the exit code given to it. A stopped loop stays stopped. */
void loop_stop(loop *l, int exit_code); /* the last exit code given counts */
bool loop_stopping(const loop *l);
uint64_t loop_now_us(const loop *l); /* the time at the start of this round */
void loop_turn(loop *l, uint64_t max_wait_us); /* one round; for tests and nested waits */

/* events: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET. The callback may delete its own or any other fd. */
loop_fd *loop_fd_add(loop *l, int fd, uint32_t events, loop_fd_fn fn, void *ctx); /* NULL if epoll refuses */
void loop_fd_set(loop *l, loop_fd *f, uint32_t events);
void loop_fd_del(loop *l, loop_fd *f); /* does not close; NULL is allowed */

void loop_timer_set(loop *l, struct loop_timer *t, uint64_t at_us); /* sets or moves */
void loop_timer_in(loop *l, struct loop_timer *t, uint64_t delay_us);
void loop_timer_cancel(loop *l, struct loop_timer *t); /* harmless if not set */

/* Called before every sleep and after every round of events. Returned handle goes to loop_prepare_del. */
void *loop_prepare_add(loop *l, loop_prepare_fn fn, void *ctx);
void loop_prepare_del(loop *l, void *handle);

/* Thread-safe: runs fn(ctx) on the loop's thread, in order. What is still waiting when the loop is freed never runs. */
void loop_post(loop *l, loop_fn fn, void *ctx);

/* Blocks the signals and delivers them here through a signalfd. Call before any thread is made. */
void loop_signal(loop *l, int signo, void (*fn)(void *ctx, int signo), void *ctx);

#endif
