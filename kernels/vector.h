#pragma once
// Private to the CPU backend: a vector of fp32 as wide as the instruction set has them, and its
// multiply-add.
//
// Compilers contract a * b + c where it suits them: gcc 14 leaves the multiplication and the
// addition of a long chain apart on AVX2, in one shape of a tile and not in another. So the build
// forbids it (-ffp-contract=off), and what is to be fused says so.

#include "kernels.h"
#include <string.h>
#if defined __FMA__ || defined __AVX512F__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));

static inline vector vector_load(const float *values)
{
    vector loaded;
    memcpy(&loaded, values, sizeof loaded);
    return loaded;
}

// a * b + c, rounded once where the processor can.
static inline __attribute__((always_inline)) vector vector_multiply_add(vector a, vector b,
                                                                        vector c)
{
#if defined __AVX512F__
    return (vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined __FMA__
    return (vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined __aarch64__
    return (vector)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}
