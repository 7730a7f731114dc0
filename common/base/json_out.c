#include "common/base/json_out.h"

#include <inttypes.h>
#include <math.h>

#include "common/base/num.h"

/* What is known of a level; index depth - 1. */
enum { LEVEL_FIRST = 1, LEVEL_OBJECT = 2 };

void json_begin(struct json_out *j, buf *to)
{
    *j = (struct json_out){.to = to};
}

static unsigned char *level(struct json_out *j)
{
    return j->depth ? &j->first[j->depth - 1] : NULL;
}

static void comma(struct json_out *j, unsigned char *l)
{
    if (!(*l & LEVEL_FIRST))
        buf_put_byte(j->to, ',');
    *l &= (unsigned char)~LEVEL_FIRST;
}

/* Every value passes here: in an object it follows its key, in an array perhaps a comma. */
static void before_value(struct json_out *j)
{
    unsigned char *l = level(j);
    if (l && *l & LEVEL_OBJECT)
        CHECK(j->after_key);
    else if (l)
        comma(j, l);
    j->after_key = false;
}

static void enter(struct json_out *j, char open, unsigned char flags)
{
    before_value(j);
    CHECK(j->depth < JSON_OUT_DEPTH_MAX);
    buf_put_byte(j->to, (unsigned char)open);
    j->first[j->depth++] = flags | LEVEL_FIRST;
}

static void leave(struct json_out *j, char close, unsigned char flags)
{
    unsigned char *l = level(j);
    CHECK(l && (*l & LEVEL_OBJECT) == flags && !j->after_key);
    buf_put_byte(j->to, (unsigned char)close);
    j->depth--;
}

void json_obj(struct json_out *j)
{
    enter(j, '{', LEVEL_OBJECT);
}

void json_obj_end(struct json_out *j)
{
    leave(j, '}', LEVEL_OBJECT);
}

void json_arr(struct json_out *j)
{
    enter(j, '[', 0);
}

void json_arr_end(struct json_out *j)
{
    leave(j, ']', 0);
}

static void put_escape(buf *b, unsigned char c)
{
    static const char SHORT[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs of byte and letter */
    for (const char *p = SHORT; *p; p += 2)
        if (c == (unsigned char)p[0]) {
            buf_put_byte(b, '\\');
            buf_put_byte(b, (unsigned char)p[1]);
            return;
        }
    buf_printf(b, "\\u%04x", c);
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c != '"' && c != '\\';
}

static void put_quoted(buf *b, slice s)
{
    buf_put_byte(b, '"');
    size_t kept = 0; /* s[kept..i) needs no escape and is not yet written */
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (is_plain(c))
            continue;
        buf_put(b, s.p + kept, i - kept);
        put_escape(b, c);
        kept = i + 1;
    }
    if (s.n > kept)
        buf_put(b, s.p + kept, s.n - kept);
    buf_put_byte(b, '"');
}

static void put_string(buf *b, slice s)
{
    if (utf8_valid(s)) {
        put_quoted(b, s);
        return;
    }
    buf repaired = {0};
    utf8_put_lossy(&repaired, s);
    put_quoted(b, buf_slice(&repaired));
    buf_clear(&repaired);
}

void json_key(struct json_out *j, const char *key)
{
    unsigned char *l = level(j);
    CHECK(l && (*l & LEVEL_OBJECT) && !j->after_key);
    comma(j, l);
    put_string(j->to, slice_str(key));
    buf_put_byte(j->to, ':');
    j->after_key = true;
}

void json_str(struct json_out *j, slice s)
{
    before_value(j);
    put_string(j->to, s);
}

void json_cstr(struct json_out *j, const char *s)
{
    if (s)
        json_str(j, slice_str(s));
    else
        json_put_null(j);
}

void json_i64(struct json_out *j, int64_t v)
{
    before_value(j);
    buf_printf(j->to, "%" PRId64, v);
}

void json_u64(struct json_out *j, uint64_t v)
{
    before_value(j);
    buf_printf(j->to, "%" PRIu64, v);
}

void json_f64(struct json_out *j, double v)
{
    if (!isfinite(v)) {
        json_put_null(j);
        return;
    }
    char text[F64_TEXT_MAX];
    before_value(j);
    buf_put(j->to, text, f64_text(v, text));
    if (v == 0 && signbit(v))
        buf_put_str(j->to, ".0"); /* "-0" would be read back as the integer 0 */
}

void json_bool(struct json_out *j, bool v)
{
    before_value(j);
    buf_put_str(j->to, v ? "true" : "false");
}

void json_put_null(struct json_out *j)
{
    before_value(j);
    buf_put_str(j->to, "null");
}

void json_raw(struct json_out *j, slice json)
{
    before_value(j);
    buf_put_slice(j->to, json);
}

void json_kv_str(struct json_out *j, const char *key, slice s)
{
    json_key(j, key);
    json_str(j, s);
}

void json_kv_cstr(struct json_out *j, const char *key, const char *s)
{
    json_key(j, key);
    json_cstr(j, s);
}

void json_kv_i64(struct json_out *j, const char *key, int64_t v)
{
    json_key(j, key);
    json_i64(j, v);
}

void json_kv_u64(struct json_out *j, const char *key, uint64_t v)
{
    json_key(j, key);
    json_u64(j, v);
}

void json_kv_f64(struct json_out *j, const char *key, double v)
{
    json_key(j, key);
    json_f64(j, v);
}

void json_kv_bool(struct json_out *j, const char *key, bool v)
{
    json_key(j, key);
    json_bool(j, v);
}
