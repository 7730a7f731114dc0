/* What is known of the cluster that `nunchi up` started here: run/cluster.json below the home,
 * written by the supervisor, read by everyone else. */
#ifndef NUNCHI_CLUSTER_H
#define NUNCHI_CLUSTER_H

#include <sys/types.h>

#include "common/base/slice.h"

#define CLUSTER_SERVICES_MAX 80
#define CLUSTER_WORKERS_MAX 64
#define CLUSTER_GATEWAYS_MAX 4
#define CLUSTER_CACHES_MAX 4
#define CLUSTER_MODELS_MAX 8

struct cluster_service {
    char name[32];
    pid_t pid; /* 0: not running now */
    uint64_t started_unix_ms;
    uint32_t restarts;
    int port; /* a gateway's, on 127.0.0.1; 0: it is none */
};

struct cluster {
    pid_t supervisor;
    int port;         /* the first gateway's */
    char sockets[64]; /* folder of the local endpoints */
    size_t n_models;
    char models[CLUSTER_MODELS_MAX][512]; /* files */
    size_t n_services;
    struct cluster_service services[CLUSTER_SERVICES_MAX];
};

/* ERR_NOT_FOUND when no cluster runs (a stale file of a dead supervisor counts as none). */
int cluster_read(struct cluster *out, struct why *w) MUST_USE;
int cluster_write(const struct cluster *c, struct why *w) MUST_USE;
void cluster_forget(void);
/* Ends the supervisor and waits until it and all services are gone. */
int cluster_stop(const struct cluster *c, struct why *w) MUST_USE;

/* http://127.0.0.1:PORT of --url, NUNCHI_URL, the running cluster, or the default; free it. */
char *cluster_url(const char *given);

#endif
