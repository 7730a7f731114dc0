#include "common/json/json.h"

#include <jansson.h>

#include "common/json/json_impl.h"

struct json_doc {
    json_t *tree; /* owns the strings */
    size_t n_nodes;
    json_val nodes[]; /* breadth first: the root, its children, theirs … */
};

/* The parser's sentence without what quotes the stranger's text: "… near 'x'", "invalid Unicode
 * escape '\ux'". */
static int syntax_error(const json_error_t *e, struct why *w)
{
    if (json_error_code(e) == json_error_out_of_memory)
        return why_set(w, ERR_NOMEM, "", "out of memory");
    if (json_error_code(e) == json_error_null_character)
        return why_set(w, ERR_INVALID, "",
                       "line %d, column %d: an escaped NUL character is not allowed", e->line,
                       e->column);
    const char *near = strstr(e->text, " near "), *quote = strstr(e->text, " '\\");
    size_t n = near ? (size_t)(near - e->text) : strlen(e->text);
    if (quote && (size_t)(quote - e->text) < n)
        n = (size_t)(quote - e->text);
    const char *where =
        near && strcmp(near, " near end of file") == 0 ? " at the end of the text" : "";
    return why_set(w, ERR_INVALID, "", "line %d, column %d: %.*s%s", e->line, e->column, (int)n,
                   e->text, where);
}

static int check_size(slice text, const struct json_limits *lim, struct why *w)
{
    CHECK(lim->max_depth <= JSON_DEPTH_MAX);
    if (text.n > lim->max_bytes)
        return why_set(w, ERR_TOO_BIG, "", "%zu bytes of JSON, at most %zu allowed", text.n,
                       lim->max_bytes);
    if (slice_trim(text).n == 0)
        return why_set(w, ERR_INVALID, "", "empty where JSON was expected");
    return 0;
}

/* ---- from jansson's tree to ours
 * ---------------------------------------------------------------------- */

static void take_scalar(json_val *v, const json_t *t)
{
    switch (json_typeof(t)) {
    case JSON_STRING:
        v->kind = JSON_KIND_STR;
        v->s = (slice){json_string_value(t), json_string_length(t)};
        return;
    case JSON_INTEGER:
        v->kind = JSON_KIND_INT;
        v->i = json_integer_value(t);
        return;
    case JSON_REAL:
        v->kind = JSON_KIND_REAL;
        v->f = json_real_value(t);
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        v->kind = JSON_KIND_BOOL;
        v->b = json_is_true(t);
        return;
    default:
        v->kind = JSON_KIND_NULL;
        return;
    }
}

struct copy {
    json_val *nodes;
    json_t **from; /* from[i] becomes nodes[i] */
    size_t n, cap;
};

static json_val *append(struct copy *c, json_t *t, const json_val *parent)
{
    CHECK(c->n < c->cap); /* json_scan counted them */
    json_val *v = &c->nodes[c->n];
    v->parent = parent;
    c->from[c->n++] = t;
    return v;
}

static void take_array(struct copy *c, json_val *v, json_t *t)
{
    v->kind = JSON_KIND_ARR;
    v->in.n = json_array_size(t);
    v->in.child = v->in.n ? &c->nodes[c->n] : NULL;
    for (size_t i = 0; i < v->in.n; i++)
        append(c, json_array_get(t, i), v);
}

static void take_object(struct copy *c, json_val *v, json_t *t)
{
    v->kind = JSON_KIND_OBJ;
    v->in.n = json_object_size(t);
    v->in.child = v->in.n ? &c->nodes[c->n] : NULL;
    for (void *it = json_object_iter(t); it; it = json_object_iter_next(t, it))
        append(c, json_object_iter_value(it), v)->name =
            (slice){json_object_iter_key(it), json_object_iter_key_len(it)};
}

static int copy_tree(json_doc *d, size_t n_nodes, json_t *tree)
{
    struct copy c = {
        .nodes = d->nodes, .from = try_calloc(n_nodes, sizeof(json_t *)), .cap = n_nodes};
    if (!c.from)
        return ERR_NOMEM;
    append(&c, tree, NULL);
    for (size_t i = 0; i < c.n; i++) {
        if (json_is_array(c.from[i]))
            take_array(&c, &c.nodes[i], c.from[i]);
        else if (json_is_object(c.from[i]))
            take_object(&c, &c.nodes[i], c.from[i]);
        else
            take_scalar(&c.nodes[i], c.from[i]);
    }
    free(c.from);
    d->n_nodes = c.n;
    return 0;
}

static json_doc *doc_try_new(size_t n_nodes)
{
    size_t bytes;
    if (size_mul(n_nodes, sizeof(json_val), &bytes) < 0 ||
        size_add(bytes, sizeof(json_doc), &bytes) < 0)
        return NULL;
    return try_calloc(1, bytes);
}

int json_doc_parse(slice text, const struct json_limits *lim, json_doc **out, struct why *w)
{
    *out = NULL;
    size_t n_nodes;
    int rc = check_size(text, lim, w);
    if (rc < 0 || (rc = json_scan(text, lim, &n_nodes, w)) < 0)
        return rc;
    json_error_t e;
    json_t *tree = json_loadb(
        text.p, text.n,
        JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | (lim->allow_nul ? JSON_ALLOW_NUL : 0), &e);
    if (!tree)
        return syntax_error(&e, w);
    json_doc *d = doc_try_new(n_nodes);
    if (!d || copy_tree(d, n_nodes, tree) < 0) {
        free(d);
        json_decref(tree);
        return why_set(w, ERR_NOMEM, "", "out of memory");
    }
    d->tree = tree;
    *out = d;
    return 0;
}

void json_doc_free(json_doc *d)
{
    if (!d)
        return;
    json_decref(d->tree);
    free(d);
}

const json_val *json_doc_root(const json_doc *d)
{
    return &d->nodes[0];
}
