#include "common/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/slice.h"

struct err_row {
    int num, http, retry;
    const char *name, *type, *text;
};

static const struct err_row ERR_ROWS[] = {
#define X(name_, num_, http_, type_, retry_, text_)                                                \
    {.num = (num_),                                                                                \
     .http = (http_),                                                                              \
     .retry = (retry_),                                                                            \
     .name = #name_,                                                                               \
     .type = (type_),                                                                              \
     .text = (text_)},
    ERR_MAP(X)
#undef X
};

static const struct err_row *row_of(int e)
{
    for (size_t i = 0; i < ARRAY_LEN(ERR_ROWS); i++)
        if (e == -ERR_ROWS[i].num)
            return &ERR_ROWS[i];
    return NULL;
}

const char *err_name(int e)
{
    const struct err_row *r = row_of(e);
    return e >= 0 ? "OK" : r ? r->name : "UNKNOWN";
}

const char *err_text(int e)
{
    const struct err_row *r = row_of(e);
    return e >= 0 ? "fine" : r ? r->text : "an unknown error";
}

int err_http(int e)
{
    const struct err_row *r = row_of(e);
    return e >= 0 ? 200 : r ? r->http : 500;
}

const char *err_openai_type(int e)
{
    const struct err_row *r = row_of(e);
    return r ? r->type : "server_error";
}

int err_retryable(int e)
{
    const struct err_row *r = row_of(e);
    return r ? r->retry : 0;
}

int err_from_wire(uint32_t num)
{
    for (size_t i = 0; i < ARRAY_LEN(ERR_ROWS); i++)
        if (num == (uint32_t)ERR_ROWS[i].num)
            return -ERR_ROWS[i].num;
    return ERR_PROTO;
}

uint32_t err_to_wire(int e)
{
    const struct err_row *r = row_of(e);
    return (uint32_t)(r ? r->num : -ERR_INTERNAL);
}

int err_from_errno(int errnum)
{
    switch (errnum) {
    case ENOMEM:
        return ERR_NOMEM;
    case EAGAIN:
        return ERR_AGAIN;
    case ENOENT:
        return ERR_NOT_FOUND;
    default:
        return ERR_IO;
    }
}

/* A cut never leaves half a character at the end: the text may become JSON or a log line. */
static void end_text(char *text, int written, size_t room)
{
    if (written < 0)
        text[0] = '\0';
    else if ((size_t)written >= room)
        text[utf8_complete_len(text, room - 1)] = '\0';
}

int why_set(struct why *w, int e, const char *field, const char *fmt, ...)
{
    if (!w)
        return e;
    /* The arguments may point into *w itself, when a caller adds to a reason. */
    struct why made = {.text = ""};
    va_list ap;
    va_start(ap, fmt);
    end_text(made.text, vsnprintf(made.text, sizeof made.text, fmt, ap), sizeof made.text);
    va_end(ap);
    end_text(made.field, snprintf(made.field, sizeof made.field, "%s", field ? field : ""),
             sizeof made.field);
    *w = made;
    return e;
}

_Noreturn void check_failed(const char *file, int line, const char *expr)
{
    char text[512];
    int n = snprintf(text, sizeof text, "%s:%d: this should never be: !(%s)\n", file, line, expr);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    ssize_t ignored = write(STDERR_FILENO, text, len);
    (void)ignored;
    abort();
}

int size_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return ERR_TOO_BIG;
    *out = r;
    return 0;
}

int size_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return ERR_TOO_BIG;
    *out = r;
    return 0;
}

void *try_calloc(size_t n, size_t size)
{
    size_t bytes;
    if (size_mul(n, size, &bytes) < 0)
        return NULL;
    return calloc(1, bytes ? bytes : 1); /* never NULL just because nothing was asked for */
}

void *xcalloc(size_t n, size_t size)
{
    void *p = try_calloc(n, size);
    CHECK(p != NULL);
    return p;
}

void *xrealloc(void *p, size_t n, size_t size)
{
    size_t bytes;
    CHECK(size_mul(n, size, &bytes) == 0);
    void *q = realloc(p, bytes ? bytes : 1);
    CHECK(q != NULL);
    return q;
}

char *xstrdup(const char *s)
{
    char *p = strdup(s);
    CHECK(p != NULL);
    return p;
}
