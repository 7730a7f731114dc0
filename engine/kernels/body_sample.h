/* What the sampler does with whole tiles of logits, written in lanes. Included once by each kernels_*.c, after
 * body_rows.h. A NaN is passed over: it is never the largest, has no share, and is never taken. */

static float sample_max(const float *x)
{
    vf top[4];
    for (int i = 0; i < 4; i++)
        top[i] = f_set(-INFINITY);
    for (size_t at = 0; at < SAMPLE_TILE; at += 4 * LANES)
        for (int i = 0; i < 4; i++)
            top[i] = f_max(f_load(x + at + i * LANES), top[i]);
    return f_most(f_max(f_max(top[0], top[1]), f_max(top[2], top[3])));
}

#define WIDE 4 /* registers at once: each is a long chain of dependent steps */

/* math_exp2_share of each. */
INLINE void f_shares(vf x[WIDE])
{
    vf n[WIDE], q[WIDE];
    UNROLL
    for (int i = 0; i < WIDE; i++)
        n[i] = f_add(x[i], f_set(MATH_ROUND_F));
    UNROLL
    for (int i = 0; i < WIDE; i++)
        q[i] = f_sub(x[i], f_sub(n[i], f_set(MATH_ROUND_F)));
    UNROLL
    for (int i = 0; i < WIDE; i++) {
        vf r = q[i];
        q[i] = f_const(0x1.3cbf6p-7f, r, f_set(0x1.5ec866p-10f));
        q[i] = f_const(0x1.c6afeep-5f, r, q[i]);
        q[i] = f_const(0x1.ebfa4cp-3f, r, q[i]);
        q[i] = f_const(0x1.62e43p-1f, r, q[i]);
        q[i] = f_const(1.0f, r, q[i]);
    }
    UNROLL
    for (int i = 0; i < WIDE; i++)
        x[i] = f_if_less(f_set(MATH_SHARE_MIN), x[i], f_times_pow2(q[i], n[i]), f_set(0));
}

INLINE float total16(const vf acc[PARTS])
{
    return f_tree(PARTS == 2 ? f_add(acc[0], acc[PARTS - 1]) : acc[0]);
}

INLINE float shares(const float *x, float top, float scale, float *out)
{
    vf acc[PARTS], e[WIDE];
    for (int p = 0; p < PARTS; p++)
        acc[p] = f_set(0);
    for (size_t at = 0; at < SAMPLE_TILE; at += WIDE * LANES) {
        UNROLL
        for (int i = 0; i < WIDE; i++)
            e[i] = f_mul(f_sub(f_load(x + at + i * LANES), f_set(top)), f_set(scale));
        f_shares(e);
        UNROLL
        for (int i = 0; i < WIDE; i++) {
            if (out)
                f_store(out + at + i * LANES, e[i]);
            acc[i % PARTS] = f_add(acc[i % PARTS], e[i]);
        }
    }
    return total16(acc);
}

static float sample_exp(const float *x, float top, float scale, float *out)
{
    return out ? shares(x, top, scale, out) : shares(x, top, scale, NULL);
}

INLINE void above(const float *x, const float *weight, const float *least, float *mass)
{
    vf acc[SAMPLE_CUTS][PARTS];
    for (int c = 0; c < SAMPLE_CUTS; c++)
        for (int p = 0; p < PARTS; p++)
            acc[c][p] = f_set(0);
    for (size_t at = 0; at < SAMPLE_TILE; at += 16)
        UNROLL
        for (int p = 0; p < PARTS; p++) {
            vf v = f_load(x + at + p * LANES), w = weight ? f_load(weight + at + p * LANES) : f_set(1);
            UNROLL
            for (int c = 0; c < SAMPLE_CUTS; c++)
                acc[c][p] = f_add(acc[c][p], f_if_less(v, f_set(least[c]), f_set(0), w));
        }
    for (int c = 0; c < SAMPLE_CUTS; c++)
        mass[c] = total16(acc[c]);
}

static void sample_above(const float *x, const float *weight, const float *least, float *mass)
{
    if (weight)
        above(x, weight, least, mass);
    else
        above(x, NULL, least, mass);
}

static size_t sample_take(const float *x, float least, int32_t first, float *out, int32_t *ids)
{
    size_t n = 0;
    for (int32_t i = 0; i < SAMPLE_TILE; i += LANES) {
        vf v = f_load(x + i);
        uint32_t which = f_at_least(v, f_set(least));
        if (which)
            n += f_take(v, first + i, which, out + n, ids + n);
    }
    return n;
}
