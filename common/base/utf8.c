#include "common/base/slice.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* The table of well-formed byte sequences (Unicode 15, table 3-7): the first byte fixes the length
 * and the range of the second; that range is what keeps overlongs, surrogates and values beyond
 * U+10FFFF out. */
struct lead {
    unsigned char n, lo, hi; /* n: length 1..4, 0 if no character starts so */
};

static struct lead lead_of(unsigned char c)
{
    if (c < 0x80)
        return (struct lead){1, 0, 0};
    if (c < 0xC2 || c > 0xF4)
        return (struct lead){0, 0, 0};
    if (c < 0xE0)
        return (struct lead){2, 0x80, 0xBF};
    if (c < 0xF0)
        return (struct lead){3, c == 0xE0 ? 0xA0 : 0x80, c == 0xED ? 0x9F : 0xBF};
    return (struct lead){4, c == 0xF0 ? 0x90 : 0x80, c == 0xF4 ? 0x8F : 0xBF};
}

/* How many bytes of p[0..n), n >= 1, belong to one well-formed character or to the start of one;
 * *need is the character's full length (0: no character starts so). have == need: complete. have ==
 * n < need: cut off. */
static size_t sequence(const unsigned char *p, size_t n, size_t *need)
{
    struct lead l = lead_of(p[0]);
    *need = l.n;
    size_t have = 1;
    while (have < l.n && have < n) {
        unsigned char lo = have == 1 ? l.lo : 0x80, hi = have == 1 ? l.hi : 0xBF;
        if (p[have] < lo || p[have] > hi)
            break;
        have++;
    }
    return have;
}

size_t utf8_decode(const char *p, size_t n, uint32_t *cp)
{
    static const unsigned char FIRST_BITS[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    if (n == 0)
        return 0;
    const unsigned char *u = (const unsigned char *)p;
    size_t need, have = sequence(u, n, &need);
    if (have != need)
        return 0;
    uint32_t v = u[0] & FIRST_BITS[need];
    for (size_t i = 1; i < need; i++)
        v = v << 6 | (u[i] & 0x3Fu);
    *cp = v;
    return need;
}

size_t utf8_encode(uint32_t cp, char out[4])
{
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
        return 0;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const unsigned char MARK[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)(MARK[n] | cp);
    return n;
}

size_t utf8_complete_len(const char *p, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        const unsigned char *u = (const unsigned char *)p + n - back;
        if ((*u & 0xC0) == 0x80)
            continue; /* a continuation byte: its first byte lies further back */
        size_t need, have = sequence(u, back, &need);
        return have == back && have < need ? n - back : n;
    }
    return n;
}

bool utf8_valid(slice s)
{
    const unsigned char *u = (const unsigned char *)s.p;
    size_t i = 0;
    while (i < s.n) {
        if (u[i] < 0x80) {
            i++;
            continue;
        }
        size_t need, have = sequence(u + i, s.n - i, &need);
        if (have != need)
            return false;
        i += have;
    }
    return true;
}

void utf8_put_lossy(buf *b, slice s)
{
    const unsigned char *u = (const unsigned char *)s.p;
    size_t i = 0, kept = 0; /* s[kept..i) is valid and not yet written */
    while (i < s.n) {
        size_t need, have = sequence(u + i, s.n - i, &need);
        if (have == need) {
            i += have;
            continue;
        }
        buf_put(b, s.p + kept, i - kept);
        buf_put_str(b, REPLACEMENT);
        i += have;
        kept = i;
    }
    if (i > kept)
        buf_put(b, s.p + kept, i - kept);
}

bool utf8_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}
