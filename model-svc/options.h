/* The options of nunchi-model: one table for flags, environment, file and help. */
#ifndef NUNCHI_MODEL_OPTIONS_H
#define NUNCHI_MODEL_OPTIONS_H

#include "common/base/config.h"

struct model_options {
    char *model, *model_name, *chat_format;
    char *backend, *isa, *prepare, *kv_type;
    int64_t check_ms;
    int64_t threads;
    int64_t kv_bytes, kv_blocks, context;
    int64_t step_tokens, step_ms, batch, draft_max, queue_max, slots;
    char *gateways, *caches;
    char *curve_key_file, *curve_allow_file, *curve_server_key;
    bool insecure_network;
    char *metrics, *otlp;
    char *log_level;
    int64_t drain_ms;
};

extern const struct config_spec MODEL_OPTIONS;

#endif
