/* Time as numbers. Cores take `now_us` as an argument; only serve.c and the loop read a clock. */
#ifndef NUNCHI_CLOCK_H
#define NUNCHI_CLOCK_H

#include <stdint.h>

uint64_t clock_mono_us(void); /* never goes back; the only clock for deadlines */
uint64_t clock_unix_ms(void); /* for people and `created` fields */
/* Cryptographic random bytes (getrandom); aborts if the kernel has none. */
void random_bytes(void *p, unsigned long n);
uint64_t random_u64(void);

#endif
