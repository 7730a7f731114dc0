/* The options of nunchi-tokenizer: one table for flags, environment, file and help. */
#ifndef NUNCHI_TOKENIZER_OPTIONS_H
#define NUNCHI_TOKENIZER_OPTIONS_H

#include "common/base/config.h"

struct tokenizer_options {
    char *model, *model_name, *chat_format;
    int64_t context, threads, slots, waiting_bytes;
    char *gateways;
    char *curve_key_file, *curve_allow_file, *curve_server_key;
    bool insecure_network;
    char *metrics, *otlp;
    char *log_level;
    int64_t drain_ms;
};

extern const struct config_spec TOKENIZER_OPTIONS;

#endif
