/* Penalties, filters and the draw, in the order that the parameters are documented in: repetition,
 * presence and frequency penalty, bias, temperature, top-k, top-p, min-p. Everything here is plain
 * IEEE multiplication and addition in a fixed order, so that the same call gives the same id on any
 * machine. */
#include "engine/engine.h"

#include <float.h>
#include <math.h>

#include "engine/math.h"

#define LANES 16
/* Candidates are grouped by the binary exponent of their probability relative to the best one's.
 * Below 2^-63 of it nothing is ever drawn. */
#define BUCKETS 64

struct candidate {
    float p; /* relative to the most likely: 0 … 1 */
    int32_t id;
};

struct sampler {
    int32_t n_vocab;
    float *x;               /* (n_vocab) adjusted logits, then relative probabilities */
    uint32_t *count;        /* (n_vocab) all zero between calls */
    struct candidate *head; /* (n_vocab) */
};

sampler *sampler_new(int32_t n_vocab)
{
    CHECK(n_vocab > 0 && n_vocab <= ENGINE_VOCAB_MAX);
    sampler *s = xcalloc(1, sizeof *s);
    s->n_vocab = n_vocab;
    s->x = xcalloc((size_t)n_vocab + LANES, sizeof *s->x);
    s->count = xcalloc((size_t)n_vocab, sizeof *s->count);
    s->head = xcalloc((size_t)n_vocab, sizeof *s->head);
    return s;
}

void sampler_free(sampler *s)
{
    if (!s)
        return;
    free(s->x);
    free(s->count);
    free(s->head);
    free(s);
}

/* e^x for x <= 0 without fused operations, so that a plain build vectorises it; within 1e-6
 * relative. */
static inline float exp_neg(float x)
{
    float c = x < -87.0f ? -87.0f : x;
    float shifted = c * 0x1.715476p+0f + MATH_ROUND_F;
    float n = shifted - MATH_ROUND_F;
    float r = (c - n * 0x1.62e4p-1f) + n * 0x1.7f7d1cp-20f * -1.0f;
    float q = 0x1.6d4926p-10f;
    q = q * r + 0x1.121072p-7f;
    q = q * r + 0x1.5554e4p-5f;
    q = q * r + 0x1.5554d8p-3f;
    q = q * r + 0x1p-1f;
    q = q * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    uint32_t scale = (bits - 0x4b400000u + 127u) << 23;
    float power;
    memcpy(&power, &scale, sizeof power);
    return x < -87.0f ? 0.0f : q * power;
}

