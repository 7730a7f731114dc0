/* What templates can call: filters, tests, methods of values, global functions; of texts in
 * jinja_text.c. jinja2's filters.py and tests.py, Python's str and dict, and what transformers
 * adds. */
#include <stdio.h>
#include <time.h>

#include "tokenizer-svc/jinja_int.h"

#define RANGE_MAX 100000

typedef struct jinja_val val;
typedef const struct jinja_args args;

static struct jinja_str need_str(jinja_run *r, val v, const char *what)
{
    if (v.kind != JINJA_STR)
        jinja_fail(r, ERR_INVALID, "%s wants a text, not %s", what, jinja_kind_text(v));
    return v.s;
}

struct jinja_str jinja_str_arg(jinja_run *r, args *a, size_t i, const char *name, const char *what)
{
    const val *v = jinja_arg(a, i, name);
    return need_str(r, v ? *v : JINJA_NOTHING, what);
}

int64_t jinja_int_arg(jinja_run *r, args *a, size_t i, const char *name, int64_t absent,
                      const char *what)
{
    const val *v = jinja_arg(a, i, name);
    if (!v || v->kind == JINJA_NONE)
        return absent;
    if (v->kind != JINJA_INT && v->kind != JINJA_BOOL)
        jinja_fail(r, ERR_INVALID, "%s wants a whole number, not %s", what, jinja_kind_text(*v));
    return v->kind == JINJA_INT ? v->i : v->b;
}

bool jinja_flag_arg(args *a, size_t i, const char *name, bool absent)
{
    const val *v = jinja_arg(a, i, name);
    return v ? jinja_true(*v) : absent;
}

/* ---- numbers ---- */

static val to_number(jinja_run *r, val self, val otherwise, bool whole)
{
    double f = 0;
    (void)r;
    if (self.kind == JINJA_BOOL || self.kind == JINJA_INT) {
        int64_t i = self.kind == JINJA_INT ? self.i : self.b;
        return whole ? jinja_int(i) : jinja_float((double)i);
    }
    if (self.kind == JINJA_FLOAT)
        f = self.f;
    else if (self.kind == JINJA_STR) {
        struct jinja_str s = jinja_strip(self.s, NULL, true, true);
        if (slice_f64((slice){s.p, s.n}, &f) < 0)
            return otherwise;
    } else
        return otherwise;
    if (!whole)
        return jinja_float(f);
    return f > -9e18 && f < 9e18 ? jinja_int((int64_t)f) : otherwise;
}

static val f_int(jinja_run *r, val self, args *a)
{
    const val *otherwise = jinja_arg(a, 0, "default");
    return to_number(r, self, otherwise ? *otherwise : jinja_int(0), true);
}

static val f_float(jinja_run *r, val self, args *a)
{
    const val *otherwise = jinja_arg(a, 0, "default");
    return to_number(r, self, otherwise ? *otherwise : jinja_float(0), false);
}

static val f_abs(jinja_run *r, val self, args *a)
{
    (void)a;
    return jinja_order(r, self, jinja_int(0)) < 0 ? jinja_math(r, OP_SUB, jinja_int(0), self)
                                                  : self;
}

static val f_round(jinja_run *r, val self, args *a)
{
    val f = to_number(r, self, JINJA_NOTHING, false);
    char text[400];
    int64_t digits = jinja_int_arg(r, a, 0, "precision", 0, "round");
    double out = 0;
    if (f.kind != JINJA_FLOAT || jinja_arg(a, 1, "method") || digits < 0 || digits > 15)
        jinja_fail(r, ERR_UNSUPPORTED, "round in this way");
    snprintf(text, sizeof text, "%.*f", (int)digits, f.f);
    return slice_f64(slice_str(text), &out) < 0 ? f : jinja_float(out);
}

/* ---- lists and dictionaries ---- */

static val f_length(jinja_run *r, val self, args *a)
{
    (void)a;
    return jinja_int((int64_t)jinja_len(r, self));
}

