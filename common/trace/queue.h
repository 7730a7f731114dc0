/* Between those who record spans (trace.c) and the thread that sends them (export.c). Thread-safe.
 */
#ifndef NUNCHI_TRACE_QUEUE_H
#define NUNCHI_TRACE_QUEUE_H

#include "common/trace/trace.h"

#define TRACE_QUEUE_MAX 4096 /* spans, 900 bytes each */

void trace_queue_start(void);
void trace_queue_end(void); /* puts are ignored from now on; what waits can still be taken */
bool trace_queue_open(void);
void trace_queue_put(const struct trace_span *s); /* full: dropped and counted */
/* At most max of the oldest; waits up to ms for the first. Returns early with 0 when the queue has
 * ended. */
size_t trace_queue_take(struct trace_span *out, size_t max, unsigned ms);
uint64_t trace_queue_dropped(void);

#endif
