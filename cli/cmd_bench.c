#include <getopt.h>
#include <stdio.h>

#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/fetch.h"
#include "cli/term.h"
#include "common/base/json_out.h"

#define DEFAULT_MODEL "smollm2"
#define REPEAT_MAX 1000 /* a benchmark that runs for days is a mistake */

static const char USAGE[] =
    "usage: nunchi bench [OPTIONS]\n"
    "\n"
    "Measures the engine alone, without a cluster: tokens a second, and their share of what this "
    "machine can do at most,\n"
    "which is measured at the same time. Other work on the machine disturbs it: each figure is the "
    "best of the repeats.\n"
    "\n"
    "  --model NAME|FILE   smollm2 (default), gemma3-270m, one that was added, or a GGUF\n"
    "  --threads N         default: all that this process may use\n"
    "  --prompt N          tokens of the prompt whose prefill is timed (default 512)\n"
    "  --gen N             tokens that each sequence decodes (default 32)\n"
    "  --batch N[,N...]    sequences decoded together, up to 16 numbers (default 1,4,16)\n"
    "  --context N         tokens that each sequence has before it decodes (default 64)\n"
    "  --repeat N          default 3\n"
    "  --chunk N           most rows of a prefill step (default 512)\n"
    "  --isa NAME          avx512, avx2 or portable (default: the best that this CPU has)\n"
    "  --kv-type T         f16 (default) or int8\n"
    "  --json              one JSON object instead of a table\n";

/* ---- the command line ---------------------------------------------------------------------- */

static const struct number_option {
    const char *name;
    size_t offset;
    uint64_t least, most;
} NUMBERS[] = {
    {"threads", offsetof(struct bench_options, threads), 1, ENGINE_THREADS_MAX},
    {"prompt", offsetof(struct bench_options, prompt), 1, ENGINE_CONTEXT_MAX},
    {"gen", offsetof(struct bench_options, gen), 1, ENGINE_CONTEXT_MAX},
    {"context", offsetof(struct bench_options, context), 1, ENGINE_CONTEXT_MAX},
    {"repeat", offsetof(struct bench_options, repeat), 1, REPEAT_MAX},
    {"chunk", offsetof(struct bench_options, chunk), 1, ENGINE_ROWS_MAX},
};

static int parse_number(const struct number_option *n, struct bench_options *o)
{
    uint64_t *to = (uint64_t *)(void *)((char *)o + n->offset);
    if (slice_u64(slice_str(optarg), to) >= 0 && *to >= n->least && *to <= n->most)
        return 0;
    return cli_usage(USAGE, "--%s takes a number from %llu to %llu, not '%.40s'", n->name,
                     (unsigned long long)n->least, (unsigned long long)n->most, optarg);
}

static int parse_batches(struct bench_options *o)
{
    slice rest = slice_str(optarg), piece;
    for (o->n_batch = 0; slice_split(&rest, ',', &piece); o->n_batch++) {
        uint64_t n;
        if (o->n_batch == BENCH_BATCHES_MAX)
            return cli_usage(USAGE, "--batch takes at most %d numbers", BENCH_BATCHES_MAX);
        if (slice_u64(piece, &n) < 0 || n < 1 || n > BENCH_SEQUENCES_MAX)
            return cli_usage(
                USAGE, "--batch takes numbers from 1 to %d with commas between them, not '%.40s'",
                BENCH_SEQUENCES_MAX, optarg);
        o->batch[o->n_batch] = (uint32_t)n;
    }
    return o->n_batch > 0 ? 0 : cli_usage(USAGE, "--batch takes numbers with commas between them");
}

