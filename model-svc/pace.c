#include "model-svc/pace.h"

#include <math.h>

/* Weight of the newest measurement: a change of load shows after a few steps, one slow step does
 * not mislead. */
#define NEWEST 0.2
/* What one size of step has taught about the others: a machine that is busy is so for all. */
#define OTHERS (NEWEST / 4)
/* A step that took more than this times what was expected counts as if it had taken that. */
#define SURPRISE_MAX 2.0
/* Where reading the weights takes more than such a share of a step (1/n), larger steps prefill more
 * cheaply: allowed while nobody waits for a next token. */
#define LARGE_SHARE 8
#define IDLE_FACTOR 2.0
/* A prompt's rows when nothing is known. */
#define FIRST_ROWS 64
/* What a step's weight is after the next one, and how many steps one's belief weighs. */
#define KEEP 0.9
#define HOLD 0.1
/* Until it is measured: looking back at so many positions costs a row's products once more. */
#define FIRST_LOOKS 2000
/* Until more is measured: a row more in a step of n costs so much of a (n + FIRST_FEW)th of it. */
#define FIRST_FEW 9
/* From so many rows on a step's cost for each prompt row is worth its full weight. */
#define FULL_WEIGHT_ROWS 64
#define FIRST_WEIGHT_ROWS 8
/* What refused clients are told when nothing is known. */
#define FIRST_TOKEN_US 1000.0
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 60000

static double clamp(double v, double min, double max)
{
    return v < min ? min : v > max ? max : v;
}

/* ---- steps of decodes ---- */

static int nearest_knot(uint32_t rows)
{
    int i = (int)lround(log2(rows));
    return i < PACE_KNOTS ? i : PACE_KNOTS - 1;
}

/* Beyond the largest size known, going on as steeply as between the last two that are. */
static double beyond(double us, double n, double us_before, double n_before, uint32_t rows)
{
    double slope = n_before > 0 ? (us - us_before) / (n - n_before) : us / (n + FIRST_FEW);
    return us + slope * (rows - n);
}

double pace_decode_us(const struct pace *p, uint32_t rows)
{
    double us = 0, n = 0, us_before = 0, n_before = 0; /* of the largest size so far */
    for (int i = 0; i < PACE_KNOTS; i++) {
        double next = p->decode_us[i], n_next = (double)(1u << i);
        if (next <= 0)
            continue;
        next = next > us ? next : us; /* more rows never cost less */
        if (n_next > rows) {
            if (n <= 0) /* half of it for the weights, as a guess */
                return next * (0.5 + 0.5 * rows / n_next);
            return us + (next - us) * (rows - n) / (n_next - n);
        }
        us_before = us;
        n_before = n;
        us = next;
        n = n_next;
    }
    return us > 0 ? beyond(us, n, us_before, n_before, rows) : 0;
}

static void decoded(struct pace *p, uint32_t rows, double us)
{
    int k = nearest_knot(rows);
    double expected = pace_decode_us(p, rows), at = pace_decode_us(p, 1u << k);
    if (expected <= 0) {
        p->decode_us[k] = us * ((double)(1u << k) + FIRST_FEW) / (rows + FIRST_FEW);
        return;
    }
    double ratio = clamp(us / expected, 1 / SURPRISE_MAX, SURPRISE_MAX);
    if (p->decode_us[k] <= 0)
        p->decode_us[k] = at * us / expected;
    else
        p->decode_us[k] *= 1 + NEWEST * (ratio - 1);
    for (int i = 0; i < PACE_KNOTS; i++)
        if (i != k)
            p->decode_us[i] *= 1 + OTHERS * (ratio - 1);
}

/* ---- prompts beside them ---- */

/* What a step costs before its prompts: its decodes, less of the time for reading the weights what
 * the prompts' products make use of, too. */
static double before_prompts(const struct pace *p, uint32_t decode_rows)
{
    uint32_t rows = decode_rows ? decode_rows : 1;
    double hidden = pace_decode_us(p, 1) - p->prompt_row_us * rows;
    return pace_decode_us(p, rows) - (hidden > 0 ? hidden : 0);
}

/* Least squares of relative errors over the latest steps: row * rows + look * looks = 1, rows and
 * looks as shares of the time they took. Where steps do not tell the two apart, they stay near what
 * they were. */
