#include "common/base/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>

#include "common/base/num.h"

enum kind { COUNTER, GAUGE, HISTOGRAM };

struct metric {
    struct metric *next; /* in the order of making */
    enum kind kind;
    const char *name, *labels, *help;
    _Atomic double value; /* a histogram's sum */
    size_t n_bounds;
    const double *bounds;
    atomic_uint_fast64_t *buckets; /* n_bounds + 1, not cumulative */
};

const double METRIC_SECONDS[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                 0.5,   1,      2.5,   5,    10,    20,   30,  60};
const size_t METRIC_SECONDS_N = ARRAY_LEN(METRIC_SECONDS);

static metric *first_metric;

static metric *find(const char *name, const char *labels)
{
    for (metric *m = first_metric; m; m = m->next)
        if (strcmp(m->name, name) == 0 && strcmp(m->labels, labels) == 0)
            return m;
    return NULL;
}

/* The same series asked for twice is one series. */
static metric *series(enum kind kind, const char *name, const char *labels, const char *help)
{
    metric *m = find(name, labels);
    if (m) {
        CHECK(m->kind == kind);
        return m;
    }
    m = xcalloc(1, sizeof *m);
    m->kind = kind;
    m->name = name;
    m->labels = xstrdup(labels);
    m->help = help;
    metric **end = &first_metric;
    while (*end) {
        CHECK(strcmp((*end)->name, name) != 0 || (*end)->kind == kind);
        end = &(*end)->next;
    }
    *end = m;
    return m;
}

metric *metric_counter(const char *name, const char *labels, const char *help)
{
    return series(COUNTER, name, labels, help);
}

metric *metric_gauge(const char *name, const char *labels, const char *help)
{
    return series(GAUGE, name, labels, help);
}

metric *metric_histogram(const char *name, const char *labels, const char *help,
                         const double *bounds, size_t n_bounds)
{
    metric *m = series(HISTOGRAM, name, labels, help);
    if (m->buckets)
        return m;
    double *copy = xcalloc(n_bounds, sizeof *copy);
    for (size_t i = 0; i < n_bounds; i++) {
        CHECK(isfinite(bounds[i]) && (i == 0 || bounds[i - 1] < bounds[i]));
        copy[i] = bounds[i];
    }
    m->bounds = copy;
    m->n_bounds = n_bounds;
    m->buckets = xcalloc(n_bounds + 1, sizeof *m->buckets);
    return m;
}

/* Relaxed throughout: a metric orders nothing but itself. */
static void add(_Atomic double *to, double v)
{
    double old = atomic_load_explicit(to, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(to, &old, old + v, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

void metric_add(metric *m, double v)
{
    CHECK(m->kind == GAUGE || (m->kind == COUNTER && v >= 0));
    add(&m->value, v);
}

void metric_inc(metric *m)
{
    metric_add(m, 1);
}

void metric_set(metric *m, double v)
{
    CHECK(m->kind == GAUGE);
    atomic_store_explicit(&m->value, v, memory_order_relaxed);
}

void metric_count_to(metric *m, double total)
{
    double more = total - metric_value(m);
    if (more > 0)
        metric_add(m, more);
}

void metric_observe(metric *m, double v)
{
    CHECK(m->kind == HISTOGRAM);
    if (isnan(v))
        return; /* would make the sum useless for ever */
    size_t i = 0;
    while (i < m->n_bounds && v > m->bounds[i])
        i++;
    atomic_fetch_add_explicit(&m->buckets[i], 1, memory_order_relaxed);
    add(&m->value, v);
}

static uint64_t in_bucket(const metric *m, size_t i)
{
    return atomic_load_explicit(&m->buckets[i], memory_order_relaxed);
}

double metric_value(const metric *m)
{
    if (m->kind != HISTOGRAM)
        return atomic_load_explicit(&m->value, memory_order_relaxed);
    uint64_t n = 0;
    for (size_t i = 0; i <= m->n_bounds; i++)
        n += in_bucket(m, i);
    return (double)n;
}

void metric_rows_make(const struct metric_row *rows, size_t n, metric **out)
{
    for (size_t i = 0; i < n; i++) {
        const char *labels = rows[i].labels ? rows[i].labels : "";
        out[i] = rows[i].gauge ? metric_gauge(rows[i].name, labels, rows[i].help)
                               : metric_counter(rows[i].name, labels, rows[i].help);
    }
}

void metric_rows_set(metric *const *m, const double *now, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (m[i]->kind == GAUGE)
            metric_set(m[i], now[i]);
        else
            metric_count_to(m[i], now[i]);
    }
}

/* ---- text format 0.0.4
 * ------------------------------------------------------------------------------ */

static void put_number(buf *out, double v)
{
    char text[F64_TEXT_MAX];
    if (isnan(v))
        buf_put_str(out, "NaN");
    else if (isinf(v))
        buf_put_str(out, v < 0 ? "-Inf" : "+Inf");
    else
        buf_put(out, text, f64_text(v, text));
}

static void put_name(buf *out, const metric *m, const char *suffix, const char *le)
{
    buf_put_str(out, m->name);
    buf_put_str(out, suffix);
    if (!*m->labels && !le)
        return;
    buf_put_byte(out, '{');
    buf_put_str(out, m->labels);
    if (le)
        buf_printf(out, "%sle=\"%s\"", *m->labels ? "," : "", le);
    buf_put_byte(out, '}');
}

static void put_sample(buf *out, const metric *m, const char *suffix, double v)
{
    put_name(out, m, suffix, NULL);
    buf_put_byte(out, ' ');
    put_number(out, v);
    buf_put_byte(out, '\n');
}

/* Every number of one histogram comes from one reading of the buckets, so that +Inf equals _count.
 */
static void put_histogram(buf *out, const metric *m)
{
    uint64_t n = 0;
    for (size_t i = 0; i <= m->n_bounds; i++) {
        char le[F64_TEXT_MAX] = "+Inf";
        if (i < m->n_bounds)
            f64_text(m->bounds[i], le);
        n += in_bucket(m, i);
        put_name(out, m, "_bucket", le);
        buf_printf(out, " %" PRIu64 "\n", n);
    }
    put_sample(out, m, "_sum", atomic_load_explicit(&m->value, memory_order_relaxed));
    put_name(out, m, "_count", NULL);
    buf_printf(out, " %" PRIu64 "\n", n);
}

static void put_help(buf *out, const metric *m)
{
    static const char *const KINDS[] = {"counter", "gauge", "histogram"};
    buf_printf(out, "# HELP %s ", m->name);
    for (const char *p = m->help; *p; p++) {
        if (*p == '\\' || *p == '\n')
            buf_put_str(out, *p == '\n' ? "\\n" : "\\\\");
        else
            buf_put_byte(out, (unsigned char)*p);
    }
    buf_printf(out, "\n# TYPE %s %s\n", m->name, KINDS[m->kind]);
}

static bool family_begins(const metric *m)
{
    for (const metric *p = first_metric; p != m; p = p->next)
        if (strcmp(p->name, m->name) == 0)
            return false;
    return true;
}

void metrics_render(buf *out)
{
    for (const metric *f = first_metric; f; f = f->next) {
        if (!family_begins(f))
            continue;
        put_help(out, f);
        for (const metric *m = f; m; m = m->next) {
            if (strcmp(m->name, f->name) != 0)
                continue;
            if (m->kind == HISTOGRAM)
                put_histogram(out, m);
            else
                put_sample(out, m, "", metric_value(m));
        }
    }
}
