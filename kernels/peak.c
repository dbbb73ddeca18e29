// The arithmetic limit of a core, measured: multiply-adds on accumulators that never leave the
// registers. What a matrix product reaches is judged against it.

#include "kernels.h"
#if defined __AVX512BF16__ && defined __AVX512VNNI__
#include <immintrin.h>
#endif

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));

#ifdef __aarch64__
#define IN_REGISTER "+w"
#else
#define IN_REGISTER "+v"
#endif

// Twelve independent chains hide the latency of an operation on every core we know. They are equal:
// without the empty statement the compiler would compute only one of them.
#define CHAINS(step)                                                                               \
    vector a0 = {0}, a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0, a8 = a0,       \
           a9 = a0, a10 = a0, a11 = a0;                                                            \
    for (int64_t i = 0; i < rounds; i++) {                                                         \
        a0 = step(a0), a1 = step(a1), a2 = step(a2), a3 = step(a3), a4 = step(a4), a5 = step(a5);  \
        a6 = step(a6), a7 = step(a7), a8 = step(a8), a9 = step(a9);                                \
        a10 = step(a10), a11 = step(a11);                                                          \
        __asm__ volatile(""                                                                        \
                         : IN_REGISTER(a0), IN_REGISTER(a1), IN_REGISTER(a2), IN_REGISTER(a3),     \
                           IN_REGISTER(a4), IN_REGISTER(a5), IN_REGISTER(a6), IN_REGISTER(a7),     \
                           IN_REGISTER(a8), IN_REGISTER(a9), IN_REGISTER(a10), IN_REGISTER(a11));  \
    }

static void fp32_chains(int64_t rounds)
{
    vector scale = (vector){0} + 0.999f, summand = (vector){0} + 0.001f;
#define STEP(a) a *scale + summand
    CHAINS(STEP)
#undef STEP
}

#if defined __AVX512BF16__ && defined __AVX512VNNI__
static void bf16_chains(int64_t rounds)
{
    __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
#define STEP(a) (vector) _mm512_dpbf16_ps((__m512)a, ones, ones)
    CHAINS(STEP)
#undef STEP
}

static void int8_chains(int64_t rounds)
{
    __m512i ones = _mm512_set1_epi8(1);
#define STEP(a) (vector) _mm512_dpbusd_epi32((__m512i)a, ones, ones)
    CHAINS(STEP)
#undef STEP
}
#endif

double CPU_KERNEL(peak_cpu)(enum dot dot, int64_t rounds)
{
#if defined __AVX512BF16__ && defined __AVX512VNNI__
    if (dot == DOT_BF16)
        bf16_chains(rounds);
    else if (dot == DOT_INT8)
        int8_chains(rounds);
    else
#endif
        fp32_chains(rounds);
    int values = dot == DOT_INT8 ? 4 : dot == DOT_BF16 ? 2 : 1;
    return (double)rounds * 12 * VECTOR_FLOATS * 2 * values;
}
