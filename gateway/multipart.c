#include "gateway/multipart.h"

#include <stdio.h>
#include <strings.h>

static bool starts_nocase(slice s, const char *word)
{
    size_t n = strlen(word);
    return s.n >= n && strncasecmp(s.p, word, n) == 0;
}

/* ---- parameters of a header: ; name=value ; name="va\"lue" ---- */

static slice skip(slice s, size_t n)
{
    return (slice){s.p + n, s.n - n};
}

static slice skip_blank(slice s)
{
    while (s.n && (*s.p == ' ' || *s.p == '\t' || *s.p == ';'))
        s = skip(s, 1);
    return s;
}

/* A quoted string from after its quote; backslashes protect. Returns what follows it. */
static slice take_quoted(slice s, buf *out)
{
    while (s.n && *s.p != '"') {
        if (*s.p == '\\' && s.n > 1)
            s = skip(s, 1);
        buf_put_byte(out, (unsigned char)*s.p);
        s = skip(s, 1);
    }
    return s.n ? skip(s, 1) : s;
}

static slice take_value(slice s, buf *out)
{
    buf_reset(out);
    if (s.n && *s.p == '"')
        return take_quoted(skip(s, 1), out);
    while (s.n && *s.p != ';' && *s.p != ' ' && *s.p != '\t') {
        buf_put_byte(out, (unsigned char)*s.p);
        s = skip(s, 1);
    }
    return s;
}

/* Finds the parameter `name` in what follows a header's first word. */
static bool find_param(slice s, const char *name, buf *out)
{
    for (s = skip_blank(s); s.n; s = skip_blank(s)) {
        size_t n = 0;
        while (n < s.n && s.p[n] != '=' && s.p[n] != ';')
            n++;
        slice key = slice_trim((slice){s.p, n});
        s = skip(s, n);
        if (!s.n || *s.p != '=')
            continue;
        s = take_value(skip_blank(skip(s, 1)), out);
        if (key.n == strlen(name) && starts_nocase(key, name))
            return true;
    }
    buf_reset(out);
    return false;
}

/* ---- the boundary ---- */

int multipart_init(struct multipart *m, slice content_type, const struct multipart_ops *ops,
                   void *ctx, struct why *w)
{
    *m = (struct multipart){.ops = ops, .ctx = ctx};
    static const char TYPE[] = "multipart/form-data";
    if (!starts_nocase(content_type, TYPE))
        return why_set(w, ERR_INVALID, "", "the body must be multipart/form-data");
    buf boundary = {0};
    find_param(skip(content_type, sizeof TYPE - 1), "boundary", &boundary);
    bool ok = boundary.n >= 1 && boundary.n <= BOUNDARY_BYTES_MAX &&
              !memchr(boundary.p, '\r', boundary.n) && !memchr(boundary.p, '\n', boundary.n);
    if (ok) {
        memcpy(m->delim, "\r\n--", 4);
        memcpy(m->delim + 4, boundary.p, boundary.n);
        m->delim_len = 4 + boundary.n;
        buf_put_str(&m->hold, "\r\n"); /* so that the first boundary looks like the others */
    }
    buf_clear(&boundary);
    return ok ? 0
              : why_set(w, ERR_INVALID, "", "Content-Type needs a boundary of 1 to %d characters",
                        BOUNDARY_BYTES_MAX);
}

void multipart_clear(struct multipart *m)
{
    buf_clear(&m->hold);
}

/* ---- a part's headers ---- */

static void percent_decode(buf *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++) {
        unsigned char c;
        if (b->p[i] == '%' && i + 2 < b->n && hex_decode((slice){b->p + i + 1, 2}, &c, 1) == 0) {
            b->p[n++] = (char)c;
            i += 2;
        } else {
            b->p[n++] = b->p[i];
        }
    }
    b->n = n;
}

/* filename*=UTF-8''percent%20encoded beats filename= (RFC 6266; some clients send only that). */
static bool find_filename(slice params, buf *out)
{
    static const char PREFIX[] = "utf-8''";
    if (find_param(params, "filename*", out) && starts_nocase(buf_slice(out), PREFIX)) {
        buf_drop_front(out, sizeof PREFIX - 1);
        percent_decode(out);
        return true;
    }
    return find_param(params, "filename", out);
}

static int begin_part(struct multipart *m, slice headers, struct why *w)
{
    static const char WORD[] = "content-disposition:", KIND[] = "form-data";
    slice line, params = {0};
    if (++m->n_parts > FORM_PARTS_MAX)
        return why_set(w, ERR_TOO_BIG, "", "more than %d parts in the form", FORM_PARTS_MAX);
    while (slice_split(&headers, '\n', &line))
        if (starts_nocase(line, WORD))
            params = slice_trim(skip(line, sizeof WORD - 1));
    if (!starts_nocase(params, KIND))
        return why_set(w, ERR_INVALID, "",
                       "a part of the form has no Content-Disposition: form-data");
    params = skip(params, sizeof KIND - 1);
    buf name = {0}, filename = {0};
    int e;
    if (find_param(params, "name", &name)) {
        bool is_file = find_filename(params, &filename);
        e = m->ops->part(m->ctx, buf_slice(&name), buf_slice(&filename), is_file, w);
    } else {
        e = why_set(w, ERR_INVALID, "", "a part of the form has no name");
    }
    buf_clear(&name);
    buf_clear(&filename);
    return e;
}

