// How far the images of one request may fill a batch, by the times of batches of 1, 2, 4, ...

#include "model.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_choose_bulk(void **state)
{
    (void)state;
    const struct {
        double ms[9];
        int sizes, chosen;
    } rows[] = {
        {{10}, 1, 1},
        {{10, 20, 40, 80}, 4, 1},   // nothing is gained
        {{1, 1.1, 1.2, 1.3}, 4, 8}, // a GPU: nearly free
        {{100, 100, 400, 800}, 4, 2},
        {{100, 189.8, 380, 760}, 4, 2}, // 1 makes 94.9 %
        {{100, 190.4, 381, 762}, 4, 1}, // 1 makes 95.2 %
        // Measured: fashion_vit, DeiT-Tiny, vit_b_32 (AMD EPYC, bf16).
        {{0.174, 0.306, 0.577, 1.11, 2.17, 4.35, 9.08, 19.06, 44.48}, 9, 8},
        {{3.46, 6.24, 12.5, 24.9, 51.6, 110.4, 229.4}, 7, 2},
        {{10.1, 18.6, 37.4, 73.8, 147.6}, 5, 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t ns[9];
        for (int j = 0; j < rows[i].sizes; j++)
            ns[j] = (int64_t)(rows[i].ms[j] * 1e6);
        assert_int_equal(model_choose_bulk(ns, rows[i].sizes), rows[i].chosen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_choose_bulk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
