#include <stdio.h>

#include "common/base/slice.h"

#define BUF_FIRST_BYTES 64
#define BUF_MAX_BYTES ((size_t)1 << 39) /* more is a size that went wrong, not a string */

void buf_clear(buf *b)
{
    free(b->p);
    *b = (buf){0};
}

void buf_reset(buf *b)
{
    b->n = 0;
}

int buf_try_reserve(buf *b, size_t more)
{
    size_t need;
    if (size_add(b->n, more, &need) < 0 || need > BUF_MAX_BYTES)
        return ERR_NOMEM;
    if (need <= b->cap)
        return 0;
    size_t cap = b->cap ? b->cap : BUF_FIRST_BYTES;
    while (cap < need)
        cap *= 2;
    char *p = realloc(b->p, cap);
    if (!p)
        return ERR_NOMEM;
    b->p = p;
    b->cap = cap;
    return 0;
}

void buf_put(buf *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    CHECK(buf_try_reserve(b, n) == 0);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_put_slice(buf *b, slice s)
{
    buf_put(b, s.p, s.n);
}

void buf_put_str(buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_put_byte(buf *b, unsigned char c)
{
    buf_put(b, &c, 1);
}

void buf_printf(buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    CHECK(buf_try_reserve(b, (size_t)n + 1) == 0);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
    va_end(again);
    b->n += (size_t)n;
}

void buf_drop_front(buf *b, size_t n)
{
    CHECK(n <= b->n);
    if (n == 0)
        return;
    b->n -= n;
    memmove(b->p, b->p + n, b->n);
}

const char *buf_cstr(buf *b)
{
    CHECK(buf_try_reserve(b, 1) == 0);
    b->p[b->n] = '\0';
    return b->p;
}
