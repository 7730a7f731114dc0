/* The engine's elementary functions against libm in a wider type. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/math.h"

static float ulps(float got, double want)
{
    float w = (float)want, up = nextafterf(fabsf(w), INFINITY) - fabsf(w);
    return (float)(fabs((double)got - want) / (double)up);
}

static void check_float(float (*f)(float), double (*g)(double), float lo, float hi, float allowed)
{
    float worst = 0, at = 0;
    for (int i = 0; i <= 200000; i++) {
        float x = lo + (hi - lo) * (float)i / 200000.0f, e = ulps(f(x), g((double)x));
        if (e > worst)
            worst = e, at = x;
    }
    if (worst > allowed)
        fail_msg("%g ulp at %a", (double)worst, (double)at);
}

static void single_precision(void **state)
{
    (void)state;
    check_float(math_exp, exp, -87.0f, 88.7f, 3);
    check_float(math_tanh, tanh, -12.0f, 12.0f, 4);
    check_float(math_erf, erf, -5.0f, 5.0f, 4);
}

static void edges(void **state)
{
    (void)state;
    assert_true(math_exp(0.0f) == 1.0f && math_exp(-104.0f) == 0.0f && math_exp(-INFINITY) == 0.0f);
    assert_true(isinf(math_exp(88.8f)) && isinf(math_exp(INFINITY)) && isnan(math_exp(NAN)));
    assert_true(math_exp(-100.0f) > 0.0f && math_exp(88.7f) < INFINITY);
    assert_true(math_tanh(100.0f) == 1.0f && math_tanh(-INFINITY) == -1.0f &&
                isnan(math_tanh(NAN)));
    assert_true(signbit(math_tanh(-0.0f)) && math_erf(9.0f) == 1.0f && isnan(math_erf(NAN)));
    assert_true(math_silu(0.0f) == 0.0f && math_gelu_tanh(10.0f) == 10.0f);
    assert_true(fabsf(math_gelu_erf(1.0f) - 0.841344746f) < 1e-6f);
    assert_true(fabsf(math_gelu_tanh(1.0f) - 0.841191991f) < 1e-6f);
    assert_true(math_exp64(-1e9) == 0 && isinf(math_exp64(1e9)) && isnan(math_exp64(NAN)));
    assert_true(isinf(math_log64(0)) && isnan(math_log64(-1)) && isinf(math_log64(INFINITY)));
}

static void double_precision(void **state)
{
    (void)state;
    for (int i = 1; i < 100000; i++) {
        double x = (i - 50000) * 0.01, s, c;
        if (fabs(math_exp64(x) / exp(x) - 1) > 1e-15)
            fail_msg("exp %g", x);
        double y = i * 0.37;
        if (fabs(math_log64(y) - log(y)) > 4e-16 * (1 + fabs(log(y))))
            fail_msg("log %g", y);
        double a = i * 10.1234567;
        math_sincos64(a, &s, &c);
        if (fabs(s - sin(a)) > 2e-15 || fabs(c - cos(a)) > 2e-15)
            fail_msg("sin, cos %.17g: %g %g", a, s - sin(a), c - cos(a));
    }
    assert_true(fabs(math_pow64(100000.0, -0.5) - 1 / sqrt(100000.0)) < 1e-17);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_precision),
        cmocka_unit_test(edges),
        cmocka_unit_test(double_precision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
