// The CUDA backend: op table, memory, streams and graphs. One backend is one GPU with its weights;
// a stream is one worker's queue of work, with its own matrix products, workspace and graphs.

#include "tuning.cuh"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

// Batch sizes that get a graph of their own; a batch in between is filled up with whatever the
// buffers hold. 28, 56, 112 and 224 images of 50 tokens fill the 132 multiprocessors of an H200 in
// whole waves of 128 x 128 tiles.
static const int buckets[] = {1, 2, 4, 8, 16, 28, 32, 56, 64, 84, 112, 128, 168, 224, 256};
enum { LARGEST_SPIN = 8 }; // the largest batch that a thread does not wait for asleep

enum status cuda_failed(cudaError_t error, const char *call)
{
    cudaGetLastError(); // a failure that is not sticky is over now
    return status_fail(error == cudaErrorMemoryAllocation ? STATUS_OUT_OF_MEMORY
                                                          : STATUS_DEVICE_FAILED,
                       "cuda: %s: %s", call, cudaGetErrorString(error));
}

enum status cublas_failed(cublasStatus_t error, const char *call)
{
    return status_fail(error == CUBLAS_STATUS_ALLOC_FAILED ? STATUS_OUT_OF_MEMORY
                                                           : STATUS_DEVICE_FAILED,
                       "cublasLt: %s: %s", call, cublasLtGetStatusString(error));
}

static struct cuda_stream *cuda(struct stream *stream)
{
    return reinterpret_cast<struct cuda_stream *>(stream);
}

static struct cuda_backend *cuda(struct backend *backend)
{
    return reinterpret_cast<struct cuda_backend *>(backend);
}

// ---- memory -------------------------------------------------------------------------------------

static enum status cuda_alloc(struct backend *, size_t bytes, void **memory)
{
    *memory = nullptr;
    cudaError_t error = cudaMalloc(memory, bytes);
    if (error != cudaErrorMemoryAllocation) {
        TRY_CUDA(error);
        return STATUS_OK;
    }
    size_t available = 0, total = 0;
    cudaGetLastError();
    cudaMemGetInfo(&available, &total);
    return status_fail(STATUS_OUT_OF_MEMORY, "cuda: %zu MiB needed, %zu MiB free of %zu MiB",
                       bytes >> 20, available >> 20, total >> 20);
}

static void cuda_free(struct backend *, void *memory)
{
    cudaFree(memory);
}

static enum status cuda_alloc_host(struct backend *, size_t bytes, void **memory)
{
    *memory = nullptr;
    TRY_CUDA(cudaHostAlloc(memory, bytes, cudaHostAllocPortable));
    return STATUS_OK;
}

static void cuda_free_host(struct backend *, void *memory)
{
    cudaFreeHost(memory);
}

// ---- weights ------------------------------------------------------------------------------------

static size_t value_bytes(const struct backend *backend)
{
    return backend->activation_bytes;
}

static void convert(const struct cuda_types *types, const float *values, size_t count, void *out)
{
    switch (types->activation) {
    case CUDA_R_16BF:
        for (size_t i = 0; i < count; i++)
            static_cast<__nv_bfloat16 *>(out)[i] = __float2bfloat16_rn(values[i]);
        break;
    case CUDA_R_16F:
        for (size_t i = 0; i < count; i++)
            static_cast<__half *>(out)[i] = __float2half_rn(values[i]);
        break;
    default:
        memcpy(out, values, count * sizeof *values);
    }
}

// Rows of the patch embedding are as long as those of the patches.
static size_t packed_columns(enum weight_kind kind, int K)
{
    return kind == WEIGHT_PATCH ? size_t(K + 7) / 8 * 8 : size_t(K);
}

static enum status cuda_packed_bytes(struct backend *backend, enum weight_kind kind, int N, int K,
                                     size_t *bytes)
{
    *bytes = kind == WEIGHT_VECTOR
                 ? packed_vector_offset(size_t(N) * K) + size_t(N) * K * value_bytes(backend)
                 : size_t(N) * packed_columns(kind, K) * value_bytes(backend);
    return STATUS_OK;
}

static enum status cuda_pack(struct backend *backend, enum weight_kind kind, int N, int K,
                             const float *values, void *packed)
{
    const struct cuda_types *types = &cuda(backend)->types;
    size_t bytes, columns = packed_columns(kind, K), value = value_bytes(backend);
    TRY(cuda_packed_bytes(backend, kind, N, K, &bytes));
    std::vector<char> host(bytes);
    if (kind == WEIGHT_VECTOR) {
        memcpy(host.data(), values, size_t(N) * K * sizeof *values);
        convert(types, values, size_t(N) * K, host.data() + packed_vector_offset(size_t(N) * K));
    } else {
        for (size_t n = 0; n < size_t(N); n++)
            convert(types, values + n * K, K, host.data() + n * columns * value);
    }
    TRY_CUDA(cudaMemcpy(packed, host.data(), bytes, cudaMemcpyHostToDevice));
    // A copy of pageable memory may return before it has arrived, and the streams of the ops do not
    // wait for the one that it runs on.
    TRY_CUDA(cudaStreamSynchronize(cudaStreamLegacy));
    return STATUS_OK;
}

