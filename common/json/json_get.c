#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "common/base/nearest.h"
#include "common/base/num.h"
#include "common/json/json_impl.h"

#define JSON_TWO_63 9223372036854775808.0 /* the first double beyond int64 */

enum json_kind json_kind(const json_val *v)
{
    return v ? v->kind : JSON_KIND_NULL;
}

const char *json_kind_text(enum json_kind k)
{
    static const char *const TEXTS[] = {
        [JSON_KIND_NULL] = "null",      [JSON_KIND_BOOL] = "a boolean",
        [JSON_KIND_INT] = "an integer", [JSON_KIND_REAL] = "a number",
        [JSON_KIND_STR] = "a string",   [JSON_KIND_ARR] = "an array",
        [JSON_KIND_OBJ] = "an object",
    };
    return (size_t)k < ARRAY_LEN(TEXTS) ? TEXTS[k] : "something unknown";
}

bool json_absent(const json_val *v)
{
    return json_kind(v) == JSON_KIND_NULL;
}

static bool is_container(const json_val *v)
{
    return json_kind(v) == JSON_KIND_ARR || json_kind(v) == JSON_KIND_OBJ;
}

size_t json_len(const json_val *v)
{
    return is_container(v) ? v->in.n : 0;
}

const json_val *json_at(const json_val *v, size_t i)
{
    return i < json_len(v) ? v->in.child + i : NULL;
}

const json_val *json_first(const json_val *v)
{
    return json_at(v, 0);
}

static size_t index_of(const json_val *v)
{
    return (size_t)(v - v->parent->in.child);
}

const json_val *json_next(const json_val *v)
{
    return v && v->parent ? json_at(v->parent, index_of(v) + 1) : NULL;
}

slice json_name(const json_val *member)
{
    return member && member->name.p ? member->name : (slice){"", 0};
}

const json_val *json_get(const json_val *obj, const char *key)
{
    if (json_kind(obj) != JSON_KIND_OBJ)
        return NULL;
    slice want = slice_str(key);
    for (const json_val *v = json_first(obj); v; v = json_next(v))
        if (slice_eq(v->name, want))
            return v;
    return NULL;
}

slice json_str_or(const json_val *v, slice otherwise)
{
    return json_kind(v) == JSON_KIND_STR ? v->s : otherwise;
}

/* ---- values that must be there
 * ------------------------------------------------------------------------ */

static int expected(const json_val *v, const char *what, struct why *w)
{
    return json_why(w, ERR_INVALID, v, "expected %s, got %s", what, json_kind_text(json_kind(v)));
}

int json_to_str(const json_val *v, slice *out, struct why *w)
{
    if (json_kind(v) != JSON_KIND_STR)
        return expected(v, "a string", w);
    *out = v->s;
    return 0;
}

static int whole_number(const json_val *v, int64_t *out)
{
    if (json_kind(v) == JSON_KIND_INT) {
        *out = v->i;
        return 0;
    }
    if (json_kind(v) != JSON_KIND_REAL || v->f != floor(v->f) || v->f < -JSON_TWO_63 ||
        v->f >= JSON_TWO_63)
        return ERR_INVALID;
    *out = (int64_t)v->f;
    return 0;
}

int json_to_i64(const json_val *v, int64_t min, int64_t max, int64_t *out, struct why *w)
{
    int64_t i;
    if (whole_number(v, &i) < 0)
        return expected(v, "an integer", w);
    if (i < min && max == INT64_MAX)
        return json_why(w, ERR_INVALID, v, "%" PRId64 " is below the least value, %" PRId64, i,
                        min);
    if (i > max && min == INT64_MIN)
        return json_why(w, ERR_INVALID, v, "%" PRId64 " is above the largest value, %" PRId64, i,
                        max);
    if (i < min || i > max)
        return json_why(w, ERR_INVALID, v,
                        "%" PRId64 " is out of range: %" PRId64 " to %" PRId64 " is allowed", i,
                        min, max);
    *out = i;
    return 0;
}

