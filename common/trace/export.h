/* Sends what trace_record is given to a collector, by OTLP/HTTP, from a thread of its own: batches,
 * one request at a time. A collector that is away costs the spans of that time and nothing else.
 * The only file pair with curl.h in the services. */
#ifndef NUNCHI_TRACE_EXPORT_H
#define NUNCHI_TRACE_EXPORT_H

#include "common/base/config.h"
#include "common/base/err.h"

/* A row for a service's table of options; its struct has a field `otlp`. */
#define TRACE_OPTION(st)                                                                           \
    CONFIG_OPT(                                                                                    \
        st, otlp, "otlp", OPT_STR, NULL, 0, 0,                                                     \
        "where traces are collected by OTLP/HTTP, as http://collector:4318; default: nowhere")

/* url NULL or "": nothing happens, and trace_on() stays false. service: static. Call when the
 * signals are blocked (loop_signal): the thread must not get them. ERR_INVALID: not a URL of http
 * or https. */
int trace_export_start(const char *url, const char *service, struct why *w) MUST_USE;
void trace_export_stop(
    void); /* sends what waits, for TRACE_STOP_MS at most; harmless when not started */

#define TRACE_STOP_MS 2000

#endif
