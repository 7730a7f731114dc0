#include "common/base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/timers.h"

/* Taken from the kernel at once; what is left comes in the next round. */
#define LOOP_EVENTS_MAX 64
#define LOOP_WAIT_MAX_US ((uint64_t)60 * 60 * 1000000)
#define LOOP_SIGNALS 65

struct loop_fd {
    struct list link; /* in fds, or in dead_fds */
    loop_fd_fn fn;    /* NULL: deleted */
    void *ctx;
    int fd;
};

struct prepare {
    struct list link;
    loop_prepare_fn fn; /* NULL: deleted */
    void *ctx;
};

struct post {
    struct post *next;
    loop_fn fn;
    void *ctx;
};

struct signal_hook {
    void (*fn)(void *ctx, int signo);
    void *ctx;
};

struct loop {
    int epoll;
    struct list fds, dead_fds, prepares;
    struct timers timers;
    uint64_t now_us;
    int depth;         /* of nested rounds: what was deleted is freed when none is running */
    bool work_pending; /* a hook said so */

    int wake; /* eventfd */
    pthread_mutex_t post_lock;
    struct post *post_first, **post_end; /* under post_lock */
    atomic_bool stopping;
    atomic_int exit_code;

    int signal_fd; /* -1 until the first loop_signal */
    sigset_t signals;
    struct signal_hook signal_hooks[LOOP_SIGNALS];
};

/* ---- work from other threads
 * ------------------------------------------------------------------------ */

static void wake_up(loop *l)
{
    const uint64_t one = 1;
    while (write(l->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
    /* EAGAIN: the counter is full, so the loop is being woken anyway */
}

static void on_wake(void *ctx, uint32_t events UNUSED)
{
    loop *l = ctx;
    uint64_t count;
    while (read(l->wake, &count, sizeof count) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&l->post_lock);
    struct post *p = l->post_first;
    l->post_first = NULL;
    l->post_end = &l->post_first;
    pthread_mutex_unlock(&l->post_lock);
    while (p) {
        struct post *next = p->next;
        p->fn(p->ctx);
        free(p);
        p = next;
    }
}

void loop_post(loop *l, loop_fn fn, void *ctx)
{
    struct post *p = xcalloc(1, sizeof *p);
    *p = (struct post){.fn = fn, .ctx = ctx};
    pthread_mutex_lock(&l->post_lock);
    bool first = l->post_first == NULL;
    *l->post_end = p;
    l->post_end = &p->next;
    if (first)
        wake_up(
            l); /* under the lock: once it is released, the loop may be freed by what was posted */
    pthread_mutex_unlock(&l->post_lock);
}

void loop_stop(loop *l, int exit_code)
{
    atomic_store(&l->exit_code, exit_code);
    atomic_store(&l->stopping, true);
    wake_up(l);
}

bool loop_stopping(const loop *l)
{
    return atomic_load(&l->stopping);
}

/* ---- file descriptors
 * ------------------------------------------------------------------------------- */

loop_fd *loop_fd_add(loop *l, int fd, uint32_t events, loop_fd_fn fn, void *ctx)
{
    loop_fd *f = xcalloc(1, sizeof *f);
    *f = (loop_fd){.fn = fn, .ctx = ctx, .fd = fd};
    struct epoll_event e = {.events = events, .data.ptr = f};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &e) < 0) {
        free(f);
        return NULL;
    }
    list_append(&l->fds, &f->link);
    return f;
}

void loop_fd_set(loop *l, loop_fd *f, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = f};
    CHECK(f->fn != NULL && epoll_ctl(l->epoll, EPOLL_CTL_MOD, f->fd, &e) == 0);
}

static void free_dead(loop *l)
{
    if (l->depth > 0)
        return; /* events of a round that is still running may point to them */
    LIST_EACH(it, &l->dead_fds)
    free(CONTAINER_OF(it, loop_fd, link));
    list_init(&l->dead_fds);
    LIST_EACH(it, &l->prepares)
    {
        struct prepare *p = CONTAINER_OF(it, struct prepare, link);
        if (p->fn)
            continue;
        list_remove(it);
        free(p);
    }
}

void loop_fd_del(loop *l, loop_fd *f)
{
    if (!f)
        return;
    /* May fail when the owner closed the descriptor first: the kernel has forgotten it then. */
    epoll_ctl(l->epoll, EPOLL_CTL_DEL, f->fd, NULL);
    f->fn = NULL;
    list_remove(&f->link);
    list_append(&l->dead_fds, &f->link);
    free_dead(l);
}

/* ---- hooks before sleep
 * ----------------------------------------------------------------------------- */

void *loop_prepare_add(loop *l, loop_prepare_fn fn, void *ctx)
{
    struct prepare *p = xcalloc(1, sizeof *p);
    p->fn = fn;
    p->ctx = ctx;
    list_append(&l->prepares, &p->link);
    return p;
}

void loop_prepare_del(loop *l, void *handle)
{
    struct prepare *p = handle;
    if (!p)
        return;
    p->fn = NULL;
    free_dead(l);
}

static bool prepare(loop *l)
{
    bool pending = false;
    LIST_EACH(it, &l->prepares)
    {
        struct prepare *p = CONTAINER_OF(it, struct prepare, link);
        if (p->fn && p->fn(p->ctx))
            pending = true;
        /* The hook may have added others behind itself. Deleted ones stay linked while a round
         * runs. */
        it_next = it->next;
    }
    return pending;
}

