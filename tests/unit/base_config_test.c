#include "tests/unit/base_testing.h"

#include <stdio.h>
#include <sys/mman.h>

#include "common/base/config.h"
#include "common/base/config_help.h"
#include "common/base/log.h"

struct cfg {
    char *listen, *key, *note;
    int64_t blocks, memory, drain, any;
    double ratio;
    bool prefix_cache, trace;
};

static int check(const void *cfg, struct why *w)
{
    const struct cfg *c = cfg;
    if (c->blocks == 999)
        return why_set(w, ERR_INVALID, "kv-blocks", "--kv-blocks 999 does not fit --memory");
    return 0;
}

static const struct opt OPTS[] = {
    CONFIG_GROUP("Network"),
    CONFIG_OPT(struct cfg, listen, "listen", OPT_STR, "127.0.0.1:8642", 0, 40,
               "Address and port to serve HTTP on."),
    CONFIG_SECRET(struct cfg, key, "api-key", OPT_STR, NULL, 0, 0, "What clients must present."),
    CONFIG_GROUP("Memory"),
    CONFIG_OPT(struct cfg, blocks, "kv-blocks", OPT_INT, "1024", 16, 1e6,
               "KV blocks of 16 tokens; too few make sequences wait, because a sequence holds its "
               "blocks until it ends."),
    CONFIG_OPT(struct cfg, memory, "memory", OPT_SIZE, "64m", 1024, 1e12, "Bytes for the cache."),
    CONFIG_OPT(struct cfg, drain, "drain-ms", OPT_MS, "30s", 0, 3600000,
               "How long running work may go on after SIGTERM."),
    CONFIG_OPT(struct cfg, any, "any", OPT_INT, "0", 0, 0, "Any number."),
    CONFIG_OPT(struct cfg, ratio, "ratio", OPT_FLOAT, "0.5", 0, 1, "A share."),
    CONFIG_OPT(struct cfg, prefix_cache, "prefix-cache", OPT_BOOL, "true", 0, 0,
               "Shares equal prefixes."),
    CONFIG_OPT(struct cfg, trace, "trace", OPT_BOOL, NULL, 0, 0, "Traces."),
    CONFIG_OPT(struct cfg, note, "note", OPT_STR, NULL, 0, 8, "A short text."),
};
static const struct config_spec SPEC = {.program = "nunchi-test",
                                        .about = "for the tests",
                                        .opts = OPTS,
                                        .n_opts = ARRAY_LEN(OPTS),
                                        .check = check};

static struct cfg cfg;
static struct why why;

static int clear(void **state UNUSED)
{
    config_free(&SPEC, &cfg);
    memset(&cfg, 0, sizeof cfg);
    memset(&why, 0, sizeof why);
    return 0;
}

/* argv and env are given as one string each, split at '|'. */
static int parse(const char *args, const char *env, const char *file)
{
    static char texts[2][4096];
    static char *vectors[2][64];
    int argc = 0;
    const char *const in[2] = {args, env};
    clear(NULL);
    for (int k = 0; k < 2; k++) {
        int n = 0;
        snprintf(texts[k], sizeof texts[k], "%s", in[k]);
        for (char *p = texts[k], *next; *p; p = next) {
            next = p + strcspn(p, "|");
            if (*next)
                *next++ = '\0';
            vectors[k][n++] = p;
        }
        vectors[k][n] = NULL;
        argc = k == 0 ? n : argc;
    }
    return config_parse(&SPEC, argc, vectors[0], vectors[1], slice_str(file), &cfg, &why);
}

static void is_bad(int rc, const char *text)
{
    assert_true(rc < 0);
    if (!strstr(why.text, text))
        fail_msg("\"%s\" does not say \"%s\"", why.text, text);
    assert_null(cfg.listen); /* nothing is left behind */
}

static void defaults_are_filled(void **state UNUSED)
{
    assert_int_equal(parse("", "", ""), 0);
    assert_string_equal(cfg.listen, "127.0.0.1:8642");
    assert_null(cfg.key);
    assert_int_equal(cfg.blocks, 1024);
    assert_int_equal(cfg.memory, 64 << 20);
    assert_int_equal(cfg.drain, 30000);
    assert_true(cfg.ratio == 0.5);
    assert_true(cfg.prefix_cache);
    assert_false(cfg.trace);
}

