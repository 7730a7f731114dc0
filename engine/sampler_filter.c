/* What top-k, top-p and min-p leave, without sorting: each of them ends the order of likelihood at
 * some place, and that is found by trying bounds, with kernels that weigh what lies above. Bounds
 * that whole tiles cannot reach skip them. */
#include <float.h>
#include <math.h>

#include "engine/math.h"
#include "engine/sampler_int.h"

static void pad(sampler *s, size_t n)
{
    for (size_t i = n; i % TILE; i++)
        s->x[i] = -INFINITY;
}

size_t sampler_take(sampler *s, const struct tiles *t, float least)
{
    size_t n = 0;
    least = least > -FLT_MAX ? least : -FLT_MAX;
    for (size_t i = 0; i < s->n_tiles; i++) {
        if (t->max[i] >= least)
            n += s->k->sample_take(t->at[i], least, (int32_t)(i * TILE), s->x + n, s->id + n);
    }
    pad(s, n);
    return n;
}

double sampler_weigh(sampler *s, size_t n, float top, float scale)
{
    double sum = 0;
    for (size_t i = 0; i * TILE < n; i++) {
        s->mass[i] = s->k->sample_exp(s->x + i * TILE, top, scale, s->p + i * TILE);
        sum += (double)s->mass[i];
    }
    return sum;
}

/* ---- cuts ---- */

/* A place in the order of likelihood: above logit x everything is in, of those equal to it the
 * first `ties`. */
struct cut {
    float x;
    size_t ties;
};

/* Unsigned numbers in the order of the floats. */
static uint32_t key_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u ^ ((0 - (u >> 31)) | 0x80000000u);
}

static float of_key(uint32_t key)
{
    return math_bits_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

static void masses_above(const sampler *s, const float *x, const float *weight, size_t n,
                         const float *least, double *mass)
{
    for (int c = 0; c < SAMPLE_CUTS; c++)
        mass[c] = 0;
    for (size_t i = 0; i < n; i += TILE) {
        float m[SAMPLE_CUTS];
        s->k->sample_above(x + i, weight ? weight + i : NULL, least, m);
        for (int c = 0; c < SAMPLE_CUTS; c++)
            mass[c] += (double)m[c];
    }
}

/* The highest logit at which those from it on weigh the target, or `least` if there is none;
 * *above: what those above it weigh. x is whole tiles, none of it above `top`; weights NULL: 1
 * each. */
static float find_cut(const sampler *s, const float *x, const float *weight, size_t n,
                      double target, float least, float top, double *above)
{
    uint32_t lo = key_of(least), hi = key_of(top);
    *above = 0;
    while (lo < hi) {
        uint32_t step = (hi - lo) / (SAMPLE_CUTS + 1) + 1;
        float bound[SAMPLE_CUTS];
        double mass[SAMPLE_CUTS];
        for (uint32_t c = 0; c < SAMPLE_CUTS; c++)
            bound[c] = of_key(lo + (c + 1) * step);
        masses_above(s, x, weight, n, bound, mass);
        uint32_t c = 0;
        while (c < SAMPLE_CUTS && mass[c] > 0 && mass[c] >= target)
            c++;
        if (c < SAMPLE_CUTS) {
            hi = lo + (c + 1) * step - 1;
            *above = mass[c];
        }
        lo += c * step;
    }
    return of_key(lo);
}

/* How many of weight `each` fill the rest up to the target: at least one. */
static size_t ties_for(double target, double above, double each)
{
    double n = ceil((target - above) / each);
    return n < 1 ? 1 : n < (double)ENGINE_VOCAB_MAX ? (size_t)n : ENGINE_VOCAB_MAX;
}

static struct cut earlier(struct cut a, struct cut b)
{
    if (a.x != b.x)
        return a.x > b.x ? a : b;
    return a.ties < b.ties ? a : b;
}

/* Takes what is within the cut. */
static size_t take_within(sampler *s, const struct tiles *t, struct cut c)
{
    size_t n = sampler_take(s, t, c.x), kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->x[i] == c.x && c.ties-- == 0)
            c.ties = 0;
        else {
            s->x[kept] = s->x[i];
            s->id[kept++] = s->id[i];
        }
    }
    pad(s, kept);
    return kept;
}

/* As many tiles' maxima do. */
float sampler_reached_by(const sampler *s, const struct tiles *t, size_t n)
{
    double above;
    return n <= s->n_tiles
               ? find_cut(s, t->max, NULL, s->n_tiles, (double)n, -FLT_MAX, t->top, &above)
               : -FLT_MAX;
}

/* ---- filters ---- */

static float no_less(float x, float than)
{
    return x > than ? x : than;
}

/* The candidates in whom a share of all likelihood lies, by lowering the bound until they have it.
 */
static size_t take_share(sampler *s, const struct tiles *t, double mass, float floor)
{
    for (float bits = 4;; bits *= 2) { /* factors of likelihood: 2^-4, 2^-8, … */
        float least = no_less(t->top - bits / t->scale, floor);
        size_t n = sampler_take(s, t, least);
        if (sampler_weigh(s, n, t->top, t->scale) >= mass || least <= floor)
            return n;
    }
}

static float floor_of(const struct tiles *t, const struct sample_params *p, float scale,
                      float lowest)
{
    if (!(p->min_p > 0))
        return lowest;
    float bits = (float)math_log64((double)p->min_p) * LOG2E;
    return no_less(t->top + (bits < 0 ? bits : 0) / scale, lowest);
}

/* All three end the order of likelihood at some place: the first counts. top-p
 * is a share of what top-k leaves. */
size_t sampler_filter(sampler *s, const struct tiles *t, const struct sample_params *p, float scale)
{
    bool shares = p->top_p < 1.0f;
    float lowest = t->top + MATH_SHARE_MIN / scale, floor = floor_of(t, p, scale, lowest);
    struct cut c = {no_less(floor, -FLT_MAX), ENGINE_VOCAB_MAX};
    double all = t->total, above;
    size_t n;
    if (p->top_k > 0) {
        float least = no_less(sampler_reached_by(s, t, p->top_k), shares ? lowest : c.x);
        n = sampler_take(s, t, least);
        least = find_cut(s, s->x, NULL, n, (double)p->top_k, least, t->top, &above);
        struct cut k = {least, ties_for((double)p->top_k, above, 1)};
        n = take_within(s, t, shares ? k : earlier(c, k));
        if (!shares)
            return n;
        c = earlier(c, k);
        all = sampler_weigh(s, n, t->top, scale);
    } else if (shares) {
        n = take_share(s, t, (double)p->top_p * all, c.x);
    } else {
        return sampler_take(s, t, c.x);
    }
    double target = (double)p->top_p * all;
    float x = find_cut(s, s->x, s->p, n, target, no_less(lowest, -FLT_MAX), t->top, &above);
    size_t ties = ties_for(target, above, (double)math_exp2_share((x - t->top) * scale));
    return take_within(s, t, earlier(c, (struct cut){x, ties}));
}

bool sampler_filters(const struct sample_params *p)
{
    return p->top_k > 0 || p->top_p < 1.0f || p->min_p > 0;
}
