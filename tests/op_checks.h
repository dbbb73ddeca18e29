#pragma once
// One op on random values against the reference in double (reference.h).

#include "op_fixture.h"

void check_embed(struct fixture *f, int B, int S, int P, int C);
// x has `gap` rows after each one that is normalised; values lie within `spread` of `mean`.
void check_layernorm(struct fixture *f, int rows, int C, int gap, double mean, double spread);
// out has `gap` rows after each one that is written.
void check_linear(struct fixture *f, enum linear_kind kind, int B, int rows, int N, int K, int gap);
// GELU value by value, from -10 to 10: an error that is small beside the largest result shows too.
void check_gelu(struct fixture *f);
// The same product on two streams at once, which share weights and input and nothing else.
void check_two_streams(struct fixture *f, int K);
void check_attention(struct fixture *f, int B, int T, int NH, int HS, int queries);

// The same where indices pass 2^31, on the first and the last values of the output: all that is
// uploaded, and all that the emulator computes. Skips, saying so, where memory does not suffice.
void check_large_embed(struct fixture *f);
void check_large_layernorm(struct fixture *f);
void check_large_gelu(struct fixture *f);
void check_large_attention(struct fixture *f);
