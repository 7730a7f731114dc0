#include "common/base/config_args.h"

#include <stdio.h>

#include "common/base/nearest.h"

static const struct {
    const char *name;
    enum arg_kind kind;
    const char *also; /* the short form */
} BUILT_IN[] = {{"help", ARG_HELP, "-h"},
                {"version", ARG_VERSION, "-V"},
                {"check-config", ARG_CHECK, ""},
                {"config", ARG_CONFIG, ""}};

const struct opt *opt_find(const struct config_spec *spec, slice name)
{
    for (size_t i = 0; i < spec->n_opts; i++)
        if (spec->opts[i].name && slice_eq_str(name, spec->opts[i].name))
            return &spec->opts[i];
    return NULL;
}

int opt_unknown(const struct config_spec *spec, slice name, const char *prefix, const char *where,
                struct why *w)
{
    struct nearest near;
    nearest_init(&near, name);
    for (size_t i = 0; i < spec->n_opts; i++)
        if (spec->opts[i].name)
            nearest_offer(&near, spec->opts[i].name);
    for (size_t i = 0; *prefix && i < ARRAY_LEN(BUILT_IN); i++)
        nearest_offer(&near, BUILT_IN[i].name);
    int shown = (int)(name.n < NEAREST_WORD_MAX ? name.n : NEAREST_WORD_MAX);
    if (near.name)
        return why_set(w, ERR_INVALID, "", "%sunknown option %s%.*s; did you mean %s%s?", where,
                       prefix, shown, name.p, prefix, near.name);
    return why_set(w, ERR_INVALID, "", "%sunknown option %s%.*s; --help lists them", where, prefix,
                   shown, name.p);
}

static const struct opt *negated(const struct config_spec *spec, slice name)
{
    if (!slice_starts(name, SLICE_LIT("no-")))
        return NULL;
    const struct opt *o = opt_find(spec, (slice){name.p + 3, name.n - 3});
    return o && o->type == OPT_BOOL ? o : NULL;
}

static int take_value(int argc, char **argv, int *i, slice inlined, struct arg *out, struct why *w)
{
    if (inlined.p)
        out->value = inlined;
    else if (*i < argc)
        out->value = slice_str(argv[(*i)++]);
    else
        return why_set(w, ERR_INVALID, out->opt ? out->opt->name : "", "%s needs a value",
                       out->from);
    return 1;
}

static int take_bool(bool yes, slice inlined, struct arg *out, struct why *w)
{
    if (inlined.p && !yes)
        return why_set(w, ERR_INVALID, out->opt->name, "%s takes no value", out->from);
    out->value = inlined.p ? inlined : yes ? SLICE_LIT("true") : SLICE_LIT("false");
    return 1;
}

static bool built_in(slice whole, slice name, enum arg_kind *kind)
{
    for (size_t k = 0; k < ARRAY_LEN(BUILT_IN); k++)
        if (slice_eq_str(name, BUILT_IN[k].name) ||
            (whole.n && slice_eq_str(whole, BUILT_IN[k].also))) {
            *kind = BUILT_IN[k].kind;
            return true;
        }
    return false;
}

int arg_next(const struct config_spec *spec, int argc, char **argv, int *i, struct arg *out,
             struct why *w)
{
    if (*i >= argc)
        return 0;
    slice whole = slice_str(argv[(*i)++]), name = {"", 0}, inlined = {NULL, 0};
    *out = (struct arg){.kind = ARG_OPT};
    if (slice_starts(whole, SLICE_LIT("--"))) {
        inlined = (slice){whole.p + 2, whole.n - 2};
        slice_split(&inlined, '=', &name);
    }
    snprintf(out->from, sizeof out->from, "--%.*s", (int)(name.n < 80 ? name.n : 80), name.p);
    if (built_in(whole, name, &out->kind)) {
        if (out->kind == ARG_CONFIG)
            return take_value(argc, argv, i, inlined, out, w);
        return inlined.p ? why_set(w, ERR_INVALID, "", "%s takes no value", out->from) : 1;
    }
    if (name.n == 0)
        return why_set(w, ERR_INVALID, "", "\"%.60s\" is not an option; options begin with --",
                       whole.p);
    if ((out->opt = opt_find(spec, name)) != NULL)
        return out->opt->type == OPT_BOOL ? take_bool(true, inlined, out, w)
                                          : take_value(argc, argv, i, inlined, out, w);
    if ((out->opt = negated(spec, name)) != NULL)
        return take_bool(false, inlined, out, w);
    return opt_unknown(spec, name, "--", "", w);
}
