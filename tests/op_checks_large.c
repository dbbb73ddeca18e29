#include "op_checks.h"
#include "reference.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// Rows at either end that are compared. The ctest entry has the emulator compute the 64 blocks at
// either end of a grid (EMULATOR_BLOCKS), each of which does one row at least.
enum { ENDS = 16 };

static const int64_t PAST_31_BITS = (int64_t)1 << 31;

static size_t value_bytes(const struct fixture *f, bool activation)
{
    return activation ? f->backend->activation_bytes : sizeof(float);
}

// Device memory without guards, at most partly touched. False where there is not as much.
static bool large_buffer(struct fixture *f, int64_t values, size_t bytes, void **memory)
{
    size_t total = (size_t)values * bytes;
    enum status status = f->backend->ops->alloc(f->backend, total, memory);
    if (status == STATUS_OUT_OF_MEMORY) {
        printf("Skipped: %s\n", status_detail(status));
        return false;
    }
    OK(status);
    f->buffers[f->n_buffers++] = (struct buffer){*memory, 0, total, 0};
    return true;
}

static void release(struct fixture *f)
{
    for (int i = 0; i < f->n_buffers; i++)
        f->backend->ops->free(f->backend, f->buffers[i].memory);
    f->n_buffers = 0;
}

static void upload_part(struct fixture *f, void *memory, int64_t first, const double *values,
                        size_t count, bool activation)
{
    void *encoded = encode(f, values, count, activation);
    size_t bytes = value_bytes(f, activation);
    OK(f->backend->ops->upload(f->stream, (char *)memory + (size_t)first * bytes, encoded,
                               count * bytes));
    OK(f->backend->ops->sync(f->stream));
    free(encoded);
}

// Makes the values NaN.
static void poison_part(struct fixture *f, void *memory, int64_t first, size_t count,
                        bool activation)
{
    double *values = zeros(count);
    for (size_t i = 0; i < count; i++)
        values[i] = NAN;
    upload_part(f, memory, first, values, count, activation);
    free(values);
}

static float *fetch_part(struct fixture *f, const void *memory, int64_t first, size_t count,
                         bool activation)
{
    size_t bytes = value_bytes(f, activation);
    void *raw = malloc(count * bytes);
    float *values = malloc(count * sizeof *values);
    assert_non_null(raw);
    assert_non_null(values);
    OK(f->backend->ops->download(f->stream, raw, (const char *)memory + (size_t)first * bytes,
                                 count * bytes));
    OK(f->backend->ops->sync(f->stream));
    activations_decode(activation ? f->backend->precision : PRECISION_FP32, raw, count, values);
    free(raw);
    return values;
}

static void free_all(void **all, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(all[i]);
}
#define FREE(...)                                                                                  \
    free_all((void *[]){__VA_ARGS__}, sizeof((void *[]){__VA_ARGS__}) / sizeof(void *))

void check_large_layernorm(struct fixture *f)
{
    const int C = 1280, rows = (int)(PAST_31_BITS / C) + 2 * ENDS;
    const int64_t starts[] = {0, (int64_t)(rows - ENDS) * C};
    const size_t count = (size_t)ENDS * (size_t)C;
    struct layernorm_args args = {.x_stride = C, .rows = rows, .C = C, .epsilon = 1e-6f};
    void *x, *out;
    if (!large_buffer(f, (int64_t)rows * C, sizeof(float), &x) ||
        !large_buffer(f, (int64_t)rows * C, value_bytes(f, true), &out)) {
        release(f);
        return;
    }
    double *in[2], *weight = random_values(f, (size_t)C, 2.0, false);
    double *bias = random_values(f, (size_t)C, 1.0, false);
    for (int end = 0; end < 2; end++) {
        in[end] = random_values(f, count, 3.0, false);
        upload_part(f, x, starts[end], in[end], count, false);
        poison_part(f, out, starts[end], count, true);
    }
    args.x = x, args.out = out;
    args.weight = upload_floats(f, weight, (size_t)C);
    args.bias = upload_floats(f, bias, (size_t)C);
    OK(f->backend->ops->layernorm(f->stream, &args));
    for (int end = 0; end < 2; end++) {
        double *exact = zeros(count), *plain = zeros(count);
        float *got = fetch_part(f, out, starts[end], count, true);
        reference_layernorm(exact, in[end], weight, bias, ENDS, C, 1e-6, exactly);
        reference_layernorm(plain, in[end], weight, bias, ENDS, C, 1e-6, in_float);
        compare(f, end ? "last rows of layernorm" : "first rows of layernorm", got, plain, exact,
                count, true, 0);
        FREE(exact, plain, got, in[end]);
    }
    FREE(weight, bias);
    release(f);
}

