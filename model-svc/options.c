#include "model-svc/options.h"

#include "common/base/log.h"
#include "common/base/monitor.h"
#include "common/trace/export.h"
#include "common/wire/options.h"
#include "engine/engine.h"
#include "model-svc/draft.h"

#define OPT(field, name, type, def, min, max, help)                                                \
    CONFIG_OPT(struct model_options, field, name, type, def, min, max, help)

static const struct opt OPTIONS[] = {
    CONFIG_GROUP("Model"),
    OPT(model, "model", OPT_STR, NULL, 0, 0, "the GGUF file to serve (required)"),
    OPT(model_name, "model-name", OPT_STR, NULL, 0, 96,
        "what clients ask for; default: worked out from the file's name"),
    OPT(chat_format, "chat-format", OPT_STR, "auto", 0, 32,
        "as given to nunchi-tokenizer: whether this model is announced as one for chat"),
    OPT(context, "context", OPT_INT, "0", 0, ENGINE_CONTEXT_MAX,
        "most tokens of prompt and answer together; 0: what the model was made for"),

    CONFIG_GROUP("Computing"),
    OPT(backend, "backend", OPT_STR, "cpu", 0, 16,
        "cpu, or reference (float32 on OpenBLAS: slow, an oracle for tests)"),
    OPT(threads, "threads", OPT_INT, "0", 0, ENGINE_THREADS_MAX,
        "threads that compute; 0: as many CPUs as this process may use"),
    OPT(isa, "isa", OPT_STR, NULL, 0, 16,
        "avx512, avx2 or portable; default: the best this CPU has"),
    OPT(prepare, "prepare", OPT_STR, "auto", 0, 8,
        "auto: the weights as this CPU wants them are written to a file once and mapped by all "
        "workers; off: packed in memory at every start"),
    OPT(check_ms, "check-ms", OPT_MS, "3600000", 0, INT32_MAX,
        "how often mapped weights are compared with their checksums; 0: once after the start"),
    OPT(kv_type, "kv-type", OPT_STR, "f16", 0, 8,
        "f16, or int8: twice the tokens in the same memory, a little less exact"),
    OPT(kv_bytes, "kv-bytes", OPT_SIZE, "512m", 0, 0,
        "memory for KV blocks: running sequences and remembered prefixes"),
    OPT(kv_blocks, "kv-blocks", OPT_INT, "0", 0, 16777216,
        "the same as a number of 16-token blocks; 0: by kv-bytes"),

    CONFIG_GROUP("Scheduling"),
    OPT(step_tokens, "step-tokens", OPT_INT, "512", 16, ENGINE_ROWS_MAX,
        "most rows of a step: one for each running answer, the rest for prompts"),
    OPT(step_ms, "step-ms", OPT_MS, "100", 1, 10000,
        "a step should take no longer while answers are running: bounds the gap between their "
        "tokens"),
    OPT(batch, "batch", OPT_INT, "64", 1, ENGINE_ROWS_MAX, "most sequences that run at once"),
    OPT(draft_max, "draft-max", OPT_INT, "8", 0, DRAFT_MAX,
        "most tokens guessed ahead of each answer from what prompt and answer said before; never "
        "changes an answer; 0: none"),
    OPT(queue_max, "queue-max", OPT_INT, "256", 1, 65536,
        "most requests waiting for their first step; more are refused"),
    OPT(slots, "slots", OPT_INT, "64", 1, 65536,
        "most requests open at once, divided among the gateways"),

    CONFIG_GROUP("Cluster"),
    WIRE_GATEWAYS_OPTION(struct model_options),
    OPT(caches, "caches", OPT_STR, "127.0.0.1:8651", 0, 0,
        "cache services that keep KV for all workers; \"\": none"),
    WIRE_KEYS_OPTIONS(struct model_options),

    CONFIG_GROUP("Running"),
    MONITOR_OPTION(struct model_options),
    TRACE_OPTION(struct model_options),
    OPT(log_level, "log-level", OPT_STR, "info", 0, 8, "debug, info, warn or error"),
    OPT(drain_ms, "drain-ms", OPT_MS, "30000", 0, 86400000,
        "how long running answers may go on after SIGTERM"),
};

static int check(const void *ctx, struct why *w)
{
    const struct model_options *o = ctx;
    if (!o->model || !*o->model)
        return why_set(w, ERR_INVALID, "model", "which model? --model FILE is required");
    if (strcmp(o->backend, "cpu") != 0 && strcmp(o->backend, "reference") != 0)
        return why_set(w, ERR_INVALID, "backend", "backend must be cpu or reference");
    if (strcmp(o->prepare, "auto") != 0 && strcmp(o->prepare, "off") != 0)
        return why_set(w, ERR_INVALID, "prepare", "prepare must be auto or off");
    if (strcmp(o->kv_type, "f16") != 0 && strcmp(o->kv_type, "int8") != 0)
        return why_set(w, ERR_INVALID, "kv-type", "kv-type must be f16 or int8");
    if (strcmp(o->kv_type, "int8") == 0 && strcmp(o->backend, "reference") == 0)
        return why_set(w, ERR_INVALID, "kv-type", "kv-type int8 needs the cpu backend");
    enum log_level level;
    if (log_level_parse(slice_str(o->log_level), &level) < 0)
        return why_set(w, ERR_INVALID, "log-level", "log-level must be debug, info, warn or error");
    if (o->batch > o->step_tokens)
        return why_set(w, ERR_INVALID, "batch",
                       "batch (%lld) must not be more than step-tokens (%lld): each running answer "
                       "takes one row of a step",
                       (long long)o->batch, (long long)o->step_tokens);
    return 0;
}

const struct config_spec MODEL_OPTIONS = {
    .program = "nunchi-model",
    .about = "Serves one language model: token ids in, tokens out.",
    .opts = OPTIONS,
    .n_opts = ARRAY_LEN(OPTIONS),
    .check = check,
};
