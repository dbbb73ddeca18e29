// The arithmetic limit of a core, measured: fused multiply-adds on accumulators that never leave
// the registers. What a matrix product reaches is judged against it.

#include "kernels.h"

#if defined __AVX512F__
enum { VECTOR_BYTES = 64 };
#elif defined __AVX__
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));

enum { FLOATS = VECTOR_BYTES / 4 };

#ifdef __aarch64__
#define IN_REGISTER "+w"
#else
#define IN_REGISTER "+v"
#endif

// Runs `rounds` rounds on the calling core; returns the floating-point operations done. Twelve
// independent chains hide the latency of an operation on every core we know.
double CPU_KERNEL(peak_cpu)(int64_t rounds)
{
    vector a0 = {0}, a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0, a8 = a0,
           a9 = a0, a10 = a0, a11 = a0;
    vector scale = a0 + 0.999f, step = a0 + 0.001f;
    for (int64_t i = 0; i < rounds; i++) {
        a0 = a0 * scale + step;
        a1 = a1 * scale + step;
        a2 = a2 * scale + step;
        a3 = a3 * scale + step;
        a4 = a4 * scale + step;
        a5 = a5 * scale + step;
        a6 = a6 * scale + step;
        a7 = a7 * scale + step;
        a8 = a8 * scale + step;
        a9 = a9 * scale + step;
        a10 = a10 * scale + step;
        a11 = a11 * scale + step;
        // The chains are equal: without this the compiler would compute only one of them.
        __asm__ volatile(""
                         : IN_REGISTER(a0), IN_REGISTER(a1), IN_REGISTER(a2), IN_REGISTER(a3),
                           IN_REGISTER(a4), IN_REGISTER(a5), IN_REGISTER(a6), IN_REGISTER(a7),
                           IN_REGISTER(a8), IN_REGISTER(a9), IN_REGISTER(a10), IN_REGISTER(a11));
    }
    return (double)rounds * 12 * FLOATS * 2;
}
