#pragma once
// The two loops of a resize (preprocess.c says what they compute), compiled once per instruction
// set. Integers only, so every set gives the same bytes.

#include <stddef.h>
#include <stdint.h>

enum {
    RESAMPLE_BITS = 32 - 8 - 2, // of a weight's fraction; 8 bits of result, 2 for weights below 0
                                // or over 1
    RESAMPLE_ROWS = 16,         // rows that go through the columns pass side by side
    RESAMPLE_LANES = 3 * RESAMPLE_ROWS, // samples that are summed at once
};

// The weights of one axis: output i is the sum of weights[i * stride + j] * input[first[i] + j],
// j < count[i]. Both ends of these ranges grow with i.
struct taps {
    int *first, *count;
    int32_t *weights;
    size_t stride;
};

struct resample {
    // RESAMPLE_ROWS rows of `width` pixels -> as many rows of `outputs` pixels, `stride` bytes
    // apart; stride is a multiple of RESAMPLE_LANES. To work in: RESAMPLE_COLUMNS_BYTES(width) and
    // RESAMPLE_COLUMNS_BYTES(outputs).
    void (*columns)(const struct taps *taps, int outputs, const uint8_t *const *rows, int width,
                    uint8_t *turned, uint8_t *narrowed, uint8_t *output, size_t stride);
    // `count` rows of `stride` bytes -> the one row that is their weighted sum.
    void (*rows)(const int32_t *weights, int count, const uint8_t *input, size_t stride,
                 uint8_t *output);
};

// Pixels of RESAMPLE_ROWS rows side by side, rounded up to whole tiles of the transposition.
#define RESAMPLE_COLUMNS_BYTES(width) (((size_t)(width) + RESAMPLE_ROWS) * RESAMPLE_LANES)

// x86-64-v3 and v4 are there on x86-64 only; whether the processor has them is for the caller.
extern const struct resample resample_generic, resample_v3, resample_v4;
