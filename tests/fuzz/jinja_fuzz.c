/* Any text as a chat template: refused with a line, or it renders within its limits; what came in
 * as a user's is a user's still. */
#include <stddef.h>
#include <stdint.h>

#include "tokenizer-svc/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct jinja_val context(jinja_run *r)
{
    struct jinja_val names = jinja_dict_new(r), list = jinja_list_new(r), m = jinja_dict_new(r);
    jinja_dict_set(r, m, SLICE_LIT("role"), jinja_text(r, SLICE_LIT("user"), 0));
    jinja_dict_set(r, m, SLICE_LIT("content"),
                   jinja_text(r, SLICE_LIT("h\xc3\xa9llo <b> \xf0\x9f\x98\x80"), 1));
    jinja_list_add(r, list, m);
    jinja_list_add(r, list, m);
    jinja_dict_set(r, names, SLICE_LIT("messages"), list);
    jinja_dict_set(r, names, SLICE_LIT("x"), jinja_float(1.5));
    jinja_dict_set(r, names, SLICE_LIT("add_generation_prompt"), jinja_bool(true));
    return names;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct why w = {.text = ""};
    struct jinja_str out;
    jinja *j;
    if (jinja_new((slice){(const char *)data, size}, &j, &w) < 0) {
        CHECK(w.text[0]);
        return 0;
    }
    jinja_run *r = jinja_run_new(j, 0);
    if (jinja_render(r, context(r), &out, &w) < 0)
        CHECK(w.text[0]);
    else
        for (size_t i = 0; i < out.n; i++)
            CHECK(!out.from || out.from[i] <= 1);
    jinja_run_free(r);
    jinja_free(j);
    return 0;
}
