/* What steps cost, measured: how many prompt tokens may ride along without making running answers
 * wait too long, how many guesses are worth their rows, what to promise in heartbeats, and when to
 * tell a refused client to come back.
 *
 * Two regimes. A step of few rows that all want logits reads the weights once, whatever their
 * number: its cost is kept at 1, 2, 4, 8 … rows, and between them drawn straight. A prompt's row
 * adds what its products cost, and what it costs to look back at everything before it. */
#ifndef NUNCHI_MODEL_PACE_H
#define NUNCHI_MODEL_PACE_H

#include <stdint.h>

#define PACE_KNOTS 13 /* 1 .. 4096 rows */

/* Zero-initialise; set target_us and rows_max. */
struct pace {
    uint64_t target_us; /* a step should not take longer while answers are running */
    uint32_t rows_max;
    double decode_us[PACE_KNOTS]; /* a step of 2^i rows, each wanting logits; 0: not measured yet */
    double prompt_row_us;         /* what one more prompt row adds; 0: not measured yet */
    double look_us;               /* … for each position it looks back at */
    struct pace_sums {
        double rr, rl, ll, r, l;
    } sums;          /* of the latest steps with prompts: what those two are worked out from */
    double token_us; /* of steps without prompts, for each token they brought */
};

/* A step's rows, as far as its cost depends on them. */
struct pace_rows {
    uint32_t decode; /* rows that want logits: next tokens and guesses */
    uint32_t prompt;
    uint64_t looks; /* positions that the prompts' rows look back at, all added up */
};

void pace_step(struct pace *p, const struct pace_rows *r, uint32_t tokens, uint64_t took_us);

/* A step of so many rows that want logits; 0: nothing is known yet. */
double pace_decode_us(const struct pace *p, uint32_t rows);
/* Time for prompts in a step with so many others. */
double pace_prompt_time(const struct pace *p, uint32_t decode_rows);
/* Rows of a prompt, going on at a position, that fit into a time. */
uint32_t pace_prompt_rows(const struct pace *p, double us, uint32_t position);
double pace_prompt_us(const struct pace *p, uint32_t rows, uint32_t position);

uint32_t pace_prefill_rate(const struct pace *p); /* tokens per second; 0: not measured yet */
uint32_t pace_decode_rate(const struct pace *p);  /* of all sequences together */
/* After how long a queue of so many prompt tokens will have gone down; 0.1 to 60 s. */
uint32_t pace_retry_ms(const struct pace *p, uint64_t queued_tokens);

/* Positions that rows begin .. begin + n - 1 of one sequence look back at. */
static inline uint64_t pace_looks(uint32_t position, uint32_t n)
{
    return (uint64_t)n * position + (uint64_t)n * (n + 1) / 2;
}

#endif