static int f64_range(const json_val *v, double f, double min, double max, struct why *w)
{
    char text[3][F64_TEXT_MAX];
    f64_text(f, text[0]);
    f64_text(min, text[1]);
    f64_text(max, text[2]);
    if (isinf(max))
        return json_why(w, ERR_INVALID, v, "%s is below the least value, %s", text[0], text[1]);
    if (isinf(min))
        return json_why(w, ERR_INVALID, v, "%s is above the largest value, %s", text[0], text[2]);
    return json_why(w, ERR_INVALID, v, "%s is out of range: %s to %s is allowed", text[0], text[1],
                    text[2]);
}

int json_to_f64(const json_val *v, double min, double max, double *out, struct why *w)
{
    if (json_kind(v) != JSON_KIND_INT && json_kind(v) != JSON_KIND_REAL)
        return expected(v, "a number", w);
    double f = v->kind == JSON_KIND_INT ? (double)v->i : v->f;
    if (f < min || f > max)
        return f64_range(v, f, min, max, w);
    *out = f;
    return 0;
}

int json_to_bool(const json_val *v, bool *out, struct why *w)
{
    if (json_kind(v) != JSON_KIND_BOOL)
        return expected(v, "a boolean", w);
    *out = v->b;
    return 0;
}

int json_need_obj(const json_val *v, struct why *w)
{
    return json_kind(v) == JSON_KIND_OBJ ? 0 : expected(v, "an object", w);
}

int json_need_arr(const json_val *v, size_t min_len, size_t max_len, struct why *w)
{
    if (json_kind(v) != JSON_KIND_ARR)
        return expected(v, "an array", w);
    if (v->in.n < min_len)
        return json_why(w, ERR_INVALID, v, "%zu elements, at least %zu needed", v->in.n, min_len);
    if (v->in.n > max_len)
        return json_why(w, ERR_INVALID, v, "%zu elements, at most %zu allowed", v->in.n, max_len);
    return 0;
}

static int str_within(const json_val *v, size_t max_bytes, slice *out, struct why *w)
{
    slice s = {NULL, 0};
    int rc = json_to_str(v, &s, w);
    if (rc < 0)
        return rc;
    if (s.n > max_bytes)
        return json_why(w, ERR_INVALID, v, "%zu bytes, at most %zu allowed", s.n, max_bytes);
    *out = s;
    return 0;
}

int json_req(const json_val *obj, const char *key, const json_val **out, struct why *w)
{
    int rc = json_need_obj(obj, w);
    if (rc < 0)
        return rc;
    const json_val *v = json_get(obj, key);
    if (json_absent(v))
        return json_why_key(w, ERR_INVALID, obj, key, "required, but %s", v ? "null" : "missing");
    *out = v;
    return 0;
}

int json_req_str(const json_val *obj, const char *key, size_t max_bytes, slice *out, struct why *w)
{
    const json_val *v = NULL;
    int rc = json_req(obj, key, &v, w);
    return rc < 0 ? rc : str_within(v, max_bytes, out, w);
}

/* ---- members that may be absent
 * ------------------------------------------------------------------------ */

/* A result of 0 from a check of a member that is there means 1 to the caller. */
static int given(int rc)
{
    return rc < 0 ? rc : 1;
}

int json_opt_str(const json_val *obj, const char *key, size_t max_bytes, slice *out, struct why *w)
{
    const json_val *v = json_get(obj, key);
    return json_absent(v) ? 0 : given(str_within(v, max_bytes, out, w));
}

int json_opt_i64(const json_val *obj, const char *key, int64_t min, int64_t max, int64_t *out,
                 struct why *w)
{
    const json_val *v = json_get(obj, key);
    return json_absent(v) ? 0 : given(json_to_i64(v, min, max, out, w));
}

int json_opt_f64(const json_val *obj, const char *key, double min, double max, double *out,
                 struct why *w)
{
    const json_val *v = json_get(obj, key);
    return json_absent(v) ? 0 : given(json_to_f64(v, min, max, out, w));
}

int json_opt_bool(const json_val *obj, const char *key, bool *out, struct why *w)
{
    const json_val *v = json_get(obj, key);
    return json_absent(v) ? 0 : given(json_to_bool(v, out, w));
}

int json_opt_obj(const json_val *obj, const char *key, const json_val **out, struct why *w)
{
    const json_val *v = json_get(obj, key);
    if (json_absent(v))
        return 0;
    int rc = json_need_obj(v, w);
    if (rc == 0)
        *out = v;
    return given(rc);
}

