// out = in . weight^T + bias, then GELU, or added to what out holds: cuBLASLt.
//
// cuBLASLt counts in columns: our row-major out (M, N) is its N x M matrix, weight (N, K) is its
// K x N, transposed, and in (M, K) is its K x M, so no operand is ever moved. Sums are fp32. The
// bias is added by the library's epilogue, in out's type; GELU is our own kernel, because the
// epilogue's is the tanh form. LINEAR_RESIDUAL reads and writes out in place (beta = 1).
//
// A plan is one product compiled for one shape: descriptors and an algorithm. The library's ranking
// is a guess, so a plan's candidates are timed once, with the second-level cache flushed before
// each run as it is when a whole network passes through it, and the choice is kept in a file by
// GPU and library version (tuning.cu). Plans are made while the server warms up.

#include "cuda_backend.cuh"
#include "tuning.cuh"
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

struct plan {
    struct tuning_key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t weight, in, out;
    cublasLtMatmulAlgo_t algo;
};

struct matmul_plans {
    cublasLtHandle_t handle;
    void *workspace;
    std::vector<struct plan> plans;
};

enum { CANDIDATES = 16, TIMED_RUNS = 5 };
static const size_t WORKSPACE_BYTES = size_t(32) << 20; // NVIDIA's recommendation for Hopper

enum status matmul_plans_create(struct cuda_stream *stream)
{
    struct matmul_plans *plans = stream->plans = new (std::nothrow) matmul_plans();
    if (!plans)
        return status_fail(STATUS_OUT_OF_MEMORY, "cuda: out of memory");
    TRY_CUBLAS(cublasLtCreate(&plans->handle));
    TRY_CUDA(cudaMalloc(&plans->workspace, WORKSPACE_BYTES));
    return STATUS_OK;
}

static void plan_release(const struct plan *plan)
{
    cublasLtMatrixLayoutDestroy(plan->out);
    cublasLtMatrixLayoutDestroy(plan->in);
    cublasLtMatrixLayoutDestroy(plan->weight);
    cublasLtMatmulDescDestroy(plan->operation);
}

void matmul_plans_free(struct matmul_plans *plans)
{
    if (!plans)
        return;
    for (const struct plan &plan : plans->plans)
        plan_release(&plan);
    cudaFree(plans->workspace);
    if (plans->handle)
        cublasLtDestroy(plans->handle);
    delete plans;
}

static bool is_fp32_out(enum linear_kind kind)
{
    return kind == LINEAR_RESIDUAL || kind == LINEAR_LOGITS;
}

static struct tuning_key key_of(const struct cuda_types *types, const struct matmul *m)
{
    struct tuning_key key = {};
    key.out_stride = m->out_stride;
    key.in_distance = m->in_distance;
    key.out_distance = m->out_distance;
    key.kind = m->kind == LINEAR_GELU ? LINEAR_BIAS : m->kind;
    key.type = types->activation;
    key.compute = types->compute;
    key.M = m->M;
    key.N = m->N;
    key.K = m->K;
    key.batch = m->batch;
    return key;
}

static enum status matrix(cublasLtMatrixLayout_t *layout, cudaDataType_t type, int64_t rows,
                          int64_t columns, int64_t stride, int batch, int64_t distance)
{
    TRY_CUBLAS(cublasLtMatrixLayoutCreate(layout, type, rows, columns, stride));
    if (batch == 1)
        return STATUS_OK;
    TRY_CUBLAS(cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch,
                                                sizeof batch));
    TRY_CUBLAS(cublasLtMatrixLayoutSetAttribute(
        *layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &distance, sizeof distance));
    return STATUS_OK;
}

static enum status describe(const struct cuda_types *types, const struct tuning_key *key,
                            struct plan *plan)
{
    cudaDataType_t out = is_fp32_out(linear_kind(key->kind)) ? CUDA_R_32F : types->activation;
    cublasOperation_t transpose = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    TRY_CUBLAS(cublasLtMatmulDescCreate(&plan->operation, types->compute, CUDA_R_32F));
    TRY_CUBLAS(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                              &transpose, sizeof transpose));
    TRY_CUBLAS(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                              &epilogue, sizeof epilogue));
    TRY_CUBLAS(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                                              &out, sizeof out));
    TRY(matrix(&plan->weight, types->activation, key->K, key->N, key->K, key->batch, 0));
    TRY(matrix(&plan->in, types->activation, key->K, key->M, key->K, key->batch, key->in_distance));
    return matrix(&plan->out, out, key->N, key->M, key->out_stride, key->batch, key->out_distance);
}

