// Whole networks on a backend against PyTorch's logits in float64 (golden/networks, written by
// golden/make_networks.py). Usage: test_vit cpu|cpu:ISA|cuda

#include "device.h"
#include "device_under_test.h"
#include "vit.h"
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    MAX_BATCH = 9,
    MAX_CUDA_BATCH = 3,
    THREADS = 3, // of the CPU backend: more than the cores of a small machine
};

static const enum precision precisions[] = {PRECISION_FP32, PRECISION_TF32, PRECISION_BF16,
                                            PRECISION_FP16, PRECISION_INT8};
enum { N_PRECISIONS = sizeof precisions / sizeof *precisions };
static const char *const networks[] = {"hs16_f32", "hs64_f16", "hs80_bf16"};

// A golden network: its files, and itself on the device.
struct network {
    json_t *golden;
    struct vit_dims dims;
    struct preprocess recipe;
    int images;
    uint8_t *pixels; // (images, S, S, 3)
    struct backend *backend;
    struct vit_weights weights;
    struct vit_run *run;
};

#define OK(call) assert_ok(call, #call, __LINE__)

static void assert_ok(enum status status, const char *call, int line)
{
    if (status != STATUS_OK)
        fail_msg("line %d: %s: %s", line, call, status_detail(status));
}

// An emulated GPU is slow: three images have a bucket of their own, and two others below it.
static int max_batch(void)
{
    return on_cpu() ? MAX_BATCH : MAX_CUDA_BATCH;
}

// Where the tree is not (tests/gpu/run.sh) the environment says where they are.
static const char *golden_dir(void)
{
    const char *dir = getenv("GOLDEN_DIR");
    return dir ? dir : GOLDEN_DIR;
}

static int dim(const struct network *n, const char *name)
{
    return (int)json_integer_value(json_object_get(json_object_get(n->golden, "dims"), name));
}

static void read_golden(struct network *n, const char *name)
{
    char path[1024];
    json_error_t error;
    snprintf(path, sizeof path, "%s/networks/%s.json", golden_dir(), name);
    n->golden = json_load_file(path, 0, &error);
    assert_non_null(n->golden);
    n->dims = (struct vit_dims){.S = dim(n, "image_size"),
                                .P = dim(n, "patch_size"),
                                .C = dim(n, "hidden_size"),
                                .L = dim(n, "num_layers"),
                                .NH = dim(n, "num_heads"),
                                .M = dim(n, "mlp_size"),
                                .K = dim(n, "num_classes"),
                                .epsilon = 1e-6f};
    for (size_t i = 0; i < 3; i++) {
        n->recipe.mean[i] =
            (float)json_number_value(json_array_get(json_object_get(n->golden, "mean"), i));
        n->recipe.std[i] =
            (float)json_number_value(json_array_get(json_object_get(n->golden, "std"), i));
    }
    n->images = (int)json_integer_value(json_object_get(n->golden, "images"));
    size_t bytes = (size_t)n->images * (size_t)n->dims.S * (size_t)n->dims.S * 3;
    n->pixels = malloc(bytes);
    assert_non_null(n->pixels);
    snprintf(path, sizeof path, "%s/networks/%s.u8", golden_dir(), name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(n->pixels, 1, bytes, file), bytes);
    fclose(file);
}

static void load_network(struct network *n, const char *name)
{
    char path[1024];
    struct weights *source;
    read_golden(n, name);
    snprintf(path, sizeof path, "%s/networks/%s.safetensors", golden_dir(), name);
    OK(weights_open(path, &source));
    OK(vit_weights_load(n->backend, &n->dims, &n->recipe, source, &n->weights));
    weights_close(source);
    OK(vit_run_create(&n->dims, &n->weights, max_batch(), &n->run));
}

// False where the device does not have the precision.
static bool open_network(struct network *n, const char *name, enum precision precision)
{
    *n = (struct network){0};
    if (open_device(precision, THREADS, &n->backend) != STATUS_OK)
        return false;
    load_network(n, name);
    return true;
}

static void close_network(struct network *n)
{
    vit_run_free(n->run);
    vit_weights_release(&n->weights);
    n->backend->ops->destroy(n->backend);
    free(n->pixels);
    json_decref(n->golden);
}

// Runs a batch of golden images, given by their numbers.
static const float *forward(struct network *n, const int *images, int batch)
{
    size_t bytes = (size_t)n->dims.S * (size_t)n->dims.S * 3;
    const float *logits;
    for (int i = 0; i < batch; i++)
        OK(vit_set_image(n->run, i, n->pixels + (size_t)images[i] * bytes));
    OK(vit_forward(n->run, batch, &logits));
    return logits;
}

static double relative_error(const struct network *n, const float *logits, int image)
{
    json_t *expected = json_array_get(json_object_get(n->golden, "logits"), (size_t)image);
    double error = 0.0, norm = 0.0;
    for (int k = 0; k < n->dims.K; k++) {
        double value = json_number_value(json_array_get(expected, (size_t)k));
        error += ((double)logits[k] - value) * ((double)logits[k] - value);
        norm += value * value;
    }
    return sqrt(error / norm);
}

