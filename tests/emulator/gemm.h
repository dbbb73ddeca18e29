#pragma once
// The arithmetic behind cublasLtMatmul, column-major as cuBLAS has it:
//   D (m, n) = epilogue(alpha * op(A) (m, k) . op(B) (k, n) + beta * C + bias over the rows)
#include <cstddef>
#include <cstdint>
#include <library_types.h>

namespace emulator
{

struct matrix {
    cudaDataType type;
    int64_t ld, batch_stride; // in elements
    bool transposed;
};

struct gemm {
    int64_t m, n, k, batches;
    matrix a, b, c, d;
    const void *a_values, *b_values, *c_values, *bias; // bias: nullptr for none
    void *d_values;
    cudaDataType bias_type;
    int64_t bias_stride; // between batches
    bool tf32, gelu;     // gelu: the tanh form
    int splits;          // of k, summed one after the other
};

size_t bytes_of(cudaDataType type); // 0: not emulated
void run_gemm(const gemm &g, float alpha, float beta);

} // namespace emulator
