#include "common/base/json_out.h"
#include "common/json/json_impl.h"

static bool has_children(const json_val *v)
{
    return (v->kind == JSON_KIND_ARR || v->kind == JSON_KIND_OBJ) && v->in.n > 0;
}

static void put_leaf(struct json_out *j, const json_val *v)
{
    switch (v->kind) {
    case JSON_KIND_NULL:
        json_null(j);
        return;
    case JSON_KIND_BOOL:
        json_bool(j, v->b);
        return;
    case JSON_KIND_INT:
        json_i64(j, v->i);
        return;
    case JSON_KIND_REAL:
        json_f64(j, v->f);
        return;
    case JSON_KIND_STR:
        json_str(j, v->s);
        return;
    case JSON_KIND_ARR:
        json_raw(j, SLICE_LIT("[]"));
        return;
    case JSON_KIND_OBJ:
        json_raw(j, SLICE_LIT("{}"));
        return;
    }
}

static void put_before(struct json_out *j, const json_val *v)
{
    if (v != v->parent->in.child)
        buf_put_byte(j->to, ',');
    if (v->parent->kind == JSON_KIND_OBJ) {
        json_str(j, v->name);
        buf_put_byte(j->to, ':');
    }
}

/* Up and down by the parent links instead of recursion: the writer's own levels are fewer than a
 * stranger's. */
void json_write(const json_val *root, buf *out)
{
    struct json_out j;
    json_begin(&j, out);
    if (!root) {
        json_null(&j);
        return;
    }
    for (const json_val *v = root;;) {
        if (v != root)
            put_before(&j, v);
        if (has_children(v)) {
            buf_put_byte(out, v->kind == JSON_KIND_ARR ? '[' : '{');
            v = v->in.child;
            continue;
        }
        put_leaf(&j, v);
        while (v != root && !json_next(v)) {
            v = v->parent;
            buf_put_byte(out, v->kind == JSON_KIND_ARR ? ']' : '}');
        }
        if (v == root)
            return;
        v = json_next(v);
    }
}
