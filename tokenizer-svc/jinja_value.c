/* Values of the template language, as Python's: what is true, equal, in order, and how it is
 * written. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "tokenizer-svc/jinja_int.h"

#define NESTING_MAX                                                                                \
    64 /* of lists and dictionaries inside each other, when they are compared or written */

const struct jinja_val JINJA_NOTHING = {.kind = JINJA_UNDEFINED}, JINJA_NULL = {.kind = JINJA_NONE};

void jinja_fail(jinja_run *r, int e, const char *fmt, ...)
{
    char text[WHY_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    CHECK(r->rendering);
    r->e =
        why_set(r->w, e, "messages", "the model's chat template, line %u: %.300s", r->line, text);
    longjmp(r->failed, 1);
}

void *jinja_room(jinja_run *r, size_t n)
{
    void *p = arena_try(r->a, n ? n : 1);
    if (p)
        return p;
    CHECK(r->rendering); /* values put in are bounded by the request */
    jinja_fail(r, ERR_TOO_BIG, "it takes more than %u bytes of memory", JINJA_MEMORY_MAX);
}

void jinja_step(jinja_run *r, uint64_t n)
{
    r->steps += n;
    if (r->steps > JINJA_STEPS_MAX && r->rendering)
        jinja_fail(r, ERR_TOO_BIG, "it takes more than %d steps", JINJA_STEPS_MAX);
}

/* ---- making ---- */

struct jinja_val jinja_bool(bool b)
{
    return (struct jinja_val){.kind = JINJA_BOOL, .b = b};
}

struct jinja_val jinja_int(int64_t i)
{
    return (struct jinja_val){.kind = JINJA_INT, .i = i};
}

struct jinja_val jinja_float(double f)
{
    return (struct jinja_val){.kind = JINJA_FLOAT, .f = f};
}

struct jinja_val jinja_of_str(struct jinja_str s)
{
    return (struct jinja_val){.kind = JINJA_STR, .s = s};
}

struct jinja_val jinja_literal(const char *text)
{
    return jinja_of_str((struct jinja_str){text, NULL, strlen(text)});
}

struct jinja_val jinja_of_list(struct jinja_list *l)
{
    return (struct jinja_val){.kind = JINJA_LIST, .list = l};
}

struct jinja_val jinja_text(jinja_run *r, slice s, uint8_t from)
{
    char *p = jinja_room(r, s.n);
    uint8_t *of = from ? jinja_room(r, s.n) : NULL;
    if (s.n)
        memcpy(p, s.p, s.n);
    if (of)
        memset(of, from, s.n);
    return jinja_of_str((struct jinja_str){p, of, s.n});
}

struct jinja_val jinja_text_from(jinja_run *r, slice s, const uint8_t *from)
{
    struct jinja_val v = jinja_text(r, s, 1);
    if (s.n)
        memcpy((uint8_t *)(uintptr_t)v.s.from, from, s.n);
    return v;
}

struct jinja_list *jinja_new_list(jinja_run *r)
{
    return jinja_room(r, sizeof(struct jinja_list));
}

struct jinja_val jinja_list_new(jinja_run *r)
{
    return jinja_of_list(jinja_new_list(r));
}

void jinja_put(jinja_run *r, struct jinja_list *l, struct jinja_val v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 8;
        struct jinja_val *more = jinja_room(r, cap * sizeof *more);
        if (l->n)
            memcpy(more, l->at, l->n * sizeof *more);
        l->at = more;
        l->cap = cap;
    }
    jinja_step(r, 1);
    l->at[l->n++] = v;
}

void jinja_list_add(jinja_run *r, struct jinja_val list, struct jinja_val v)
{
    CHECK(list.kind == JINJA_LIST);
    jinja_put(r, list.list, v);
}

struct jinja_val jinja_dict_new(jinja_run *r)
{
    return (struct jinja_val){.kind = JINJA_DICT, .dict = jinja_room(r, sizeof(struct jinja_dict))};
}

void jinja_dict_set(jinja_run *r, struct jinja_val dict, slice key, struct jinja_val v)
{
    CHECK(dict.kind == JINJA_DICT);
    jinja_set(r, dict.dict, jinja_text(r, key, 0), v);
}

/* ---- asking ---- */

const char *jinja_kind_text(struct jinja_val v)
{
    static const char *const NAMES[] = {"an undefined value", "none",   "a boolean", "a number",
                                        "a number",           "a text", "a list",    "a dictionary",
                                        "a function"};
    return NAMES[v.kind];
}

