// server/postprocess.c: the order of the classes, ties and NaN included, and their probabilities.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "postprocess.h"
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// The top k of logits[0..classes), both in heap blocks of their exact size.
static struct prediction *top_k(const float *logits, int classes, int k)
{
    float *copy = malloc(sizeof *copy * (size_t)classes);
    struct prediction *top = malloc(sizeof *top * (size_t)k);
    assert_non_null(copy);
    assert_non_null(top);
    memcpy(copy, logits, sizeof *copy * (size_t)classes);
    postprocess_top_k(copy, classes, k, top);
    free(copy);
    return top;
}

static void expect_classes(const float *logits, int classes, int k, const int *expected)
{
    struct prediction *top = top_k(logits, classes, k);
    for (int i = 0; i < k; i++)
        if (top[i].class_index != expected[i])
            fail_msg("place %d: class %d, not %d", i, top[i].class_index, expected[i]);
    free(top);
}

static void best_first(void **state)
{
    (void)state;
    const float logits[] = {-1.0f, 3.0f, 0.5f, -2.0f, 2.5f};
    const int order[] = {1, 4, 2, 0, 3};
    for (int k = 1; k <= 5; k++)
        expect_classes(logits, 5, k, order);
    const float rising[] = {1, 2, 3, 4}, falling[] = {4, 3, 2, 1}, one[] = {-7};
    expect_classes(rising, 4, 3, (const int[]){3, 2, 1});
    expect_classes(falling, 4, 3, (const int[]){0, 1, 2});
    expect_classes(one, 1, 1, (const int[]){0});
}

static void ties_in_order_of_their_class(void **state)
{
    (void)state;
    const float equal[] = {2, 2, 2, 2, 2}, some[] = {1, 5, 1, 5, 1}, zeros[] = {0.0f, -0.0f, 0.0f};
    expect_classes(equal, 5, 5, (const int[]){0, 1, 2, 3, 4});
    expect_classes(equal, 5, 2, (const int[]){0, 1});
    expect_classes(some, 5, 4, (const int[]){1, 3, 0, 2});
    expect_classes(zeros, 3, 3, (const int[]){0, 1, 2});
}

static void nan_and_infinities(void **state)
{
    (void)state;
    const float logits[] = {NAN, -INFINITY, 1.0f, NAN, INFINITY, -5.0f};
    expect_classes(logits, 6, 3, (const int[]){4, 2, 5});
    expect_classes(logits, 6, 1, (const int[]){4});
    const float nans[] = {NAN, NAN, NAN};
    expect_classes(nans, 3, 3, (const int[]){0, 1, 2});
    const float last[] = {NAN, -3.0f};
    expect_classes(last, 2, 1, (const int[]){1});
}

static int compare_descending(const void *a, const void *b)
{
    float left = *(const float *)a, right = *(const float *)b;
    return (left < right) - (left > right);
}

// Every class once, in the order of a sort, with the softmax that double arithmetic gives.
static void all_classes_against_double(void **state)
{
    (void)state;
    enum { K = 1000 };
    float logits[K], sorted[K];
    bool seen[K] = {false};
    double sum = 0.0, total = 0.0;
    uint32_t random = 1;
    for (int i = 0; i < K; i++) {
        random = random * 1664525u + 1013904223u;
        logits[i] = sorted[i] = (float)(random >> 8) / (1 << 20) - 8.0f; // -8 .. 8
        sum += exp((double)logits[i]);
    }
    qsort(sorted, K, sizeof *sorted, compare_descending);
    struct prediction *top = top_k(logits, K, K);
    for (int i = 0; i < K; i++) {
        assert_in_range(top[i].class_index, 0, K - 1);
        assert_false(seen[top[i].class_index]);
        seen[top[i].class_index] = true;
        assert_true(logits[top[i].class_index] == sorted[i]);
        double expected = exp((double)sorted[i]) / sum;
        assert_true(fabs((double)top[i].probability - expected) <= 2e-5 * expected);
        total += (double)top[i].probability;
    }
    assert_true(fabs(total - 1.0) <= 1e-5);
    free(top);
}

// Over all classes, not over those shown; large logits do not overflow.
static void probabilities(void **state)
{
    (void)state;
    const float two[] = {0.0f, logf(3.0f)}, large[] = {1000.0f, 1000.0f, -1000.0f};
    struct prediction *top = top_k(two, 2, 1);
    assert_true(fabsf(top[0].probability - 0.75f) < 1e-6f);
    free(top);
    top = top_k(large, 3, 3);
    assert_true(top[0].probability == 0.5f && top[1].probability == 0.5f);
    assert_true(top[2].probability == 0.0f);
    free(top);
    const float certain[] = {-INFINITY, 3.0f};
    top = top_k(certain, 2, 2);
    assert_true(top[0].probability == 1.0f && top[1].probability == 0.0f);
    free(top);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(best_first),         cmocka_unit_test(ties_in_order_of_their_class),
        cmocka_unit_test(nan_and_infinities), cmocka_unit_test(all_classes_against_double),
        cmocka_unit_test(probabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
