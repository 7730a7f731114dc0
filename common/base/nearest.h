/* "Did you mean …?": the name most like a mistyped word. */
#ifndef NUNCHI_NEAREST_H
#define NUNCHI_NEAREST_H

#include "common/base/slice.h"

/* Longer words are not compared: the cost is quadratic and the word a stranger's. */
#define NEAREST_WORD_MAX 64

/* Edits (insert, delete, replace, swap of neighbours) between a and b; SIZE_MAX if one is too long.
 */
size_t text_distance(slice a, slice b);

/* struct nearest n; nearest_init(&n, word); nearest_offer(&n, name) for each; then n.name, or NULL
 * when nothing is alike. Names are borrowed. */
struct nearest {
    slice word;
    const char *name;
    size_t distance;
};
void nearest_init(struct nearest *n, slice word);
void nearest_offer(struct nearest *n, const char *name);

#endif
