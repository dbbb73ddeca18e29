// The part of cublasLt that the backend uses. What the real library does not document is refused
// here too, so that a combination that works is one that may be used.
//
// The heuristic offers algorithms with and without workspace, for the alignments that it is told.
// An algorithm is only good for the types, transposes and epilogue for which it was found.
#include "cublaslt.h"
#include "gemm.h"

namespace emulator
{

static long live;

long live_cublaslt()
{
    return live;
}

template <class Ours, class Opaque> static cublasStatus_t create(Opaque **created, Ours values)
{
    *created = new Opaque();
    as<Ours>(*created) = values;
    live++;
    return CUBLAS_STATUS_SUCCESS;
}

template <class Opaque> static cublasStatus_t destroy(Opaque *destroyed)
{
    if (!destroyed)
        return CUBLAS_STATUS_INVALID_VALUE;
    delete destroyed;
    live--;
    return CUBLAS_STATUS_SUCCESS;
}

template <class T> static cublasStatus_t set(T *field, const void *value, size_t bytes)
{
    if (!value || bytes != sizeof *field)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

// -- what is supported ----------------------------------------------------------------------------

static bool types_supported(const problem &p)
{
    uint32_t in = p.a->type, out = p.d->type;
    if (p.how->scale != CUDA_R_32F || p.b->type != in || p.c->type != out)
        return false;
    if (p.how->bias_type >= 0 && uint32_t(p.how->bias_type) != out)
        return false;
    switch (p.how->compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
        if (in == CUDA_R_16BF && current_settings().capability < 80)
            return false;
        return (in == CUDA_R_32F || in == CUDA_R_16BF || in == CUDA_R_16F) &&
               (out == CUDA_R_32F || out == in);
    case CUBLAS_COMPUTE_32F_FAST_TF32:
        return in == CUDA_R_32F && out == CUDA_R_32F;
    default:
        return false;
    }
}

static bool epilogue_supported(uint32_t epilogue)
{
    return epilogue == CUBLASLT_EPILOGUE_DEFAULT || epilogue == CUBLASLT_EPILOGUE_BIAS ||
           epilogue == CUBLASLT_EPILOGUE_GELU || epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
}

cublasStatus_t check_problem(const problem &p)
{
    uint64_t m = p.d->rows, n = p.d->columns;
    bool ta = p.how->transa != CUBLAS_OP_N, tb = p.how->transb != CUBLAS_OP_N;
    uint64_t k = ta ? p.a->rows : p.a->columns;
    if ((ta ? p.a->columns : p.a->rows) != m || (tb ? p.b->rows : p.b->columns) != n ||
        (tb ? p.b->columns : p.b->rows) != k || p.c->rows != m || p.c->columns != n)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (const layout *x : {p.a, p.b, p.c, p.d}) {
        if (x->ld < int64_t(x->rows) || x->batches != p.d->batches || x->batches < 1 || !k)
            return CUBLAS_STATUS_INVALID_VALUE;
        if (x->order != CUBLASLT_ORDER_COL)
            return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    bool modes = p.how->pointer_mode == CUBLASLT_POINTER_MODE_HOST ||
                 p.how->pointer_mode == CUBLASLT_POINTER_MODE_DEVICE;
    bool supported = types_supported(p) && epilogue_supported(p.how->epilogue) && modes;
    return supported ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

uint64_t hash(const problem &p)
{
    uint64_t h = 14695981039346656037u; // FNV-1a
    for (uint64_t value : {uint64_t(p.how->compute), uint64_t(p.how->transa),
                           uint64_t(p.how->transb), uint64_t(p.how->epilogue), uint64_t(p.a->type),
                           uint64_t(p.d->type), uint64_t(p.d->batches > 1)})
        h = (h ^ value) * 1099511628211u;
    return h;
}

// The largest power of two up to 16 that divides every row start of the matrix.
static uint32_t alignment_of(const layout &x, uint32_t of_pointer)
{
    uint64_t bytes = bytes_of(cudaDataType(x.type)), all = of_pointer | 16 | x.ld * bytes;
    if (x.batches > 1)
        all |= x.stride * bytes;
    return uint32_t(all & -all);
}

// -- algorithms -----------------------------------------------------------------------------------

uint64_t workspace_of(const problem &p, int splits)
{
    return splits == 1 ? 0 : uint64_t(splits) * p.d->rows * p.d->columns * p.d->batches * 4;
}

static void fill_result(const problem &p, const algorithm &chosen,
                        cublasLtMatmulHeuristicResult_t *result)
{
    *result = {};
    as<algorithm>(&result->algo) = chosen;
    result->workspaceSize = chosen.workspace_bytes;
    result->state = CUBLAS_STATUS_SUCCESS;
    result->wavesCount = float(p.d->rows * p.d->columns) / (128 * 128 * 132);
}

static int find_algorithms(const problem &p, const preference &wanted, int requested,
                           cublasLtMatmulHeuristicResult_t *results)
{
    static const struct {
        int id, splits;
    } known[] = {{66, 2}, {66, 1}, {21, 1}, {67, 4}, {71, 8}};
    const layout *layouts[4] = {p.a, p.b, p.c, p.d};
    int found = 0;
    for (const auto &k : known) {
        algorithm candidate = {magic, hash(p), workspace_of(p, k.splits), k.id, k.splits, {}};
        if (candidate.workspace_bytes > wanted.workspace_bytes || found == requested)
            continue;
        for (int i = 0; i < 4; i++)
            candidate.alignment[i] = alignment_of(*layouts[i], wanted.alignment[i]);
        fill_result(p, candidate, &results[found++]);
    }
    return found;
}

cublasStatus_t check_algorithm(const problem &p, const algorithm &a)
{
    const layout *layouts[4] = {p.a, p.b, p.c, p.d};
    if (a.magic != magic || a.problem != hash(p))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 4; i++)
        if (alignment_of(*layouts[i], 16) < a.alignment[i])
            return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace emulator

using namespace emulator;

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    return lt_call(__func__, [&] {
        live++;
        *handle = reinterpret_cast<cublasLtHandle_t>(new int);
        return CUBLAS_STATUS_SUCCESS;
    });
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return lt_call(__func__, [&] { return destroy(reinterpret_cast<int *>(handle)); });
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
#define NAME(name)                                                                                 \
    case name:                                                                                     \
        return #name;
        NAME(CUBLAS_STATUS_SUCCESS)
        NAME(CUBLAS_STATUS_NOT_INITIALIZED)
        NAME(CUBLAS_STATUS_ALLOC_FAILED)
        NAME(CUBLAS_STATUS_INVALID_VALUE)
        NAME(CUBLAS_STATUS_ARCH_MISMATCH)
        NAME(CUBLAS_STATUS_MAPPING_ERROR)
        NAME(CUBLAS_STATUS_EXECUTION_FAILED)
        NAME(CUBLAS_STATUS_INTERNAL_ERROR)
        NAME(CUBLAS_STATUS_NOT_SUPPORTED)
        NAME(CUBLAS_STATUS_LICENSE_ERROR)
#undef NAME
    }
    return "unknown cublasStatus_t";
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return cublasLtGetStatusName(status);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *how, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    return lt_call(__func__, [&] {
        return create(how, description{compute, scale, CUBLASLT_POINTER_MODE_HOST, CUBLAS_OP_N,
                                       CUBLAS_OP_N, -1, CUBLASLT_EPILOGUE_DEFAULT, nullptr, 0});
    });
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t how)
{
    return lt_call(__func__, [&] { return destroy(how); });
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t how,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    return lt_call(__func__, [&] {
        if (!how)
            return CUBLAS_STATUS_INVALID_VALUE;
        description &d = as<description>(how);
        int32_t ignored;
        switch (attribute) {
        case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
            return set(&d.compute, value, bytes);
        case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
            return set(&d.scale, value, bytes);
        case CUBLASLT_MATMUL_DESC_POINTER_MODE:
            return set(&d.pointer_mode, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSA:
            return set(&d.transa, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSB:
            return set(&d.transb, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE:
            return set(&d.epilogue, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
            return set(&d.bias, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
            return set(&d.bias_type, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
            return set(&d.bias_stride, value, bytes);
        case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET: // of speed only
            return set(&ignored, value, bytes);
        default:
            return CUBLAS_STATUS_NOT_SUPPORTED;
        }
    });
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *created, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld)
{
    return lt_call(__func__, [&] {
        return create(created, layout{uint32_t(type), CUBLASLT_ORDER_COL, 1, rows, columns, ld, 0});
    });
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t destroyed)
{
    return lt_call(__func__, [&] { return destroy(destroyed); });
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t changed,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    return lt_call(__func__, [&] {
        if (!changed)
            return CUBLAS_STATUS_INVALID_VALUE;
        layout &x = as<layout>(changed);
        switch (attribute) {
        case CUBLASLT_MATRIX_LAYOUT_TYPE:
            return set(&x.type, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_ORDER:
            return set(&x.order, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_ROWS:
            return set(&x.rows, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_COLS:
            return set(&x.columns, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_LD:
            return set(&x.ld, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
            return set(&x.batches, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
            return set(&x.stride, value, bytes);
        default:
            return CUBLAS_STATUS_NOT_SUPPORTED;
        }
    });
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *created)
{
    return lt_call(__func__, [&] { return create(created, preference{0, {256, 256, 256, 256}}); });
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t destroyed)
{
    return lt_call(__func__, [&] { return destroy(destroyed); });
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t changed,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    return lt_call(__func__, [&] {
        if (!changed)
            return CUBLAS_STATUS_INVALID_VALUE;
        preference &p = as<preference>(changed);
        uint32_t ignored;
        switch (attribute) {
        case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
            return set(&p.workspace_bytes, value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
            return set(&p.alignment[0], value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
            return set(&p.alignment[1], value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
            return set(&p.alignment[2], value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
            return set(&p.alignment[3], value, bytes);
        case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
        case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
            return set(&ignored, value, bytes);
        default:
            return CUBLAS_STATUS_NOT_SUPPORTED;
        }
    });
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t how,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wanted, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    return lt_call(__func__, [&] {
        *found = 0;
        if (!handle || !how || !a || !b || !c || !d || !wanted || requested < 1)
            return CUBLAS_STATUS_INVALID_VALUE;
        problem p = {&as<description>(how), &as<layout>(a), &as<layout>(b), &as<layout>(c),
                     &as<layout>(d)};
        cublasStatus_t status = check_problem(p);
        if (status == CUBLAS_STATUS_SUCCESS)
            *found = find_algorithms(p, as<preference>(wanted), requested, results);
        return status == CUBLAS_STATUS_SUCCESS && !*found ? CUBLAS_STATUS_NOT_SUPPORTED : status;
    });
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t how,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    return lt_call(__func__, [&] {
        if (!handle || !how || !a || !b || !c || !d || !algo || !result)
            return CUBLAS_STATUS_INVALID_VALUE;
        problem p = {&as<description>(how), &as<layout>(a), &as<layout>(b), &as<layout>(c),
                     &as<layout>(d)};
        algorithm checked = as<const algorithm>(algo);
        cublasStatus_t status = check_problem(p);
        if (status == CUBLAS_STATUS_SUCCESS)
            status = check_algorithm(p, checked);
        if (status != CUBLAS_STATUS_SUCCESS)
            return status;
        checked.workspace_bytes = workspace_of(p, checked.splits); // for these sizes
        fill_result(p, checked, result);
        return status;
    });
}

// What tells algorithms apart, for people and caches.
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written)
{
    return lt_call(__func__, [&] {
        const algorithm &a = as<const algorithm>(algo);
        int32_t found = attribute == CUBLASLT_ALGO_CONFIG_ID ? a.id : a.splits;
        if (attribute != CUBLASLT_ALGO_CONFIG_ID && attribute != CUBLASLT_ALGO_CONFIG_SPLITK_NUM)
            return CUBLAS_STATUS_NOT_SUPPORTED;
        if (written)
            *written = sizeof found;
        if (bytes != sizeof found)
            return CUBLAS_STATUS_INVALID_VALUE;
        memcpy(value, &found, sizeof found);
        return CUBLAS_STATUS_SUCCESS;
    });
}
