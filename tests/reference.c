#include "reference.h"
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

double exactly(double value)
{
    return value;
}

double in_float(double value)
{
    return (float)value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// To nearest, ties to even; NaN stays NaN.
static uint16_t bf16_encode(float value)
{
    uint32_t bits = bits_of(value);
    if (isnan(value))
        return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// To nearest, ties to even: |value| is counted in steps of its exponent, or of the smallest one.
static uint16_t fp16_encode(float value)
{
    int exponent;
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    if (isnan(value))
        return 0x7e00;
    if (isinf(value))
        return sign | 0x7c00;
    frexpf(value, &exponent);
    exponent = exponent - 1 < -14 ? -14 : exponent - 1;
    int bits = (int)rint(ldexp(fabs((double)value), 10 - exponent)) + ((exponent + 14) << 10);
    return (uint16_t)(sign | (bits < 0x7c00 ? bits : 0x7c00));
}

static float fp16_decode(uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float magnitude = exponent == 0    ? ldexpf((float)mantissa, -24)
                      : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                       : ldexpf((float)(mantissa + 1024), exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static bool in_half(enum precision precision)
{
    return precision == PRECISION_BF16 || precision == PRECISION_FP16 ||
           precision == PRECISION_INT8;
}

void activations_encode(enum precision precision, const float *values, size_t count, void *out)
{
    uint16_t *halves = out;
    if (!in_half(precision))
        memcpy(out, values, count * sizeof *values);
    else
        for (size_t i = 0; i < count; i++)
            halves[i] =
                precision == PRECISION_FP16 ? fp16_encode(values[i]) : bf16_encode(values[i]);
}

void activations_decode(enum precision precision, const void *in, size_t count, float *values)
{
    const uint16_t *halves = in;
    if (!in_half(precision))
        memcpy(values, in, count * sizeof *values);
    else
        for (size_t i = 0; i < count; i++)
            values[i] = precision == PRECISION_FP16 ? fp16_decode(halves[i])
                                                    : float_of((uint32_t)halves[i] << 16);
}

float activation_round(enum precision precision, float value)
{
    uint32_t storage;
    activations_encode(precision, &value, 1, &storage);
    activations_decode(precision, &storage, 1, &value);
    return value;
}

void quantize_row(double *values, int K)
{
    double largest = 0.0;
    for (int k = 0; k < K; k++)
        largest = fmax(largest, fabs(values[k]));
    float scale = (float)largest / 127.0f, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    for (int k = 0; k < K; k++)
        values[k] = (double)scale * rint((double)((float)values[k] * inverse));
}

static double in_bf16(double value)
{
    return (double)activation_round(PRECISION_BF16, (float)value);
}

static double in_fp16(double value)
{
    return (double)activation_round(PRECISION_FP16, (float)value);
}

rounding in_activations(enum precision precision)
{
    return precision == PRECISION_FP16 ? in_fp16 : in_half(precision) ? in_bf16 : in_float;
}

void reference_embed(double *x, const uint8_t *pixels, const double *weight, const double *bias,
                     const double *class_token, const double *position, int B, int S, int P, int C,
                     rounding r)
{
    int side = S / P, T = side * side + 1, row = P * 3;
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++)
            for (int c = 0; c < C; c++) {
                double sum = t == 0 ? class_token[c] : bias[c];
                int n = t - 1;
                for (int i = 0; t > 0 && i < P * row; i++) {
                    int y = n / side * P + i / row, byte = n % side * row + i % row;
                    double pixel = pixels[((int64_t)b * S + y) * S * 3 + byte];
                    sum = r(sum + r(pixel * weight[(int64_t)c * P * row + i]));
                }
                x[((int64_t)b * T + t) * C + c] = r(sum + position[(int64_t)t * C + c]);
            }
}

void reference_layernorm(double *out, const double *x, const double *weight, const double *bias,
                         int rows, int C, double epsilon, rounding r)
{
    for (int64_t i = 0; i < rows; i++, x += C, out += C) {
        double mean = 0.0, variance = 0.0;
        for (int c = 0; c < C; c++)
            mean = r(mean + x[c]);
        mean = r(mean / C);
        for (int c = 0; c < C; c++)
            variance = r(variance + r((x[c] - mean) * (x[c] - mean)));
        double scale = r(1.0 / sqrt(variance / C + epsilon));
        for (int c = 0; c < C; c++)
            out[c] = r(r(r(r(x[c] - mean) * scale) * weight[c]) + bias[c]);
    }
}

void reference_linear(enum linear_kind kind, double *out, const double *in, const double *weight,
                      const double *bias, int rows, int N, int K, rounding r, rounding stored)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t n = 0; n < N; n++) {
            double sum = 0.0, *o = &out[i * N + n];
            for (int k = 0; k < K; k++)
                sum = r(sum + r(in[i * K + k] * weight[n * K + k]));
            sum = r(sum + bias[n]);
            if (kind == LINEAR_GELU) {
                sum = stored(sum);
                sum = r(0.5 * sum * r(1.0 + r(erf(sum * sqrt(0.5)))));
            }
            *o = kind == LINEAR_RESIDUAL ? r(*o + sum) : sum;
        }
}

static void attend(double *out, const double *q, const double *k, const double *v, int T, int HS,
                   int64_t stride, double *weights, rounding r)
{
    double max = -INFINITY, total = 0.0;
    for (int j = 0; j < T; j++) {
        double score = 0.0;
        for (int d = 0; d < HS; d++)
            score = r(score + r(q[d] * k[j * stride + d]));
        weights[j] = r(score / sqrt(HS));
        max = fmax(max, weights[j]);
    }
    for (int j = 0; j < T; j++)
        total = r(total + (weights[j] = r(exp(r(weights[j] - max)))));
    for (int d = 0; d < HS; d++) {
        double sum = 0.0;
        for (int j = 0; j < T; j++)
            sum = r(sum + r(weights[j] * v[j * stride + d]));
        out[d] = r(sum / total);
    }
}

void reference_attention(double *out, const double *qkv, int B, int T, int NH, int HS, int queries,
                         rounding r)
{
    int64_t C = (int64_t)NH * HS, stride = 3 * C;
    double *weights = malloc(sizeof *weights * (size_t)T);
    if (!weights)
        abort();
    for (int b = 0; b < B; b++)
        for (int t = 0; t < queries; t++)
            for (int h = 0; h < NH; h++) {
                const double *image = qkv + (int64_t)b * T * stride + h * HS;
                attend(out + ((int64_t)b * queries + t) * C + h * HS, image + t * stride, image + C,
                       image + 2 * C, T, HS, stride, weights, r);
            }
    free(weights);
}
