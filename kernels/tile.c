// A tile of a matrix product: the one place where the CPU backend multiplies.
//
//   out[r][n] = sum over k of a[r][k] * b[k][n]
//
// Each 32-bit lane of a vector of b belongs to one column n and holds one value of k in fp32, two
// in bf16 (vdpbf16ps) or four in int8 (vpdpbusd: a is unsigned). Every step loads the vectors of b
// once, broadcasts the lane of k of each row of a, and multiplies all with all: 24 sums in the 32
// registers of AVX-512, 12 in the 16 of AVX, are enough to hide the latency of a multiply-add. All
// shapes are the same code with other constants: a sum is one chain over k, in order, of the one
// multiply-add that vector.h names. So it has the same bits in each, whatever the compiler does.

#include "kernels.h"
#include "vector.h"
#include <string.h>
#if defined __AVX512BF16__ && defined __AVX512VNNI__
#include <immintrin.h>
#endif

enum { MOST_ROWS = 8, MOST_VECTORS = 4, CACHE_LINE = 64 };

typedef int32_t lanes __attribute__((vector_size(VECTOR_BYTES)));

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE vector multiply_add(enum dot dot, vector sum, lanes a, lanes b)
{
#if defined __AVX512BF16__ && defined __AVX512VNNI__
    if (dot == DOT_BF16)
        return (vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(__m512i)b, (__m512bh)(__m512i)a);
    if (dot == DOT_INT8)
        return (vector)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#endif
    (void)dot;
    return vector_multiply_add((vector)a, (vector)b, sum);
}

ALWAYS_INLINE void multiply(enum dot dot, int rows, int vectors, const struct tile *tile)
{
    vector sums[MOST_ROWS][MOST_VECTORS] = {{{0}}};
    const char *a = tile->a, *b = tile->b, *ahead = tile->ahead;
    for (int k = 0; k < tile->lanes;) {
        int end = tile->lanes - k < LANES_AT_ONCE ? tile->lanes : k + LANES_AT_ONCE;
        for (int i = 0; i < tile->ahead_lines; i++, ahead += CACHE_LINE)
            __builtin_prefetch(ahead, 0, 2);
        for (; k < end; k++, a += tile->a_step, b += tile->b_stride) {
            lanes columns[MOST_VECTORS];
            UNROLL
            for (int v = 0; v < vectors; v++)
                memcpy(&columns[v], b + v * VECTOR_BYTES, VECTOR_BYTES);
            UNROLL
            for (int r = 0; r < rows; r++) {
                int32_t value;
                memcpy(&value, a + r * tile->a_stride, 4);
                lanes row = (lanes){0} + value;
                UNROLL
                for (int v = 0; v < vectors; v++)
                    sums[r][v] = multiply_add(dot, sums[r][v], row, columns[v]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
    for (int v = 0; v < vectors; v++)
        memcpy((char *)tile->out + r * tile->out_stride + v * VECTOR_BYTES, &sums[r][v],
               VECTOR_BYTES);
}

#define SHAPE(rows, vectors)                                                                       \
    case (rows)*8 + (vectors):                                                                     \
        if ((rows) * (vectors) <= TILE_SUMS)                                                       \
            multiply(dot, rows, vectors, tile);                                                    \
        break
#define SHAPES(rows)                                                                               \
    SHAPE(rows, 1);                                                                                \
    SHAPE(rows, 2);                                                                                \
    SHAPE(rows, 3);                                                                                \
    SHAPE(rows, 4)

ALWAYS_INLINE void multiply_shape(enum dot dot, const struct tile *tile)
{
    switch (tile->rows * 8 + tile->vectors) {
        SHAPES(1);
        SHAPES(2);
        SHAPES(3);
        SHAPES(4);
        SHAPES(5);
        SHAPES(6);
        SHAPES(7);
        SHAPES(8);
    }
}

void CPU_KERNEL(tile_cpu)(enum dot dot, const struct tile *tile)
{
    if (dot == DOT_FP32)
        multiply_shape(DOT_FP32, tile);
#if defined __AVX512BF16__ && defined __AVX512VNNI__
    else if (dot == DOT_BF16)
        multiply_shape(DOT_BF16, tile);
    else
        multiply_shape(DOT_INT8, tile);
#endif
}
