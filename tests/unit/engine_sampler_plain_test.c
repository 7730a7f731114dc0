/* The sampler beside its definition, written down plainly: double precision, everything sorted, everything looked at. And
 * that every instruction set picks the same, to the bit. */
#include "tests/unit/engine_testing.h"

#include <float.h>

#define N_MAX 5000
#define IDS_MAX 300
#define ROUNDS 4000

/* Shares are single precision in the sampler: where a bound falls so near to it, either side is right. */
#define NEAR 3e-6

struct scene {
    struct rng r;
    int32_t n;
    float logits[N_MAX];
    int32_t prompt[IDS_MAX], said[IDS_MAX], ends[3];
    struct sample_bias bias[50];
    struct sample_params p;
    struct sample_input in;
};

static uint32_t below(struct scene *s, uint32_t n)
{
    return rng_u32(&s->r) % n;
}

#define ONE_OF(s, ...) ((const float[]){__VA_ARGS__}[below(s, sizeof((float[]){__VA_ARGS__}) / sizeof(float))])

/* ---- scenes --------------------------------------------------------------------------------------------------- */

static void fill_logits(struct scene *s)
{
    float scale = ONE_OF(s, 0.001f, 1, 3, 10, 100), shift = ONE_OF(s, 0, -40, 25), step = ONE_OF(s, 0, 0, 0.5f, 8);
    for (int32_t i = 0; i < s->n; i++) {
        float x = rng_f(&s->r) * scale + shift;
        s->logits[i] = step > 0 ? step * roundf(x / step) : x; /* rounded: many are equal */
    }
    if (below(s, 8) == 0)
        for (int32_t i = 0; i < s->n; i++)
            s->logits[i] = i % 3 ? 1 : -0.0f;
    for (uint32_t i = below(s, 4); i > 0; i--)
        s->logits[below(s, (uint32_t)s->n)] += ONE_OF(s, 10, 20, 2);
    for (uint32_t i = below(s, 6) == 0 ? below(s, (uint32_t)s->n) : 0; i > 0; i--)
        s->logits[below(s, (uint32_t)s->n)] = ONE_OF(s, -INFINITY, NAN);
}

static size_t fill_ids(struct scene *s, int32_t *ids)
{
    size_t n = below(s, 2) ? below(s, IDS_MAX + 1) : 0;
    for (size_t i = 0; i < n; i++) /* a few are none */
        ids[i] = (int32_t)below(s, (uint32_t)s->n + 3) - 1;
    return n;
}

static void fill_params(struct scene *s)
{
    struct sample_params *p = &s->p;
    *p = (struct sample_params){.temperature = ONE_OF(s, 0, 0.05f, 0.7f, 1, 1, 2, 100),
                                .top_p = ONE_OF(s, 1, 1, 0.95f, 0.9f, 0.5f, 0.01f, 0),
                                .min_p = ONE_OF(s, 0, 0, 0.05f, 0.5f, 1),
                                .top_k = (uint32_t)ONE_OF(s, 0, 0, 1, 2, 7, 40, 300, 1e6f),
                                .repetition_penalty = ONE_OF(s, 1, 1, 1.1f, 0.5f),
                                .presence_penalty = ONE_OF(s, 0, 0, 0.5f, -2),
                                .frequency_penalty = ONE_OF(s, 0, 0, 0.3f, -0.1f),
                                .want_logprob = below(s, 2),
                                .n_logprobs = below(s, 3) ? 0 : below(s, 21),
                                .forbid_ends = below(s, 4) == 0,
                                .seed = rng_u32(&s->r),
                                .bias = s->bias,
                                .n_bias = below(s, 3) ? 0 : below(s, ARRAY_LEN(s->bias) + 1)};
    for (size_t i = 0; i < p->n_bias; i++)
        s->bias[i] = (struct sample_bias){(int32_t)below(s, (uint32_t)s->n + 1), ONE_OF(s, -100, 3, -1, 100)};
}

