/* The text of --help, and the names of environment variables. Between the config files and their
 * tests only. */
#ifndef NUNCHI_CONFIG_HELP_H
#define NUNCHI_CONFIG_HELP_H

#include "common/base/config.h"

#define HELP_COLUMNS 80 /* when the terminal does not say */

void config_help(const struct config_spec *spec, unsigned columns, buf *out);
void config_env_name(const char *opt_name, char *out,
                     size_t room); /* "kv-blocks" -> "NUNCHI_KV_BLOCKS" */
const char *config_env_get(char *const *env, const char *name); /* NULL if unset */

#endif
