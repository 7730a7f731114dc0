/* What sim_workers is asked for. */
#ifndef NUNCHI_LOAD_SIM_OPTIONS_H
#define NUNCHI_LOAD_SIM_OPTIONS_H

#include "common/base/config.h"

#define SIM_WORKERS_MAX 1200
#define SIM_MODEL "simulated"
#define SIM_CONTEXT 131072

struct sim_options {
    char *gateways;
    int64_t workers, tokenizers, slots, step_ms, prefill_rate, kv_blocks;
    bool stamps;
    char *log_level;
};

extern const struct config_spec SIM_OPTIONS;

#endif
