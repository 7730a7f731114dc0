/* nunchi: starts and stops a cluster on this machine, asks it, and looks after models. */
#include <errno.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/home.h"
#include "common/base/config.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} COMMANDS[] = {
    {"up", cmd_up, "start a cluster here, in the background"},
    {"down", cmd_down, "stop it"},
    {"restart", cmd_restart, "one service after another, without losing a request"},
    {"status", cmd_status, "who is up, since when, how busy"},
    {"logs", cmd_logs, "what the services wrote"},
    {"ask", cmd_ask, "ask a question, about a video too, and stream the answer"},
    {"video", cmd_video, "the timeline of a video"},
    {"model", cmd_model, "fetch, list, prepare and show models"},
    {"bench", cmd_bench, "how fast a model runs on this machine, and how near to its limits"},
    {"keys", cmd_keys, "make a key pair for connections between hosts"},
    {"alive", cmd_alive, "for health checks: does the service behind NUNCHI_ALIVE_FILE run?"},
};

static void help(FILE *to)
{
    fputs("nunchi: answers questions about text and video with a language model, in your own "
          "house\n\n"
          "usage: nunchi COMMAND [OPTIONS]        nunchi COMMAND --help tells more\n\n",
          to);
    for (size_t i = 0; i < ARRAY_LEN(COMMANDS); i++)
        fprintf(to, "  %-8s %s\n", COMMANDS[i].name, COMMANDS[i].help);
    fputs("\nfirst steps:\n"
          "  nunchi up                                   # fetches a small model the first time\n"
          "  nunchi ask \"What is the capital of Korea?\"\n"
          "  nunchi ask --video clip.mp4 \"What happens, and when?\"\n",
          to);
}

static int run(const struct command *c, int argc, char **argv)
{
    /* getopt names the program by argv[0]. */
    char name[32];
    snprintf(name, sizeof name, "nunchi %s", c->name);
    argv[0] = name;
    if (home_absolute() < 0)
        return cli_fail("NUNCHI_HOME cannot be used: %s", strerror(errno));
    return c->run(argc, argv);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        help(stdout);
        return CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("nunchi %s\n", NUNCHI_VERSION);
        return CLI_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(COMMANDS); i++) {
        if (strcmp(argv[1], COMMANDS[i].name) == 0)
            return run(&COMMANDS[i], argc - 1, argv + 1);
    }
    fprintf(stderr, "nunchi: there is no command '%.40s'; see nunchi --help\n", argv[1]);
    return CLI_USAGE;
}
