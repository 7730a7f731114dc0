/* The process that `nunchi up` leaves behind: starts the programs of a plan, starts again what dies
 * (with backoff), stops them in reverse order. Children die with it. */
#ifndef NUNCHI_SUPERVISE_H
#define NUNCHI_SUPERVISE_H

#include "cli/cluster.h"

#define PLAN_ARGS_MAX 40

struct plan_service {
    char name[32];
    char *argv[PLAN_ARGS_MAX + 1]; /* NULL-terminated; argv[0] is a path */
    size_t n_args;
};

struct plan {
    struct cluster state; /* port, sockets, model filled in */
    size_t n;
    struct plan_service services[CLUSTER_SERVICES_MAX]; /* in order of starting */
    int drain_ms; /* each service gets this long to end before it is killed */
};

/* Appends a printf-ed argument. Aborts beyond PLAN_ARGS_MAX: a plan is ours, not a stranger's. */
void plan_arg(struct plan_service *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
struct plan_service *plan_add(struct plan *p, const char *name, const char *program);
void plan_clear(struct plan *p);

/* Runs until SIGTERM or SIGINT; returns the exit code. Removes the sockets' folder at the end. */
int supervise(struct plan *p);

#endif
