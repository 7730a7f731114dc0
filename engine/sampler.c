/* Penalties, filters and the draw, in the order that the parameters are documented in: repetition,
 * presence and frequency penalty, bias, temperature, top-k, top-p, min-p.
 *
 * A vocabulary has up to a million entries and a token is worth milliseconds, so the logits are
 * read once, in tiles: of each its maximum and, where the draw needs it, its sum of exponentials.
 * After that only tiles are looked at whose maximum can matter. Nothing is sorted: filters cut at a
 * logit, and the draw walks what they leave in the order of ids. All of it is IEEE arithmetic in a
 * fixed order, the same on any instruction set. */
#include <float.h>
#include <math.h>

#include "engine/math.h"
#include "engine/sampler_int.h"

static void new_tiles(struct tiles *t, size_t n)
{
    size_t whole = (n + TILE - 1) / TILE * TILE;
    t->at = xcalloc(n, sizeof *t->at);
    t->max = xcalloc(whole, sizeof *t->max);
    t->mass = xcalloc(n, sizeof *t->mass);
    for (size_t i = n; i < whole; i++)
        t->max[i] = -INFINITY;
}

static void clear_tiles(struct tiles *t)
{
    free(t->at);
    free(t->max);
    free(t->mass);
}

int sampler_new(int32_t n_vocab, const char *isa, sampler **out, struct why *w)
{
    CHECK(n_vocab > 0 && n_vocab <= ENGINE_VOCAB_MAX);
    *out = NULL;
    const struct kernels *k;
    int err = kernels_choose(isa && *isa ? isa : getenv("NUNCHI_ISA"), &k, w);
    if (err < 0)
        return err;
    sampler *s = xcalloc(1, sizeof *s);
    s->k = k;
    s->n_vocab = n_vocab;
    s->n_tiles = ((size_t)n_vocab + TILE - 1) / TILE;
    size_t room = (s->n_tiles + 1) * TILE;
    new_tiles(&s->given, s->n_tiles);
    new_tiles(&s->adjusted, s->n_tiles);
    s->own = xcalloc(room, sizeof *s->own);
    s->count = xcalloc((size_t)n_vocab, sizeof *s->count);
    s->x = xcalloc(room, sizeof *s->x);
    s->p = xcalloc(room, sizeof *s->p);
    s->id = xcalloc(room, sizeof *s->id);
    s->mass = xcalloc(s->n_tiles + 1, sizeof *s->mass);
    *out = s;
    return 0;
}

void sampler_free(sampler *s)
{
    if (!s)
        return;
    clear_tiles(&s->given);
    clear_tiles(&s->adjusted);
    free(s->own);
    free(s->count);
    free(s->x);
    free(s->p);
    free(s->id);
    free(s->mass);
    free(s);
}

/* ---- tiles ---- */

static void lay_out(sampler *s, const float *logits)
{
    size_t whole = (size_t)s->n_vocab / TILE, rest = (size_t)s->n_vocab % TILE;
    for (size_t i = 0; i < whole; i++)
        s->given.at[i] = logits + i * TILE;
    if (!rest)
        return;
    memcpy(s->tail, logits + whole * TILE, rest * sizeof *s->tail);
    for (size_t i = rest; i < TILE; i++)
        s->tail[i] = -INFINITY;
    s->given.at[whole] = s->tail;
}

static void survey_tile(const sampler *s, struct tiles *t, size_t i)
{
    t->max[i] = s->k->sample_max(t->at[i]);
    if (t->scale > 0)
        t->mass[i] = s->k->sample_exp(t->at[i], t->max[i], t->scale, NULL);
}

/* From each tile's own maximum to the largest. */
static void survey_all(const sampler *s, struct tiles *t)
{
    float share[TILE];
    t->top = -INFINITY;
    for (size_t i = 0; i < s->n_tiles; i++)
        t->top = t->max[i] > t->top ? t->max[i] : t->top;
    t->total = 0;
    for (size_t i = 0; t->scale > 0 && i < s->n_tiles; i++) {
        if (i % TILE == 0)
            s->k->sample_exp(t->max + i, t->top, t->scale, share);
        t->mass[i] *= share[i % TILE];
        t->total += (double)t->mass[i];
    }
}

