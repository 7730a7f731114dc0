#include "gateway/base64.h"

/* Value of a digit of either alphabet (standard and URL-safe); negative: not one. */
static int digit(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

static bool blank(unsigned char c)
{
    return c == '\n' || c == '\r' || c == ' ' || c == '\t';
}

/* Takes one character; true in *full when a group of four digits is complete. */
static int step(struct base64 *b, unsigned char c, bool *full)
{
    *full = false;
    if (blank(c))
        return 0;
    if (c == '=')
        return ++b->pads > 2 ? ERR_INVALID : 0;
    int d = digit(c);
    if (d < 0 || b->pads)
        return ERR_INVALID;
    b->bits = b->bits << 6 | (uint32_t)d;
    *full = ++b->n == 4;
    return 0;
}

static void put_group(struct base64 *b, buf *out)
{
    unsigned char three[3] = {(unsigned char)(b->bits >> 16), (unsigned char)(b->bits >> 8),
                              (unsigned char)b->bits};
    buf_put(out, three, 3);
    b->bits = 0;
    b->n = 0;
}

int base64_feed(struct base64 *b, slice in, buf *out)
{
    for (size_t i = 0; i < in.n; i++) {
        bool full;
        if (step(b, (unsigned char)in.p[i], &full) < 0)
            return ERR_INVALID;
        if (full)
            put_group(b, out);
    }
    return 0;
}

/* 2 digits are one byte (2 pads), 3 are two (1 pad); padding may be left out, but not be wrong. */
static bool end_ok(const struct base64 *b)
{
    if (b->n == 0)
        return b->pads == 0;
    return b->n >= 2 && (b->pads == 0 || b->pads == 4 - b->n);
}

int base64_end(struct base64 *b, buf *out)
{
    if (!end_ok(b))
        return ERR_INVALID;
    if (b->n == 2)
        buf_put_byte(out, (unsigned char)(b->bits >> 4));
    if (b->n == 3) {
        buf_put_byte(out, (unsigned char)(b->bits >> 10));
        buf_put_byte(out, (unsigned char)(b->bits >> 2));
    }
    *b = (struct base64){0};
    return 0;
}

int base64_check(slice in, size_t *len)
{
    struct base64 b = {0};
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        bool full;
        if (step(&b, (unsigned char)in.p[i], &full) < 0)
            return ERR_INVALID;
        if (full) {
            n += 3;
            b.n = 0;
        }
    }
    if (!end_ok(&b))
        return ERR_INVALID;
    *len = n + (b.n ? b.n - 1 : 0);
    return 0;
}
