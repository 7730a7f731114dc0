/* The command line, one option at a time. Between the config files only. */
#ifndef NUNCHI_CONFIG_ARGS_H
#define NUNCHI_CONFIG_ARGS_H

#include "common/base/config.h"

/* What every program has besides its table. */
enum arg_kind { ARG_OPT, ARG_HELP, ARG_VERSION, ARG_CHECK, ARG_CONFIG };

struct arg {
    enum arg_kind kind;
    const struct opt *opt; /* ARG_OPT */
    slice value;           /* ARG_OPT, ARG_CONFIG */
    char from[96];         /* for errors: "--kv-blocks" */
};

/* argv[*i] is the next argument; advances *i. 1: *out is filled; 0: the end; or an error. */
int arg_next(const struct config_spec *spec, int argc, char **argv, int *i, struct arg *out,
             struct why *w) MUST_USE;
/* NULL if the table has no such row. */
const struct opt *opt_find(const struct config_spec *spec, slice name);
/* ERR_INVALID that names the nearest option; `prefix` is "--" or "". */
int opt_unknown(const struct config_spec *spec, slice name, const char *prefix, const char *where,
                struct why *w);

#endif