static val f_first(jinja_run *r, val self, args *a)
{
    struct jinja_list *l = jinja_elements(r, self);
    (void)a;
    return l->n ? l->at[0] : JINJA_NOTHING;
}

static val f_last(jinja_run *r, val self, args *a)
{
    struct jinja_list *l = jinja_elements(r, self);
    (void)a;
    return l->n ? l->at[l->n - 1] : JINJA_NOTHING;
}

static val f_list(jinja_run *r, val self, args *a)
{
    struct jinja_list *l = jinja_elements(r, self), *own = jinja_new_list(r);
    (void)a;
    for (size_t i = 0; i < l->n; i++)
        jinja_put(r, own, l->at[i]);
    return jinja_of_list(own);
}

static val f_reverse(jinja_run *r, val self, args *a)
{
    (void)a;
    return jinja_cut(r, self.kind == JINJA_STR ? self : jinja_of_list(jinja_elements(r, self)),
                     JINJA_NOTHING, JINJA_NOTHING, jinja_int(-1));
}

enum members { KEYS, VALUES, ITEMS };

static val members(jinja_run *r, val self, enum members what)
{
    struct jinja_list *l = jinja_new_list(r);
    if (self.kind == JINJA_UNDEFINED)
        return jinja_of_list(l);
    if (self.kind != JINJA_DICT)
        jinja_fail(r, ERR_INVALID, "%s has no members", jinja_kind_text(self));
    for (size_t i = 0; i < self.dict->n; i++) {
        const struct jinja_pair *p = &self.dict->at[i];
        struct jinja_list *pair = what == ITEMS ? jinja_new_list(r) : NULL;
        if (pair) {
            pair->tuple = true;
            jinja_put(r, pair, p->key);
            jinja_put(r, pair, p->value);
        }
        jinja_put(r, l, pair ? jinja_of_list(pair) : what == KEYS ? p->key : p->value);
    }
    return jinja_of_list(l);
}

static val m_keys(jinja_run *r, val self, args *a)
{
    (void)a;
    return members(r, self, KEYS);
}

static val m_values(jinja_run *r, val self, args *a)
{
    (void)a;
    return members(r, self, VALUES);
}

static val m_items(jinja_run *r, val self, args *a)
{
    (void)a;
    return members(r, self, ITEMS);
}

static val m_get(jinja_run *r, val self, args *a)
{
    const val *key = jinja_arg(a, 0, NULL), *otherwise = jinja_arg(a, 1, NULL);
    val *v = key ? jinja_find(r, self.dict, *key) : NULL;
    return v ? *v : otherwise ? *otherwise : JINJA_NULL;
}

/* Templates run with lists that cannot be changed; append is what some use to build their own. */
static val m_append(jinja_run *r, val self, args *a)
{
    const val *v = jinja_arg(a, 0, NULL);
    if (!v)
        jinja_fail(r, ERR_INVALID, "append without a value");
    (void)self;
    jinja_fail(r, ERR_INVALID, "a list cannot be changed; add lists instead");
}

static val f_default(jinja_run *r, val self, args *a)
{
    const val *otherwise = jinja_arg(a, 0, "default_value");
    bool falsy = jinja_flag_arg(a, 1, "boolean", false) && !jinja_true(self);
    (void)r;
    return self.kind == JINJA_UNDEFINED || falsy ? (otherwise ? *otherwise : jinja_literal(""))
                                                 : self;
}

/* "a.b.0" */
struct jinja_val jinja_by_path(jinja_run *r, val of, val path)
{
    if (path.kind != JINJA_STR)
        return jinja_item(r, of, path);
    slice rest = {path.s.p, path.s.n}, part;
    while (slice_split(&rest, '.', &part)) {
        uint64_t i;
        if (of.kind == JINJA_UNDEFINED)
            return of;
        if (slice_u64(part, &i) == 0 && i < INT32_MAX)
            of = jinja_item(r, of, jinja_int((int64_t)i));
        else
            of = jinja_item(r, of, jinja_of_str((struct jinja_str){part.p, NULL, part.n}));
    }
    return of;
}

