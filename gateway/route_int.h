/* Between route.c (the table, and any service's choice) and route_model.c (the choice of a model
 * worker). */
#ifndef NUNCHI_GATEWAY_ROUTE_INT_H
#define NUNCHI_GATEWAY_ROUTE_INT_H

#include "common/base/map.h"
#include "gateway/prefix.h"
#include "gateway/route.h"

/* Workers of one service that have one model, or all of the service (no name). */
struct pool {
    struct list link; /* in the order in which they came */
    enum service service;
    char *model;
    struct worker **list;
    size_t n, cap;
    size_t turn; /* where the next look begins */
};

struct route {
    enum route_policy policy;
    struct list workers, pools;
    map *by_peer, *by_name; /* by_name: service and model -> pool */
    prefix *blocks;
    struct route_counts counts;
};

struct pool *pool_find(route *r, enum service s, slice model);
/* 0: idle; 1: full. What others have sent there counts as well. */
double worker_fullness(const struct worker *w);

/* A search for the worker of least cost that can take a request. */
struct look {
    uint64_t now_us;
    struct route_kind kind;
    double (*cost)(const struct worker *w, const void *ctx);
    const void *ctx;
    struct worker *best;
    double least;
};

void look_at(struct look *k, struct worker *w);
/* Compares some of the pool, all when it is small or none was found yet. */
struct worker *look_in(struct pool *p, struct look *k);

#endif
