/* For those who watch a process from outside, such as a container's health check: while the loop turns, the file that
 * NUNCHI_ALIVE_FILE names is touched every second. */
#ifndef NUNCHI_ALIVE_H
#define NUNCHI_ALIVE_H

#include "common/base/loop.h"

#define ALIVE_EVERY_MS 1000
/* Not touched for so long: the loop hangs, or the process is gone. */
#define ALIVE_SILENT_MS 10000

/* Does nothing when the variable is not set. Lives as long as the loop. */
void alive_start(loop *l);
/* 0 when the file was touched lately; ERR_NOT_FOUND when not, or when there is none. */
int alive_check(void) MUST_USE;

#endif
