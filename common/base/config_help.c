#include "common/base/config_help.h"

#include <stdio.h>

#include "common/base/config_value.h"

#define LEFT_MIN 16 /* width of the column of names */
#define LEFT_MAX 34
#define COLUMNS_MIN 50
#define COLUMNS_MAX 110 /* longer lines are hard to read */

static const char *const METAVAR[] = {[OPT_STR] = " TEXT", [OPT_INT] = " N",   [OPT_SIZE] = " SIZE",
                                      [OPT_MS] = " TIME",  [OPT_FLOAT] = " X", [OPT_BOOL] = ""};

/* One row of the two columns. */
struct row {
    size_t left, columns; /* where the right column begins; where the line ends */
    buf *out;
};

static void spaces(buf *out, size_t n)
{
    while (n-- > 0)
        buf_put_byte(out, ' ');
}

/* A space at which no line is broken. */
#define GLUE '\x1f'

static void put_word(buf *out, slice word)
{
    for (size_t i = 0; i < word.n; i++)
        buf_put_byte(out, word.p[i] == GLUE ? ' ' : (unsigned char)word.p[i]);
}

/* Appends text at column `at`, going on at column r->left. Columns are counted in code points. */
static size_t put_wrapped(const struct row *r, size_t at, slice text)
{
    slice word;
    while (slice_split(&text, ' ', &word)) {
        size_t width = 0;
        for (size_t i = 0; i < word.n; i++)
            width += ((unsigned char)word.p[i] & 0xC0) != 0x80;
        if (at > r->left && at + 1 + width > r->columns) {
            buf_put_byte(r->out, '\n');
            spaces(r->out, r->left);
            at = r->left;
        } else if (at > r->left) {
            buf_put_byte(r->out, ' ');
            at++;
        }
        put_word(r->out, word);
        at += width;
    }
    return at;
}

static void put_row(const struct row *r, const char *name, const char *help, slice facts)
{
    size_t at = 2 + strlen(name);
    buf_printf(r->out, "  %s", name);
    if (at + 2 > r->left) {
        buf_put_byte(r->out, '\n');
        at = 0;
    }
    spaces(r->out, r->left - at);
    at = put_wrapped(r, r->left, slice_str(help));
    if (facts.n)
        put_wrapped(r, at, facts);
    buf_put_byte(r->out, '\n');
}

static void opt_name(const struct opt *o, char *out, size_t room)
{
    snprintf(out, room, "--%s%s%s", o->type == OPT_BOOL ? "[no-]" : "", o->name, METAVAR[o->type]);
}

/* [default 1024; 16 to 1000000; NUNCHI_KV_BLOCKS] */
static void put_facts(const struct opt *o, buf *out)
{
    char env[128];
    buf_put_byte(out, '[');
    if (o->def && *o->def)
        buf_printf(out, "default%c%s; ", GLUE, o->secret ? "***" : o->def);
    size_t before = out->n;
    opt_print_range(o, out);
    for (size_t i = before; i < out->n; i++)
        if (out->p[i] == ' ')
            out->p[i] = GLUE;
    if (out->n > before)
        buf_put_str(out, "; ");
    config_env_name(o->name, env, sizeof env);
    buf_printf(out, "%s]", env);
}

static void put_opt(const struct row *r, const struct opt *o)
{
    char name[128];
    buf facts = {0};
    opt_name(o, name, sizeof name);
    put_facts(o, &facts);
    put_row(r, name, o->help, buf_slice(&facts));
    buf_clear(&facts);
}

static size_t left_width(const struct config_spec *spec)
{
    size_t widest = LEFT_MIN;
    for (size_t i = 0; i < spec->n_opts; i++) {
        char name[128];
        if (!spec->opts[i].name)
            continue;
        opt_name(&spec->opts[i], name, sizeof name);
        size_t width = 2 + strlen(name) + 2;
        if (width > widest && width <= LEFT_MAX)
            widest = width;
    }
    return widest;
}

void config_help(const struct config_spec *spec, unsigned columns, buf *out)
{
    struct row r = {.left = left_width(spec), .out = out};
    r.columns = columns < COLUMNS_MIN ? COLUMNS_MIN : columns > COLUMNS_MAX ? COLUMNS_MAX : columns;
    buf_printf(out, "%s %s: %s\n\nUsage: %s [OPTION]...\n", spec->program, NUNCHI_VERSION,
               spec->about, spec->program);
    if (spec->n_opts && spec->opts[0].name)
        buf_put_str(out, "\nOptions\n");
    for (size_t i = 0; i < spec->n_opts; i++) {
        if (spec->opts[i].name)
            put_opt(&r, &spec->opts[i]);
        else
            buf_printf(out, "\n%s\n", spec->opts[i].help);
    }
    buf_put_str(out, "\nEvery program\n");
    put_row(&r, "--config FILE", "Reads options from FILE, one \"name = value\" a line.",
            SLICE_LIT("[NUNCHI_CONFIG]"));
    put_row(&r, "--check-config", "Checks the configuration, shows what is in effect, and exits.",
            (slice){"", 0});
    put_row(&r, "--version", "Shows the version and exits.", (slice){"", 0});
    put_row(&r, "--help", "Shows this text and exits.", (slice){"", 0});
    struct row whole = {.left = 0, .columns = r.columns, .out = out};
    buf_put_byte(out, '\n');
    put_wrapped(&whole, 0,
                SLICE_LIT("An option can be given as a flag, as the environment variable in "
                          "brackets, or in the file; a "
                          "flag beats the environment, which beats the file. Sizes take k, m, g "
                          "(powers of 1024), times "
                          "take ms, s, m, h (a bare number is milliseconds)."));
    buf_put_byte(out, '\n');
}
