// Every op of a backend against the reference in double, over awkward shapes. Usage:
//   test_kernels cpu|cpu:ISA|cuda
// Outputs start as NaN between guard words. An op passes if its worst error is at most twice that
// of a plain implementation in the same precision.

#include "device_under_test.h"
#include "reference.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD_BYTES = 256 };

static enum precision precisions[] = {PRECISION_FP32, PRECISION_TF32, PRECISION_BF16,
                                      PRECISION_FP16, PRECISION_INT8};

// One backend and its stream, and every buffer of the case in work.
struct fixture {
    struct backend *backend;
    struct stream *stream;
    struct buffer {
        void *memory;
        size_t bytes;
    } buffers[16];
    int n_buffers;
    uint64_t random;
};

#define OK(call) assert_ok(call, #call, __LINE__)

static void assert_ok(enum status status, const char *call, int line)
{
    if (status != STATUS_OK)
        fail_msg("line %d: %s: %s", line, call, status_detail(status));
}

static double uniform(struct fixture *f)
{
    f->random = f->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(f->random >> 11) * 0x1p-53 * 2.0 - 1.0;
}

// Device memory of `bytes`, all of it and its guards poisoned.
static void *device_buffer(struct fixture *f, size_t bytes)
{
    struct buffer *buffer = &f->buffers[f->n_buffers++];
    buffer->bytes = bytes;
    size_t total = bytes + 2 * GUARD_BYTES;
    OK(f->backend->ops->alloc(f->backend, total, &buffer->memory));
    void *poison = malloc(total);
    assert_non_null(poison);
    memset(poison, 0xff, total);
    OK(f->backend->ops->upload(f->stream, buffer->memory, poison, total));
    OK(f->backend->ops->sync(f->stream));
    free(poison);
    return (char *)buffer->memory + GUARD_BYTES;
}

static void check_guard(const unsigned char *bytes, const char *where)
{
    for (int i = 0; i < GUARD_BYTES; i++)
        if (bytes[i] != 0xff)
            fail_msg("written %s a buffer", where);
}

// Downloads the buffer that starts at `memory`, checks its guards and frees every buffer.
static void fetch(struct fixture *f, const void *memory, void *out)
{
    for (int i = 0; i < f->n_buffers; i++) {
        struct buffer *buffer = &f->buffers[i];
        size_t total = buffer->bytes + 2 * GUARD_BYTES;
        unsigned char *host = malloc(total);
        assert_non_null(host);
        OK(f->backend->ops->download(f->stream, host, buffer->memory, total));
        OK(f->backend->ops->sync(f->stream));
        check_guard(host, "before");
        check_guard(host + GUARD_BYTES + buffer->bytes, "behind");
        if ((char *)buffer->memory + GUARD_BYTES == (const char *)memory)
            memcpy(out, host + GUARD_BYTES, buffer->bytes);
        free(host);
        f->backend->ops->free(f->backend, buffer->memory);
    }
    f->n_buffers = 0;
}

static void *upload(struct fixture *f, const void *values, size_t bytes)
{
    void *memory = device_buffer(f, bytes);
    OK(f->backend->ops->upload(f->stream, memory, values, bytes));
    OK(f->backend->ops->sync(f->stream));
    return memory;
}

// Random values of the given spread, rounded as activations are if `activation`.
static double *random_values(struct fixture *f, size_t count, double spread, bool activation)
{
    double *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        float value = (float)(uniform(f) * spread);
        values[i] = activation ? activation_round(f->backend->precision, value) : value;
    }
    return values;
}

static float *to_floats(const double *values, size_t count)
{
    float *floats = malloc(count * sizeof *floats);
    assert_non_null(floats);
    for (size_t i = 0; i < count; i++)
        floats[i] = (float)values[i];
    return floats;
}

static void *upload_floats(struct fixture *f, const double *values, size_t count)
{
    float *floats = to_floats(values, count);
    void *memory = upload(f, floats, count * sizeof *floats);
    free(floats);
    return memory;
}

static void *upload_activations(struct fixture *f, const double *values, size_t count)
{
    float *floats = to_floats(values, count);
    void *encoded = malloc(count * sizeof *floats);
    assert_non_null(encoded);
    activations_encode(f->backend->precision, floats, count, encoded);
    void *memory = upload(f, encoded, count * f->backend->activation_bytes);
    free(encoded);
    free(floats);
    return memory;
}

