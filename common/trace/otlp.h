/* Spans as OTLP's JSON: an ExportTraceServiceRequest of opentelemetry-proto, ids in hex as the OTLP
 * specification has it ("JSON Protobuf Encoding"). */
#ifndef NUNCHI_TRACE_OTLP_H
#define NUNCHI_TRACE_OTLP_H

#include "common/trace/trace.h"

struct otlp_source {
    const char *service, *instance; /* service.name, service.instance.id */
    int64_t unix_minus_mono_us;     /* spans are of the monotonic clock */
};

void otlp_json(const struct otlp_source *from, const struct trace_span *s, size_t n, buf *out);

#endif
