#pragma once
// What the tests of cublasLt share: matrices, descriptors, and a product ready to run.
#include "check.h"
#include <cstdlib>
#include <cublasLt.h>

inline void set_environment(const char *name, const char *value)
{
    setenv(name, value, 1);
    emulator_reset();
}

#define LT_OK(call) check_that((call) == CUBLAS_STATUS_SUCCESS, #call, __FILE__, __LINE__)

struct shape {
    int m, n, k, batches;
    bool ta, tb;
    int slack; // of every leading dimension, in elements
    uint32_t epilogue;
    float alpha, beta;
};

// Descriptors and data of one product. In and Out: float, __half or __nv_bfloat16.
template <class T> inline constexpr cudaDataType type_of = CUDA_R_32F;
template <> inline constexpr cudaDataType type_of<__half> = CUDA_R_16F;
template <> inline constexpr cudaDataType type_of<__nv_bfloat16> = CUDA_R_16BF;

inline std::vector<double> random_values(size_t n)
{
    std::vector<double> values(n);
    for (double &v : values)
        v = rand() / double(RAND_MAX) - 0.5;
    return values;
}

// Rounds to T, and the values to what T holds.
template <class T> std::vector<T> rounded(std::vector<double> &values)
{
    std::vector<T> result(values.size());
    for (size_t i = 0; i < values.size(); i++) {
        result[i] = T(float(values[i]));
        values[i] = float(result[i]);
    }
    return result;
}

struct stored { // a column-major matrix per batch
    int rows, columns, ld;
    std::vector<double> values;
    stored(int r, int c, int slack, int batches)
        : rows(r), columns(c), ld(r + slack), values(random_values(size_t(ld) * c * batches))
    {
    }
    double at(int batch, int row, int column, bool transposed) const
    {
        size_t base = size_t(batch) * ld * columns;
        return transposed ? values[base + size_t(row) * ld + column]
                          : values[base + size_t(column) * ld + row];
    }
};

inline cublasLtMatrixLayout_t layout_of(const stored &x, cudaDataType type, int batches)
{
    cublasLtMatrixLayout_t layout;
    int64_t stride = int64_t(x.ld) * x.columns;
    LT_OK(cublasLtMatrixLayoutCreate(&layout, type, x.rows, x.columns, x.ld));
    LT_OK(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches,
                                           sizeof batches));
    LT_OK(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                           &stride, sizeof stride));
    return layout;
}

inline cublasLtMatmulDesc_t describe(const shape &s, cublasComputeType_t compute, const void *bias)
{
    cublasLtMatmulDesc_t how;
    int32_t ta = s.ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb = s.tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT_OK(cublasLtMatmulDescCreate(&how, compute, CUDA_R_32F));
    LT_OK(cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
    LT_OK(cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
    LT_OK(cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_EPILOGUE, &s.epilogue,
                                         sizeof s.epilogue));
    LT_OK(
        cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    return how;
}

inline int heuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t how,
                     const cublasLtMatrixLayout_t (&l)[4], uint64_t workspace_bytes,
                     cublasLtMatmulHeuristicResult_t (&results)[8], cublasStatus_t *status)
{
    cublasLtMatmulPreference_t preference;
    int found = 0;
    LT_OK(cublasLtMatmulPreferenceCreate(&preference));
    LT_OK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &workspace_bytes, sizeof workspace_bytes));
    *status = cublasLtMatmulAlgoGetHeuristic(handle, how, l[0], l[1], l[2], l[3], preference, 8,
                                             results, &found);
    LT_OK(cublasLtMatmulPreferenceDestroy(preference));
    return found;
}

// Two streams, one workspace or two, an algorithm that needs it.
struct two_streams {
    shape s = {16, 16, 64, 1, true, false, 0, CUBLASLT_EPILOGUE_DEFAULT, 1.0f, 0.0f};
    stored x = stored(64, 16, 0, 1), y = stored(16, 16, 0, 1);
    device_array<float> a = device_array<float>(rounded<float>(x.values));
    device_array<float> d[2] = {device_array<float>(256), device_array<float>(256)};
    device_array<char> workspace = device_array<char>(1 << 16);
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t how = describe(s, CUBLAS_COMPUTE_32F, nullptr);
    cublasLtMatrixLayout_t l[4] = {layout_of(x, CUDA_R_32F, 1), layout_of(x, CUDA_R_32F, 1),
                                   layout_of(y, CUDA_R_32F, 1), layout_of(y, CUDA_R_32F, 1)};
    cublasLtMatmulHeuristicResult_t results[8];
    two_streams()
    {
        cublasStatus_t status;
        LT_OK(cublasLtCreate(&handle));
        CHECK(heuristic(handle, how, l, 1 << 15, results, &status) > 0);
        CHECK(results[0].workspaceSize > 0);
    }
    ~two_streams()
    {
        for (cublasLtMatrixLayout_t layout : l)
            LT_OK(cublasLtMatrixLayoutDestroy(layout));
        LT_OK(cublasLtMatmulDescDestroy(how));
        LT_OK(cublasLtDestroy(handle));
    }
    cublasStatus_t multiply(int i, cudaStream_t stream, size_t workspace_at, size_t bytes)
    {
        return cublasLtMatmul(handle, how, &s.alpha, a.data, l[0], a.data, l[1], &s.beta, nullptr,
                              l[2], d[i].data, l[3], &results[0].algo,
                              workspace.data + workspace_at, bytes, stream);
    }
};
