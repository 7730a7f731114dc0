#include "common/base/slice.h"

slice slice_str(const char *s)
{
    return s ? (slice){s, strlen(s)} : (slice){"", 0};
}

bool slice_eq(slice a, slice b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool slice_eq_str(slice a, const char *s)
{
    return slice_eq(a, slice_str(s));
}

bool slice_starts(slice a, slice prefix)
{
    return a.n >= prefix.n && (prefix.n == 0 || memcmp(a.p, prefix.p, prefix.n) == 0);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

slice slice_trim(slice a)
{
    while (a.n && is_space(a.p[0])) {
        a.p++;
        a.n--;
    }
    while (a.n && is_space(a.p[a.n - 1]))
        a.n--;
    return a;
}

bool slice_eq_secret(slice a, slice b)
{
    if (a.n != b.n)
        return false;
    /* volatile: the compiler must not find out that it could stop early */
    volatile unsigned char diff = 0;
    for (size_t i = 0; i < a.n; i++)
        diff = diff | ((unsigned char)a.p[i] ^ (unsigned char)b.p[i]);
    return diff == 0;
}

char *slice_dup(slice a)
{
    char *p = xcalloc(a.n + 1, 1);
    if (a.n)
        memcpy(p, a.p, a.n);
    return p;
}

bool slice_split(slice *rest, char sep, slice *piece)
{
    if (!rest->p)
        return false;
    const char *end = rest->n ? memchr(rest->p, sep, rest->n) : NULL;
    if (!end) {
        *piece = *rest;
        *rest = (slice){NULL, 0}; /* the mark of "the last piece was given" */
        return true;
    }
    *piece = (slice){rest->p, (size_t)(end - rest->p)};
    *rest = (slice){end + 1, rest->n - piece->n - 1};
    return true;
}
