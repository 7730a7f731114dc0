/* Writing values: as Python's str() and repr(), and as JSON. */
#include <math.h>
#include <stdio.h>

#include "tokenizer-svc/jinja_int.h"

/* ---- text ---- */

void jinja_out_bytes(jinja_run *r, struct jinja_out *o, const char *p, const uint8_t *from,
                     size_t n)
{
    if (n > JINJA_OUTPUT_MAX - o->n)
        jinja_fail(r, ERR_TOO_BIG, "a text of more than %u bytes", JINJA_OUTPUT_MAX);
    if (n > o->cap - o->n) {
        size_t cap = o->cap ? 2 * o->cap : 64;
        cap = cap < o->n + n ? o->n + n : cap;
        char *more = jinja_room(r, cap);
        uint8_t *of = jinja_room(r, cap);
        if (o->n) {
            memcpy(more, o->p, o->n);
            memcpy(of, o->from, o->n);
        }
        o->p = more;
        o->from = of;
        o->cap = cap;
    }
    if (n == 0)
        return;
    memcpy(o->p + o->n, p, n);
    if (from)
        memcpy(o->from + o->n, from, n);
    else
        memset(o->from + o->n, 0, n);
    o->n += n;
    jinja_step(r, n / 256);
}

void jinja_out_str(jinja_run *r, struct jinja_out *o, struct jinja_str s)
{
    jinja_out_bytes(r, o, s.p, s.from, s.n);
}

void jinja_out_text(jinja_run *r, struct jinja_out *o, const char *s)
{
    jinja_out_bytes(r, o, s, NULL, strlen(s));
}

struct jinja_str jinja_out_end(const struct jinja_out *o)
{
    return o->n ? (struct jinja_str){o->p, o->from, o->n} : (struct jinja_str){"", NULL, 0};
}

/* The shortest digits that read back the same, as Python's repr() has them. */
static void put_float(jinja_run *r, struct jinja_out *o, double f)
{
    char text[64];
    double back = 0;
    if (!isfinite(f)) {
        jinja_out_text(r, o, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, f);
        if (slice_f64(slice_str(text), &back) == 0 && !(back < f) && !(back > f))
            break;
    }
    double size = fabs(f);
    if (strchr(text, 'e') && size < 1e16 && size >= 1e-4)
        snprintf(text, sizeof text, "%.0f", f);
    jinja_out_text(r, o, text);
    if (!strpbrk(text, ".e"))
        jinja_out_text(r, o, ".0");
}

static void put_repr(jinja_run *r, struct jinja_out *o, struct jinja_val v);

/* A text as Python's repr() quotes it. */
static void put_quoted(jinja_run *r, struct jinja_out *o, struct jinja_str s)
{
    bool single = memchr(s.p, '\'', s.n) && !memchr(s.p, '"', s.n);
    char quote = single ? '"' : '\'', code[16];
    jinja_out_bytes(r, o, &quote, NULL, 1);
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        const char *named = c == '\n'   ? "\\n"
                            : c == '\r' ? "\\r"
                            : c == '\t' ? "\\t"
                            : c == '\\' ? "\\\\"
                                        : NULL;
        if (!named && c == quote) {
            snprintf(code, sizeof code, "\\%c", c);
            named = code;
        } else if (!named && ((unsigned char)c < 0x20 || c == 0x7f)) {
            snprintf(code, sizeof code, "\\x%02x", (unsigned char)c);
            named = code;
        }
        uint8_t from[4] = {0};
        memset(from, s.from ? s.from[i] : 0, sizeof from);
        if (named)
            jinja_out_bytes(r, o, named, from, strlen(named));
        else
            jinja_out_bytes(r, o, &c, from, 1);
    }
    jinja_out_bytes(r, o, &quote, NULL, 1);
}

static void put_members(jinja_run *r, struct jinja_out *o, struct jinja_val v)
{
    bool dict = v.kind == JINJA_DICT, tuple = !dict && v.list->tuple;
    size_t n = dict ? v.dict->n : v.list->n;
    jinja_nest(r);
    jinja_out_text(r, o, dict ? "{" : tuple ? "(" : "[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            jinja_out_text(r, o, ", ");
        if (dict) {
            put_repr(r, o, v.dict->at[i].key);
            jinja_out_text(r, o, ": ");
        }
        put_repr(r, o, dict ? v.dict->at[i].value : v.list->at[i]);
    }
    jinja_out_text(r, o, dict ? "}" : tuple ? (n == 1 ? ",)" : ")") : "]");
    r->nesting--;
}

static void put_repr(jinja_run *r, struct jinja_out *o, struct jinja_val v)
{
    jinja_step(r, 1);
    if (v.kind == JINJA_STR)
        put_quoted(r, o, v.s);
    else if (v.kind == JINJA_UNDEFINED)
        jinja_out_text(r, o, "Undefined");
    else
        jinja_out_value(r, o, v);
}

void jinja_out_value(jinja_run *r, struct jinja_out *o, struct jinja_val v)
{
    char text[32];
    switch (v.kind) {
    case JINJA_UNDEFINED:
        return;
    case JINJA_NONE:
        jinja_out_text(r, o, "None");
        return;
    case JINJA_BOOL:
        jinja_out_text(r, o, v.b ? "True" : "False");
        return;
    case JINJA_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.i);
        jinja_out_text(r, o, text);
        return;
    case JINJA_FLOAT:
        put_float(r, o, v.f);
        return;
    case JINJA_STR:
        jinja_out_str(r, o, v.s);
        return;
    case JINJA_LIST:
    case JINJA_DICT:
        put_members(r, o, v);
        return;
    case JINJA_CALL:
        jinja_fail(r, ERR_INVALID, "a function is written out; it must be called");
    }
}

