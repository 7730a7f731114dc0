/* What can be done with texts: filters, and methods of Python's str. */
#include <ctype.h>
#include <stdio.h>

#include "tokenizer-svc/jinja_int.h"

typedef struct jinja_val val;
typedef const struct jinja_args args;

static struct jinja_str need_str(jinja_run *r, val v, const char *what)
{
    if (v.kind != JINJA_STR)
        jinja_fail(r, ERR_INVALID, "%s wants a text, not %s", what, jinja_kind_text(v));
    return v.s;
}

/* As Python's str.isspace, which counts four separators of records too. */
static bool is_space(uint32_t cp)
{
    return utf8_is_space(cp) || (cp >= 0x1c && cp <= 0x1f);
}

/* Is the character c of n bytes one of `set`; NULL: white space. */
static bool strippable(const char *c, size_t n, const struct jinja_str *set)
{
    uint32_t cp;
    if (!set)
        return utf8_decode(c, n, &cp) == n && is_space(cp);
    for (size_t i = 0; i + n <= set->n; i++)
        if (memcmp(set->p + i, c, n) == 0)
            return true;
    return false;
}

struct jinja_str jinja_strip(struct jinja_str s, const struct jinja_str *set, bool left, bool right)
{
    size_t from = 0, to = s.n;
    while (left && from < to) {
        size_t n = 1;
        while (from + n < to && ((unsigned char)s.p[from + n] & 0xc0) == 0x80)
            n++;
        if (!strippable(s.p + from, n, set))
            break;
        from += n;
    }
    while (right && to > from) {
        size_t n = 1;
        while (n < to - from && ((unsigned char)s.p[to - n] & 0xc0) == 0x80)
            n++;
        if (!strippable(s.p + to - n, n, set))
            break;
        to -= n;
    }
    return jinja_part(s, from, to - from);
}

static val stripped(jinja_run *r, val self, args *a, bool left, bool right)
{
    const val *set = jinja_arg(a, 0, "chars");
    struct jinja_str s = jinja_to_str(r, self), of;
    bool given = set && set->kind != JINJA_NONE;
    if (given)
        of = need_str(r, *set, "strip");
    return jinja_of_str(jinja_strip(s, given ? &of : NULL, left, right));
}

static val m_strip(jinja_run *r, val self, args *a)
{
    return stripped(r, self, a, true, true);
}

static val m_lstrip(jinja_run *r, val self, args *a)
{
    return stripped(r, self, a, true, false);
}

static val m_rstrip(jinja_run *r, val self, args *a)
{
    return stripped(r, self, a, false, true);
}

enum letters { UPPER, LOWER, TITLE, CAPITAL };

static val cased(jinja_run *r, val self, enum letters how)
{
    struct jinja_str s = jinja_to_str(r, self);
    struct jinja_out o = {0};
    bool first = true, word = false;
    jinja_out_str(r, &o, s);
    for (size_t i = 0; i < o.n; i++) {
        bool up = how == UPPER || (how == TITLE && !word) || (how == CAPITAL && first);
        unsigned char c = (unsigned char)o.p[i];
        word = isalpha(c) || c >= 0x80;
        first = false;
        if (c < 0x80)
            o.p[i] = (char)(up ? toupper(c) : tolower(c));
    }
    return jinja_of_str(jinja_out_end(&o));
}

struct jinja_val jinja_lower(jinja_run *r, struct jinja_val v)
{
    return cased(r, v, LOWER);
}

static val f_upper(jinja_run *r, val self, args *a)
{
    (void)a;
    return cased(r, self, UPPER);
}

static val f_lower(jinja_run *r, val self, args *a)
{
    (void)a;
    return cased(r, self, LOWER);
}

static val f_title(jinja_run *r, val self, args *a)
{
    (void)a;
    return cased(r, self, TITLE);
}

static val f_capitalize(jinja_run *r, val self, args *a)
{
    (void)a;
    return cased(r, self, CAPITAL);
}

static size_t find(struct jinja_str in, size_t from, struct jinja_str what)
{
    const char *p = what.n <= in.n - from ? memmem(in.p + from, in.n - from, what.p, what.n) : NULL;
    return p ? (size_t)(p - in.p) : SIZE_MAX;
}

