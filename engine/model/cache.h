/* The cache folder, for what was worked out about a model file and cannot be kept beside it:
 * NUNCHI_HOME/prepared, or nunchi/prepared in the user's cache folder. */
#ifndef NUNCHI_MODEL_CACHE_H
#define NUNCHI_MODEL_CACHE_H

#include <limits.h>

#include "common/base/slice.h"

/* The path of `name` in it; `make` makes the folder, private to the user. False where there is no
 * such folder. */
bool model_cache_path(const char *name, bool make, char out[PATH_MAX]);

#endif
