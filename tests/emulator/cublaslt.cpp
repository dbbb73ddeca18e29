// The part of cublasLt that the backend uses: its objects, and which products there are. What the
// real library does not document is refused here too, so that a combination that works is one that
// may be used.
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

} // namespace emulator

using namespace emulator;

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    return lt_call(__func__, [&] {
        enter_device(__func__);
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
