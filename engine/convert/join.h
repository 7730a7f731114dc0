/* A GGUF in several files (NAME-00001-of-00003.gguf, …) as one. The first has the keys; each has
 * tensors. */
#ifndef NUNCHI_CONVERT_JOIN_H
#define NUNCHI_CONVERT_JOIN_H

#include "engine/engine.h"

#define JOIN_FILES_MAX 1024

/* How many files the name says there are; 0: it is not such a name. */
uint32_t join_count(const char *path);
/* first: the path of any of them. target must not exist. Checked as the engine would before it has
 * its name. */
int join_files(const char *first, const char *target, void (*progress)(void *ctx, int permille),
               void *ctx, struct why *w) MUST_USE;

#endif
