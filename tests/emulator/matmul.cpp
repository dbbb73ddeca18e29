// cublasLtMatmul: checks, and the work that it enqueues.
//
// A product with workspace takes two steps: it fills the workspace with a pattern and finds it
// again, so that a workspace shared between streams shows.
#include "cublaslt.h"
#include "trace.h"
#include <cstdio>

namespace emulator
{

struct product {
    gemm g;
    bool scalars_on_device;
    const float *alpha, *beta; // on the device
    float host_alpha, host_beta;
    char *workspace;
    size_t workspace_needed;
};

static void check_memory(const char *name, const matrix &x, const void *values, int64_t rows,
                         int64_t columns, int64_t batches)
{
    int64_t last = (batches - 1) * x.batch_stride + (columns - 1) * x.ld + rows;
    if (!in_device_memory(values, size_t(last) * bytes_of(x.type)))
        fail("cublasLtMatmul: matrix %s does not lie in device memory", name);
}

static void check_operands(const gemm &g, float beta)
{
    check_memory("A", g.a, g.a_values, g.a.transposed ? g.k : g.m, g.a.transposed ? g.m : g.k,
                 g.batches);
    check_memory("B", g.b, g.b_values, g.b.transposed ? g.n : g.k, g.b.transposed ? g.k : g.n,
                 g.batches);
    if (beta != 0.0f)
        check_memory("C", g.c, g.c_values, g.m, g.n, g.batches);
    check_memory("D", g.d, g.d_values, g.m, g.n, g.batches);
    if (g.bias && !in_device_memory(g.bias, size_t(g.m) * bytes_of(g.bias_type)))
        fail("cublasLtMatmul: the bias does not lie in device memory");
}

// The pattern differs between products: it starts from their number.
static bool workspace_holds(const product &p, uint32_t pattern)
{
    for (size_t i = 0; i + 4 <= p.workspace_needed; i += 4) {
        uint32_t found;
        memcpy(&found, p.workspace + i, 4);
        if (found != pattern)
            return false;
    }
    return true;
}

static bool run_product(const product &p, progress &at)
{
    static uint32_t products;
    float alpha = p.scalars_on_device ? *p.alpha : p.host_alpha;
    float beta = p.scalars_on_device ? *p.beta : p.host_beta;
    if (at.position == 0 && !trace_product(p.g, beta))
        return true;
    if (at.position == 0 && p.workspace_needed) {
        at.order = {++products * 2654435761u | 0x7f800001u}; // NaN in all types
        for (size_t i = 0; i < p.workspace_needed; i++)
            p.workspace[i] = char(at.order[0] >> (8 * (i % 4)));
        at.position = 1;
        return false;
    }
    check_operands(p.g, beta);
    if (at.position == 1 && !workspace_holds(p, at.order[0]))
        fail("cublasLtMatmul: another stream wrote to its workspace");
    run_gemm(p.g, alpha, beta);
    return true;
}

static matrix matrix_of(const layout &x, int32_t operation)
{
    return {cudaDataType(x.type), x.ld, x.batches > 1 ? x.stride : 0, operation != CUBLAS_OP_N};
}

static bool aligned(const void *p, uint32_t bytes)
{
    return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

struct scalars {
    const void *alpha, *beta;
};
struct pointers {
    const void *a, *b, *c;
    void *d;
};

static cublasStatus_t check_pointers(const problem &p, const algorithm &chosen, const scalars &s,
                                     const pointers &at)
{
    const void *all[4] = {at.a, at.b, at.c ? at.c : at.d, at.d};
    for (int i = 0; i < 4; i++)
        if (!aligned(all[i], chosen.alignment[i])) {
            fprintf(stderr, "emulator: cublasLtMatmul: matrix %c is not aligned to %u bytes\n",
                    "ABCD"[i], chosen.alignment[i]);
            return CUBLAS_STATUS_INVALID_VALUE;
        }
    bool host_beta = p.how->pointer_mode == CUBLASLT_POINTER_MODE_HOST &&
                     *static_cast<const float *>(s.beta) != 0.0f;
    bool in_place = at.c == at.d;
    if (((p.how->epilogue & CUBLASLT_EPILOGUE_BIAS) && !p.how->bias) || (host_beta && !at.c) ||
        (in_place && (p.c->ld != p.d->ld || p.c->stride != p.d->stride)))
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

static product make_product(const problem &p, const algorithm &chosen, const scalars &s,
                            const pointers &at)
{
    product run = {};
    run.g.m = int64_t(p.d->rows);
    run.g.n = int64_t(p.d->columns);
    run.g.k = int64_t(p.how->transa == CUBLAS_OP_N ? p.a->columns : p.a->rows);
    run.g.batches = p.d->batches;
    run.g.a = matrix_of(*p.a, p.how->transa);
    run.g.b = matrix_of(*p.b, p.how->transb);
    run.g.c = matrix_of(*p.c, CUBLAS_OP_N);
    run.g.d = matrix_of(*p.d, CUBLAS_OP_N);
    run.g.a_values = at.a, run.g.b_values = at.b, run.g.c_values = at.c, run.g.d_values = at.d;
    run.g.bias = p.how->epilogue & CUBLASLT_EPILOGUE_BIAS ? p.how->bias : nullptr;
    run.g.bias_type = cudaDataType(p.d->type);
    run.g.bias_stride = p.how->bias_stride;
    run.g.tf32 = p.how->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    run.g.gelu = p.how->epilogue & CUBLASLT_EPILOGUE_GELU;
    run.g.splits = chosen.splits;
    run.alpha = static_cast<const float *>(s.alpha);
    run.beta = static_cast<const float *>(s.beta);
    run.scalars_on_device = p.how->pointer_mode == CUBLASLT_POINTER_MODE_DEVICE;
    if (!run.scalars_on_device) { // taken at the call
        run.host_alpha = *run.alpha;
        run.host_beta = *run.beta;
    }
    run.workspace_needed = chosen.workspace_bytes;
    return run;
}

} // namespace emulator

using namespace emulator;

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t how, const void *alpha,
                              const void *A, cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta, const void *C,
                              cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    return lt_call(__func__, [&] {
        if (!handle || !how || !alpha || !beta || !A || !B || !D || !a || !b || !c || !d)
            return CUBLAS_STATUS_INVALID_VALUE;
        problem p = {&as<description>(how), &as<layout>(a), &as<layout>(b), &as<layout>(c),
                     &as<layout>(d)};
        algorithm chosen = {
            magic,       hash(p), 0, 0, 1, current_settings().library, CUBLAS_STATUS_SUCCESS,
            {1, 1, 1, 1}};
        if (algo)
            chosen = as<const algorithm>(algo);
        if (chosen.magic == no_algorithm)
            fail("cublasLtMatmul: an algorithm from a result whose state is not SUCCESS");
        cublasStatus_t status = check_problem(p);
        if (status == CUBLAS_STATUS_SUCCESS)
            status = check_algorithm(p, chosen);
        if (status == CUBLAS_STATUS_SUCCESS)
            status = check_pointers(p, chosen, {alpha, beta}, {A, B, C, D});
        if (status == CUBLAS_STATUS_SUCCESS)
            status = chosen.fails_with;
        if (status != CUBLAS_STATUS_SUCCESS)
            return status;
        chosen.workspace_bytes = workspace_of(p, chosen.splits); // it may come from other sizes
        if (chosen.workspace_bytes > workspace_bytes || (workspace_bytes && !workspace) ||
            !aligned(workspace, 16))
            return CUBLAS_STATUS_INVALID_VALUE;
        product run = make_product(p, chosen, {alpha, beta}, {A, B, C, D});
        run.workspace = static_cast<char *>(workspace);
        enter_device(__func__);
        if (check_stream(stream) != cudaSuccess || resolve(stream)->device != current_device())
            return CUBLAS_STATUS_EXECUTION_FAILED;
        cudaError_t error =
            enqueue(stream, work([run](progress &at) { return run_product(run, at); }, true));
        return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
    });
}
