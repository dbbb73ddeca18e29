// Every op of a backend against the reference in double, over awkward shapes. Usage:
//   test_kernels cpu|cpu:ISA|cuda|cuda:large
// An op passes if its worst error is at most twice that of a plain implementation in the same
// precision. cuda:large are the shapes whose indices pass 2^31, up to 35 GB at a time.

#include "device_under_test.h"
#include "op_checks.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void embed_shapes(struct fixture *f)
{
    check_embed(f, 1, 28, 4, 64);
    check_embed(f, 3, 32, 16, 192);
    check_embed(f, 2, 28, 14, 160);
    check_embed(f, 1, 64, 32, 80);
    check_embed(f, 1, 112, 14, 32); // patches with padding; the picture ends with its allocation
}

static void layernorm_shapes(struct fixture *f)
{
    static const int sizes[] = {16, 64, 80, 160, 192, 320, 768, 1024, 1280};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        // A mean far from 0 is where a careless variance cancels.
        check_layernorm(f, 1, sizes[i], 0, 20.0, 3.0);
        check_layernorm(f, 50, sizes[i], 0, 20.0, 3.0);
        check_layernorm(f, 3, sizes[i], 49, 20.0, 3.0);
        check_layernorm(f, 2, sizes[i], 0, 0.0, 2e-3); // a variance like epsilon
    }
    check_layernorm(f, 703, 64, 0, 20.0, 3.0); // of rows for many blocks, and a rest
}

static void linear_shapes(struct fixture *f)
{
    static const int shapes[][4] = {{1, 1, 10, 64},    {1, 50, 192, 64},
                                    {3, 50, 80, 160},  {8, 1, 1000, 192},
                                    {3, 17, 576, 192}, {5, 5, 64, 256},
                                    {1, 197, 64, 80},  {7, 2, 128, 1280},
                                    {7, 59, 10, 64}}; // whose GELU ends amid a block and a thread
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int *s = shapes[i];
        check_linear(f, LINEAR_BIAS, s[0], s[1], s[2], s[3], 0);
        check_linear(f, LINEAR_GELU, s[0], s[1], s[2], s[3], 0);
        check_linear(f, LINEAR_RESIDUAL, s[0], s[1], s[2], s[3], 0);
        check_linear(f, LINEAR_LOGITS, s[0], s[1], s[2], s[3], 0);
    }
    check_gelu(f);
    for (int K = 64; K <= 512; K += 64) // any of which may get an algorithm that needs workspace
        check_two_streams(f, K);
    for (int kind = LINEAR_BIAS; kind <= LINEAR_LOGITS && on_cpu(); kind++)
        check_linear(f, (enum linear_kind)kind, 2, 7, 48, 70, 0); // not whole lanes of int8
    check_linear(f, LINEAR_RESIDUAL, 3, 1, 192, 64, 4);
    check_linear(f, LINEAR_RESIDUAL, 3, 1, 192, 64, 0); // the same but for its stride
    check_linear(f, LINEAR_RESIDUAL, 8, 1, 64, 192, 49);
}

static void attention_shapes(struct fixture *f)
{
    static const int tokens[] = {1, 2, 17, 50, 64, 65, 197};
    static const int head_sizes[] = {16, 32, 64, 80};
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
        for (size_t h = 0; h < sizeof head_sizes / sizeof *head_sizes; h++) {
            check_attention(f, 1 + (int)(t % 3), tokens[t], 2, head_sizes[h], tokens[t]);
            check_attention(f, 3, tokens[t], 1, head_sizes[h], 1);
        }
    check_attention(f, 1, 257, 1, 80, 257);
    check_attention(f, 1, 577, 1, 64, 577);
    check_attention(f, 8, 577, 1, 64, 1);
    if (on_cpu())
        check_attention(f, 2, 7, 3, 6, 7); // lanes that are not transposed four at a time
}

static void test_embed(void **state)
{
    (void)state;
    for_each_precision(embed_shapes);
}

static void test_layernorm(void **state)
{
    (void)state;
    for_each_precision(layernorm_shapes);
}

static void test_linear(void **state)
{
    (void)state;
    for_each_precision(linear_shapes);
}

static void test_attention(void **state)
{
    (void)state;
    for_each_precision(attention_shapes);
}

static void large_shapes(struct fixture *f)
{
    if (f->backend->precision == PRECISION_TF32 || f->backend->precision == PRECISION_FP16)
        return; // the kernels of fp32 and of bf16
    check_large_embed(f);
    check_large_layernorm(f);
    check_large_gelu(f);
    check_large_attention(f);
}

static void test_large(void **state)
{
    (void)state;
    for_each_precision(large_shapes);
}

int main(int argc, char **argv)
{
    bool large = argc == 2 && strcmp(argv[1], "cuda:large") == 0;
    int code = choose_device(argc, large ? (char *[]){argv[0], "cuda"} : argv);
    if (code != 0)
        return code;
    const struct CMUnitTest large_tests[] = {cmocka_unit_test(test_large)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_attention),
    };
    cmocka_set_test_filter(getenv("TEST_FILTER")); // test_linear, or a pattern; all if unset
    return large ? cmocka_run_group_tests(large_tests, NULL, NULL)
                 : cmocka_run_group_tests(tests, NULL, NULL);
}
