#include <stdio.h>

#include "cli/cli.h"

int cli_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("nunchi: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return CLI_FAILED;
}

int cli_usage(const char *usage, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("nunchi: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return cli_bad_option(usage);
}

/* A page of options would push the mistake off the screen: usage begins with "usage: nunchi
 * COMMAND". */
int cli_bad_option(const char *usage)
{
    static const char LEAD[] = "usage: nunchi ";
    const char *command = usage + sizeof LEAD - 1;
    fprintf(stderr, "%.*s\nnunchi %.*s --help tells more\n", (int)strcspn(usage, "\n"), usage,
            (int)strcspn(command, " \n"), command);
    return CLI_USAGE;
}

bool cli_asks_help(int argc, char **argv, const char *usage)
{
    bool help = argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    if (help)
        fputs(usage, stdout);
    return help;
}
