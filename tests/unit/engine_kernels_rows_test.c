#include "tests/unit/engine_testing.h"
#include "engine/math.h"

/* What works on rows: the same bits on every instruction set, near the same in double precision, and element by element
 * the functions of engine/math.h. */

#define N_MAX 700

static void activations_are_those_of_the_engines_own_mathematics(void **state UNUSED)
{
    static float (*const WANT[])(float) = {[ACT_SILU] = math_silu, [ACT_GELU_TANH] = math_gelu_tanh, [ACT_GELU_ERF] = math_gelu_erf};
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    float x[N_MAX], want[N_MAX], got[N_MAX];
    struct rng r = {3};
    for (int round = 0; round < 40; round++) {
        rng_floats(&r, x, N_MAX, powf(10, (float)(round % 8) - 4));
        x[0] = 0, x[1] = -0.0f, x[2] = INFINITY, x[3] = -INFINITY, x[4] = 88.8f, x[5] = -104, x[6] = 0.625f, x[7] = 4;
        for (int fn = 0; fn < 3; fn++) {
            for (int i = 0; i < N_MAX; i++)
                want[i] = WANT[fn](x[i]);
            for (size_t s = 0; s < n_k; s++) {
                size_t n = (size_t)(N_MAX - round); /* ends within a register */
                memset(got, 0x55, sizeof got);
                k[s]->act_mul((enum act_fn)fn, x, NULL, got, n);
                for (size_t i = 0; i < n; i++)
                    if (isnan(want[i]))
                        assert_true(isnan(got[i]));
                    else
                        assert_same_bits(got + i, want + i, 1, k[s]->name);
                if (n < N_MAX)
                    assert_int_equal(float_bits(got[n]), 0x55555555u); /* nothing behind the row is written */
            }
        }
    }
}

static void a_nan_stays_one(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    for (size_t s = 0; s < n_k; s++)
        for (int fn = 0; fn < 3; fn++) {
            float x[16] = {NAN}, got[16];
            k[s]->act_mul((enum act_fn)fn, x, NULL, got, 16);
            assert_true(isnan(got[0]) && !isnan(got[1]));
        }
}

static void norms_are_near_the_exact_ones_and_equal_everywhere(void **state UNUSED)
{
    static const size_t WIDTHS[] = {1, 15, 16, 17, 64, 576, 640, 700};
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    float x[N_MAX], w[N_MAX], b[N_MAX], rms[N_MAX], layer[N_MAX], got[N_MAX];
    struct rng r = {8};
    for (size_t t = 0; t < ARRAY_LEN(WIDTHS); t++) {
        size_t n = WIDTHS[t];
        rng_floats(&r, x, n, 4);
        rng_floats(&r, w, n, 1);
        rng_floats(&r, b, n, 1);
        double mean = 0, square = 0, var = 0;
        for (size_t i = 0; i < n; i++)
            mean += (double)x[i] / (double)n, square += (double)x[i] * (double)x[i] / (double)n;
        for (size_t i = 0; i < n; i++)
            var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
        k[n_k - 1]->norm_rms(x, w, 1e-5f, rms, n);
        k[n_k - 1]->norm_layer(x, w, b, 1e-5f, layer, n);
        for (size_t i = 0; i < n; i++) {
            assert_true(fabs((double)rms[i] - (double)x[i] * (double)w[i] / sqrt(square + 1e-5)) < 3e-6);
            assert_true(fabs((double)layer[i] - (((double)x[i] - mean) / sqrt(var + 1e-5) * (double)w[i] + (double)b[i])) < 6e-6);
        }
        for (size_t s = 0; s < n_k; s++) {
            k[s]->norm_rms(x, w, 1e-5f, got, n);
            assert_same_bits(got, rms, n, "rms");
            k[s]->norm_layer(x, w, b, 1e-5f, got, n);
            assert_same_bits(got, layer, n, "layer");
            memcpy(got, x, sizeof got);
            k[s]->norm_rms(got, w, 1e-5f, got, n); /* in place */
            assert_same_bits(got, rms, n, "rms in place");
        }
    }
}

static void rope_turns_pairs(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    for (size_t s = 0; s < n_k; s++) {
        float half[6] = {1, 2, 3, 4, 5, 6}, pairs[6] = {1, 2, 3, 4, 5, 6}, cs[4] = {0, 1, 1, 0}; /* a quarter turn; none */
        k[s]->rope(ROPE_HALF, half, cs, 4);
        assert_memory_equal(half, ((float[]){-3, 2, 1, 4, 5, 6}), sizeof half);
        k[s]->rope(ROPE_INTERLEAVED, pairs, cs, 4);
        assert_memory_equal(pairs, ((float[]){-2, 1, 3, 4, 5, 6}), sizeof pairs);
    }
}

static void scaling_and_capping(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct rng r = {9};
    float x[100], want[100], got[100];
    rng_floats(&r, x, 100, 60);
    for (size_t s = n_k; s-- > 0;) {
        memcpy(got, x, sizeof x);
        k[s]->scale(got, 0.5f, 30, 100);
        if (s == n_k - 1)
            memcpy(want, got, sizeof got);
        for (int i = 0; i < 100; i++)
            assert_true(fabs((double)got[i] - 30 * tanh((double)x[i] * 0.5 / 30)) < 2e-5);
        assert_same_bits(got, want, 100, k[s]->name);
        memcpy(got, x, sizeof x);
        k[s]->scale(got, 2, 0, 100);
        assert_true(got[99] == 2 * x[99]);
    }
}

/* Every 16-bit float there is, and floats around every rounding border. */
static void halves_are_those_of_the_hardware(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct rng r = {11};
    float row[16] = {0};
    uint16_t want[512], got[512];
    for (uint32_t h = 0; h < 0x7c00; h += 8)
        for (int near = -1; near <= 1; near++) {
            for (uint32_t i = 0; i < 16; i++) {
                uint32_t at = float_bits(half_to_float((uint16_t)(h + i / 2))) + 0x1000u * (i & 1) + (uint32_t)near;
                row[i] = bits_float(at | (rng_u32(&r) & 0x80000000u));
            }
            for (size_t s = n_k; s-- > 0;) {
                memset(got, 0, sizeof got);
                k[s]->store_kv[KV_F16](row, row, (uint8_t *)got, 3, 16);
                if (s == n_k - 1)
                    memcpy(want, got, sizeof got);
                assert_memory_equal(got, want, sizeof got);
            }
            for (uint32_t i = 0; i < 16; i++) { /* K lies by dimension, V by token */
                float clamped = fminf(fmaxf(row[i], -65504), 65504);
                assert_int_equal(got[i * 16 + 3], float_to_half(clamped));
                assert_int_equal(got[256 + 3 * 16 + i], float_to_half(clamped));
            }
        }
}

static void what_is_stored_is_finite(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    float row[16] = {INFINITY, -INFINITY, NAN, 1e30f, -1e30f, 65519, 65520};
    for (size_t s = 0; s < n_k; s++) {
        uint16_t kv[512] = {0};
        k[s]->store_kv[KV_F16](row, row, (uint8_t *)kv, 0, 16);
        for (int i = 0; i < 16; i++)
            assert_true(isfinite(half_to_float(kv[i * 16])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_are_those_of_the_engines_own_mathematics),
        cmocka_unit_test(a_nan_stays_one),
        cmocka_unit_test(norms_are_near_the_exact_ones_and_equal_everywhere),
        cmocka_unit_test(rope_turns_pairs),
        cmocka_unit_test(scaling_and_capping),
        cmocka_unit_test(halves_are_those_of_the_hardware),
        cmocka_unit_test(what_is_stored_is_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
