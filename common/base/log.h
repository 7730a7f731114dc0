/* One JSON line per event, one write(2) per line: {"ts":…,"lvl":…,"svc":…,"msg":…, fields…}. Never
 * prompt text, file names of users, or keys. Thread-safe, no allocation. A line longer than LOG_LINE_MAX
 * loses its last fields, stays valid JSON, and says so with "cut":true. */
#ifndef NUNCHI_LOG_H
#define NUNCHI_LOG_H

#include "common/base/slice.h"

#define LOG_LINE_MAX 4096

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_init(const char *service, enum log_level least, int fd); /* fd: usually 2 */
void log_set_level(enum log_level least);
int log_level_parse(slice s, enum log_level *out) MUST_USE; /* debug info warn error */

/* Further JSON members come through the field macros below:
 *     log_info("worker up", LOG_STR("worker", id), LOG_U64("slots", n)); */
struct log_field {
    const char *key;
    enum { LOG_F_END, LOG_F_STR, LOG_F_SLICE, LOG_F_I64, LOG_F_U64, LOG_F_F64, LOG_F_HEX } kind;
    union {
        const char *str;
        slice bytes;
        int64_t i64;
        uint64_t u64;
        double f64;
    };
};
#define LOG_STR(k, v) ((struct log_field){.key = (k), .kind = LOG_F_STR, .str = (v)})
#define LOG_SLICE(k, v) ((struct log_field){.key = (k), .kind = LOG_F_SLICE, .bytes = (v)})
#define LOG_I64(k, v) ((struct log_field){.key = (k), .kind = LOG_F_I64, .i64 = (int64_t)(v)})
#define LOG_U64(k, v) ((struct log_field){.key = (k), .kind = LOG_F_U64, .u64 = (uint64_t)(v)})
#define LOG_F64(k, v) ((struct log_field){.key = (k), .kind = LOG_F_F64, .f64 = (v)})
#define LOG_HEX(k, ptr, len) ((struct log_field){.key = (k), .kind = LOG_F_HEX, .bytes = {(const char *)(ptr), (len)}})
#define LOG_END ((struct log_field){.key = NULL, .kind = LOG_F_END})

/* The fields end with LOG_END; the macros add it. */
void log_event(enum log_level lvl, const char *msg, ...);
void log_fields(enum log_level lvl, const char *msg, const struct log_field *fields, size_t n_fields);
#define log_debug(...) log_event(LOG_DEBUG, __VA_ARGS__, LOG_END)
#define log_info(...) log_event(LOG_INFO, __VA_ARGS__, LOG_END)
#define log_warn(...) log_event(LOG_WARN, __VA_ARGS__, LOG_END)
#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__, LOG_END)

#endif
