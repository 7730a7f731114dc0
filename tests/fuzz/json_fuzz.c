/* Any bytes as a request body: bounded, no crash, and what was accepted survives being written and
 * read again. */
#include <stddef.h>
#include <stdint.h>

#include "common/json/json.h"

static const struct json_limits LIM = {
    .max_bytes = 1 << 16, .max_depth = 40, .max_nodes = 4000, .allow_nul = true};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at(const json_val *v)
{
    struct why w;
    slice s;
    int64_t i;
    double f;
    bool b;
    char path[WHY_FIELD_MAX];
    json_path(v, path, sizeof path);
    CHECK(utf8_valid(slice_str(path)) && utf8_valid(json_name(v)));
    CHECK(json_to_str(v, &s, &w) < 0 || utf8_valid(s));
    CHECK(json_to_i64(v, -5, 5, &i, &w) < 0 || (i >= -5 && i <= 5));
    CHECK(json_to_f64(v, -1, 1, &f, &w) < 0 || (f >= -1 && f <= 1));
    CHECK(json_to_bool(v, &b, &w) == 0 || utf8_valid(slice_str(w.text)));
}

static void look_at_all(const json_val *root)
{
    const json_val *above[64]; /* more than max_depth */
    size_t n = 0;
    for (const json_val *v = root;; v = json_next(v)) {
        look_at(v);
        for (; json_first(v); v = json_first(v), look_at(v))
            above[n++] = v;
        while (n > 0 && !json_next(v))
            v = above[--n];
        if (n == 0)
            return;
    }
}

static void written_and_read_again(const json_val *root)
{
    buf once = {0}, twice = {0};
    json_doc *d;
    struct why w;
    json_write(root, &once);
    /* Escapes can make the second text longer than the first was allowed to be. */
    struct json_limits lim = LIM;
    lim.max_bytes = once.n;
    CHECK(json_doc_parse(buf_slice(&once), &lim, &d, &w) == 0);
    json_write(json_doc_root(d), &twice);
    CHECK(slice_eq(buf_slice(&once), buf_slice(&twice)));
    json_doc_free(d);
    buf_clear(&once);
    buf_clear(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_doc *d;
    struct why w = {.text = ""};
    slice text = {(const char *)data, size};
    int rc = json_doc_parse(text, &LIM, &d, &w);
    if (rc < 0) {
        CHECK(d == NULL && w.text[0] != '\0' && utf8_valid(slice_str(w.text)));
        return 0;
    }
    look_at_all(json_doc_root(d));
    written_and_read_again(json_doc_root(d));
    json_doc_free(d);
    return 0;
}