/* ---- the stream; each step returns 1: go on, 0: more bytes are needed, negative: an error ---- */

static const char *find_delim(const struct multipart *m)
{
    return m->hold.n < m->delim_len ? NULL : memmem(m->hold.p, m->hold.n, m->delim, m->delim_len);
}

static int step_preamble(struct multipart *m)
{
    const char *at = find_delim(m);
    if (!at) {
        if (m->hold.n >= m->delim_len)
            buf_drop_front(&m->hold, m->hold.n - (m->delim_len - 1));
        return 0;
    }
    buf_drop_front(&m->hold, (size_t)(at - m->hold.p) + m->delim_len);
    m->state = MP_BOUNDARY;
    return 1;
}

/* After a boundary: "--" ends the form, a line's end begins a part; blanks between are allowed. */
static int step_boundary(struct multipart *m, struct why *w)
{
    size_t blank = 0;
    while (blank < m->hold.n && (m->hold.p[blank] == ' ' || m->hold.p[blank] == '\t'))
        blank++;
    if (blank > BOUNDARY_BYTES_MAX)
        return why_set(w, ERR_INVALID, "", "broken boundary in the form");
    if (m->hold.n < blank + 2)
        return 0;
    buf_drop_front(&m->hold, blank);
    if (m->hold.p[0] == '-' && m->hold.p[1] == '-')
        m->state = MP_END;
    else if (m->hold.p[0] == '\r' && m->hold.p[1] == '\n')
        m->state = MP_HEADERS; /* the line's end stays: empty headers end at once */
    else
        return why_set(w, ERR_INVALID, "", "broken boundary in the form");
    return 1;
}

static int step_headers(struct multipart *m, struct why *w)
{
    const char *end = memmem(m->hold.p, m->hold.n, "\r\n\r\n", 4);
    size_t n = end ? (size_t)(end - m->hold.p) : m->hold.n;
    if (n > PART_HEADERS_BYTES_MAX)
        return why_set(w, ERR_TOO_BIG, "", "a part's headers have more than %d bytes",
                       PART_HEADERS_BYTES_MAX);
    if (!end)
        return 0;
    slice headers = n >= 2 ? (slice){m->hold.p + 2, n - 2} : (slice){m->hold.p, 0};
    int e = begin_part(m, headers, w);
    if (e < 0)
        return e;
    /* The last line's end stays: an empty body is followed by the boundary without one of its own.
     */
    buf_drop_front(&m->hold, n + 2);
    m->state = MP_BODY;
    m->fresh = true;
    return 1;
}

static int emit(struct multipart *m, size_t n, struct why *w)
{
    int e = n ? m->ops->data(m->ctx, (slice){m->hold.p, n}, w) : 0;
    if (e == 0)
        buf_drop_front(&m->hold, n);
    return e;
}

static int step_body(struct multipart *m, struct why *w)
{
    const char *at = find_delim(m);
    size_t n = at                         ? (size_t)(at - m->hold.p)
               : m->hold.n < m->delim_len ? 0
                                          : m->hold.n - (m->delim_len - 1);
    if (m->fresh && (at || n)) { /* the blank line's end is not part of the body, unless the
                                    boundary begins with it */
        m->fresh = false;
        if (!at || n > 0) {
            buf_drop_front(&m->hold, 2);
            return 1;
        }
    }
    int e = emit(m, n, w);
    if (e < 0 || !at)
        return e;
    buf_drop_front(&m->hold, m->delim_len);
    m->state = MP_BOUNDARY;
    e = m->ops->part_end(m->ctx, w);
    return e < 0 ? e : 1;
}

static int step(struct multipart *m, struct why *w)
{
    switch (m->state) {
    case MP_PREAMBLE:
        return step_preamble(m);
    case MP_BOUNDARY:
        return step_boundary(m, w);
    case MP_HEADERS:
        return step_headers(m, w);
    case MP_BODY:
        return step_body(m, w);
    case MP_END:
        break;
    }
    buf_reset(&m->hold); /* what follows the last boundary is nobody's */
    return 0;
}

int multipart_feed(struct multipart *m, slice bytes, struct why *w)
{
    int e;
    buf_put(&m->hold, bytes.p, bytes.n);
    while ((e = step(m, w)) > 0)
        continue;
    return e;
}

int multipart_end(struct multipart *m, struct why *w)
{
    return m->state == MP_END
               ? 0
               : why_set(w, ERR_INVALID, "", "the form ends before its last boundary");
}
