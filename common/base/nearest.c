#include "common/base/nearest.h"

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t text_distance(slice a, slice b)
{
    if (a.n > NEAREST_WORD_MAX || b.n > NEAREST_WORD_MAX)
        return SIZE_MAX;
    size_t rows[3][NEAREST_WORD_MAX + 1]; /* of the edit matrix: row i lies in rows[i % 3] */
    for (size_t j = 0; j <= b.n; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t *row = rows[i % 3], *above = rows[(i - 1) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            row[j] =
                least(above[j - 1] + (a.p[i - 1] != b.p[j - 1]), least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                row[j] = least(row[j], above2[j - 2] + 1);
        }
    }
    return rows[a.n % 3][b.n];
}

void nearest_init(struct nearest *n, slice word)
{
    /* More than a third of the letters wrong is another word. */
    *n = (struct nearest){.word = word, .distance = (word.n < 3 ? 1 : word.n / 3) + 1};
}

void nearest_offer(struct nearest *n, const char *name)
{
    size_t d = text_distance(n->word, slice_str(name));
    if (d >= n->distance)
        return;
    n->distance = d;
    n->name = name;
}
