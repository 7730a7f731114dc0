/* `nunchi model prepare`: writes a model's prepared weights ahead of the first worker that would.
 */
#ifndef NUNCHI_PREPARE_H
#define NUNCHI_PREPARE_H

#include <stdint.h>

/* Writes them, or reads all of what is there and writes it again if it is damaged. Prints the path
 * and the sizes; returns an exit code. `path` is a model file, `name` what the user called it. */
int prepare_model(const char *path, const char *name);
/* Bytes of the prepared file of a model; 0: there is none. */
uint64_t prepared_bytes_of(const char *path);

#endif