/* ---- timers
 * ----------------------------------------------------------------------------------------- */

void loop_timer_set(loop *l, struct loop_timer *t, uint64_t at_us)
{
    timers_set(&l->timers, t, at_us);
}

void loop_timer_in(loop *l, struct loop_timer *t, uint64_t delay_us)
{
    /* Not the round's time: a long callback before this one must not make the timer early. */
    uint64_t at_us;
    if (__builtin_add_overflow(clock_mono_us(), delay_us, &at_us))
        at_us = UINT64_MAX;
    timers_set(&l->timers, t, at_us);
}

void loop_timer_cancel(loop *l, struct loop_timer *t)
{
    timers_cancel(&l->timers, t);
}

uint64_t loop_now_us(const loop *l)
{
    return l->now_us;
}

/* ---- signals
 * ---------------------------------------------------------------------------------------- */

static void on_signal(void *ctx, uint32_t events UNUSED)
{
    loop *l = ctx;
    struct signalfd_siginfo info;
    while (read(l->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        const struct signal_hook *h = &l->signal_hooks[info.ssi_signo];
        if (h->fn)
            h->fn(h->ctx, (int)info.ssi_signo);
    }
}

void loop_signal(loop *l, int signo, void (*fn)(void *ctx, int signo), void *ctx)
{
    CHECK(signo > 0 && signo < LOOP_SIGNALS);
    l->signal_hooks[signo] = (struct signal_hook){.fn = fn, .ctx = ctx};
    CHECK(sigaddset(&l->signals, signo) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, &l->signals, NULL) == 0);
    bool first = l->signal_fd < 0;
    l->signal_fd = signalfd(l->signal_fd, &l->signals, SFD_NONBLOCK | SFD_CLOEXEC);
    CHECK(l->signal_fd >= 0);
    if (first)
        CHECK(loop_fd_add(l, l->signal_fd, EPOLLIN, on_signal, l) != NULL);
}

/* ---- life and rounds
 * -------------------------------------------------------------------------------- */

loop *loop_new(void)
{
    loop *l = xcalloc(1, sizeof *l);
    list_init(&l->fds);
    list_init(&l->dead_fds);
    list_init(&l->prepares);
    sigemptyset(&l->signals);
    l->signal_fd = -1;
    l->post_end = &l->post_first;
    CHECK(pthread_mutex_init(&l->post_lock, NULL) == 0);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(l->epoll >= 0);
    l->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(l->wake >= 0);
    CHECK(loop_fd_add(l, l->wake, EPOLLIN, on_wake, l) != NULL);
    l->now_us = clock_mono_us();
    return l;
}

static void posts_free(struct post *p)
{
    while (p) {
        struct post *next = p->next;
        free(p);
        p = next;
    }
}

void loop_free(loop *l)
{
    if (!l)
        return;
    CHECK(l->depth == 0);
    timers_clear(&l->timers);
    LIST_EACH(it, &l->prepares)
    free(CONTAINER_OF(it, struct prepare, link));
    LIST_EACH(it, &l->fds)
    free(CONTAINER_OF(it, loop_fd, link));
    pthread_mutex_lock(&l->post_lock); /* the last loop_post may still be leaving it */
    posts_free(l->post_first);
    pthread_mutex_unlock(&l->post_lock);
    pthread_mutex_destroy(&l->post_lock);
    if (l->signal_fd >= 0)
        close(l->signal_fd);
    close(l->wake);
    close(l->epoll);
    free(l);
}

/* Rounded up to whole milliseconds, which is what epoll counts in: a timer is late by at most one,
 * never early. */
static int sleep_ms(const loop *l, uint64_t max_wait_us)
{
    uint64_t now = clock_mono_us(), next = timers_next_us(&l->timers);
    uint64_t wait = next <= now ? 0 : next - now;
    if (wait > max_wait_us)
        wait = max_wait_us;
    if (wait > LOOP_WAIT_MAX_US)
        wait = LOOP_WAIT_MAX_US;
    return (int)((wait + 999) / 1000);
}

static void dispatch(const struct epoll_event *events, int n)
{
    for (int i = 0; i < n; i++) {
        loop_fd *f = events[i].data.ptr;
        if (f->fn) /* else deleted by a callback of this very round */
            f->fn(f->ctx, events[i].events);
    }
}

void loop_turn(loop *l, uint64_t max_wait_us)
{
    struct epoll_event events[LOOP_EVENTS_MAX];
    l->depth++;
    bool pending = prepare(l) || l->work_pending || loop_stopping(l);
    int n = epoll_wait(l->epoll, events, LOOP_EVENTS_MAX, pending ? 0 : sleep_ms(l, max_wait_us));
    CHECK(n >= 0 || errno == EINTR);
    l->now_us = clock_mono_us();
    dispatch(events, n);
    timers_run(&l->timers, l->now_us);
    /* Callbacks may have left something to do behind the kernel's back: a ZeroMQ send swallows the
     * edge of a message that came in. */
    l->work_pending = prepare(l);
    l->depth--;
    free_dead(l);
}

int loop_run(loop *l)
{
    while (!loop_stopping(l))
        loop_turn(l, LOOP_WAIT_MAX_US);
    return atomic_load(&l->exit_code);
}