static void cuda_round(struct backend *backend, enum weight_kind kind, int N, int K, float *values)
{
    if (kind == WEIGHT_VECTOR)
        return;
    for (size_t i = 0; i < size_t(N) * K; i++)
        switch (cuda(backend)->types.activation) {
        case CUDA_R_16BF:
            values[i] = __bfloat162float(__float2bfloat16_rn(values[i]));
            break;
        case CUDA_R_16F:
            values[i] = __half2float(__float2half_rn(values[i]));
            break;
        default:
            break;
        }
}

// ---- streams ------------------------------------------------------------------------------------

static void cuda_stream_free(struct stream *base)
{
    struct cuda_stream *stream = cuda(base);
    for (auto &recorded : stream->recorded)
        if (recorded.graph)
            cudaGraphExecDestroy(recorded.graph);
    matmul_plans_free(stream->plans);
    if (stream->done)
        cudaEventDestroy(stream->done);
    if (stream->stream)
        cudaStreamDestroy(stream->stream);
    free(stream);
}

static enum status open_stream(struct cuda_stream *stream)
{
    TRY_CUDA(cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking));
    TRY_CUDA(
        cudaEventCreateWithFlags(&stream->done, cudaEventBlockingSync | cudaEventDisableTiming));
    return matmul_plans_create(stream);
}

static enum status cuda_stream_create(struct backend *backend, struct stream **out)
{
    struct cuda_stream *stream = static_cast<struct cuda_stream *>(calloc(1, sizeof *stream));
    if (!stream)
        return status_fail(STATUS_OUT_OF_MEMORY, "cuda: out of memory");
    stream->base.backend = backend;
    enum status status = open_stream(stream);
    if (status != STATUS_OK) {
        cuda_stream_free(&stream->base);
        return status;
    }
    *out = &stream->base;
    return STATUS_OK;
}

static enum status cuda_upload(struct stream *stream, void *device, const void *host, size_t bytes)
{
    TRY_CUDA(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda(stream)->stream));
    return STATUS_OK;
}

static enum status cuda_download(struct stream *stream, void *host, const void *device,
                                 size_t bytes)
{
    TRY_CUDA(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda(stream)->stream));
    return STATUS_OK;
}

// Spins while a small batch runs: a thread that sleeps wakes 16 us late (an H200). A large batch
// takes so much longer that the core had better decode pictures.
static enum status cuda_sync(struct stream *base)
{
    struct cuda_stream *stream = cuda(base);
    if (stream->batch <= LARGEST_SPIN) {
        TRY_CUDA(cudaStreamSynchronize(stream->stream));
    } else {
        TRY_CUDA(cudaEventRecord(stream->done, stream->stream));
        TRY_CUDA(cudaEventSynchronize(stream->done));
    }
    return STATUS_OK;
}