static void next_scene(struct scene *s)
{
    static const int32_t SIZES[] = {1, 2, 15, 16, 17, 255, 256, 257, 1000, 4096, N_MAX};
    s->n = SIZES[below(s, ARRAY_LEN(SIZES))];
    fill_logits(s);
    fill_params(s);
    for (size_t i = 0; i < ARRAY_LEN(s->ends); i++)
        s->ends[i] = (int32_t)below(s, (uint32_t)s->n);
    s->in = (struct sample_input){.logits = s->logits, .n_vocab = s->n, .prompt = s->prompt, .generated = s->said, .ends = s->ends,
                                  .n_prompt = fill_ids(s, s->prompt), .n_generated = fill_ids(s, s->said), .choice = below(s, 3),
                                  .n_ends = ARRAY_LEN(s->ends)};
}

/* ---- the definition ------------------------------------------------------------------------------------------- */

static float adjusted[N_MAX];
static int32_t order[N_MAX]; /* likeliest first */
static const float *by;

static int likelier(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (by[i] != by[j])
        return by[i] > by[j] ? -1 : 1;
    return i < j ? -1 : i > j;
}

static void sort_by(const float *x, int32_t n)
{
    by = x;
    for (int32_t i = 0; i < n; i++)
        order[i] = i;
    qsort(order, (size_t)n, sizeof *order, likelier);
}

static uint32_t count(const int32_t *ids, size_t n, int32_t id)
{
    uint32_t c = 0;
    for (size_t i = 0; i < n; i++)
        c += ids[i] == id;
    return c;
}

