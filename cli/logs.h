/* The services' log files below the home. */
#ifndef NUNCHI_CLI_LOGS_H
#define NUNCHI_CLI_LOGS_H

#include <stdio.h>

#include "common/base/slice.h"

#define LOG_LINES_MAX 1000000

/* The last n_lines of logs/SERVICE.log; with `title`, its name above them. Nothing if there is no
 * such log. */
void log_tail(FILE *to, const char *service, size_t n_lines, bool title);
/* The same for a user: of one service, or of all (NULL); with `follow`, until interrupted. Returns
 * an exit code. */
int logs_show(const char *service, size_t n_lines, bool follow);

/* Why a service ended, as its log tells: the reason in its last line, or that line as it is. */
void log_reason(const char *service, buf *out);

#endif
