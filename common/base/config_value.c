#include "common/base/config_value.h"

#include <inttypes.h>

#include "common/base/num.h"

#define OPT_STR_MAX 4096     /* bytes of a string option without a limit of its own: a path */
#define OPT_SHOWN_MAX 60     /* bytes of a wrong value that an error repeats */
#define OPT_I64_LIMIT 9.2e18 /* a little less than 2^63: what a fraction of a unit may grow to */

#define RANGE_END_MAX 6 /* bytes: a longer size or time is rounded for --help */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit SIZE_UNITS[] = {
    {"", 1}, {"k", 1024}, {"m", 1024 * 1024}, {"g", 1024 * 1024 * 1024}, {NULL, 0}};
static const struct unit MS_UNITS[] = {
    {"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}, {NULL, 0}};

static const char *const EXPECTED[] = {
    [OPT_STR] = "text",
    [OPT_INT] = "a whole number",
    [OPT_SIZE] = "a size such as 4096, 64k, 1.5m or 2g",
    [OPT_MS] = "a time such as 250, 250ms, 1.5s, 2m or 1h",
    [OPT_FLOAT] = "a number",
    [OPT_BOOL] = "true or false",
};

static void *field(const struct opt *o, void *cfg)
{
    return (char *)cfg + o->offset;
}

static const void *const_field(const struct opt *o, const void *cfg)
{
    return (const char *)cfg + o->offset;
}

/* ---- text to value
 * ---------------------------------------------------------------------------------- */

static int parse_i64(slice s, int64_t *out)
{
    bool minus = s.n && s.p[0] == '-';
    uint64_t v;
    if (slice_u64(minus ? (slice){s.p + 1, s.n - 1} : s, &v) < 0 || v > INT64_MAX)
        return ERR_INVALID;
    *out = minus ? -(int64_t)v : (int64_t)v;
    return 0;
}

static bool unit_is(slice s, const char *name)
{
    if (s.n != strlen(name))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] | 0x20) != name[i]) /* upper case is fine */
            return false;
    return true;
}

static int parse_scaled(slice s, const struct unit *units, int64_t *out)
{
    size_t n = 0;
    while (n < s.n && ((s.p[n] >= '0' && s.p[n] <= '9') || s.p[n] == '.'))
        n++;
    slice number = {s.p, n}, unit = slice_trim((slice){s.p + n, s.n - n});
    while (units->name && !unit_is(unit, units->name))
        units++;
    if (!units->name)
        return ERR_INVALID;
    uint64_t v;
    if (slice_u64(number, &v) == 0) {
        if (__builtin_mul_overflow(v, units->factor, &v) || v > INT64_MAX)
            return ERR_INVALID;
        *out = (int64_t)v;
        return 0;
    }
    double d;
    if (slice_f64(number, &d) < 0 || d * (double)units->factor > OPT_I64_LIMIT)
        return ERR_INVALID;
    *out = (int64_t)(d * (double)units->factor + 0.5);
    return 0;
}

static int parse_bool(slice s, bool *out)
{
    static const struct {
        const char *text;
        bool value;
    } WORDS[] = {{"true", true},   {"1", true},  {"yes", true}, {"on", true},
                 {"false", false}, {"0", false}, {"no", false}, {"off", false}};
    for (size_t i = 0; i < ARRAY_LEN(WORDS); i++)
        if (slice_eq_str(s, WORDS[i].text)) {
            *out = WORDS[i].value;
            return 0;
        }
    return ERR_INVALID;
}

static int bad_value(const struct opt *o, slice text, const char *from, struct why *w)
{
    if (o->secret)
        return why_set(w, ERR_INVALID, o->name, "%s: not %s", from, EXPECTED[o->type]);
    return why_set(w, ERR_INVALID, o->name, "%s: \"%.*s\" is not %s", from,
                   (int)(text.n < OPT_SHOWN_MAX ? text.n : OPT_SHOWN_MAX), text.p,
                   EXPECTED[o->type]);
}

static int check_range(const struct opt *o, double v, const char *from, struct why *w)
{
    if ((o->min == 0 && o->max == 0) || (v >= o->min && v <= o->max))
        return 0;
    buf range = {0};
    opt_print_range(o, &range);
    why_set(w, ERR_INVALID, o->name, "%s: out of range, %s is allowed", from, buf_cstr(&range));
    buf_clear(&range);
    return ERR_INVALID;
}

static int store_str(const struct opt *o, void *cfg, slice text, const char *from, struct why *w)
{
    size_t max = o->max > 0 ? (size_t)o->max : OPT_STR_MAX;
    if (text.n > max)
        return why_set(w, ERR_TOO_BIG, o->name, "%s: %zu bytes, at most %zu are allowed", from,
                       text.n, max);
    if (!utf8_valid(text) || (text.n && memchr(text.p, '\0', text.n)))
        return why_set(w, ERR_INVALID, o->name, "%s: not valid UTF-8 text", from);
    opt_clear(o, cfg);
    char *copy = slice_dup(text);
    memcpy(field(o, cfg), &copy, sizeof copy);
    return 0;
}

