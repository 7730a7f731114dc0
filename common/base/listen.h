/* TCP sockets that listen: "127.0.0.1:8642", "[::1]:0", "*:80", ":80"; port 0 is any free one. */
#ifndef NUNCHI_LISTEN_H
#define NUNCHI_LISTEN_H

#include <stdint.h>

#include "common/base/err.h"

/* *fd: not blocking, closed on exec; the caller's. field: the option that it was said in, for the
 * error. */
int listen_tcp(const char *endpoint, const char *field, int *fd, struct why *w) MUST_USE;
uint16_t listen_port(int fd); /* that was chosen; 0: not a TCP socket */

#endif
