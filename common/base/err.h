/* Every fallible function returns an int: 0 or a count when it worked, a negative enum err when it
 * did not. One table gives each error its number on the wire, its HTTP status and its OpenAI type, so
 * that no service invents its own. Where a human needs the reason, a last argument `struct why *`
 * (NULL allowed) carries a sentence and the field it is about. */
#ifndef NUNCHI_ERR_H
#define NUNCHI_ERR_H

#include <stdint.h>
#include <stdlib.h>

/* X(NAME, wire number, HTTP status, OpenAI error type, may the same request work later?, text)
 * Wire numbers are part of the protocol (proto/PROTOCOL.md): never reuse one. */
#define ERR_MAP(X)                                                                                 \
    X(INVALID, 1, 400, "invalid_request_error", 0, "malformed or out-of-range input")              \
    X(UNSUPPORTED, 2, 400, "invalid_request_error", 0, "known, but not supported here")            \
    X(AUTH, 3, 401, "authentication_error", 0, "missing or wrong API key")                         \
    X(FORBIDDEN, 4, 403, "permission_error", 0, "not allowed")                                     \
    X(NOT_FOUND, 5, 404, "not_found_error", 0, "no such thing")                                    \
    X(TOO_BIG, 6, 413, "invalid_request_error", 0, "a size limit was exceeded")                    \
    X(UNREADABLE, 7, 422, "invalid_request_error", 0, "the file cannot be read")                   \
    X(BUSY, 8, 429, "rate_limit_error", 1, "too many requests at once")                            \
    X(CANCELLED, 9, 499, "cancelled", 0, "the client went away")                                   \
    X(INTERNAL, 10, 500, "server_error", 0, "a bug in nunchi")                                     \
    X(PROTO, 11, 502, "server_error", 1, "a peer broke the protocol")                              \
    X(UNAVAILABLE, 12, 503, "server_error", 1, "no worker can take this now")                      \
    X(TIMEOUT, 13, 504, "server_error", 1, "took too long")                                        \
    X(NOMEM, 14, 503, "server_error", 1, "out of memory")                                          \
    X(AGAIN, 15, 503, "server_error", 1, "would block")                                            \
    X(IO, 16, 500, "server_error", 1, "an operation of the system failed")                         \
    X(EXISTS, 17, 409, "invalid_request_error", 0, "exists already")

enum err {
#define X(name, num, http, type, retry, text) ERR_##name = -(num),
    ERR_MAP(X)
#undef X
};

#define WHY_TEXT_MAX 240
#define WHY_FIELD_MAX 80

/* The reason of a failure, for a human. Always NUL-terminated; never holds prompt text, host paths of
 * a server, or pointers. */
struct why {
    char text[WHY_TEXT_MAX];
    char field[WHY_FIELD_MAX]; /* which input it is about: "messages[2].content", or "" */
};

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define UNUSED __attribute__((unused))

const char *err_name(int e);          /* "INVALID"; "OK" for >= 0; "UNKNOWN" for others */
const char *err_text(int e);          /* the table's text */
int err_http(int e);                  /* HTTP status; 200 for >= 0; 500 for unknown */
const char *err_openai_type(int e);   /* "invalid_request_error" */
int err_retryable(int e);             /* 1: the same request may work later */
int err_from_wire(uint32_t num);      /* wire number -> enum err; unknown numbers become ERR_PROTO */
uint32_t err_to_wire(int e);          /* enum err -> wire number; unknown becomes INTERNAL's */
int err_from_errno(int errnum);       /* ENOMEM -> ERR_NOMEM, EAGAIN -> ERR_AGAIN, ENOENT -> NOT_FOUND, else ERR_IO */

/* Fills w (if not NULL) and returns e, so that a check is one line:
 *     if (n > MAX) return why_set(w, ERR_TOO_BIG, "messages", "%zu messages, at most %d", n, MAX); */
int why_set(struct why *w, int e, const char *field, const char *fmt, ...) PRINTF_LIKE(4, 5);

/* A programmer's error, never an input's: prints file, line and expression, aborts. Always on. */
#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x))                                                                                  \
            check_failed(__FILE__, __LINE__, #x);                                                  \
    } while (0)
_Noreturn void check_failed(const char *file, int line, const char *expr);

/* Fixed small allocations: abort when memory is gone. A size that derives from input uses try_calloc
 * and is checked. */
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n, size_t size); /* aborts also on n*size overflow */
char *xstrdup(const char *s);
void *try_calloc(size_t n, size_t size) MUST_USE; /* NULL on overflow or no memory */

/* Overflow-checked size arithmetic: 0, or ERR_TOO_BIG with *out untouched. */
int size_mul(size_t a, size_t b, size_t *out) MUST_USE;
int size_add(size_t a, size_t b, size_t *out) MUST_USE;

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
