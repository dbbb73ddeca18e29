#pragma once
// What cublaslt.cpp (objects), algorithms.cpp (heuristic) and matmul.cpp (the product) share.
#include "device.h"
#include <cublasLt.h>

namespace emulator
{

struct description {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int32_t pointer_mode, transa, transb, bias_type; // bias_type -1: D's
    uint32_t epilogue;
    const void *bias;
    int64_t bias_stride;
};

struct layout {
    uint32_t type;
    int32_t order, batches;
    uint64_t rows, columns;
    int64_t ld, stride;
};

struct preference {
    uint64_t workspace_bytes;
    uint32_t alignment[4]; // A B C D
};

// What we keep in the 64 bytes of a cublasLtMatmulAlgo_t.
struct algorithm {
    uint64_t magic, problem; // a hash of what it was chosen for, sizes apart
    uint64_t workspace_bytes;
    int32_t id, splits;
    int32_t library;           // the build that found it
    cublasStatus_t fails_with; // when it runs, though the heuristic offered it
    uint32_t alignment[4];
};
constexpr uint64_t magic = 0x656d756c61746f72;        // "emulator"
constexpr uint64_t no_algorithm = 0x6e6f207265737565; // of a result that is none

static_assert(sizeof(description) <= sizeof(cublasLtMatmulDescOpaque_t));
static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t));
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t));
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t));

struct problem {
    const description *how;
    const layout *a, *b, *c, *d;
};

cublasStatus_t check_problem(const problem &p);
cublasStatus_t check_algorithm(const problem &p, const algorithm &a);
uint64_t hash(const problem &p);
uint64_t workspace_of(const problem &p, int splits);

template <class To, class From> To &as(From *opaque)
{
    return *reinterpret_cast<To *>(opaque);
}

template <class F> cublasStatus_t lt_call(const char *name, F body)
{
    std::lock_guard<std::mutex> guard(mutex);
    int injected = fault(name);
    if (injected)
        return static_cast<cublasStatus_t>(injected);
    if (check_driver() != cudaSuccess)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    cublasStatus_t status = body();
    close_device();
    return status;
}

} // namespace emulator
