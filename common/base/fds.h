/* How many files and sockets the process may have open. */
#ifndef NUNCHI_FDS_H
#define NUNCHI_FDS_H

#include <stdint.h>

#include "common/base/err.h"

/* Room for n, raising the soft limit (RLIMIT_NOFILE) as far as the hard one allows; ERR_FORBIDDEN,
 * with both numbers, where that is not enough. */
int fds_make_room(uint64_t n, struct why *w) MUST_USE;

#endif
