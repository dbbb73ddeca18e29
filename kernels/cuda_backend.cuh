#pragma once
// Private to the CUDA backend: its stream, its ops, and how a CUDA call is checked.
#include "cuda.cuh"
#include <cublasLt.h>
#include <new>
#include <type_traits>

extern "C" {
#include "backend.h"
}

// What compute kernels and matrix products of one precision use.
struct cuda_types {
    cudaDataType_t activation;
    cublasComputeType_t compute;
};

struct matmul_plans; // linear.cu: one compiled matrix product per shape
struct tuning;       // tuning.cu: the fastest algorithm of each

struct cuda_backend {
    struct backend base;
    int device;
    int compute_capability; // 90 for sm_90
    int multiprocessors;
    size_t l2_bytes;
    struct cuda_types types;
    struct tuning *tuning; // shared by the streams
};

enum { MAX_BUCKETS = 16 };

struct cuda_stream {
    struct stream base;
    cudaStream_t stream;
    cudaEvent_t done; // what a thread sleeps on that waits for a large batch
    int batch;        // of the pass that was enqueued last
    struct matmul_plans *plans;
    struct {
        int batch; // 0: empty
        void *context;
        cudaGraphExec_t graph;
    } recorded[MAX_BUCKETS];
};

static inline struct cuda_backend *backend_of(const struct stream *stream)
{
    return reinterpret_cast<struct cuda_backend *>(stream->backend);
}

// STATUS_OUT_OF_MEMORY for that error, STATUS_DEVICE_FAILED for every other.
enum status cuda_failed(cudaError_t error, const char *call);
enum status cublas_failed(cublasStatus_t error, const char *call);

#define TRY_CUDA(call)                                                                             \
    do {                                                                                           \
        cudaError_t error_ = (call);                                                               \
        if (error_ != cudaSuccess)                                                                 \
            return cuda_failed(error_, #call);                                                     \
    } while (0)

#define TRY_CUBLAS(call)                                                                           \
    do {                                                                                           \
        cublasStatus_t error_ = (call);                                                            \
        if (error_ != CUBLAS_STATUS_SUCCESS)                                                       \
            return cublas_failed(error_, #call);                                                   \
    } while (0)

// Device memory and events that an early return frees.
struct device_memory {
    void *bytes = nullptr;
    device_memory() = default;
    device_memory(const device_memory &) = delete;
    ~device_memory()
    {
        cudaFree(bytes);
    }
};

struct event {
    cudaEvent_t handle = nullptr;
    event() = default;
    event(const event &) = delete;
    ~event()
    {
        if (handle)
            cudaEventDestroy(handle);
    }
};

static inline int device_of(const struct backend *backend)
{
    return reinterpret_cast<const struct cuda_backend *>(backend)->device;
}

static inline int device_of(const struct stream *stream)
{
    return device_of(stream->backend);
}

// The status of work(). The containers of this code throw when memory runs out, which the C code
// outside must not see.
template <class F> enum status without_exceptions(F work)
{
    try {
        return work();
    } catch (const std::bad_alloc &) {
        return status_fail(STATUS_OUT_OF_MEMORY, "cuda: out of memory");
    }
}

// What the table of ops holds in place of `op`: makes the backend's device the thread's current one
// first. A thread that never said so is on GPU 0, and would open a context of 500 MB there.
template <auto op, class R, class T, class... A> R enter(T *object, A... arguments)
{
    if constexpr (std::is_void_v<R>) {
        if (!object)
            return;
        cudaSetDevice(device_of(object));
        op(object, arguments...);
    } else {
        TRY_CUDA(cudaSetDevice(device_of(object)));
        return without_exceptions([&] { return op(object, arguments...); });
    }
}

// Calls launch(T()) with the C++ type of the backend's activations.
template <class F> enum status with_activation_type(const struct stream *stream, F launch)
{
    switch (backend_of(stream)->types.activation) {
    case CUDA_R_16BF:
        return launch(__nv_bfloat16());
    case CUDA_R_16F:
        return launch(__half());
    default:
        return launch(float());
    }
}

// Starts a kernel on the stream; a bad launch is reported here.
template <class... P, class... A>
enum status cuda_launch(struct stream *stream, dim3 grid, dim3 block, size_t shared_bytes,
                        void (*kernel)(P...), A... arguments)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = reinterpret_cast<struct cuda_stream *>(stream)->stream;
    TRY_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...));
    return STATUS_OK;
}

enum status embed_cuda(struct stream *stream, const struct embed_args *args);
enum status layernorm_cuda(struct stream *stream, const struct layernorm_args *args);
enum status attention_cuda(struct stream *stream, const struct attention_args *args);

// out (M, N) = in . weight^T + bias, and so on by kind; see linear.cu.
struct matmul {
    enum linear_kind kind;
    void *out;
    const void *in, *weight;
    const float *bias; // as packed: fp32, then in the activation type (packed_vector_offset)
    int64_t out_stride;
    int M, N, K;
};

enum status matmul_cuda(struct stream *stream, const struct matmul *matmul);
enum status linear_cuda(struct stream *stream, const struct linear_args *args);
enum status peak_cuda(struct stream *stream, double *flops);
enum status matmul_plans_create(struct cuda_stream *stream);
void matmul_plans_free(struct matmul_plans *plans);

// A vector of n values is packed twice, because cuBLASLt wants a bias in the type of its output:
// n fp32 values, and from this offset on the same in the activation type.
static inline size_t packed_vector_offset(size_t n)
{
    return (n * sizeof(float) + 255) & ~size_t(255);
}
