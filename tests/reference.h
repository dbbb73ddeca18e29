#pragma once
// The ops of backend.h in their plainest form, for tests. Every intermediate value passes through
// `r`: with exactly() the result is the truth in double, with in_float() it is what a plain fp32
// implementation would give, whose error is the yardstick for ours.

#include "backend.h"

typedef double (*rounding)(double value);
double exactly(double value);
double in_float(double value);
rounding in_activations(enum precision precision); // to the type that activations are stored in

// Activations on the host side, in the type that a precision stores them in.
float activation_round(enum precision precision, float value);
void activations_encode(enum precision precision, const float *values, size_t count, void *out);
void activations_decode(enum precision precision, const void *in, size_t count, float *values);

// The K values of a row as int8 products take them: whole numbers from -127 to 127 times a scale.
void quantize_row(double *values, int K);

// All tensors double, dense, shaped as in backend.h; patch weight (C, P*P*3) row-major.
void reference_embed(double *x, const uint8_t *pixels, const double *weight, const double *bias,
                     const double *class_token, const double *position, int B, int S, int P, int C,
                     rounding r);
void reference_layernorm(double *out, const double *x, const double *weight, const double *bias,
                         int rows, int C, double epsilon, rounding r);
// out holds the residual before, where kind is LINEAR_RESIDUAL. `stored` rounds the product that
// GELU is then applied to: a plain implementation stores it in between.
void reference_linear(enum linear_kind kind, double *out, const double *in, const double *weight,
                      const double *bias, int rows, int N, int K, rounding r, rounding stored);
void reference_attention(double *out, const double *qkv, int B, int T, int NH, int HS, int queries,
                         rounding r);
