/* An append-only JSON writer into a buf: no tree, no allocation but the buf's. Commas and closing are
 * tracked; misuse (a value where a key is due) is a CHECK. Strings must be valid UTF-8 or are repaired
 * with U+FFFD. */
#ifndef NUNCHI_JSON_OUT_H
#define NUNCHI_JSON_OUT_H

#include "common/base/slice.h"

#define JSON_OUT_DEPTH_MAX 16

struct json_out {
    buf *to;
    int depth;
    unsigned char first[JSON_OUT_DEPTH_MAX]; /* nothing written yet on this level */
    bool after_key;
};

void json_begin(struct json_out *j, buf *to);
void json_obj(struct json_out *j);     /* { */
void json_obj_end(struct json_out *j); /* } */
void json_arr(struct json_out *j);
void json_arr_end(struct json_out *j);
void json_key(struct json_out *j, const char *key);
void json_str(struct json_out *j, slice s);
void json_cstr(struct json_out *j, const char *s); /* NULL writes null */
void json_i64(struct json_out *j, int64_t v);
void json_u64(struct json_out *j, uint64_t v);
void json_f64(struct json_out *j, double v); /* shortest text that reads back equal; nan and inf write null */
void json_bool(struct json_out *j, bool v);
void json_put_null(struct json_out *j);
/* Inline, because jansson exports a function of this name and would call ours in its place. */
static inline void json_null(struct json_out *j)
{
    json_put_null(j);
}
void json_raw(struct json_out *j, slice json); /* already JSON */
/* Key and value in one line. */
void json_kv_str(struct json_out *j, const char *key, slice s);
void json_kv_cstr(struct json_out *j, const char *key, const char *s);
void json_kv_i64(struct json_out *j, const char *key, int64_t v);
void json_kv_u64(struct json_out *j, const char *key, uint64_t v);
void json_kv_f64(struct json_out *j, const char *key, double v);
void json_kv_bool(struct json_out *j, const char *key, bool v);

#endif
