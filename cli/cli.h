/* The `nunchi` command: one file per subcommand, each with the shape of a main(). Exit codes: 0
 * done, 1 it did not work (one sentence on stderr says why and what to do), 2 the command line is
 * wrong. */
#ifndef NUNCHI_CLI_H
#define NUNCHI_CLI_H

#include "common/base/slice.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

int cmd_up(int argc, char **argv);
int cmd_down(int argc, char **argv);
int cmd_restart(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_logs(int argc, char **argv);
int cmd_ask(int argc, char **argv);
int cmd_video(int argc, char **argv);
int cmd_model(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_alive(int argc, char **argv);

/* "nunchi: …" on stderr; returns CLI_FAILED, so that a failure is one line. */
int cli_fail(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* What is wrong with the command line, the first line of usage, and where the rest is; returns
 * CLI_USAGE. */
int cli_usage(const char *usage, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The same after getopt has said what is wrong. */
int cli_bad_option(const char *usage);
/* True if the arguments are one, --help or -h; usage is then printed. */
bool cli_asks_help(int argc, char **argv, const char *usage);

#endif