/* The filter or test that an argument names, with the arguments behind it. */
static val call_named(jinja_run *r, args *a, size_t i, val self, bool test)
{
    struct jinja_str name =
        jinja_str_arg(r, a, i, NULL, test ? "a test's name" : "a filter's name");
    slice s = {name.p, name.n};
    const struct jinja_fn *fn = test ? jinja_test(s) : jinja_filter(s);
    if (!fn)
        jinja_fail(r, ERR_INVALID, "there is no %s '%.*s'", test ? "test" : "filter",
                   (int)(s.n < 40 ? s.n : 40), s.p);
    struct jinja_args *rest = jinja_room(r, sizeof *rest);
    *rest = *a;
    rest->at = a->at + i + 1;
    rest->n = a->n - i - 1;
    jinja_step(r, 1);
    return fn->call(r, self, rest);
}

/* What is false has no elements, whatever it is. */
static struct jinja_list *elements_if_any(jinja_run *r, val self)
{
    return jinja_true(self) ? jinja_elements(r, self) : jinja_new_list(r);
}

static val f_map(jinja_run *r, val self, args *a)
{
    const val *attribute = jinja_arg(a, SIZE_MAX, "attribute"),
              *otherwise = jinja_arg(a, SIZE_MAX, "default");
    struct jinja_list *l = elements_if_any(r, self), *own = jinja_new_list(r);
    for (size_t i = 0; i < l->n; i++) {
        val v = attribute ? jinja_by_path(r, l->at[i], *attribute)
                          : call_named(r, a, 0, l->at[i], false);
        jinja_put(r, own, v.kind == JINJA_UNDEFINED && otherwise ? *otherwise : v);
    }
    return jinja_of_list(own);
}

static val chosen(jinja_run *r, val self, args *a, bool by_attr, bool wanted)
{
    struct jinja_list *l = elements_if_any(r, self), *own = jinja_new_list(r);
    size_t at = by_attr ? 1 : 0;
    if (by_attr && a->n == 0)
        jinja_fail(r, ERR_INVALID, "selectattr without an attribute");
    for (size_t i = 0; i < l->n; i++) {
        val v = by_attr ? jinja_by_path(r, l->at[i], a->at[0]) : l->at[i];
        bool yes = a->n > at ? jinja_true(call_named(r, a, at, v, true)) : jinja_true(v);
        if (yes == wanted)
            jinja_put(r, own, l->at[i]);
    }
    return jinja_of_list(own);
}

static val f_select(jinja_run *r, val self, args *a)
{
    return chosen(r, self, a, false, true);
}

static val f_reject(jinja_run *r, val self, args *a)
{
    return chosen(r, self, a, false, false);
}

static val f_selectattr(jinja_run *r, val self, args *a)
{
    return chosen(r, self, a, true, true);
}

static val f_rejectattr(jinja_run *r, val self, args *a)
{
    return chosen(r, self, a, true, false);
}

/* Stable, by insertion: lists that templates sort are short, and steps are counted. */
static struct jinja_list *sorted(jinja_run *r, struct jinja_list *l, const val *attribute,
                                 bool fold, bool reverse)
{
    struct jinja_list *own = jinja_new_list(r);
    for (size_t i = 0; i < l->n; i++) {
        jinja_put(r, own, l->at[i]);
        for (size_t k = own->n - 1; k > 0; k--) {
            val x = own->at[k - 1], y = own->at[k];
            val kx = attribute ? jinja_by_path(r, x, *attribute) : x,
                ky = attribute ? jinja_by_path(r, y, *attribute) : y;
            if (fold && kx.kind == JINJA_STR && ky.kind == JINJA_STR) {
                kx = jinja_lower(r, kx);
                ky = jinja_lower(r, ky);
            }
            int order = jinja_order(r, kx, ky);
            if (reverse ? order >= 0 : order <= 0)
                break;
            own->at[k - 1] = y;
            own->at[k] = x;
        }
    }
    return own;
}

