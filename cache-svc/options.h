/* The options of nunchi-cache: one table for flags, environment, file and help. */
#ifndef NUNCHI_CACHE_OPTIONS_H
#define NUNCHI_CACHE_OPTIONS_H

#include "common/base/config.h"

struct cache_options {
    char *redis, *redis_password_file;
    int64_t redis_timeout_ms;
    int64_t ram_bytes, tenant_percent, result_ttl_s;
    char *kv_redis;
    int64_t kv_timeout_ms, kv_ram_bytes, kv_ttl_s;
    int64_t files_quota_bytes, files_quota_count, files_ttl_s, files_silent_ms;
    int64_t slots;
    char *bind, *gateways;
    char *curve_key_file, *curve_allow_file, *curve_server_key;
    bool insecure_network;
    char *metrics, *otlp;
    char *log_level;
    int64_t drain_ms;
};

extern const struct config_spec CACHE_OPTIONS;

#endif