static val f_replace(jinja_run *r, val self, args *a)
{
    struct jinja_str s = jinja_to_str(r, self), old = jinja_str_arg(r, a, 0, "old", "replace"),
                     with = jinja_str_arg(r, a, 1, "new", "replace");
    int64_t left = jinja_int_arg(r, a, 2, "count", -1, "replace");
    struct jinja_out o = {0};
    size_t at = 0;
    if (old.n == 0)
        jinja_fail(r, ERR_UNSUPPORTED, "replacing an empty text");
    for (size_t next; left != 0 && (next = find(s, at, old)) != SIZE_MAX; left--) {
        jinja_out_str(r, &o, jinja_part(s, at, next - at));
        jinja_out_str(r, &o, with);
        jinja_step(r, 1);
        at = next + old.n;
    }
    jinja_out_str(r, &o, jinja_part(s, at, s.n - at));
    return jinja_of_str(jinja_out_end(&o));
}

/* At white space, or at a text; at most `most` cuts. */
static void split_blank(jinja_run *r, struct jinja_str s, int64_t most, struct jinja_list *l)
{
    s = jinja_strip(s, NULL, true, false);
    while (s.n > 0) {
        size_t n = 0, step;
        for (; n < s.n && (most != 0 || l->n == 0); n += step) {
            uint32_t cp;
            step = utf8_decode(s.p + n, s.n - n, &cp);
            step = step ? step : 1;
            if (is_space(cp) && most != 0)
                break;
        }
        if (most == 0)
            n = s.n;
        jinja_put(r, l, jinja_of_str(jinja_part(s, 0, n)));
        s = jinja_strip(jinja_part(s, n, s.n - n), NULL, true, false);
        most -= most > 0;
    }
}

static val m_split(jinja_run *r, val self, args *a)
{
    const val *by = jinja_arg(a, 0, "sep");
    int64_t most = jinja_int_arg(r, a, 1, "maxsplit", -1, "split");
    struct jinja_list *l = jinja_new_list(r);
    struct jinja_str s = self.s;
    if (!by || by->kind == JINJA_NONE) {
        split_blank(r, s, most, l);
        return jinja_of_list(l);
    }
    struct jinja_str sep = need_str(r, *by, "split");
    if (sep.n == 0)
        jinja_fail(r, ERR_INVALID, "split by an empty text");
    size_t at = 0;
    for (size_t next; most != 0 && (next = find(s, at, sep)) != SIZE_MAX; most -= most > 0) {
        jinja_put(r, l, jinja_of_str(jinja_part(s, at, next - at)));
        at = next + sep.n;
    }
    jinja_put(r, l, jinja_of_str(jinja_part(s, at, s.n - at)));
    return jinja_of_list(l);
}

static val m_rsplit(jinja_run *r, val self, args *a)
{
    struct jinja_str s = self.s, sep = jinja_str_arg(r, a, 0, "sep", "rsplit");
    int64_t most = jinja_int_arg(r, a, 1, "maxsplit", -1, "rsplit");
    struct jinja_list *back = jinja_new_list(r), *l = jinja_new_list(r);
    size_t end = s.n;
    if (sep.n == 0)
        jinja_fail(r, ERR_INVALID, "split by an empty text");
    for (size_t i = s.n >= sep.n ? s.n - sep.n + 1 : 0; i-- > 0 && most != 0;)
        if (i + sep.n <= end && memcmp(s.p + i, sep.p, sep.n) == 0) {
            jinja_put(r, back, jinja_of_str(jinja_part(s, i + sep.n, end - i - sep.n)));
            end = i;
            most -= most > 0;
        }
    jinja_put(r, back, jinja_of_str(jinja_part(s, 0, end)));
    for (size_t i = back->n; i-- > 0;)
        jinja_put(r, l, back->at[i]);
    return jinja_of_list(l);
}

/* One text, or any of several. */
static bool at_edge(jinja_run *r, struct jinja_str s, val what, bool end)
{
    if (what.kind == JINJA_LIST) {
        for (size_t i = 0; i < what.list->n; i++)
            if (at_edge(r, s, jinja_of_str(need_str(r, what.list->at[i], "startswith")), end))
                return true;
        return false;
    }
    struct jinja_str w = need_str(r, what, end ? "endswith" : "startswith");
    return w.n <= s.n && (w.n == 0 || memcmp(s.p + (end ? s.n - w.n : 0), w.p, w.n) == 0);
}

static val m_startswith(jinja_run *r, val self, args *a)
{
    const val *what = jinja_arg(a, 0, NULL);
    return jinja_bool(at_edge(r, self.s, what ? *what : JINJA_NOTHING, false));
}

static val m_endswith(jinja_run *r, val self, args *a)
{
    const val *what = jinja_arg(a, 0, NULL);
    return jinja_bool(at_edge(r, self.s, what ? *what : JINJA_NOTHING, true));
}

