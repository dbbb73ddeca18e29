#include "op_checks.h"
#include "reference.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void check_embed(struct fixture *f, int B, int S, int P, int C)
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
    compare(f, name, got, plain, exact, count, false, tensor_core_loss(f, EMBED_COLUMNS(P)));
    void *all[] = {got, exact, plain, pixels, weight, bias, class_token, position};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

void check_layernorm(struct fixture *f, int rows, int C, int gap, double mean, double spread)
{
    size_t count = (size_t)rows * (size_t)C, stride = (size_t)C * (size_t)(gap + 1);
    double *all_x = random_values(f, (size_t)rows * stride, spread, false);
    double *x = zeros(count);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < C; c++)
            x[r * C + c] = all_x[(size_t)r * stride + (size_t)c] =
                (float)(all_x[(size_t)r * stride + (size_t)c] + mean);
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
    snprintf(name, sizeof name, "layernorm rows %d C %d gap %d spread %g", rows, C, gap, spread);
    compare(f, name, got, plain, exact, count, true, 0);
    void *all[] = {got, exact, plain, all_x, x, weight, bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

void check_linear(struct fixture *f, enum linear_kind kind, int B, int rows, int N, int K, int gap)
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
    compare(f, name, got, plain, exact, count, activation, activation ? 0 : tensor_core_loss(f, K));
    void *all[] = {got, all_out, exact, plain, in, weight, bias, before};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

// How far GELU may be from erf's in one value: half a step of the activation type, and beside it
// what its polynomial for bf16 leaves (numeric.h), which fp16 would show.
static double gelu_bound(enum precision precision, double x, double y)
{
    switch (precision) {
    case PRECISION_FP32:
    case PRECISION_TF32:
        return fabs(y) * 0x1p-22 + 1e-6;
    case PRECISION_FP16:
        return fabs(y) * 0x1.01p-11 + 1e-6;
    default:
        return fabs(y) * 0x1.01p-8 + 5e-5 + fabs(x) * 4e-8;
    }
}

void check_gelu(struct fixture *f)
{
    enum { N = 1000, K = 64 };
    double *in = random_values(f, K, 1.0, true), *weight = zeros((size_t)N * K), *bias = zeros(N);
    for (int n = 0; n < N; n++) // exact in every type
        bias[n] = activation_round(PRECISION_BF16, (float)n * 0.02f - 10.0f);
    struct linear_args args = {.kind = LINEAR_GELU,
                               .out = device_buffer(f, N * f->backend->activation_bytes),
                               .in = upload_activations(f, in, K),
                               .weight = upload_weight(f, WEIGHT_LINEAR, weight, N, K),
                               .bias = upload_weight(f, WEIGHT_VECTOR, bias, N, 1),
                               .out_stride = N,
                               .B = 1,
                               .rows = 1,
                               .N = N,
                               .K = K};
    OK(f->backend->ops->linear(f->stream, &args));
    float *got = fetch_values(f, args.out, N, true);
    for (int n = 0; n < N; n++) {
        double x = bias[n], y = 0.5 * x * (1.0 + erf(x * sqrt(0.5))), error = fabs(got[n] - y);
        if (!(error <= gelu_bound(f->backend->precision, x, y)))
            fail_msg("gelu of %g: %g, off by %g", x, (double)got[n], error);
    }
    void *all[] = {got, in, weight, bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

void check_two_streams(struct fixture *f, int K)
{
    enum { M = 17, N = 80, ROUNDS = 3 };
    double *in = random_values(f, (size_t)M * (size_t)K, 1.0, true);
    double *weight = random_values(f, (size_t)N * (size_t)K, 0.1, false);
    double *bias = random_values(f, N, 1.0, false);
    struct linear_args args = {.kind = LINEAR_LOGITS,
                               .in = upload_activations(f, in, (size_t)M * (size_t)K),
                               .weight = upload_weight(f, WEIGHT_HEAD, weight, N, K),
                               .bias = upload_weight(f, WEIGHT_VECTOR, bias, N, 1),
                               .out_stride = N,
                               .B = 1,
                               .rows = M,
                               .N = N,
                               .K = K};
    void *outs[] = {device_buffer(f, sizeof(float) * M * N),
                    device_buffer(f, sizeof(float) * M * N)};
    struct stream *streams[] = {f->stream, NULL};
    OK(f->backend->ops->stream_create(f->backend, &streams[1]));
    for (int i = 0; i < 2 * ROUNDS; i++) { // in the first round plans are made, one after the other
        args.out = outs[i % 2];
        OK(f->backend->ops->linear(streams[i % 2], &args));
    }
    for (int i = 0; i < 2; i++)
        OK(f->backend->ops->sync(streams[i]));
    f->backend->ops->stream_free(streams[1]);
    float *got = fetch_values(f, outs[K / 64 % 2], M * N, false);
    double *exact = zeros(M * N), *plain = zeros(M * N);
    reference_linear(LINEAR_LOGITS, exact, in, weight, bias, M, N, K, exactly, exactly);
    reference_linear(LINEAR_LOGITS, plain, in, weight, bias, M, N, K, in_float,
                     in_activations(f->backend->precision));
    compare(f, "two streams", got, plain, exact, M * N, false, tensor_core_loss(f, K));
    void *all[] = {got, exact, plain, in, weight, bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

// Of the largest result. A score's rounding error is relative to the score, and its weight's to the
// whole error: with scores of up to 16 the factor log2(e) / sqrt(HS), rounded once in fp32 for all
// of them, makes 16 x 2^-24, their products and sums as much again. (An H200: 1.3e-6 where the
// plain implementation, which divides by the root, made 5.6e-7.)
static const double SCORE_LOSS = 16 * 0x1p-23;

void check_attention(struct fixture *f, int B, int T, int NH, int HS, int queries)
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
    compare(f, name, got, plain, exact, count, true, SCORE_LOSS);
    free(got);
    free(exact);
    free(plain);
    free(qkv);
}
