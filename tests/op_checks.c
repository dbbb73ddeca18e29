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