bool jinja_true(struct jinja_val v)
{
    switch (v.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v.b;
    case JINJA_INT:
        return v.i != 0;
    case JINJA_FLOAT:
        return v.f < 0 || v.f > 0;
    case JINJA_STR:
        return v.s.n > 0;
    case JINJA_LIST:
        return v.list->n > 0;
    case JINJA_DICT:
        return v.dict->n > 0;
    case JINJA_CALL:
        break;
    }
    return true;
}

static size_t characters(struct jinja_str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

size_t jinja_len(jinja_run *r, struct jinja_val v)
{
    if (v.kind == JINJA_STR) {
        jinja_step(r, v.s.n / 64);
        return characters(v.s);
    }
    if (v.kind == JINJA_LIST)
        return v.list->n;
    if (v.kind == JINJA_DICT)
        return v.dict->n;
    if (v.kind == JINJA_UNDEFINED)
        return 0;
    jinja_fail(r, ERR_INVALID, "%s has no length", jinja_kind_text(v));
}

static bool is_number(struct jinja_val v)
{
    return v.kind == JINJA_BOOL || v.kind == JINJA_INT || v.kind == JINJA_FLOAT;
}

static double as_float(struct jinja_val v)
{
    return v.kind == JINJA_FLOAT ? v.f : v.kind == JINJA_INT ? (double)v.i : v.b;
}

static int64_t as_int(struct jinja_val v)
{
    return v.kind == JINJA_INT ? v.i : v.b;
}

void jinja_nest(jinja_run *r)
{
    if (++r->nesting > NESTING_MAX)
        jinja_fail(r, ERR_TOO_BIG, "values are nested more than %d deep", NESTING_MAX);
}

static bool same_members(jinja_run *r, const struct jinja_dict *a, struct jinja_dict *b)
{
    for (size_t i = 0; i < a->n; i++) {
        struct jinja_val *other = jinja_find(r, b, a->at[i].key);
        if (!other || !jinja_same(r, a->at[i].value, *other))
            return false;
    }
    return a->n == b->n;
}

bool jinja_same(jinja_run *r, struct jinja_val a, struct jinja_val b)
{
    bool same = true;
    jinja_step(r, 1);
    if (is_number(a) && is_number(b)) {
        if (a.kind == JINJA_FLOAT || b.kind == JINJA_FLOAT)
            return !(as_float(a) < as_float(b)) && !(as_float(a) > as_float(b));
        return as_int(a) == as_int(b);
    }
    if (a.kind != b.kind)
        return false;
    jinja_nest(r);
    if (a.kind == JINJA_STR)
        same = a.s.n == b.s.n && memcmp(a.s.p, b.s.p, a.s.n) == 0;
    else if (a.kind == JINJA_LIST) {
        same = a.list->n == b.list->n;
        for (size_t i = 0; same && i < a.list->n; i++)
            same = jinja_same(r, a.list->at[i], b.list->at[i]);
    } else if (a.kind == JINJA_DICT)
        same = a.dict == b.dict || same_members(r, a.dict, b.dict);
    else if (a.kind == JINJA_CALL)
        same = a.call == b.call;
    r->nesting--;
    return same;
}

int jinja_order(jinja_run *r, struct jinja_val a, struct jinja_val b)
{
    jinja_step(r, 1);
    if (is_number(a) && is_number(b)) {
        if (a.kind == JINJA_FLOAT || b.kind == JINJA_FLOAT)
            return as_float(a) < as_float(b) ? -1 : as_float(a) > as_float(b);
        return as_int(a) < as_int(b) ? -1 : as_int(a) > as_int(b);
    }
    if (a.kind == JINJA_STR &&
        b.kind == JINJA_STR) { /* of UTF-8, bytes are in the order of characters */
        size_t n = a.s.n < b.s.n ? a.s.n : b.s.n;
        int c = n ? memcmp(a.s.p, b.s.p, n) : 0;
        return c ? c : a.s.n < b.s.n ? -1 : a.s.n > b.s.n;
    }
    jinja_fail(r, ERR_INVALID, "%s and %s have no order", jinja_kind_text(a), jinja_kind_text(b));
}

static bool text_contains(struct jinja_str in, struct jinja_str what)
{
    return what.n == 0 || (in.n > 0 && memmem(in.p, in.n, what.p, what.n) != NULL);
}

bool jinja_contains(jinja_run *r, struct jinja_val in, struct jinja_val v)
{
    if (in.kind == JINJA_STR && v.kind == JINJA_STR) {
        jinja_step(r, in.s.n / 64);
        return text_contains(in.s, v.s);
    }
    if (in.kind == JINJA_DICT)
        return jinja_find(r, in.dict, v) != NULL;
    if (in.kind == JINJA_LIST) {
        for (size_t i = 0; i < in.list->n; i++)
            if (jinja_same(r, in.list->at[i], v))
                return true;
        return false;
    }
    if (in.kind == JINJA_UNDEFINED)
        return false;
    jinja_fail(r, ERR_INVALID, "nothing can be in %s", jinja_kind_text(in));
}

/* ---- members ---- */

struct jinja_val *jinja_find_name(struct jinja_dict *d, slice key)
{
    for (size_t i = 0; i < d->n; i++) {
        struct jinja_val k = d->at[i].key;
        if (k.kind == JINJA_STR && k.s.n == key.n && memcmp(k.s.p, key.p, key.n) == 0)
            return &d->at[i].value;
    }
    return NULL;
}

struct jinja_val *jinja_find(jinja_run *r, struct jinja_dict *d, struct jinja_val key)
{
    jinja_step(r, d->n / 8);
    if (key.kind == JINJA_STR)
        return jinja_find_name(d, (slice){key.s.p, key.s.n});
    for (size_t i = 0; i < d->n; i++)
        if (jinja_same(r, d->at[i].key, key))
            return &d->at[i].value;
    return NULL;
}

void jinja_set(jinja_run *r, struct jinja_dict *d, struct jinja_val key, struct jinja_val v)
{
    struct jinja_val *old = jinja_find(r, d, key);
    if (old) {
        *old = v;
        return;
    }
    if (key.kind == JINJA_LIST || key.kind == JINJA_DICT)
        jinja_fail(r, ERR_INVALID, "%s cannot be a key", jinja_kind_text(key));
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 8;
        struct jinja_pair *more = jinja_room(r, cap * sizeof *more);
        if (d->n)
            memcpy(more, d->at, d->n * sizeof *more);
        d->at = more;
        d->cap = cap;
    }
    d->at[d->n++] = (struct jinja_pair){key, v};
}