static val f_sort(jinja_run *r, val self, args *a)
{
    bool reverse = jinja_flag_arg(a, 0, "reverse", false),
         cased_order = jinja_flag_arg(a, 1, "case_sensitive", false);
    return jinja_of_list(
        sorted(r, jinja_elements(r, self), jinja_arg(a, 2, "attribute"), !cased_order, reverse));
}

static val f_dictsort(jinja_run *r, val self, args *a)
{
    val by = jinja_int(0);
    bool fold = !jinja_flag_arg(a, 0, "case_sensitive", false);
    return jinja_of_list(
        sorted(r, members(r, self, ITEMS).list, &by, fold, jinja_flag_arg(a, 2, "reverse", false)));
}

static val f_unique(jinja_run *r, val self, args *a)
{
    struct jinja_list *l = jinja_elements(r, self), *own = jinja_new_list(r);
    (void)a;
    for (size_t i = 0; i < l->n; i++)
        if (!jinja_contains(r, jinja_of_list(own), l->at[i]))
            jinja_put(r, own, l->at[i]);
    return jinja_of_list(own);
}

static val extreme(jinja_run *r, val self, int sign)
{
    struct jinja_list *l = jinja_elements(r, self);
    val best = l->n ? l->at[0] : JINJA_NOTHING;
    for (size_t i = 1; i < l->n; i++)
        if (jinja_order(r, l->at[i], best) * sign > 0)
            best = l->at[i];
    return best;
}

static val f_max(jinja_run *r, val self, args *a)
{
    (void)a;
    return extreme(r, self, 1);
}

static val f_min(jinja_run *r, val self, args *a)
{
    (void)a;
    return extreme(r, self, -1);
}

static val f_sum(jinja_run *r, val self, args *a)
{
    const val *attribute = jinja_arg(a, 0, "attribute");
    struct jinja_list *l = jinja_elements(r, self);
    val sum = jinja_int(0);
    for (size_t i = 0; i < l->n; i++)
        sum = jinja_math(r, OP_ADD, sum,
                         attribute ? jinja_by_path(r, l->at[i], *attribute) : l->at[i]);
    return sum;
}

/* ---- tests ---- */

static val t_defined(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind != JINJA_UNDEFINED);
}

static val t_undefined(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_UNDEFINED);
}

static val t_none(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_NONE);
}

static val t_string(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_STR);
}

static val t_mapping(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_DICT);
}

static val t_iterable(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_STR || v.kind == JINJA_LIST || v.kind == JINJA_DICT ||
                      v.kind == JINJA_UNDEFINED);
}

static val t_number(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_INT || v.kind == JINJA_FLOAT || v.kind == JINJA_BOOL);
}

static val t_integer(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_INT);
}

static val t_float(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_FLOAT);
}

static val t_boolean(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_BOOL);
}

static val t_true(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_BOOL && v.b);
}

static val t_false(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_BOOL && !v.b);
}

static val t_callable(jinja_run *r, val v, args *a)
{
    (void)r, (void)a;
    return jinja_bool(v.kind == JINJA_CALL);
}

static val argument(args *a)
{
    const val *v = jinja_arg(a, 0, NULL);
    return v ? *v : JINJA_NOTHING;
}

static bool divides(jinja_run *r, val v, int64_t by)
{
    return jinja_same(r, jinja_math(r, OP_MOD, v, jinja_int(by)), jinja_int(0));
}

static val t_even(jinja_run *r, val v, args *a)
{
    (void)a;
    return jinja_bool(divides(r, v, 2));
}

static val t_odd(jinja_run *r, val v, args *a)
{
    (void)a;
    return jinja_bool(!divides(r, v, 2));
}

static val t_divisibleby(jinja_run *r, val v, args *a)
{
    return jinja_bool(divides(r, v, jinja_int_arg(r, a, 0, "num", 0, "divisibleby")));
}

