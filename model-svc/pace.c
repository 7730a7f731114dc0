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

/* Prompt rows from which on a step's cost per row is worth its full weight: a few rows cost about
 * as much as one. */
#define FULL_WEIGHT_ROWS 64
#define FIRST_WEIGHT_ROWS 8

static void blend(double *avg, double v, double weight)
{
    *avg = *avg > 0 ? *avg + weight * (v - *avg) : v;
}

static void prefilled(struct pace *p, uint32_t decode_rows, uint32_t rows, double us)
{
    if (rows < FIRST_WEIGHT_ROWS && p->prefill_row_us <= 0)
        return;
    double share =
        us * rows / (rows + decode_rows); /* at least half of the rows' equal share is theirs */
    double rest = us - p->decode_row_us * decode_rows;
    double weight = rows < FULL_WEIGHT_ROWS ? NEWEST * rows / FULL_WEIGHT_ROWS : NEWEST;
    blend(&p->prefill_row_us, (rest > share / 2 ? rest : share / 2) / rows, weight);
}

void pace_step(struct pace *p, uint32_t decode_rows, uint32_t prefill_rows, uint64_t took_us)
{
    double us = took_us > 0 ? (double)took_us : 1;
    if (prefill_rows > 0)
        prefilled(p, decode_rows, prefill_rows, us);
    else if (decode_rows > 0)
        blend(&p->decode_row_us, us / decode_rows, NEWEST);
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
