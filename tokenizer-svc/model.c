#include "tokenizer-svc/model.h"

#include <stdio.h>
#include <sys/stat.h>

#include "common/base/log.h"
#include "engine/model/name.h"

static void say_progress(void *ctx, int permille)
{
    int *said = ctx;
    if (permille / 250 > *said) { /* three lines at most: most files take less than a second */
        *said = permille / 250;
        log_info("hashing the model file", LOG_I64("percent", permille / 10));
    }
}

static int take_context(const model_file *f, slice family, uint32_t wanted, uint32_t *out,
                        struct why *w)
{
    char key[128];
    uint32_t own = 0;
    if (family.n > 64)
        return why_set(w, ERR_INVALID, "general.architecture", "a name of %zu bytes", family.n);
    (void)snprintf(key, sizeof key, "%.*s.context_length", (int)family.n, family.p);
    int e = model_file_u32(f, key, &own);
    if (e < 0 && e != ERR_NOT_FOUND)
        return why_set(w, e, key, "not a number of tokens");
    if (own > ENGINE_CONTEXT_MAX)
        return why_set(w, ERR_TOO_BIG, key, "a context of %u tokens; at most %d", own,
                       ENGINE_CONTEXT_MAX);
    if (own == 0 && wanted == 0)
        return why_set(w, ERR_INVALID, key,
                       "the file does not say how long the context is: give --context");
    *out = wanted == 0 || (own > 0 && own < wanted) ? own : wanted;
    return 0;
}

static int read_file(model_file *f, uint32_t context, struct tok_model *out, struct why *w)
{
    slice family;
    int said = 0;
    int e = model_file_str(f, "general.architecture", &family);
    if (e < 0)
        return why_set(w, ERR_INVALID, "general.architecture",
                       "the file does not say what model it holds");
    buf_put_slice(&out->family, family);
    e = take_context(f, family, context, &out->n_context, w);
    if (e == 0)
        e = vocab_open(f, &out->vocab, w);
    if (e == 0 && (e = model_file_digest(f, &out->weights, say_progress, &said)) < 0)
        why_set(w, e, "model", "the file could not be read to its end");
    return e;
}

int tok_model_open(const char *path, const char *name, uint32_t context, struct tok_model *out,
                   struct why *w)
{
    model_file *f = NULL;
    struct stat st;
    *out = (struct tok_model){0};
    if (name && *name)
        buf_put_str(&out->name, name);
    else
        model_default_name(slice_str(path), &out->name);
    if (stat(path, &st) == 0)
        out->created_unix_s = (uint64_t)st.st_mtime;
    int e = model_file_open(path, &f, w);
    if (e == 0)
        e = read_file(f, context, out, w);
    model_file_close(f);
    (void)buf_cstr(&out->name);
    (void)buf_cstr(&out->family);
    if (e < 0)
        tok_model_close(out);
    return e;
}

void tok_model_close(struct tok_model *m)
{
    vocab_close(m->vocab);
    buf_clear(&m->name);
    buf_clear(&m->family);
    *m = (struct tok_model){0};
}
