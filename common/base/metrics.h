/* Prometheus text (format 0.0.4) from a fixed set of series: counters, gauges, histograms. Labels
 * are fixed when a series is made; never a user's value. Updates are lock-free and thread-safe;
 * making series is not. Names and HELP texts are static strings. */
#ifndef NUNCHI_METRICS_H
#define NUNCHI_METRICS_H

#include <stdbool.h>

#include "common/base/slice.h"

typedef struct metric metric;

/* `labels` is ready-made text such as `service="model",state="up"`, or "". Series of one family
 * share name and help. They live as long as the process. */
metric *metric_counter(const char *name, const char *labels, const char *help);
metric *metric_gauge(const char *name, const char *labels, const char *help);
/* bounds ascending; copied. */
metric *metric_histogram(const char *name, const char *labels, const char *help,
                         const double *bounds, size_t n_bounds);
extern const double METRIC_SECONDS[]; /* 1 ms … 60 s, for latencies */
extern const size_t METRIC_SECONDS_N;

void metric_add(metric *m, double v); /* counter, gauge */
void metric_inc(metric *m);
void metric_set(metric *m, double v); /* gauge */
/* A counter that is counted elsewhere: brings it up to what was counted there since the start. */
void metric_count_to(metric *m, double total);
void metric_observe(metric *m, double v); /* histogram */
double metric_value(const metric *m);     /* counter, gauge; a histogram's count */

/* Numbers that are counted elsewhere, as a table: made once, then brought up to date together with
 * an array in the same order. */
struct metric_row {
    const char *name, *labels, *help; /* labels NULL: "" */
    bool gauge;                       /* else a counter */
};
/* A table and the array of its values from one list of X(value, name, labels, help, gauge). */
#define METRIC_ROW(value, name_, labels_, help_, gauge_)                                           \
    {.name = name_, .labels = labels_, .help = help_, .gauge = gauge_},
#define METRIC_VALUE(value, name_, labels_, help_, gauge_) (double)(value),
void metric_rows_make(const struct metric_row *rows, size_t n, metric **out);
void metric_rows_set(metric *const *m, const double *now, size_t n);

void metrics_render(buf *out); /* all series of the process, families together */

#endif
