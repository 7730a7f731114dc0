/* What /metrics of a cache says. */
#ifndef NUNCHI_CACHE_METRICS_H
#define NUNCHI_CACHE_METRICS_H

#include "cache-svc/core.h"

struct cache_levels {
    size_t running, ram_bytes, kv_ram_bytes, kv_stores_up;
    bool store_up;
};

void cache_metrics_init(void); /* before any other */
void cache_metrics_request(void);
void cache_metrics_failed(void);
void cache_metrics_counts(const struct cache_counts *c, const struct cache_levels *l);

#endif