// Largest rel-L2 error of the logits, by precision: fp32's is rounding in another order, the
// others' follows from the bits of their activations.
static double tolerance(enum precision precision)
{
    return precision == PRECISION_FP32                                  ? 1e-5
           : precision == PRECISION_TF32 || precision == PRECISION_FP16 ? 2e-3
           : precision == PRECISION_INT8                                ? 6e-2
                                                                        : 2e-2;
}

static void test_logits(void **state)
{
    (void)state;
    int runs = 0;
    for (size_t p = 0; p < N_PRECISIONS; p++)
        for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
            struct network n;
            if (!open_network(&n, networks[i], precisions[p]))
                continue;
            static const int in_order[MAX_BATCH] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
            const float *logits = forward(&n, in_order, n.images);
            for (int image = 0; image < n.images; image++) {
                double error = relative_error(&n, logits + image * n.dims.K, image);
                if (!(error <= tolerance(precisions[p])))
                    fail_msg("%s, precision %d, image %d: rel-L2 error %g", networks[i],
                             (int)precisions[p], image, error);
            }
            close_network(&n);
            runs++;
        }
    assert_true(runs > 0);
}

static void check_alone_and_in_company(struct network *n, int rounds)
{
    size_t classes = (size_t)n->dims.K;
    float *alone = malloc(sizeof *alone * classes * (size_t)n->images);
    assert_non_null(alone);
    for (int image = 0; image < n->images; image++)
        memcpy(alone + (size_t)image * classes, forward(n, &image, 1), sizeof *alone * classes);
    uint32_t random = 1;
    for (int round = 0; round < rounds; round++) {
        int images[MAX_BATCH], batch = round % max_batch() + 1;
        for (int i = 0; i < batch; i++) {
            random = random * 1664525 + 1013904223;
            images[i] = (int)((random >> 8) % (uint32_t)n->images);
        }
        const float *logits = forward(n, images, batch);
        for (int i = 0; i < batch; i++)
            for (size_t k = 0; k < classes; k++) {
                float one = alone[(size_t)images[i] * classes + k];
                float many = logits[(size_t)i * classes + k];
                if (on_cpu())
                    assert_true(one == many);
                else
                    assert_true(fabsf(one - many) <= 1e-4f * (1.0f + fabsf(one)));
            }
    }
    free(alone);
}

// An image's logits do not depend on what shares its batch, nor on its size: to the bit on the CPU
// in every precision, where sums run in the same order whatever the shape.
static void test_batch_invariance(void **state)
{
    (void)state;
    for (size_t p = 0; p < (on_cpu() ? N_PRECISIONS : 1); p++)
        for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
            struct network n;
            if (!open_network(&n, networks[i], precisions[p])) {
                assert_int_not_equal(precisions[p], PRECISION_FP32);
                continue;
            }
            check_alone_and_in_company(&n, on_cpu() ? 60 : 9);
            close_network(&n);
        }
}

// More images than a thread spins for (LARGEST_SPIN in cuda.cu): it sleeps until they are done.
static void test_large_batch(void **state)
{
    (void)state;
    struct network n;
    assert_true(open_network(&n, networks[0], PRECISION_FP32));
    vit_run_free(n.run);
    OK(vit_run_create(&n.dims, &n.weights, MAX_BATCH, &n.run));
    int images[MAX_BATCH];
    for (int i = 0; i < MAX_BATCH; i++)
        images[i] = i % n.images;
    for (int round = 0; round < 2; round++) { // the first records a graph, the second replays it
        const float *logits = forward(&n, images, MAX_BATCH);
        for (int i = 0; i < MAX_BATCH; i++)
            assert_true(relative_error(&n, logits + i * n.dims.K, images[i]) <=
                        tolerance(PRECISION_FP32));
    }
    close_network(&n);
}

// One thread that works with two GPUs in turn: each call finds its own, whichever came before.
static void test_two_gpus(void **state)
{
    (void)state;
    int count = 1, image = 0;
    if (!on_cpu())
        OK(device_count(DEVICE_CUDA_ALL, &count));
    if (count < 2)
        skip();
    struct network on[2] = {0};
    for (int i = 0; i < 2; i++) {
        OK(device_open(DEVICE_GPU + (enum device)i, PRECISION_FP32, 0, &on[i].backend));
        load_network(&on[i], networks[0]);
    }
    for (int round = 0; round < 2; round++) { // the first records a graph, the second replays it
        for (int i = 0; i < 2; i++)
            OK(vit_set_image(on[i].run, 0, on[i].pixels));
        for (int i = 0; i < 2; i++) {
            const float *logits;
            OK(vit_forward(on[i].run, 1, &logits));
            assert_true(relative_error(&on[i], logits, image) <= tolerance(PRECISION_FP32));
        }
    }
    for (int i = 0; i < 2; i++)
        close_network(&on[i]);
}

int main(int argc, char **argv)
{
    int code = choose_device(argc, argv);
    if (code != 0)
        return code;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_batch_invariance),
        cmocka_unit_test(test_large_batch),
        cmocka_unit_test(test_two_gpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
