/* One option's value: text to field and back. Between the config files only. */
#ifndef NUNCHI_CONFIG_VALUE_H
#define NUNCHI_CONFIG_VALUE_H

#include "common/base/config.h"

/* Parses, checks the range, stores into *cfg. `from` names the source in errors: "--kv-blocks". */
int opt_store(const struct opt *o, void *cfg, slice text, const char *from, struct why *w) MUST_USE;
/* Appends the value that *cfg has, as it could be written in a file; secrets as ***, nothing for
 * NULL. */
void opt_print(const struct opt *o, const void *cfg, buf *out);
/* Appends the allowed range, "16 to 1000000"; nothing if there is none to speak of. */
void opt_print_range(const struct opt *o, buf *out);
bool opt_is_set(const struct opt *o, const void *cfg); /* false: a string that is NULL */
void opt_clear(const struct opt *o, void *cfg);

#endif
