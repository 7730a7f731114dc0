/* Floats to blocks and back: as close as a type allows, and closer than its plain formula. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "engine/dequant.h"
#include "engine/kernels/pack.h"
#include "engine/quant.h"

#define N 4096

static uint32_t state;

/* In [-1, 1). */
static float uniform(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * 0x1p-23f - 1.0f;
}

/* Bell-shaped, with a few that stick out. */
static void fill(float *x)
{
    state = 11;
    for (int i = 0; i < N; i++)
        x[i] = (uniform() + uniform() + uniform()) * (i % 97 == 0 ? 0.2f : 0.03f);
}

static double error_of(enum weight_type type, const float *x)
{
    static uint8_t bytes[N * 4];
    static float back[N];
    double off = 0, all = 0;
    quant(type, x, N, bytes);
    dequant(type, bytes, N, back);
    for (int i = 0; i < N; i++) {
        off += ((double)back[i] - (double)x[i]) * ((double)back[i] - (double)x[i]);
        all += (double)x[i] * (double)x[i];
    }
    return sqrt(off / all);
}

static void every_type_is_close(void **state_unused)
{
    (void)state_unused;
    /* Measured with these numbers, and a tenth more. */
    static const struct {
        enum weight_type type;
        double most;
    } TYPES[] = {{WEIGHT_F32, 0},       {WEIGHT_F16, 0.00025}, {WEIGHT_BF16, 0.0019},
                 {WEIGHT_Q8_0, 0.009},  {WEIGHT_Q6_K, 0.0261}, {WEIGHT_Q5_K, 0.047},
                 {WEIGHT_Q5_1, 0.0454}, {WEIGHT_Q5_0, 0.07},   {WEIGHT_Q4_K, 0.093},
                 {WEIGHT_Q4_1, 0.092},  {WEIGHT_Q4_0, 0.139}};
    static float x[N];
    fill(x);
    for (size_t i = 0; i < ARRAY_LEN(TYPES); i++) {
        double e = error_of(TYPES[i].type, x);
        print_message("%s %.5f\n", format_of(TYPES[i].type)->name, e);
        assert_true(e <= TYPES[i].most);
        assert_true(TYPES[i].type == WEIGHT_F32 || e > TYPES[i].most * 0.5);
    }
}

/* d = largest / -8, as the plain formula has it. */
static void a_searched_scale_beats_the_plain_one(void **state_unused)
{
    (void)state_unused;
    static float x[N];
    double plain = 0, all = 0;
    fill(x);
    for (int b = 0; b < N; b += 32) {
        float most = 0;
        for (int i = b; i < b + 32; i++)
            most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
        for (int i = b; i < b + 32; i++) {
            float d = most / -8, q = roundf(x[i] / d);
            q = q < -8 ? -8 : q > 7 ? 7 : q;
            plain += pow((double)(d * q - x[i]), 2);
            all += pow((double)x[i], 2);
        }
    }
    assert_true(error_of(WEIGHT_Q4_0, x) < 0.99 * sqrt(plain / all));
}

static void extremes(void **state_unused)
{
    (void)state_unused;
    static float x[256], back[256];
    static const float VALUES[] = {0, -0.0f, 1e-40f, 1e-31f, 1e-8f, 1, -1, 65504, 1e30f, -1e38f};
    for (size_t v = 0; v < ARRAY_LEN(VALUES); v++)
        for (int type = 0; type <= WEIGHT_BF16; type++) {
            uint8_t bytes[1024];
            if (!dequant_knows((uint32_t)type))
                continue;
            for (int i = 0; i < 256; i++)
                x[i] = i % 3 ? VALUES[v] : 0;
            quant((enum weight_type)type, x, 256, bytes);
            dequant((enum weight_type)type, bytes, 256, back);
            for (int i = 0; i < 256; i++) {
                bool beyond = type == WEIGHT_F16 && fabsf(VALUES[v]) > 65504;
                assert_true(beyond || isfinite(back[i]));
                assert_true(fabsf(VALUES[v]) < 0.5f || fabsf(VALUES[v]) > 70000 ||
                            fabsf(back[i] - x[i]) <= fabsf(VALUES[v]) / 8);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_close),
        cmocka_unit_test(a_searched_scale_beats_the_plain_one),
        cmocka_unit_test(extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
