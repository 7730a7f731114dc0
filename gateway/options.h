/* The options of nunchi-gateway: one table for flags, environment, file and help. */
#ifndef NUNCHI_GATEWAY_OPTIONS_H
#define NUNCHI_GATEWAY_OPTIONS_H

#include "common/base/config.h"

struct gateway_options {
    char *http, *bind;
    int64_t connections_max, idle_ms, body_ms;
    int64_t requests_max, queue_max, key_requests_max, queue_tokens_max, key_tokens_max, request_ms,
        worker_wait_ms, stall_ms, condemned_ms, client_stall_ms, notes_tokens;
    int64_t file_max_bytes;
    char *route;
    char *keys_file, *cluster_secret_file;
    bool metrics_public;
    char *trusted_proxies;
    char *otlp;
    double trace_ratio;
    char *curve_key_file, *curve_allow_file, *curve_server_key;
    bool insecure_network;
    char *log_level;
    int64_t drain_wait_ms, drain_ms;
};

extern const struct config_spec GATEWAY_OPTIONS;

#endif