struct jinja_str jinja_part(struct jinja_str s, size_t from, size_t n)
{
    return (struct jinja_str){s.p + from, s.from ? s.from + from : NULL, n};
}

/* Where character i begins; characters count from 0, i at most their number. */
static size_t byte_of(struct jinja_str s, size_t i)
{
    size_t at = 0;
    for (; at < s.n && i > 0; i--)
        for (at++; at < s.n && ((unsigned char)s.p[at] & 0xc0) == 0x80;)
            at++;
    return at;
}

struct jinja_list *jinja_elements(jinja_run *r, struct jinja_val v)
{
    if (v.kind == JINJA_LIST)
        return v.list;
    struct jinja_list *l = jinja_new_list(r);
    if (v.kind == JINJA_DICT)
        for (size_t i = 0; i < v.dict->n; i++)
            jinja_put(r, l, v.dict->at[i].key);
    else if (v.kind == JINJA_STR)
        for (size_t at = 0, n; at < v.s.n; at += n) {
            n = byte_of(jinja_part(v.s, at, v.s.n - at), 1);
            jinja_put(r, l, jinja_of_str(jinja_part(v.s, at, n)));
        }
    else if (v.kind != JINJA_UNDEFINED)
        jinja_fail(r, ERR_INVALID, "%s is nothing to go through", jinja_kind_text(v));
    return l;
}

/* A position from the front; false if it lies outside. */
static bool position(struct jinja_val key, size_t n, size_t *out)
{
    int64_t i = as_int(key);
    i = i < 0 ? i + (int64_t)n : i;
    *out = (size_t)i;
    return i >= 0 && (uint64_t)i < n;
}