// An odd number of odd rows: the last thread has a rest of less than eight values.
void check_large_gelu(struct fixture *f)
{
    const int N = 1001, K = 16, rows = (int)(PAST_31_BITS / N / 2) * 2 + 101;
    const int64_t starts[] = {0, rows - ENDS};
    const size_t count = (size_t)ENDS * (size_t)N, inputs = (size_t)ENDS * (size_t)K;
    void *out, *in;
    if (!large_buffer(f, (int64_t)rows * N, value_bytes(f, true), &out) ||
        !large_buffer(f, (int64_t)rows * K, value_bytes(f, true), &in)) {
        release(f);
        return;
    }
    double *x[2], *weight = random_values(f, (size_t)N * (size_t)K, 0.1, false);
    double *bias = random_values(f, (size_t)N, 1.0, false);
    for (int end = 0; end < 2; end++) {
        x[end] = random_values(f, inputs, 1.0, true);
        upload_part(f, in, starts[end] * K, x[end], inputs, true);
        poison_part(f, out, starts[end] * N, count, true);
    }
    struct linear_args args = {.kind = LINEAR_GELU,
                               .out = out,
                               .in = in,
                               .weight = upload_weight(f, WEIGHT_LINEAR, weight, N, K),
                               .bias = upload_weight(f, WEIGHT_VECTOR, bias, N, 1),
                               .out_stride = N,
                               .B = 1,
                               .rows = rows,
                               .N = N,
                               .K = K};
    OK(f->backend->ops->linear(f->stream, &args));
    for (int end = 0; end < 2; end++) {
        double *exact = zeros(count), *plain = zeros(count);
        float *got = fetch_part(f, out, starts[end] * N, count, true);
        reference_linear(LINEAR_GELU, exact, x[end], weight, bias, ENDS, N, K, exactly, exactly);
        reference_linear(LINEAR_GELU, plain, x[end], weight, bias, ENDS, N, K, in_float,
                         in_activations(f->backend->precision));
        compare(f, end ? "last rows of gelu" : "first rows of gelu", got, plain, exact, count, true,
                0);
        FREE(exact, plain, got, x[end]);
    }
    FREE(weight, bias);
    release(f);
}

// The first queries of the first head of the first image, the last ones of the last head of the
// last one.
static void compare_queries(struct fixture *f, const struct attention_args *args, const double *qkv,
                            bool last)
{
    const int HS = args->HS, C = args->NH * HS, skipped = last ? args->T - ENDS : 0;
    const int64_t image = last ? args->B - 1 : 0, first = (image * args->T + skipped) * C;
    const size_t count = (size_t)args->T * (size_t)C, compared = (size_t)ENDS * (size_t)HS;
    double *exact = zeros(count), *plain = zeros(count);
    float *got = fetch_part(f, args->out, first, (size_t)ENDS * (size_t)C, true);
    reference_attention(exact, qkv, 1, args->T, args->NH, HS, args->T, exactly);
    reference_attention(plain, qkv, 1, args->T, args->NH, HS, args->T, in_float);
    int head = last ? args->NH - 1 : 0;
    for (int t = 0; t < ENDS; t++)
        for (int d = 0; d < HS; d++) {
            int to = t * HS + d, from = t * C + head * HS + d;
            got[to] = got[from];
            exact[to] = exact[skipped * C + from];
            plain[to] = plain[skipped * C + from];
        }
    compare(f, last ? "last queries of attention" : "first queries of attention", got, plain, exact,
            compared, true, 0);
    FREE(exact, plain, got);
}