static void adjust_plainly(const struct scene *s)
{
    const struct sample_params *p = &s->p;
    for (int32_t id = 0; id < s->n; id++) {
        float x = isnan(s->logits[id]) ? -INFINITY : s->logits[id];
        uint32_t said = count(s->said, s->in.n_generated, id);
        if (said + count(s->prompt, s->in.n_prompt, id) > 0)
            x = x > 0 ? x / p->repetition_penalty : x * p->repetition_penalty;
        if (said > 0)
            x -= p->presence_penalty + p->frequency_penalty * (float)said;
        for (size_t i = 0; i < p->n_bias; i++)
            if (p->bias[i].id == id)
                x = p->bias[i].add <= -100 ? -INFINITY : x + p->bias[i].add;
        if (p->forbid_ends && count(s->ends, ARRAY_LEN(s->ends), id))
            x = -INFINITY;
        adjusted[id] = x;
    }
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double uniform(uint64_t seed, uint64_t choice, uint64_t position)
{
    uint64_t h = mix(seed + 0x9e3779b97f4a7c15u);
    h = mix(h ^ (choice + 0x9e3779b97f4a7c15u));
    h = mix(h ^ (position + 0x9e3779b97f4a7c15u));
    return (double)((h >> 11) + 1) * 0x1p-53;
}

static double share_of(const struct scene *s, int32_t id)
{
    double top = (double)adjusted[order[0]];
    return exp(((double)adjusted[id] - top) / (double)s->p.temperature);
}

/* How many of the order pass the filters; the two bounds can be moved a little. */
static int32_t passing(const struct scene *s, double top_p_by, double min_p_by)
{
    const struct sample_params *p = &s->p;
    int32_t n = p->top_k > 0 && p->top_k < (uint32_t)s->n ? (int32_t)p->top_k : s->n, kept = 0;
    double all = 0, sum = 0;
    for (int32_t i = 0; i < n; i++)
        all += share_of(s, order[i]);
    for (; kept < n; kept++) {
        double share = share_of(s, order[kept]);
        bool full = p->top_p < 1 && sum >= (double)p->top_p * all * top_p_by;
        if (kept > 0 && (full || share < (double)p->min_p * min_p_by))
            break;
        sum += share;
    }
    return kept;
}

/* Whether the draw among the first n of the order, walked by ids, could be this one. */
static bool could_draw(const struct scene *s, int32_t n, int32_t id)
{
    static bool in[N_MAX];
    double mass = 0, before = 0;
    memset(in, 0, sizeof in);
    for (int32_t i = 0; i < n; i++) {
        in[order[i]] = true;
        mass += share_of(s, order[i]);
    }
    for (int32_t i = 0; i < id; i++)
        before += in[i] ? share_of(s, i) : 0;
    double at = mass * uniform(s->p.seed, s->in.choice, s->in.n_generated), own = share_of(s, id);
    return in[id] && own > 0 && at >= before - NEAR * mass && at <= before + own + NEAR * mass;
}

static bool could_be(const struct scene *s, int32_t id)
{
    static const double BY[] = {1, 1 - NEAR, 1 + NEAR};
    adjust_plainly(s);
    sort_by(adjusted, s->n);
    if (adjusted[order[0]] == -INFINITY)
        return id == 0;
    if (s->p.temperature == 0)
        return id == order[0];
    for (size_t i = 0; i < ARRAY_LEN(BY); i++)
        for (size_t j = 0; j < ARRAY_LEN(BY); j++)
            if (could_draw(s, passing(s, BY[i], BY[j]), id))
                return true;
    return false;
}

static void check_logprobs(const struct scene *s, const struct sampled *out)
{
    static float x[N_MAX];
    double sum = 0;
    for (int32_t i = 0; i < s->n; i++)
        x[i] = isnan(s->logits[i]) ? -INFINITY : s->logits[i];
    sort_by(x, s->n);
    double top = (double)x[order[0]];
    if (top == -(double)INFINITY)
        return;
    for (int32_t i = 0; i < s->n; i++)
        sum += exp((double)x[i] - top);
    double norm = top + log(sum), slack = 2e-6 + 1e-7 * fabs(norm);
    if (x[out->id] > -INFINITY)
        assert_true(fabs((double)out->logprob - ((double)x[out->id] - norm)) <= slack + 1e-7 * fabs((double)out->logprob));
    uint32_t want = s->p.n_logprobs, n = 0;
    while (n < want && n < (uint32_t)s->n && x[order[n]] > -INFINITY)
        n++;
    assert_int_equal(out->n_top, n);
    for (uint32_t i = 0; i < n; i++) {
        double expect = (double)x[order[i]] - norm;
        assert_int_equal(out->top[i].id, order[i]);
        assert_true(fabs((double)out->top[i].logprob - expect) <= slack + 1e-7 * fabs(expect));
    }
}

/* ---- tests ---------------------------------------------------------------------------------------------------- */

static void pick_on(const char *isa, const struct scene *s, struct sampled *out)
{
    sampler *on;
    assert_int_equal(sampler_new(s->n, isa, &on, NULL), 0);
    memset(out, 0, sizeof *out);
    sampler_pick(on, &s->p, &s->in, out);
    sampler_free(on);
}

static void it_picks_what_the_definition_says_on_every_instruction_set(void **state UNUSED)
{
    static struct scene s = {.r = {2024}};
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    for (int round = 0; round < ROUNDS; round++) {
        next_scene(&s);
        struct sampled first, other;
        pick_on(k[0]->name, &s, &first);
        assert_in_range(first.id, 0, s.n - 1);
        if (!could_be(&s, first.id))
            fail_msg("round %d: %d is not what should be drawn", round, first.id);
        if (s.p.want_logprob || s.p.n_logprobs > 0)
            check_logprobs(&s, &first);
        for (size_t i = 1; i < n_k; i++) {
            pick_on(k[i]->name, &s, &other);
            assert_memory_equal(&other, &first, sizeof first);
        }
    }
}

/* A sampler that has been used for anything is as good as a new one. */
static void nothing_is_left_behind(void **state UNUSED)
{
    static struct scene s = {.r = {7}};
    sampler *used;
    assert_int_equal(sampler_new(4096, NULL, &used, NULL), 0);
    for (int round = 0; round < ROUNDS; round++) {
        next_scene(&s);
        if (s.n != 4096)
            continue;
        struct sampled a, b;
        pick_on(NULL, &s, &a);
        memset(&b, 0, sizeof b);
        sampler_pick(used, &s.p, &s.in, &b);
        assert_memory_equal(&a, &b, sizeof a);
    }
    sampler_free(used);
}

/* How often ids come beside how often they should: within six standard deviations, each of the likely ones and all others
 * together. */
static void check_frequencies(struct scene *s)
{
    enum { DRAWS = 60000 };
    static uint32_t seen[N_MAX];
    static double expect[N_MAX];
    sampler *on;
    memset(seen, 0, sizeof seen);
    memset(expect, 0, sizeof expect);
    assert_int_equal(sampler_new(s->n, NULL, &on, NULL), 0);
    for (uint64_t i = 0; i < DRAWS; i++) {
        struct sampled out;
        s->p.seed = i;
        sampler_pick(on, &s->p, &s->in, &out);
        seen[out.id]++;
    }
    sampler_free(on);
    adjust_plainly(s);
    sort_by(adjusted, s->n);
    int32_t n = passing(s, 1, 1);
    double mass = 0, rest = 0, rest_seen = 0;
    for (int32_t i = 0; i < n; i++)
        mass += expect[order[i]] = share_of(s, order[i]);
    for (int32_t i = 0; i < s->n; i++) {
        double e = expect[i] / mass * DRAWS;
        if (e < 30)
            rest += e, rest_seen += seen[i];
        else
            assert_true(fabs(seen[i] - e) < 6 * sqrt(e));
        if (e == 0)
            assert_int_equal(seen[i], 0);
    }
    assert_true(fabs(rest_seen - rest) < 6 * sqrt(rest + 1));
}

static void frequencies_are_those_of_the_definition(void **state UNUSED)
{
    static struct scene s = {.r = {5}};
    static const struct sample_params WAYS[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.6f, .top_p = 0.93f},
        {.temperature = 1.5f, .top_p = 1, .top_k = 33},
        {.temperature = 1, .top_p = 0.8f, .top_k = 50, .min_p = 0.01f},
        {.temperature = 1, .top_p = 1, .min_p = 0.02f},
    };
    s.n = 3000;
    for (size_t i = 0; i < ARRAY_LEN(WAYS); i++) {
        for (int32_t k = 0; k < s.n; k++)
            s.logits[k] = 2.5f * rng_f(&s.r) * rng_f(&s.r) * 4;
        s.p = WAYS[i];
        s.p.repetition_penalty = 1;
        s.in = (struct sample_input){.logits = s.logits, .n_vocab = s.n};
        check_frequencies(&s);
    }
}