// A packed weight; `values` become what the backend rounds them to.
static void *upload_weight(struct fixture *f, enum weight_kind kind, double *values, int N, int K)
{
    size_t count = (size_t)N * (size_t)K, bytes;
    float *floats = to_floats(values, count);
    f->backend->ops->round(f->backend, kind, N, K, floats);
    for (size_t i = 0; i < count; i++)
        values[i] = (double)floats[i];
    OK(f->backend->ops->packed_bytes(f->backend, kind, N, K, &bytes));
    void *memory = device_buffer(f, bytes);
    OK(f->backend->ops->pack(f->backend, kind, N, K, floats, memory));
    free(floats);
    return memory;
}

// The worst error of `got` beside that of `plain`, which is rounded to the output's type first.
static void compare(struct fixture *f, const char *name, const float *got, const double *plain,
                    const double *exact, size_t count, bool activation)
{
    double worst = 0.0, yardstick = 0.0, largest = 0.0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(got[i]))
            fail_msg("%s: value %zu of %zu was never written", name, i, count);
        double p = activation ? activation_round(f->backend->precision, (float)plain[i]) : plain[i];
        worst = fmax(worst, fabs((double)got[i] - exact[i]));
        yardstick = fmax(yardstick, fabs(p - exact[i]));
        largest = fmax(largest, fabs(exact[i]));
    }
    // TF32 rounds what it multiplies to 11 bits, which the plain fp32 implementation does not.
    if (f->backend->precision == PRECISION_TF32)
        yardstick = fmax(yardstick, largest * 0x1p-10);
    if (worst > 2.0 * yardstick + largest * 0x1p-24)
        fail_msg("%s: worst error %g, of a plain implementation %g", name, worst, yardstick);
}

static float *fetch_values(struct fixture *f, const void *memory, size_t count, bool activation)
{
    size_t bytes = activation ? f->backend->activation_bytes : sizeof(float);
    void *raw = malloc(count * bytes);
    float *values = malloc(count * sizeof *values);
    assert_non_null(raw);
    assert_non_null(values);
    fetch(f, memory, raw);
    activations_decode(activation ? f->backend->precision : PRECISION_FP32, raw, count, values);
    free(raw);
    return values;
}