void check_large_attention(struct fixture *f)
{
    const int T = 50, NH = 16, HS = 80, C = NH * HS, B = (int)(PAST_31_BITS / (T * C)) + 2;
    const size_t per_image = (size_t)T * 3 * (size_t)C;
    struct attention_args args = {.B = B, .T = T, .NH = NH, .HS = HS, .queries = T};
    void *in;
    if (!large_buffer(f, (int64_t)B * T * C, value_bytes(f, true), &args.out) ||
        !large_buffer(f, (int64_t)B * T * 3 * C, value_bytes(f, true), &in)) {
        release(f);
        return;
    }
    args.qkv = in;
    double *qkv[2];
    for (int end = 0; end < 2; end++) {
        int64_t image = end ? B - 1 : 0;
        qkv[end] = random_values(f, per_image, 3.0, true);
        upload_part(f, in, image * (int64_t)per_image, qkv[end], per_image, true);
        poison_part(f, args.out, image * T * C, (size_t)T * (size_t)C, true);
    }
    OK(f->backend->ops->attention(f->stream, &args));
    for (int end = 0; end < 2; end++)
        compare_queries(f, &args, qkv[end], end == 1);
    FREE(qkv[0], qkv[1]);
    release(f);
}

struct embed_values {
    double *weight, *bias, *class_token, *position;
};

// The first image or the last.
static void compare_image(struct fixture *f, const struct embed_args *args,
                          const struct embed_values *v, const uint8_t *pixels, bool last)
{
    const int side = args->S / args->P, T = side * side + 1;
    const size_t count = (size_t)T * (size_t)args->C;
    double *exact = zeros(count), *plain = zeros(count);
    float *got = fetch_part(f, args->x, last ? (args->B - 1) * (int64_t)count : 0, count, false);
    reference_embed(exact, pixels, v->weight, v->bias, v->class_token, v->position, 1, args->S,
                    args->P, args->C, exactly);
    reference_embed(plain, pixels, v->weight, v->bias, v->class_token, v->position, 1, args->S,
                    args->P, args->C, in_float);
    compare(f, last ? "last image of embed" : "first image of embed", got, plain, exact, count,
            false, tensor_core_loss(f, EMBED_COLUMNS(args->P)));
    FREE(exact, plain, got);
}

static bool embed_buffers(struct fixture *f, struct embed_args *args, int T, void **pixels)
{
    void *x;
    int64_t image = (int64_t)args->S * args->S * 3;
    if (!large_buffer(f, (int64_t)args->B * T * args->C, sizeof(float), &x) ||
        !large_buffer(f, (int64_t)args->B * T * EMBED_COLUMNS(args->P), value_bytes(f, true),
                      &args->patches) ||
        !large_buffer(f, args->B * image, 1, pixels))
        return false;
    args->x = x;
    args->pixels = *pixels;
    return true;
}

void check_large_embed(struct fixture *f)
{
    struct embed_args args = {.B = 57100, .S = 112, .P = 16, .C = 768};
    const int T = 50, K = args.P * args.P * 3;
    const size_t image = (size_t)args.S * (size_t)args.S * 3, C = (size_t)args.C;
    void *memory;
    if (!embed_buffers(f, &args, T, &memory)) {
        release(f);
        return;
    }
    struct embed_values v = {.weight = random_values(f, C * (size_t)K, 0.01, false),
                             .bias = random_values(f, C, 1.0, false),
                             .class_token = random_values(f, C, 1.0, false),
                             .position = random_values(f, (size_t)T * C, 1.0, false)};
    uint8_t *pixels = malloc(2 * image);
    assert_non_null(pixels);
    for (size_t i = 0; i < 2 * image; i++)
        pixels[i] = (uint8_t)(uniform(f) * 128.0 + 128.0);
    for (size_t end = 0; end < 2; end++) {
        size_t at = end ? (size_t)(args.B - 1) * image : 0;
        OK(f->backend->ops->upload(f->stream, (char *)memory + at, pixels + end * image, image));
        poison_part(f, args.x, end ? (int64_t)(args.B - 1) * T * args.C : 0, (size_t)T * C, false);
    }
    args.weight = upload_weight(f, WEIGHT_PATCH, v.weight, args.C, K);
    args.bias = upload_weight(f, WEIGHT_VECTOR, v.bias, args.C, 1);
    args.class_token = upload_floats(f, v.class_token, C);
    args.position = upload_floats(f, v.position, (size_t)T * C);
    OK(f->backend->ops->embed(f->stream, &args));
    for (int end = 0; end < 2; end++)
        compare_image(f, &args, &v, pixels + (size_t)end * image, end == 1);
    FREE(v.weight, v.bias, v.class_token, v.position, pixels);
    release(f);
}
