/* Renders a chat template, for comparing with jinja2.
 *
 * usage: jinja TEMPLATE < CONTEXT      CONTEXT: a JSON object of variables; "now" is the time in
 * seconds since 1970 */
#include <stdio.h>

#include "cli/home.h"
#include "common/json/json.h"
#include "tokenizer-svc/jinja.h"

static struct jinja_val of_json(jinja_run *r, const json_val *v)
{
    struct jinja_val out = {.kind = JINJA_NONE};
    int64_t i = 0;
    double f = 0;
    bool b = false;
    switch (json_kind(v)) {
    case JSON_KIND_NULL:
        break;
    case JSON_KIND_BOOL:
        return json_to_bool(v, &b, NULL) < 0 ? out : jinja_bool(b);
    case JSON_KIND_INT:
        return json_to_i64(v, INT64_MIN, INT64_MAX, &i, NULL) < 0 ? out : jinja_int(i);
    case JSON_KIND_REAL:
        return json_to_f64(v, -1e308, 1e308, &f, NULL) < 0 ? out : jinja_float(f);
    case JSON_KIND_STR:
        return jinja_text(r, json_str_or(v, (slice){"", 0}), 1);
    case JSON_KIND_ARR:
        out = jinja_list_new(r);
        for (const json_val *c = json_first(v); c; c = json_next(c))
            jinja_list_add(r, out, of_json(r, c));
        break;
    case JSON_KIND_OBJ:
        out = jinja_dict_new(r);
        for (const json_val *c = json_first(v); c; c = json_next(c))
            jinja_dict_set(r, out, json_name(c), of_json(r, c));
    }
    return out;
}

static int stop(const struct why *w)
{
    fprintf(stderr, "jinja: %s\n", w->text);
    return 1;
}

int main(int argc, char **argv)
{
    struct json_limits lim = {
        .max_bytes = 64 << 20, .max_depth = 64, .max_nodes = 1 << 20, .allow_nul = true};
    struct why w = {.text = ""};
    struct jinja_str out;
    buf text = {0}, context = {0};
    json_doc *d = NULL;
    jinja *j = NULL;
    int64_t now = 0;
    if (argc != 2)
        return fprintf(stderr, "usage: jinja TEMPLATE < CONTEXT\n"), 2;
    if (file_read(argv[1], 1 << 20, &text, &w) < 0 ||
        file_read("/dev/stdin", 64 << 20, &context, &w) < 0 ||
        json_doc_parse(buf_slice(&context), &lim, &d, &w) < 0 ||
        jinja_new(buf_slice(&text), &j, &w) < 0)
        return stop(&w);
    if (json_opt_i64(json_doc_root(d), "now", 0, INT64_MAX, &now, &w) < 0)
        return stop(&w);
    jinja_run *r = jinja_run_new(j, now);
    int e = jinja_render(r, of_json(r, json_doc_root(d)), &out, &w);
    if (e >= 0)
        fwrite(out.p, 1, out.n, stdout);
    jinja_run_free(r);
    jinja_free(j);
    json_doc_free(d);
    buf_clear(&text);
    buf_clear(&context);
    return e < 0 ? stop(&w) : 0;
}