static void flag_beats_environment_beats_file_beats_default(void **state UNUSED)
{
    static const char FILE_TEXT[] = "kv-blocks = 17\nlisten=file\nany = 1\n";
    assert_int_equal(parse("", "", FILE_TEXT), 0);
    assert_int_equal(cfg.blocks, 17);
    assert_int_equal(parse("", "NUNCHI_KV_BLOCKS=18|NUNCHI_LISTEN=env", FILE_TEXT), 0);
    assert_int_equal(cfg.blocks, 18);
    assert_string_equal(cfg.listen, "env");
    assert_int_equal(cfg.any, 1);
    assert_int_equal(parse("--kv-blocks|19", "NUNCHI_KV_BLOCKS=18|NUNCHI_LISTEN=env", FILE_TEXT),
                     0);
    assert_int_equal(cfg.blocks, 19);
    assert_int_equal(parse("--kv-blocks=20|--kv-blocks=21", "", FILE_TEXT), 0);
    assert_int_equal(cfg.blocks, 21); /* the last flag */
}

static void flags_have_all_forms(void **state UNUSED)
{
    assert_int_equal(parse("--listen=a=b|--no-prefix-cache|--trace|--any|-5|--ratio|1", "", ""), 0);
    assert_string_equal(cfg.listen, "a=b");
    assert_false(cfg.prefix_cache);
    assert_true(cfg.trace);
    assert_int_equal(cfg.any, -5);
    assert_true(cfg.ratio == 1);
    assert_int_equal(parse("--prefix-cache=no|--trace=1|--listen=", "", ""), 0);
    assert_false(cfg.prefix_cache);
    assert_true(cfg.trace);
    assert_string_equal(cfg.listen, "");
    assert_int_equal(parse("--config|x|--check-config|--any=3", "", ""),
                     0); /* the loader's business */
    assert_int_equal(cfg.any, 3);
}

static void units_are_understood(void **state UNUSED)
{
    static const struct {
        const char *arg;
        int64_t memory;
    } SIZES[] = {{"--memory=4096", 4096},     {"--memory=64k", 65536},
                 {"--memory=64K", 65536},     {"--memory=1.5m", 1572864},
                 {"--memory=2g", 2147483648}, {"--memory=2 g", 2147483648}};
    for (size_t i = 0; i < ARRAY_LEN(SIZES); i++) {
        assert_int_equal(parse(SIZES[i].arg, "", ""), 0);
        assert_int_equal(cfg.memory, SIZES[i].memory);
    }
    static const struct {
        const char *arg;
        int64_t ms;
    } TIMES[] = {{"--drain-ms=250", 250},
                 {"--drain-ms=250ms", 250},
                 {"--drain-ms=1.5s", 1500},
                 {"--drain-ms=2m", 120000},
                 {"--drain-ms=1h", 3600000}};
    for (size_t i = 0; i < ARRAY_LEN(TIMES); i++) {
        assert_int_equal(parse(TIMES[i].arg, "", ""), 0);
        assert_int_equal(cfg.drain, TIMES[i].ms);
    }
}

static void wrong_values_are_named(void **state UNUSED)
{
    static const struct {
        const char *arg, *says;
    } BAD[] = {
        {"--kv-blocks=many", "--kv-blocks: \"many\" is not a whole number"},
        {"--kv-blocks=1.5", "not a whole number"},
        {"--kv-blocks=", "not a whole number"},
        {"--kv-blocks=9223372036854775808", "not a whole number"},
        {"--kv-blocks=15", "16 to 1000000 is allowed"},
        {"--kv-blocks=1000001", "16 to 1000000 is allowed"},
        {"--memory=1x", "not a size"},
        {"--memory=-1", "not a size"},
        {"--memory=99999999999g", "not a size"},
        {"--memory=9.9999999999e99g", "not a size"},
        {"--memory=1", "1k to"},
        {"--drain-ms=2d", "not a time"},
        {"--drain-ms=2h", "0 to 1h is allowed"},
        {"--ratio=nan", "not a number"},
        {"--ratio=1.01", "0 to 1 is allowed"},
        {"--prefix-cache=maybe", "not true or false"},
        {"--no-trace=true", "takes no value"},
        {"--note=123456789", "9 bytes, at most 8"},
        {"--note=\xFF", "UTF-8"},
        {"--any", "--any needs a value"},
        {"--config", "--config needs a value"},
        {"--check-config=1", "takes no value"},
        {"stray", "\"stray\" is not an option"},
        {"-x", "is not an option"},
        {"--", "is not an option"},
        {"--=3", "is not an option"},
        {"--kv-blocks=999", "does not fit"},
    };
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++)
        is_bad(parse(BAD[i].arg, "", ""), BAD[i].says);
    is_bad(parse("", "NUNCHI_KV_BLOCKS=1", ""), "NUNCHI_KV_BLOCKS: out of range");
    is_bad(parse("", "", "\n# comment\nkv-blocks = 1\n"), "line 3: kv-blocks: out of range");
    assert_int_equal(parse("--note=12345678", "", ""), 0);
}

