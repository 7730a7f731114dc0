#include "cli/prepare.h"

#include <stdio.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/term.h"
#include "engine/prepared.h"

static void on_progress(void *ctx, const char *what, int permille)
{
    if (!term_is_tty() || strcmp(what, "load") == 0)
        return;
    progress_show(ctx, strcmp(what, "hash") == 0 ? "checking the model" : "preparing the weights",
                  permille);
}

/* Maps them, writing first what is not there. Nothing is computed: the least KV and rows there are.
 */
static int open_mapped(model_file *f, struct progress *show, engine **e, struct why *w)
{
    struct engine_config cfg = {.kv_blocks = 1,
                                .rows_max = 1,
                                .prepare = ENGINE_PREPARE_REQUIRED,
                                .progress = on_progress,
                                .progress_ctx = show};
    return engine_open(f, &cfg, e, w);
}

static bool all_fine(const engine *e, struct progress *show)
{
    for (size_t i = 0, n = engine_n_pieces(e); i < n; i++) {
        if (!engine_check_piece(e, i))
            return false;
        if (term_is_tty())
            progress_show(show, "reading the prepared weights", (int)((i + 1) * 1000 / n));
    }
    return true;
}

static int open_fine(model_file *f, struct progress *show, engine **e, struct why *w)
{
    int err = open_mapped(f, show, e, w);
    if (err < 0 || all_fine(*e, show))
        return err;
    err = engine_discard_prepared(*e);
    engine_close(*e);
    *e = NULL;
    if (err < 0)
        return why_set(w, err, "", "its prepared weights are damaged and cannot be removed");
    return open_mapped(f, show, e, w);
}

int prepare_model(const char *path, const char *name)
{
    struct progress show = {.last = -1};
    struct why w = {.text = ""};
    model_file *f = NULL;
    engine *e = NULL;
    int err = model_file_open(path, &f, &w);
    if (err >= 0)
        err = open_fine(f, &show, &e, &w);
    progress_end(&show);
    if (err >= 0) {
        const struct engine_info *i = engine_info(e);
        printf("%s\n", i->prepared_path);
        printf("model %.1f MB, prepared %.1f MB\n", (double)model_file_bytes(f) / 1e6,
               (double)prepared_bytes_of(path) / 1e6);
    }
    engine_close(e);
    model_file_close(f);
    return err < 0 ? cli_fail("%.200s: %s", name, w.text) : CLI_OK;
}

uint64_t prepared_bytes_of(const char *path)
{
    char at[PATH_MAX];
    struct stat st;
    for (int place = 0; place < 2; place++)
        if (prepared_place(path, place, false, at) && stat(at, &st) == 0 && S_ISREG(st.st_mode))
            return (uint64_t)st.st_size;
    return 0;
}
