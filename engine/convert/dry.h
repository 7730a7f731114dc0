/* Would the engine load this file? The decoder's own loading over a backend that takes nothing in:
 * every tensor's presence, shape and type, and the vocabulary, without reading a weight. */
#ifndef NUNCHI_CONVERT_DRY_H
#define NUNCHI_CONVERT_DRY_H

#include "engine/engine.h"

int dry_load(const model_file *f, struct why *w) MUST_USE;

#endif
