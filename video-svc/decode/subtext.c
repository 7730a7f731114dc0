#include "video-svc/decode/subtext.h"

#define ASS_FIELDS 8 /* before the text */

/* <b>, </font>, <00:00:01.000>, <c.yellow>: a tag begins with a letter, a slash or a digit right
 * behind the '<'. */
static size_t tag_len(slice s)
{
    if (s.n < 3 || s.p[0] != '<')
        return 0;
    char c = s.p[1];
    if (!(c == '/' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')))
        return 0;
    const char *end = memchr(s.p, '>', s.n);
    return end ? (size_t)(end - s.p) + 1 : 0;
}

static bool visible(unsigned char c)
{
    return c >= 32 ? c != 127 : c == '\n' || c == '\t';
}

void subtext_plain(slice text, buf *out)
{
    buf clean = {0};
    for (size_t i = 0; i < text.n;) {
        size_t tag = tag_len((slice){text.p + i, text.n - i});
        if (tag == 0 && visible((unsigned char)text.p[i]))
            buf_put_byte(&clean, (unsigned char)text.p[i]);
        i += tag ? tag : 1;
    }
    utf8_put_lossy(out, buf_slice(&clean));
    buf_clear(&clean);
}

/* {\p1} begins a drawing, {\p0} ends it: what stands between is coordinates, not text. */
static bool drawing_after(slice block, bool before)
{
    for (size_t i = 0; i + 2 < block.n; i++)
        if (block.p[i] == '\\' && block.p[i + 1] == 'p' && block.p[i + 2] >= '0' &&
            block.p[i + 2] <= '9')
            before = block.p[i + 2] != '0';
    return before;
}

static slice ass_text(slice event)
{
    for (int field = 0; field < ASS_FIELDS; field++) {
        const char *comma = event.n ? memchr(event.p, ',', event.n) : NULL;
        if (!comma)
            return (slice){0};
        event.n -= (size_t)(comma + 1 - event.p);
        event.p = comma + 1;
    }
    return event;
}

void subtext_from_ass(slice event, buf *out)
{
    slice t = ass_text(event);
    buf plain = {0};
    bool drawing = false;
    for (size_t i = 0; i < t.n;) {
        const char *end = t.p[i] == '{' ? memchr(t.p + i, '}', t.n - i) : NULL;
        if (end) {
            drawing = drawing_after((slice){t.p + i, (size_t)(end - t.p) - i}, drawing);
            i = (size_t)(end - t.p) + 1;
        } else if (t.p[i] == '\\' && i + 1 < t.n && strchr("Nnh", t.p[i + 1])) {
            buf_put_byte(&plain, t.p[i + 1] == 'h' ? ' ' : '\n');
            i += 2;
        } else {
            if (!drawing)
                buf_put_byte(&plain, (unsigned char)t.p[i]);
            i++;
        }
    }
    subtext_plain(buf_slice(&plain), out);
    buf_clear(&plain);
}
