// The arithmetic limit of the GPU, measured: one large matrix product by cuBLASLt. What a network
// reaches is judged against it.

#include "cuda_backend.cuh"
#include <vector>

enum { PEAK_SIDE = 8192, PEAK_RUNS = 10 };

static enum status time_peak(struct cuda_stream *stream, const struct matmul *m, float *ms)
{
    cudaEvent_t start, end;
    TRY_CUDA(cudaEventCreate(&start));
    TRY_CUDA(cudaEventCreate(&end));
    for (int i = -2; i < PEAK_RUNS; i++) { // the first two warm up
        if (i == 0)
            TRY_CUDA(cudaEventRecord(start, stream->stream));
        TRY(matmul_cuda(stream, m));
    }
    TRY_CUDA(cudaEventRecord(end, stream->stream));
    TRY_CUDA(cudaEventSynchronize(end));
    TRY_CUDA(cudaEventElapsedTime(ms, start, end));
    TRY_CUDA(cudaEventDestroy(start));
    TRY_CUDA(cudaEventDestroy(end));
    return STATUS_OK;
}

// One large product of random values (a GPU runs faster on zeros).
enum status peak_cuda(struct stream *base, double *flops)
{
    struct cuda_stream *stream = reinterpret_cast<struct cuda_stream *>(base);
    struct backend *backend = base->backend;
    size_t count = size_t(PEAK_SIDE) * PEAK_SIDE, bytes = count * backend->activation_bytes;
    std::vector<float> values(count);
    uint32_t random = 1;
    for (float &value : values)
        value = float(int32_t(random = random * 1664525u + 1013904223u)) * 0x1p-31f;
    void *weight = nullptr, *in = nullptr, *out = nullptr, *bias = nullptr;
    enum status status = backend->ops->alloc(backend, bytes, &weight);
    if (status == STATUS_OK)
        status = backend->ops->alloc(backend, bytes, &in);
    if (status == STATUS_OK)
        status = backend->ops->alloc(backend, bytes, &out);
    if (status == STATUS_OK)
        status = backend->ops->alloc(backend, 2 * PEAK_SIDE * sizeof(float), &bias);
    for (void *matrix : {weight, in})
        if (status == STATUS_OK)
            status = backend->ops->pack(backend, WEIGHT_LINEAR, PEAK_SIDE, PEAK_SIDE, values.data(),
                                        matrix);
    if (status == STATUS_OK)
        status = backend->ops->pack(backend, WEIGHT_VECTOR, PEAK_SIDE, 1, values.data(), bias);
    struct matmul matmul = {};
    matmul.kind = LINEAR_BIAS;
    matmul.out = out;
    matmul.in = in;
    matmul.weight = weight;
    matmul.bias = static_cast<const float *>(bias);
    matmul.out_stride = matmul.M = matmul.N = matmul.K = PEAK_SIDE;
    matmul.batch = 1;
    float ms = 0.0f;
    if (status == STATUS_OK)
        status = time_peak(stream, &matmul, &ms);
    *flops = 2.0 * PEAK_SIDE * count * PEAK_RUNS / (ms * 1e-3);
    for (void *memory : {weight, in, out, bias})
        backend->ops->free(backend, memory);
    return status;
}