// Records forward(context, batch) as a graph. It ran once before, outside the recording: matrix
// products are compiled and tuned then, which a recording does not allow.
static enum status record(struct cuda_stream *stream, int batch, forward_fn forward, void *context,
                          cudaGraphExec_t *graph_exec)
{
    TRY(forward(context, batch));
    TRY_CUDA(cudaStreamSynchronize(stream->stream));
    tuning_save(backend_of(&stream->base)->tuning);
    TRY_CUDA(cudaStreamBeginCapture(stream->stream, cudaStreamCaptureModeThreadLocal));
    enum status status = forward(context, batch);
    cudaGraph_t graph = nullptr;
    cudaError_t error = cudaStreamEndCapture(stream->stream, &graph);
    if (status == STATUS_OK && error == cudaSuccess)
        error = cudaGraphInstantiate(graph_exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    TRY(status);
    TRY_CUDA(error);
    return STATUS_OK;
}

static int bucket_of(int batch, int max_batch)
{
    for (int bucket : buckets)
        if (bucket >= batch && bucket <= max_batch)
            return bucket;
    return max_batch;
}

static enum status cuda_run(struct stream *base, int batch, int max_batch, forward_fn forward,
                            void *context)
{
    struct cuda_stream *stream = cuda(base);
    int bucket = bucket_of(batch, max_batch);
    stream->batch = bucket;
    for (auto &recorded : stream->recorded) {
        if (recorded.batch == 0) {
            TRY(record(stream, bucket, forward, context, &recorded.graph));
            recorded.batch = bucket;
            recorded.context = context;
        }
        if (recorded.batch == bucket && recorded.context == context) {
            TRY_CUDA(cudaGraphLaunch(recorded.graph, stream->stream));
            return STATUS_OK;
        }
    }
    return forward(context, bucket);
}

static enum status cuda_warm_up(struct stream *stream, int max_batch, forward_fn forward,
                                void *context)
{
    for (int bucket : buckets)
        if (bucket < max_batch)
            TRY(cuda_run(stream, bucket, max_batch, forward, context));
    TRY(cuda_run(stream, max_batch, max_batch, forward, context));
    return cuda_sync(stream);
}

// ---- the device ---------------------------------------------------------------------------------

static void cuda_destroy(struct backend *backend)
{
    tuning_free(cuda(backend)->tuning);
    free(backend);
}

static const struct backend_ops cuda_ops = {
    .alloc = enter<cuda_alloc>,
    .free = enter<cuda_free>,
    .alloc_host = enter<cuda_alloc_host>,
    .free_host = enter<cuda_free_host>,
    .packed_bytes = cuda_packed_bytes,
    .pack = enter<cuda_pack>,
    .round = cuda_round,
    .stream_create = enter<cuda_stream_create>,
    .stream_free = enter<cuda_stream_free>,
    .upload = enter<cuda_upload>,
    .download = enter<cuda_download>,
    .embed = enter<embed_cuda>,
    .layernorm = enter<layernorm_cuda>,
    .linear = enter<linear_cuda>,
    .attention = enter<attention_cuda>,
    .run = enter<cuda_run>,
    .warm_up = enter<cuda_warm_up>,
    .sync = enter<cuda_sync>,
    .peak = enter<peak_cuda>,
    .destroy = cuda_destroy,
};

static enum status choose_precision(struct cuda_backend *cuda, enum precision precision)
{
    bool ampere = cuda->compute_capability >= 80;
    if (precision == PRECISION_AUTO)
        precision = ampere ? PRECISION_BF16 : PRECISION_FP16;
    bool known = precision == PRECISION_FP32 || precision == PRECISION_FP16 ||
                 (ampere && (precision == PRECISION_BF16 || precision == PRECISION_TF32));
    if (!known)
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "%s computes in fp32%s and fp16 only",
                           cuda->base.device_name, ampere ? ", tf32, bf16" : "");
    bool wide = precision == PRECISION_FP32 || precision == PRECISION_TF32;
    cuda->base.precision = precision;
    cuda->base.activation_bytes = wide ? 4 : 2;
    cuda->types.activation = wide                          ? CUDA_R_32F
                             : precision == PRECISION_BF16 ? CUDA_R_16BF
                                                           : CUDA_R_16F;
    cuda->types.compute =
        precision == PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    return STATUS_OK;
}

extern "C" __attribute__((visibility("default"))) enum status backend_cuda_count(int *count)
{
    *count = 0;
    cudaError_t error = cudaGetDeviceCount(count);
    if (error != cudaSuccess || *count == 0)
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "no usable GPU: %s",
                           error != cudaSuccess ? cudaGetErrorString(error) : "none found");
    return STATUS_OK;
}

static enum status read_properties(struct cuda_backend *cuda, int device)
{
    int count;
    TRY(backend_cuda_count(&count));
    if (device >= count)
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "there is no GPU %d, only %d", device, count);
    cudaDeviceProp properties;
    TRY_CUDA(cudaSetDevice(device));
    TRY_CUDA(cudaGetDeviceProperties(&properties, device));
    snprintf(cuda->base.device_name, sizeof cuda->base.device_name, "%.127s", properties.name);
    cuda->device = device;
    cuda->compute_capability = properties.major * 10 + properties.minor;
    cuda->multiprocessors = properties.multiProcessorCount;
    cuda->l2_bytes = size_t(properties.l2CacheSize);
    if (cuda->compute_capability < 75)
        return status_fail(STATUS_UNSUPPORTED_DEVICE, "%s is older than compute capability 7.5",
                           properties.name);
    return STATUS_OK;
}

extern "C" __attribute__((visibility("default"))) enum status
backend_cuda_create(int device, enum precision precision, struct backend **out)
{
    struct cuda_backend *cuda = static_cast<struct cuda_backend *>(calloc(1, sizeof *cuda));
    if (!cuda)
        return status_fail(STATUS_OUT_OF_MEMORY, "cuda: out of memory");
    cuda->base.ops = &cuda_ops;
    cuda->base.name = "cuda";
    cuda->base.workers = 2; // one uploads while the other computes
    enum status status = read_properties(cuda, device);
    if (status == STATUS_OK)
        status = choose_precision(cuda, precision);
    if (status == STATUS_OK)
        status = without_exceptions(
            [=] { return tuning_open(cuda, cublasLtGetVersion(), &cuda->tuning); });
    if (status != STATUS_OK) {
        cuda_destroy(&cuda->base);
        return status;
    }
    *out = &cuda->base;
    return STATUS_OK;
}