// The bias in the type of out; the heuristic asks for it too, it looks at its alignment.
static enum status set_bias(const struct plan *plan, const struct matmul *m)
{
    const void *bias = m->bias;
    if (!is_fp32_out(m->kind))
        bias = reinterpret_cast<const char *>(m->bias) + packed_vector_offset(m->N);
    TRY_CUBLAS(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                              &bias, sizeof bias));
    return STATUS_OK;
}

static enum status execute(struct cuda_stream *stream, const struct plan *plan,
                           const struct matmul *m)
{
    struct matmul_plans *plans = stream->plans;
    float alpha = 1.0f, beta = m->kind == LINEAR_RESIDUAL ? 1.0f : 0.0f;
    TRY(set_bias(plan, m));
    TRY_CUBLAS(cublasLtMatmul(plans->handle, plan->operation, &alpha, m->weight, plan->weight,
                              m->in, plan->in, &beta, m->out, plan->out, m->out, plan->out,
                              &plan->algo, plans->workspace, WORKSPACE_BYTES, stream->stream));
    return STATUS_OK;
}

static enum status find_candidates(struct cuda_stream *stream, const struct plan *plan,
                                   cublasLtMatmulHeuristicResult_t *results, int *count)
{
    cublasLtMatmulPreference_t preference;
    TRY_CUBLAS(cublasLtMatmulPreferenceCreate(&preference));
    cublasStatus_t error =
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &WORKSPACE_BYTES, sizeof WORKSPACE_BYTES);
    uint32_t alignment = 16; // what every packed weight and activation row has
    for (cublasLtMatmulPreferenceAttributes_t which :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
        if (error == CUBLAS_STATUS_SUCCESS)
            error = cublasLtMatmulPreferenceSetAttribute(preference, which, &alignment,
                                                         sizeof alignment);
    if (error == CUBLAS_STATUS_SUCCESS)
        error = cublasLtMatmulAlgoGetHeuristic(stream->plans->handle, plan->operation, plan->weight,
                                               plan->in, plan->out, plan->out, preference,
                                               CANDIDATES, results, count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (error == CUBLAS_STATUS_NOT_SUPPORTED || (error == CUBLAS_STATUS_SUCCESS && *count == 0))
        return status_fail(STATUS_UNSUPPORTED_DEVICE,
                           "cuBLASLt has no algorithm for a product of %d x %d x %d", plan->key.M,
                           plan->key.N, plan->key.K);
    return error == CUBLAS_STATUS_SUCCESS ? STATUS_OK
                                          : cublas_failed(error, "cublasLtMatmulAlgoGetHeuristic");
}

// What one product writes, from the first value to the last.
static size_t out_bytes(const struct matmul *m)
{
    return sizeof(float) * ((m->batch - 1) * m->out_distance + (m->M - 1) * m->out_stride + m->N);
}

// Median time of the plan's algorithm on cold caches.
static enum status time_plan(struct cuda_stream *stream, const struct plan *plan,
                             const struct matmul *m, void *flush, size_t flush_bytes, float *ms)
{
    float times[TIMED_RUNS];
    cudaEvent_t start = nullptr, end = nullptr;
    TRY_CUDA(cudaEventCreate(&start));
    TRY_CUDA(cudaEventCreate(&end));
    for (float &time : times) {
        TRY_CUDA(cudaMemsetAsync(flush, 0, flush_bytes, stream->stream));
        TRY_CUDA(cudaEventRecord(start, stream->stream));
        TRY(execute(stream, plan, m));
        TRY_CUDA(cudaEventRecord(end, stream->stream));
        TRY_CUDA(cudaEventSynchronize(end));
        TRY_CUDA(cudaEventElapsedTime(&time, start, end));
    }
    TRY_CUDA(cudaEventDestroy(start));
    TRY_CUDA(cudaEventDestroy(end));
    std::sort(times, times + TIMED_RUNS);
    *ms = times[TIMED_RUNS / 2];
    return STATUS_OK;
}

// Times the candidates, on an output of their own: the real one may be a sum in the making.
static enum status choose(struct cuda_stream *stream, struct plan *plan, const struct matmul *m,
                          const cublasLtMatmulHeuristicResult_t *results, int count)
{
    size_t flush_bytes = 2 * backend_of(&stream->base)->l2_bytes;
    struct matmul trial = *m;
    void *flush = nullptr;
    float best = INFINITY;
    int chosen = 0;
    TRY_CUDA(cudaMalloc(&flush, flush_bytes));
    TRY_CUDA(cudaMalloc(&trial.out, out_bytes(m)));
    TRY_CUDA(cudaMemsetAsync(trial.out, 0, out_bytes(m), stream->stream));
    for (int i = 0; i < count; i++) {
        float ms = INFINITY;
        plan->algo = results[i].algo;
        TRY(time_plan(stream, plan, &trial, flush, flush_bytes, &ms));
        if (ms < best)
            best = ms, chosen = i;
    }
    plan->algo = results[chosen].algo;
    TRY_CUDA(cudaFree(trial.out));
    TRY_CUDA(cudaFree(flush));
    return STATUS_OK;
}

static bool still_valid(struct cuda_stream *stream, const struct plan *plan)
{
    cublasLtMatmulHeuristicResult_t result;
    return cublasLtMatmulAlgoCheck(stream->plans->handle, plan->operation, plan->weight, plan->in,
                                   plan->out, plan->out, &plan->algo,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= WORKSPACE_BYTES;
}

static enum status compile(struct cuda_stream *stream, struct plan *plan, const struct matmul *m)
{
    struct tuning *tuning = backend_of(&stream->base)->tuning;
    TRY(describe(&backend_of(&stream->base)->types, &plan->key, plan));
    TRY(set_bias(plan, m));
    if (tuning_find(tuning, &plan->key, &plan->algo) && still_valid(stream, plan))
        return STATUS_OK;
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    int count = 0;
    TRY(find_candidates(stream, plan, results, &count));
    plan->algo = results[0].algo;
    if (count > 1)
        TRY(choose(stream, plan, m, results, count));
    tuning_keep(tuning, &plan->key, &plan->algo);
    return STATUS_OK;
}

static enum status find_plan(struct cuda_stream *stream, const struct matmul *m,
                             const struct plan **found)
{
    struct tuning_key key = key_of(&backend_of(&stream->base)->types, m);
    std::vector<struct plan> &plans = stream->plans->plans;
    for (const struct plan &plan : plans)
        if (memcmp(&plan.key, &key, sizeof key) == 0) {
            *found = &plan;
            return STATUS_OK;
        }
    struct plan plan = {};
    plan.key = key;
    enum status status = compile(stream, &plan, m);
    if (status != STATUS_OK) {
        plan_release(&plan);
        return status;
    }
    plans.push_back(plan);
    *found = &plans.back();
    return STATUS_OK;
}

// ---- GELU ---------------------------------------------------------------------------------------

static __device__ float gelu(float x)
{
    return 0.5f * x * (1.0f + erff(x * 0.70710678f)); // x / sqrt 2
}

// x = gelu(x), in place; eight values a thread. Bound by one read and one write
// of x, which for the batches that matter is in the second-level cache.
template <class T> static __global__ void __launch_bounds__(256) gelu_kernel(T *x, int64_t count)
{
    int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (first + 8 <= count) {
        float values[8];
        load8(values, x + first);
        for (float &value : values)
            value = gelu(value);
        store4(x + first, float4{values[0], values[1], values[2], values[3]});
        store4(x + first + 4, float4{values[4], values[5], values[6], values[7]});
    } else {
        for (int64_t i = first; i < count; i++)
            store1(x + i, gelu(to_float(x[i])));
    }
}

template <class T>
static enum status launch_gelu(struct cuda_stream *stream, void *x, int64_t count)
{
    int64_t threads = (count + 7) / 8;
    return cuda_launch(stream, dim3(unsigned((threads + 255) / 256)), dim3(256), 0, gelu_kernel<T>,
                       static_cast<T *>(x), count);
}

static enum status apply_gelu(struct cuda_stream *stream, void *x, int64_t count)
{
    switch (backend_of(&stream->base)->types.activation) {
    case CUDA_R_16BF:
        return launch_gelu<__nv_bfloat16>(stream, x, count);
    case CUDA_R_16F:
        return launch_gelu<__half>(stream, x, count);
    default:
        return launch_gelu<float>(stream, x, count);
    }
}

enum status matmul_cuda(struct cuda_stream *stream, const struct matmul *m)
{
    const struct plan *plan = nullptr;
    TRY(find_plan(stream, m, &plan));
    TRY(execute(stream, plan, m));
    return m->kind == LINEAR_GELU ? apply_gelu(stream, m->out, int64_t(m->M) * m->N) : STATUS_OK;
}

enum status linear_cuda(struct stream *stream, const struct linear_args *args)
{
    struct matmul matmul = {};
    matmul.kind = args->kind;
    matmul.out = args->out;
    matmul.in = args->in;
    matmul.weight = args->weight;
    matmul.bias = args->bias;
    matmul.out_stride = args->out_stride;
    matmul.M = args->B * args->rows;
    matmul.N = args->N;
    matmul.K = args->K;
    matmul.batch = 1;
    return matmul_cuda(reinterpret_cast<struct cuda_stream *>(stream), &matmul);
}
