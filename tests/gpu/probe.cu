// What the device itself costs, apart from our code: the constants of model.py, and what
// cuBLASLt's heuristic and its GELU are worth at the shapes of vit_b_32. Prints one line each.
// Usage: probe

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <vector>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        auto error_ = (call);                                                                      \
        if (int(error_) != 0) {                                                                    \
            fprintf(stderr, "probe: %s gives %d\n", #call, int(error_));                           \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { RUNS = 15, CANDIDATES = 16, WEIGHTS = 12 };

static cudaStream_t stream;

template <class F> static double median_us(F once)
{
    double times[RUNS];
    once();
    CHECK(cudaStreamSynchronize(stream));
    for (double &time : times) {
        auto start = std::chrono::steady_clock::now();
        once();
        CHECK(cudaStreamSynchronize(stream));
        time = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
                   .count();
    }
    std::sort(times, times + RUNS);
    return times[RUNS / 2];
}

// Microseconds on the device of work() repeated `count` times, recorded as one graph.
template <class F> static double graph_us(int count, F work)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < count; i++)
        work(i);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    cudaEvent_t start, end;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&end));
    float times[RUNS];
    CHECK(cudaGraphLaunch(exec, stream));
    for (float &time : times) {
        CHECK(cudaEventRecord(start, stream));
        CHECK(cudaGraphLaunch(exec, stream));
        CHECK(cudaEventRecord(end, stream));
        CHECK(cudaEventSynchronize(end));
        CHECK(cudaEventElapsedTime(&time, start, end));
    }
    std::sort(times, times + RUNS);
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    return times[RUNS / 2] * 1e3 / count;
}

static __global__ void nothing() {}

static __global__ void nothing_dependent()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static void launch(void (*kernel)(), int blocks, bool early)
{
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(128);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = early ? 1 : 0;
    CHECK(cudaLaunchKernelEx(&config, kernel));
}

static void probe_launches()
{
    for (int blocks : {1, 132, 1056}) {
        printf("graph of 100 empty kernels of %4d blocks: %.2f us each, %.2f with programmatic "
               "dependent launch\n",
               blocks, graph_us(100, [=](int) { launch(nothing, blocks, false); }),
               graph_us(100, [=](int) { launch(nothing_dependent, blocks, true); }));
    }
    printf("empty kernel, launch to end of a spinning wait: %.2f us\n",
           median_us([] { launch(nothing, 1, false); }));
    cudaEvent_t event;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming));
    printf("empty kernel, launch to end of a sleeping wait: %.2f us\n", median_us([=] {
               launch(nothing, 1, false);
               CHECK(cudaEventRecord(event, stream));
               CHECK(cudaEventSynchronize(event));
           }));
}

static void probe_copies()
{
    size_t image = 224 * 224 * 3, large = size_t(1) << 30;
    void *host, *a, *b;
    CHECK(cudaHostAlloc(&host, large, cudaHostAllocPortable));
    CHECK(cudaMalloc(&a, 2 * large));
    CHECK(cudaMalloc(&b, 2 * large));
    CHECK(cudaMemset(a, 1, 2 * large));
    double us = graph_us(
        2, [=](int) { CHECK(cudaMemcpyAsync(b, a, 2 * large, cudaMemcpyDeviceToDevice, stream)); });
    printf("device to device: %.2f TB/s read and written\n", 4.0 * double(large) / us * 1e-6);
    us = median_us([=] { CHECK(cudaMemcpyAsync(a, host, large, cudaMemcpyHostToDevice, stream)); });
    printf("pinned host to device: %.1f GB/s\n", double(large) / us * 1e-3);
    for (int images : {1, 8, 64, 112}) {
        us = median_us([=] {
            for (int i = 0; i < images; i++)
                CHECK(cudaMemcpyAsync(static_cast<char *>(a) + i * image,
                                      static_cast<char *>(host) + i * image, image,
                                      cudaMemcpyHostToDevice, stream));
        });
        double once = median_us([=] {
            CHECK(cudaMemcpyAsync(a, host, images * image, cudaMemcpyHostToDevice, stream));
        });
        printf("upload of %3d images of 224 px: %.1f us one by one, %.1f us in one copy\n", images,
               us, once);
    }
    CHECK(cudaFreeHost(host));
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
}

struct product {
    const char *name;
    int N, K;
    bool residual;
};

struct operands {
    __nv_bfloat16 *weights, *in, *bias; // (WEIGHTS, 3072, 3072), (M, 3072), (3072)
    void *out, *workspace;
    size_t workspace_bytes;
};

static __global__ void fill(__nv_bfloat16 *values, int64_t count)
{
    for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;
         i += int64_t(gridDim.x) * blockDim.x)
        values[i] = __float2bfloat16(float(int32_t(uint32_t(i) * 2654435761u)) * 0x1p-33f);
}

