// kernels/numeric.h, beside double precision: the errors that it claims hold.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "numeric.h"
#include <float.h>

static double exact_gelu(double x)
{
    return x * 0.5 * erfc(-x * 0.70710678118654752440);
}

// Relative: in a far tail it is the rounding of x^2 that counts.
static void test_gelu(void **state)
{
    (void)state;
    for (int i = -120000; i <= 120000; i++) {
        float x = (float)i * 1e-4f;
        double exact = exact_gelu((double)x), error = fabs((double)gelu(x) - exact);
        if (error > (4e-7 + 6e-8 * (double)x * (double)x) * fabs(exact) + 1e-37)
            fail_msg("gelu(%.9g) = %.9g, not %.9g", (double)x, (double)gelu(x), exact);
    }
    assert_true(isnan(gelu(NAN)));
}

static void test_gelu_half(void **state)
{
    (void)state;
    for (int i = -200000; i <= 200000; i++) {
        float x = (float)i * 1e-4f;
        double exact = exact_gelu((double)x), error = fabs((double)gelu_half(x) - exact);
        if (error > 4e-5 + 4e-8 * fabs((double)x))
            fail_msg("gelu_half(%.9g) = %.9g, not %.9g", (double)x, (double)gelu_half(x), exact);
    }
    assert_true(isnan(gelu_half(NAN)));
}

static void test_exp_negative(void **state)
{
    (void)state;
    for (int i = 0; i <= 870000; i++) {
        float x = (float)-i * 1e-4f;
        double exact = exp((double)x), error = fabs((double)exp_negative(x) - exact);
        if (error > 2.5 * 0x1p-24 * exact * 2)
            fail_msg("exp_negative(%.9g) = %.9g, not %.9g", (double)x, (double)exp_negative(x),
                     exact);
    }
    assert_true(exp_negative(0.0f) == 1.0f);
    assert_true(exp_negative(-1000.0f) == exp_negative(-87.0f));
}

static void test_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(bf16_from_float(1.0f), 0x3f80);
    assert_int_equal(bf16_from_float(1.0f + 0x1p-8f), 0x3f80);     // a tie, to even
    assert_int_equal(bf16_from_float(1.0f + 3 * 0x1p-8f), 0x3f82); // a tie, to even
    assert_int_equal(bf16_from_float(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);
    assert_int_equal(bf16_from_float(-FLT_MAX), 0xff80); // minus infinity
    assert_true(isnan(bf16_to_float(bf16_from_float(NAN))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gelu),
        cmocka_unit_test(test_gelu_half),
        cmocka_unit_test(test_exp_negative),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests_name("numeric", tests, NULL, NULL);
}