static void fit(struct pace *p, double rows, double looks, double weight)
{
    double keep = 1 - (1 - KEEP) * weight, row = p->prompt_row_us, look = p->look_us;
    struct pace_sums *s = &p->sums;
    s->rr = s->rr * keep + weight * rows * rows;
    s->rl = s->rl * keep + weight * rows * looks;
    s->ll = s->ll * keep + weight * looks * looks;
    s->r = s->r * keep + weight * rows;
    s->l = s->l * keep + weight * looks;
    double rr = s->rr + HOLD / (row * row), ll = s->ll + HOLD / (look * look);
    double r = s->r + HOLD / row, l = s->l + HOLD / look;
    double det = rr * ll - s->rl * s->rl; /* > 0: of sums of squares, and HOLD */
    p->prompt_row_us = clamp((r * ll - l * s->rl) / det, row / SURPRISE_MAX, row * SURPRISE_MAX);
    p->look_us = clamp((l * rr - r * s->rl) / det, look / SURPRISE_MAX, look * SURPRISE_MAX);
}

static void prefilled(struct pace *p, const struct pace_rows *r, double us)
{
    double rows = r->prompt;
    if (r->prompt < FIRST_WEIGHT_ROWS && p->prompt_row_us <= 0)
        return;
    /* at least half of the rows' equal share is theirs */
    double share = us * rows / (rows + r->decode) / 2;
    double rest = us - before_prompts(p, r->decode);
    rest = rest > share ? rest : share;
    if (p->prompt_row_us <= 0) {
        p->prompt_row_us = rest / (rows + (double)r->looks / FIRST_LOOKS);
        p->look_us = p->prompt_row_us / FIRST_LOOKS;
        return;
    }
    double expected = p->prompt_row_us * rows + p->look_us * (double)r->looks;
    rest = clamp(rest, expected / SURPRISE_MAX, expected * SURPRISE_MAX);
    double weight = r->prompt < FULL_WEIGHT_ROWS ? rows / FULL_WEIGHT_ROWS : 1;
    fit(p, rows / rest, (double)r->looks / rest, weight);
}

void pace_step(struct pace *p, const struct pace_rows *r, uint32_t tokens, uint64_t took_us)
{
    double us = took_us > 0 ? (double)took_us : 1;
    if (r->prompt > 0) {
        prefilled(p, r, us);
        return;
    }
    if (r->decode == 0)
        return;
    decoded(p, r->decode, us);
    if (tokens > 0)
        p->token_us += p->token_us > 0 ? NEWEST * (us / tokens - p->token_us) : us / tokens;
}

double pace_prompt_time(const struct pace *p, uint32_t decode_rows)
{
    if (p->prompt_row_us <= 0)
        return FIRST_ROWS; /* nothing is known: see pace_prompt_us */
    double us = (double)p->target_us;
    if (decode_rows == 0 && pace_decode_us(p, 1) * LARGE_SHARE > us)
        us *= IDLE_FACTOR;
    us -= before_prompts(p, decode_rows);
    return us > 0 ? us : 0;
}

double pace_prompt_us(const struct pace *p, uint32_t rows, uint32_t position)
{
    if (p->prompt_row_us <= 0)
        return rows;
    return p->prompt_row_us * rows + p->look_us * (double)pace_looks(position, rows);
}

uint32_t pace_prompt_rows(const struct pace *p, double us, uint32_t position)
{
    if (us <= 0)
        return 0;
    /* rows * (row + look * position) + look * rows^2 / 2 = us */
    double a = p->prompt_row_us > 0 ? p->look_us / 2 : 0;
    double b = p->prompt_row_us > 0 ? p->prompt_row_us + p->look_us * position : 1;
    double rows = 2 * us / (b + sqrt(b * b + 4 * a * us));
    return rows < p->rows_max ? (uint32_t)rows : p->rows_max;
}

static uint32_t per_second(double us)
{
    return us > 0 ? (uint32_t)clamp(1e6 / us, 1, 1e9) : 0;
}

/* Of a step as large as steps may be, at the beginning of a prompt; 0: not measured yet. */
static double prompt_token_us(const struct pace *p)
{
    if (p->prompt_row_us <= 0)
        return 0;
    double time = pace_prompt_time(p, 1);
    uint32_t rows = pace_prompt_rows(p, time, 0);
    rows = rows > 0 ? rows : 1;
    return (before_prompts(p, 1) + pace_prompt_us(p, rows, 0)) / rows;
}

uint32_t pace_prefill_rate(const struct pace *p)
{
    return per_second(prompt_token_us(p));
}

uint32_t pace_decode_rate(const struct pace *p)
{
    return per_second(p->token_us);
}

uint32_t pace_retry_ms(const struct pace *p, uint64_t queued_tokens)
{
    double us = prompt_token_us(p) > 0 ? prompt_token_us(p) : FIRST_TOKEN_US;
    return (uint32_t)clamp((double)queued_tokens * us / 1000.0, RETRY_MIN_MS, RETRY_MAX_MS);
}
