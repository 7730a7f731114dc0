/* Which type each tensor is written in. */
#ifndef NUNCHI_CONVERT_RECIPE_H
#define NUNCHI_CONVERT_RECIPE_H

#include "engine/backend/backend.h"
#include "engine/convert/mapping.h"

struct recipe; /* a row of the table in recipe.c */

const struct recipe *recipe_find(const char *name); /* "q4_k"; NULL: unknown */
const char *recipe_names(void);
uint32_t recipe_file_type(const struct recipe *r, const struct mapping *p); /* general.file_type */
/* As llama.cpp mixes them: the vocabulary's matrices and, in some layers, what attention and MLP
 * depend on most get more bits; rows that do not divide into a type's blocks get the next one with
 * smaller blocks. */
enum weight_type recipe_type(const struct recipe *r, const struct mapping *p,
                             const struct mapping_tensor *t);

#endif
