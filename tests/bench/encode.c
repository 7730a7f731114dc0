/* Ids of texts by a model file's vocabulary: for comparing with another program's. Texts come on
 * stdin, between lines of
 * "__ggml_vocab_test__"; each one's ids go on a line of stdout.
 *
 * usage: encode MODEL [time] < TEXTS      time: megabytes a second of the first text, the best of
 * five, instead of ids */
#include <stdio.h>

#include "cli/home.h"
#include "common/base/clock.h"
#include "tokenizer-svc/tokenizer.h"

static const char BETWEEN[] = "\n__ggml_vocab_test__\n";

static int stop(const struct why *w)
{
    fprintf(stderr, "encode: %s\n", w->text);
    return 1;
}

static int print_ids(const tokenizer *t, tok_scratch *s, slice text)
{
    struct ids ids = {0};
    struct why w = {.text = ""};
    if (tokenizer_encode(t, s, text, true, &ids, &w) < 0)
        return stop(&w);
    for (size_t i = 0; i < ids.n; i++)
        printf(" %d", ids.p[i]);
    printf("\n");
    ids_clear(&ids);
    return 0;
}

static int print_time(const tokenizer *t, tok_scratch *s, slice text)
{
    struct why w = {.text = ""};
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        struct ids ids = {0};
        uint64_t began = clock_mono_us();
        int e = tokenizer_encode(t, s, text, true, &ids, &w);
        uint64_t took = clock_mono_us() - began;
        best = took < best ? took : best;
        ids_clear(&ids);
        if (e < 0)
            return stop(&w);
    }
    printf("%.1f\n", (double)text.n / (double)(best ? best : 1));
    return 0;
}

int main(int argc, char **argv)
{
    struct why w = {.text = ""};
    model_file *f = NULL;
    vocab *v = NULL;
    tokenizer *t = NULL;
    buf text = {0};
    int code = 0;
    bool timed = argc == 3 && strcmp(argv[2], "time") == 0;
    if (argc != 2 && !timed)
        return fprintf(stderr, "usage: encode MODEL [time] < TEXTS\n"), 2;
    if (model_file_open(argv[1], &f, &w) < 0 || vocab_open(f, &v, &w) < 0 ||
        tokenizer_new(v, &t, &w) < 0 || file_read("/dev/stdin", 64 << 20, &text, &w) < 0)
        return stop(&w);
    tok_scratch *s = tok_scratch_new(t);
    for (slice rest = buf_slice(&text); code == 0;) {
        const char *end = rest.n ? memmem(rest.p, rest.n, BETWEEN, sizeof BETWEEN - 1) : NULL;
        size_t n = end ? (size_t)(end - rest.p) : rest.n;
        code = timed ? print_time(t, s, (slice){rest.p, n}) : print_ids(t, s, (slice){rest.p, n});
        if (!end || timed)
            break;
        rest = (slice){end + sizeof BETWEEN - 1, rest.n - n - (sizeof BETWEEN - 1)};
    }
    tok_scratch_free(s);
    tokenizer_free(t);
    vocab_close(v);
    model_file_close(f);
    buf_clear(&text);
    return code;
}
