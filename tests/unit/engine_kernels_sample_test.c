#include "tests/unit/engine_testing.h"

#include <float.h>

#include "engine/math.h"

/* What the sampler does with tiles of logits: near the exact numbers, the same bits on every instruction set, no NaN. */

#define TILES 50

static void fill(struct rng *r, float *x, int round)
{
    static const float ODD[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, FLT_MAX, -FLT_MAX, 0x1p-149f};
    rng_floats(r, x, SAMPLE_TILE, powf(10, (float)(round % 5) - 1));
    for (int i = 0; i < round % 9; i++)
        x[rng_u32(r) % SAMPLE_TILE] = ODD[rng_u32(r) % ARRAY_LEN(ODD)];
}

static void the_largest_is_found_and_nan_passed_over(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct rng r = {1};
    float x[SAMPLE_TILE];
    for (int round = 0; round < TILES; round++) {
        fill(&r, x, round);
        float most = -INFINITY;
        for (int i = 0; i < SAMPLE_TILE; i++)
            most = x[i] > most ? x[i] : most;
        for (size_t s = 0; s < n_k; s++)
            assert_true(k[s]->sample_max(x) == most);
    }
    for (int i = 0; i < SAMPLE_TILE; i++)
        x[i] = NAN;
    for (size_t s = 0; s < n_k; s++) {
        for (int i = 0; i < SAMPLE_TILE; i++) { /* wherever it is */
            x[i] = (float)-i;
            assert_true(k[s]->sample_max(x) == (float)-i);
            x[i] = NAN;
        }
        assert_true(k[s]->sample_max(x) == -INFINITY);
    }
}

static void shares_are_those_of_the_engines_own_mathematics(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct rng r = {2};
    float x[SAMPLE_TILE], want[SAMPLE_TILE], got[SAMPLE_TILE];
    for (int round = 0; round < TILES; round++) {
        float top = -INFINITY, scale = powf(7, (float)(round % 4) - 2);
        fill(&r, x, round);
        for (int i = 0; i < SAMPLE_TILE; i++)
            top = x[i] > top && x[i] < INFINITY ? x[i] : top;
        for (int i = 0; i < SAMPLE_TILE; i++)
            x[i] = x[i] > top ? top : x[i];
        double lane[16] = {0}, exact = 0;
        for (int i = 0; i < SAMPLE_TILE; i++) {
            want[i] = math_exp2_share((x[i] - top) * scale);
            lane[i % 16] += (double)want[i];
            double y = ((double)x[i] - (double)top) * (double)scale;
            if (y > -63)
                assert_true(fabs((double)want[i] - exp2((double)((x[i] - top) * scale))) <= 4e-7 * (double)want[i]);
        }
        for (int i = 0; i < 16; i++)
            exact += lane[i];
        float sum = 0;
        for (size_t s = 0; s < n_k; s++) {
            float a = k[s]->sample_exp(x, top, scale, got), b = k[s]->sample_exp(x, top, scale, NULL);
            assert_same_bits(got, want, SAMPLE_TILE, k[s]->name);
            sum = s == 0 ? a : sum;
            assert_true(a == sum && b == sum);
            assert_true(fabs((double)a - exact) <= 2e-6 * exact);
        }
    }
    assert_true(math_exp2_share(0) == 1 && math_exp2_share(-63) == 0 && math_exp2_share(-62) == 0x1p-62f);
    assert_true(math_exp2_share(NAN) == 0 && math_exp2_share(-INFINITY) == 0 && math_exp2_share(-FLT_MAX) == 0);
}

static void what_lies_above_bounds_is_weighed(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct rng r = {3};
    float x[SAMPLE_TILE], w[SAMPLE_TILE], first[SAMPLE_CUTS];
    for (int round = 0; round < TILES; round++) {
        rng_floats(&r, x, SAMPLE_TILE, 3);
        for (int i = 0; i < SAMPLE_TILE; i++)
            w[i] = fabsf(rng_f(&r));
        float least[SAMPLE_CUTS] = {x[3], rng_f(&r), round % 2 ? 100 : -100};
        double mass[SAMPLE_CUTS] = {0}, number[SAMPLE_CUTS] = {0};
        for (int i = 0; i < SAMPLE_TILE; i++)
            for (int c = 0; c < SAMPLE_CUTS; c++)
                if (x[i] >= least[c])
                    mass[c] += (double)w[i], number[c]++;
        for (size_t s = 0; s < n_k; s++) {
            float got[SAMPLE_CUTS];
            k[s]->sample_above(x, w, least, got);
            for (int c = 0; c < SAMPLE_CUTS; c++)
                assert_true(fabs((double)got[c] - mass[c]) <= 1e-5 * mass[c]);
            if (s == 0)
                memcpy(first, got, sizeof first);
            assert_same_bits(got, first, SAMPLE_CUTS, k[s]->name);
            k[s]->sample_above(x, NULL, least, got);
            for (int c = 0; c < SAMPLE_CUTS; c++)
                assert_true((double)got[c] == number[c]);
        }
    }
}

static void those_of_at_least_a_bound_are_taken_in_order(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct rng r = {4};
    float x[SAMPLE_TILE], out[SAMPLE_TILE + 17];
    int32_t ids[SAMPLE_TILE + 17];
    for (int round = 0; round < TILES; round++) {
        fill(&r, x, round);
        float least = round % 3 == 0 ? -FLT_MAX : round % 3 == 1 ? x[9] : 1;
        for (size_t s = 0; s < n_k; s++) {
            out[SAMPLE_TILE + 16] = 77, ids[SAMPLE_TILE + 16] = 77;
            size_t n = k[s]->sample_take(x, least, 1000, out, ids), at = 0;
            for (int i = 0; i < SAMPLE_TILE; i++) {
                if (!(x[i] >= least))
                    continue;
                assert_true(at < n && ids[at] == 1000 + i);
                assert_same_bits(out + at++, x + i, 1, k[s]->name);
            }
            assert_int_equal(n, at);
            assert_true(out[SAMPLE_TILE + 16] == 77 && ids[SAMPLE_TILE + 16] == 77); /* not beyond its slack */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_is_found_and_nan_passed_over),
        cmocka_unit_test(shares_are_those_of_the_engines_own_mathematics),
        cmocka_unit_test(what_lies_above_bounds_is_weighed),
        cmocka_unit_test(those_of_at_least_a_bound_are_taken_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
