/* What steps cost, measured: how many prompt tokens may ride along without making running answers
 * wait too long, what to promise in heartbeats, and when to tell a refused client to come back. */
#ifndef NUNCHI_MODEL_PACE_H
#define NUNCHI_MODEL_PACE_H

#include <stdint.h>

/* Zero-initialise; set target_us and rows_max. */
struct pace {
    uint64_t target_us; /* a step should not take longer while answers are running */
    uint32_t rows_max;
    double decode_row_us;  /* of a step of decodes alone; 0: not measured yet */
    double prefill_row_us; /* what one more prompt row adds */
};

void pace_step(struct pace *p, uint32_t decode_rows, uint32_t prefill_rows, uint64_t took_us);
/* Prompt rows for a step with so many decodes: at least PACE_ROWS_MIN (progress), at most rows_max.
 */
#define PACE_ROWS_MIN 16
uint32_t pace_prefill_rows(const struct pace *p, uint32_t decode_rows);
uint32_t pace_prefill_rate(const struct pace *p); /* tokens per second; 0: not measured yet */
uint32_t pace_decode_rate(const struct pace *p);  /* of all sequences together */
/* After how long a queue of so many prompt tokens will have gone down; 0.1 to 60 s. */
uint32_t pace_retry_ms(const struct pace *p, uint64_t queued_tokens);

#endif
