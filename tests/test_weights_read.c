// weights_read(): the exact conversion of every 16-bit value, the pages of the file, and the files
// that PyTorch and others wrote.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "vit.h"
#include "written_checkpoint.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static float half_value(uint16_t half)
{
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    double value;
    if (exponent == 31)
        value = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexp(fraction, -24);
    else
        value = ldexp(1024 + fraction, exponent - 25);
    return (float)(half >> 15 ? -value : value);
}

// Every 16-bit pattern, from one file of two tensors.
static void test_conversions(void **state)
{
    (void)state;
    enum { COUNT = 65536 };
    static uint16_t patterns[COUNT];
    static float values[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        patterns[i] = (uint16_t)i;
    const struct tensor_info rows[2] = {{"class_token", 1, {COUNT}},
                                        {"encoder.ln.bias", 1, {COUNT}}};
    const struct source sources[2] = {{"class_token", "F16", &rows[0], patterns},
                                      {"encoder.ln.bias", "BF16", &rows[1], patterns}};
    write_checkpoint(sources, 2, 0);
    struct weights *weights = open_ok(checkpoint_path);
    check_ok(weights, rows, 2);
    assert_int_equal(weights_read(weights, &rows[0], values), STATUS_OK);
    for (size_t i = 0; i < COUNT; i++) {
        const float expected = half_value((uint16_t)i);
        if (isnan(expected))
            assert_true(isnan(values[i]));
        else
            assert_memory_equal(&values[i], &expected, sizeof expected);
    }
    assert_int_equal(weights_read(weights, &rows[1], values), STATUS_OK);
    for (size_t i = 0; i < COUNT; i++) {
        const uint32_t expected = (uint32_t)i << 16;
        assert_memory_equal(&values[i], &expected, sizeof expected);
    }
    weights_close(weights);
}

// Pages of mapped files that this process holds.
static long file_kilobytes(void)
{
    char line[256];
    long kilobytes = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "RssFile: %ld", &kilobytes) == 1)
            break;
    if (file)
        fclose(file);
    return kilobytes;
}

static void test_pages_are_dropped(void **state)
{
    (void)state;
    enum { COUNT = 8 << 20 };
    const struct tensor_info row = {"class_token", 1, {COUNT}};
    float *data = calloc(COUNT, sizeof *data), *values = calloc(COUNT, sizeof *values);
    assert_true(data && values);
    data[COUNT - 1] = 5;
    const struct source source = {"class_token", "F32", &row, data};
    write_checkpoint(&source, 1, 0);
    const long before = file_kilobytes();
    if (before < 0) {
        print_message("no /proc/self/status here\n");
        skip();
    }
    struct weights *weights = open_ok(checkpoint_path);
    assert_int_equal(weights_read(weights, &row, values), STATUS_OK);
    assert_true(file_kilobytes() - before < 4096); // of 32768
    assert_true(values[COUNT - 1] == 5);
    values[COUNT - 1] = 0;
    assert_int_equal(weights_read(weights, &row, values), STATUS_OK); // the pages come back
    assert_true(values[COUNT - 1] == 5);
    weights_close(weights);
    free(values);
    free(data);
}

// Files that PyTorch wrote, in the three layouts and the three types.
static void test_golden_networks(void **state)
{
    (void)state;
    static const char *const networks[] = {"hs16_f32", "hs80_bf16", "hs64_f16"};
    for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++) {
        char file[512];
        snprintf(file, sizeof file, GOLDEN_DIR "/networks/%s.json", networks[i]);
        json_t *network = json_load_file(file, 0, NULL);
        assert_non_null(network);
        struct vit_dims d;
        assert_int_equal(json_unpack(network, "{s:{s:i, s:i, s:i, s:i, s:i, s:i}}", "dims",
                                     "image_size", &d.S, "patch_size", &d.P, "hidden_size", &d.C,
                                     "num_layers", &d.L, "mlp_size", &d.M, "num_classes", &d.K),
                         0);
        struct tensor_info *rows;
        size_t count;
        assert_int_equal(vit_list_weights(&d, &rows, &count), STATUS_OK);
        snprintf(file, sizeof file, GOLDEN_DIR "/networks/%s",
                 json_string_value(json_object_get(network, "weights")));
        struct weights *weights = open_ok(file);
        check_ok(weights, rows, count);
        weights_close(weights);
        free(rows);
        json_decref(network);
    }
}

static void test_deit_tiny(void **state)
{
    (void)state;
    const char *shared = getenv("VITSERVE_SHARED");
    char file[512];
    snprintf(file, sizeof file, "%s/data/deit_tiny_patch16_224.timm.safetensors",
             shared ? shared : GOLDEN_DIR "/../../../shared");
    if (access(file, R_OK) != 0) {
        print_message("no %s\n", file);
        skip();
    }
    const struct vit_dims dims = {
        .S = 224, .P = 16, .C = 192, .L = 12, .NH = 3, .M = 768, .K = 1000};
    struct tensor_info *rows;
    size_t count;
    int64_t parameters = 0;
    assert_int_equal(vit_list_weights(&dims, &rows, &count), STATUS_OK);
    assert_int_equal(count, 152);
    struct weights *weights = open_ok(file);
    check_ok(weights, rows, count);
    float *values = malloc(768 * 768 * sizeof *values); // the largest is the patch embedding
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        assert_true(tensor_count(&rows[i]) <= 768 * 768);
        assert_int_equal(weights_read(weights, &rows[i], values), STATUS_OK);
        for (int64_t j = 0; j < tensor_count(&rows[i]); j++)
            assert_true(fabsf(values[j]) < 100);
        parameters += tensor_count(&rows[i]);
    }
    assert_int_equal(parameters, 5717416);
    free(values);
    weights_close(weights);
    free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_pages_are_dropped),
        cmocka_unit_test(test_golden_networks),
        cmocka_unit_test(test_deit_tiny),
    };
    return cmocka_run_group_tests(tests, checkpoint_set_up, checkpoint_tear_down);
}
