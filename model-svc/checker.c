#include "model-svc/checker.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"

/* Between pieces of 4 MiB: 100 MB/s, below one part in a hundred of what decoding reads. */
#define PAUSE_US 40000

struct checker {
    loop *l;
    struct checker_config cfg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping, removed;
};

/* False when it is time to stop. */
static bool pause_for(struct checker *c, uint64_t us)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + us % 1000000 * 1000;
    until.tv_sec += (time_t)(us / 1000000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&c->lock);
    int e = 0;
    while (!c->stopping && e == 0)
        e = pthread_cond_timedwait(&c->wake, &c->lock, &until);
    bool on = !c->stopping;
    pthread_mutex_unlock(&c->lock);
    return on;
}

static void tell_damaged(void *ctx)
{
    struct checker *c = ctx;
    c->cfg.damaged(c->cfg.ctx, c->removed);
}

/* 1: all is well; 0: time to stop; -1: damage. */
static int read_through(struct checker *c, size_t n)
{
    uint64_t begun = clock_mono_us();
    for (size_t i = 0; i < n; i++) {
        if (!engine_check_piece(c->cfg.e, i))
            return -1;
        if (!pause_for(c, PAUSE_US))
            return 0;
    }
    log_debug("weights are as they were written", LOG_U64("pieces", n),
              LOG_U64("took_us", clock_mono_us() - begun));
    return 1;
}

static void *run(void *ctx)
{
    struct checker *c = ctx;
    struct sched_param none = {0};
    size_t n = engine_n_pieces(c->cfg.e);
    pthread_setname_np(pthread_self(), "checker");
    pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    for (size_t i = 0; i < n && pause_for(c, 0); i++)
        engine_touch_piece(c->cfg.e, i);
    int on;
    do
        on = read_through(c, n);
    while (on > 0 && c->cfg.every_us > 0 && pause_for(c, c->cfg.every_us));
    if (on < 0) {
        c->removed = engine_discard_prepared(c->cfg.e) >= 0;
        loop_post(c->l, tell_damaged, c);
    }
    return NULL;
}

checker *checker_start(loop *l, const struct checker_config *cfg)
{
    if (engine_n_pieces(cfg->e) == 0)
        return NULL;
    struct checker *c = xcalloc(1, sizeof *c);
    pthread_condattr_t mono;
    c->l = l;
    c->cfg = *cfg;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake, &mono);
    pthread_condattr_destroy(&mono);
    CHECK(pthread_create(&c->thread, NULL, run, c) == 0);
    return c;
}

void checker_stop(checker *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    pthread_cond_destroy(&c->wake);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
