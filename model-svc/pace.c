#include "model-svc/pace.h"

/* Weight of the newest measurement: a change of load shows after a few steps, one slow step does
 * not mislead. */
#define NEWEST 0.2
/* With nobody waiting for the next token, larger steps are allowed: they prefill more cheaply. */
#define IDLE_FACTOR 2.0
/* Rows of the first prefill beside decodes, when nothing is known. */
#define FIRST_ROWS 64
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 60000

static void blend(double *avg, double v)
{
    *avg = *avg > 0 ? *avg + NEWEST * (v - *avg) : v;
}

void pace_step(struct pace *p, uint32_t decode_rows, uint32_t prefill_rows, uint64_t took_us)
{
    double us = took_us > 0 ? (double)took_us : 1;
    if (prefill_rows == 0 && decode_rows > 0) {
        blend(&p->decode_us, us);
        blend(&p->decode_row_us, us / decode_rows);
    }
    if (prefill_rows == 0)
        return;
    double decodes = p->decode_row_us * decode_rows;
    double rest = us > decodes ? us - decodes : us / 2;
    blend(&p->prefill_row_us, rest / prefill_rows);
}

uint32_t pace_prefill_rows(const struct pace *p, uint32_t decode_rows)
{
    double left = (double)p->target_us;
    if (decode_rows == 0)
        left *= IDLE_FACTOR;
    left -= p->decode_row_us * decode_rows;
    double rows = p->prefill_row_us > 0 ? left / p->prefill_row_us
                  : decode_rows > 0     ? FIRST_ROWS
                                        : p->rows_max;
    if (rows < PACE_ROWS_MIN)
        rows = PACE_ROWS_MIN;
    return rows > p->rows_max ? p->rows_max : (uint32_t)rows;
}

static uint32_t per_second(double row_us)
{
    return row_us > 0 ? (uint32_t)(1e6 / row_us) : 0;
}

uint32_t pace_prefill_rate(const struct pace *p)
{
    return per_second(p->prefill_row_us);
}

uint32_t pace_decode_rate(const struct pace *p)
{
    return per_second(p->decode_row_us);
}

uint32_t pace_retry_ms(const struct pace *p, uint64_t queued_tokens)
{
    double ms =
        (double)queued_tokens * (p->prefill_row_us > 0 ? p->prefill_row_us : 1000.0) / 1000.0;
    if (ms < RETRY_MIN_MS)
        return RETRY_MIN_MS;
    return ms > RETRY_MAX_MS ? RETRY_MAX_MS : (uint32_t)ms;
}
