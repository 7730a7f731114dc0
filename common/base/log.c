#include "common/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/num.h"

#define LOG_FIELDS_MAX 64
#define LOG_SERVICE_MAX 32
/* What must still fit behind the fields: ,"cut":true}\n */
#define LOG_TAIL_BYTES 16

static char log_service[LOG_SERVICE_MAX] = "nunchi";
static atomic_int log_least = LOG_INFO;
static atomic_int log_fd = STDERR_FILENO;

static const char *const LEVEL_NAMES[] = {"debug", "info", "warn", "error"};

/* A line grows on the stack, so that logging works when memory does not. What does not fit is
 * dropped whole. */
struct line {
    size_t n;
    bool cut;
    char p[LOG_LINE_MAX];
};

void log_init(const char *service, enum log_level least, int fd)
{
    snprintf(log_service, sizeof log_service, "%s", service);
    atomic_store(&log_fd, fd);
    log_set_level(least);
}

void log_set_level(enum log_level least)
{
    atomic_store(&log_least, (int)least);
}

int log_level_parse(slice s, enum log_level *out)
{
    for (size_t i = 0; i < ARRAY_LEN(LEVEL_NAMES); i++)
        if (slice_eq_str(s, LEVEL_NAMES[i])) {
            *out = (enum log_level)i;
            return 0;
        }
    return ERR_INVALID;
}

static void put(struct line *l, const char *p, size_t n)
{
    if (l->cut || n > sizeof l->p - LOG_TAIL_BYTES - l->n) {
        l->cut = true;
        return;
    }
    memcpy(l->p + l->n, p, n);
    l->n += n;
}

static void put_str(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

static void put_escaped(struct line *l, unsigned char c)
{
    char text[8];
    if (c == '"' || c == '\\')
        put(l, (char[]){'\\', (char)c}, 2);
    else if (c == '\n')
        put(l, "\\n", 2);
    else
        put(l, text, (size_t)snprintf(text, sizeof text, "\\u%04x", c));
}

static void put_char(struct line *l, const char *p, size_t n)
{
    unsigned char c = (unsigned char)*p;
    if (n == 0)
        put_str(l, "\xEF\xBF\xBD"); /* U+FFFD for a byte that is no UTF-8 */
    else if (n > 1 || (c >= 0x20 && c != 0x7F && c != '"' && c != '\\'))
        put(l, p, n);
    else
        put_escaped(l, c);
}

static void put_quoted(struct line *l, slice s)
{
    put(l, "\"", 1);
    for (size_t i = 0; i < s.n && !l->cut;) {
        uint32_t cp;
        size_t n = utf8_decode(s.p + i, s.n - i, &cp);
        put_char(l, s.p + i, n);
        i += n ? n : 1;
    }
    put(l, "\"", 1);
}

static void put_hex(struct line *l, slice bytes)
{
    put(l, "\"", 1);
    for (size_t i = 0; i < bytes.n && !l->cut; i++) {
        char two[3];
        hex_encode(bytes.p + i, 1, two);
        put(l, two, 2);
    }
    put(l, "\"", 1);
}

static void put_f64(struct line *l, double v)
{
    char text[F64_TEXT_MAX];
    if (isfinite(v))
        put(l, text, f64_text(v, text));
    else
        put_str(l, "null");
}

static void put_field(struct line *l, const struct log_field *f)
{
    char text[24];
    size_t before = l->n;
    put(l, ",", 1);
    put_quoted(l, slice_str(f->key));
    put(l, ":", 1);
    switch (f->kind) {
    case LOG_F_STR:
        if (f->str)
            put_quoted(l, slice_str(f->str));
        else
            put_str(l, "null");
        break;
    case LOG_F_SLICE:
        put_quoted(l, f->bytes);
        break;
    case LOG_F_I64:
        put(l, text, (size_t)snprintf(text, sizeof text, "%" PRId64, f->i64));
        break;
    case LOG_F_U64:
        put(l, text, (size_t)snprintf(text, sizeof text, "%" PRIu64, f->u64));
        break;
    case LOG_F_F64:
        put_f64(l, f->f64);
        break;
    case LOG_F_HEX:
        put_hex(l, f->bytes);
        break;
    case LOG_F_END:
        break;
    }
    if (l->cut)
        l->n = before;
}

/* Date from days since 1970 without gmtime_r, which may take a lock. Howard Hinnant's public
 * formula: years begin in March, so that the leap day is the last one. */
static void civil(uint64_t days, int *year, int *month, int *day)
{
    uint64_t z = days + 719468, era = z / 146097, doe = z % 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *day = (int)(doy - (153 * mp + 2) / 5 + 1);
    *month = (int)(mp < 10 ? mp + 3 : mp - 9);
    *year = (int)(yoe + era * 400 + (*month <= 2));
}

static void put_head(struct line *l, enum log_level lvl, const char *msg)
{
    uint64_t ms = clock_unix_ms(), s = ms / 1000;
    int year, month, day;
    char text[64];
    civil(s / 86400, &year, &month, &day);
    snprintf(text, sizeof text, "{\"ts\":\"%04d-%02d-%02dT%02u:%02u:%02u.%03uZ\",\"lvl\":", year,
             month, day, (unsigned)(s / 3600 % 24), (unsigned)(s / 60 % 60), (unsigned)(s % 60),
             (unsigned)(ms % 1000));
    put_str(l, text);
    put_quoted(l, slice_str(LEVEL_NAMES[lvl]));
    put_field(l, &LOG_STR("svc", log_service));
    put_field(l, &LOG_STR("msg", msg));
}

static void write_line(struct line *l)
{
    const char *tail = l->cut ? ",\"cut\":true}\n" : "}\n";
    memcpy(l->p + l->n, tail, strlen(tail));
    l->n += strlen(tail);
    int saved = errno;
    while (write(atomic_load(&log_fd), l->p, l->n) < 0 && errno == EINTR)
        ;
    errno = saved; /* a log line must not change what its caller is about to look at */
}

void log_fields(enum log_level lvl, const char *msg, const struct log_field *fields,
                size_t n_fields)
{
    if ((int)lvl < atomic_load(&log_least))
        return;
    struct line l;
    l.n = 0;
    l.cut = false;
    put_head(&l, lvl, msg);
    for (size_t i = 0; i < n_fields && !l.cut; i++)
        put_field(&l, &fields[i]);
    write_line(&l);
}

void log_event(enum log_level lvl, const char *msg, ...)
{
    if ((int)lvl < atomic_load(&log_least))
        return;
    struct log_field fields[LOG_FIELDS_MAX];
    size_t n = 0;
    va_list ap;
    va_start(ap, msg);
    struct log_field f = va_arg(ap, struct log_field);
    for (; f.kind != LOG_F_END && n < LOG_FIELDS_MAX; f = va_arg(ap, struct log_field))
        fields[n++] = f;
    CHECK(f.kind == LOG_F_END);
    va_end(ap);
    log_fields(lvl, msg, fields, n);
}
