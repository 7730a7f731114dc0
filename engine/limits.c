/* What this machine can do at most, measured in about a second: what speeds are a share of. */
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/thread.h"
#include "engine/engine.h"
#include "engine/kernels/kernels.h"
#include "engine/pool.h"

#define MEASURE_US                                                                                 \
    200000 /* of each limit: the best of many short runs, since other work only makes it slower */
#define ROUNDS_AT_ONCE 4096 /* of one part: tens of microseconds */
#define PARTS_PER_THREAD 16
#define CACHES 8 /* memory is read over so many times the last cache */
#define READ_BYTES_LEAST ((size_t)256 << 20)
#define READ_BYTES_MOST ((size_t)2 << 30)
#define READ_PART_BYTES ((size_t)4 << 20)

struct measuring {
    pool *pool;
    const struct peak *peak;
    const float *memory;
    size_t bytes;
    _Atomic int32_t sink;
};

static void dots(void *ctx, size_t part UNUSED, int thread UNUSED)
{
    struct measuring *m = ctx;
    m->sink += m->peak->dots(ROUNDS_AT_ONCE);
}

static void fmas(void *ctx, size_t part UNUSED, int thread UNUSED)
{
    struct measuring *m = ctx;
    m->sink += m->peak->fmas(ROUNDS_AT_ONCE);
}

static void reads(void *ctx, size_t part, int thread UNUSED)
{
    struct measuring *m = ctx;
    m->sink += m->peak->read(m->memory + part * (READ_PART_BYTES / sizeof *m->memory),
                             READ_PART_BYTES / sizeof *m->memory);
}

/* Units a second of the best run, of `units` each. */
static double best_rate(struct measuring *m, pool_fn fn, size_t n_parts, double units)
{
    uint64_t begin = clock_mono_us(), now = begin, least = UINT64_MAX;
    while (now - begin < MEASURE_US) {
        uint64_t start = now;
        pool_run(m->pool, fn, m, n_parts);
        now = clock_mono_us();
        least = now - start < least ? now - start : least;
    }
    return units / ((double)(least ? least : 1) * 1e-6);
}

/* Enough that the last cache holds little of it, and no more than a quarter of the machine. */
static size_t bytes_to_read(void)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE), pages = sysconf(_SC_AVPHYS_PAGES),
         page = sysconf(_SC_PAGESIZE);
    size_t most = pages > 0 && page > 0 ? (size_t)pages * (size_t)page / 4 : READ_BYTES_LEAST;
    size_t n = cache > 0 ? (size_t)cache * CACHES : 0;
    n = n > READ_BYTES_LEAST ? n : READ_BYTES_LEAST;
    n = n < READ_BYTES_MOST ? n : READ_BYTES_MOST;
    n = n < most ? n : most;
    return n / READ_PART_BYTES * READ_PART_BYTES;
}

static int measure_reads(struct measuring *m, double *out, struct why *w)
{
    m->bytes = bytes_to_read();
    if (!m->bytes)
        return why_set(w, ERR_NOMEM, "memory",
                       "too little free memory to measure how fast it is read");
    void *p = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return why_set(w, ERR_NOMEM, "memory", "no memory to measure how fast it is read");
    madvise(p, m->bytes, MADV_HUGEPAGE);
    memset(p, 1, m->bytes); /* pages that nobody wrote are one page of zeros */
    m->memory = p;
    *out = best_rate(m, reads, m->bytes / READ_PART_BYTES, (double)m->bytes);
    munmap(p, m->bytes);
    return 0;
}

int engine_limits_measure(const char *isa, int threads, struct engine_limits *out, struct why *w)
{
    const struct kernels *k;
    struct measuring m = {0};
    *out = (struct engine_limits){.threads = threads ? threads : thread_cpus()};
    int e = kernels_choose(isa, &k, w);
    if (e >= 0)
        e = pool_new(out->threads, &m.pool, w);
    if (e < 0)
        return e;
    m.peak = &k->peak;
    size_t n = (size_t)out->threads * PARTS_PER_THREAD;
    double rounds = (double)n * ROUNDS_AT_ONCE;
    if (k->peak.dot_ops)
        out->int8_ops = best_rate(&m, dots, n, rounds * k->peak.dot_ops);
    if (k->peak.fma_ops)
        out->float_ops = best_rate(&m, fmas, n, rounds * k->peak.fma_ops);
    e = measure_reads(&m, &out->read_bytes, w);
    pool_free(m.pool);
    return e;
}