static val m_find(jinja_run *r, val self, args *a)
{
    size_t at = find(self.s, 0, jinja_str_arg(r, a, 0, NULL, "find"));
    return jinja_int(
        at == SIZE_MAX ? -1 : (int64_t)jinja_len(r, jinja_of_str(jinja_part(self.s, 0, at))));
}

static val m_count(jinja_run *r, val self, args *a)
{
    struct jinja_str what = jinja_str_arg(r, a, 0, NULL, "count");
    int64_t n = 0;
    if (what.n == 0)
        return jinja_int((int64_t)jinja_len(r, self) + 1);
    for (size_t at = 0; (at = find(self.s, at, what)) != SIZE_MAX; at += what.n)
        n++;
    return jinja_int(n);
}

static val m_removeprefix(jinja_run *r, val self, args *a)
{
    struct jinja_str p = jinja_str_arg(r, a, 0, NULL, "removeprefix"), s = self.s;
    return at_edge(r, s, jinja_of_str(p), false) ? jinja_of_str(jinja_part(s, p.n, s.n - p.n))
                                                 : self;
}

static val m_removesuffix(jinja_run *r, val self, args *a)
{
    struct jinja_str p = jinja_str_arg(r, a, 0, NULL, "removesuffix"), s = self.s;
    return at_edge(r, s, jinja_of_str(p), true) ? jinja_of_str(jinja_part(s, 0, s.n - p.n)) : self;
}

static val m_isdigit(jinja_run *r, val self, args *a)
{
    (void)r, (void)a;
    bool yes = self.s.n > 0;
    for (size_t i = 0; i < self.s.n; i++)
        yes &= self.s.p[i] >= '0' && self.s.p[i] <= '9';
    return jinja_bool(yes);
}

static val f_indent(jinja_run *r, val self, args *a)
{
    const val *w = jinja_arg(a, 0, "width");
    struct jinja_str s = jinja_to_str(r, self), by = {"                                ", NULL, 4};
    bool first = jinja_flag_arg(a, 1, "first", false), blank = jinja_flag_arg(a, 2, "blank", false),
         start = true;
    struct jinja_out o = {0};
    if (w && w->kind == JINJA_STR)
        by = w->s;
    else if (w)
        by.n = (size_t)jinja_int_arg(r, a, 0, "width", 4, "indent") & 31;
    for (size_t i = 0, n; i < s.n; i += n, start = false) {
        const char *end = memchr(s.p + i, '\n', s.n - i);
        n = end ? (size_t)(end - s.p) - i + 1 : s.n - i;
        bool empty = n == 1 && end;
        if (start ? first : (!empty || blank))
            jinja_out_str(r, &o, by);
        jinja_out_str(r, &o, jinja_part(s, i, n));
    }
    return jinja_of_str(jinja_out_end(&o));
}

static val join_texts(jinja_run *r, struct jinja_list *l, struct jinja_str sep)
{
    struct jinja_out o = {0};
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            jinja_out_str(r, &o, sep);
        jinja_out_value(r, &o, l->at[i]);
    }
    return jinja_of_str(jinja_out_end(&o));
}

static val f_join(jinja_run *r, val self, args *a)
{
    const val *sep = jinja_arg(a, 0, "d"), *attribute = jinja_arg(a, 1, "attribute");
    struct jinja_list *l = jinja_elements(r, self), *own = jinja_new_list(r);
    for (size_t i = 0; i < l->n; i++)
        jinja_put(r, own, attribute ? jinja_by_path(r, l->at[i], *attribute) : l->at[i]);
    return join_texts(r, own, sep ? jinja_to_str(r, *sep) : jinja_literal("").s);
}

static val m_join(jinja_run *r, val self, args *a)
{
    const val *of = jinja_arg(a, 0, NULL);
    return join_texts(r, jinja_elements(r, of ? *of : JINJA_NOTHING), self.s);
}

/* "{} {0} {name}"; what may stand behind a colon is not supported. */
static val m_format(jinja_run *r, val self, args *a)
{
    struct jinja_str s = self.s;
    struct jinja_out o = {0};
    size_t next = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i], after = i + 1 < s.n ? s.p[i + 1] : 0;
        if ((c == '{' || c == '}') && after == c) {
            jinja_out_str(r, &o, jinja_part(s, i++, 1));
            continue;
        }
        if (c != '{') {
            jinja_out_str(r, &o, jinja_part(s, i, 1));
            continue;
        }
        const char *end = memchr(s.p + i, '}', s.n - i);
        slice name = {s.p + i + 1, end ? (size_t)(end - s.p) - i - 1 : 0};
        uint64_t number = 0;
        const val *v = NULL;
        if (name.n == 0 && end)
            v = jinja_arg(a, next++, NULL);
        else if (slice_u64(name, &number) == 0)
            v = jinja_arg(a, (size_t)number, NULL);
        for (size_t k = 0; !v && k < a->n_named; k++)
            v = slice_eq(a->names[k], name) ? &a->named[k] : NULL;
        if (!v)
            jinja_fail(r, ERR_UNSUPPORTED, "format with '{%.*s}'", (int)(name.n < 40 ? name.n : 40),
                       name.p);
        jinja_out_value(r, &o, *v);
        i += name.n + 1;
    }
    return jinja_of_str(jinja_out_end(&o));
}

