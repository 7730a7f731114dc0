/* A bounded reader for JSON that strangers send. The size, the nesting and the number of values are
 * checked in one linear pass before the parser proper sees the text; duplicate keys, invalid UTF-8,
 * NaN, numbers that do not fit and trailing text are refused, and a syntax error names its line and
 * column but never quotes the text. A `json_doc` owns everything; each `json_val` and every slice
 * taken from it is borrowed and lives as long as the document. Every value knows where it stands,
 * so an error names its path: messages[2].content. Read-only after parsing: any number of threads
 * may read one document.
 *
 *     const json_val *root = json_doc_root(d);
 *     if (json_need_obj(root, w) < 0 || json_opt_f64(root, "temperature", 0, 2, &temperature, w) <
 * 0) … */
#ifndef NUNCHI_JSON_H
#define NUNCHI_JSON_H

#include "common/base/slice.h"

/* Hard upper end of json_limits.max_depth: the parser behind this recurses once per level. */
#define JSON_DEPTH_MAX 256

struct json_limits {
    size_t max_bytes; /* of the text */
    size_t max_depth; /* `[]` is 1, `[[]]` is 2; at most JSON_DEPTH_MAX */
    size_t max_nodes; /* values in all; one costs up to 300 bytes of memory and as little as 2 of
                         text */
    bool allow_nul;   /* \u0000 inside strings (never in keys) */
};

typedef struct json_doc json_doc;
typedef struct json_val json_val;

enum json_kind {
    JSON_KIND_NULL,
    JSON_KIND_BOOL,
    JSON_KIND_INT,  /* written without fraction and exponent; fits int64 */
    JSON_KIND_REAL, /* finite */
    JSON_KIND_STR,
    JSON_KIND_ARR,
    JSON_KIND_OBJ,
};

/* The root may be any value (see json_need_obj). ERR_TOO_BIG: a limit, named in w; ERR_INVALID:
 * syntax; ERR_NOMEM. *out is NULL on failure. The text may be freed afterwards. */
int json_doc_parse(slice text, const struct json_limits *lim, json_doc **out,
                   struct why *w) MUST_USE;
void json_doc_free(json_doc *d); /* NULL is allowed */
const json_val *json_doc_root(const json_doc *d);

/* ---- looking around: a NULL value is allowed everywhere below and counts as null ---- */
enum json_kind json_kind(const json_val *v);
const char *json_kind_text(enum json_kind k); /* "a string", "an object" … */
bool json_absent(const json_val *v); /* NULL or null: OpenAI's clients send null for "not given" */
size_t json_len(const json_val *v);  /* elements, members; 0 for anything else */
const json_val *json_get(const json_val *obj,
                         const char *key); /* NULL: no such member, or not an object */
const json_val *json_at(const json_val *v,
                        size_t i); /* i-th element or member; NULL beyond the end */
/* for (const json_val *c = json_first(v); c; c = json_next(c)): elements or members, in the text's
 * order. */
const json_val *json_first(const json_val *v);
const json_val *json_next(const json_val *v);
slice json_name(const json_val *member); /* empty for elements and the root */
slice json_str_or(const json_val *v,
                  slice otherwise); /* the string, or `otherwise` if it is not one */

/* ---- a value that must be there: 0, or ERR_INVALID with path and expectation in w ---- */
int json_to_str(const json_val *v, slice *out, struct why *w) MUST_USE;
/* Inclusive range. 5.0 counts as 5, as JSON Schema has it. */
int json_to_i64(const json_val *v, int64_t min, int64_t max, int64_t *out, struct why *w) MUST_USE;
int json_to_f64(const json_val *v, double min, double max, double *out, struct why *w) MUST_USE;
int json_to_bool(const json_val *v, bool *out, struct why *w) MUST_USE;
int json_need_obj(const json_val *v, struct why *w) MUST_USE;
int json_need_arr(const json_val *v, size_t min_len, size_t max_len, struct why *w) MUST_USE;
/* A member that must be there and not null. */
int json_req(const json_val *obj, const char *key, const json_val **out, struct why *w) MUST_USE;
int json_req_str(const json_val *obj, const char *key, size_t max_bytes, slice *out,
                 struct why *w) MUST_USE;

/* ---- a member that may be absent or null: 1 and *out set, 0 and *out untouched, or an error ----
 */
int json_opt_str(const json_val *obj, const char *key, size_t max_bytes, slice *out,
                 struct why *w) MUST_USE;
int json_opt_i64(const json_val *obj, const char *key, int64_t min, int64_t max, int64_t *out,
                 struct why *w) MUST_USE;
int json_opt_f64(const json_val *obj, const char *key, double min, double max, double *out,
                 struct why *w) MUST_USE;
int json_opt_bool(const json_val *obj, const char *key, bool *out, struct why *w) MUST_USE;
int json_opt_obj(const json_val *obj, const char *key, const json_val **out,
                 struct why *w) MUST_USE;
int json_opt_arr(const json_val *obj, const char *key, size_t max_len, const json_val **out,
                 struct why *w) MUST_USE;

/* ---- reporting ---- */
/* why_set with the path of v as field: return json_why(w, ERR_UNSUPPORTED, v, "…"). */
int json_why(struct why *w, int e, const json_val *v, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* The same about a member that is not there. */
int json_why_key(struct why *w, int e, const json_val *obj, const char *key, const char *fmt, ...)
    PRINTF_LIKE(5, 6);
/* "messages[2].content"; "" for the root. Cut to fit n bytes, control characters shown as '?'. */
void json_path(const json_val *v, char *out, size_t n);
/* Refuses the first member whose key is not among `known`, and names the nearest that is. */
int json_only(const json_val *obj, const char *const *known, size_t n_known,
              struct why *w) MUST_USE;

/* Appends v as compact JSON: for what is passed on as it came (schemas, metadata) and for hashing.
 */
void json_write(const json_val *v, buf *out);

#endif