struct jinja_val jinja_item(jinja_run *r, struct jinja_val of, struct jinja_val key)
{
    size_t i;
    bool whole = key.kind == JINJA_INT || key.kind == JINJA_BOOL;
    if (of.kind == JINJA_DICT) {
        struct jinja_val *v = jinja_find(r, of.dict, key);
        return v ? *v : JINJA_NOTHING;
    }
    if (of.kind == JINJA_UNDEFINED)
        jinja_fail(r, ERR_INVALID, "a member of an undefined value is asked for");
    if (of.kind == JINJA_LIST && whole)
        return position(key, of.list->n, &i) ? of.list->at[i] : JINJA_NOTHING;
    if (of.kind == JINJA_STR && whole) {
        if (!position(key, jinja_len(r, of), &i))
            return JINJA_NOTHING;
        size_t at = byte_of(of.s, i);
        return jinja_of_str(jinja_part(of.s, at, byte_of(jinja_part(of.s, at, of.s.n - at), 1)));
    }
    if (key.kind == JINJA_STR)
        return jinja_attr(r, of, (slice){key.s.p, key.s.n});
    return JINJA_NOTHING;
}

struct jinja_val jinja_attr(jinja_run *r, struct jinja_val of, slice name)
{
    if (of.kind == JINJA_UNDEFINED)
        jinja_fail(r, ERR_INVALID, "'%.*s' of an undefined value is asked for",
                   (int)(name.n < 60 ? name.n : 60), name.p);
    const struct jinja_fn *fn = jinja_method(of, name);
    struct jinja_val *v = of.kind == JINJA_DICT ? jinja_find_name(of.dict, name) : NULL;
    if (v && !(fn && !of.dict->open))
        return *v;
    if (!fn)
        return JINJA_NOTHING;
    struct jinja_call *call = jinja_room(r, sizeof *call);
    *call = (struct jinja_call){.fn = fn, .self = of};
    return (struct jinja_val){.kind = JINJA_CALL, .call = call};
}

/* One bound of a slice, as Python clamps it. */
static int64_t bound(jinja_run *r, struct jinja_val v, int64_t n, int64_t absent, int64_t least,
                     int64_t most)
{
    if (v.kind == JINJA_UNDEFINED || v.kind == JINJA_NONE)
        return absent;
    if (v.kind != JINJA_INT && v.kind != JINJA_BOOL)
        jinja_fail(r, ERR_INVALID, "%s is no place to cut at", jinja_kind_text(v));
    int64_t i = as_int(v);
    i = i < 0 ? (i < -n ? least : i + n) : i;
    return i < least ? least : i > most ? most : i;
}

struct jinja_val jinja_cut(jinja_run *r, struct jinja_val of, struct jinja_val from,
                           struct jinja_val to, struct jinja_val step)
{
    if (of.kind != JINJA_LIST && of.kind != JINJA_STR)
        jinja_fail(r, ERR_INVALID, "%s cannot be cut", jinja_kind_text(of));
    int64_t n = (int64_t)jinja_len(r, of), by = step.kind == JINJA_INT ? step.i : 1;
    if (by == 0)
        jinja_fail(r, ERR_INVALID, "a step of 0");
    int64_t first = bound(r, from, n, by > 0 ? 0 : n - 1, by > 0 ? 0 : -1, by > 0 ? n : n - 1);
    int64_t last = bound(r, to, n, by > 0 ? n : -1, by > 0 ? 0 : -1, by > 0 ? n : n - 1);
    if (of.kind == JINJA_STR && by == 1) {
        size_t a = byte_of(of.s, (size_t)first), b = first < last ? byte_of(of.s, (size_t)last) : a;
        return jinja_of_str(jinja_part(of.s, a, b - a));
    }
    struct jinja_list *all = jinja_elements(r, of), *l = jinja_new_list(r);
    for (int64_t i = first; by > 0 ? i < last : i > last; i += by) {
        jinja_put(r, l, all->at[i]);
        if (by > n || by < -n)
            break;
    }
    if (of.kind == JINJA_LIST)
        return jinja_of_list(l);
    struct jinja_out o = {0};
    for (size_t i = 0; i < l->n; i++)
        jinja_out_str(r, &o, l->at[i].s);
    return jinja_of_str(jinja_out_end(&o));
}

/* ---- reckoning ---- */

static _Noreturn void no_math(jinja_run *r, struct jinja_val a, struct jinja_val b)
{
    jinja_fail(r, ERR_INVALID, "%s and %s cannot be reckoned with", jinja_kind_text(a),
               jinja_kind_text(b));
}

