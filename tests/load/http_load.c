/* Load for any server that speaks OpenAI's API (nunchi's gateway, llama-server …), measured from
 * outside: README.md. Exit code: 0 all answers came whole, 1 some did not, 2 it could not begin. */
#include <stdio.h>

#include "tests/load/lib/report.h"

static int put(const char *path, const buf *text)
{
    FILE *f = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    bool ok = f && fwrite(text->p, 1, text->n, f) == text->n;
    if (f && f != stdout)
        ok = fclose(f) == 0 && ok;
    if (!ok)
        fprintf(stderr, "http_load: %s cannot be written\n", path);
    return ok ? 0 : 2;
}

int main(int argc, char **argv)
{
    struct load_options o = {0};
    struct load_result *r = xcalloc(1, sizeof *r);
    struct why w = {0};
    buf text = {0};
    enum config_verdict verdict = config_load(&LOAD_OPTIONS, argc, argv, &o);
    if (verdict != CONFIG_RUN)
        return verdict == CONFIG_EXIT_OK ? 0 : 2;
    int code = 2;
    if (load_run(&o, r, &w) < 0) {
        fprintf(stderr, "http_load: --%s: %s\n", w.field, w.text);
    } else {
        code = report_failed(r) ? 1 : 0;
        report_table(&o, r, &text);
        if (!o.quiet)
            fwrite(text.p, 1, text.n, o.json && strcmp(o.json, "-") == 0 ? stderr : stdout);
        buf_reset(&text);
        report_json(&o, r, &text);
        if (o.json && put(o.json, &text) != 0)
            code = 2;
    }
    buf_clear(&text);
    free(r);
    config_free(&LOAD_OPTIONS, &o);
    return code;
}