/* ---- logprobs: of the model's own distribution ---- */

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

static void fill_logprobs(sampler *s, const struct sample_params *p, const struct sample_input *in,
                          struct sampled *out)
{
    if (!(s->given.total > 0)) /* broken weights */
        return;
    double norm = (double)s->given.top + math_log64(s->given.total);
    float own = in->logits[out->id];
    out->logprob = own >= -INFINITY ? (float)((double)own - norm) : -INFINITY; /* not of a NaN */
    uint32_t want = p->n_logprobs < SAMPLE_LOGPROBS_MAX ? p->n_logprobs : SAMPLE_LOGPROBS_MAX;
    if (want == 0)
        return;
    size_t n = sampler_take(s, &s->given, sampler_reached_by(s, &s->given, want));
    for (size_t i = 0; i < n; i++)
        put_top(out, want, s->x[i], s->id[i]);
    for (uint32_t i = 0; i < out->n_top; i++)
        out->top[i].logprob = (float)((double)out->top[i].logprob - norm);
}

/* ---- penalties and bias ---- */

static bool valid(const sampler *s, int32_t id)
{
    return id >= 0 && id < s->n_vocab;
}

/* Where the adjusted logit of an id lies: its tile is copied the first time. */
static float *adjusted_of(sampler *s, int32_t id)
{
    size_t i = (size_t)id / TILE;
    float *own = s->own + i * TILE;
    if (s->adjusted.at[i] != own) {
        memcpy(own, s->adjusted.at[i], TILE * sizeof *own);
        s->adjusted.at[i] = own;
    }
    return s->own + id;
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
        float *x = adjusted_of(s, ids[i]);
        *x = *x > 0 ? *x / penalty : *x * penalty;
        s->count[ids[i]] = 0;
    }
}

static bool repeats(const struct sample_params *p)
{
    return p->repetition_penalty > 0 && p->repetition_penalty != 1.0f;
}

static void penalise(sampler *s, const struct sample_params *p, const struct sample_input *in)
{
    if (repeats(p)) {
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
        *adjusted_of(s, id) -= p->presence_penalty + p->frequency_penalty * (float)s->count[id];
        s->count[id] = 0;
    }
}

static bool adjusts(const struct sample_params *p)
{
    return repeats(p) || p->presence_penalty != 0 || p->frequency_penalty != 0 || p->n_bias > 0 ||
           p->forbid_ends;
}

static void adjust(sampler *s, const struct sample_params *p, const struct sample_input *in)
{
    penalise(s, p, in);
    for (size_t i = 0; i < p->n_bias; i++) {
        if (!valid(s, p->bias[i].id))
            continue;
        float *x = adjusted_of(s, p->bias[i].id);
        *x = p->bias[i].add <= -100.0f ? -INFINITY : *x + p->bias[i].add;
    }
    for (size_t i = 0; p->forbid_ends && i < in->n_ends; i++) {
        if (valid(s, in->ends[i]))
            *adjusted_of(s, in->ends[i]) = -INFINITY;
    }
}

/* ---- the draw ---- */

/* Stafford's mix 13 of splitmix64 (G. Steele, D. Lea, C. Flood: Fast splittable pseudorandom number
 * generators, 2014). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In (0, 1]: a function of the three numbers alone, so that any worker at any time draws the same.
 */
static double uniform(uint64_t seed, uint64_t choice, uint64_t position)
{
    uint64_t h = mix(seed + 0x9e3779b97f4a7c15u);
    h = mix(h ^ (choice + 0x9e3779b97f4a7c15u));
    h = mix(h ^ (position + 0x9e3779b97f4a7c15u));
    return (double)((h >> 11) + 1) * 0x1p-53;
}

