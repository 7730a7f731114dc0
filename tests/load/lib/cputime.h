/* Processor time of other processes, from /proc. */
#ifndef NUNCHI_LOAD_CPUTIME_H
#define NUNCHI_LOAD_CPUTIME_H

#include "common/base/slice.h"

#define CPUTIME_PIDS_MAX 32

struct cputime {
    struct cputime_process {
        int pid;
        char name[32];
        double begun_s, used_s; /* since it began; in the run */
    } of[CPUTIME_PIDS_MAX];
    size_t n;
    double machine_begun_s, machine_s; /* all processes of the machine together */
    double own_begun_s, own_s;
};

/* pids: numbers separated by commas, or NULL. Begins to count. */
int cputime_begin(struct cputime *c, const char *pids, struct why *w) MUST_USE;
void cputime_end(struct cputime *c);

#endif