static double *zeros(size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

static void check_embed(struct fixture *f, int B, int S, int P, int C)
{
    int side = S / P, N = side * side, T = N + 1, K = P * P * 3;
    size_t count = (size_t)B * (size_t)T * (size_t)C;
    size_t n_pixels = (size_t)B * (size_t)S * (size_t)S * 3;
    uint8_t *pixels = malloc(n_pixels);
    assert_non_null(pixels);
    for (size_t i = 0; i < n_pixels; i++)
        pixels[i] = (uint8_t)(uniform(f) * 128.0 + 128.0);
    double *weight = random_values(f, (size_t)C * (size_t)K, 0.01, false);
    double *bias = random_values(f, (size_t)C, 1.0, false);
    double *class_token = random_values(f, (size_t)C, 1.0, false);
    double *position = random_values(f, (size_t)T * (size_t)C, 1.0, false);

    size_t patch_bytes =
        (size_t)B * (size_t)T * (size_t)EMBED_COLUMNS(P) * f->backend->activation_bytes;
    struct embed_args args = {.x = device_buffer(f, count * sizeof(float)),
                              .patches = device_buffer(f, patch_bytes),
                              .pixels = upload(f, pixels, n_pixels),
                              .weight = upload_weight(f, WEIGHT_PATCH, weight, C, K),
                              .bias = upload_weight(f, WEIGHT_VECTOR, bias, C, 1),
                              .class_token = upload_floats(f, class_token, (size_t)C),
                              .position = upload_floats(f, position, (size_t)T * (size_t)C),
                              .B = B,
                              .S = S,
                              .P = P,
                              .C = C};
    OK(f->backend->ops->embed(f->stream, &args));
    float *got = fetch_values(f, args.x, count, false);
    double *exact = zeros(count), *plain = zeros(count);
    reference_embed(exact, pixels, weight, bias, class_token, position, B, S, P, C, exactly);
    reference_embed(plain, pixels, weight, bias, class_token, position, B, S, P, C, in_float);
    char name[80];
    snprintf(name, sizeof name, "embed B %d S %d P %d C %d", B, S, P, C);
    compare(f, name, got, plain, exact, count, false);
    void *all[] = {got, exact, plain, pixels, weight, bias, class_token, position};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

// x has `gap` rows after each one that is normalised.
static void check_layernorm(struct fixture *f, int rows, int C, int gap)
{
    size_t count = (size_t)rows * (size_t)C, stride = (size_t)C * (size_t)(gap + 1);
    double *all_x = random_values(f, (size_t)rows * stride, 3.0, false);
    double *x = zeros(count);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < C; c++) // a mean far from 0 is where a careless variance cancels
            x[r * C + c] = all_x[(size_t)r * stride + (size_t)c] =
                (float)(all_x[(size_t)r * stride + (size_t)c] + 20.0);
    double *weight = random_values(f, (size_t)C, 2.0, false);
    double *bias = random_values(f, (size_t)C, 1.0, false);
    struct layernorm_args args = {.out = device_buffer(f, count * f->backend->activation_bytes),
                                  .x = upload_floats(f, all_x, (size_t)rows * stride),
                                  .weight = upload_floats(f, weight, (size_t)C),
                                  .bias = upload_floats(f, bias, (size_t)C),
                                  .x_stride = (int64_t)stride,
                                  .rows = rows,
                                  .C = C,
                                  .epsilon = 1e-6f};
    OK(f->backend->ops->layernorm(f->stream, &args));
    float *got = fetch_values(f, args.out, count, true);
    double *exact = zeros(count), *plain = zeros(count);
    reference_layernorm(exact, x, weight, bias, rows, C, 1e-6, exactly);
    reference_layernorm(plain, x, weight, bias, rows, C, 1e-6, in_float);
    char name[80];
    snprintf(name, sizeof name, "layernorm rows %d C %d gap %d", rows, C, gap);
    compare(f, name, got, plain, exact, count, true);
    void *all[] = {got, exact, plain, all_x, x, weight, bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void check_linear(struct fixture *f, enum linear_kind kind, int B, int rows, int N, int K,
                         int gap)
{
    bool activation = kind == LINEAR_BIAS || kind == LINEAR_GELU;
    size_t M = (size_t)B * (size_t)rows, count = M * (size_t)N;
    size_t stride = (size_t)N * (size_t)(gap + 1), span = M * stride;
    double *in = random_values(f, M * (size_t)K, 1.0, true);
    double *weight = random_values(f, (size_t)N * (size_t)K, 0.1, false);
    double *bias = random_values(f, (size_t)N, 1.0, false);
    double *before = random_values(f, span, 2.0, false);
    struct linear_args args = {
        .kind = kind,
        .in = upload_activations(f, in, M * (size_t)K),
        .weight =
            upload_weight(f, kind == LINEAR_LOGITS ? WEIGHT_HEAD : WEIGHT_LINEAR, weight, N, K),
        .bias = upload_weight(f, WEIGHT_VECTOR, bias, N, 1),
        .out_stride = (int64_t)stride,
        .B = B,
        .rows = rows,
        .N = N,
        .K = K};
    args.out =
        kind == LINEAR_RESIDUAL
            ? upload_floats(f, before, span)
            : device_buffer(f, span * (activation ? f->backend->activation_bytes : sizeof(float)));
    OK(f->backend->ops->linear(f->stream, &args));
    float *all_out = fetch_values(f, args.out, span, activation);
    float *got = malloc(count * sizeof *got);
    assert_non_null(got);
    double *exact = zeros(count), *plain = zeros(count);
    for (size_t r = 0; r < M; r++)
        for (size_t n = 0; n < stride; n++)
            if (n < (size_t)N) {
                got[r * (size_t)N + n] = all_out[r * stride + n];
                exact[r * (size_t)N + n] = plain[r * (size_t)N + n] = before[r * stride + n];
            } else if (kind == LINEAR_RESIDUAL &&
                       all_out[r * stride + n] != before[r * stride + n]) {
                fail_msg("linear: written between the rows of out");
            }
    if (f->backend->precision == PRECISION_INT8 && kind != LINEAR_LOGITS)
        for (size_t r = 0; r < M; r++)
            quantize_row(in + r * (size_t)K, K);
    reference_linear(kind, exact, in, weight, bias, (int)M, N, K, exactly, exactly);
    reference_linear(kind, plain, in, weight, bias, (int)M, N, K, in_float,
                     in_activations(f->backend->precision));
    char name[80];
    snprintf(name, sizeof name, "linear kind %d B %d rows %d N %d K %d gap %d", (int)kind, B, rows,
             N, K, gap);
    compare(f, name, got, plain, exact, count, activation);
    void *all[] = {got, all_out, exact, plain, in, weight, bias, before};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void check_attention(struct fixture *f, int B, int T, int NH, int HS, int queries)
{
    size_t C = (size_t)NH * (size_t)HS, n_qkv = (size_t)B * (size_t)T * 3 * C;
    size_t count = (size_t)B * (size_t)queries * C;
    double *qkv = random_values(f, n_qkv, 3.0, true);
    struct attention_args args = {.out = device_buffer(f, count * f->backend->activation_bytes),
                                  .qkv = upload_activations(f, qkv, n_qkv),
                                  .B = B,
                                  .T = T,
                                  .NH = NH,
                                  .HS = HS,
                                  .queries = queries};
    OK(f->backend->ops->attention(f->stream, &args));
    float *got = fetch_values(f, args.out, count, true);
    double *exact = zeros(count), *plain = zeros(count);
    reference_attention(exact, qkv, B, T, NH, HS, queries, exactly);
    reference_attention(plain, qkv, B, T, NH, HS, queries, in_float);
    char name[80];
    snprintf(name, sizeof name, "attention B %d T %d NH %d HS %d queries %d", B, T, NH, HS,
             queries);
    compare(f, name, got, plain, exact, count, true);
    free(got);
    free(exact);
    free(plain);
    free(qkv);
}

// Runs `check` on each precision that the device has.
static void for_each_precision(void (*check)(struct fixture *f))
{
    int runs = 0;
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        struct fixture f = {.random = 1};
        if (open_device(precisions[i], 0, &f.backend) != STATUS_OK)
            continue;
        assert_int_equal(f.backend->precision, precisions[i]);
        OK(f.backend->ops->stream_create(f.backend, &f.stream));
        check(&f);
        f.backend->ops->stream_free(f.stream);
        f.backend->ops->destroy(f.backend);
        runs++;
    }
    assert_true(runs > 0);
}

static void embed_shapes(struct fixture *f)
{
    check_embed(f, 1, 28, 4, 64);
    check_embed(f, 3, 32, 16, 192);
    check_embed(f, 2, 28, 14, 160);
    check_embed(f, 1, 64, 32, 80);
}

static void layernorm_shapes(struct fixture *f)
{
    static const int sizes[] = {16, 64, 80, 160, 192, 768, 1024, 1280};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_layernorm(f, 1, sizes[i], 0);
        check_layernorm(f, 50, sizes[i], 0);
        check_layernorm(f, 3, sizes[i], 49);
    }
}

static void linear_shapes(struct fixture *f)
{
    static const int shapes[][4] = {{1, 1, 10, 64},    {1, 50, 192, 64},  {3, 50, 80, 160},
                                    {8, 1, 1000, 192}, {3, 17, 576, 192}, {5, 5, 64, 256},
                                    {1, 197, 64, 80},  {7, 2, 128, 1280}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int *s = shapes[i];
        check_linear(f, LINEAR_BIAS, s[0], s[1], s[2], s[3], 0);
        check_linear(f, LINEAR_GELU, s[0], s[1], s[2], s[3], 0);
        check_linear(f, LINEAR_RESIDUAL, s[0], s[1], s[2], s[3], 0);
        check_linear(f, LINEAR_LOGITS, s[0], s[1], s[2], s[3], 0);
    }
    for (int kind = LINEAR_BIAS; kind <= LINEAR_LOGITS && on_cpu(); kind++)
        check_linear(f, (enum linear_kind)kind, 2, 7, 48, 70, 0); // not whole lanes of int8
    check_linear(f, LINEAR_RESIDUAL, 3, 1, 192, 64, 4);
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

int main(int argc, char **argv)
{
    int code = choose_device(argc, argv);
    if (code != 0)
        return code;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_attention),
    };
    cmocka_set_test_filter(getenv("TEST_FILTER")); // test_linear, or a pattern; all if unset
    return cmocka_run_group_tests(tests, NULL, NULL);
}
