/* What `nunchi up` will start, and with which arguments: the one place that knows how the services
 * are wired on one machine. */
#ifndef NUNCHI_UP_PLAN_H
#define NUNCHI_UP_PLAN_H

#include "cli/cluster.h"
#include "cli/supervise.h"

struct up_options {
    const char *models[CLUSTER_MODELS_MAX]; /* as given */
    size_t n_models;
    const char *chat_format, *backend;
    char *keys;       /* absolute: the services do not run in this folder */
    uint64_t workers; /* of each model */
    uint64_t gateways, caches, port, threads, timeout_s;
};

/* files: of each model. Picks the port, makes the folder of the sockets, and fills the plan in the
 * order of starting. The caller clears the plan and, if nothing was started, removes the folder. */
int up_plan(const struct up_options *o, char *const *files, struct plan *p, struct why *w) MUST_USE;

#endif
