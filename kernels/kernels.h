#pragma once
// Private to the CPU backend: its ops, and what one file of them knows of another.
//
// Activations are fp32 in fp32, and bf16 in bf16 and in int8: there the linear layers quantise what
// comes in, row by row, for the product alone. Pixels are bytes already.

#include "backend.h"
#include "team.h"
#include <stdbool.h>

// How a matrix product multiplies: 1, 2 or 4 values of K in each 32-bit lane. DOT_BYTES is DOT_INT8
// on an input that is bytes from 0 to 255 as it stands.
enum dot { DOT_FP32, DOT_BF16, DOT_INT8, DOT_BYTES };

#if defined __AVX512F__
enum { VECTOR_BYTES = 64, TILE_SUMS = 24 };
#elif defined __AVX__
enum { VECTOR_BYTES = 32, TILE_SUMS = 12 };
#else
enum { VECTOR_BYTES = 16, TILE_SUMS = 12 };
#endif
enum { VECTOR_FLOATS = VECTOR_BYTES / 4 };

// A tile of a matrix product: out[r][n] = sum over k of a[r][k] * b[k][n], fp32 (DOT_INT8,
// DOT_BYTES: int32). It has up to 8 rows, up to 4 vectors of columns, and rows * vectors <=
// TILE_SUMS. The sums over k run in order, whatever the shape. Strides are in bytes.
struct tile {
    void *out;     // whole vectors of 32-bit values
    const void *a; // 32-bit lanes of values of k
    const void *b; // rows of whole vectors, one for each lane of k
    int64_t out_stride, a_stride, b_stride;
    int64_t a_step; // from one lane of k to the next, in a
    int lanes;      // of k
    int rows, vectors;
    const void *ahead; // what is wanted next, to be fetched into the second-level cache meanwhile:
    int ahead_lines;   // so many cache lines of it for each LANES_AT_ONCE lanes
};
enum { LANES_AT_ONCE = 8 };

// A linear layer as the CPU runs it.
struct cpu_linear {
    const struct linear_args *args;
    enum dot dot; // which the weight was packed for
    bool half;    // activations are bf16
    int lead;     // rows of out before those of each image, left as they are
    struct team *team;
    void *scratch; // linear_cpu_scratch() bytes, of DOT_INT8
};

// The ops are compiled once per instruction set (CMakeLists.txt names them); isa.c finds the best
// table that the processor can run. half: activations are bf16.
struct cpu_kernels {
    void (*patches)(const struct embed_args *args, enum dot dot, struct team *team);
    void (*layernorm)(const struct layernorm_args *args, bool half, struct team *team);
    void (*linear)(const struct cpu_linear *linear);
    size_t (*packed_bytes)(enum dot dot, int N, int K);
    // values (N, K); the packed matrix has `columns` >= K columns, zeros behind them.
    void (*pack)(enum dot dot, int N, int K, int columns, const float *values, void *packed,
                 struct team *team);
    void (*attention)(const struct attention_args *args, bool half, struct team *team,
                      float *scratch);
    size_t (*attention_scratch)(const struct attention_args *args); // floats for each thread
    double (*peak)(enum dot dot, int64_t rounds); // on one core; returns the operations done
};

// The kernels of one instruction set; `half` where it multiplies bf16 and int8.
struct cpu_isa {
    const char *name;
    bool (*runs_here)(void);
    bool half;
    struct cpu_kernels kernels;
};

// The best that runs here, or the one of that name; NULL where that does not.
const struct cpu_isa *cpu_isa_find(const char *name);

// Bytes of scratch that a linear layer of DOT_INT8 wants: a scale for each row, and its input.
static inline size_t linear_cpu_scratch(const struct linear_args *args)
{
    return (size_t)args->B * (size_t)args->rows * (sizeof(float) + (size_t)args->K + 3);
}

#define CPU_KERNEL_JOIN(name, isa) name##_##isa
#define CPU_KERNEL_NAME(name, isa) CPU_KERNEL_JOIN(name, isa)
#define CPU_KERNEL(name)           CPU_KERNEL_NAME(name, CPU_ISA)

// CPU_ISA is the suffix of the set that a file is being compiled for.
#define CPU_KERNELS_DECLARE(isa)                                                                   \
    void tile_cpu_##isa(enum dot dot, const struct tile *tile);                                    \
    void patches_cpu_##isa(const struct embed_args *args, enum dot dot, struct team *team);        \
    void layernorm_cpu_##isa(const struct layernorm_args *args, bool half, struct team *team);     \
    void linear_cpu_##isa(const struct cpu_linear *linear);                                        \
    size_t packed_bytes_cpu_##isa(enum dot dot, int N, int K);                                     \
    void pack_cpu_##isa(enum dot dot, int N, int K, int columns, const float *values,              \
                        void *packed, struct team *team);                                          \
    void attention_cpu_##isa(const struct attention_args *args, bool half, struct team *team,      \
                             float *scratch);                                                      \
    size_t attention_scratch_cpu_##isa(const struct attention_args *args);                         \
    double peak_cpu_##isa(enum dot dot, int64_t rounds)

CPU_KERNELS_DECLARE(generic);
CPU_KERNELS_DECLARE(v3);
CPU_KERNELS_DECLARE(v4);
CPU_KERNELS_DECLARE(v4_bf16);
