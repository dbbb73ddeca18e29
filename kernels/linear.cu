// out = in . weight^T + bias, then GELU, or added to what out holds: cuBLASLt.
//
// cuBLASLt counts in columns: our row-major out (M, N) is its N x M matrix, weight (N, K) is its
// K x N, transposed, and in (M, K) is its K x M, so no operand is ever moved. Sums are fp32. The
// bias is added by the library's epilogue, in out's type; GELU is our own kernel, because the
// epilogue's is the tanh form, and that approximately. LINEAR_RESIDUAL reads and writes out in
// place (beta = 1).
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
    key.kind = m->kind == LINEAR_GELU ? LINEAR_BIAS : m->kind;
    key.type = types->activation;
    key.compute = types->compute;
    key.M = m->M;
    key.N = m->N;
    key.K = m->K;
    return key;
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
    TRY_CUBLAS(
        cublasLtMatrixLayoutCreate(&plan->weight, types->activation, key->K, key->N, key->K));
    TRY_CUBLAS(cublasLtMatrixLayoutCreate(&plan->in, types->activation, key->K, key->M, key->K));
    TRY_CUBLAS(cublasLtMatrixLayoutCreate(&plan->out, out, key->N, key->M, key->out_stride));
    return STATUS_OK;
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

static cublasStatus_t multiply(struct cuda_stream *stream, const struct plan *plan,
                               const struct matmul *m)
{
    struct matmul_plans *plans = stream->plans;
    float alpha = 1.0f, beta = m->kind == LINEAR_RESIDUAL ? 1.0f : 0.0f;
    return cublasLtMatmul(plans->handle, plan->operation, &alpha, m->weight, plan->weight, m->in,
                          plan->in, &beta, m->out, plan->out, m->out, plan->out, &plan->algo,
                          plans->workspace, WORKSPACE_BYTES, stream->stream);
}

static enum status no_algorithm(const struct tuning_key *key)
{
    return status_fail(STATUS_UNSUPPORTED_DEVICE,
                       "cuBLASLt has no algorithm for a product of %d x %d x %d", key->M, key->N,
                       key->K);
}

// Every packed weight and activation row starts on 16 bytes. Where the library splits K, partial
// sums stay in fp32: by default it may keep them in the type of the output.
static const struct {
    cublasLtMatmulPreferenceAttributes_t attribute;
    uint32_t value;
} preferences[] = {
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 16},
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 16},
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, 16},
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 16},
    {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
};

static enum status find_candidates(struct cuda_stream *stream, const struct plan *plan,
                                   cublasLtMatmulHeuristicResult_t *results, int *count)
{
    cublasLtMatmulPreference_t preference;
    TRY_CUBLAS(cublasLtMatmulPreferenceCreate(&preference));
    cublasStatus_t error =
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &WORKSPACE_BYTES, sizeof WORKSPACE_BYTES);
    for (const auto &wanted : preferences)
        if (error == CUBLAS_STATUS_SUCCESS)
            error = cublasLtMatmulPreferenceSetAttribute(preference, wanted.attribute,
                                                         &wanted.value, sizeof wanted.value);
    if (error == CUBLAS_STATUS_SUCCESS)
        error = cublasLtMatmulAlgoGetHeuristic(stream->plans->handle, plan->operation, plan->weight,
                                               plan->in, plan->out, plan->out, preference,
                                               CANDIDATES, results, count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (error == CUBLAS_STATUS_NOT_SUPPORTED)
        return no_algorithm(&plan->key);
    return error == CUBLAS_STATUS_SUCCESS ? STATUS_OK
                                          : cublas_failed(error, "cublasLtMatmulAlgoGetHeuristic");
}

// Where candidates are tried: on an output of their own, since the real one may be a sum in the
// making, with what empties the second-level cache between two runs.
struct trial {
    struct matmul matmul;
    device_memory out, flush;
    size_t flush_bytes;
    event start, end;
};

static enum status prepare(struct cuda_stream *stream, const struct matmul *m, struct trial *trial)
{
    size_t value = is_fp32_out(m->kind) ? sizeof(float) : stream->base.backend->activation_bytes;
    size_t out_bytes = value * ((m->M - 1) * m->out_stride + m->N);
    trial->flush_bytes = 2 * backend_of(&stream->base)->l2_bytes;
    TRY_CUDA(cudaEventCreate(&trial->start.handle));
    TRY_CUDA(cudaEventCreate(&trial->end.handle));
    TRY_CUDA(cudaMalloc(&trial->flush.bytes, trial->flush_bytes));
    TRY_CUDA(cudaMalloc(&trial->out.bytes, out_bytes));
    TRY_CUDA(cudaMemsetAsync(trial->out.bytes, 0, out_bytes, stream->stream));
    trial->matmul = *m;
    trial->matmul.out = trial->out.bytes;
    return STATUS_OK;
}

