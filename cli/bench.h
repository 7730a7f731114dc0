/* Measures the engine alone on one model, for `nunchi bench`: prefill of a prompt, decoding of some
 * sequences together, and what this machine could do at most. */
#ifndef NUNCHI_BENCH_H
#define NUNCHI_BENCH_H

#include "engine/engine.h"

#define BENCH_BATCHES_MAX 16
#define BENCH_SEQUENCES_MAX 1024
#define BENCH_TYPES_MAX 16

struct bench_options {
    const char *model; /* a file */
    const char *isa;   /* NULL: the best */
    const char *kv_type;
    uint64_t threads; /* 0: all that this process may use */
    uint64_t prompt, gen, context, chunk, repeat;
    uint32_t batch[BENCH_BATCHES_MAX];
    size_t n_batch;
};

/* One measured speed. Each figure is the best of the repeats: other work on the machine only makes
 * it slower. */
struct bench_rate {
    uint32_t sequences;
    double tok_s;         /* of all sequences together */
    double tok_per_cpu_s; /* per second of processor time: less disturbed by other work */
    double read_bytes_s;  /* weights and KV */
    double int_ops_s;     /* multiplies and adds with quantised weights, and ... */
    double float_ops_s;   /* ... with others */
    double limit_tok_s;   /* what the limits allow; 0: unknown */
};

struct bench_result {
    char family[32], name[96], isa[16];
    struct {
        const char *type; /* borrowed from the library */
        uint64_t bytes;
    } types[BENCH_TYPES_MAX]; /* of the file's tensors, most first */
    size_t n_types;
    int threads;
    bool prepared;                    /* the weights are mapped from a prepared file */
    char in_memory_why[WHY_TEXT_MAX]; /* "" or why not */
    double load_s;
    struct engine_limits limits;
    struct engine_cost cost; /* of one token, in the middle of decoding */
    struct bench_rate prefill, decode[BENCH_BATCHES_MAX];
    uint64_t peak_rss_bytes; /* before the limits are measured: that needs memory of its own */
};

/* `say` hears what is being done, and how much of it in permille (-1: not known). */
int bench_run(const struct bench_options *o, void (*say)(void *ctx, const char *what, int permille),
              void *ctx, struct bench_result *out, struct why *w) MUST_USE;

#endif
