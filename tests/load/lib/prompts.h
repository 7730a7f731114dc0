/* What the requests ask. A prompt is a function of the seed and its number alone. */
#ifndef NUNCHI_LOAD_PROMPTS_H
#define NUNCHI_LOAD_PROMPTS_H

#include "tests/load/lib/options.h"

#define PROMPTS_FILE_MAX (64u << 20)

struct prompts {
    const struct load_options *o;
    buf shared;
    buf file;
    slice *lines; /* (n_lines) of file */
    size_t n_lines;
};

int prompts_open(struct prompts *p, const struct load_options *o, struct why *w) MUST_USE;
void prompts_close(struct prompts *p);
void prompts_put(const struct prompts *p, uint64_t number, buf *out); /* appends the text */

uint64_t load_random(uint64_t *state); /* any 64 bits; state: a seed at first */

#endif
