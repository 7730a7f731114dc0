/* What an instruction set can do at most, written in lanes: the loops that engine/limits.c times.
 * Each returns a value that depends on all of its work, so that the work is done. */
#include "engine/kernels/kernels.h"

#define CHAINS                                                                                     \
    12 /* sums that do not wait for each other: more than an instruction's latency times its rate  \
        */

static int32_t peak_dots(uint64_t rounds)
{
    vi s[CHAINS];
    vb w, x;
    memset(&w, 3, sizeof w);
    memset(&x, 1, sizeof x);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        s[i] = i_set(i);
    while (rounds-- > 0) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            s[i] = b_peak(s[i], w, x);
    }
    UNROLL
    for (int i = 1; i < CHAINS; i++)
        s[0] = i_add(s[0], s[i]);
    return i_total(s[0]);
}

/* x/2 + 1 again and again: neither grows nor becomes denormal. */
static int32_t peak_fmas(uint64_t rounds)
{
    vf s[CHAINS];
    const vf half = f_set(0.5f), one = f_set(1);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        s[i] = f_set((float)i);
    while (rounds-- > 0) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            s[i] = f_fma(s[i], half, one);
    }
    UNROLL
    for (int i = 1; i < CHAINS; i++)
        s[0] = f_add(s[0], s[i]);
    return i_total(i_of_f(s[0]));
}

static int32_t peak_read(const float *p, size_t n)
{
    vi s[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        s[i] = i_set(0);
    for (size_t at = 0; at + 4 * LANES <= n; at += 4 * LANES) {
        UNROLL
        for (int i = 0; i < 4; i++)
            s[i] = i_max(s[i], i_of_bits(f_load(p + at + (size_t)i * LANES)));
    }
    return i_most(i_max(i_max(s[0], s[1]), i_max(s[2], s[3])));
}
