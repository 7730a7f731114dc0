/* Progress on stderr: one line drawn over itself on a terminal, a line per tenth elsewhere. */
#ifndef NUNCHI_TERM_H
#define NUNCHI_TERM_H

#include "common/base/slice.h"

struct progress {
    char what[80];
    int last; /* permille last shown, -1: nothing yet */
};

bool term_is_tty(void); /* stderr */
void progress_show(struct progress *p, const char *what,
                   int permille);      /* permille < 0: busy, no share known */
void progress_end(struct progress *p); /* wipes or ends the line */

#endif
