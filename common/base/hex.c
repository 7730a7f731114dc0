#include "common/base/slice.h"

void hex_encode(const void *p, size_t n, char *out)
{
    static const char DIGITS[] = "0123456789abcdef";
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = DIGITS[b[i] >> 4];
        out[2 * i + 1] = DIGITS[b[i] & 15];
    }
    out[2 * n] = '\0';
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20; /* lower case */
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int hex_decode(slice s, void *out, size_t n)
{
    if (s.n / 2 != n || s.n % 2)
        return ERR_INVALID;
    for (size_t i = 0; i < s.n; i++)
        if (digit(s.p[i]) < 0)
            return ERR_INVALID; /* before *out is touched */
    unsigned char *b = out;
    for (size_t i = 0; i < n; i++)
        b[i] = (unsigned char)((unsigned)digit(s.p[2 * i]) << 4 | (unsigned)digit(s.p[2 * i + 1]));
    return 0;
}