static void the_nearest_option_is_named(void **state UNUSED)
{
    is_bad(parse("--kv-blokcs=3", "", ""), "unknown option --kv-blokcs; did you mean --kv-blocks?");
    is_bad(parse("--hlep", "", ""), "did you mean --help?");
    is_bad(parse("--kv_blocks=3", "", ""), "did you mean --kv-blocks?");
    is_bad(parse("--temperature=3", "", ""), "unknown option --temperature; --help lists them");
    is_bad(parse("--no-listen", "", ""), "unknown option --no-listen");
    is_bad(parse("", "", "lisen = x"), "line 1: unknown option lisen; did you mean listen?");
    is_bad(parse("", "", "help = x"), "line 1: unknown option help; --help");
}

static void files_are_read_line_by_line(void **state UNUSED)
{
    assert_int_equal(
        parse("", "",
              "\r\n  # all of it\r\n listen = \" a # b \" \r\nnote=a=b\n\n\nprefix-cache = off"),
        0);
    assert_string_equal(cfg.listen, " a # b ");
    assert_string_equal(cfg.note, "a=b");
    assert_false(cfg.prefix_cache);
    is_bad(parse("", "", "listen\n"), "line 1: expected key = value");
    is_bad(parse("", "", "[model]\n"), "line 1: expected key = value");
    is_bad(parse("", "", "= 3\n"), "line 1: unknown option");
    is_bad(parse("", "", "any = 1\nany = 2\n"), "line 2: any is set a second time");
    is_bad(parse("", "", "note = \"abc\n"), "closing quote");
    static char lines[20002];
    memset(lines, '\n', sizeof lines - 1);
    is_bad(parse("", "", lines), "more than 10000 lines");
}

static void an_empty_variable_is_unset(void **state UNUSED)
{
    assert_int_equal(
        parse("", "NUNCHI_KV_BLOCKS=|NUNCHI_KV_BLOCKS_X=5|NUNCHI_|PATH=/|NUNCHI_NOTE=hi", ""), 0);
    assert_int_equal(cfg.blocks, 1024);
    assert_string_equal(cfg.note, "hi");
}

static void secrets_are_not_shown(void **state UNUSED)
{
    static const struct opt SECRET[] = {
        CONFIG_SECRET(struct cfg, any, "pin", OPT_INT, "1", 0, 10, "A number.")};
    static const struct config_spec spec = {
        .program = "p", .about = "a", .opts = SECRET, .n_opts = 1};
    char arg[] = "--pin=hunter2", *argv[] = {arg};
    assert_int_equal(config_parse(&spec, 1, argv, NULL, slice_str(""), &cfg, &why), ERR_INVALID);
    assert_null(strstr(why.text, "hunter2"));

    char text[LOG_LINE_MAX];
    int fd = memfd_create("log", 0);
    assert_int_equal(parse("--api-key=hunter2", "", ""), 0);
    log_init("t", LOG_INFO, fd);
    config_log(&SPEC, &cfg);
    log_init("t", LOG_INFO, STDERR_FILENO);
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    assert_true(n > 0);
    text[n] = '\0';
    assert_null(strstr(text, "hunter2"));
    assert_non_null(strstr(text, "\"api-key\":\"***\""));
    assert_non_null(strstr(text, "\"kv-blocks\":\"1024\""));
    assert_non_null(strstr(text, "\"memory\":\"64m\""));
    assert_non_null(strstr(text, "\"drain-ms\":\"30s\""));
    assert_null(strstr(text, "\"note\""));
}

static void help_is_aligned_and_wrapped(void **state UNUSED)
{
    buf b = {0};
    config_help(&SPEC, 80, &b);
    slice all = buf_slice(&b), line;
    const char *text = buf_cstr(&b);
    assert_non_null(strstr(text, "\nNetwork\n  --listen TEXT        Address and port"));
    assert_non_null(strstr(text, "\nMemory\n  --kv-blocks N        KV blocks"));
    assert_non_null(strstr(text, "--[no-]prefix-cache"));
    assert_non_null(strstr(text, "[default 1024; 16 to"));
    assert_non_null(strstr(text, "NUNCHI_KV_BLOCKS]"));
    assert_non_null(strstr(text, "--check-config"));
    while (slice_split(&all, '\n', &line))
        if (line.n > 80)
            fail_msg("too wide: %.*s", (int)line.n, line.p);
    buf_clear(&b);
    config_help(&SPEC, 1, &b); /* a terminal that lies */
    config_help(&SPEC, 100000, &b);
    buf_clear(&b);
}

/* ---- the loader, with what it prints
 * ------------------------------------------------------------------------- */