static struct jinja_val whole_math(jinja_run *r, enum math_op op, int64_t a, int64_t b)
{
    int64_t v = 0;
    bool over = false;
    if ((op == OP_DIV || op == OP_FLOOR || op == OP_MOD) && b == 0)
        jinja_fail(r, ERR_INVALID, "a division by 0");
    if (op == OP_DIV)
        return jinja_float((double)a / (double)b);
    if (op == OP_ADD)
        over = __builtin_add_overflow(a, b, &v);
    else if (op == OP_SUB)
        over = __builtin_sub_overflow(a, b, &v);
    else if (op == OP_MUL)
        over = __builtin_mul_overflow(a, b, &v);
    else if (op == OP_POW) {
        if (b < 0)
            jinja_fail(r, ERR_UNSUPPORTED, "a negative power");
        for (v = 1; b > 0 && !over && !(v == 0 || (v == 1 && a == 1)); b--) {
            over = __builtin_mul_overflow(v, a, &v);
            jinja_step(r, 1);
        }
    } else if (b == -1) { /* INT64_MIN / -1 */
        over = op == OP_FLOOR && __builtin_sub_overflow((int64_t)0, a, &v);
    } else {
        int64_t q = a / b, m = a % b; /* Python rounds down */
        if (m != 0 && (m < 0) != (b < 0)) {
            q--;
            m += b;
        }
        v = op == OP_FLOOR ? q : m;
    }
    if (over)
        jinja_fail(r, ERR_TOO_BIG, "a number beyond 64 bits");
    return jinja_int(v);
}

static struct jinja_val real_math(jinja_run *r, enum math_op op, double a, double b)
{
    bool divides = op == OP_DIV || op == OP_FLOOR || op == OP_MOD;
    if (divides && !(b < 0) && !(b > 0))
        jinja_fail(r, ERR_INVALID, "a division by 0");
    switch (op) {
    case OP_ADD:
        return jinja_float(a + b);
    case OP_SUB:
        return jinja_float(a - b);
    case OP_MUL:
        return jinja_float(a * b);
    case OP_DIV:
        return jinja_float(a / b);
    case OP_FLOOR:
        return jinja_float(floor(a / b));
    case OP_MOD:
        return jinja_float(a - b * floor(a / b));
    case OP_POW:
        break;
    }
    jinja_fail(r, ERR_UNSUPPORTED, "a power of fractions");
}

static struct jinja_val repeat(jinja_run *r, struct jinja_val v, int64_t times)
{
    struct jinja_out o = {0};
    struct jinja_list *l = jinja_new_list(r);
    for (int64_t i = 0; i < times; i++) {
        jinja_step(r, 1);
        if (v.kind == JINJA_STR)
            jinja_out_str(r, &o, v.s);
        for (size_t k = 0; v.kind == JINJA_LIST && k < v.list->n; k++)
            jinja_put(r, l, v.list->at[k]);
    }
    return v.kind == JINJA_STR ? jinja_of_str(jinja_out_end(&o)) : jinja_of_list(l);
}

struct jinja_val jinja_math(jinja_run *r, enum math_op op, struct jinja_val a, struct jinja_val b)
{
    if (is_number(a) && is_number(b)) {
        if (a.kind == JINJA_FLOAT || b.kind == JINJA_FLOAT)
            return real_math(r, op, as_float(a), as_float(b));
        return whole_math(r, op, as_int(a), as_int(b));
    }
    if (op == OP_ADD && a.kind == JINJA_STR && b.kind == JINJA_STR) {
        struct jinja_out o = {0};
        jinja_out_str(r, &o, a.s);
        jinja_out_str(r, &o, b.s);
        return jinja_of_str(jinja_out_end(&o));
    }
    if (op == OP_ADD && a.kind == JINJA_LIST && b.kind == JINJA_LIST) {
        struct jinja_list *l = jinja_new_list(r);
        for (size_t i = 0; i < a.list->n + b.list->n; i++)
            jinja_put(r, l, i < a.list->n ? a.list->at[i] : b.list->at[i - a.list->n]);
        return jinja_of_list(l);
    }
    if (op == OP_MUL && (a.kind == JINJA_STR || a.kind == JINJA_LIST) && is_number(b) &&
        b.kind != JINJA_FLOAT)
        return repeat(r, a, as_int(b));
    if (op == OP_MUL && (b.kind == JINJA_STR || b.kind == JINJA_LIST) && is_number(a) &&
        a.kind != JINJA_FLOAT)
        return repeat(r, b, as_int(a));
    no_math(r, a, b);
}
