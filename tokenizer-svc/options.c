#include "tokenizer-svc/options.h"

#include "common/base/log.h"
#include "common/base/monitor.h"
#include "common/trace/export.h"
#include "common/wire/options.h"
#include "engine/engine.h"
#include "engine/model/name.h"
#include "tokenizer-svc/serve.h"

#define OPT(field, name, type, def, min, max, help)                                                \
    CONFIG_OPT(struct tokenizer_options, field, name, type, def, min, max, help)

static const struct opt OPTIONS[] = {
    CONFIG_GROUP("Model"),
    OPT(model, "model", OPT_STR, NULL, 0, 0,
        "the GGUF file whose vocabulary and chat template to use (required)"),
    OPT(model_name, "model-name", OPT_STR, NULL, 0, MODEL_NAME_MAX,
        "what clients ask for; default: worked out from the file's name; must be the same at "
        "nunchi-model"),
    OPT(chat_format, "chat-format", OPT_STR, "auto", 0, 32,
        "auto (by the model's own chat template), chatml, gemma, or none (chat is refused)"),
    OPT(context, "context", OPT_INT, "0", 0, ENGINE_CONTEXT_MAX,
        "most tokens of prompt and answer together; 0: what the model was made for; must be the "
        "same at nunchi-model"),

    CONFIG_GROUP("Work"),
    OPT(threads, "threads", OPT_INT, "0", 0, SERVE_THREADS_MAX,
        "threads that tokenize; 0: one for each CPU, at most 4"),
    OPT(slots, "slots", OPT_INT, "64", 1, 4096,
        "most requests open at once, of each gateway; bounds the memory of waiting ones"),
    OPT(waiting_bytes, "waiting-bytes", OPT_SIZE, "256m", 16777216, 1e12,
        "most bytes of requests held at once, those of all gateways together; one has up to 16m"),

    CONFIG_GROUP("Cluster"),
    WIRE_GATEWAYS_OPTION(struct tokenizer_options),
    WIRE_KEYS_OPTIONS(struct tokenizer_options),

    CONFIG_GROUP("Running"),
    MONITOR_OPTION(struct tokenizer_options),
    TRACE_OPTION(struct tokenizer_options),
    OPT(log_level, "log-level", OPT_STR, "info", 0, 8, "debug, info, warn or error"),
    OPT(drain_ms, "drain-ms", OPT_MS, "30000", 0, 86400000,
        "how long running requests may go on after SIGTERM"),
};

static int check(const void *ctx, struct why *w)
{
    static const char *const formats[] = {"auto", "chatml", "gemma", "none"};
    const struct tokenizer_options *o = ctx;
    enum log_level level;
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(formats); i++)
        known = known || strcmp(o->chat_format, formats[i]) == 0;
    if (!known)
        return why_set(w, ERR_INVALID, "chat-format",
                       "chat-format must be auto, chatml, gemma or none");
    if (!o->model || !*o->model)
        return why_set(w, ERR_INVALID, "model", "which model? --model FILE is required");
    if (log_level_parse(slice_str(o->log_level), &level) < 0)
        return why_set(w, ERR_INVALID, "log-level", "log-level must be debug, info, warn or error");
    return 0;
}

const struct config_spec TOKENIZER_OPTIONS = {
    .program = "nunchi-tokenizer",
    .about = "Text to token ids: chat templates, encoding, video notes, block hashes.",
    .opts = OPTIONS,
    .n_opts = ARRAY_LEN(OPTIONS),
    .check = check,
};