static val t_eq(jinja_run *r, val v, args *a)
{
    return jinja_bool(jinja_same(r, v, argument(a)));
}

static val t_ne(jinja_run *r, val v, args *a)
{
    return jinja_bool(!jinja_same(r, v, argument(a)));
}

static val t_lt(jinja_run *r, val v, args *a)
{
    return jinja_bool(jinja_order(r, v, argument(a)) < 0);
}

static val t_le(jinja_run *r, val v, args *a)
{
    return jinja_bool(jinja_order(r, v, argument(a)) <= 0);
}

static val t_gt(jinja_run *r, val v, args *a)
{
    return jinja_bool(jinja_order(r, v, argument(a)) > 0);
}

static val t_ge(jinja_run *r, val v, args *a)
{
    return jinja_bool(jinja_order(r, v, argument(a)) >= 0);
}

static val t_in(jinja_run *r, val v, args *a)
{
    return jinja_bool(jinja_contains(r, argument(a), v));
}

/* ---- global functions ---- */

static val g_range(jinja_run *r, val self, args *a)
{
    int64_t from = a->n > 1 ? jinja_int_arg(r, a, 0, NULL, 0, "range") : 0,
            to = jinja_int_arg(r, a, a->n > 1 ? 1 : 0, NULL, 0, "range");
    int64_t by = jinja_int_arg(r, a, 2, NULL, 1, "range");
    struct jinja_list *l = jinja_new_list(r);
    (void)self;
    if (by == 0)
        jinja_fail(r, ERR_INVALID, "a range with a step of 0");
    for (int64_t i = from; by > 0 ? i < to : i > to;) {
        if (l->n == RANGE_MAX)
            jinja_fail(r, ERR_TOO_BIG, "a range of more than %d numbers", RANGE_MAX);
        jinja_put(r, l, jinja_int(i));
        if (__builtin_add_overflow(i, by, &i))
            break;
    }
    return jinja_of_list(l);
}

static val named_members(jinja_run *r, args *a)
{
    val d = jinja_dict_new(r);
    if (a->n == 1 && a->at[0].kind == JINJA_DICT)
        for (size_t i = 0; i < a->at[0].dict->n; i++)
            jinja_set(r, d.dict, a->at[0].dict->at[i].key, a->at[0].dict->at[i].value);
    for (size_t i = 0; i < a->n_named; i++)
        jinja_set(r, d.dict, jinja_of_str((struct jinja_str){a->names[i].p, NULL, a->names[i].n}),
                  a->named[i]);
    return d;
}

static val g_namespace(jinja_run *r, val self, args *a)
{
    val d = named_members(r, a);
    (void)self;
    d.dict->open = true;
    return d;
}

static val g_dict(jinja_run *r, val self, args *a)
{
    (void)self;
    return named_members(r, a);
}

static val g_raise_exception(jinja_run *r, val self, args *a)
{
    struct jinja_str s = jinja_to_str(r, argument(a));
    (void)self;
    r->e = why_set(r->w, ERR_INVALID, "messages", "the model's chat template refuses: %.*s",
                   (int)(s.n < 300 ? s.n : 300), s.p);
    longjmp(r->failed, 1);
}

static val g_strftime_now(jinja_run *r, val self, args *a)
{
    struct jinja_str format = jinja_str_arg(r, a, 0, "format", "strftime_now");
    char text[512], plain[128];
    time_t now = (time_t)r->now;
    struct tm tm;
    (void)self;
    if (format.n >= sizeof plain || memchr(format.p, 0, format.n))
        jinja_fail(r, ERR_TOO_BIG, "a format of more than %zu bytes", sizeof plain - 1);
    memcpy(plain, format.p, format.n);
    plain[format.n] = 0;
    gmtime_r(&now, &tm);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = strftime(text, sizeof text, plain, &tm);
#pragma GCC diagnostic pop
    return jinja_text(r, (slice){text, n}, 0);
}

/* ---- tables ---- */

