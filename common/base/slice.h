/* Text and bytes that cross a module border: `slice` is borrowed and not NUL-terminated; `buf` is a
 * growing byte string owned by whoever holds it. */
#ifndef NUNCHI_SLICE_H
#define NUNCHI_SLICE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "common/base/err.h"

typedef struct slice {
    const char *p;
    size_t n; /* bytes */
} slice;

#define SLICE_LIT(s) ((slice){(s), sizeof(s) - 1})
slice slice_str(const char *s); /* NULL gives an empty slice */
bool slice_eq(slice a, slice b);
bool slice_eq_str(slice a, const char *s);
bool slice_starts(slice a, slice prefix);
slice slice_trim(slice a);              /* ASCII white space at both ends */
bool slice_eq_secret(slice a, slice b); /* time depends on the lengths alone */
int slice_u64(slice a, uint64_t *out) MUST_USE;  /* decimal, whole slice; ERR_INVALID on anything else */
int slice_f64(slice a, double *out) MUST_USE;    /* locale-independent; ERR_INVALID on nan, inf, trailing text */
char *slice_dup(slice a); /* NUL-terminated copy; caller frees; aborts without memory */
/* Takes the text up to the next `sep` off *rest; false at the end. "a," has two pieces and "" has one. */
bool slice_split(slice *rest, char sep, slice *piece);

typedef struct buf {
    char *p; /* not NUL-terminated unless buf_cstr is called */
    size_t n, cap;
} buf;

void buf_clear(buf *b); /* frees; the buf is empty and usable again */
void buf_reset(buf *b); /* n = 0, keeps the memory */
void buf_put(buf *b, const void *p, size_t n); /* aborts without memory: for sizes already limited */
void buf_put_slice(buf *b, slice s);
void buf_put_str(buf *b, const char *s);
void buf_put_byte(buf *b, unsigned char c);
void buf_printf(buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
int buf_try_reserve(buf *b, size_t more) MUST_USE; /* ERR_NOMEM; for sizes that derive from input */
void buf_drop_front(buf *b, size_t n);
const char *buf_cstr(buf *b); /* NUL-terminates in place; valid until the next change */
static inline slice buf_slice(const buf *b)
{
    return (slice){b->p, b->n};
}

/* Length of the longest prefix of p[0..n) that does not end inside a UTF-8 character (invalid bytes count
 * as complete, they never become valid). Used to hold back a syllable that is split over tokens. */
size_t utf8_complete_len(const char *p, size_t n);
bool utf8_is_space(uint32_t cp); /* Unicode's White_Space */
bool utf8_valid(slice s); /* RFC 3629: no surrogates, no overlongs, at most U+10FFFF */
/* Appends s with every invalid byte sequence replaced by U+FFFD (one per maximal bad subpart). */
void utf8_put_lossy(buf *b, slice s);
/* Decodes one code point; returns its length 1..4, or 0 if p[0..n) does not start with a valid one. */
size_t utf8_decode(const char *p, size_t n, uint32_t *cp);
size_t utf8_encode(uint32_t cp, char out[4]); /* 0 for surrogates and beyond U+10FFFF */

void hex_encode(const void *p, size_t n, char *out); /* 2n lower-case digits and a NUL */
int hex_decode(slice s, void *out, size_t n) MUST_USE; /* exactly 2n digits, either case, else ERR_INVALID */

#endif