int json_opt_arr(const json_val *obj, const char *key, size_t max_len, const json_val **out,
                 struct why *w)
{
    const json_val *v = json_get(obj, key);
    if (json_absent(v))
        return 0;
    int rc = json_need_arr(v, 0, max_len, w);
    if (rc == 0)
        *out = v;
    return given(rc);
}

/* ---- reporting
 * ------------------------------------------------------------------------------------------ */

/* A path that is being written: what does not fit is left out. */
struct path {
    char *p;
    size_t n, room;
};

static void path_put(struct path *to, const char *p, size_t n)
{
    size_t fits = n < to->room - to->n ? n : to->room - to->n;
    memcpy(to->p + to->n, p, fits);
    to->n += fits;
}

static void path_put_name(struct path *to, slice name)
{
    if (to->n)
        path_put(to, ".", 1);
    for (size_t i = 0; i < name.n && to->n < to->room; i++) {
        unsigned char c = (unsigned char)name.p[i];
        path_put(to, c < 0x20 || c == 0x7F ? "?" : name.p + i, 1);
    }
}

static void path_of(const json_val *v, struct path *to)
{
    const json_val *up[JSON_DEPTH_MAX + 1];
    size_t n = 0;
    for (; v && v->parent; v = v->parent) {
        CHECK(n < ARRAY_LEN(up));
        up[n++] = v;
    }
    while (n-- > 0) {
        char index[24];
        if (up[n]->parent->kind == JSON_KIND_OBJ)
            path_put_name(to, up[n]->name);
        else
            path_put(to, index, (size_t)snprintf(index, sizeof index, "[%zu]", index_of(up[n])));
    }
}

static void path_end(struct path *to)
{
    to->p[to->n == to->room ? utf8_complete_len(to->p, to->n) : to->n] = '\0';
}

void json_path(const json_val *v, char *out, size_t n)
{
    CHECK(n > 0);
    struct path to = {.p = out, .room = n - 1};
    path_of(v, &to);
    path_end(&to);
}

static int PRINTF_LIKE(4, 0)
    why_at(struct why *w, int e, const char *path, const char *fmt, va_list ap)
{
    char text[WHY_TEXT_MAX];
    int n = vsnprintf(text, sizeof text, fmt, ap);
    if (n >= (int)sizeof text)
        text[utf8_complete_len(text, sizeof text - 1)] = '\0';
    return why_set(w, e, path, "%s", text);
}

int json_why(struct why *w, int e, const json_val *v, const char *fmt, ...)
{
    if (!w)
        return e;
    char path[WHY_FIELD_MAX];
    json_path(v, path, sizeof path);
    va_list ap;
    va_start(ap, fmt);
    why_at(w, e, path, fmt, ap);
    va_end(ap);
    return e;
}

int json_why_key(struct why *w, int e, const json_val *obj, const char *key, const char *fmt, ...)
{
    if (!w)
        return e;
    char path[WHY_FIELD_MAX];
    struct path to = {.p = path, .room = sizeof path - 1};
    path_of(obj, &to);
    path_put_name(&to, slice_str(key));
    path_end(&to);
    va_list ap;
    va_start(ap, fmt);
    why_at(w, e, path, fmt, ap);
    va_end(ap);
    return e;
}

static bool is_known(slice name, const char *const *known, size_t n_known)
{
    for (size_t i = 0; i < n_known; i++)
        if (slice_eq_str(name, known[i]))
            return true;
    return false;
}

int json_only(const json_val *obj, const char *const *known, size_t n_known, struct why *w)
{
    if (json_kind(obj) != JSON_KIND_OBJ)
        return expected(obj, "an object", w);
    for (const json_val *v = json_first(obj); v; v = json_next(v)) {
        if (is_known(v->name, known, n_known))
            continue;
        struct nearest near;
        nearest_init(&near, v->name);
        for (size_t i = 0; i < n_known; i++)
            nearest_offer(&near, known[i]);
        if (near.name)
            return json_why(w, ERR_INVALID, v, "unknown; did you mean %s?", near.name);
        return json_why(w, ERR_INVALID, v, "unknown");
    }
    return 0;
}