static const struct jinja_fn FILTERS[] = {
    {"abs", f_abs, 0},
    {"count", f_length, 0},
    {"d", f_default, 0},
    {"default", f_default, 0},
    {"dictsort", f_dictsort, 0},
    {"first", f_first, 0},
    {"float", f_float, 0},
    {"int", f_int, 0},
    {"items", m_items, 0},
    {"last", f_last, 0},
    {"length", f_length, 0},
    {"list", f_list, 0},
    {"map", f_map, 0},
    {"max", f_max, 0},
    {"min", f_min, 0},
    {"reject", f_reject, 0},
    {"rejectattr", f_rejectattr, 0},
    {"reverse", f_reverse, 0},
    {"round", f_round, 0},
    {"select", f_select, 0},
    {"selectattr", f_selectattr, 0},
    {"sort", f_sort, 0},
    {"sum", f_sum, 0},
    {"unique", f_unique, 0},
};

static const struct jinja_fn TESTS[] = {
    {"!=", t_ne, 0},
    {"<", t_lt, 0},
    {"<=", t_le, 0},
    {"==", t_eq, 0},
    {">", t_gt, 0},
    {">=", t_ge, 0},
    {"boolean", t_boolean, 0},
    {"callable", t_callable, 0},
    {"defined", t_defined, 0},
    {"divisibleby", t_divisibleby, 0},
    {"eq", t_eq, 0},
    {"equalto", t_eq, 0},
    {"even", t_even, 0},
    {"false", t_false, 0},
    {"float", t_float, 0},
    {"ge", t_ge, 0},
    {"gt", t_gt, 0},
    {"in", t_in, 0},
    {"integer", t_integer, 0},
    {"iterable", t_iterable, 0},
    {"le", t_le, 0},
    {"lt", t_lt, 0},
    {"mapping", t_mapping, 0},
    {"ne", t_ne, 0},
    {"none", t_none, 0},
    {"number", t_number, 0},
    {"odd", t_odd, 0},
    {"sameas", t_eq, 0},
    {"sequence", t_iterable, 0},
    {"true", t_true, 0},
    {"undefined", t_undefined, 0},
    {"string", t_string, 0},
};

static const struct jinja_fn METHODS[] = {
    {"append", m_append, 1 << JINJA_LIST}, {"get", m_get, 1 << JINJA_DICT},
    {"items", m_items, 1 << JINJA_DICT},   {"keys", m_keys, 1 << JINJA_DICT},
    {"values", m_values, 1 << JINJA_DICT},
};

static const struct jinja_fn GLOBALS[] = {
    {"dict", g_dict, 0},
    {"namespace", g_namespace, 0},
    {"raise_exception", g_raise_exception, 0},
    {"range", g_range, 0},
    {"strftime_now", g_strftime_now, 0},
};

const struct jinja_fn *jinja_fn_find(const struct jinja_fn *table, size_t n, slice name)
{
    for (size_t i = 0; i < n; i++)
        if (slice_eq_str(name, table[i].name))
            return &table[i];
    return NULL;
}

const struct jinja_fn *jinja_filter(slice name)
{
    const struct jinja_fn *fn = jinja_text_filter(name);
    return fn ? fn : jinja_fn_find(FILTERS, ARRAY_LEN(FILTERS), name);
}

const struct jinja_fn *jinja_test(slice name)
{
    return jinja_fn_find(TESTS, ARRAY_LEN(TESTS), name);
}

const struct jinja_fn *jinja_method(struct jinja_val of, slice name)
{
    if (of.kind == JINJA_STR)
        return jinja_text_method(name);
    const struct jinja_fn *fn = jinja_fn_find(METHODS, ARRAY_LEN(METHODS), name);
    return fn && (fn->kinds & 1 << of.kind) ? fn : NULL;
}

const struct jinja_fn *jinja_global(slice name)
{
    return jinja_fn_find(GLOBALS, ARRAY_LEN(GLOBALS), name);
}
