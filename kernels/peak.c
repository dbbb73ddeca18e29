// The arithmetic limit of a core, measured: multiply-adds on accumulators that never leave the
// registers. What a matrix product reaches is judged against it.

#include "kernels.h"
#include "vector.h"
#if defined __AVX512BF16__ && defined __AVX512VNNI__
#include <immintrin.h>
#endif

#ifdef __aarch64__
#define IN_REGISTER "+w"
#else
#define IN_REGISTER "+v"
#endif

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 24")
#endif

static inline vector step(enum dot dot, vector sum)
{
#if defined __AVX512BF16__ && defined __AVX512VNNI__
    if (dot == DOT_BF16) {
        __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
        return (vector)_mm512_dpbf16_ps((__m512)sum, ones, ones);
    }
    if (dot == DOT_INT8) {
        __m512i ones = _mm512_set1_epi8(1);
        return (vector)_mm512_dpbusd_epi32((__m512i)sum, ones, ones);
    }
#endif
    (void)dot;
    vector scale = (vector){0} + 0.999f, summand = (vector){0} + 0.001f;
    return vector_multiply_add(sum, scale, summand);
}

// As many independent chains as a tile has sums: they hide the latency of an operation. They are
// equal: without the empty statement the compiler would compute only one of them.
static inline __attribute__((always_inline)) void chains(enum dot dot, int64_t rounds)
{
    vector sums[TILE_SUMS] = {{0}};
    for (int64_t i = 0; i < rounds; i++)
        UNROLL
    for (int c = 0; c < TILE_SUMS; c++) {
        sums[c] = step(dot, sums[c]);
        __asm__ volatile("" : IN_REGISTER(sums[c]));
    }
}

double CPU_KERNEL(peak_cpu)(enum dot dot, int64_t rounds)
{
#if defined __AVX512BF16__ && defined __AVX512VNNI__
    if (dot == DOT_BF16)
        chains(DOT_BF16, rounds);
    else if (dot == DOT_INT8)
        chains(DOT_INT8, rounds);
    else
#endif
        chains(DOT_FP32, rounds);
    int64_t values = dot == DOT_INT8 ? 4 : dot == DOT_BF16 ? 2 : 1;
    return (double)(rounds * TILE_SUMS * VECTOR_FLOATS * 2 * values);
}
