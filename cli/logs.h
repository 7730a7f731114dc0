/* The services' log files below the home. */
#ifndef NUNCHI_CLI_LOGS_H
#define NUNCHI_CLI_LOGS_H

#include <stdio.h>

#include "common/base/slice.h"

/* The last n_lines of logs/SERVICE.log; with `title`, its name above them. Nothing if there is no such log. */
void log_tail(FILE *to, const char *service, size_t n_lines, bool title);

#endif
