#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/wire/bus.h"

static const char USAGE[] =
    "usage: nunchi keys FILE      make a CURVE key pair for connections between hosts\n"
    "\n"
    "FILE gets both keys and is readable by you alone (--curve-key-file). The public one is "
    "printed: put it into the\n"
    "--curve-allow-file of those that listen, or give it as --curve-server-key to those that "
    "connect.\n";

int cmd_keys(int argc, char **argv)
{
    static const struct option OPTIONS[] = {{"help", no_argument, NULL, 'h'}, {0}};
    int c = getopt_long(argc, argv, "h", OPTIONS, NULL);
    if (c == 'h') {
        fputs(USAGE, stdout);
        return CLI_OK;
    }
    if (c != -1 || optind + 1 != argc)
        return cli_usage(USAGE, "which file?");
    char public_key[41], secret_key[41];
    if (bus_new_keys(public_key, secret_key) < 0)
        return cli_fail("this libzmq was built without CURVE");
    int fd = open(argv[optind], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return cli_fail("cannot make %s: %s", argv[optind], strerror(errno));
    bool written = dprintf(fd, "%s\n%s\n", public_key, secret_key) > 0;
    if (close(fd) < 0 || !written)
        return cli_fail("cannot write %s", argv[optind]);
    printf("%s\n", public_key);
    return CLI_OK;
}
