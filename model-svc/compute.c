#include "model-svc/compute.h"

#include <pthread.h>
#include <stdatomic.h>

#include "common/base/cgroup.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "model-svc/checker.h"

/* A progress line at most so often, or when another thing begins. */
#define PROGRESS_US 250000

struct compute {
    loop *l;
    struct compute_config cfg;
    struct compute_events ev;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct sched_work *next; /* under the lock: handed over, not begun */
    atomic_bool stopping;

    /* the thread's own; the loop reads them from `loaded` on, when they do not change any more */
    model_file *file;
    vocab *words;
    engine *e;
    checker *checker;
    int err; /* of loading */
    struct why why;

    char progress_what[16];
    uint64_t progress_us;
};

/* ---- loading ---- */

static void on_progress(void *ctx, const char *what, int permille)
{
    struct compute *c = ctx;
    uint64_t now = clock_mono_us();
    bool same = strncmp(c->progress_what, what, sizeof c->progress_what - 1) == 0;
    if (same && permille < 1000 && now - c->progress_us < PROGRESS_US)
        return;
    size_t n = strlen(what);
    n = n < sizeof c->progress_what - 1 ? n : sizeof c->progress_what - 1;
    memcpy(c->progress_what, what, n);
    c->progress_what[n] = 0;
    c->progress_us = now;
    log_info("loading", LOG_STR("what", what), LOG_I64("permille", permille));
}

/* A machine that swaps, or kills, is found out about before gigabytes are read. Weights are mapped, and workers of a host share
 * them, so what counts is whether one worker's fit at all. */
static int check_memory(const struct compute *c, struct why *w)
{
    uint64_t have = memory_total(), weights = model_file_bytes(c->file), kv = c->cfg.engine.kv_blocks ? 0 : c->cfg.engine.kv_bytes;
    bool floats = c->cfg.engine.backend && strcmp(c->cfg.engine.backend, "reference") == 0;
    if (have == 0 || floats || weights + kv <= have)
        return 0;
    return why_set(w, ERR_NOMEM, "memory",
                   "the model's weights take %.1f GB and KV %.1f GB; this machine, or its control group, has %.1f GB: take a model "
                   "of fewer bits, or less --kv-bytes",
                   (double)weights / 1e9, (double)kv / 1e9, (double)have / 1e9);
}

static int load(struct compute *c, struct why *w)
{
    int err = model_file_open(c->cfg.model, &c->file, w);
    if (err < 0 || (err = check_memory(c, w)) < 0 || (err = vocab_open(c->file, &c->words, w)) < 0)
        return err;
    struct engine_config cfg = c->cfg.engine;
    cfg.progress = on_progress;
    cfg.progress_ctx = c;
    if ((err = engine_open(c->file, &cfg, &c->e, w)) < 0)
        return err;
    if ((uint32_t)vocab_size(c->words) != engine_info(c->e)->n_vocab)
        return why_set(w, ERR_INVALID, "model", "the vocabulary has %d entries, the output %u",
                       vocab_size(c->words), engine_info(c->e)->n_vocab);
    return 0;
}

static void unload(struct compute *c)
{
    checker_stop(c->checker);
    if (c->e)
        engine_close(c->e);
    if (c->words)
        vocab_close(c->words);
    model_file_close(c->file);
}

static void tell_loaded(void *ctx)
{
    struct compute *c = ctx;
    struct checker_config check = {c->e, c->cfg.check_us, c->ev.ctx, c->ev.damaged};
    c->ev.loaded(c->ev.ctx, c->err, &c->why);
    if (c->err >= 0 && c->ev.damaged)
        c->checker = checker_start(c->l, &check);
}

/* ---- steps ---- */

static int step(struct compute *c, struct sched_work *work, struct why *w)
{
    for (size_t i = 0; i < work->n_copies; i++) {
        const struct seq_copy *k = &work->copies[i];
        int err = engine_block_copy(c->e, k->from, k->to, k->n_tokens);
        if (err < 0)
            return why_set(w, err, "", "a KV block could not be copied");
    }
    int err = engine_compute(c->e, &work->step, w);
    if (err < 0) {
        log_error("a step failed", LOG_STR("error", err_name(err)), LOG_STR("why", w->text));
        /* a step that makes no sense is our mistake, not that of whoever asked */
        return why_set(w, err == ERR_NOMEM ? err : ERR_INTERNAL, "",
                       "the engine could not compute a step");
    }
    engine_sample(c->e, work->jobs, work->n_jobs);
    return 0;
}

/* The next step; NULL when it is time to stop. */
static struct sched_work *await(struct compute *c)
{
    pthread_mutex_lock(&c->lock);
    while (!atomic_load(&c->stopping) && !c->next)
        pthread_cond_wait(&c->wake, &c->lock);
    struct sched_work *work = atomic_load(&c->stopping) ? NULL : c->next;
    c->next = NULL;
    pthread_mutex_unlock(&c->lock);
    return work;
}

/* Steps follow one another until there is nothing to compute. */
static void compute_steps(struct compute *c, struct sched_work *work)
{
    struct why why;
    while (work && !atomic_load(&c->stopping)) {
        why = (struct why){.text = ""};
        uint64_t begun = clock_mono_us();
        int err = step(c, work, &why);
        work = c->ev.stepped(c->ev.ctx, err, &why, clock_mono_us() - begun);
    }
}

static void *run(void *ctx)
{
    struct compute *c = ctx;
    pthread_setname_np(pthread_self(), "compute");
    c->err = load(c, &c->why);
    loop_post(c->l, tell_loaded, c);
    /* after a failed load nothing is ever submitted */
    for (struct sched_work *work; (work = await(c));)
        compute_steps(c, work);
    return NULL;
}

compute *compute_start(loop *l, const struct compute_config *cfg, const struct compute_events *ev)
{
    struct compute *c = xcalloc(1, sizeof *c);
    c->l = l;
    c->cfg = *cfg;
    c->ev = *ev;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->wake, NULL);
    CHECK(pthread_create(&c->thread, NULL, run, c) == 0);
    return c;
}

void compute_stop(compute *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    atomic_store(&c->stopping, true);
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    unload(c);
    pthread_cond_destroy(&c->wake);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

const struct engine_info *compute_info(const compute *c)
{
    return engine_info(c->e);
}

engine *compute_engine(const compute *c)
{
    return c->e;
}

const vocab *compute_vocab(const compute *c)
{
    return c->words;
}

static slice word_bytes(void *ctx, int32_t id)
{
    const compute *c = ctx;
    return vocab_bytes(c->words, id);
}

/* Control tokens are no part of an answer's text, whatever they are called. */
static slice word_text(void *ctx, int32_t id)
{
    const compute *c = ctx;
    switch (vocab_token_kind(c->words, id)) {
    case TOKEN_NORMAL:
    case TOKEN_USER:
    case TOKEN_BYTE:
        return vocab_bytes(c->words, id);
    default:
        return (slice){0};
    }
}

static bool word_is_end(void *ctx, int32_t id)
{
    const compute *c = ctx;
    return vocab_is_end(c->words, id);
}

struct sched_vocab compute_words(compute *c)
{
    struct sched_vocab v = {.ctx = c,
                            .text = word_text,
                            .bytes = word_bytes,
                            .is_end = word_is_end,
                            .n = vocab_size(c->words)};
    v.n_ends = vocab_ends(c->words, &v.ends);
    return v;
}

void compute_submit(compute *c, struct sched_work *work)
{
    pthread_mutex_lock(&c->lock);
    CHECK(!c->next);
    c->next = work;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}
