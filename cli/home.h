/* Where nunchi keeps things: NUNCHI_HOME, or nunchi/ in the user's cache folder. Results are the
 * caller's to free. */
#ifndef NUNCHI_HOME_H
#define NUNCHI_HOME_H

#include "common/base/slice.h"

/* Makes NUNCHI_HOME absolute: the services do not run in this folder. -1 and errno if that cannot
 * be. */
int home_absolute(void) MUST_USE;
/* The path of `name` below the home ("" for the home itself). Aborts without memory. */
char *home_path(const char *name);
/* The same, and makes the folders above it (and it, if it ends in '/'), private to the user. */
int home_make(const char *name, char **out, struct why *w) MUST_USE;
/* A program of ours: beside the running one, else found through PATH. NULL if there is none. */
char *home_program(const char *name);
/* Whole file, at most max_bytes. */
int file_read(const char *path, size_t max_bytes, buf *out, struct why *w) MUST_USE;
/* Writes beside the file and renames over it. */
int file_write(const char *path, slice text, struct why *w) MUST_USE;

#endif
