/* Options of a program from one table: each is a flag (--kv-blocks), an environment variable
 * (NUNCHI_KV_BLOCKS), and a line in a file (kv-blocks = 1024). Flag beats environment beats file beats default.
 * An empty environment variable counts as unset; a line of the file may quote its value and # begins a comment line.
 * The table also makes --help, range checks and the "effective configuration" log line. */
#ifndef NUNCHI_CONFIG_H
#define NUNCHI_CONFIG_H

#include "common/base/slice.h"

enum opt_type {
    OPT_STR,   /* char *, owned by the config; NULL when unset and without default */
    OPT_INT,   /* int64_t */
    OPT_SIZE,  /* int64_t bytes; accepts k, m, g (powers of 1024) */
    OPT_MS,    /* int64_t milliseconds; accepts ms, s, m, h; a bare number is milliseconds */
    OPT_FLOAT, /* double */
    OPT_BOOL,  /* bool; --x, --no-x, true/false/1/0/yes/no */
};

struct opt {
    const char *name; /* "kv-blocks" */
    enum opt_type type;
    size_t offset; /* of the field in the program's config struct */
    const char *def; /* default as text, or NULL */
    double min, max; /* numbers: inclusive range (0, 0: any); strings: max = most bytes (0: 4096) */
    const char *help; /* one sentence, with the reason of a limit */
    bool secret;      /* shown as *** */
};
/* X-macro row: CONFIG_OPT(struct model_config, kv_blocks, "kv-blocks", OPT_INT, "1024", 16, 1e6, "help") */
#define CONFIG_OPT(st, field, name_, type_, def_, min_, max_, help_)                               \
    {.name = (name_), .type = (type_), .offset = offsetof(st, field), .def = (def_), .min = (min_), .max = (max_), .help = (help_)}
#define CONFIG_SECRET(st, field, name_, type_, def_, min_, max_, help_)                            \
    {.name = (name_), .type = (type_), .offset = offsetof(st, field), .def = (def_), .min = (min_), .max = (max_), .help = (help_), .secret = true}

/* A row that is a heading in --help; the rows below it belong to it. */
#define CONFIG_GROUP(title) {.name = NULL, .help = (title)}

struct config_spec {
    const char *program; /* "nunchi-model" */
    const char *about;   /* one line for --help */
    const struct opt *opts;
    size_t n_opts;
    /* More checks over the whole struct after parsing; NULL if none. */
    int (*check)(const void *cfg, struct why *w);
};

enum config_verdict { CONFIG_RUN, CONFIG_EXIT_OK, CONFIG_EXIT_BAD };

/* Fills *cfg (zeroed by the caller). Handles --help, --version, --check-config, --config FILE itself
 * (printing to stdout, errors to stderr). An unknown option or key is an error that names the nearest one. */
enum config_verdict config_load(const struct config_spec *spec, int argc, char **argv, void *cfg);
void config_free(const struct config_spec *spec, void *cfg); /* frees strings */
void config_log(const struct config_spec *spec, const void *cfg); /* one info line, secrets masked */

/* The same without I/O and exits, for tests and for `nunchi`: argv without the program's name. */
int config_parse(const struct config_spec *spec, int argc, char **argv, char *const *env, slice file,
                 void *cfg, struct why *w) MUST_USE;

extern const char NUNCHI_VERSION[]; /* "0.1.0" */

#endif
