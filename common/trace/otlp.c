#include "common/trace/otlp.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/err.h"
#include "common/base/config.h"
#include "common/base/hash.h"
#include "common/base/json_out.h"

/* 64-bit numbers are strings in protobuf's JSON. */
static void kv_number(struct json_out *j, const char *key, int64_t v)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, v);
    json_kv_cstr(j, key, text);
}

static void kv_hex(struct json_out *j, const char *key, const uint8_t *id, size_t n)
{
    char hex[2 * TRACE_ID_BYTES + 1];
    hex_encode(id, n, hex);
    json_kv_cstr(j, key, hex);
}

static void put_attr(struct json_out *j, const struct trace_attr *a)
{
    json_obj(j);
    json_kv_cstr(j, "key", a->key);
    json_key(j, "value");
    json_obj(j);
    if (a->is_text)
        json_kv_cstr(j, "stringValue", a->text);
    else
        kv_number(j, "intValue", a->number);
    json_obj_end(j);
    json_obj_end(j);
}

static void put_status(struct json_out *j, int err)
{
    json_key(j, "status");
    json_obj(j);
    if (err < 0) {
        json_kv_i64(j, "code", 2); /* ERROR */
        json_kv_cstr(j, "message", err_name(err));
    }
    json_obj_end(j);
}

static void put_span(struct json_out *j, const struct otlp_source *from, const struct trace_span *s)
{
    static const uint8_t NONE[TRACE_SPAN_BYTES];
    uint64_t end = s->end_us > s->start_us ? s->end_us : s->start_us;
    json_obj(j);
    kv_hex(j, "traceId", s->trace, sizeof s->trace);
    kv_hex(j, "spanId", s->id, sizeof s->id);
    if (memcmp(s->parent, NONE, sizeof NONE) != 0)
        kv_hex(j, "parentSpanId", s->parent, sizeof s->parent);
    json_kv_cstr(j, "name", s->name);
    json_kv_i64(j, "kind", s->kind);
    kv_number(j, "startTimeUnixNano", ((int64_t)s->start_us + from->unix_minus_mono_us) * 1000);
    kv_number(j, "endTimeUnixNano", ((int64_t)end + from->unix_minus_mono_us) * 1000);
    json_key(j, "attributes");
    json_arr(j);
    for (size_t i = 0; i < s->n_attrs; i++)
        put_attr(j, &s->attrs[i]);
    json_arr_end(j);
    put_status(j, s->err);
    json_obj_end(j);
}

static void put_resource(struct json_out *j, const struct otlp_source *from)
{
    struct trace_span r = {.n_attrs = 0};
    trace_text(&r, "service.name", slice_str(from->service));
    trace_text(&r, "service.instance.id", slice_str(from->instance));
    trace_text(&r, "service.version", slice_str(NUNCHI_VERSION));
    json_key(j, "resource");
    json_obj(j);
    json_key(j, "attributes");
    json_arr(j);
    for (size_t i = 0; i < r.n_attrs; i++)
        put_attr(j, &r.attrs[i]);
    json_arr_end(j);
    json_obj_end(j);
}

void otlp_json(const struct otlp_source *from, const struct trace_span *s, size_t n, buf *out)
{
    struct json_out j;
    json_begin(&j, out);
    json_obj(&j);
    json_key(&j, "resourceSpans");
    json_arr(&j);
    json_obj(&j);
    put_resource(&j, from);
    json_key(&j, "scopeSpans");
    json_arr(&j);
    json_obj(&j);
    json_key(&j, "scope");
    json_obj(&j);
    json_kv_cstr(&j, "name", "nunchi");
    json_obj_end(&j);
    json_key(&j, "spans");
    json_arr(&j);
    for (size_t i = 0; i < n; i++)
        put_span(&j, from, &s[i]);
    json_arr_end(&j);
    json_obj_end(&j);
    json_arr_end(&j);
    json_obj_end(&j);
    json_arr_end(&j);
    json_obj_end(&j);
}