/* Parameters that a service would refuse, and logits that are no numbers: an id all the same, and no share for them. */
static void whatever_it_is_given(void **state UNUSED)
{
    static struct scene s = {.r = {11}};
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    for (int round = 0; round < 2000; round++) {
        next_scene(&s);
        s.p.temperature = ONE_OF(&s, NAN, INFINITY, -1, 1e-45f, FLT_MIN, 1e38f, 1);
        s.p.top_p = ONE_OF(&s, NAN, -1, 2, 0.9999999f, 1e-45f);
        s.p.min_p = ONE_OF(&s, NAN, -1, 2, 1e-45f, INFINITY);
        s.p.top_k = below(&s, 2) ? UINT32_MAX : 0;
        s.p.repetition_penalty = ONE_OF(&s, NAN, 0, -1, INFINITY, 1e-45f);
        s.p.n_logprobs = below(&s, 2) ? UINT32_MAX : 0;
        for (uint32_t i = below(&s, 3); i > 0; i--)
            s.logits[below(&s, (uint32_t)s.n)] = ONE_OF(&s, INFINITY, NAN, FLT_MAX, -FLT_MAX);
        struct sampled first, other;
        pick_on(k[0]->name, &s, &first);
        assert_in_range(first.id, 0, s.n - 1);
        assert_true(first.n_top <= SAMPLE_LOGPROBS_MAX && !isnan(first.logprob));
        for (size_t i = 1; i < n_k; i++) {
            pick_on(k[i]->name, &s, &other);
            assert_memory_equal(&other, &first, sizeof first);
        }
    }
}

static void an_unknown_instruction_set_is_an_error(void **state UNUSED)
{
    sampler *s;
    struct why w = {0};
    assert_int_equal(sampler_new(10, "mmx", &s, &w), ERR_INVALID);
    assert_null(s);
    assert_string_equal(w.field, "isa");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_picks_what_the_definition_says_on_every_instruction_set),
        cmocka_unit_test(nothing_is_left_behind),
        cmocka_unit_test(frequencies_are_those_of_the_definition),
        cmocka_unit_test(whatever_it_is_given),
        cmocka_unit_test(an_unknown_instruction_set_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
