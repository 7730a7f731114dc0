#include "common/base/config.h"

#include <stdio.h>

#include "common/base/config_args.h"
#include "common/base/config_help.h"
#include "common/base/config_value.h"
#include "common/base/log.h"

#define CONFIG_LINES_MAX 10000 /* of a file; its bytes are limited where it is read */
#define CONFIG_LOGGED_MAX 128  /* options in one log line */

void config_env_name(const char *opt_name, char *out, size_t room)
{
    size_t n = (size_t)snprintf(out, room, "NUNCHI_%s", opt_name);
    CHECK(n < room);
    for (char *p = out; *p; p++)
        *p = *p == '-' ? '_' : *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
}

const char *config_env_get(char *const *env, const char *name)
{
    size_t n = strlen(name);
    for (; env && *env; env++)
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
            return *env + n + 1;
    return NULL;
}

static void apply_defaults(const struct config_spec *spec, void *cfg)
{
    for (size_t i = 0; i < spec->n_opts; i++) {
        const struct opt *o = &spec->opts[i];
        struct why w;
        if (!o->name || !o->def)
            continue;
        if (opt_store(o, cfg, slice_str(o->def), o->name, &w) < 0) {
            fprintf(stderr, "%s: the default of %s: %s\n", spec->program, o->name, w.text);
            CHECK(!"a default must be valid");
        }
    }
}

/* ---- file: "key = value", # comments, values may be quoted
 * ------------------------------------------- */

static int file_value(slice *v, const char *from, struct why *w)
{
    if (v->n == 0 || v->p[0] != '"')
        return 0;
    if (v->n < 2 || v->p[v->n - 1] != '"')
        return why_set(w, ERR_INVALID, "", "%s: the closing quote is missing", from);
    *v = (slice){v->p + 1, v->n - 2};
    return 0;
}

static int apply_line(const struct config_spec *spec, slice line, size_t n, bool *seen, void *cfg,
                      struct why *w)
{
    char from[128];
    slice value = line, key;
    if (!memchr(line.p, '=', line.n))
        return why_set(w, ERR_INVALID, "", "line %zu: expected key = value", n);
    slice_split(&value, '=', &key);
    key = slice_trim(key);
    value = slice_trim(value);
    const struct opt *o = opt_find(spec, key);
    if (!o) {
        snprintf(from, sizeof from, "line %zu: ", n);
        return opt_unknown(spec, key, "", from, w);
    }
    snprintf(from, sizeof from, "line %zu: %.80s", n, o->name);
    if (seen[o - spec->opts])
        return why_set(w, ERR_INVALID, o->name, "%s is set a second time", from);
    seen[o - spec->opts] = true;
    int rc = file_value(&value, from, w);
    return rc < 0 ? rc : opt_store(o, cfg, value, from, w);
}

static int apply_file(const struct config_spec *spec, slice file, void *cfg, struct why *w)
{
    bool *seen = xcalloc(spec->n_opts, sizeof *seen);
    slice line;
    int rc = 0;
    for (size_t n = 1; rc >= 0 && file.n && slice_split(&file, '\n', &line); n++) {
        line = slice_trim(line);
        if (n > CONFIG_LINES_MAX)
            rc = why_set(w, ERR_TOO_BIG, "", "more than %d lines", CONFIG_LINES_MAX);
        else if (line.n && line.p[0] != '#')
            rc = apply_line(spec, line, n, seen, cfg, w);
    }
    free(seen);
    return rc;
}

/* ---- environment and command line
 * -------------------------------------------------------------------- */

static int apply_env(const struct config_spec *spec, char *const *env, void *cfg, struct why *w)
{
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < spec->n_opts; i++) {
        char name[128];
        if (!spec->opts[i].name)
            continue;
        config_env_name(spec->opts[i].name, name, sizeof name);
        const char *value = config_env_get(env, name);
        if (value && *value) /* compose files write X=${X:-}: empty is unset */
            rc = opt_store(&spec->opts[i], cfg, slice_str(value), name, w);
    }
    return rc;
}

static int apply_args(const struct config_spec *spec, int argc, char **argv, void *cfg,
                      struct why *w)
{
    struct arg a;
    int rc;
    for (int i = 0; (rc = arg_next(spec, argc, argv, &i, &a, w)) > 0;) {
        if (a.kind == ARG_OPT && (rc = opt_store(a.opt, cfg, a.value, a.from, w)) < 0)
            break;
    }
    return rc;
}

int config_parse(const struct config_spec *spec, int argc, char **argv, char *const *env,
                 slice file, void *cfg, struct why *w)
{
    apply_defaults(spec, cfg);
    int rc = apply_file(spec, file, cfg, w);
    if (rc >= 0)
        rc = apply_env(spec, env, cfg, w);
    if (rc >= 0)
        rc = apply_args(spec, argc, argv, cfg, w);
    if (rc >= 0 && spec->check)
        rc = spec->check(cfg, w);
    if (rc < 0)
        config_free(spec, cfg);
    return rc < 0 ? rc : 0;
}

void config_free(const struct config_spec *spec, void *cfg)
{
    for (size_t i = 0; i < spec->n_opts; i++)
        if (spec->opts[i].name)
            opt_clear(&spec->opts[i], cfg);
}

void config_log(const struct config_spec *spec, const void *cfg)
{
    struct log_field fields[CONFIG_LOGGED_MAX] = {LOG_END};
    buf texts[CONFIG_LOGGED_MAX] = {{0}};
    size_t n = 0;
    for (size_t i = 0; i < spec->n_opts && n < CONFIG_LOGGED_MAX; i++) {
        const struct opt *o = &spec->opts[i];
        if (!o->name || !opt_is_set(o, cfg))
            continue;
        opt_print(o, cfg, &texts[n]);
        fields[n] = LOG_SLICE(o->name, buf_slice(&texts[n]));
        n++;
    }
    log_fields(LOG_INFO, "effective configuration", fields, n);
    for (size_t i = 0; i < n; i++)
        buf_clear(&texts[i]);
}