// One line for a product of M rows: the heuristic's first choice and the best of sixteen, in a
// graph with other weights every time, as in a network.
static void probe_product(cublasLtHandle_t handle, const operands &o, const product &p, int M,
                          cublasLtEpilogue_t epilogue)
{
    cudaDataType_t out_type = p.residual ? CUDA_R_32F : CUDA_R_16BF;
    cublasOperation_t transpose = CUBLAS_OP_T;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t weight, in, out;
    cublasLtMatmulPreference_t preference;
    const void *bias = o.bias;
    CHECK(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                         sizeof transpose));
    CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                         sizeof epilogue));
    CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &out_type,
                                         sizeof out_type));
    CHECK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                         sizeof bias));
    CHECK(cublasLtMatrixLayoutCreate(&weight, CUDA_R_16BF, p.K, p.N, p.K));
    CHECK(cublasLtMatrixLayoutCreate(&in, CUDA_R_16BF, p.K, M, p.K));
    CHECK(cublasLtMatrixLayoutCreate(&out, out_type, p.N, M, p.N));
    CHECK(cublasLtMatmulPreferenceCreate(&preference));
    CHECK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &o.workspace_bytes, sizeof o.workspace_bytes));
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    int count = 0, failed = 0, best_at = 0;
    CHECK(cublasLtMatmulAlgoGetHeuristic(handle, operation, weight, in, out, out, preference,
                                         CANDIDATES, results, &count));
    double first = 0.0, best = 1e9;
    for (int i = 0; i < count; i++) {
        float alpha = 1.0f, beta = p.residual ? 1.0f : 0.0f;
        auto multiply = [&](int j) {
            return cublasLtMatmul(handle, operation, &alpha,
                                  o.weights + int64_t(j % WEIGHTS) * 3072 * 3072, weight, o.in, in,
                                  &beta, o.out, out, o.out, out, &results[i].algo, o.workspace,
                                  o.workspace_bytes, stream);
        };
        if (results[i].state != CUBLAS_STATUS_SUCCESS || multiply(0) != CUBLAS_STATUS_SUCCESS) {
            failed++;
            continue;
        }
        double us = graph_us(WEIGHTS, [&](int j) { CHECK(multiply(j)); });
        first = i == 0 ? us : first;
        if (us < best)
            best = us, best_at = i;
    }
    printf("M %5d %-8s %-9s first %7.2f best %7.2f us (%2d of %2d, %d failed) %6.1f TFLOP/s\n", M,
           p.name, epilogue == CUBLASLT_EPILOGUE_BIAS ? "bias" : "gelu_bias", first, best, best_at,
           count, failed, 2.0 * M * p.N * p.K / best * 1e-6);
    fflush(stdout);
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(out);
    cublasLtMatrixLayoutDestroy(in);
    cublasLtMatrixLayoutDestroy(weight);
    cublasLtMatmulDescDestroy(operation);
}

static void probe_products()
{
    static const product products[] = {{"in_proj", 2304, 768, false},
                                       {"out_proj", 768, 768, true},
                                       {"mlp_in", 3072, 768, false},
                                       {"mlp_out", 768, 3072, true}};
    enum { LARGEST = 12800 };
    cublasLtHandle_t handle;
    operands o = {};
    o.workspace_bytes = size_t(32) << 20;
    CHECK(cublasLtCreate(&handle));
    CHECK(cudaMalloc(&o.weights, sizeof(__nv_bfloat16) * WEIGHTS * 3072 * 3072));
    CHECK(cudaMalloc(&o.in, sizeof(__nv_bfloat16) * LARGEST * 3072));
    CHECK(cudaMalloc(&o.out, sizeof(float) * LARGEST * 3072));
    CHECK(cudaMalloc(&o.bias, sizeof(float) * 3072));
    CHECK(cudaMalloc(&o.workspace, o.workspace_bytes));
    CHECK(cudaMemset(o.bias, 0, sizeof(float) * 3072));
    CHECK(cudaMemset(o.out, 0, sizeof(float) * LARGEST * 3072));
    fill<<<1024, 256, 0, stream>>>(o.weights, int64_t(WEIGHTS) * 3072 * 3072);
    fill<<<1024, 256, 0, stream>>>(o.in, int64_t(LARGEST) * 3072);
    CHECK(cudaStreamSynchronize(stream));
    for (int images : {1, 8, 64, 112, 256})
        for (const product &p : products) {
            probe_product(handle, o, p, 50 * images, CUBLASLT_EPILOGUE_BIAS);
            if (p.N == 3072)
                probe_product(handle, o, p, 50 * images, CUBLASLT_EPILOGUE_GELU_BIAS);
        }
}

int main()
{
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0));
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    printf("%s, %d multiprocessors, %d MiB of L2, cuBLASLt %zu\n", properties.name,
           properties.multiProcessorCount, properties.l2CacheSize >> 20, cublasLtGetVersion());
    probe_launches();
    probe_copies();
    probe_products();
    return 0;
}
