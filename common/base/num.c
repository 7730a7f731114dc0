#include "common/base/num.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "common/base/slice.h"

/* Longer than any number a person or a program writes; 17 digits are all a double has. */
#define NUM_TEXT_MAX 128

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void c_locale_make(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    CHECK(c_locale != (locale_t)0);
}

/* A library in the process may have called setlocale; strtod would then want a comma. */
static double strtod_c(const char *text)
{
    pthread_once(&c_locale_once, c_locale_make);
    return strtod_l(text, NULL, c_locale);
}

int slice_u64(slice a, uint64_t *out)
{
    if (a.n == 0)
        return ERR_INVALID;
    uint64_t v = 0;
    for (size_t i = 0; i < a.n; i++) {
        if (a.p[i] < '0' || a.p[i] > '9')
            return ERR_INVALID;
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(a.p[i] - '0'), &v))
            return ERR_INVALID;
    }
    *out = v;
    return 0;
}

static size_t digits(slice a, size_t i)
{
    size_t n = 0;
    while (i + n < a.n && a.p[i + n] >= '0' && a.p[i + n] <= '9')
        n++;
    return n;
}

static bool is_sign(slice a, size_t i)
{
    return i < a.n && (a.p[i] == '-' || a.p[i] == '+');
}

/* [sign] digits [. digits] [e [sign] digits], with at least one digit before the exponent */
static bool is_decimal(slice a)
{
    size_t i = is_sign(a, 0);
    size_t whole = digits(a, i), frac = 0;
    i += whole;
    if (i < a.n && a.p[i] == '.') {
        frac = digits(a, i + 1);
        i += 1 + frac;
    }
    if (whole + frac == 0)
        return false;
    if (i < a.n && (a.p[i] == 'e' || a.p[i] == 'E')) {
        i += 1 + (size_t)is_sign(a, i + 1);
        size_t e = digits(a, i);
        if (e == 0)
            return false;
        i += e;
    }
    return i == a.n;
}

int slice_f64(slice a, double *out)
{
    char text[NUM_TEXT_MAX + 1];
    if (a.n > NUM_TEXT_MAX || !is_decimal(a))
        return ERR_INVALID;
    memcpy(text, a.p, a.n);
    text[a.n] = '\0';
    double v = strtod_c(text);
    if (!isfinite(v)) /* 1e999 */
        return ERR_INVALID;
    *out = v;
    return 0;
}

/* Whatever the locale puts between the digits becomes one '.'. */
static size_t plain_point(char *s)
{
    size_t n = 0;
    bool in_point = false;
    for (const char *p = s; *p; p++) {
        bool keep = (*p >= '0' && *p <= '9') || *p == '-' || *p == '+' || *p == 'e';
        if (keep)
            s[n++] = *p;
        else if (!in_point)
            s[n++] = '.';
        in_point = !keep;
    }
    s[n] = '\0';
    return n;
}

size_t f64_text(double v, char out[F64_TEXT_MAX])
{
    if (!isfinite(v))
        return (size_t)snprintf(out, F64_TEXT_MAX, "%s", isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
    size_t n = 0;
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(out, F64_TEXT_MAX, "%.*g", precision, v);
        n = plain_point(out);
        if (strtod_c(out) == v)
            break;
    }
    return n;
}
