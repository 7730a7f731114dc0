#include "tests/load/lib/prompts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* Common words: a token each for most vocabularies. */
static const char *const WORDS[] = {
    "time",    "house",   "water",  "light",  "night",   "story",  "river",   "stone",
    "music",   "paper",   "green",  "small",  "great",   "early",  "public",  "system",
    "number",  "people",  "family", "school", "street",  "garden", "summer",  "winter",
    "morning", "doctor",  "market", "letter", "window",  "forest", "ocean",   "island",
    "history", "science", "energy", "metal",  "glass",   "bridge", "tower",   "train",
    "makes",   "takes",   "finds",  "knows",  "sees",    "gives",  "holds",   "moves",
    "turns",   "opens",   "under",  "above",  "between", "during", "without", "before",
    "after",   "around",  "across", "behind", "and",     "with",   "for",     "from",
};

/* splitmix64 */
uint64_t load_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void put_words(buf *out, uint64_t seed, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        buf_put_str(out, WORDS[load_random(&seed) % ARRAY_LEN(WORDS)]);
        buf_put_byte(out, i % 12 == 11 ? '.' : ' ');
        if (i % 12 == 11)
            buf_put_byte(out, ' ');
    }
}

static int read_file(const char *path, buf *out, struct why *w)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return why_set(w, err_from_errno(errno), "prompts", "%s: %s", path, strerror(errno));
    char piece[65536];
    size_t n;
    while ((n = fread(piece, 1, sizeof piece, f)) > 0 && out->n <= PROMPTS_FILE_MAX)
        buf_put(out, piece, n);
    int bad = ferror(f);
    fclose(f);
    if (bad)
        return why_set(w, ERR_IO, "prompts", "%s cannot be read", path);
    if (out->n > PROMPTS_FILE_MAX)
        return why_set(w, ERR_TOO_BIG, "prompts", "%s has more than %u bytes", path,
                       PROMPTS_FILE_MAX);
    return 0;
}

static int split(struct prompts *p, struct why *w)
{
    slice rest = buf_slice(&p->file), line;
    size_t cap = 0;
    while (slice_split(&rest, '\n', &line)) {
        line = slice_trim(line);
        if (!line.n)
            continue;
        if (p->n_lines == cap)
            p->lines = xrealloc(p->lines, cap = cap ? 2 * cap : 64, sizeof *p->lines);
        p->lines[p->n_lines++] = line;
    }
    return p->n_lines ? 0 : why_set(w, ERR_INVALID, "prompts", "the file has no line with text");
}

int prompts_open(struct prompts *p, const struct load_options *o, struct why *w)
{
    *p = (struct prompts){.o = o};
    put_words(&p->shared, (uint64_t)o->shared_seed ^ 0x5a17ed, o->shared_words);
    if (!o->prompts)
        return 0;
    int err = read_file(o->prompts, &p->file, w);
    return err < 0 ? err : split(p, w);
}

void prompts_close(struct prompts *p)
{
    buf_clear(&p->shared);
    buf_clear(&p->file);
    free(p->lines);
}

void prompts_put(const struct prompts *p, uint64_t number, buf *out)
{
    buf_put_slice(out, buf_slice(&p->shared));
    if (p->n_lines) {
        buf_put_slice(out, p->lines[number % p->n_lines]);
        return;
    }
    uint64_t seed = (uint64_t)p->o->seed << 20 ^ number;
    buf_printf(out, "Number %" PRIu64 ": ", (uint64_t)p->o->seed * 1000 + number);
    put_words(out, load_random(&seed), p->o->prompt_words);
}