static float max_of(const float *x, int32_t n)
{
    float best = -INFINITY;
    for (int32_t i = 0; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

/* out[i] = e^((x[i] - top) * scale) (out may be NULL), and the sum: 16 lanes, each added up in
 * single precision over runs of 16 values, the runs in double. */
static double exp_all(const float *x, float *out, int32_t n, float top, float scale)
{
    double sum = 0;
    for (int32_t at = 0; at < n; at += LANES * 16) {
        float lane[LANES] = {0};
        int32_t end = n - at < LANES * 16 ? n : at + LANES * 16, i = at;
        for (; i + LANES <= end; i += LANES) {
            for (int j = 0; j < LANES; j++) {
                float p = exp_neg((x[i + j] - top) * scale);
                lane[j] += p;
                if (out)
                    out[i + j] = p;
            }
        }
        for (int j = 0; i < end; i++, j++) {
            float p = exp_neg((x[i] - top) * scale);
            lane[j] += p;
            if (out)
                out[i] = p;
        }
        for (int j = 0; j < LANES; j++)
            sum += (double)lane[j];
    }
    return sum;
}

/* ---- logprobs: of the model's own distribution
 * -------------------------------------------------------------- */

static bool likelier(float a, int32_t a_id, float b, int32_t b_id)
{
    return a > b || (a == b && a_id < b_id);
}

static void put_top(struct sampled *out, uint32_t want, float logit, int32_t id)
{
    uint32_t at = out->n_top;
    if (at == want && !likelier(logit, id, out->top[at - 1].logprob, out->top[at - 1].id))
        return;
    if (at < want)
        out->n_top++;
    else
        at--;
    for (; at > 0 && likelier(logit, id, out->top[at - 1].logprob, out->top[at - 1].id); at--)
        out->top[at] = out->top[at - 1];
    out->top[at].logprob = logit;
    out->top[at].id = id;
}

static void fill_logprobs(const struct sample_params *p, const struct sample_input *in,
                          struct sampled *out)
{
    float top = max_of(in->logits, in->n_vocab);
    double norm = (double)top + math_log64(exp_all(in->logits, NULL, in->n_vocab, top, 1.0f));
    out->logprob = (float)((double)in->logits[out->id] - norm);
    uint32_t want = p->n_logprobs < SAMPLE_LOGPROBS_MAX ? p->n_logprobs : SAMPLE_LOGPROBS_MAX;
    out->n_top = 0;
    if (want == 0)
        return;
    for (int32_t id = 0; id < in->n_vocab; id++)
        put_top(out, want, in->logits[id], id);
    for (uint32_t i = 0; i < out->n_top; i++)
        out->top[i].logprob = (float)((double)out->top[i].logprob - norm);
}

/* ---- penalties and bias
 * ------------------------------------------------------------------------------------- */

static bool valid(const sampler *s, int32_t id)
{
    return id >= 0 && id < s->n_vocab;
}

/* Counts the ids of a list; apply functions visit each id once by zeroing its count. */
static void count_ids(sampler *s, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (valid(s, ids[i]))
            s->count[ids[i]]++;
    }
}

static void repeat_once(sampler *s, const int32_t *ids, size_t n, float penalty)
{
    for (size_t i = 0; i < n; i++) {
        if (!valid(s, ids[i]) || s->count[ids[i]] == 0)
            continue;
        float *x = &s->x[ids[i]];
        *x = *x > 0 ? *x / penalty : *x * penalty;
        s->count[ids[i]] = 0;
    }
}

static void penalise(sampler *s, const struct sample_params *p, const struct sample_input *in)
{
    if (p->repetition_penalty > 0 && p->repetition_penalty != 1.0f) {
        count_ids(s, in->prompt, in->n_prompt);
        count_ids(s, in->generated, in->n_generated);
        repeat_once(s, in->prompt, in->n_prompt, p->repetition_penalty);
        repeat_once(s, in->generated, in->n_generated, p->repetition_penalty);
    }
    if (p->presence_penalty == 0 && p->frequency_penalty == 0)
        return;
    count_ids(s, in->generated, in->n_generated);
    for (size_t i = 0; i < in->n_generated; i++) {
        int32_t id = in->generated[i];
        if (!valid(s, id) || s->count[id] == 0)
            continue;
        s->x[id] -= p->presence_penalty + p->frequency_penalty * (float)s->count[id];
        s->count[id] = 0;
    }
}

static bool adjusts(const struct sample_params *p)
{
    return (p->repetition_penalty > 0 && p->repetition_penalty != 1.0f) ||
           p->presence_penalty != 0 || p->frequency_penalty != 0 || p->n_bias > 0 || p->forbid_ends;
}

static void adjust(sampler *s, const struct sample_params *p, const struct sample_input *in)
{
    memcpy(s->x, in->logits, (size_t)in->n_vocab * sizeof *s->x);
    penalise(s, p, in);
    for (size_t i = 0; i < p->n_bias; i++) {
        if (valid(s, p->bias[i].id))
            s->x[p->bias[i].id] =
                p->bias[i].add <= -100.0f ? -INFINITY : s->x[p->bias[i].id] + p->bias[i].add;
    }
    for (size_t i = 0; p->forbid_ends && i < in->n_ends; i++) {
        if (valid(s, in->ends[i]))
            s->x[in->ends[i]] = -INFINITY;
    }
}

/* ---- the draw
 * ------------------------------------------------------------------------------------------------
 */

/* Stafford's mix 13 of splitmix64 (G. Steele, D. Lea, C. Flood: Fast splittable pseudorandom number
 * generators, 2014). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In [0, 1): a function of the three numbers alone, so that any worker at any time draws the same.
 */
static double uniform(uint64_t seed, uint64_t choice, uint64_t position)
{
    uint64_t h = mix(seed + 0x9e3779b97f4a7c15u);
    h = mix(h ^ (choice + 0x9e3779b97f4a7c15u));
    h = mix(h ^ (position + 0x9e3779b97f4a7c15u));
    return (double)(h >> 11) * 0x1p-53;
}

static int32_t greedy(const float *x, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static int bucket_of(float p)
{
    if (!(p > 0))
        return BUCKETS;
    uint32_t bits;
    memcpy(&bits, &p, sizeof bits);
    int below = 127 - (int)(bits >> 23); /* p = 1.m * 2^-below */
    return below < BUCKETS ? below : BUCKETS;
}

static int by_likelihood(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The most likely candidates, sorted: at least enough for the filters, found without sorting the
 * rest. total is the sum of all relative probabilities. */
static size_t take_head(sampler *s, const struct sample_params *p, double total)
{
    size_t n_in[BUCKETS + 1] = {0};
    double mass_in[BUCKETS + 1] = {0};
    for (int32_t i = 0; i < s->n_vocab; i++) {
        int b = bucket_of(s->x[i]);
        n_in[b]++;
        mass_in[b] += (double)s->x[i];
    }
    size_t n = 0;
    double mass = 0;
    int last = 0;
    for (; last < BUCKETS; last++) {
        n += n_in[last];
        mass += mass_in[last];
        bool enough_k = p->top_k > 0 && n >= p->top_k;
        /* top-p is a share of what top-k leaves: then all of that is needed, also the part that
         * goes again. */
        bool share_of_all = p->top_k == 0 || p->top_p >= 1.0f;
        bool enough_p = share_of_all && p->top_p < 1.0f && mass >= (double)p->top_p * total;
        bool enough_min = share_of_all && p->min_p > 0 && ldexpf(1.0f, -last) < p->min_p;
        if (enough_k || enough_p || enough_min)
            break;
    }
    size_t taken = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (s->x[i] > 0 && bucket_of(s->x[i]) <= last)
            s->head[taken++] = (struct candidate){s->x[i], i};
    }
    qsort(s->head, taken, sizeof *s->head, by_likelihood);
    return taken;
}

/* How many of the sorted candidates pass the filters; *mass is their sum. total: of the whole
 * distribution. */
static size_t filter(const sampler *s, const struct sample_params *p, size_t n, double total,
                     double *mass)
{
    if (p->top_k > 0 && n > p->top_k)
        n = p->top_k;
    double all = total, sum = 0;
    if (p->top_k > 0) {
        all = 0;
        for (size_t i = 0; i < n; i++)
            all += (double)s->head[i].p;
    }
    size_t kept = 0;
    for (; kept < n; kept++) {
        bool full = p->top_p < 1.0f && sum >= (double)p->top_p * all;
        if (kept > 0 && (full || s->head[kept].p < p->min_p))
            break;
        sum += (double)s->head[kept].p;
    }
    *mass = sum;
    return kept;
}

static int32_t draw_all(const float *x, int32_t n, double at)
{
    int32_t last = 0;
    for (int32_t i = 0; i < n; i++) {
        if (x[i] <= 0)
            continue;
        last = i;
        at -= (double)x[i];
        if (at < 0)
            break;
    }
    return last;
}

static int32_t draw_head(const struct candidate *head, size_t n, double at)
{
    size_t i = 0;
    for (; i + 1 < n; i++) {
        at -= (double)head[i].p;
        if (at < 0)
            break;
    }
    return head[i].id;
}

static int32_t draw(sampler *s, const struct sample_params *p, const float *x,
                    const struct sample_input *in)
{
    float top = max_of(x, in->n_vocab);
    if (!(top > -INFINITY) || !(p->temperature > FLT_MIN))
        return greedy(x, in->n_vocab);
    double total = exp_all(x, s->x, in->n_vocab, top, 1.0f / p->temperature);
    if (!(total > 0 && total <= DBL_MAX)) /* logits that are no numbers: broken weights */
        return greedy(x, in->n_vocab);
    double u = uniform(p->seed, in->choice, in->n_generated);
    if (p->top_k == 0 && p->top_p >= 1.0f && p->min_p <= 0)
        return draw_all(s->x, in->n_vocab, u * total);
    double mass;
    size_t n = filter(s, p, take_head(s, p, total), total, &mass);
    return draw_head(s->head, n, u * mass);
}

void sampler_pick(sampler *s, const struct sample_params *p, const struct sample_input *in,
                  struct sampled *out)
{
    CHECK(in->n_vocab == s->n_vocab);
    const float *x = in->logits;
    if (adjusts(p)) {
        adjust(s, p, in);
        x = s->x;
    }
    out->n_top = 0;
    out->logprob = 0;
    out->id = p->temperature > 0 ? draw(s, p, x, in) : greedy(x, in->n_vocab);
    if (p->want_logprob || p->n_logprobs > 0)
        fill_logprobs(p, in, out);
}