static int parse(int argc, char **argv, struct bench_options *o, bool *json)
{
    enum { NUMBER = 256 };
    static const struct option OPTIONS[] = {{"threads", required_argument, NULL, NUMBER},
                                            {"prompt", required_argument, NULL, NUMBER + 1},
                                            {"gen", required_argument, NULL, NUMBER + 2},
                                            {"context", required_argument, NULL, NUMBER + 3},
                                            {"repeat", required_argument, NULL, NUMBER + 4},
                                            {"chunk", required_argument, NULL, NUMBER + 5},
                                            {"model", required_argument, NULL, 'm'},
                                            {"batch", required_argument, NULL, 'b'},
                                            {"isa", required_argument, NULL, 'i'},
                                            {"kv-type", required_argument, NULL, 'k'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    for (int c, e = 0; (c = getopt_long(argc, argv, "h", OPTIONS, NULL)) != -1;) {
        if (c == 'h') {
            fputs(USAGE, stdout);
            return -1;
        }
        if (c == '?')
            return cli_bad_option(USAGE);
        if (c >= NUMBER)
            e = parse_number(&NUMBERS[c - NUMBER], o);
        if (c == 'b')
            e = parse_batches(o);
        if (e)
            return e;
        o->model = c == 'm' ? optarg : o->model;
        o->isa = c == 'i' ? optarg : o->isa;
        o->kv_type = c == 'k' ? optarg : o->kv_type;
        *json = *json || c == 'j';
    }
    return optind == argc
               ? 0
               : cli_usage(USAGE, "'%.40s' is not an option; a model is named by --model",
                           argv[optind]);
}

/* ---- what it prints ------------------------------------------------------------------------ */

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* A share of an unknown limit, or of one that is not touched, is null. */
static void put_share(struct json_out *j, const char *key, double part, double whole)
{
    json_key(j, key);
    if (whole > 0 && part > 0)
        json_f64(j, part / whole);
    else
        json_null(j);
}

static void put_rate(struct json_out *j, const struct bench_rate *r, const struct engine_limits *l,
                     bool decode)
{
    json_obj(j);
    if (decode)
        json_kv_u64(j, "sequences", r->sequences);
    json_kv_f64(j, "tok_s", r->tok_s);
    json_kv_f64(j, "tok_per_cpu_s", r->tok_per_cpu_s);
    if (decode)
        json_kv_f64(j, "gb_s", r->read_bytes_s * 1e-9);
    if (decode)
        put_share(j, "share_of_bandwidth", r->read_bytes_s, l->read_bytes);
    json_kv_f64(j, "gop_s", (r->int_ops_s + r->float_ops_s) * 1e-9);
    put_share(j, "share_of_int8", r->int_ops_s, l->int8_ops);
    put_share(j, "share_of_float", r->float_ops_s, l->float_ops);
    put_share(j, "limit_tok_s", r->limit_tok_s, 1);
    put_share(j, "share_of_limit", r->tok_s, r->limit_tok_s);
    json_obj_end(j);
}

static void put_types(struct json_out *j, const struct bench_result *r)
{
    json_key(j, "types");
    json_obj(j);
    for (size_t i = 0; i < r->n_types; i++)
        json_kv_u64(j, r->types[i].type, r->types[i].bytes);
    json_obj_end(j);
}

static void put_limits(struct json_out *j, const struct engine_limits *l)
{
    json_key(j, "limits");
    json_obj(j);
    json_kv_i64(j, "threads", l->threads);
    put_share(j, "read_gb_s", l->read_bytes, 1e9);
    put_share(j, "int8_gop_s", l->int8_ops, 1e9);
    put_share(j, "float_gop_s", l->float_ops, 1e9);
    json_obj_end(j);
}

static void print_json(const struct bench_options *o, const struct bench_result *r)
{
    buf out = {0};
    struct json_out j;
    json_begin(&j, &out);
    json_obj(&j);
    json_kv_cstr(&j, "version", NUNCHI_VERSION_TEXT);
    json_kv_cstr(&j, "model", o->model);
    json_kv_cstr(&j, "name", r->name);
    json_kv_cstr(&j, "family", r->family);
    put_types(&j, r);
    json_kv_u64(&j, "weight_bytes", r->cost.weight_bytes);
    json_kv_cstr(&j, "isa", r->isa);
    json_kv_cstr(&j, "kv_type", o->kv_type);
    json_kv_i64(&j, "threads", r->threads);
    json_kv_u64(&j, "prompt", o->prompt);
    json_kv_u64(&j, "gen", o->gen);
    json_kv_u64(&j, "context", o->context);
    json_kv_f64(&j, "prefill_tok_s", r->prefill.tok_s);
    json_kv_f64(&j, "decode_tok_s", r->decode[0].tok_s);
    json_key(&j, "prefill");
    put_rate(&j, &r->prefill, &r->limits, false);
    json_key(&j, "decode");
    json_arr(&j);
    for (size_t i = 0; i < o->n_batch; i++)
        put_rate(&j, &r->decode[i], &r->limits, true);
    json_arr_end(&j);
    put_limits(&j, &r->limits);
    json_kv_bool(&j, "prepared", r->prepared);
    json_kv_f64(&j, "load_s", r->load_s);
    json_kv_u64(&j, "peak_rss_bytes", r->peak_rss_bytes);
    json_obj_end(&j);
    printf("%s\n", buf_cstr(&out));
    buf_clear(&out);
}

static void print_share(double x)
{
    if (x > 0)
        printf(" %7.0f %%", 100 * x);
    else
        printf(" %9s", "-");
}

static void print_rate(const char *what, const struct bench_rate *r, const struct engine_limits *l)
{
    printf("%-22s %9.1f %9.1f", what, r->tok_s, (r->int_ops_s + r->float_ops_s) * 1e-9);
    print_share(share(r->int_ops_s, l->int8_ops) + share(r->float_ops_s, l->float_ops));
    if (r->sequences)
        printf(" %9.1f", r->read_bytes_s * 1e-9);
    else
        printf(" %9s", "-");
    print_share(r->sequences ? share(r->read_bytes_s, l->read_bytes) : 0);
    print_share(share(r->tok_s, r->limit_tok_s));
    putchar('\n');
}

static void print_limits(const struct engine_limits *l)
{
    printf("machine   with as many threads: reads %.1f GB/s", l->read_bytes * 1e-9);
    if (l->int8_ops > 0)
        printf("; at most %.0f GOP/s of int8 dot products and %.0f GFLOP/s of float32\n",
               l->int8_ops * 1e-9, l->float_ops * 1e-9);
    else
        puts("; no peak is known for portable C");
}

static void print_table(const struct bench_options *o, const struct bench_result *r)
{
    printf("model     %s: %s", r->name[0] ? r->name : o->model, r->family);
    for (size_t i = 0; i < r->n_types; i++)
        printf(", %s %.1f MB", r->types[i].type, (double)r->types[i].bytes / 1e6);
    printf("\nengine    %s, %d thread%s; loaded in %.3f s, weights %s; peak RSS %.0f MB\n", r->isa,
           r->threads, r->threads == 1 ? "" : "s", r->load_s,
           r->prepared ? "mapped as prepared" : "packed in memory",
           (double)r->peak_rss_bytes / 1e6);
    if (r->in_memory_why[0])
        printf("          prepared weights: %s\n", r->in_memory_why);
    print_limits(&r->limits);
    printf("\n%-22s %9s %9s %9s %9s %9s %9s\n", "", "tokens/s", "GOP/s", "of peak", "GB/s",
           "of reads", "of limit");
    char what[64];
    snprintf(what, sizeof what, "prefill, %llu tokens", (unsigned long long)o->prompt);
    print_rate(what, &r->prefill, &r->limits);
    for (size_t i = 0; i < o->n_batch; i++) {
        snprintf(what, sizeof what, "decode, %u sequence%s", o->batch[i],
                 o->batch[i] == 1 ? "" : "s");
        print_rate(what, &r->decode[i], &r->limits);
    }
    puts("\nGOP/s: products with weights; GB/s: weights and KV. The limit lets all weights' "
         "products or reads, whichever takes\n"
         "longer, and all of attention's, take no longer than this machine needs at least.");
}

/* ---- the command --------------------------------------------------------------------------- */

static void say(void *ctx, const char *what, int permille)
{
    if (term_is_tty())
        progress_show(ctx, what, permille);
}

int cmd_bench(int argc, char **argv)
{
    struct bench_options o = {.model = DEFAULT_MODEL,
                              .kv_type = "f16",
                              .prompt = 512,
                              .gen = 32,
                              .context = 64,
                              .chunk = 512,
                              .repeat = 3,
                              .batch = {1, 4, 16},
                              .n_batch = 3};
    bool json = false;
    int stop = parse(argc, argv, &o, &json);
    if (stop)
        return stop < 0 ? CLI_OK : stop;
    struct why w = {0};
    char *path = NULL;
    if (model_path(o.model, &path, &w) < 0)
        return cli_fail("%s", w.text);
    o.model = path;
    struct progress progress = {.last = -1};
    struct bench_result *r = xcalloc(1, sizeof *r);
    int e = bench_run(&o, say, &progress, r, &w);
    progress_end(&progress);
    if (e >= 0 && json)
        print_json(&o, r);
    else if (e >= 0)
        print_table(&o, r);
    else
        cli_fail("%s: %s", o.model, w.text);
    free(r);
    free(path);
    return e < 0 ? CLI_FAILED : CLI_OK;
}