// Median time of the plan's algorithm on cold caches; infinite if the library refuses to run it,
// as it does with some of those that it recommends.
static enum status time_plan(struct cuda_stream *stream, const struct plan *plan,
                             struct trial *trial, float *ms)
{
    float times[TIMED_RUNS];
    *ms = INFINITY;
    for (float &time : times) {
        TRY_CUDA(cudaMemsetAsync(trial->flush.bytes, 0, trial->flush_bytes, stream->stream));
        TRY_CUDA(cudaEventRecord(trial->start.handle, stream->stream));
        if (multiply(stream, plan, &trial->matmul) != CUBLAS_STATUS_SUCCESS)
            return STATUS_OK;
        TRY_CUDA(cudaEventRecord(trial->end.handle, stream->stream));
        TRY_CUDA(cudaEventSynchronize(trial->end.handle));
        TRY_CUDA(cudaEventElapsedTime(&time, trial->start.handle, trial->end.handle));
    }
    std::sort(times, times + TIMED_RUNS);
    *ms = times[TIMED_RUNS / 2];
    return STATUS_OK;
}

// Times the candidates and takes the fastest. Of a result whose state is not success, no other
// field is defined (cublasLt.h).
static enum status choose(struct cuda_stream *stream, struct plan *plan, const struct matmul *m,
                          const cublasLtMatmulHeuristicResult_t *results, int count)
{
    struct trial trial = {};
    float best = INFINITY;
    int chosen = -1;
    TRY(prepare(stream, m, &trial));
    for (int i = 0; i < count; i++) {
        if (results[i].state != CUBLAS_STATUS_SUCCESS)
            continue;
        float ms;
        plan->algo = results[i].algo;
        TRY(time_plan(stream, plan, &trial, &ms));
        if (ms < best)
            best = ms, chosen = i;
    }
    if (chosen < 0)
        return no_algorithm(&plan->key);
    plan->algo = results[chosen].algo;
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
    plans.push_back({});
    struct plan *plan = &plans.back();
    plan->key = key;
    enum status status = compile(stream, plan, m);
    if (status != STATUS_OK) {
        plan_release(plan);
        plans.pop_back();
        return status;
    }
    *found = plan;
    return STATUS_OK;
}

// ---- GELU ---------------------------------------------------------------------------------------

template <class T> static __device__ float gelu(float x)
{
    return 0.5f * x * (1.0f + erff(x * 0.70710678f)); // x / sqrt 2
}

// To 4e-5 + 4e-8 |x|, in half as many instructions: gelu_half() of numeric.h.
template <> __device__ float gelu<__nv_bfloat16>(float x)
{
    float c = fminf(fmaxf(x, -4.375f), 4.375f), square = c * c, p = 3.67359303e-11f;
    p = p * square - 3.83426801e-09f;
    p = p * square + 1.76618968e-07f;
    p = p * square - 4.76716286e-06f;
    p = p * square + 8.46928961e-05f;
    p = p * square - 0.00105712214f;
    p = p * square + 0.00964897685f;
    p = p * square - 0.0660837069f;
    p = p * square + 0.398762941f;
    return x * (c * p + 0.5f);
}

// x = gelu(x), in place; eight values a thread. Bound by one read and one write of x: 15 us for the
// 69 MB of 112 images on an H200.
template <class T>
static __global__ void __launch_bounds__(256) gelu_kernel(T *__restrict__ x, int64_t count)
{
    int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (first + 8 <= count) {
        float values[8];
        load8(values, x + first);
        for (float &value : values)
            value = gelu<T>(value);
        store4(x + first, float4{values[0], values[1], values[2], values[3]});
        store4(x + first + 4, float4{values[4], values[5], values[6], values[7]});
    } else {
        for (int64_t i = first; i < count; i++)
            store1(x + i, gelu<T>(to_float(x[i])));
    }
}

static enum status apply_gelu(struct stream *stream, void *x, int64_t count)
{
    int64_t blocks = (count + 8 * 256 - 1) / (8 * 256);
    return with_activation_type(stream, [=](auto value) {
        using T = decltype(value);
        return cuda_launch(stream, dim3(unsigned(blocks)), dim3(256), 0, gelu_kernel<T>,
                           static_cast<T *>(x), count);
    });
}

enum status matmul_cuda(struct stream *stream, const struct matmul *m)
{
    struct cuda_stream *cuda = reinterpret_cast<struct cuda_stream *>(stream);
    const struct plan *plan = nullptr;
    TRY(find_plan(cuda, m, &plan));
    TRY(set_bias(plan, m));
    TRY_CUBLAS(multiply(cuda, plan, m));
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
    return matmul_cuda(stream, &matmul);
}