struct jinja_str jinja_to_str(jinja_run *r, struct jinja_val v)
{
    struct jinja_out o = {0};
    if (v.kind == JINJA_STR)
        return v.s;
    jinja_out_value(r, &o, v);
    return jinja_out_end(&o);
}

/* ---- JSON ---- */

struct json_style {
    int64_t indent;
    struct jinja_str comma, colon;
    bool ascii, sorted;
};

/* \uXXXX, twice for characters beyond 16 bits; returns the bytes it stands for. */
static size_t json_escape(jinja_run *r, struct jinja_out *o, struct jinja_str s, size_t at)
{
    char code[16];
    uint8_t from[16];
    uint32_t cp = 0;
    size_t n = utf8_decode(s.p + at, s.n - at, &cp);
    if (cp > 0xffff)
        snprintf(code, sizeof code, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10),
                 0xdc00 + ((cp - 0x10000) & 0x3ff));
    else
        snprintf(code, sizeof code, "\\u%04x", cp);
    memset(from, s.from ? s.from[at] : 0, sizeof from);
    jinja_out_bytes(r, o, code, from, strlen(code));
    return n ? n : 1;
}

static void json_string(jinja_run *r, struct jinja_out *o, struct jinja_str s, bool ascii)
{
    static const char FROM[] = "\"\\\n\r\t\b\f", TO[] = "\"\\nrtbf";
    jinja_out_text(r, o, "\"");
    for (size_t i = 0, plain; i < s.n; i += plain) {
        for (plain = 0; i + plain < s.n; plain++) {
            unsigned char c = (unsigned char)s.p[i + plain];
            if (c < 0x20 || c == '"' || c == '\\' || (ascii && c >= 0x7f))
                break;
        }
        if (plain) {
            jinja_out_str(r, o, jinja_part(s, i, plain));
            continue;
        }
        const char *known = s.p[i] ? strchr(FROM, s.p[i]) : NULL;
        if (!known) {
            plain = json_escape(r, o, s, i);
            continue;
        }
        char code[2] = {'\\', TO[known - FROM]};
        uint8_t from[2];
        memset(from, s.from ? s.from[i] : 0, sizeof from);
        jinja_out_bytes(r, o, code, from, sizeof code);
        plain = 1;
    }
    jinja_out_text(r, o, "\"");
}

static void json_line(jinja_run *r, struct jinja_out *o, const struct json_style *style,
                      int64_t level)
{
    if (style->indent < 0)
        return;
    jinja_out_text(r, o, "\n");
    for (int64_t i = 0; i < level * style->indent; i++)
        jinja_out_text(r, o, " ");
}

static void json_value(jinja_run *r, struct jinja_out *o, struct jinja_val v,
                       const struct json_style *style, int64_t level);

/* The order of members: by key where it is asked for; returns the next after `last`. */
static const struct jinja_pair *json_member(jinja_run *r, const struct jinja_dict *d, size_t i,
                                            const struct jinja_pair *last, bool sorted)
{
    const struct jinja_pair *best = NULL;
    if (!sorted)
        return &d->at[i];
    for (size_t k = 0; k < d->n; k++)
        if ((!last || jinja_order(r, d->at[k].key, last->key) > 0) &&
            (!best || jinja_order(r, d->at[k].key, best->key) < 0))
            best = &d->at[k];
    return best;
}

static void json_container(jinja_run *r, struct jinja_out *o, struct jinja_val v,
                           const struct json_style *style, int64_t level)
{
    bool dict = v.kind == JINJA_DICT;
    size_t n = dict ? v.dict->n : v.list->n;
    const struct jinja_pair *member = NULL;
    jinja_nest(r);
    jinja_out_text(r, o, dict ? "{" : "[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            jinja_out_str(r, o, style->comma);
        json_line(r, o, style, level + 1);
        if (dict) {
            member = json_member(r, v.dict, i, member, style->sorted);
            if (!member)
                break;
            json_string(r, o, jinja_to_str(r, member->key), style->ascii);
            jinja_out_str(r, o, style->colon);
        }
        json_value(r, o, dict ? member->value : v.list->at[i], style, level + 1);
    }
    if (n > 0)
        json_line(r, o, style, level);
    jinja_out_text(r, o, dict ? "}" : "]");
    r->nesting--;
}

static void json_value(jinja_run *r, struct jinja_out *o, struct jinja_val v,
                       const struct json_style *style, int64_t level)
{
    jinja_step(r, 1);
    if (v.kind == JINJA_STR)
        json_string(r, o, v.s, style->ascii);
    else if (v.kind == JINJA_LIST || v.kind == JINJA_DICT)
        json_container(r, o, v, style, level);
    else if (v.kind == JINJA_NONE)
        jinja_out_text(r, o, "null");
    else if (v.kind == JINJA_BOOL)
        jinja_out_text(r, o, v.b ? "true" : "false");
    else if (v.kind == JINJA_INT || v.kind == JINJA_FLOAT)
        jinja_out_value(r, o, v);
    else
        jinja_fail(r, ERR_INVALID, "%s cannot be written as JSON", jinja_kind_text(v));
}

void jinja_json(jinja_run *r, struct jinja_out *o, struct jinja_val v,
                const struct jinja_json_style *how)
{
    struct json_style style = {
        .indent = how->indent > 16 ? 16 : how->indent, .ascii = how->ascii, .sorted = how->sorted};
    style.comma =
        how->separators ? how->separators[0] : jinja_literal(how->indent < 0 ? ", " : ",").s;
    style.colon = how->separators ? how->separators[1] : jinja_literal(": ").s;
    json_value(r, o, v, &style, 0);
}
