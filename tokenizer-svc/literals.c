#include "tokenizer-svc/literals.h"

struct literal {
    slice text;
    int32_t id;
};

struct literals {
    struct literal *at; /* by first byte, then the longest first, then by id */
    size_t n, cap;
    size_t first[257]; /* at[first[b] .. first[b + 1]) start with byte b */
};

literals *literals_new(void)
{
    return xcalloc(1, sizeof(literals));
}

void literals_free(literals *l)
{
    if (!l)
        return;
    free(l->at);
    free(l);
}

void literals_add(literals *l, slice text, int32_t id)
{
    if (text.n == 0)
        return;
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->at = xrealloc(l->at, l->cap, sizeof *l->at);
    }
    l->at[l->n++] = (struct literal){.text = text, .id = id};
}

static int by_first_then_longest(const void *a, const void *b)
{
    const struct literal *x = a, *y = b;
    unsigned char fx = (unsigned char)x->text.p[0], fy = (unsigned char)y->text.p[0];
    if (fx != fy)
        return fx < fy ? -1 : 1;
    if (x->text.n != y->text.n)
        return x->text.n > y->text.n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

void literals_ready(literals *l)
{
    if (l->n > 0)
        qsort(l->at, l->n, sizeof *l->at, by_first_then_longest);
    size_t i = 0;
    for (size_t b = 0; b < 257; b++) {
        while (i < l->n && (unsigned char)l->at[i].text.p[0] < b)
            i++;
        l->first[b] = b == 256 ? l->n : i;
    }
}

static int32_t match_here(const literals *l, const char *p, size_t left, size_t *len)
{
    unsigned char b = (unsigned char)*p;
    for (size_t i = l->first[b]; i < l->first[b + 1]; i++) {
        slice t = l->at[i].text;
        if (t.n <= left && memcmp(t.p, p, t.n) == 0) {
            *len = t.n;
            return l->at[i].id;
        }
    }
    return -1;
}

int32_t literals_find(const literals *l, slice text, size_t from, size_t *at, size_t *len)
{
    if (l->n == 0)
        return -1;
    for (size_t i = from; i < text.n; i++) {
        int32_t id = match_here(l, text.p + i, text.n - i, len);
        if (id >= 0) {
            *at = i;
            return id;
        }
    }
    return -1;
}
