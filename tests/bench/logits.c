/* Logits of a model for given ids, as little-endian float32 on stdout, a row for each id: for
 * comparing with another program's.
 *
 * usage: logits MODEL BACKEND STEP ID …       STEP: ids computed at a time */
#include <stdio.h>

#include "engine/engine.h"

#define IDS_MAX 4096

static int stop(const char *what, const struct why *w)
{
    fprintf(stderr, "logits: %s: %s\n", what, w->text);
    return 1;
}

static int print_rows(engine *e, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fwrite(engine_logits(e, i), sizeof(float), engine_info(e)->n_vocab, stdout) !=
            engine_info(e)->n_vocab)
            return 1;
    return 0;
}

static int run(engine *e, const int32_t *ids, uint32_t n, uint32_t step)
{
    static struct engine_row rows[IDS_MAX];
    static uint32_t blocks[IDS_MAX / ENGINE_BLOCK_TOKENS + 1];
    struct engine_seq seq = {blocks, n / ENGINE_BLOCK_TOKENS + 1};
    struct why w = {.text = ""};
    for (uint32_t i = 0; i < seq.n_blocks; i++)
        blocks[i] = seq.n_blocks - 1 - i;
    for (uint32_t at = 0; at < n; at += step) {
        uint32_t k = n - at < step ? n - at : step;
        for (uint32_t i = 0; i < k; i++)
            rows[i] = (struct engine_row){.token = ids[at + i],
                                          .position = at + i,
                                          .attend_until = at + i + 1,
                                          .want_logits = true};
        struct engine_step s = {.seqs = &seq, .n_seqs = 1, .rows = rows, .n_rows = k};
        if (engine_compute(e, &s, &w) < 0)
            return stop("computing", &w);
        if (print_rows(e, k))
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static int32_t ids[IDS_MAX];
    struct why w = {.text = ""};
    model_file *f = NULL;
    engine *e = NULL;
    uint64_t v, step = 0;
    uint32_t n = 0;
    if (argc < 5 || argc - 4 > IDS_MAX || slice_u64(slice_str(argv[3]), &step) < 0 || step < 1 ||
        step > IDS_MAX)
        return fprintf(stderr, "usage: logits MODEL BACKEND STEP ID …\n"), 2;
    for (; n < (uint32_t)argc - 4; n++) {
        if (slice_u64(slice_str(argv[4 + n]), &v) < 0 || v > INT32_MAX)
            return fprintf(stderr, "logits: '%s' is no id\n", argv[4 + n]), 2;
        ids[n] = (int32_t)v;
    }
    struct engine_config cfg = {
        .backend = argv[2], .kv_blocks = n / ENGINE_BLOCK_TOKENS + 1, .rows_max = (uint32_t)step};
    if (model_file_open(argv[1], &f, &w) < 0 || engine_open(f, &cfg, &e, &w) < 0) {
        model_file_close(f);
        return stop(argv[1], &w);
    }
    int code = run(e, ids, n, (uint32_t)step);
    engine_close(e);
    model_file_close(f);
    return code;
}