static enum config_verdict load(const char *arg1, const char *arg2, char *out, size_t room)
{
    char *argv[] = {strdup("nunchi-test"), arg1 ? strdup(arg1) : NULL, arg2 ? strdup(arg2) : NULL,
                    NULL};
    int fd = memfd_create("out", 0), saved[2];
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        saved[i] = dup(1 + i);
        dup2(fd, 1 + i);
    }
    enum config_verdict v = config_load(&SPEC, arg2 ? 3 : arg1 ? 2 : 1, argv, &cfg);
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], 1 + i);
        close(saved[i]);
    }
    ssize_t n = pread(fd, out, room - 1, 0);
    out[n > 0 ? n : 0] = '\0';
    close(fd);
    for (int i = 0; i < 3; i++)
        free(argv[i]);
    return v;
}

static void the_loader_answers_for_itself(void **state UNUSED)
{
    char out[8192];
    assert_int_equal(load("--version", NULL, out, sizeof out), CONFIG_EXIT_OK);
    assert_non_null(strstr(out, NUNCHI_VERSION));
    assert_int_equal(load("--help", "--nonsense", out, sizeof out), CONFIG_EXIT_OK);
    assert_non_null(strstr(out, "Usage: nunchi-test"));
    assert_int_equal(load("-h", NULL, out, sizeof out), CONFIG_EXIT_OK);
    assert_int_equal(load("--kv-blokcs=1", NULL, out, sizeof out), CONFIG_EXIT_BAD);
    assert_string_equal(out,
                        "nunchi-test: unknown option --kv-blokcs; did you mean --kv-blocks?\n");
    assert_int_equal(load("--check-config", "--api-key=hunter2", out, sizeof out), CONFIG_EXIT_OK);
    assert_non_null(strstr(out, "api-key = ***\n"));
    assert_non_null(strstr(out, "memory = 64m\n"));
    assert_null(cfg.listen);
    assert_int_equal(load(NULL, NULL, out, sizeof out), CONFIG_RUN);
    assert_string_equal(out, "");
    assert_int_equal(cfg.blocks, 1024);
}

static void the_loader_reads_a_file(void **state UNUSED)
{
    char out[8192], arg[64];
    int fd = memfd_create("conf", 0);
    snprintf(arg, sizeof arg, "--config=/proc/self/fd/%d", fd);
    assert_int_equal(write(fd, "kv-blocks = 44\n", 15), 15);
    assert_int_equal(load(arg, NULL, out, sizeof out), CONFIG_RUN);
    assert_int_equal(cfg.blocks, 44);
    clear(NULL);
    setenv("NUNCHI_CONFIG", arg + strlen("--config="), 1);
    assert_int_equal(load("--any=2", NULL, out, sizeof out), CONFIG_RUN);
    assert_int_equal(cfg.blocks, 44);
    clear(NULL);
    unsetenv("NUNCHI_CONFIG");
    assert_int_equal(write(fd, "kv-blocks = 45\n", 15), 15);
    assert_int_equal(load(arg, NULL, out, sizeof out), CONFIG_EXIT_BAD);
    assert_non_null(strstr(out, ": line 2: kv-blocks is set a second time"));
    assert_int_equal(ftruncate(fd, 300 * 1024), 0);
    assert_int_equal(load(arg, NULL, out, sizeof out), CONFIG_EXIT_BAD);
    assert_non_null(strstr(out, "larger than 262144 bytes"));
    close(fd);
    assert_int_equal(load("--config", "/does/not/exist", out, sizeof out), CONFIG_EXIT_BAD);
    assert_non_null(strstr(out, "/does/not/exist: No such file"));
    assert_int_equal(load("--config", "/", out, sizeof out), CONFIG_EXIT_BAD);
}

static void bad_default(void)
{
    static const struct opt OPT[] = {
        CONFIG_OPT(struct cfg, any, "any", OPT_INT, "100", 0, 10, "A number.")};
    static const struct config_spec spec = {.program = "p", .about = "a", .opts = OPT, .n_opts = 1};
    (void)!config_parse(&spec, 0, NULL, NULL, slice_str(""), &cfg, &why);
}

static void a_bad_default_is_our_mistake(void **state UNUSED)
{
    assert_true(dies(bad_default));
}

int main(void)
{
#define CLEAN(fn) cmocka_unit_test_setup_teardown(fn, clear, clear)
    const struct CMUnitTest tests[] = {
        CLEAN(defaults_are_filled),
        CLEAN(flag_beats_environment_beats_file_beats_default),
        CLEAN(flags_have_all_forms),
        CLEAN(units_are_understood),
        CLEAN(wrong_values_are_named),
        CLEAN(the_nearest_option_is_named),
        CLEAN(files_are_read_line_by_line),
        CLEAN(an_empty_variable_is_unset),
        CLEAN(secrets_are_not_shown),
        CLEAN(help_is_aligned_and_wrapped),
        CLEAN(the_loader_answers_for_itself),
        CLEAN(the_loader_reads_a_file),
        CLEAN(a_bad_default_is_our_mistake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
