/* From "started" to "a request would be answered": progress while the model loads, and a sentence
 * when it will not happen. */
#ifndef NUNCHI_UP_WAIT_H
#define NUNCHI_UP_WAIT_H

#include "cli/cluster.h"
#include "cli/up_plan.h"

/* Size of a log below the home: where the lines of this start begin. */
off_t up_log_size(const char *name);
/* CLI_OK when url answers /readyz; CLI_FAILED, said on stderr, when a service keeps ending, the
 * supervisor ended, time is up, or the user interrupts. */
int up_wait_ready(const char *url, const struct up_options *o, pid_t supervisor, off_t log_from);

#endif
