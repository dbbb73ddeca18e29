// server/weights.c without a file: the same values everywhere, with the spread that is promised.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "weights.h"
#include <math.h>
#include <stdlib.h>

// Computed by an independent program (Python) from the description in weights.c.
static const struct {
    uint64_t seed;
    struct tensor_info tensor;
    float first[3];
} pinned[] = {
    {1, {"class_token", 3, {1, 1, 192}}, {0x1.048b8cp-1f, -0x1.4dd894p-1f, 0x1.52e2f6p-3f}},
    {1,
     {"encoder.layers.encoder_layer_3.mlp.0.weight", 2, {768, 192}},
     {-0x1.a9d8p-5f, -0x1.77b8p-6f, -0x1.d79p-6f}},
    {2, {"encoder.ln.weight", 1, {192}}, {0x1.2b1424p+0f, 0x1.04f436p+0f, 0x1.d2f82ap-1f}},
    {2, {"heads.head.bias", 1, {1000}}, {0x1.3cd5dcp-7f, -0x1.5b0f46p-5f, 0x1.680cdp-4f}},
};

static void test_random_is_pinned(void **state)
{
    (void)state;
    static float values[768 * 192];
    for (size_t i = 0; i < sizeof pinned / sizeof pinned[0]; i++) {
        struct weights *weights;
        assert_int_equal(weights_open_random(pinned[i].seed, &weights), STATUS_OK);
        assert_string_equal(weights_source(weights), "random");
        assert_int_equal(weights_check(weights, &pinned[i].tensor, 1), STATUS_OK);
        // Other reads before it must not matter.
        assert_int_equal(weights_read(weights, &pinned[0].tensor, values), STATUS_OK);
        assert_int_equal(weights_read(weights, &pinned[i].tensor, values), STATUS_OK);
        assert_memory_equal(values, pinned[i].first, sizeof pinned[i].first);
        weights_close(weights);
    }
}

static void read_random(uint64_t seed, const struct tensor_info *tensor, float *values)
{
    struct weights *weights;
    assert_int_equal(weights_open_random(seed, &weights), STATUS_OK);
    assert_int_equal(weights_read(weights, tensor, values), STATUS_OK);
    weights_close(weights);
}

static double correlation(const float *a, const float *b, size_t count)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < count; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

static void test_random_spread(void **state)
{
    (void)state;
    enum { COUNT = 65536 };
    static const struct {
        struct tensor_info tensor;
        double centre, deviation;
    } kinds[] = {
        {{"conv_proj.weight", 4, {64, 4, 16, 16}}, 0, 1 / 32.0},
        {{"encoder.layers.encoder_layer_0.mlp.0.weight", 2, {64, 1024}}, 0, 1 / 32.0},
        {{"heads.head.weight", 2, {256, 256}}, 0, 1 / 16.0},
        {{"encoder.pos_embedding", 3, {1, 64, 1024}}, 0, 0.5},
        {{"encoder.ln.weight", 1, {COUNT}}, 1, 0.1},
        {{"encoder.layers.encoder_layer_0.self_attention.in_proj_bias", 1, {COUNT}}, 0, 0.05},
    };
    static float values[COUNT], other[COUNT];
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        double sum = 0, squares = 0;
        read_random(7, &kinds[k].tensor, values);
        for (size_t i = 0; i < COUNT; i++)
            sum += values[i];
        for (size_t i = 0; i < COUNT; i++) {
            const double off = values[i] - kinds[k].centre;
            squares += off * off;
            assert_true(fabs(off) < 3.5 * kinds[k].deviation);
        }
        // Five times the expected error of 65536 draws.
        assert_true(fabs(sum / (double)COUNT - kinds[k].centre) < kinds[k].deviation / 50);
        assert_true(fabs(sqrt(squares / (double)COUNT) / kinds[k].deviation - 1) < 0.015);
    }
    struct tensor_info tensor = kinds[2].tensor;
    read_random(7, &tensor, values);
    read_random(8, &tensor, other);
    assert_true(fabs(correlation(values, other, COUNT)) < 0.02);
    tensor.name[0] = 'H';
    read_random(7, &tensor, other);
    assert_true(fabs(correlation(values, other, COUNT)) < 0.02);
    assert_true(fabs(correlation(values, values + 1, COUNT - 1)) < 0.02);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_is_pinned),
        cmocka_unit_test(test_random_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