/* The first at which the sum reaches *at, which becomes what is left for it to give. Where rounding
 * makes the sum less than that, the last that has any. */
static size_t reach(const float *mass, size_t n, double *at)
{
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(mass[i] > 0))
            continue;
        if (*at <= (double)mass[i])
            return i;
        *at -= (double)mass[i];
        last = i;
    }
    *at = (double)mass[last];
    return last;
}

/* Within a tile; `at` of its `mass`. */
static size_t reach_within(const sampler *s, const float *x, float top, float scale, double at,
                           double mass)
{
    float share[TILE];
    double left = at / mass * (double)s->k->sample_exp(x, top, scale, share);
    return reach(share, TILE, &left);
}

static int32_t draw(sampler *s, const struct tiles *t, double u)
{
    double at = u * t->total;
    size_t i = reach(t->mass, s->n_tiles, &at);
    return (int32_t)(i * TILE +
                     reach_within(s, t->at[i], t->max[i], t->scale, at, (double)t->mass[i]));
}

static int32_t draw_candidate(sampler *s, size_t n, float top, float scale, double u)
{
    double at = u * sampler_weigh(s, n, top, scale);
    size_t i = reach(s->mass, (n + TILE - 1) / TILE, &at);
    return s->id[i * TILE + reach_within(s, s->x + i * TILE, top, scale, at, (double)s->mass[i])];
}

/* Of several the first. */
static int32_t best(const sampler *s, const struct tiles *t)
{
    for (size_t i = 0; t->top > -INFINITY && i < s->n_tiles; i++)
        for (size_t j = 0; t->max[i] == t->top && j < TILE; j++)
            if (t->at[i][j] == t->top)
                return (int32_t)(i * TILE + j);
    return 0; /* no number among them */
}

/* Binary exponents a logit; 0: greedy. Beyond 1e9 everything is equally likely. */
static float scale_of(const struct sample_params *p)
{
    if (!(p->temperature > FLT_MIN))
        return 0;
    return LOG2E / (p->temperature < 1e9f ? p->temperature : 1e9f);
}

static int32_t choose(sampler *s, const struct tiles *t, const struct sample_params *p,
                      const struct sample_input *in)
{
    float scale = scale_of(p);
    if (scale == 0 || !(t->top > -INFINITY && t->top < INFINITY))
        return best(s, t);
    double u = uniform(p->seed, in->choice, in->n_generated);
    if (!sampler_filters(p))
        return draw(s, t, u);
    return draw_candidate(s, sampler_filter(s, t, p, scale), t->top, scale, u);
}

/* Sums over the whole vocabulary are wanted where nothing, or a share of everything, is cut away.
 */
static float scale_of_masses(const struct sample_params *p)
{
    bool of_all = p->top_k == 0 && (p->top_p < 1.0f || !sampler_filters(p));
    return of_all ? scale_of(p) : 0;
}

void sampler_pick(sampler *s, const struct sample_params *p, const struct sample_input *in,
                  struct sampled *out)
{
    CHECK(in->n_vocab == s->n_vocab);
    bool wants_logprobs = p->want_logprob || p->n_logprobs > 0;
    struct tiles *given = &s->given, *t = &s->adjusted;
    lay_out(s, in->logits);
    memcpy(t->at, given->at, s->n_tiles * sizeof *t->at);
    if (adjusts(p))
        adjust(s, p, in);
    given->scale = wants_logprobs ? LOG2E : 0;
    t->scale = scale_of_masses(p);
    for (size_t i = 0; i < s->n_tiles; i++) {
        if (wants_logprobs)
            survey_tile(s, given, i);
        survey_tile(s, t, i);
    }
    survey_all(s, t);
    out->n_top = 0;
    out->logprob = 0;
    out->id = in->forced ? *in->forced : choose(s, t, p, in);
    if (!wants_logprobs)
        return;
    survey_all(s, given);
    fill_logprobs(s, p, in, out);
}
