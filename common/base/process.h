/* What Prometheus calls the process itself: process_cpu_seconds_total, process_resident_memory_bytes,
 * process_open_fds, process_max_fds, process_start_time_seconds. */
#ifndef NUNCHI_PROCESS_H
#define NUNCHI_PROCESS_H

/* Makes the series on the first call, and reads them from /proc and the kernel on every one. */
void process_metrics(void);

#endif