static val f_string(jinja_run *r, val self, args *a)
{
    (void)a;
    return jinja_of_str(jinja_to_str(r, self));
}

static val f_same(jinja_run *r, val self, args *a)
{
    (void)r, (void)a;
    return self;
}

static val f_escape(jinja_run *r, val self, args *a)
{
    static const char *const CODES[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
    struct jinja_str s = jinja_to_str(r, self);
    struct jinja_out o = {0};
    (void)a;
    for (size_t i = 0; i < s.n; i++) {
        const char *at = s.p[i] ? strchr("&<>\"'", s.p[i]) : NULL;
        if (at)
            jinja_out_text(r, &o, CODES[strchr("&<>\"'", s.p[i]) - strchr("&<>\"'", '&')]);
        else
            jinja_out_str(r, &o, jinja_part(s, i, 1));
    }
    return jinja_of_str(jinja_out_end(&o));
}

static val f_tojson(jinja_run *r, val self, args *a)
{
    const val *pair = jinja_arg(a, 2, "separators");
    struct jinja_str both[2];
    struct jinja_out o = {0};
    if (pair && pair->kind == JINJA_LIST && pair->list->n == 2) {
        both[0] = need_str(r, pair->list->at[0], "tojson");
        both[1] = need_str(r, pair->list->at[1], "tojson");
    } else
        pair = NULL;
    struct jinja_json_style style = {.indent = jinja_int_arg(r, a, 1, "indent", -1, "tojson"),
                                     .separators = pair ? both : NULL,
                                     .ascii = jinja_flag_arg(a, 0, "ensure_ascii", false),
                                     .sorted = jinja_flag_arg(a, 3, "sort_keys", false)};
    jinja_json(r, &o, self, &style);
    return jinja_of_str(jinja_out_end(&o));
}

/* Some templates name it, in branches for arguments that come as text; the library that renders
 * them elsewhere has it not either. */
static val f_from_json(jinja_run *r, val self, args *a)
{
    (void)self, (void)a;
    jinja_fail(r, ERR_UNSUPPORTED, "from_json is not supported: give arguments as objects");
}

/* ---- tables ---- */

static const struct jinja_fn FILTERS[] = {
    {"capitalize", f_capitalize, 0},
    {"e", f_escape, 0},
    {"escape", f_escape, 0},
    {"from_json", f_from_json, 0},
    {"indent", f_indent, 0},
    {"join", f_join, 0},
    {"lower", f_lower, 0},
    {"replace", f_replace, 0},
    {"safe", f_same, 0},
    {"string", f_string, 0},
    {"title", f_title, 0},
    {"tojson", f_tojson, 0},
    {"trim", m_strip, 0},
    {"upper", f_upper, 0},
};

static const struct jinja_fn METHODS[] = {
    {"capitalize", f_capitalize, 0},
    {"count", m_count, 0},
    {"endswith", m_endswith, 0},
    {"find", m_find, 0},
    {"format", m_format, 0},
    {"isdigit", m_isdigit, 0},
    {"join", m_join, 0},
    {"lower", f_lower, 0},
    {"lstrip", m_lstrip, 0},
    {"removeprefix", m_removeprefix, 0},
    {"removesuffix", m_removesuffix, 0},
    {"replace", f_replace, 0},
    {"rsplit", m_rsplit, 0},
    {"rstrip", m_rstrip, 0},
    {"split", m_split, 0},
    {"startswith", m_startswith, 0},
    {"strip", m_strip, 0},
    {"title", f_title, 0},
    {"upper", f_upper, 0},
};

const struct jinja_fn *jinja_text_filter(slice name)
{
    return jinja_fn_find(FILTERS, ARRAY_LEN(FILTERS), name);
}

const struct jinja_fn *jinja_text_method(slice name)
{
    return jinja_fn_find(METHODS, ARRAY_LEN(METHODS), name);
}