static int store_i64(const struct opt *o, void *cfg, slice text, const char *from, struct why *w)
{
    int64_t v;
    int rc = o->type == OPT_INT    ? parse_i64(text, &v)
             : o->type == OPT_SIZE ? parse_scaled(text, SIZE_UNITS, &v)
                                   : parse_scaled(text, MS_UNITS, &v);
    if (rc < 0)
        return bad_value(o, text, from, w);
    if ((rc = check_range(o, (double)v, from, w)) < 0)
        return rc;
    memcpy(field(o, cfg), &v, sizeof v);
    return 0;
}

static int store_f64(const struct opt *o, void *cfg, slice text, const char *from, struct why *w)
{
    double v;
    if (slice_f64(text, &v) < 0)
        return bad_value(o, text, from, w);
    int rc = check_range(o, v, from, w);
    if (rc == 0)
        memcpy(field(o, cfg), &v, sizeof v);
    return rc;
}

int opt_store(const struct opt *o, void *cfg, slice text, const char *from, struct why *w)
{
    bool flag;
    switch (o->type) {
    case OPT_STR:
        return store_str(o, cfg, text, from, w);
    case OPT_FLOAT:
        return store_f64(o, cfg, text, from, w);
    case OPT_BOOL:
        if (parse_bool(text, &flag) < 0)
            return bad_value(o, text, from, w);
        memcpy(field(o, cfg), &flag, sizeof flag);
        return 0;
    default:
        return store_i64(o, cfg, text, from, w);
    }
}

/* ---- value to text
 * ---------------------------------------------------------------------------------- */

/* In the largest unit that leaves a whole number: 65536 is 64k. */
static void print_scaled(int64_t v, const struct unit *units, buf *out)
{
    const struct unit *best = units;
    for (const struct unit *u = units; u->name; u++)
        if (v > 0 && (uint64_t)v % u->factor == 0)
            best = u;
    buf_printf(out, "%" PRId64 "%s", v / (int64_t)best->factor, best->name);
}

/* For the ends of a range: 1e12 bytes are 931.3g to a reader, not 976562500k. */
static void print_about(int64_t v, const struct unit *units, buf *out)
{
    const struct unit *best = units;
    char text[F64_TEXT_MAX];
    for (const struct unit *u = units; u->name; u++)
        if (v > 0 && (uint64_t)v / u->factor >= 1)
            best = u;
    double tenths = (double)v * 10 / (double)best->factor;
    buf_put(out, text, f64_text((double)(int64_t)(tenths + 0.5) / 10, text));
    buf_put_str(out, best->name);
}

static void print_number(const struct opt *o, double d, int64_t i, buf *out)
{
    char text[F64_TEXT_MAX];
    if (o->type == OPT_FLOAT)
        buf_put(out, text, f64_text(d, text));
    else if (o->type == OPT_INT)
        buf_printf(out, "%" PRId64, i);
    else
        print_scaled(i, o->type == OPT_SIZE ? SIZE_UNITS : MS_UNITS, out);
}

static char *string_of(const struct opt *o, const void *cfg)
{
    char *s;
    memcpy(&s, const_field(o, cfg), sizeof s);
    return s;
}

static void print_str(const struct opt *o, const void *cfg, buf *out)
{
    const char *s = string_of(o, cfg);
    if (s)
        buf_put_str(out, o->secret ? "***" : s);
}

void opt_print(const struct opt *o, const void *cfg, buf *out)
{
    double d = 0;
    int64_t i = 0;
    bool flag;
    switch (o->type) {
    case OPT_STR:
        print_str(o, cfg, out);
        return;
    case OPT_BOOL:
        memcpy(&flag, const_field(o, cfg), sizeof flag);
        buf_put_str(out, flag ? "true" : "false");
        return;
    case OPT_FLOAT:
        memcpy(&d, const_field(o, cfg), sizeof d);
        break;
    default:
        memcpy(&i, const_field(o, cfg), sizeof i);
    }
    if (o->secret)
        buf_put_str(out, "***");
    else
        print_number(o, d, i, out);
}

static int64_t clamp_i64(double v)
{
    return v >= OPT_I64_LIMIT ? INT64_MAX : v <= -OPT_I64_LIMIT ? INT64_MIN : (int64_t)v;
}

void opt_print_range(const struct opt *o, buf *out)
{
    if (o->type == OPT_STR || o->type == OPT_BOOL || (o->min == 0 && o->max == 0))
        return;
    const double ends[] = {o->min, o->max};
    for (int i = 0; i < 2; i++) {
        size_t before = out->n;
        print_number(o, ends[i], clamp_i64(ends[i]), out);
        if (o->type != OPT_INT && o->type != OPT_FLOAT && out->n - before > RANGE_END_MAX) {
            out->n = before;
            print_about(clamp_i64(ends[i]), o->type == OPT_SIZE ? SIZE_UNITS : MS_UNITS, out);
        }
        buf_put_str(out, i == 0 ? " to " : "");
    }
}

bool opt_is_set(const struct opt *o, const void *cfg)
{
    return o->type != OPT_STR || string_of(o, cfg) != NULL;
}

void opt_clear(const struct opt *o, void *cfg)
{
    if (o->type != OPT_STR)
        return;
    free(string_of(o, cfg));
    char *none = NULL;
    memcpy(field(o, cfg), &none, sizeof none);
}
