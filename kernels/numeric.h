#pragma once
// Private to the CPU backend: functions of one value, without branches, so that loops over them
// vectorise.
//
// A value's result has the same bits in a vector and in what is left over behind the last one,
// whatever surrounds it: each operation here is one of IEEE 754, and none may be fused with another
// (-ffp-contract=off) but by fused().

#include <math.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <stdbool.h>
#include <stdint.h>

union float_bits {
    float value;
    uint32_t bits;
};

// a * b + c, rounded once where the processor has an instruction for it; fmaf() without one is a
// call.
static inline float fused(float a, float b, float c)
{
#if defined __FMA__ || defined __aarch64__
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

static inline float bf16_to_float(uint16_t half)
{
    return (union float_bits){.bits = (uint32_t)half << 16}.value;
}

// To nearest, ties to even; NaN stays NaN.
static inline uint16_t bf16_from_float(float value)
{
    uint32_t bits = (union float_bits){.value = value}.bits;
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(value != value ? 0x7fc0 : rounded);
}

// e^x for x <= 0, to about 2 ulp: 2^n e^r with |r| <= ln(2)/2, and the Taylor sum of e^r to r^7.
// Below -87 it is e^-87.
static inline float exp_negative(float x)
{
    x = x < -87.0f ? -87.0f : x;
    float n = rintf(x * 0x1.715476p+0f);
    float r = fused(n, -0x1.7f7d1cp-20f, fused(n, -0x1.62e4p-1f, x));
    float p = 1.0f / 5040.0f;
    p = fused(p, r, 1.0f / 720.0f);
    p = fused(p, r, 1.0f / 120.0f);
    p = fused(p, r, 1.0f / 24.0f);
    p = fused(p, r, 1.0f / 6.0f);
    p = fused(p, r, 0.5f);
    p = fused(p, r, 1.0f);
    p = fused(p, r, 1.0f);
    return p * (union float_bits){.bits = (uint32_t)((int32_t)n + 127) << 23}.value;
}

// x Phi(x), Phi being the distribution function of the normal distribution. Its tail Phi(-|x|) is a
// polynomial in t = 1 / (1 + 0.3 |x|), times e^(-x^2 / 2): the form of Abramowitz and
// Stegun 7.1.26, with more terms, fitted to a relative error of 8.3e-8 for |x| <= 12.
static inline float gelu(float x)
{
    float size = x < 0.0f ? -x : x;
    float t = 1.0f / fused(0.3f, size, 1.0f);
    float p = 0.0367419841f;
    p = fused(p, t, -0.16168103f);
    p = fused(p, t, 0.214135835f);
    p = fused(p, t, -0.060922575f);
    p = fused(p, t, 0.132441492f);
    p = fused(p, t, 0.0987188587f);
    p = fused(p, t, 0.120949123f);
    p = fused(p, t, 0.11961627f);
    float tail = p * t * exp_negative(-0.5f * size * size);
    return fused(-size, tail, x < 0.0f ? 0.0f : x);
}

// The same to 4e-5 + 4e-8 |x|, for what is stored in bf16: Phi(x) = 1/2 + x P(x^2) up to
// |x| = 4.375, where it is 0 or 1 to the last digit, P fitted to the least error of the product.
static inline float gelu_half(float x)
{
    float c = x > -4.375f ? x : -4.375f;
    c = c < 4.375f ? c : 4.375f;
    float square = c * c, p = 3.67359303e-11f;
    p = fused(p, square, -3.83426801e-09f);
    p = fused(p, square, 1.76618968e-07f);
    p = fused(p, square, -4.76716286e-06f);
    p = fused(p, square, 8.46928961e-05f);
    p = fused(p, square, -0.00105712214f);
    p = fused(p, square, 0.00964897685f);
    p = fused(p, square, -0.0660837069f);
    p = fused(p, square, 0.398762941f);
    return x * fused(c, p, 0.5f);
}

// The largest size among values; NaN if one of them is not finite.
static inline float largest_size(const float *values, int count)
{
    float largest = 0.0f, poison = 0.0f;
#pragma omp simd reduction(max : largest) reduction(+ : poison)
    for (int i = 0; i < count; i++) {
        float size = values[i] < 0.0f ? -values[i] : values[i];
        largest = size > largest ? size : largest;
        poison += values[i] * 0.0f;
    }
    return largest + poison;
}

// What one step of whole numbers from -127 to 127 stands for, where `largest` is the largest size.
// NaN where that is not finite.
static inline float quantization_scale(float largest)
{
    return largest / 127.0f + largest * 0.0f;
}

// value / scale to nearest, ties to even; `inverse` is 1 / scale, or 0 where that is 0.
static inline int32_t quantize(float value, float inverse)
{
    float q = rintf(value * inverse);
    q = q > -127.0f ? q : -127.0f;
    return (int32_t)(q < 127.0f ? q : 127.0f);
}

static inline float quantization_inverse(float scale)
{
    return scale > 0.0f ? 1.0f / scale : 0.0f;
}

// Activations (backend.h), fp32 or bf16, from and to fp32.
static inline void activations_load(float *restrict out, const void *restrict in, int count,
                                    bool half)
{
    const uint16_t *halves = in;
    const float *floats = in;
    if (half)
        for (int i = 0; i < count; i++)
            out[i] = bf16_to_float(halves[i]);
    else
        for (int i = 0; i < count; i++)
            out[i] = floats[i];
}

static inline void activations_store(void *restrict out, const float *restrict in, int count,
                                     bool half)
{
    uint16_t *halves = out;
    float *floats = out;
    int i = 0;
#ifdef __AVX512BF16__
    for (; half && i + 16 <= count; i += 16)
        _mm256_storeu_si256((__m256i *)(void *)(halves + i),
                            (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(in + i)));
#endif
    if (half)
        for (; i < count; i++)
            halves[i] = bf16_from_float(in[i]);
    else
        for (; i < count; i++)
            floats[i] = in[i];
}
