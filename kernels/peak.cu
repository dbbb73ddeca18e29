// The arithmetic limit of the GPU, measured: one large matrix product by cuBLASLt. What a network
// reaches is judged against it.

#include "cuda_backend.cuh"
#include <vector>

enum { PEAK_SIDE = 8192, PEAK_RUNS = 10 };

static enum status time_peak(struct stream *base, const struct matmul *m, float *ms)
{
    cudaStream_t stream = reinterpret_cast<struct cuda_stream *>(base)->stream;
    event start, end;
    TRY_CUDA(cudaEventCreate(&start.handle));
    TRY_CUDA(cudaEventCreate(&end.handle));
    for (int i = -2; i < PEAK_RUNS; i++) { // the first two warm up
        if (i == 0)
            TRY_CUDA(cudaEventRecord(start.handle, stream));
        TRY(matmul_cuda(base, m));
    }
    TRY_CUDA(cudaEventRecord(end.handle, stream));
    TRY_CUDA(cudaEventSynchronize(end.handle));
    TRY_CUDA(cudaEventElapsedTime(ms, start.handle, end.handle));
    return STATUS_OK;
}

// Packs random values (a GPU runs faster on zeros) as a weight (N, K).
static enum status make_weight(struct backend *backend, enum weight_kind kind, int N, int K,
                               const std::vector<float> &values, device_memory *weight)
{
    size_t bytes;
    TRY(backend->ops->packed_bytes(backend, kind, N, K, &bytes));
    TRY_CUDA(cudaMalloc(&weight->bytes, bytes));
    return backend->ops->pack(backend, kind, N, K, values.data(), weight->bytes);
}

enum status peak_cuda(struct stream *stream, double *flops)
{
    struct backend *backend = stream->backend;
    size_t count = size_t(PEAK_SIDE) * PEAK_SIDE;
    std::vector<float> values(count);
    uint32_t random = 1;
    for (float &value : values)
        value = float(int32_t(random = random * 1664525u + 1013904223u)) * 0x1p-31f;
    device_memory weight, in, out, bias;
    TRY(make_weight(backend, WEIGHT_LINEAR, PEAK_SIDE, PEAK_SIDE, values, &weight));
    TRY(make_weight(backend, WEIGHT_LINEAR, PEAK_SIDE, PEAK_SIDE, values, &in));
    TRY(make_weight(backend, WEIGHT_VECTOR, PEAK_SIDE, 1, values, &bias));
    TRY_CUDA(cudaMalloc(&out.bytes, count * backend->activation_bytes));
    struct matmul matmul = {};
    matmul.kind = LINEAR_BIAS;
    matmul.out = out.bytes;
    matmul.in = in.bytes;
    matmul.weight = weight.bytes;
    matmul.bias = static_cast<const float *>(bias.bytes);
    matmul.out_stride = matmul.M = matmul.N = matmul.K = PEAK_SIDE;
    float ms = 0.0f;
    TRY(time_peak(stream, &matmul, &ms));
    *flops = 2.0 * PEAK_SIDE * count * PEAK_RUNS / (ms * 1e-3);
    return STATUS_OK;
}
